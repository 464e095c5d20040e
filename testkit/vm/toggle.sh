#!/bin/sh
# usage: run sh toggle.sh [ROUNDS]
# A check for a new QEMU or kernel: toggles a static key in the scheduler's hot paths while the other
# CPU forks. A QEMU that mishandles it panics the guest.
round=0
rounds=${1:-400}
while :; do /run/vm/bin/true; done &
while [ "$round" -lt "$rounds" ]; do
	echo 1 >/proc/sys/kernel/sched_schedstats
	echo 0 >/proc/sys/kernel/sched_schedstats
	round=$((round + 1))
	[ $((round % 100)) != 0 ] || echo "$round"
done
echo "done $round"

# The root of its own as a script does it, in namespaces that unshare(1) has made: pivot.sh ROOT HOSTNAME PROGRAM.
# It is run by a busybox whose shell has mount and the others built in: nothing of the old root is needed after the pivot.
set -e
umask 0
mount --bind "$1" "$1"
cd "$1"
mount -t proc -o nosuid,nodev,noexec proc proc
if [ "$4" = host-devices ]; then
    mount -t tmpfs -o nosuid,noexec,mode=755,size=64k tmpfs dev
    for device in null zero full random urandom tty; do
        : > dev/$device
        mount --bind /dev/$device dev/$device
    done
else
    mount -t tmpfs -o nosuid,noexec,mode=755,size=64k tmpfs dev
    mknod dev/null c 1 3
    mknod dev/zero c 1 5
    mknod dev/full c 1 7
    mknod dev/random c 1 8
    mknod dev/urandom c 1 9
    mknod dev/tty c 5 0
fi
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
ln -s pts/ptmx dev/ptmx
mkdir -m 755 dev/pts dev/shm
mount -t devpts -o nosuid,noexec,ptmxmode=666,mode=620 devpts dev/pts
mount -t tmpfs -o nosuid,nodev,noexec,mode=1777,size=64m tmpfs dev/shm
hostname "$2"
pivot_root . .
umount -l .
cd /
exec "$3"

//! What filters will do to the calls that the child still makes under them.
//!
//! Of some answers it would die, by a signal with which the kernel writes a core dump: of memory that may be the caller's. So this is known before.

use super::bpf::BpfInstruction;
use super::listening::Bound;
use super::policy::Machine;

/// What becomes of a call. Of several filters the strictest answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    Passes,
    /// It fails, or somebody is asked who may let it fail.
    Refused,
    /// The process ends, or nobody knows.
    Deadly,
}

/// Whether the child may die of these filters before its program starts: in one of the `calls` that are left when all of them are in place, or because it cannot end.
pub(crate) fn may_kill(filters: &[Bound], calls: &[libc::c_long]) -> bool {
    let fate = |filters: &[Bound], call| filters.iter().map(|one| one.foresee(call)).max().unwrap_or(Fate::Passes);
    let before_the_last = filters.split_last().map_or(filters, |(_, before)| before);
    let ends = match fate(filters, libc::SYS_exit_group) {
        Fate::Passes => true,
        Fate::Refused => fate(filters, libc::SYS_exit) == Fate::Passes,
        Fate::Deadly => false,
    };
    !ends
        || fate(before_the_last, libc::SYS_seccomp) == Fate::Deadly
        || calls.iter().any(|call| fate(filters, *call) == Fate::Deadly)
}

/// What this program does with a call of the machine's own, whatever its arguments are.
pub(super) fn of(program: &[BpfInstruction], call: libc::c_long) -> Fate {
    let answer = u32::try_from(call).ok().and_then(|number| run(program, number));
    match answer.map(|answer| answer & libc::SECCOMP_RET_ACTION_FULL) {
        Some(libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG) => Fate::Passes,
        Some(libc::SECCOMP_RET_ERRNO | libc::SECCOMP_RET_TRACE | libc::SECCOMP_RET_USER_NOTIF) => Fate::Refused,
        _ => Fate::Deadly,
    }
}

/// Bytes of `struct seccomp_data`.
const LENGTH: u32 = 64;

/// Runs it as the kernel does. Nothing if that depends on more than the number; a program ends, because it only jumps forward.
fn run(program: &[BpfInstruction], number: u32) -> Option<u32> {
    let (mut a, mut x, mut memory) = (Some(0), Some(0), [None; 16]);
    let mut next = 0_usize;
    loop {
        let BpfInstruction { code, jt, jf, k } = *program.get(next)?;
        next += 1;
        let place = usize::try_from(k).ok()?;
        let operand = if code & 0x08 == 0 { Some(k) } else { x };
        match code {
            0x20 => a = word(k, number),
            0x80 => a = Some(LENGTH),
            0x81 => x = Some(LENGTH),
            0x00 => a = Some(k),
            0x01 => x = Some(k),
            0x60 => a = *memory.get(place)?,
            0x61 => x = *memory.get(place)?,
            0x02 => *memory.get_mut(place)? = a,
            0x03 => *memory.get_mut(place)? = x,
            0x07 => x = a,
            0x87 => a = x,
            0x06 => return Some(k),
            0x16 => return a,
            0x05 => next = next.checked_add(place)?,
            _ if code & 0x07 == 0x05 => next += usize::from(if compare(code, a?, operand?)? { jt } else { jf }),
            _ if code & 0x07 == 0x04 => a = a.zip(operand).and_then(|(a, operand)| compute(code, a, operand)),
            _ => return None,
        }
    }
}

/// Of `struct seccomp_data`: what is known before the call is made.
fn word(at: u32, number: u32) -> Option<u32> {
    match at {
        0 => Some(number),
        4 => Machine::THIS.architecture(),
        _ => None,
    }
}

fn compare(code: u16, a: u32, operand: u32) -> Option<bool> {
    match code & 0xf0 {
        0x10 => Some(a == operand),
        0x20 => Some(a > operand),
        0x30 => Some(a >= operand),
        0x40 => Some(a & operand != 0),
        _ => None,
    }
}

fn compute(code: u16, a: u32, operand: u32) -> Option<u32> {
    match code & 0xf0 {
        0x00 => Some(a.wrapping_add(operand)),
        0x10 => Some(a.wrapping_sub(operand)),
        0x20 => Some(a.wrapping_mul(operand)),
        0x30 => a.checked_div(operand),
        0x40 => Some(a | operand),
        0x50 => Some(a & operand),
        0x60 => a.checked_shl(operand),
        0x70 => a.checked_shr(operand),
        0x80 => Some(a.wrapping_neg()),
        0xa0 => Some(a ^ operand),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Seccomp, bind};
    use super::*;

    fn plain(code: u16, k: u32) -> BpfInstruction {
        BpfInstruction { code, jt: 0, jf: 0, k }
    }

    /// These calls are answered so, all others otherwise.
    fn filter(calls: &[libc::c_long], answer: u32, otherwise: u32) -> Seccomp {
        let one = |call: &libc::c_long| {
            let number = u32::try_from(*call).unwrap();
            [BpfInstruction { code: 0x15, jt: 0, jf: 1, k: number }, plain(0x06, answer)]
        };
        Seccomp::bpf([plain(0x20, 0)].into_iter().chain(calls.iter().flat_map(one)).chain([plain(0x06, otherwise)]))
    }

    fn kills(filters: &[Seccomp]) -> bool {
        may_kill(&bind(filters, 100).unwrap(), &[libc::SYS_execve])
    }

    #[test]
    fn what_a_child_may_die_of_is_known_before() {
        let (allow, errno, kill) =
            (libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_ERRNO | 1, libc::SECCOMP_RET_KILL_PROCESS);
        let (execve, group, exit) = (libc::SYS_execve, libc::SYS_exit_group, libc::SYS_exit);
        assert!(!kills(&[]));
        assert!(!kills(&[filter(&[execve, group], allow, kill)]));
        assert!(!kills(&[filter(&[execve, group], libc::SECCOMP_RET_LOG, kill)]));
        assert!(!kills(&[filter(&[execve, exit], allow, errno)]));
        assert!(!kills(&[filter(&[exit], allow, errno)]));
        for deadly in [kill, libc::SECCOMP_RET_KILL_THREAD, libc::SECCOMP_RET_TRAP, 0x1234_0000] {
            assert!(kills(&[filter(&[execve], deadly, allow)]), "{deadly:x}");
            assert!(kills(&[filter(&[group], deadly, allow)]), "{deadly:x}");
            assert!(kills(&[filter(&[execve, group], allow, deadly), filter(&[], 0, allow)]), "seccomp(2) {deadly:x}");
            assert!(!kills(&[filter(&[], 0, allow), filter(&[execve, group], allow, deadly)]), "{deadly:x}");
        }
        // It could end by either, but for the two together.
        let (one, other) = (filter(&[group], errno, allow), filter(&[exit], errno, allow));
        assert!(!kills(std::slice::from_ref(&one)) && !kills(std::slice::from_ref(&other)));
        assert!(kills(&[one, other]));
        // The child's calls pass one that asks.
        assert!(!kills(&[filter(&[execve, group, exit], kill, allow).listener()]));
    }

    #[test]
    fn our_own_filters_kill_nobody() {
        let capabilities = crate::Capabilities::none();
        let own = [
            Seccomp::no_terminal_injection(),
            Seccomp::no_user_namespaces(),
            Seccomp::container_default(&capabilities),
        ];
        assert!(!kills(&own));
        assert!(!kills(&[Seccomp::notify([libc::SYS_execve])]));
    }

    #[test]
    fn what_depends_on_more_is_taken_for_the_worst() {
        let (allow, ends) = (plain(0x06, libc::SECCOMP_RET_ALLOW), |program: &[BpfInstruction]| of(program, 1));
        // An argument that decides, and one that does not.
        assert_eq!(ends(&[plain(0x20, 16), BpfInstruction { code: 0x15, jt: 0, jf: 0, k: 0 }, allow]), Fate::Deadly);
        assert_eq!(ends(&[plain(0x20, 16), plain(0x02, 3), plain(0x04, 1), allow]), Fate::Passes);
        assert_eq!(ends(&[plain(0x20, 16), plain(0x16, 0)]), Fate::Deadly);
        assert_eq!(ends(&[]), Fate::Deadly);
        assert_eq!(ends(&[plain(0x05, u32::MAX)]), Fate::Deadly);
        // 1 << 15 less 1 is 0x7fff, and that << 16 the answer; by way of memory and X.
        let long =
            [(0x20, 0), (0x64, 15), (0x14, 1), (0x07, 0), (0x02, 2), (0x00, 16), (0x03, 1), (0x61, 2), (0x07, 0)];
        let long = long.into_iter().chain([(0x60, 1), (0x6c, 0), (0x16, 0)]).map(|(code, k)| plain(code, k));
        assert_eq!(ends(&long.collect::<Vec<_>>()), Fate::Passes);
    }
}

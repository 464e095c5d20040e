//! The filters that this crate has itself.

use super::policy::{Action, Machine, Policy, Rule, Test};
use super::table::{self, Row};
use crate::Capability;
use crate::CapabilitySet;

/// As container engines allow it to a container with these capabilities.
pub(super) fn container_default(machine: Machine, capabilities: CapabilitySet) -> Policy {
    let mut policy = Policy::new(machine, Action::Errno(libc::ENOSYS));
    policy.always(table::NOBODY, Action::Errno(libc::EPERM));
    for (capability, rows) in table::WITH {
        let allowed = capabilities.contains(*capability);
        policy.always(rows, if allowed { Action::Allow } else { Action::Errno(libc::EPERM) });
    }
    // Not before: one call stands in both.
    policy.always(table::EVERYBODY, Action::Allow);
    policy.always(if machine == Machine::X86 { table::ON_X86 } else { table::ON_ARM }, Action::Allow);
    let known = [0, 0x0008, 0x2_0000, 0x2_0008, u32::MAX];
    policy.rule(
        table::PERSONALITY,
        &Rule::When {
            cases: known.map(|personality| vec![Test::is(0, personality)]).into(),
            then: Action::Allow,
            otherwise: Action::Errno(libc::ENOSYS),
        },
    );
    let (netlink, audit) = (libc::AF_NETLINK.cast_unsigned(), libc::NETLINK_AUDIT.cast_unsigned());
    let audit_log = Rule::When {
        cases: vec![vec![Test::is(0, netlink), Test::is(2, audit)]],
        then: Action::Errno(libc::EINVAL),
        otherwise: Action::Allow,
    };
    let socket = if capabilities.contains(Capability::AuditWrite) { Rule::Always(Action::Allow) } else { audit_log };
    policy.rule(table::SOCKET, &socket);
    policy
}

/// Nothing is put into the input of a terminal.
pub(super) fn no_terminal_injection(machine: Machine) -> Policy {
    let mut policy = Policy::new(machine, Action::Allow);
    // The second also pastes, on a virtual console.
    let requests = [libc::TIOCSTI, TIOCLINUX].map(|request| vec![Test::is(1, truncated(request))]);
    refuse(&mut policy, table::IOCTL, requests.into(), libc::EPERM);
    policy
}

/// Nobody becomes root of a namespace of their own.
pub(super) fn no_user_namespaces(machine: Machine) -> Policy {
    let mut policy = Policy::new(machine, Action::Allow);
    let flag = Test::has(0, libc::CLONE_NEWUSER.cast_unsigned());
    refuse(&mut policy, table::CLONE, vec![vec![flag]], libc::EPERM);
    // Its flags are in memory, where a filter cannot look. libc makes do without it.
    policy.always(table::CLONE3, Action::Errno(libc::ENOSYS));
    policy
}

fn refuse(policy: &mut Policy, rows: &[Row], cases: Vec<Vec<Test>>, errno: i32) {
    policy.rule(rows, &Rule::When { cases, then: Action::Errno(errno), otherwise: Action::Allow });
}

/// Somebody is asked about these of the machine's own calls.
pub(super) fn notify(machine: Machine, calls: &[u32]) -> Policy {
    let mut policy = Policy::new(machine, Action::Errno(libc::ENOSYS));
    policy.only_own(calls, Action::Notify, Action::Allow);
    policy
}

const TIOCLINUX: libc::Ioctl = 0x541c;

/// As the kernel takes the number of a request.
fn truncated(request: libc::Ioctl) -> u32 {
    u32::try_from(request & 0xffff_ffff).unwrap_or(u32::MAX)
}

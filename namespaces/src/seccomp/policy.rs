//! What a filter of ours says, before it is a program: for each ABI, for each call an action.

use super::table::{NO, Row};
use std::collections::BTreeMap;

/// How many ABIs there are numbers for.
pub(super) const ABIS: usize = 5;

/// A numbering of system calls. The kernel names an architecture for each, but x32, which is x86-64 with a bit in the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Abi {
    X86_64,
    I386,
    X32,
    Aarch64,
    Arm,
}

impl Abi {
    pub(super) fn bit(self) -> u32 {
        if self == Abi::X32 { NO_CALL } else { 0 }
    }
}

/// The first number that no call of a machine's own ABI has: on x86-64 those of x32 begin here.
pub(super) const NO_CALL: u32 = 0x4000_0000;

/// ABIs of one architecture of the kernel's.
pub(super) struct Family {
    /// `AUDIT_ARCH_*`.
    pub(super) architecture: u32,
    pub(super) abis: &'static [Abi],
}

/// A machine, and what its kernel may run: the last one is looked at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Machine {
    X86,
    Arm,
}

impl Machine {
    pub(super) const THIS: Machine = if cfg!(target_arch = "x86_64") { Machine::X86 } else { Machine::Arm };

    /// That of its own calls.
    pub(super) fn architecture(self) -> Option<u32> {
        self.families().last().map(|family| family.architecture)
    }

    fn families(self) -> &'static [Family] {
        match self {
            Machine::X86 => &[
                Family { architecture: 0x4000_0003, abis: &[Abi::I386] },
                Family { architecture: 0xc000_003e, abis: &[Abi::X86_64, Abi::X32] },
            ],
            Machine::Arm => &[
                Family { architecture: 0x4000_0028, abis: &[Abi::Arm] },
                Family { architecture: 0xc000_00b7, abis: &[Abi::Aarch64] },
            ],
        }
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    Errno(i32),
    /// Whoever has the listener is asked.
    Notify,
    /// The process.
    Kill,
}

impl Action {
    pub(super) fn value(self) -> u32 {
        match self {
            Action::Allow => libc::SECCOMP_RET_ALLOW,
            Action::Errno(errno) => libc::SECCOMP_RET_ERRNO | errno.cast_unsigned() & libc::SECCOMP_RET_DATA,
            Action::Notify => libc::SECCOMP_RET_USER_NOTIF,
            Action::Kill => libc::SECCOMP_RET_KILL_PROCESS,
        }
    }
}

/// Whether some bits of an argument's low half are these. The high half is not looked at: of an `int` the kernel does not either, and a caller could put
/// anything there (CVE-2019-10063).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) argument: u8,
    pub(super) mask: u32,
    pub(super) value: u32,
}

impl Test {
    pub(super) fn is(argument: u8, value: u32) -> Self {
        Test { argument, mask: u32::MAX, value }
    }

    pub(super) fn has(argument: u8, bits: u32) -> Self {
        Test { argument, mask: bits, value: bits }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rule {
    Always(Action),
    /// If all tests of one of the cases hold.
    When {
        cases: Vec<Vec<Test>>,
        then: Action,
        otherwise: Action,
    },
}

/// All calls of a machine.
#[derive(Debug)]
pub(super) struct Policy {
    machine: Machine,
    default: Action,
    /// Another default for one ABI.
    own: Option<(Abi, Action)>,
    rules: BTreeMap<(Abi, u32), Rule>,
}

impl Policy {
    /// This for every call.
    pub(super) fn new(machine: Machine, default: Action) -> Self {
        Policy { machine, default, own: None, rules: BTreeMap::new() }
    }

    /// This for these calls; what has been said of one before is forgotten.
    pub(super) fn rule(&mut self, rows: &[Row], rule: &Rule) {
        const COLUMNS: [Abi; ABIS] = [Abi::X86_64, Abi::I386, Abi::X32, Abi::Aarch64, Abi::Arm];
        for (_, numbers) in rows {
            for (abi, number) in COLUMNS.into_iter().zip(numbers).filter(|(_, number)| **number != NO) {
                self.rules.insert((abi, number | abi.bit()), rule.clone());
            }
        }
    }

    pub(super) fn always(&mut self, rows: &[Row], action: Action) {
        self.rule(rows, &Rule::Always(action));
    }

    /// Of the ABI that 64-bit programs have: `then` for these calls, `otherwise` for all others.
    pub(super) fn only_own(&mut self, calls: &[u32], then: Action, otherwise: Action) {
        let own = if self.machine == Machine::X86 { Abi::X86_64 } else { Abi::Aarch64 };
        self.own = Some((own, otherwise));
        self.rules.extend(calls.iter().map(|call| ((own, *call), Rule::Always(then))));
    }

    pub(super) fn families(&self) -> &'static [Family] {
        self.machine.families()
    }

    /// All numbers of an ABI, as ranges that differ from their neighbours, by where they begin.
    pub(super) fn ranges(&self, abi: Abi) -> Vec<(u32, Rule)> {
        let default = self.own.filter(|(own, _)| *own == abi).map_or(self.default, |(_, action)| action);
        let mut ranges = vec![(0, Rule::Always(default))];
        let mut add = |start: u32, rule: Rule| match ranges.last_mut() {
            Some((last, known)) if *last == start => *known = rule,
            Some((_, known)) if *known == rule => {}
            _ => ranges.push((start, rule)),
        };
        let own = self.rules.range((abi, 0)..=(abi, u32::MAX)).map(|((_, number), rule)| (*number, rule));
        // Where the rest begins, if there is one behind the highest number.
        let mut rest = Some(0);
        for (number, rule) in own {
            if let Some(rest) = rest.filter(|rest| number > *rest) {
                add(rest, Rule::Always(default));
            }
            add(number, rule.clone());
            rest = number.checked_add(1);
        }
        if let Some(rest) = rest {
            add(rest, Rule::Always(default));
        }
        ranges
    }
}

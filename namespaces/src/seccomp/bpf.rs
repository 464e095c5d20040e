//! Programs of classic BPF, as the kernel's seccomp takes them.

use super::policy::{Abi, Action, Policy, Rule, Test};
use crate::Error;

/// One instruction of a filter: `struct sock_filter`, `seccomp(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(from = "(u16, u8, u8, u32)", into = "(u16, u8, u8, u32)"))]
#[allow(clippy::exhaustive_structs, reason = "what the kernel takes")]
pub struct BpfInstruction {
    /// What it does.
    pub code: u16,
    /// How many instructions are skipped where a comparison holds.
    pub jt: u8,
    /// How many where it does not.
    pub jf: u8,
    /// Its operand.
    pub k: u32,
}

/// In the order of the struct.
impl From<(u16, u8, u8, u32)> for BpfInstruction {
    fn from((code, jt, jf, k): (u16, u8, u8, u32)) -> Self {
        BpfInstruction { code, jt, jf, k }
    }
}

/// In the order of the struct.
impl From<BpfInstruction> for (u16, u8, u8, u32) {
    fn from(BpfInstruction { code, jt, jf, k }: BpfInstruction) -> Self {
        (code, jt, jf, k)
    }
}

impl BpfInstruction {
    /// As it lies in memory.
    pub(super) fn word(self) -> u64 {
        u64::from(self.code) | u64::from(self.jt) << 16 | u64::from(self.jf) << 24 | u64::from(self.k) << 32
    }
}

/// As many as the kernel takes.
const MOST: usize = 4096;

pub(super) fn check(program: &[BpfInstruction]) -> Result<(), Error> {
    match program.len() {
        0 => Err(Error::config("seccomp filter", "has no instruction")),
        len if len > MOST => Err(Error::config("seccomp filter", "has more than 4096 instructions")),
        _ => Ok(()),
    }
}

/// The same program, but these calls pass where their last two arguments are the secret.
///
/// It is compared as a whole: how long that takes tells nothing of how much of it was right.
pub(super) fn excepting(secret: [u64; 2], calls: &[libc::c_long], program: Vec<BpfInstruction>) -> Vec<BpfInstruction> {
    let calls: Vec<u32> = calls.iter().filter_map(|call| u32::try_from(*call).ok()).collect();
    let mut compare = Vec::new();
    for (word, secret) in (16 + 8 * 4..).step_by(4).zip(secret.into_iter().flat_map(halves)) {
        compare.extend([plain(LOAD, word), plain(XOR, secret)]);
        if compare.len() > 2 {
            compare.extend([plain(RECALL, 0), plain(OR, 0)]);
        }
        compare.push(plain(KEEP, 0));
    }
    compare.extend([BpfInstruction { code: IF_EQUAL, jt: 0, jf: 1, k: 0 }, plain(RETURN, libc::SECCOMP_RET_ALLOW)]);
    let mut code = vec![plain(LOAD, NUMBER)];
    for (at, call) in calls.iter().enumerate() {
        // Over those that follow, and the jump behind them.
        let jt = u8::try_from(calls.len() - at).unwrap_or(u8::MAX);
        code.push(BpfInstruction { code: IF_EQUAL, jt, jf: 0, k: *call });
    }
    code.push(plain(JUMP, u32::try_from(compare.len()).unwrap_or(u32::MAX)));
    code.extend(compare);
    // As a program finds it.
    code.extend([plain(SET, 0), plain(TO_X, 0)]);
    code.extend(program);
    code
}

fn halves(word: u64) -> [u32; 2] {
    [word, word >> 32].map(|half| u32::try_from(half & 0xffff_ffff).unwrap_or(0))
}

const XOR: u16 = 0xa4;
/// With X.
const OR: u16 = 0x4c;
/// The accumulator into a word of memory, that word into X.
const KEEP: u16 = 0x02;
const RECALL: u16 = 0x61;
const SET: u16 = 0x00;
const TO_X: u16 = 0x07;
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

// Where things are in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// The low half of an argument, on a little-endian machine.
fn argument(which: u8) -> u32 {
    16 + 8 * u32::from(which)
}

fn plain(code: u16, k: u32) -> BpfInstruction {
    BpfInstruction { code, jt: 0, jf: 0, k }
}

fn give(action: Action) -> Vec<BpfInstruction> {
    vec![plain(RETURN, action.value())]
}

/// Goes to `yes` or to `no`, each of which ends by returning.
fn branch(compare: u16, k: u32, yes: Vec<BpfInstruction>, no: Vec<BpfInstruction>) -> Vec<BpfInstruction> {
    let mut code = if let Ok(jt) = u8::try_from(no.len()) {
        vec![BpfInstruction { code: compare, jt, jf: 0, k }]
    } else {
        // Too far for a comparison.
        let far = plain(JUMP, u32::try_from(no.len()).unwrap_or(u32::MAX));
        vec![BpfInstruction { code: compare, jt: 0, jf: 1, k }, far]
    };
    code.extend(no);
    code.extend(yes);
    code
}

/// The filter of a policy.
pub(super) fn assemble(policy: &Policy) -> Vec<BpfInstruction> {
    // Whoever is of another architecture than those is killed: its numbers would be mistaken.
    let mut dispatch = give(Action::Kill);
    for family in policy.families() {
        let (low, high): (Vec<_>, Vec<_>) = family.abis.iter().partition(|abi| abi.bit() == 0);
        let ranges = |abis: &[Abi]| abis.first().map_or_else(|| give(Action::Kill), |abi| search(&policy.ranges(*abi)));
        let mut body = vec![plain(LOAD, NUMBER)];
        if high.is_empty() {
            body.extend(ranges(&low));
        } else {
            body.extend(branch(IF_AT_LEAST, Abi::X32.bit(), ranges(&high), ranges(&low)));
        }
        dispatch = branch(IF_EQUAL, family.architecture, body, dispatch);
    }
    let mut code = vec![plain(LOAD, ARCHITECTURE)];
    code.extend(dispatch);
    code
}

/// By halves: every call is found in a few steps. Each range begins at its number and ends where the next one begins.
fn search(ranges: &[(u32, Rule)]) -> Vec<BpfInstruction> {
    match ranges {
        [] => give(Action::Kill),
        [(_, rule)] => decide(rule),
        _ => {
            let (below, from) = ranges.split_at(ranges.len() / 2);
            let middle = from.first().map_or(0, |(start, _)| *start);
            branch(IF_AT_LEAST, middle, search(from), search(below))
        }
    }
}

fn decide(rule: &Rule) -> Vec<BpfInstruction> {
    match rule {
        Rule::Always(action) => give(*action),
        Rule::When { cases, then, otherwise } => {
            let last = give(*otherwise);
            cases.iter().rev().fold(last, |next, tests| all(tests, *then, &next))
        }
    }
}

/// `then` if all tests hold, or else `next`.
fn all(tests: &[Test], then: Action, next: &[BpfInstruction]) -> Vec<BpfInstruction> {
    let mut code = give(then);
    for Test { argument: which, mask, value } in tests.iter().rev() {
        let mut load = vec![plain(LOAD, argument(*which))];
        if *mask != u32::MAX {
            load.push(plain(AND, *mask));
        }
        let rest = branch(IF_EQUAL, *value, code, next.to_vec());
        load.extend(rest);
        code = load;
    }
    code
}

//! Device nodes: v1's lines, and v2's program.

use crate::limits::{Access, DeviceKind, DeviceRule, Devices};
use crate::text;

pub(crate) const LIST: &str = "devices.list";
pub(crate) const ALLOW: &str = "devices.allow";
pub(crate) const DENY: &str = "devices.deny";

/// What v1's `devices.list` says. It shows exceptions only where nothing else is allowed.
pub(crate) fn parse_list(text: &[u8]) -> Option<Devices> {
    let mut devices = Devices::none();
    for words in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let mut words = text::words(words);
        let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
        let kind = match kind {
            b"a" => return Some(Devices::all()),
            b"b" => DeviceKind::Block,
            b"c" => DeviceKind::Char,
            _ => return None,
        };
        let mut numbers = numbers.splitn(2, |byte| *byte == b':').map(|number| match number {
            b"*" => Some(None),
            number => Some(Some(u32::try_from(text::number(number)?).ok()?)),
        });
        let (major, minor) = (numbers.next()??, numbers.next()??);
        let letter = |byte: &u8| match byte {
            b'r' => Access::READ,
            b'w' => Access::WRITE,
            b'm' => Access::MKNOD,
            _ => Access::empty(),
        };
        let mut rule = DeviceRule::all(kind, major, access.iter().map(letter).collect());
        rule.minor = minor;
        devices.exceptions.push(rule);
    }
    Some(devices)
}

/// What to write into which of v1's files. What is allowed before and after is never forbidden in between, except where
/// all was allowed.
pub(crate) fn v1_writes(wanted: &Devices, in_force: &Devices) -> Vec<(&'static str, String)> {
    let (new, old) = (wanted.merged(), in_force.merged());
    let lines = |file, rules: Vec<DeviceRule>| rules.into_iter().map(move |rule| (file, rule.to_string()));
    let all = |file| std::iter::once((file, "a".to_owned()));
    if wanted.allow {
        return all(ALLOW).chain(lines(DENY, new)).collect();
    }
    if in_force.allow {
        return all(DENY).chain(lines(ALLOW, new)).collect();
    }
    // The kernel adds accesses to, and takes them from, the rule for the very same devices.
    lines(ALLOW, difference(&new, &old)).chain(lines(DENY, difference(&old, &new))).collect()
}

/// What the first has and the second has not, for the same devices.
fn difference(first: &[DeviceRule], second: &[DeviceRule]) -> Vec<DeviceRule> {
    let rest = |rule: &DeviceRule| {
        let same = second.iter().find(|other| other.is_of(rule));
        DeviceRule { access: rule.access - same.map_or(Access::empty(), |other| other.access), ..*rule }
    };
    first.iter().map(rest).filter(|rule| !rule.access.is_empty()).collect()
}

/// An instruction of eBPF: code, registers, offset, number. `bpf(2)`, `Documentation/bpf/standardization`.
fn instruction(code: u8, to: u8, from: u8, offset: i16, number: u32) -> u64 {
    let [o0, o1] = offset.to_le_bytes();
    let [n0, n1, n2, n3] = number.to_le_bytes();
    u64::from_ne_bytes([code, to | from << 4, o0, o1, n0, n1, n2, n3])
}

/// Load 32 bits; 32-bit and, shift, move; 32-bit jump if a register is not a number, or not another register; exit.
const LOAD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE: u8 = 0xbc;
const MOVE_NUMBER: u8 = 0xb4;
const UNLESS_EQUAL: u8 = 0x56;
const UNLESS_SAME: u8 = 0x5e;
const IF_ZERO: u8 = 0x16;
const EXIT: u8 = 0x95;

/// v2's program: it is given what is asked for (access and kind in one word, major, minor) and answers 1 or 0.
pub(crate) fn program(devices: &Devices) -> Vec<u64> {
    let (answer, context, kind, access, major, minor) = (0, 1, 2, 3, 4, 5);
    let number = |to, number| instruction(MOVE_NUMBER, to, 0, 0, number);
    let mut program = vec![
        instruction(LOAD, kind, context, 0, 0),
        instruction(MOVE, access, kind, 0, 0),
        instruction(AND, kind, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, access, 0, 0, 16),
        instruction(LOAD, major, context, 4, 0),
        instruction(LOAD, minor, context, 8, 0),
    ];
    for rule in devices.merged() {
        // Each of these leaves the rule if it does not apply; where to is known at the end.
        let of_kind = if rule.kind == DeviceKind::Block { 1 } else { 2 };
        let mut tests = vec![instruction(UNLESS_EQUAL, kind, 0, 0, of_kind)];
        tests.push(instruction(MOVE, context, access, 0, 0));
        tests.push(instruction(AND, context, 0, 0, rule.access.bits()));
        // Denied: if any of it is meant. Allowed: if all of it is.
        tests.push(if devices.allow {
            instruction(IF_ZERO, context, 0, 0, 0)
        } else {
            instruction(UNLESS_SAME, context, access, 0, 0)
        });
        tests.extend(rule.major.map(|number| instruction(UNLESS_EQUAL, major, 0, 0, number)));
        tests.extend(rule.minor.map(|number| instruction(UNLESS_EQUAL, minor, 0, 0, number)));
        let count = tests.len();
        for (at, test) in tests.into_iter().enumerate() {
            let [code, registers, ..] = test.to_ne_bytes();
            let is_jump = matches!(code, UNLESS_EQUAL | UNLESS_SAME | IF_ZERO);
            // To behind the two instructions that follow the tests.
            let offset = if is_jump { i16::try_from(count - at + 1).unwrap_or(i16::MAX) } else { 0 };
            let [.., n0, n1, n2, n3] = test.to_ne_bytes();
            let number = u32::from_le_bytes([n0, n1, n2, n3]);
            program.push(instruction(code, registers & 0xf, registers >> 4, offset, number));
        }
        program.extend([number(answer, u32::from(!devices.allow)), instruction(EXIT, 0, 0, 0, 0)]);
    }
    program.extend([number(answer, u32::from(devices.allow)), instruction(EXIT, 0, 0, 0, 0)]);
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Device;
    use proptest::prelude::*;

    /// The kernel, as far as the program needs it.
    fn run(program: &[u64], kind: DeviceKind, device: Device, access: Access) -> u32 {
        let kind = if kind == DeviceKind::Block { 1 } else { 2 };
        let context = [access.bits() << 16 | kind, device.major, device.minor];
        let mut registers = [0u32; 6];
        let mut at = 0;
        loop {
            let [code, both, o0, o1, n0, n1, n2, n3] = program[at].to_ne_bytes();
            let (to, from) = (usize::from(both & 0xf), usize::from(both >> 4));
            let offset = usize::try_from(i16::from_le_bytes([o0, o1])).unwrap();
            let number = u32::from_le_bytes([n0, n1, n2, n3]);
            at += 1;
            let mut jump = |condition: bool| at += if condition { offset } else { 0 };
            match code {
                LOAD => registers[to] = context[offset / 4],
                MOVE => registers[to] = registers[from],
                MOVE_NUMBER => registers[to] = number,
                AND => registers[to] &= number,
                SHIFT_RIGHT => registers[to] >>= number,
                UNLESS_EQUAL => jump(registers[to] != number),
                UNLESS_SAME => jump(registers[to] != registers[from]),
                IF_ZERO => jump(registers[to] == number),
                EXIT => return registers[0],
                code => panic!("{code:x}"),
            }
        }
    }

    /// v1's kernel, as far as we write to it.
    fn write_all(mut devices: Devices, writes: &[(&str, String)]) -> Devices {
        for (file, text) in writes {
            let allow = *file == ALLOW;
            if text == "a" {
                devices = if allow { Devices::all() } else { Devices::none() };
                continue;
            }
            let rule = parse_list(text.as_bytes()).unwrap().exceptions[0];
            match devices.exceptions.iter_mut().find(|known| known.is_of(&rule)) {
                Some(known) if allow == devices.allow => known.access -= rule.access,
                Some(known) => known.access |= rule.access,
                None if allow != devices.allow => devices.exceptions.push(rule),
                None => {}
            }
            devices.exceptions.retain(|known| !known.access.is_empty());
        }
        devices
    }

    fn any_rule() -> impl Strategy<Value = DeviceRule> {
        let number = || prop::option::of(0u32..3);
        (any::<bool>(), number(), number(), 1u32..8).prop_map(|(block, major, minor, access)| {
            let kind = if block { DeviceKind::Block } else { DeviceKind::Char };
            DeviceRule { minor, ..DeviceRule::all(kind, major, Access::from_bits(access).unwrap()) }
        })
    }

    fn any_devices() -> impl Strategy<Value = Devices> {
        (any::<bool>(), prop::collection::vec(any_rule(), 0..6))
            .prop_map(|(allow, exceptions)| Devices { allow, exceptions })
    }

    #[test]
    fn lines() {
        let rule = DeviceRule::char(1, 3);
        assert_eq!(rule.to_string(), "c 1:3 rw");
        let text = b"c 1:3 rw\nb *:* m\nc 136:* rwm\n";
        let found = parse_list(text).unwrap();
        assert_eq!(
            found.exceptions.iter().map(DeviceRule::to_string).collect::<Vec<_>>(),
            ["c 1:3 rw", "b *:* m", "c 136:* rwm"]
        );
        assert_eq!(parse_list(b"a *:* rwm\n"), Some(Devices::all()));
        assert_eq!(parse_list(b""), Some(Devices::none()));
        assert_eq!(parse_list(b"x 1:3 rw\n"), None);
    }

    #[test]
    fn later_rules_take_precedence() {
        let null = DeviceRule::char(1, 3);
        let found = Devices::from_rules([(false, None), (true, Some(null))]).unwrap();
        assert_eq!(found, Devices::none().except([null]));
        let read = DeviceRule { access: Access::READ, ..null };
        let found = Devices::from_rules([(false, None), (true, Some(null)), (false, Some(read))]).unwrap();
        assert!(found.grants(DeviceKind::Char, Device::new(1, 3), Access::WRITE));
        assert!(!found.grants(DeviceKind::Char, Device::new(1, 3), Access::READ));
    }

    #[test]
    fn a_part_of_a_wider_rule_is_not_dropped_silently() {
        let all = DeviceRule::all(DeviceKind::Char, None, Access::all());
        let null = DeviceRule::char(1, 3);
        let error = Devices::from_rules([(false, None), (true, Some(all)), (false, Some(null))]).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
        assert_eq!(
            error.to_string(),
            "check \"c 1:3 rw\" for devices: not supported; it would take a part out of \"c *:* rwm\""
        );
        assert!(Devices::from_rules([(true, None), (false, Some(all)), (true, Some(null))]).is_err());
        // Where it takes nothing away there is nothing to say.
        let make = DeviceRule::all(DeviceKind::Char, None, Access::MKNOD);
        let found = Devices::from_rules([(false, None), (true, Some(make)), (false, Some(null))]).unwrap();
        assert_eq!(found, Devices::none().except([make]));
    }

    #[test]
    fn rules_for_the_same_devices_are_one() {
        let null = |access| DeviceRule::new(DeviceKind::Char, Device::new(1, 3), access);
        let devices = Devices::none().except([null(Access::READ), null(Access::WRITE)]);
        let (device, both) = (Device::new(1, 3), Access::READ | Access::WRITE);
        assert!(devices.grants(DeviceKind::Char, device, both));
        assert_eq!(run(&program(&devices), DeviceKind::Char, device, both), 1);
        assert_eq!(v1_writes(&devices, &Devices::none()), [(ALLOW, "c 1:3 rw".to_owned())]);
        // A part is taken away without taking all of it away for a moment.
        let less = Devices::none().except([null(Access::READ)]);
        assert_eq!(v1_writes(&less, &devices), [(DENY, "c 1:3 w".to_owned())]);
    }

    proptest! {
        #[test]
        fn the_program_grants_what_the_rules_do(devices in any_devices(), block: bool, major in 0u32..4, minor in 0u32..4, access in 1u32..8) {
            let kind = if block { DeviceKind::Block } else { DeviceKind::Char };
            let (device, access) = (Device::new(major, minor), Access::from_bits(access).unwrap());
            let found = run(&program(&devices), kind, device, access);
            prop_assert_eq!(found == 1, devices.grants(kind, device, access));
        }

        #[test]
        fn from_any_list_to_any_other(from in any_devices(), to in any_devices()) {
            let from = Devices { exceptions: from.merged(), ..from };
            let writes = v1_writes(&to, &from);
            let found = write_all(from.clone(), &writes);
            prop_assert_eq!(found.allow, to.allow);
            let (has, wanted) = (found.merged(), to.merged());
            prop_assert!(has.len() == wanted.len() && wanted.iter().all(|rule| has.contains(rule)));
            // Nor is anything forbidden meanwhile that is allowed before and after.
            for count in 0..=writes.len() {
                let meanwhile = write_all(from.clone(), &writes[..count]);
                let kept = |rule: &&DeviceRule| from.exceptions.contains(rule) && !from.allow && !to.allow;
                for rule in wanted.iter().filter(kept) {
                    prop_assert!(meanwhile.exceptions.contains(rule), "{:?} after {} of {:?}", rule, count, writes);
                }
            }
        }

        /// The last rule that concerns a device decides, for each access; or it is said that this cannot be had.
        #[test]
        fn a_list_means_what_its_last_rules_say(
            rules in prop::collection::vec((any::<bool>(), prop::option::weighted(0.9, any_rule())), 0..7),
            block: bool, major in 0u32..4, minor in 0u32..4,
        ) {
            let kind = if block { DeviceKind::Block } else { DeviceKind::Char };
            let device = Device::new(major, minor);
            if let Ok(found) = Devices::from_rules(rules.clone()) {
                for access in Access::all().iter() {
                    let one = DeviceRule::new(kind, device, access);
                    let concerns = |rule: &DeviceRule| rule.access.contains(access) && rule.covers(&one);
                    let last = rules.iter().rev().find(|(_, rule)| rule.as_ref().is_none_or(concerns));
                    prop_assert_eq!(found.grants(kind, device, access), last.is_none_or(|(allow, _)| *allow));
                }
            }
        }

        #[test]
        fn never_panics(text: Vec<u8>) {
            let _ = parse_list(&text);
        }
    }
}

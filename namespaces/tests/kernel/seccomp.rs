//! Filters of system calls: the default one beside that of the container engines, and what a filter does to a program and to its start.

#![allow(clippy::cast_sign_loss, reason = "as C passes numbers to the kernel")]

use crate::escape;
use crate::faults::no_child_is_left;
use crate::support::{output, output_with, program, read, refused, sh};
use cofferdam_namespaces::{
    BpfInstruction, Capabilities, Capability, CapabilitySet, ErrorKind, Fds, IdMap, Sandbox, Seccomp, Stdio, Step,
};
use nix::pty::openpty;
use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

/// The engines' profile.
pub(crate) const PROFILE: &str = "/usr/share/containers/seccomp.json";

/// What a filter looks at: `struct seccomp_data`, whose words are these.
#[derive(Debug, Clone, Copy)]
struct Data {
    number: u32,
    architecture: u32,
    args: [u64; 6],
}

impl Data {
    fn word(&self, at: u32) -> u32 {
        let arg = |at: u32| self.args[((at - 16) / 8) as usize] >> (if at.is_multiple_of(8) { 0 } else { 32 });
        match at {
            0 => self.number,
            4 => self.architecture,
            8 | 12 => 0,
            16.. if at.is_multiple_of(4) => (arg(at) & 0xffff_ffff) as u32,
            _ => panic!("no such word: {at}"),
        }
    }
}

fn evaluate(program: &[BpfInstruction], data: &Data) -> u32 {
    looked(program, data).0
}

/// Classic BPF, as the kernel runs it: the instructions that filters are made of. Also whether the arguments were looked at.
fn looked(program: &[BpfInstruction], data: &Data) -> (u32, bool) {
    let (mut accumulator, mut next, mut arguments) = (0_u32, 0, false);
    loop {
        let BpfInstruction { code, jt, jf, k } = program[next];
        next += 1;
        let mut jump = |holds: bool| next += usize::from(if holds { jt } else { jf });
        match code {
            0x20 => {
                accumulator = data.word(k);
                arguments |= k >= 16;
            }
            0x54 => accumulator &= k,
            0x05 => next += k as usize,
            0x15 => jump(accumulator == k),
            0x25 => jump(accumulator > k),
            0x35 => jump(accumulator >= k),
            0x45 => jump(accumulator & k != 0),
            0x06 => return (k, arguments),
            _ => panic!("an instruction that filters do not have: {code:#x}"),
        }
    }
}

/// A process or one of its threads: the engines' library says thread.
fn effect(answer: u32) -> u32 {
    if answer == libc::SECCOMP_RET_KILL_PROCESS { libc::SECCOMP_RET_KILL_THREAD } else { answer }
}

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const X32: u32 = 0x4000_0000;

/// The bounding sets to compare with: none, all, each alone, all but each.
fn bounding_sets() -> Vec<CapabilitySet> {
    let all = CapabilitySet::all();
    let alone = Capability::ALL.iter().map(|one| CapabilitySet::from(*one));
    let others = Capability::ALL.iter().map(|one| all - (*one).into());
    let common = Capabilities::container_default().bounding_set();
    [CapabilitySet::EMPTY, all, common].into_iter().chain(alone).chain(others).collect()
}

/// Every number that may mean something, and some beyond.
fn numbers() -> impl Iterator<Item = (u32, u32)> {
    let low = 0..1100_u32;
    let odd = [X32 - 1, 0x7fff_ffff, 0x8000_0000, u32::MAX];
    let plain = low.clone().chain(odd).chain(low.clone().map(|number| number | X32));
    let plain = plain.map(|number| (number, X86_64));
    plain.chain(low.chain(odd).map(|number| (number, I386))).chain([(0, 0x1234), (1, 0xc000_00b7)])
}

/// Arguments that a condition of the profile is about, and others. Not above 32 bits: see the test behind this one.
const ARGUMENTS: &[[u64; 6]] = &[
    [0; 6],
    [8, 0, 0, 0, 0, 0],
    [0x2_0000, 0, 0, 0, 0, 0],
    [0x2_0008, 0, 0, 0, 0, 0],
    [0xffff_ffff, 0, 0, 0, 0, 0],
    [16, 0, 9, 0, 0, 0],
    [16, 3, 9, 1, 1, 1],
    [16, 9, 0, 0, 0, 0],
    [9, 16, 9, 0, 0, 0],
    [1, 0, 0, 0, 0, 0],
    [0x1000_0000, 0x5412, 0, 0, 0, 0],
];

fn engines_programs(sets: &[CapabilitySet]) -> Vec<Vec<BpfInstruction>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/engines_profile.py");
    let sets = sets.iter().map(CapabilitySet::to_string);
    let output =
        Command::new("/usr/bin/python3").args([script, PROFILE, "SCMP_ARCH_X86_64"]).args(sets).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let byte = |line: &str, at: usize| u8::from_str_radix(&line[2 * at..2 * at + 2], 16).unwrap();
    let instruction = |line: &str, at: usize| {
        let bytes: Vec<u8> = (at..at + 8).map(|at| byte(line, at)).collect();
        let k = u32::from_le_bytes(bytes[4..8].try_into().unwrap());
        BpfInstruction { code: u16::from_le_bytes([bytes[0], bytes[1]]), jt: bytes[2], jf: bytes[3], k }
    };
    text.lines().map(|line| (0..line.len() / 2).step_by(8).map(|at| instruction(line, at)).collect()).collect()
}

/// Two programs that say the same of each call.
pub(crate) fn the_default_is_that_of_container_engines() {
    let sets = bounding_sets();
    let theirs = engines_programs(&sets);
    assert_eq!(theirs.len(), sets.len());
    let mut answers = BTreeMap::new();
    for (set, theirs) in sets.iter().zip(&theirs) {
        let ours = Seccomp::container_default(&Capabilities::only(*set)).program();
        assert!(ours.len() < theirs.len(), "{} instructions", ours.len());
        for (number, architecture) in numbers() {
            for args in ARGUMENTS {
                let data = Data { number, architecture, args: *args };
                let ((ours, here), (theirs, there)) = (looked(&ours, &data), looked(theirs, &data));
                assert_eq!(effect(ours), effect(theirs), "{data:x?} with {set}");
                *answers.entry(effect(ours)).or_insert(0) += 1;
                if !here && !there {
                    break;
                }
            }
        }
    }
    // It is a comparison of something.
    let errno = |errno: i32| libc::SECCOMP_RET_ERRNO | errno as u32;
    for answer in [libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_KILL_THREAD, errno(1), errno(22), errno(38)] {
        assert!(answers.get(&answer).is_some_and(|count| *count > 100), "{answers:x?}");
    }
}

/// The one difference: the engines compare 64 bits of what the kernel reads 32 of, and so let pass what they mean to refuse.
pub(crate) fn arguments_are_read_as_the_kernel_does() {
    let none = [CapabilitySet::EMPTY];
    let theirs = &engines_programs(&none)[0];
    let ours = Seccomp::container_default(&Capabilities::none()).program();
    let audit =
        |high: u64| Data { number: 41, architecture: X86_64, args: [16 | high << 32, 3, 9 | high << 32, 0, 0, 0] };
    let refused = libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32;
    assert_eq!((evaluate(&ours, &audit(0)), evaluate(theirs, &audit(0))), (refused, refused));
    assert_eq!((evaluate(&ours, &audit(1)), evaluate(theirs, &audit(1))), (refused, libc::SECCOMP_RET_ALLOW));
}

pub(crate) fn our_own_filters_refuse_what_they_say() {
    let (allow, refused) = (libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    let of = |filter: &Seccomp, (architecture, number): (u32, u32), args: [u64; 2]| {
        evaluate(&filter.program(), &Data { number, architecture, args: [args[0], args[1], 0, 0, 0, 0] })
    };
    let terminal = Seccomp::no_terminal_injection();
    for ioctl in [(X86_64, 16), (X86_64, X32 + 514), (I386, 54)] {
        for request in [0x5412, 0x541c] {
            for high in [0, 1 << 32, u64::MAX << 32] {
                assert_eq!(of(&terminal, ioctl, [0, request | high]), refused, "{ioctl:x?} {request:x}");
            }
        }
        assert_eq!(of(&terminal, ioctl, [0x5412, 0x5413]), allow);
    }
    assert_eq!(of(&terminal, (X86_64, 17), [0, 0x5412]), allow);
    let namespaces = Seccomp::no_user_namespaces();
    for call in [(X86_64, 56), (X86_64, 272), (X86_64, X32 + 56), (I386, 120), (I386, 310)] {
        assert_eq!(of(&namespaces, call, [0x1000_0000, 0]), refused, "{call:x?}");
        assert_eq!(of(&namespaces, call, [0x1002_0011, 0]), refused, "{call:x?}");
        assert_eq!(of(&namespaces, call, [0x0002_0011, 0]), allow, "{call:x?}");
    }
    let clone3 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    assert_eq!(of(&namespaces, (X86_64, 435), [0, 0]), clone3);
    for filter in [&terminal, &namespaces] {
        assert_eq!(of(filter, (0xc000_00b7, 0), [0, 0]), libc::SECCOMP_RET_KILL_PROCESS);
    }
}

/// What a filter of seccompiler's says of some calls; everything else is allowed.
fn compiled(rules: Vec<(i64, Vec<SeccompRule>)>, action: SeccompAction) -> Seccomp {
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules.into_iter().collect(), SeccompAction::Allow, action, arch).unwrap();
    let program: seccompiler::BpfProgram = filter.try_into().unwrap();
    Seccomp::bpf(program.into_iter().map(|i| BpfInstruction::from((i.code, i.jt, i.jf, i.k))))
}

/// With and without new privileges, and as nobody: the filter is there when the program starts, and not before.
pub(crate) fn a_filter_is_the_programs() {
    let filter = || compiled(vec![(libc::SYS_chdir, vec![])], SeccompAction::Errno(libc::EXFULL as u32));
    // The child changes its directory too.
    let script = sh("cd / 2>&1; grep ^Seccomp: /proc/self/status").working_directory("/usr");
    for sandbox in [
        script.clone().no_new_privs(),
        script.clone().user(IdMap::root()),
        script.clone().user(IdMap::root()).capabilities(Capabilities::none()),
        script.clone().user(IdMap::root()).capabilities(Capabilities::none()).no_new_privs(),
    ] {
        let said = output(sandbox.seccomp(filter().log().allow_speculation()));
        assert!(said.contains("can't cd") && said.contains("Seccomp:\t2"), "{said}");
    }
}

/// A filter that forbids the child's own last calls: the error says which.
pub(crate) fn a_filter_that_forbids_the_start() {
    let all = [libc::SYS_execve, libc::SYS_exit_group, libc::SYS_exit, libc::SYS_write, libc::SYS_sendto];
    let rules = |calls: &[i64]| calls.iter().map(|call| (*call, vec![])).collect();
    let errno = SeccompAction::Errno(libc::EXFULL as u32);
    // The child cannot even end as it is used to.
    let error = refused(&sh("true").no_new_privs().seccomp(compiled(rules(&all), errno.clone())));
    assert_eq!((error.step(), error.raw_os_error()), (Step::Exec, Some(libc::EXFULL)), "{error}");
    // It dies in execve: nothing has started, and nothing is left.
    let deadly = |calls: &[i64]| sh("true").no_new_privs().seccomp(compiled(rules(calls), SeccompAction::KillProcess));
    let held = |sandbox: Sandbox| sandbox.prepare(Fds::new()).unwrap().hold().unwrap().release();
    for error in [refused(&deadly(&all)), held(deadly(&all)).unwrap_err()] {
        assert_eq!((error.step(), error.kind()), (Step::Exec, ErrorKind::Killed), "{error}");
        assert_eq!((error.signal(), error.object().unwrap().to_str()), (Some(libc::SIGSYS), Some("/bin/sh")));
        no_child_is_left();
    }
    // And right after it: that is a program's end.
    for child in [deadly(&all[1..3]).spawn(), held(deadly(&all[1..3]))] {
        assert_eq!(child.unwrap().wait().unwrap().signal(), Some(libc::SIGSYS));
    }
    let forbidding = |call| {
        let sandbox = sh("true").user(IdMap::root()).capabilities(Capabilities::none());
        refused(&sandbox.seccomp(compiled(rules(&[call]), errno.clone())).seccomp(Seccomp::no_user_namespaces()))
    };
    let error = forbidding(libc::SYS_capset);
    assert_eq!((error.step(), error.raw_os_error()), (Step::Capabilities, Some(libc::EXFULL)), "{error}");
    let error = forbidding(libc::SYS_seccomp);
    assert_eq!((error.step(), error.raw_os_error()), (Step::Seccomp, Some(libc::EXFULL)), "{error}");
}

pub(crate) fn filters_that_cannot_be() {
    let allow = BpfInstruction { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
    for program in [vec![], vec![allow; 4097]] {
        let error = refused(&sh("true").no_new_privs().seccomp(Seccomp::bpf(program)));
        assert_eq!((error.step(), error.kind()), (Step::Configure, ErrorKind::InvalidConfig), "{error}");
    }
    output(sh("true").no_new_privs().seccomp(Seccomp::bpf(vec![allow; 4096])));
    // Numbers that no call has: of x32, the highest, and what is no number of 32 bits.
    let (last, first) = (0x3fff_ffff, 0x4000_0000);
    let wrong = [first, first + 0x53, u32::MAX.into(), i64::from(u32::MAX) + 1, i64::MAX, -1, i64::MIN];
    let by_hand = |number: u32| {
        let text = format!("filter.notify = [80, {number}]\nlistener = true");
        toml::from_str::<Seccomp>(&text).unwrap()
    };
    let wrong = wrong.map(|number| Seccomp::notify([libc::SYS_chdir, number]));
    for filter in wrong.into_iter().chain([0x4000_0000, u32::MAX - 1, u32::MAX].map(by_hand)) {
        let error = sh("true").no_new_privs().seccomp(filter.clone()).prepare(Fds::new()).unwrap_err();
        assert_eq!((error.step(), error.kind()), (Step::Configure, ErrorKind::InvalidConfig), "{error}");
        assert!(!filter.program().is_empty());
    }
    assert_eq!(by_hand(7), Seccomp::notify([80, 7]));
    for number in [0, 1, last - 1, last] {
        let filter = Seccomp::notify([libc::SYS_chdir, number]);
        sh("true").no_new_privs().seccomp(filter).prepare(Fds::new()).unwrap();
    }
    // One that runs off its end.
    let error =
        refused(&sh("true").no_new_privs().seccomp(Seccomp::bpf([BpfInstruction { code: 0x20, k: 0, ..allow }])));
    assert_eq!((error.step(), error.raw_os_error()), (Step::Seccomp, Some(libc::EINVAL)), "{error}");
}

/// Programs of every day run under the default.
pub(crate) fn the_default_lets_programs_work() {
    let capabilities = Capabilities::container_default();
    let script =
        "d=$(mktemp -d); echo x >$d/a; mv $d/a $d/b; sort $d/b | cat; (sleep 0; exit 3); echo $?; rm -r $d; id -u";
    let sandbox = sh(script).user(IdMap::root()).capabilities(capabilities);
    let sandbox = sandbox.seccomp(Seccomp::container_default(&capabilities));
    assert_eq!(output(sandbox.clone().no_new_privs()), "x\n3\n0\n");
    assert_eq!(output(sandbox), "x\n3\n0\n");
}

/// CVE-2017-5226, CVE-2019-10063: typing into the terminal, by the number of the request and by the same number with something in its upper half.
pub(crate) fn nothing_is_typed_into_the_terminal() {
    let tried = |sandbox: cofferdam_namespaces::Sandbox| {
        let pty = openpty(None, None).unwrap();
        let sandbox = sandbox.stdin(Stdio::fd("terminal"));
        output_with(sandbox, Fds::new().bind("terminal", pty.slave))
    };
    // As root of the machine, who need not be at that terminal.
    let base = program(escape::program()).args(["escape", "tiocsti", "tiocsti-64"]);
    assert_eq!(tried(base.clone()), "ESCAPED: tiocsti\nESCAPED: tiocsti-64\n", "the attack is none");
    let is = |length| {
        let condition = SeccompCondition::new(1, length, SeccompCmpOp::Eq, libc::TIOCSTI).unwrap();
        compiled(vec![(libc::SYS_ioctl, vec![SeccompRule::new(vec![condition]).unwrap()])], SeccompAction::Errno(1))
    };
    // A filter that compares more than the kernel does.
    let naive = base.clone().no_new_privs().seccomp(is(SeccompCmpArgLen::Qword));
    assert_eq!(tried(naive), "refused: tiocsti\nESCAPED: tiocsti-64\n", "the attack is none");
    for filter in [is(SeccompCmpArgLen::Dword), Seccomp::no_terminal_injection()] {
        assert_eq!(tried(base.clone().no_new_privs().seccomp(filter)), "refused: tiocsti\nrefused: tiocsti-64\n");
    }
}

/// Also code of the caller's that runs in the sandbox is under the filter.
pub(crate) fn a_closure_is_under_the_filter() {
    let filter = compiled(vec![(libc::SYS_chdir, vec![])], SeccompAction::Errno(libc::EXFULL as u32));
    let plan = sh("true").no_new_privs().seccomp(filter).prepare(Fds::new()).unwrap();
    let body = || u8::from(std::env::set_current_dir("/").is_err_and(|e| e.raw_os_error() == Some(libc::EXFULL)));
    #[expect(unsafe_code, reason = "what is tested")]
    // SAFETY: this process has one thread.
    let child = unsafe { plan.spawn_fn(body) }.unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

/// What is written into a file is what is asked for.
pub(crate) fn a_filter_from_a_file() {
    let text = r#"
        program = "/bin/sh"
        args = ["-c", "cd / || exit 7"]
        namespaces = ["user"]
        [privilege]
        no_new_privs = true
        securebits = ["noroot"]
        capabilities = { bounding = ["CAP_KILL"], permitted = ["CAP_KILL"], effective = ["CAP_KILL"] }
        [[privilege.seccomp]]
        filter.bpf = [[32, 0, 0, 0], [21, 0, 1, 80], [6, 0, 0, 327732], [6, 0, 0, 2147418112]]
        [[privilege.seccomp]]
        filter.container_default.bounding = ["CAP_KILL"]
    "#;
    let sandbox: cofferdam_namespaces::Sandbox = toml::from_str(text).unwrap();
    let mut child = sandbox.stdout(Stdio::Pipe).spawn().unwrap();
    read(&mut child);
    // chdir(2) is number 80 on x86-64, and 327732 is the errno EXFULL.
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

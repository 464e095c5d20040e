//! Sandboxes at random: written down and read, and spawned.

use crate::support::{asked_for_long, output, program};
use cofferdam_namespaces::{
    BpfInstruction, Capabilities, Capability, CapabilitySet, Clock, ClockOffset, Credentials, Engine, Fallbacks, Fds,
    IdMap, IdRange, IoPriority, Join, Mount, Namespaces, Personality, Propagation, Resource, Rlimit, Root, Sandbox,
    Scheduler, Seccomp, SecureBits, Stdio, TerminalSize,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::ffi::OsString;
use std::fmt::Debug;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::rc::Rc;
use std::time::Duration;

/// The same cases each time, and many more with `COFFERDAM_TEST_LONG=1`.
pub(crate) fn for_all<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config {
        cases: if asked_for_long() { cases * 50 } else { cases },
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    runner.run(strategy, test).unwrap();
}

fn any_string() -> impl Strategy<Value = OsString> {
    prop_oneof![
        "[ -~]{0,12}".prop_map(OsString::from),
        prop::collection::vec(any::<u8>(), 0..12).prop_map(OsString::from_vec)
    ]
}

/// As large as a number can be in any format, or without a limit.
fn any_rlimit() -> impl Strategy<Value = Rlimit> {
    let limit = || prop_oneof![0..=i64::MAX.cast_unsigned(), Just(Rlimit::UNLIMITED)];
    (limit(), limit()).prop_map(|(soft, hard)| Rlimit::new(soft, hard))
}

fn any_map() -> impl Strategy<Value = IdMap> {
    let ranges = || prop::collection::vec(any::<(u32, u32, u32)>().prop_map(|(i, o, c)| IdRange::new(i, o, c)), 0..3);
    prop_oneof![
        any::<(u32, u32)>().prop_map(|(uid, gid)| IdMap::single(uid, gid)),
        (ranges(), ranges()).prop_map(|(uids, gids)| IdMap::ranges(uids, gids)),
        Just(IdMap::subordinate().deny_setgroups()),
        ".{0,5}".prop_map(IdMap::join),
    ]
}

pub(crate) fn any_namespaces() -> impl Strategy<Value = Namespaces> {
    let all: Vec<_> = Namespaces::all().iter().collect();
    let most = all.len();
    subsequence(all, 0..=most).prop_map(|some| some.into_iter().collect())
}

fn any_capabilities() -> impl Strategy<Value = Capabilities> {
    let set = || prop::collection::btree_set(select(Capability::ALL), 0..5).prop_map(CapabilitySet::from_iter);
    (set(), set(), set(), set(), set()).prop_map(|(effective, permitted, inheritable, bounding, ambient)| {
        let sets = Capabilities::none().effective(effective).permitted(permitted).inheritable(inheritable);
        sets.bounding(bounding).ambient(ambient)
    })
}

fn any_filter() -> impl Strategy<Value = Seccomp> {
    let instruction = any::<(u16, u8, u8, u32)>().prop_map(BpfInstruction::from);
    let filters = prop_oneof![
        Just(Seccomp::no_terminal_injection()),
        Just(Seccomp::no_user_namespaces().log()),
        prop::collection::vec(0..1000_i64, 0..3).prop_map(|calls| Seccomp::notify(calls).wait_killable()),
        any_capabilities().prop_map(|sets| Seccomp::container_default(&sets)),
        prop::collection::vec(instruction, 0..4).prop_map(|program| Seccomp::bpf(program).allow_speculation()),
    ];
    filters.boxed()
}

fn any_personality() -> impl Strategy<Value = Personality> {
    let all: Vec<_> = Personality::all().iter().collect();
    let most = all.len();
    subsequence(all, 0..=most).prop_map(|some| some.into_iter().collect())
}

/// Something that is asked of a sandbox, and what is to be seen of it then.
#[derive(Clone)]
pub(crate) struct Aspect {
    pub(crate) key: &'static str,
    pub(crate) shown: String,
    pub(crate) apply: Rc<dyn Fn(Sandbox) -> Sandbox>,
}

impl Debug for Aspect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} = {:?}", self.key, self.shown)
    }
}

pub(crate) fn aspect<T: Clone + Debug + 'static>(
    key: &'static str,
    values: impl Strategy<Value = T> + 'static,
    shown: impl Fn(&T) -> String + 'static,
    apply: impl Fn(Sandbox, T) -> Sandbox + Clone + 'static,
) -> BoxedStrategy<Aspect> {
    let aspect = values.prop_map(move |value| {
        let (shown, apply) = (shown(&value), apply.clone());
        Aspect { key, shown, apply: Rc::new(move |sandbox| apply(sandbox, value.clone())) }
    });
    aspect.boxed()
}

fn change<T: Clone + Debug + 'static>(
    values: impl Strategy<Value = T> + 'static,
    apply: impl Fn(Sandbox, T) -> Sandbox + Clone + 'static,
) -> BoxedStrategy<Aspect> {
    aspect("change", values, |value| format!("{value:?}"), apply)
}

fn any_mount() -> impl Strategy<Value = Mount> {
    let at = any_string;
    let name = || "[a-z]{0,5}";
    let made = prop_oneof![
        at().prop_map(Mount::proc),
        at().prop_map(Mount::sysfs),
        at().prop_map(Mount::tmpfs),
        at().prop_map(Mount::devpts),
        at().prop_map(Mount::mqueue),
        at().prop_map(Mount::dev),
        at().prop_map(Mount::cgroup),
        at().prop_map(Mount::mask),
        at().prop_map(Mount::read_only_path),
        at().prop_map(Mount::directory),
        (at(), at()).prop_map(|(to, at)| Mount::link(to, at)),
        (name(), at()).prop_map(|(name, at)| Mount::file_system(name, at)),
        (at(), at()).prop_map(|(from, at)| Mount::bind(from, at)),
        (name(), at()).prop_map(|(name, at)| Mount::bind_fd(name, at)),
        (name(), at()).prop_map(|(name, at)| Mount::attach(name, at)),
    ];
    let changes = prop_oneof![
        Just(Mount::read_only as fn(Mount) -> Mount),
        Just(Mount::writable as _),
        Just(Mount::noexec as _),
        Just(Mount::noatime as _),
        Just(Mount::nosymfollow as _),
        Just(Mount::allow_suid as _),
        Just(Mount::allow_devices as _),
        Just(Mount::non_recursive as _),
        Just((|mount: Mount| mount.id_mapped("ids")) as _),
        Just((|mount: Mount| mount.option("key", "value").flag("flag")) as _),
    ];
    (made, prop::collection::vec(changes, 0..4))
        .prop_map(|(mount, changes)| changes.into_iter().fold(mount, |mount, change| change(mount)))
}

/// Whatever can be said of a sandbox, sensible or not.
fn surrounded(sandbox: Sandbox, (rows, number): (u16, u32)) -> Sandbox {
    let join = Join::only(Namespaces::NET).environment().timeout(Duration::from_millis(number.into()));
    sandbox.terminal(TerminalSize::new(rows, 80)).fd(number, "some").join(join)
}

fn anything() -> impl Strategy<Value = Sandbox> {
    let roots = prop_oneof![
        select(vec![Root::Host, Root::Empty]),
        ".{0,5}".prop_map(Root::mount),
        any_string().prop_map(Root::directory)
    ];
    let streams = prop_oneof![Just(Stdio::Inherit), Just(Stdio::Null), Just(Stdio::Pipe), ".{0,5}".prop_map(Stdio::fd)];
    let schedulers = prop_oneof![
        select(vec![Scheduler::Other, Scheduler::Batch, Scheduler::Idle]),
        any::<u8>().prop_map(Scheduler::Fifo),
        any::<u8>().prop_map(Scheduler::RoundRobin)
    ];
    let priorities = prop_oneof![
        Just(IoPriority::Idle),
        any::<u8>().prop_map(IoPriority::BestEffort),
        any::<u8>().prop_map(IoPriority::RealTime)
    ];
    let credentials = (any::<u32>(), any::<u32>(), prop::option::of(prop::collection::vec(any::<u32>(), 0..4)));
    let credentials = credentials.prop_map(|(uid, gid, groups)| match groups {
        Some(groups) => Credentials::new(uid, gid).groups(groups),
        None => Credentials::new(uid, gid),
    });
    let changes = prop_oneof![
        change(any_string(), Sandbox::arg),
        change((any_string(), any_string()), |s, (name, value)| s.env(name, value)),
        change(Just(()), |s, ()| s.inherit_env().new_session().die_with_parent()),
        change(any_string(), Sandbox::working_directory),
        change(any_namespaces(), Sandbox::namespaces),
        change(any_map(), Sandbox::user),
        change(credentials, Sandbox::credentials),
        change(any::<u32>(), Sandbox::umask),
        change((any::<u16>(), 3..1024_u32), surrounded),
        change(roots, Sandbox::root),
        change(any_mount(), Sandbox::mount),
        change(select(vec![Propagation::Private, Propagation::Slave, Propagation::Shared]), Sandbox::propagation),
        change(select(vec![Engine::Shared, Engine::Copy]), Sandbox::engine),
        change(select(Fallbacks::all().iter().collect::<Vec<_>>()), Sandbox::fallbacks),
        change(Just(()), |s, ()| s.read_only_root().allow_chroot()),
        change(any_string(), Sandbox::hostname),
        change(any_string(), Sandbox::domainname),
        change(any_string(), Sandbox::arg0),
        change((select(Resource::ALL), any_rlimit()), |s, (resource, limit)| s.rlimit(resource, limit)),
        change(any::<i16>(), Sandbox::oom_score_adj),
        change(any::<i8>(), Sandbox::nice),
        change(schedulers, Sandbox::scheduler),
        change(prop::collection::btree_set(any::<u16>(), 0..4), Sandbox::cpu_affinity),
        change(priorities, Sandbox::io_priority),
        change(any_personality(), Sandbox::personality),
        change(("[a-z.]{0,9}", ".{0,5}"), |s, (name, value)| s.sysctl(name, value)),
        change(any::<(i64, u32)>(), |s, (seconds, nanoseconds)| {
            s.clock_offset(Clock::Monotonic, ClockOffset::new(seconds, nanoseconds))
        }),
        change(any_capabilities(), Sandbox::capabilities),
        change(any_filter(), Sandbox::seccomp),
        change(".{0,5}", |s, name| s.landlock(name.clone()).apparmor_profile(name.clone()).selinux_label(name)),
        change(any::<u8>(), |s, bits| s.securebits(SecureBits::from_bits_retain(bits.into()))),
        change(Just(()), |s, ()| s.no_new_privs().new_session_keyring().init()),
        change(streams, |s, stream: Stdio| s.stdin(stream.clone()).stderr(stream)),
    ];
    (any_string(), prop::collection::vec(changes, 0..12))
        .prop_map(|(name, changes)| changes.iter().fold(program(name), |sandbox, change| (change.apply)(sandbox)))
}

pub(crate) fn every_spec_comes_back() {
    for_all(500, &anything(), |sandbox| {
        let json = serde_json::to_string(&sandbox).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Sandbox>(&json).unwrap(), &sandbox, "{}", json);
        let text = toml::to_string(&sandbox).unwrap();
        prop_assert_eq!(&toml::from_str::<Sandbox>(&text).unwrap(), &sandbox, "{}", text);
        Ok(())
    });
}

/// What somebody writes by hand, and what they write wrong.
pub(crate) fn a_spec_is_written_by_hand() {
    let text = r#"
        version = 1
        program = "/bin/sh"
        args = ["-c", "echo \"$GREETING\"; ulimit -n"]
        namespaces = ["user", "pid", "mount"]
        user.map.single = { uid = 0, gid = 0 }
        env.GREETING = "hello"
        rlimits.nofile = { soft = 20, hard = 30 }
        rlimits.core = { soft = 0, hard = "unlimited" }
        [[mounts]]
        target = "/proc"
        kind.file_system = "proc"
    "#;
    let read: Sandbox = toml::from_str(text).unwrap();
    let built = Sandbox::new("/bin/sh")
        .args(["-c", "echo \"$GREETING\"; ulimit -n"])
        .namespaces(Namespaces::PID | Namespaces::MOUNT)
        .user(IdMap::root())
        .env("GREETING", "hello")
        .rlimit(Resource::Nofile, Rlimit::new(20, 30))
        .rlimit(Resource::Core, Rlimit::new(0, Rlimit::UNLIMITED))
        .mount(Mount::proc("/proc"));
    assert_eq!(read, built);
    assert_eq!(output(read), "hello\n20\n");
    // The one in the documentation.
    let (_, text) = include_str!("../../src/lib.rs").split_once("```toml\n").unwrap();
    let text = text.split_once("//! ```").unwrap().0.replace("//! ", "").replace("//!", "");
    let log = fs::File::open("/dev/null").unwrap();
    let told = toml::from_str::<Sandbox>(&text).unwrap().prepare(Fds::new().bind("log", log)).unwrap();
    assert!(told.explain().any(|call| call.object() == "RLIMIT_NOFILE"));
    for (wrong, says) in [
        ("version = 2\nprogram = \"/bin/sh\"", "version 2"),
        ("program = \"/bin/sh\"\nhostnam = \"x\"", "hostnam"),
        ("namespaces = [\"pids\"]", "\"pids\" is none of user, pid"),
        ("rlimits.core = { soft = -1, hard = 0 }", "unlimited"),
        ("rlimits.core = { soft = \"none\", hard = 0 }", "unlimited"),
        ("program = \"a\\u0000\"", "zero character"),
        ("stdio.stdin = \"tty\"", "tty"),
        ("[[mounts]]\ntarget = \"/x\"\nkind = \"proc\"", "proc"),
    ] {
        let error = toml::from_str::<Sandbox>(wrong).unwrap_err().to_string();
        assert!(error.contains(says), "{wrong}: {error}");
    }
}

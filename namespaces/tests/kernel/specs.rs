//! Sandboxes at random: written down and read, and spawned.

use crate::support::{asked_for_long, output, program, sh};
use cofferdam_namespaces::{
    BpfInstruction, Capabilities, Capability, CapabilitySet, Clock, ClockOffset, Credentials, Engine, Fallbacks, Fds,
    IdMap, IdRange, IoPriority, Join, Mount, Namespaces, Personality, Propagation, Resource, Rlimit, Root, Sandbox,
    Scheduler, Seccomp, SecureBits, Stdio, TerminalSize,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Debug;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::rc::Rc;

/// The same cases each time, and many more with `COFFERDAM_TEST_LONG=1`.
fn for_all<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
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

fn any_namespaces() -> impl Strategy<Value = Namespaces> {
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
struct Aspect {
    key: &'static str,
    shown: String,
    apply: Rc<dyn Fn(Sandbox) -> Sandbox>,
}

impl Debug for Aspect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} = {:?}", self.key, self.shown)
    }
}

fn aspect<T: Clone + Debug + 'static>(
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
    let join = Join::only(Namespaces::NET).environment();
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
        change(Just(()), |s, ()| s.no_new_privs().new_session_keyring()),
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

/// What a program shows of itself. `/proc` may be another pid namespace's: `self` is right in any.
const SHOW: &str = "show() { printf '%s\\t%s\\n' \"$1\" \"$2\"; }
    show arg0 \"$0\"; show var \"$VAR\"; show directory \"$(pwd -P)\"; show umask \"$(umask)\"; show nofile \"$(ulimit -n)\"
    show core \"$(ulimit -Hc)\"; show io \"$(ionice)\"; show ids \"$(id -u) $(id -g)\"
    for file in oom_score_adj personality; do show $file \"$(cat /proc/self/$file)\"; done
    for file in kernel/hostname kernel/domainname net/ipv4/ip_forward; do show $file \"$(cat /proc/sys/$file)\"; done
    show cpus \"$(grep Cpus_allowed_list /proc/self/status | cut -f 2)\"
    for name in user pid mnt uts ipc net cgroup time; do show $name \"$(readlink /proc/self/ns/$name)\"; done
    show boottime \"$(grep boottime /proc/self/timens_offsets | tr -s ' ')\"; show masked \"$(stat -c %F /etc/passwd)\"
    show tmp \"$(grep ' / /mnt ' /proc/self/mountinfo | cut -d ' ' -f 6)\"; show fsize \"$(ulimit -f)\"
    read -r pid _ _ _ _ session _ _ _ _ _ _ _ _ _ _ _ _ nice _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ policy _ </proc/self/stat
    show nice $nice; show policy $policy; show session $([ $pid = $session ] && echo own || echo another)";

fn aspects(first_cpu: u16) -> impl Strategy<Value = Vec<Option<Aspect>>> {
    let string = |s: &String| s.clone();
    let policy = |scheduler: &Scheduler| {
        let number = match scheduler {
            Scheduler::Batch => libc::SCHED_BATCH,
            Scheduler::Idle => libc::SCHED_IDLE,
            _ => libc::SCHED_OTHER,
        };
        number.to_string()
    };
    // Others change what addresses a program gets, and can keep a shell from starting.
    let personalities = vec![Personality::LINUX32, Personality::ADDR_NO_RANDOMIZE, Personality::STICKY_TIMEOUTS];
    let own = Namespaces::NET | Namespaces::PID | Namespaces::MOUNT;
    let all = vec![
        aspect("arg0", "[a-z]{1,20}", string, Sandbox::arg0),
        aspect("var", "[!-~]{0,20}", string, |s, value| s.env("VAR", value)),
        aspect("directory", select(vec!["/", "/usr", "/proc/sys"]), |d| (*d).to_owned(), Sandbox::working_directory),
        aspect("umask", 0..=0o777_u32, |mask| format!("{mask:04o}"), Sandbox::umask),
        aspect("nofile", 10..100_u64, u64::to_string, |s, n| s.rlimit(Resource::Nofile, n)),
        aspect("core", Just(0_u64), u64::to_string, |s, n| s.rlimit(Resource::Core, n)),
        aspect("io", 0..=7_u8, |n| format!("best-effort: prio {n}"), |s, n| s.io_priority(IoPriority::BestEffort(n))),
        aspect(
            "ids",
            any::<(u16, u16)>(),
            |(u, g)| format!("{u} {g}"),
            |s, (u, g)| s.user(IdMap::single(u.into(), g.into())),
        ),
        aspect("oom_score_adj", 0..=1000_i16, i16::to_string, Sandbox::oom_score_adj),
        aspect("personality", select(personalities), |p| format!("{:08x}", p.bits()), Sandbox::personality),
        aspect("kernel/hostname", "[a-z]{1,64}", string, |s, name| s.namespaces(Namespaces::UTS).hostname(name)),
        aspect("kernel/domainname", "[a-z]{1,64}", string, |s, name| s.namespaces(Namespaces::UTS).domainname(name)),
        aspect(
            "net/ipv4/ip_forward",
            select(vec!["0", "1"]),
            |v| (*v).to_owned(),
            move |s, value| s.namespaces(own).sysctl("net.ipv4.ip_forward", value),
        ),
        aspect("cpus", Just(first_cpu), u16::to_string, |s, cpu| s.cpu_affinity([cpu])),
        aspect("nice", 0..=19_i8, i8::to_string, Sandbox::nice),
        aspect("policy", select(vec![Scheduler::Other, Scheduler::Batch, Scheduler::Idle]), policy, Sandbox::scheduler),
    ];
    all.into_iter().chain(surroundings()).map(prop::option::of).collect::<Vec<_>>()
}

/// What of its files, its clocks and its session can be asked for.
fn surroundings() -> Vec<BoxedStrategy<Aspect>> {
    vec![
        aspect("session", Just(()), |()| "own".to_owned(), |s, ()| s.new_session()),
        aspect("fsize", 1..1000_u64, u64::to_string, |s, n| s.rlimit(Resource::Fsize, n * 512)),
        aspect(
            "masked",
            Just("/etc/passwd"),
            |_| "character special file".to_owned(),
            |s, path| s.namespaces(Namespaces::MOUNT).mount(Mount::mask(path)),
        ),
        aspect(
            "tmp",
            any::<[bool; 3]>(),
            |flags| mount_options(*flags),
            |s, [read_only, noexec, noatime]| {
                let mount = Mount::tmpfs("/mnt");
                let mount = if read_only { mount.read_only() } else { mount };
                let mount = if noexec { mount.noexec() } else { mount };
                s.namespaces(Namespaces::MOUNT).mount(if noatime { mount.noatime() } else { mount })
            },
        ),
        aspect(
            "boottime",
            1..1000_i64,
            |n| format!("boottime {n} 0"),
            |s, seconds| s.namespaces(Namespaces::TIME).clock_offset(Clock::Boottime, ClockOffset::new(seconds, 0)),
        ),
    ]
}

fn mount_options([read_only, noexec, noatime]: [bool; 3]) -> String {
    let noexec = if noexec { ",noexec" } else { "" };
    let access = if noatime { "noatime" } else { "relatime" };
    format!("{},nosuid,nodev{noexec},{access}", if read_only { "ro" } else { "rw" })
}

const NAMES: [(Namespaces, &str); 8] = [
    (Namespaces::USER, "user"),
    (Namespaces::PID, "pid"),
    (Namespaces::MOUNT, "mnt"),
    (Namespaces::UTS, "uts"),
    (Namespaces::IPC, "ipc"),
    (Namespaces::NET, "net"),
    (Namespaces::CGROUP, "cgroup"),
    (Namespaces::TIME, "time"),
];

fn show(sandbox: Sandbox) -> BTreeMap<String, String> {
    let text = output(sandbox);
    let pairs = text.lines().map(|line| line.split_once('\t').unwrap_or_else(|| panic!("{text}")));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// What is asked for is there, and what is not asked for is as it was. The sandbox comes out of a file.
pub(crate) fn random_sandboxes_are_as_asked() {
    let base = sh(SHOW).user(IdMap::root());
    let mut ours = show(base.clone());
    for (_, name) in NAMES {
        // Not those of a sandbox that has ended: their numbers are used again.
        let own = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        ours.insert(name.to_owned(), own.into_os_string().into_string().unwrap());
    }
    let first_cpu = ours["cpus"].split([',', '-']).next().unwrap().parse().unwrap();
    for_all(40, &(any_namespaces(), aspects(first_cpu)), |(namespaces, aspects)| {
        let aspects: Vec<_> = aspects.into_iter().flatten().collect();
        let sandbox =
            aspects.iter().fold(base.clone().namespaces(namespaces), |sandbox, aspect| (aspect.apply)(sandbox));
        let written = serde_json::to_value(&sandbox).unwrap();
        let names = written["namespaces"].as_array().unwrap().clone();
        let theirs = show(serde_json::from_value(written).unwrap());
        for (key, ours) in &ours {
            let (asked, theirs) = (aspects.iter().find(|aspect| aspect.key == key), &theirs[key]);
            let namespace = NAMES.iter().find(|(_, name)| name == key);
            match (asked, namespace) {
                (Some(aspect), _) => prop_assert_eq!(theirs, &aspect.shown, "{}", key),
                (None, Some((flag, _))) => {
                    let name = format!("{flag:?}");
                    let wanted = names.iter().any(|n| name.to_ascii_lowercase().contains(n.as_str().unwrap()));
                    prop_assert_eq!(theirs != ours, wanted, "{}", key);
                }
                // Follows the nice value.
                (None, None) if key == "io" => {}
                (None, None) if key == "net/ipv4/ip_forward" => {}
                (None, None) => prop_assert_eq!(theirs, ours, "{}", key),
            }
        }
        Ok(())
    });
}

//! Random sandboxes: what was asked for is read back from `/proc` inside, and what was not asked for is as it was.

use crate::identity::strangers;
use crate::specs::{Aspect, any_namespaces, aspect, for_all};
use crate::support::{NAMES, output_with, sh};
use cofferdam_namespaces::{
    Capabilities, Capability, CapabilitySet, Clock, ClockOffset, Credentials, Fds, IdMap, IoPriority, Mount,
    Namespaces, Personality, Propagation, Resource, Rlimit, Root, Sandbox, Scheduler, Seccomp,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// What a program shows of itself. `/proc` may be another pid namespace's: `self` is right in any. What a file of it is about is settled when it is opened.
const SHOW: &str = r#"show() { printf '%s\t%s\n' "$1" "$2"; }
    flat() { tr '\n\t\0' '  |'; }
    open=; for at in /proc/self/fd/*; do [ ${at##*/} -gt 2 ] && [ -e $at ] && open="$open ${at##*/}"; done; show fds "$open"
    exec 9</proc/self/cmdline; show cmdline "$(flat <&9)"; exec 9</proc/self/environ; show environ "$(flat <&9)"; exec 9<&-
    show directory "$(pwd -P)"; show umask "$(umask)"; show io "$(ionice)"; show ids "$(id -u) $(id -g)"
    for file in oom_score_adj personality; do show $file "$(cat /proc/self/$file)"; done
    for file in kernel/hostname kernel/domainname net/ipv4/ip_forward; do show $file "$(cat /proc/sys/$file)"; done
    while read -r name value; do case $name in
        CapBnd:) show bounding $value;; NoNewPrivs:) new=$value;; Seccomp_filters:) filters=$value;;
        Cpus_allowed_list:) show cpus $value;; esac; done </proc/self/status
    show privileges "$new $filters"; show limits "$(tr '\n' '|' </proc/self/limits)"
    for name in user pid mnt uts ipc net cgroup time; do show $name "$(readlink /proc/self/ns/$name)"; done
    while read -r name s n; do show $name "$s $n"; done </proc/self/timens_offsets; show masked "$(stat -c %F /etc/passwd)"
    tmp=; bound=; while read -r a b c d point options rest; do case $point in
        /) access=${options%%,*} peers="${rest%%- *}";; /mnt) tmp=$options;; */bound) bound=$options;; esac; done </proc/self/mountinfo
    show tmp "$tmp"; show bound "$bound"; show access "$access"; show peers "$peers"
    show root $([ -e /var ] && echo hosts || echo own)
    read -r pid _ _ _ _ session _ _ _ _ _ _ _ _ _ _ _ _ nice _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ policy _ </proc/self/stat
    show nice $nice; show policy $policy; show session $([ $pid = $session ] && echo own || echo another) # END"#;

type Shown = BTreeMap<String, String>;

/// Spawned as a file says it.
fn show(written: Value) -> Result<Shown, TestCaseError> {
    let mut fds = Fds::new();
    if !written["fds"].as_object().unwrap().is_empty() {
        fds = fds.bind("some", fs::File::open("/dev/zero").unwrap());
    }
    let text = output_with(serde_json::from_value(written).unwrap(), fds);
    let mut shown = Shown::new();
    for line in text.lines() {
        let (key, value) = line.split_once('\t').ok_or_else(|| TestCaseError::fail(text.clone()))?;
        shown.insert(key.to_owned(), value.to_owned());
    }
    let command = shown.remove("cmdline").unwrap();
    let (name, rest) = command.split_once('|').unwrap();
    shown.insert("arg0".to_owned(), name.to_owned());
    shown.insert("args".to_owned(), rest.split_once("# END|").unwrap().1.to_owned());
    for line in shown.remove("limits").unwrap().split('|').filter(|line| line.starts_with("Max ")) {
        let (soft, hard) = (line[26..47].trim(), line[47..68].trim());
        shown.insert(line[..26].trim().to_owned(), format!("{soft} {hard}"));
    }
    let peers: String = shown["peers"].chars().filter(|c| !c.is_ascii_digit() && *c != ':').collect();
    shown.insert("peers".to_owned(), peers.trim().to_owned());
    Ok(shown)
}

/// As whom it is that can be asked for other ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Single,
    Privileged,
    Ranges,
}

/// What the machine and the caller are like.
struct Here {
    base: Base,
    ours: Shown,
    /// For a bind: `source` and `bound`.
    folder: PathBuf,
}

impl Here {
    fn new(base: Base, folder: &Path) -> Self {
        let mut ours = show(serde_json::to_value(base.sandbox()).unwrap()).unwrap();
        for (_, name) in NAMES {
            // Not those of a sandbox that has ended: their numbers are used again.
            let own = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
            ours.insert(name.to_owned(), own.into_os_string().into_string().unwrap());
        }
        Here { base, ours, folder: folder.to_owned() }
    }
}

impl Base {
    fn sandbox(self) -> Sandbox {
        match self {
            Base::Single => sh(SHOW).user(IdMap::root()),
            Base::Privileged => sh(SHOW),
            Base::Ranges => sh(SHOW).user(strangers()),
        }
    }
}

/// Everything that can be asked for. The root comes first: what is mounted afterwards is mounted in it.
fn aspects(here: &Here) -> Vec<BoxedStrategy<Aspect>> {
    [own_files(here), what_it_is(here), privileges(here), limits(here), surroundings()].concat()
}

fn own_files(here: &Here) -> Vec<BoxedStrategy<Aspect>> {
    // Of a mount that has peers now; of one that has none it has none either way.
    let (folder, master) = (here.folder.clone(), if here.ours["peers"].is_empty() { "" } else { "master" });
    vec![
        aspect("root", Just(()), |()| "own".to_owned(), |s, ()| in_an_empty_root(s)),
        aspect("access", Just(()), |()| "ro".to_owned(), |s, ()| s.namespaces(Namespaces::MOUNT).read_only_root()),
        aspect(
            "peers",
            select(vec![Propagation::Private, Propagation::Slave]),
            move |kind| if *kind == Propagation::Slave { master.to_owned() } else { String::new() },
            |s, kind| s.namespaces(Namespaces::MOUNT).propagation(kind),
        ),
        aspect(
            "bound",
            any::<bool>(),
            |noexec| format!("ro,nosuid,nodev{}", if *noexec { ",noexec" } else { "" }),
            move |s, noexec| {
                let bind = Mount::bind(folder.join("source"), folder.join("bound")).read_only();
                s.namespaces(Namespaces::MOUNT).mount(if noexec { bind.noexec() } else { bind })
            },
        ),
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
        aspect("directory", select(vec!["/", "/usr", "/proc/sys"]), |d| (*d).to_owned(), Sandbox::working_directory),
    ]
}

/// Nothing of the host's but what the script needs.
fn in_an_empty_root(sandbox: Sandbox) -> Sandbox {
    let needed =
        ["/usr", "/bin", "/lib", "/lib64", "/etc", "/proc"].into_iter().filter(|path| Path::new(path).exists());
    let sandbox = sandbox.namespaces(Namespaces::MOUNT).root(Root::Empty);
    needed.fold(sandbox, |sandbox, path| sandbox.mount(Mount::bind(path, path)))
}

fn what_it_is(here: &Here) -> Vec<BoxedStrategy<Aspect>> {
    let variables = || prop::collection::btree_map("[A-Z]{1,9}", "[!-{}~]{0,20}", 0..4);
    let known = here.ours["environ"].clone();
    let (first, base) = (here.ours["cpus"].split([',', '-']).next().unwrap().parse().unwrap(), here.base);
    vec![
        aspect("arg0", "[a-z]{1,20}", String::clone, Sandbox::arg0),
        aspect("args", prop::collection::vec("[!-{}~]{0,20}", 1..4), |args| args.join("|") + "|", Sandbox::args),
        aspect(
            "environ",
            (variables(), any::<bool>()),
            move |(variables, inherit)| environ(&known, variables, *inherit),
            |s, (variables, inherit)| if inherit { s.envs(variables).inherit_env() } else { s.envs(variables) },
        ),
        aspect("umask", 0..=0o777_u32, |mask| format!("{mask:04o}"), Sandbox::umask),
        aspect("fds", 3..100_u32, |number| format!(" {number}"), |s, number| s.fd(number, "some")),
        aspect("session", Just(()), |()| "own".to_owned(), |s, ()| s.new_session()),
        aspect(
            "ids",
            any::<(u16, u16)>(),
            |(u, g)| format!("{u} {g}"),
            move |s, (u, g)| match base {
                Base::Single => s.user(IdMap::single(u.into(), g.into())),
                _ => s.credentials(Credentials::new(u.into(), g.into())),
            },
        ),
        aspect("cpus", Just(first), u16::to_string, |s, cpu| s.cpu_affinity([cpu])),
        aspect("nice", 0..=19_i8, i8::to_string, Sandbox::nice),
        aspect(
            "policy",
            select(vec![Scheduler::Other, Scheduler::Batch, Scheduler::Idle]),
            |scheduler| policy(*scheduler),
            Sandbox::scheduler,
        ),
        aspect(
            "io",
            prop_oneof![Just(IoPriority::Idle), (0..=7_u8).prop_map(IoPriority::BestEffort)],
            |priority| match priority {
                IoPriority::BestEffort(level) => format!("best-effort: prio {level}"),
                _ => "idle".to_owned(),
            },
            Sandbox::io_priority,
        ),
    ]
}

/// What comes first in its script's environment, and in the rest of it; in the order of their names.
fn environ(known: &str, variables: &BTreeMap<String, String>, inherit: bool) -> String {
    let ours = std::env::vars_os().filter(|_| inherit);
    let known = known.split('|').filter_map(|text| text.split_once('=')).map(|(n, v)| (n.into(), v.into()));
    let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
    let all: BTreeMap<OsString, OsString> = ours.chain(known).chain(variables).collect();
    let text = |(name, value): (OsString, OsString)| format!("{}={}|", name.display(), value.display());
    all.into_iter().map(text).collect::<String>().replace(['\n', '\t'], " ")
}

fn policy(scheduler: Scheduler) -> String {
    let number = match scheduler {
        Scheduler::Batch => libc::SCHED_BATCH,
        Scheduler::Idle => libc::SCHED_IDLE,
        _ => libc::SCHED_OTHER,
    };
    number.to_string()
}

fn privileges(here: &Here) -> Vec<BoxedStrategy<Aspect>> {
    let own = here.ours["bounding"].clone();
    let filters: u32 = here.ours["privileges"].split_once(' ').unwrap().1.parse().unwrap();
    let some = subsequence(vec![Capability::Kill, Capability::Chown, Capability::NetBindService], 0..=3);
    vec![
        aspect(
            "bounding",
            some.prop_map(CapabilitySet::from_iter),
            move |set| {
                let bits: u64 = set.iter().fold(0, |bits, one| bits | 1 << one.number());
                format!("{:016x}", bits & u64::from_str_radix(&own, 16).unwrap())
            },
            |s, set| s.capabilities(Capabilities::only(set)),
        ),
        // Each of these filters is one of the kernel's.
        aspect(
            "privileges",
            0..3_u32,
            move |more| format!("1 {}", filters + more),
            |s, more| (0..more).fold(s.no_new_privs(), |s, _| s.seccomp(Seccomp::no_terminal_injection())),
        ),
    ]
}

/// Of each resource the name in `/proc/self/limits`.
fn row(resource: Resource) -> &'static str {
    match resource {
        Resource::As => "Max address space",
        Resource::Core => "Max core file size",
        Resource::Cpu => "Max cpu time",
        Resource::Data => "Max data size",
        Resource::Fsize => "Max file size",
        Resource::Locks => "Max file locks",
        Resource::Memlock => "Max locked memory",
        Resource::Msgqueue => "Max msgqueue size",
        Resource::Nice => "Max nice priority",
        Resource::Nofile => "Max open files",
        Resource::Nproc => "Max processes",
        Resource::Rss => "Max resident set",
        Resource::Rtprio => "Max realtime priority",
        Resource::Rttime => "Max realtime timeout",
        Resource::Sigpending => "Max pending signals",
        Resource::Stack => "Max stack size",
        _ => panic!("{resource:?} is new: how does the kernel call it?"),
    }
}

/// All of them, not much below what is allowed now: the script has to run.
fn limits(here: &Here) -> Vec<BoxedStrategy<Aspect>> {
    let limit = |resource: &Resource| {
        let hard = here.ours[row(*resource)].split_once(' ').unwrap().1;
        let most = if *resource == Resource::Nofile { 150 } else { hard.parse().unwrap_or(1_u64 << 40) };
        let values = (0..10_u64, 0..10_u64).prop_map(move |(less, lesser)| {
            let hard = most.saturating_sub(less);
            Rlimit::new(hard.saturating_sub(lesser), hard)
        });
        let resource = *resource;
        aspect(
            row(resource),
            values,
            |limit| format!("{} {}", limit.soft, limit.hard),
            move |s, limit| s.rlimit(resource, limit),
        )
    };
    Resource::ALL.iter().map(limit).collect()
}

/// Where it is: names, clocks, settings of its namespaces.
fn surroundings() -> Vec<BoxedStrategy<Aspect>> {
    // Others change what addresses a program gets, and can keep a shell from starting.
    let personalities = vec![Personality::LINUX32, Personality::ADDR_NO_RANDOMIZE, Personality::STICKY_TIMEOUTS];
    let own = Namespaces::NET | Namespaces::PID | Namespaces::MOUNT;
    let clock = |key, clock| {
        aspect(
            key,
            1..1000_i64,
            |seconds| format!("{seconds} 0"),
            move |s, seconds| s.namespaces(Namespaces::TIME).clock_offset(clock, ClockOffset::new(seconds, 0)),
        )
    };
    vec![
        aspect("oom_score_adj", 0..=1000_i16, i16::to_string, Sandbox::oom_score_adj),
        aspect("personality", select(personalities), |p| format!("{:08x}", p.bits()), Sandbox::personality),
        aspect("kernel/hostname", "[a-z]{1,64}", String::clone, |s, name| s.namespaces(Namespaces::UTS).hostname(name)),
        aspect("kernel/domainname", "[a-z]{1,64}", String::clone, |s, name| {
            s.namespaces(Namespaces::UTS).domainname(name)
        }),
        aspect(
            "net/ipv4/ip_forward",
            select(vec!["0", "1"]),
            |v| (*v).to_owned(),
            move |s, value| s.namespaces(own).sysctl("net.ipv4.ip_forward", value),
        ),
        clock("boottime", Clock::Boottime),
        clock("monotonic", Clock::Monotonic),
    ]
}

fn mount_options([read_only, noexec, noatime]: [bool; 3]) -> String {
    let noexec = if noexec { ",noexec" } else { "" };
    let access = if noatime { "noatime" } else { "relatime" };
    format!("{},nosuid,nodev{noexec},{access}", if read_only { "ro" } else { "rw" })
}

pub(crate) fn random_sandboxes_are_as_asked() {
    as_asked(Base::Single, 40);
}

/// Root, with a user namespace of ranges and without one, where the program may be anybody.
pub(crate) fn random_sandboxes_of_root() {
    as_asked(Base::Privileged, 30);
    as_asked(Base::Ranges, 20);
}

/// What is asked for is there, and what is not asked for is as it was. The sandbox comes out of a file.
fn as_asked(base: Base, cases: u32) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["source", "bound"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let here = Here::new(base, folder.path());
    let optional: Vec<_> = aspects(&here).into_iter().map(prop::option::of).collect();
    for_all(cases, &(any_namespaces(), optional, any::<bool>()), |(namespaces, aspects, init)| {
        // That would be a namespace of one id.
        let namespaces = if base == Base::Single { namespaces } else { namespaces - Namespaces::USER };
        let aspects: Vec<_> = aspects.into_iter().flatten().collect();
        let sandbox = base.sandbox().namespaces(namespaces);
        let sandbox = aspects.iter().fold(sandbox, |sandbox, aspect| (aspect.apply)(sandbox));
        // Nothing of it changes below an init.
        let sandbox = if init && namespaces.contains(Namespaces::PID) { sandbox.init() } else { sandbox };
        let written = serde_json::to_value(&sandbox).unwrap();
        let names = written["namespaces"].as_array().unwrap().clone();
        let theirs = show(written)?;
        for (key, ours) in &here.ours {
            let asked = aspects.iter().find(|aspect| aspect.key == key);
            compare(&aspects, &names, (key, asked), (ours, &theirs[key]))?;
        }
        Ok(())
    });
}

fn compare(
    aspects: &[Aspect],
    names: &[Value],
    (key, asked): (&str, Option<&Aspect>),
    (ours, theirs): (&String, &String),
) -> Result<(), TestCaseError> {
    let has = |key: &str| aspects.iter().any(|aspect| aspect.key == key);
    let namespace = NAMES.iter().find(|(_, name)| *name == key);
    match (asked, namespace, key) {
        // What is new has no peers; and without a mount namespace it is the caller's.
        (_, _, "peers") if has("root") || asked.is_none() => {}
        (Some(aspect), _, "bound") => prop_assert!(theirs.starts_with(&aspect.shown), "{}: {}", key, theirs),
        (Some(aspect), _, _) => prop_assert_eq!(theirs, &aspect.shown, "{}", key),
        (None, Some((flag, _)), _) => {
            let name = format!("{flag:?}");
            let wanted = names.iter().any(|n| name.to_ascii_lowercase().contains(n.as_str().unwrap()));
            prop_assert_eq!(theirs != ours, wanted, "{}", key);
        }
        // In a root of its own it starts at the top.
        (None, None, "directory") if has("root") => prop_assert_eq!(theirs, "/"),
        // The one follows the nice value; a network of its own begins with the host's other one, or with none.
        (None, None, "io" | "net/ipv4/ip_forward") => {}
        (None, None, _) => prop_assert_eq!(theirs, ours, "{}", key),
    }
    Ok(())
}

/// What of a sandbox is looked at elsewhere, because `/proc` does not tell, or not at once.
const ELSEWHERE: &[(&str, &str)] = &[
    ("version", "a_spec_is_written_by_hand"),
    ("program", "path_is_searched_as_execvp_does"),
    ("join", "joined_as_nsenter_does"),
    ("allow_chroot", "where_the_root_cannot_be_pivoted"),
    ("stdio", "null_swallows_and_gives_nothing"),
    ("terminal", "the_terminal_is_the_programs"),
    ("die_with_parent", "dies_with_the_spawning_thread"),
    ("engine", "the_engine_is_reported"),
    ("fallbacks", "without_close_range"),
    ("init", "a_thousand_zombies_are_reaped"),
    ("privilege.securebits", "securebits_are_the_programs"),
    ("privilege.new_session_keyring", "keys_of_the_host_are_out_of_sight"),
    ("privilege.apparmor_profile", "the_profile_is_the_programs"),
    ("privilege.selinux_label", "privileges_that_cannot_be"),
    ("privilege.landlock", "a_ruleset_restricts"),
];

/// A field of the spec that is new is looked at here, or it is said where else.
pub(crate) fn every_field_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let fields = |sandbox: &Sandbox| -> BTreeMap<String, Value> {
        let Value::Object(mut all) = serde_json::to_value(sandbox).unwrap() else { panic!("{sandbox:?}") };
        let Some(Value::Object(privilege)) = all.remove("privilege") else { panic!("{sandbox:?}") };
        let inner = privilege.into_iter().map(|(name, value)| (format!("privilege.{name}"), value));
        all.into_iter().chain(inner).collect()
    };
    let plain = fields(&sh(SHOW));
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut runner = TestRunner::deterministic();
    for base in [Base::Single, Base::Privileged] {
        // Only what is asked for matters here.
        let here = Here { base, ..Here::new(Base::Single, folder.path()) };
        for aspect in aspects(&here) {
            for _ in 0..20 {
                let changed = fields(&(aspect.new_tree(&mut runner).unwrap().current().apply)(sh(SHOW)));
                seen.extend(plain.iter().filter(|(name, value)| changed[*name] != **value).map(|(name, _)| &**name));
            }
        }
    }
    let elsewhere: BTreeSet<&str> = ELSEWHERE.iter().map(|(name, _)| *name).collect();
    let all: BTreeSet<&str> = plain.keys().map(|name| &**name).collect();
    let unseen: BTreeSet<&str> = all.difference(&seen).copied().collect();
    assert_eq!(unseen, elsewhere.intersection(&all).copied().collect(), "nobody looks, or twice");
}

//! Every system call of a spawn fails in turn, and the error says which it was.
//!
//! The cases come from the plan's own list: a step that is added to it is walked without being named here, and one
//! that no walk takes fails a test, see `walks`.

use crate::cgroup::Group;
use crate::engines::{Host, descriptors};
use crate::privilege::no_devices;
use crate::roots::Busybox;
use crate::support::{all_namespaces, program, without};
use crate::walks::{self, Caller, prove};
use cofferdam_namespaces::{
    Call, Capabilities, Capability, Child, Error, ErrorKind, Fds, IdMap, IoPriority, Mount, Namespaces, Personality,
    Plan, Resource, Root, Sandbox, Scheduler, Seccomp, SecureBits, Stdio, Step,
};
use cofferdam_testkit::Place;
use cofferdam_testkit::fault::{self, Action, Fault, Watch, Who, record};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Takes every step, in a new root each time: what is missing there is made.
fn everything() -> (Plan, Busybox) {
    let root = Busybox::new();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    std::fs::write(root.path().join("etc/secret"), "x").unwrap();
    (everything_in(&root), root)
}

fn everything_in(root: &Busybox) -> Plan {
    everything_of(program("true"), root, fds()).unwrap()
}

/// This program, at the end of every step.
pub(crate) fn everything_of(program: Sandbox, root: &Busybox, fds: Fds) -> Result<Plan, Error> {
    let mut fds = fds.bind("bin", std::fs::File::open("/bin/busybox").unwrap());
    let mut sandbox = sandbox(program)
        .root(Root::directory(root.path()))
        .read_only_root()
        .allow_chroot()
        .mount(Mount::tmpfs("/tmp").size(1 << 20).inodes(10))
        .mount(Mount::bind("/etc", "/tmp/deep/etc").read_only().noexec())
        .mount(Mount::bind_fd("bin", "/tmp/bin/busybox").non_recursive())
        .mount(Mount::directory("/tmp/folder/in/it"))
        .mount(Mount::link("folder", "/tmp/ways/link"))
        .mount(Mount::mqueue("/mq/of/this"))
        .mount(Mount::cgroup("/sys/fs/cgroup"))
        .mount(Mount::mask("/etc/secret"))
        .mount(Mount::mask("/tmp/deep"))
        .mount(Mount::mask("/missing"))
        .mount(Mount::read_only_path("/etc"));
    // Only root can make a detached mount outside of a user namespace.
    if nix::unistd::geteuid().is_root() {
        sandbox = sandbox.mount(Mount::attach("tree", "/opt"));
        fds = fds.bind("tree", root.mount());
    }
    sandbox.prepare(fds)
}

pub(crate) fn fds() -> Fds {
    Fds::new().bind("log", std::fs::File::open("/dev/null").unwrap()).bind("rules", no_devices())
}

fn sandbox(program: Sandbox) -> Sandbox {
    program
        .env("PATH", "/nowhere:/usr/bin:/bin")
        .user(IdMap::root())
        .namespaces(all_namespaces())
        .mount(Mount::proc("/proc"))
        .mount(Mount::dev("/dev"))
        .hostname("walked")
        .domainname("walked")
        .umask(0o027)
        .new_session()
        .rlimit(Resource::Core, 0)
        .rlimit(Resource::Nofile, 100)
        .oom_score_adj(1000)
        .cpu_affinity(0..64)
        .scheduler(Scheduler::Other)
        .nice(5)
        .io_priority(IoPriority::Idle)
        .personality(Personality::empty())
        // Not one of those, ip_forward for one, for which the kernel restarts the write while somebody holds the network's lock: a call
        // more or less would confuse the walk.
        .sysctl("net.ipv4.ip_unprivileged_port_start", "1")
        .working_directory("/dev")
        .capabilities(Capabilities::container_default().with_ambient([Capability::Kill]))
        .securebits(SecureBits::NO_SETUID_FIXUP)
        .new_session_keyring()
        .no_new_privs()
        .landlock("rules")
        .seccomp(Seccomp::container_default(&Capabilities::container_default()))
        .stdin(Stdio::Null)
        .stdout(Stdio::Pipe)
        .stderr(Stdio::fd("log"))
        .die_with_parent()
}

/// Also when it has not been started at all.
pub(crate) fn no_child_is_left() {
    let left = waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::__WALL);
    assert_eq!(left, Err(Errno::ECHILD));
}

/// What the host program is, and how many descriptors it has.
pub(crate) struct Unchanged(Host, usize);

impl Unchanged {
    /// Before there is a supervisor, which may close its own descriptors late.
    pub(crate) fn now() -> Self {
        // With the first thread glibc takes two signals for itself.
        std::thread::spawn(|| ()).join().unwrap();
        Unchanged(Host::now(), descriptors().len())
    }

    /// After a spawn, whether it failed or not.
    pub(crate) fn check(&self) {
        assert_eq!(Host::now(), self.0);
        // The supervisor, a thread of the test's, may not have closed its own yet; nor had the one before, maybe, when they were counted.
        let begin = std::time::Instant::now();
        while descriptors().len() > self.1 {
            assert!(begin.elapsed() < std::time::Duration::from_secs(10), "{:?}", descriptors());
            std::thread::yield_now();
        }
    }
}

fn finish(result: Result<Child, Error>) -> Result<std::process::ExitStatus, Error> {
    result?.wait()
}

/// Where in the plan's list each call stands that was made. What is not made must be told to be conditional, or be another place to look
/// for the program.
fn places(plan: &Plan, made: &[fault::Call]) -> Vec<usize> {
    let told: Vec<_> = plan.explain().collect();
    let same = |i: usize, j: usize| made[i].number == told[j].number();
    // Whether the calls from i on can be those that are told from j on.
    let mut fits = vec![vec![false; told.len() + 1]; made.len() + 1];
    for i in (0..=made.len()).rev() {
        for j in (0..=told.len()).rev() {
            let rest = i == made.len() && told[j..].iter().all(|call| call.step() == Step::Exec);
            let skipped = j < told.len() && told[j].is_conditional() && fits[i][j + 1];
            fits[i][j] = rest || skipped || i < made.len() && j < told.len() && same(i, j) && fits[i + 1][j + 1];
        }
    }
    assert!(fits[0][0], "not what is told: {:?}", made.iter().map(fault::Call::name).collect::<Vec<_>>());
    let mut next = 0;
    let place = |i| {
        while !(same(i, next) && fits[i + 1][next + 1]) {
            next += 1;
        }
        next += 1;
        next - 1
    };
    (0..made.len()).map(place).collect()
}

/// A spawn, and the system calls of its child.
fn recorded(plan: &Plan) -> Vec<fault::Call> {
    let (calls, result) = record(|| finish(plan.spawn()));
    assert!(result.unwrap().success());
    let mut made: Vec<_> = calls.into_iter().filter(|call| call.who == Who::Child).collect();
    // The kernel starts a write to some settings of the network again and again while somebody else changes it.
    made.dedup_by_key(|call| (call.number, call.args));
    made
}

/// The child does exactly what the plan says.
pub(crate) fn explained_is_what_happens() {
    let (plan, root) = everything();
    // Once with missing mount points, once with those.
    let again = everything_in(&root);
    let (first, second) = (recorded(&plan), recorded(&again));
    assert!(places(&again, &second).len() < places(&plan, &first).len());
    assert!(plan.explain().any(|call| call.may_fail()));
}

/// As `inject` at the `at`-th of these calls, but nothing else is looked at than calls of the same sort, which makes a walk fast.
pub(crate) fn inject_at<T: Send>(
    calls: &[fault::Call],
    at: usize,
    action: Action,
    run: impl FnOnce() -> T + Send,
) -> (Vec<fault::Call>, T) {
    let fault::Call { who, number, .. } = calls[at];
    // Behind execve(2) it is another program.
    let looked_at = [number, libc::SYS_execve];
    let nth = calls[..at].iter().filter(|call| call.who == who && looked_at.contains(&call.number)).count();
    Watch::only(&looked_at).inject(Fault { who, nth, action }, run)
}

/// What the child does, and where in the plan's list that stands.
fn reached() -> (Vec<fault::Call>, Vec<usize>) {
    // With the first thread glibc takes two signals for itself, which may have been ignored.
    std::thread::spawn(|| ()).join().unwrap();
    let (plan, _root) = everything();
    let made = recorded(&plan);
    let places = places(&plan, &made);
    (made, places)
}

pub(crate) fn every_call_of_the_child_can_fail() {
    let (before, mut steps) = (Unchanged::now(), BTreeSet::new());
    let (calls, places) = reached();
    for (nth, at) in places.into_iter().enumerate() {
        let (plan, _root) = everything();
        let (_, result) = inject_at(&calls, nth, Action::Errno(libc::EXFULL), || finish(plan.spawn()));
        let (call, error) = (plan.explain().nth(at).unwrap(), result.expect_err("fails"));
        assert_eq!((error.step(), error.raw_os_error()), (call.step(), Some(libc::EXFULL)), "{call}: {error}");
        assert_eq!(error.system_call(), Some(call.name()), "{call}: {error}");
        if call.step() != Step::Exec && !call.object().is_empty() {
            assert_eq!(error.object(), Some(call.object()), "{call}: {error}");
        }
        steps.insert(error.step());
        no_child_is_left();
        drop(plan);
        before.check();
    }
    prove("every_call_of_the_child_can_fail", steps);
}

/// Those that take the right to make a cgroup: each is failed and killed.
pub(crate) fn every_call_in_a_cgroup_can_fail() {
    let (group, mut steps) = (Group::any(), BTreeSet::new());
    let sandbox = program("true").user(IdMap::root()).namespaces(Namespaces::CGROUP | Namespaces::MOUNT);
    let run = || sandbox.prepare(Fds::new().cgroup([group.procs()]))?.spawn()?.wait();
    let before = Unchanged::now();
    let (calls, result) = record(run);
    assert!(result.unwrap().success());
    let calls: Vec<_> = calls.into_iter().filter(|call| call.who == Who::Child).collect();
    for (at, call) in calls.iter().enumerate().filter(|(_, call)| call.number != libc::SYS_execve) {
        let (_, result) = inject_at(&calls, at, Action::Errno(libc::EXFULL), run);
        let error = result.expect_err("fails");
        let told = (error.system_call(), error.raw_os_error());
        assert_eq!(told, (Some(call.name()), Some(libc::EXFULL)), "{call}: {error}");
        no_child_is_left();
        let (_, result) = inject_at(&calls, at, Action::Kill, run);
        let killed = result.expect_err("is killed");
        assert_eq!((killed.step(), killed.signal()), (error.step(), Some(libc::SIGKILL)), "{call}: {killed}");
        steps.insert(error.step());
        no_child_is_left();
        before.check();
    }
    prove("every_call_in_a_cgroup_can_fail", steps);
}

/// On a machine that has no such module: what this crate looks at says that there is one, and the kernel's files for it are the same. Each label is a file that is
/// opened, and written to.
pub(crate) fn every_call_of_a_label_can_fail() {
    let machine = Modules::pretended();
    let mut steps = BTreeSet::new();
    for sandbox in [program("true").apparmor_profile("tight"), program("true").selinux_label("u:r:tight_t:s0")] {
        let plan = sandbox.prepare(Fds::new()).unwrap();
        let calls = plan.explain().enumerate().filter(|(_, call)| call.step() == Step::Label);
        let calls: Vec<_> = calls.map(|(at, call)| (at, call.name(), call.object().to_owned())).collect();
        assert_eq!(calls.iter().map(|(_, name, _)| *name).collect::<Vec<_>>(), ["openat", "write"]);
        for (nth, name, object) in calls {
            let fault = Fault { who: Who::Child, nth, action: Action::Errno(libc::EXFULL) };
            let (_, result) = fault::inject(fault, || finish(plan.spawn()));
            let error = result.expect_err("fails");
            assert_eq!((error.system_call(), error.raw_os_error()), (Some(name), Some(libc::EXFULL)), "{error}");
            assert_eq!(error.object(), Some(object.as_os_str()), "{error}");
            steps.insert(error.step());
            no_child_is_left();
        }
    }
    drop(machine);
    prove("every_call_of_a_label_can_fail", steps);
}

/// A `/sys` that says that there are `AppArmor` and `SELinux`, until it is dropped.
struct Modules;

impl Modules {
    fn pretended() -> Self {
        let sys = std::path::Path::new("/sys");
        mount(Some("sys"), sys, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        for folder in ["module/apparmor/parameters", "fs/selinux"] {
            std::fs::create_dir_all(sys.join(folder)).unwrap();
        }
        std::fs::write(sys.join("module/apparmor/parameters/enabled"), "Y\n").unwrap();
        Modules
    }
}

impl Drop for Modules {
    fn drop(&mut self) {
        umount2("/sys", MntFlags::MNT_DETACH).unwrap();
    }
}

/// Those with which a walk lets a call fail: one that means nothing to any step, and, where there is time for it, those that might be taken for a
/// reason to do without.
pub(crate) fn errnos() -> &'static [i32] {
    let all = &[libc::EXFULL, libc::ENOSYS, libc::EPERM, libc::ENOMEM];
    if matches!(Place::required(), Ok(None | Some(Place::Host))) { all } else { &all[..1] }
}

/// What a child goes on after, unasked. Of one that keeps its caller's groups it is reported: see `a_user_namespace_is_joined`.
const OVERCOME: &[(&str, i32)] = &[("setgroups", libc::EPERM)];

/// There is no other way out for a call that has failed than an error that names it.
pub(crate) fn fails_or_is_overcome(call: &Call<'_>, errno: i32, result: Result<ExitStatus, Error>) {
    let overcome =
        OVERCOME.contains(&(call.name(), errno)) && [Step::JoinUser, Step::Join, Step::IdMap].contains(&call.step());
    match result {
        Ok(_) => assert!(overcome, "{call}: went on after {errno}"),
        Err(error) => {
            assert_eq!((error.step(), error.raw_os_error()), (call.step(), Some(errno)), "{call}: {error}");
            assert_eq!(error.system_call(), Some(call.name()), "{call}: {error}");
        }
    }
}

/// No call is done without because the kernel lacks it, or forbids it, or is short of memory.
pub(crate) fn nothing_is_done_without() {
    let before = Unchanged::now();
    let (calls, places) = reached();
    for (nth, at) in places.into_iter().enumerate() {
        // The first one has been walked.
        for errno in &errnos()[1..] {
            let (plan, _root) = everything();
            let (_, result) = inject_at(&calls, nth, Action::Errno(*errno), || finish(plan.spawn()));
            let call = plan.explain().nth(at).unwrap();
            fails_or_is_overcome(&call, *errno, result);
            no_child_is_left();
            drop(plan);
            before.check();
        }
    }
}

pub(crate) fn the_child_can_be_killed_at_every_call() {
    let before = Unchanged::now();
    let (calls, places) = reached();
    for (nth, at) in places.into_iter().enumerate() {
        let (plan, _root) = everything();
        let (_, result) = inject_at(&calls, nth, Action::Kill, || finish(plan.spawn()));
        let call = plan.explain().nth(at).unwrap();
        match result {
            // Whether it dies in execve or right after it is the same to everybody.
            Ok(status) => assert_eq!((call.name(), status.signal()), ("execve", Some(libc::SIGKILL))),
            Err(error) => {
                assert_eq!((error.step(), error.kind()), (call.step(), ErrorKind::Killed), "{call}: {error}");
                assert_eq!(error.signal(), Some(libc::SIGKILL));
            }
        }
        no_child_is_left();
        drop(plan);
        before.check();
    }
}

/// What the caller itself does, from the configuration to the end of the program.
pub(crate) fn every_call_of_the_caller_can_fail() {
    all_namespaces();
    let before = Unchanged::now();
    let walk = Caller {
        make: &fds,
        run: &|fds| {
            let child = sandbox(program("true")).prepare(fds)?.spawn()?;
            let result = child.wait();
            if result.is_err() {
                // What cannot be waited for the first time can be the second.
                child.wait().unwrap();
            }
            result.map(drop)
        },
        // Of the 64 signals and the 40 capabilities that it asks for some are enough.
        most: 8,
        but: &[],
        unnoticed: &[],
    };
    let seen = walk.walk();
    prove("every_call_of_the_caller_can_fail", walks::steps(&seen));
    for (step, call) in [
        (Step::Prepare, "openat"),
        (Step::Prepare, "pidfd_open"),
        (Step::Prepare, "rt_sigaction"),
        (Step::Prepare, "prctl"),
        (Step::Pipe, "pipe2"),
        (Step::BlockSignals, "rt_sigprocmask"),
        (Step::Clone, "clone3"),
        (Step::Wait, "waitid"),
    ] {
        assert!(seen.contains(&(step, call)), "{step}: {call} of {seen:?}");
    }
    no_child_is_left();
    before.check();
}

/// The parent has died between the child's birth and its asking for a signal: here long before, because the plan is used in a fork
/// of the process that made it.
pub(crate) fn a_parent_that_is_dead_already() {
    let sandbox = program("/bin/sleep").arg("1000").die_with_parent();
    let (told, tell) = nix::unistd::pipe().unwrap();
    let maker = fork(|| {
        let plan = sandbox.prepare(Fds::new()).unwrap();
        let maker = nix::unistd::getpid();
        // Runs on after its parent, the maker, has ended.
        fork(|| {
            while nix::unistd::getppid() == maker {
                std::thread::yield_now();
            }
            let error = plan.spawn().unwrap_err();
            assert_eq!((error.step(), error.raw_os_error()), (Step::ParentDeath, Some(libc::ESRCH)), "{error}");
            // Without looking it would live on, in nobody's care.
            let orphan = without(libc::SYS_ppoll, 0, || plan.spawn()).unwrap();
            orphan.kill().unwrap();
            orphan.wait().unwrap();
            nix::unistd::write(&tell, b"refused").unwrap();
        });
    });
    drop(tell);
    nix::sys::wait::waitpid(maker, None).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(told), &mut answer).unwrap();
    assert_eq!(answer, "refused");
}

pub(crate) fn fork(body: impl FnOnce()) -> nix::unistd::Pid {
    #[expect(unsafe_code, reason = "a process to die")]
    // SAFETY: the test's process has one thread, so that the child may do anything.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Parent { child } => child,
        nix::unistd::ForkResult::Child => {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            std::process::exit(i32::from(result.is_err()));
        }
    }
}

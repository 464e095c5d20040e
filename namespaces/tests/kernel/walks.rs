//! Which walk proves which step: together they prove all that there are. And the walk over what a caller does.

use crate::faults::inject_at;
use crate::support::all_namespaces;
use cofferdam_namespaces::{Error, ErrorKind, Namespaces, Step};
use cofferdam_testkit::fault::{self, Action, Who, record};
use std::collections::BTreeSet;

/// Tests that let something fail at these steps, and see that the error names its step. That a test does so it shows itself, by [`prove`].
const WALKS: &[(&str, &[Step])] = &[
    ("invalid_configuration", &[Step::Configure]),
    (
        "every_call_of_the_child_can_fail",
        &[
            Step::ParentDeath,
            Step::CloseDescriptors,
            Step::OomScore,
            Step::Time,
            Step::IdMap,
            Step::Sysctl,
            Step::Propagation,
            Step::Root,
            Step::Mount,
            Step::Pivot,
            Step::Hostname,
            Step::Domainname,
            Step::Stdio,
            Step::Session,
            Step::Limits,
            Step::Scheduling,
            Step::Personality,
            Step::BoundingSet,
            Step::Capabilities,
            Step::SecureBits,
            Step::Keyring,
            Step::Umask,
            Step::WorkingDirectory,
            Step::NoNewPrivs,
            Step::Landlock,
            Step::Signals,
            Step::LetGo,
            Step::Seccomp,
            Step::Exec,
        ],
    ),
    ("every_call_in_a_cgroup_can_fail", &[Step::Cgroup, Step::CgroupNamespace]),
    ("every_call_of_a_label_can_fail", &[Step::Label]),
    ("every_call_for_the_maps_can_fail", &[Step::IdMap, Step::Credentials, Step::Hold, Step::Hide]),
    ("every_call_of_a_join_can_fail", &[Step::JoinUser, Step::IdMap, Step::Unshare]),
    ("every_call_of_joining_can_fail", &[Step::Join, Step::WorkingDirectory, Step::LetGo]),
    ("every_call_of_a_held_child_can_fail", &[Step::Hold]),
    ("every_call_of_a_creation_can_fail", &[Step::Creation, Step::Hold]),
    ("every_call_up_to_the_init_can_fail", &[Step::Init]),
    ("every_call_for_an_init_can_fail", &[Step::Memory, Step::Pipe, Step::Init]),
    ("every_call_of_the_caller_can_fail", &[Step::Prepare, Step::Pipe, Step::BlockSignals, Step::Clone]),
    ("every_call_of_holding_can_fail", &[Step::Pipe, Step::Hold, Step::Release]),
    ("every_call_around_a_child_can_fail", &[Step::Namespace, Step::Signal, Step::Wait]),
    ("every_call_for_a_target_can_fail", &[Step::Target]),
    ("every_call_of_the_callers_terminal_can_fail", &[Step::Terminal]),
    ("every_call_of_a_hook_can_fail", &[Step::Hook]),
    ("every_call_of_a_listing_can_fail", &[Step::List]),
    ("every_call_of_a_scope_can_fail", &[Step::Scope]),
    ("every_call_of_a_supervisor_can_fail", &[Step::Supervise]),
];

/// What a walk named this has seen fail is at least what it stands for in the list.
pub(crate) fn prove(walk: &str, seen: impl IntoIterator<Item = Step>) {
    let seen: BTreeSet<Step> = seen.into_iter().collect();
    let (_, steps) = WALKS.iter().find(|(name, _)| *name == walk).expect("it is in the list");
    let missing: Vec<_> = steps.iter().filter(|step| is_here(**step) && !seen.contains(step)).collect();
    assert!(missing.is_empty(), "{walk} does not walk {missing:?}, but {seen:?}");
}

/// This kernel may be too old to let a program enter a time namespace.
fn is_here(step: Step) -> bool {
    step != Step::Time || all_namespaces().contains(Namespaces::TIME)
}

/// A step that is added without a walk fails here; a walk that is none, there.
pub(crate) fn every_step_has_its_fault_case() {
    let walked: BTreeSet<Step> = WALKS.iter().flat_map(|(_, steps)| steps.iter().copied()).collect();
    let without: Vec<_> = Step::ALL.iter().filter(|step| !walked.contains(step)).collect();
    assert!(without.is_empty(), "without a fault case: {without:?}");
    let tests: BTreeSet<&str> = crate::tests().iter().map(cofferdam_testkit::Test::name).collect();
    let unknown: Vec<_> = WALKS.iter().map(|(walk, _)| walk).filter(|walk| !tests.contains(**walk)).collect();
    assert!(unknown.is_empty(), "no tests: {unknown:?}");
}

/// A step, and the call that failed at it.
pub(crate) type Seen = BTreeSet<(Step, &'static str)>;

pub(crate) fn steps(seen: &Seen) -> impl Iterator<Item = Step> {
    seen.iter().map(|(step, _)| *step)
}

/// A walk over what a caller does: `run` with what `make` has made beforehand.
pub(crate) struct Caller<'a, I> {
    pub(crate) make: &'a dyn Fn() -> I,
    pub(crate) run: &'a (dyn Fn(I) -> Result<(), Error> + Sync),
    /// At most so many of the same number: where what is walked is as long as the machine has processes.
    pub(crate) most: usize,
    /// Calls that are let alone: with a reason each time.
    pub(crate) but: &'a [i64],
    /// Calls of which some are for the end of something, and may fail unnoticed.
    pub(crate) unnoticed: &'a [i64],
}

impl<I: Send> Caller<'_, I> {
    /// Lets each call of the caller's fail in turn, and is told which it was, and at which step.
    pub(crate) fn walk(&self) -> Seen {
        // With the first thread glibc takes two signals for itself.
        std::thread::spawn(|| ()).join().unwrap();
        let recorded = || {
            let given = (self.make)();
            let (calls, result) = record(|| (self.run)(given));
            result.unwrap();
            calls
        };
        // The second time: what an allocator does once is done.
        let (_, calls) = (recorded(), recorded());
        let mut seen = Seen::new();
        for (at, call) in calls.iter().enumerate().filter(|(at, call)| self.is_walked(&calls, *at, call)) {
            let result = self.failing(&calls, at);
            if let Err(error) = result {
                seen.insert((error.step(), told(call, &error)));
            } else {
                let unnoticed = is_best_effort(call) || self.unnoticed.contains(&call.number);
                assert!(unnoticed, "{call}: went on after an error");
            }
        }
        seen
    }

    /// Once more, with an error for this call. How often a caller looks at something is chance: then again.
    fn failing(&self, calls: &[fault::Call], at: usize) -> Result<(), Error> {
        for _ in 0..50 {
            let given = (self.make)();
            let (after, result) = inject_at(calls, at, Action::Errno(libc::EXFULL), || (self.run)(given));
            if after.iter().any(|call| call.fault.is_some()) {
                return result;
            }
            result.unwrap();
        }
        panic!("{} is not made again", calls[at]);
    }

    fn is_walked(&self, calls: &[fault::Call], at: usize, call: &fault::Call) -> bool {
        let before = calls[..at].iter().filter(|other| (other.who, other.number) == (call.who, call.number)).count();
        call.who == Who::Parent && !is_of_memory(call) && !self.but.contains(&call.number) && before < self.most
    }
}

/// What the allocator, threads and locks do, which is nobody's step; and what cannot fail. A page that a child shares is another matter.
fn is_of_memory(call: &fault::Call) -> bool {
    match call.number {
        libc::SYS_mmap => call.args[3] & libc::MAP_SHARED as u64 == 0,
        libc::SYS_brk
        | libc::SYS_munmap
        | libc::SYS_madvise
        | libc::SYS_mprotect
        | libc::SYS_mremap
        | libc::SYS_close
        | libc::SYS_futex
        | libc::SYS_sigaltstack
        | libc::SYS_set_robust_list
        | libc::SYS_rseq
        | libc::SYS_getpid
        | libc::SYS_gettid
        | libc::SYS_geteuid
        | libc::SYS_getegid
        | libc::SYS_umask
        | libc::SYS_sched_getaffinity
        | libc::SYS_sched_yield
        | libc::SYS_clock_nanosleep
        | libc::SYS_exit => true,
        _ => false,
    }
}

/// Of which an error changes nothing: a name for a thread, signals of glibc's own, the path for an error that does not come, how large a file may be that is read; and
/// the question whether a descriptor is open, which std asks where it checks itself.
fn is_best_effort(call: &fault::Call) -> bool {
    match call.number {
        libc::SYS_prctl => call.args[0] == libc::PR_SET_NAME as u64,
        libc::SYS_fcntl => call.args[1] == libc::F_GETFD as u64,
        libc::SYS_statx | libc::SYS_lseek | libc::SYS_rt_sigprocmask | libc::SYS_readlink | libc::SYS_readlinkat => {
            true
        }
        _ => false,
    }
}

/// The call that an error names is the one that failed, by the name that the manual has for it.
fn told(call: &fault::Call, error: &Error) -> &'static str {
    // What cannot be read of /proc is not there.
    if error.kind() == ErrorKind::InvalidConfig {
        return call.name();
    }
    assert_eq!(error.raw_os_error(), Some(libc::EXFULL), "{call}: {error}");
    let named = error.system_call().expect("a call");
    let same = match call.number {
        // A folder that is opened is looked at too.
        libc::SYS_newfstatat => ["fstat", "newfstatat", "openat"].contains(&named),
        // A file that is opened to be read.
        libc::SYS_openat | libc::SYS_read => named == "read" || named == "openat",
        libc::SYS_clone3 => named == "clone3" || named == "pthread_create",
        libc::SYS_statx => named == "newfstatat" || named == "statx",
        _ => named == call.name(),
    };
    assert!(same, "{call}: {error}");
    named
}

//! How a process gets its share of the processors and disks, `sched(7)`, `ioprio_set(2)`.

use crate::program::{Program, Sys};
use crate::{Error, Sandbox, Step};

/// A nice value, -20 (most time) to 19 (least), `setpriority(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
#[allow(clippy::exhaustive_structs, reason = "a number")]
pub struct Nice(pub i8);

impl From<i8> for Nice {
    fn from(value: i8) -> Self {
        Nice(value)
    }
}

/// A scheduling policy, `sched(7)`.
///
/// `SCHED_DEADLINE` is not there: it cannot be had together with a set of processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
#[doc(alias("sched_setscheduler", "chrt"))]
pub enum Scheduler {
    /// The usual one, `SCHED_OTHER`.
    #[doc(alias = "SCHED_OTHER")]
    Other,
    /// For what computes and does not wait, `SCHED_BATCH`.
    #[doc(alias = "SCHED_BATCH")]
    Batch,
    /// Only when nobody else wants to run, `SCHED_IDLE`. Starting the program takes as long as the machine is busy, and its caller waits for it.
    #[doc(alias = "SCHED_IDLE")]
    Idle,
    /// Real time, until it waits, `SCHED_FIFO`. The priority is 1 to 99; it takes `CAP_SYS_NICE` on the machine, or `RLIMIT_RTPRIO`.
    #[doc(alias = "SCHED_FIFO")]
    Fifo(u8),
    /// Real time, in turns, `SCHED_RR`, as [`Fifo`](Scheduler::Fifo).
    #[doc(alias = "SCHED_RR")]
    RoundRobin(u8),
}

impl Scheduler {
    fn policy(self) -> (i32, u8) {
        match self {
            Scheduler::Other => (libc::SCHED_OTHER, 0),
            Scheduler::Batch => (libc::SCHED_BATCH, 0),
            Scheduler::Idle => (libc::SCHED_IDLE, 0),
            Scheduler::Fifo(priority) => (libc::SCHED_FIFO, priority),
            Scheduler::RoundRobin(priority) => (libc::SCHED_RR, priority),
        }
    }
}

/// A class and level of disk access, `ioprio_set(2)`. Level 0 comes first, 7 last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
#[doc(alias("ionice", "ioprio", "ioprio_set"))]
pub enum IoPriority {
    /// Before all others. Takes `CAP_SYS_ADMIN` or `CAP_SYS_NICE` on the machine.
    #[doc(alias = "IOPRIO_CLASS_RT")]
    RealTime(u8),
    /// The usual one.
    #[doc(alias = "IOPRIO_CLASS_BE")]
    BestEffort(u8),
    /// Only when nobody else wants to.
    #[doc(alias = "IOPRIO_CLASS_IDLE")]
    Idle,
}

impl IoPriority {
    fn level(self) -> u8 {
        match self {
            IoPriority::RealTime(level) | IoPriority::BestEffort(level) => level,
            IoPriority::Idle => 0,
        }
    }

    /// As the kernel packs it: the class above 13 bits of level.
    fn bits(self) -> u32 {
        let class = match self {
            IoPriority::RealTime(_) => 1,
            IoPriority::BestEffort(_) => 2,
            IoPriority::Idle => 3,
        };
        class << 13 | u32::from(self.level())
    }
}

impl Sandbox {
    /// The nice value. By default the caller's. A lower one than that takes `CAP_SYS_NICE` on the machine, or `RLIMIT_NICE`.
    #[must_use]
    #[doc(alias("setpriority", "renice"))]
    pub fn nice(mut self, nice: impl Into<Nice>) -> Self {
        self.nice = Some(nice.into());
        self
    }

    /// The scheduling policy. By default the caller's.
    #[must_use]
    pub fn scheduler(mut self, scheduler: Scheduler) -> Self {
        self.scheduler = Some(scheduler);
        self
    }

    /// The processors that it may run on, by number, `sched_setaffinity(2)`. By default the caller's; those that are not there, or
    /// not the cgroup's, do not count.
    #[must_use]
    #[doc(alias("sched_setaffinity", "taskset", "cpuset"))]
    pub fn cpu_affinity(mut self, cpus: impl IntoIterator<Item = u16>) -> Self {
        self.cpu_affinity = Some(cpus.into_iter().collect());
        self
    }

    /// The priority of its disk access. By default the caller's.
    #[must_use]
    pub fn io_priority(mut self, priority: IoPriority) -> Self {
        self.io_priority = Some(priority);
        self
    }
}

/// As many processors as Linux can be built for.
const CPUS: u16 = 8192;

pub(crate) fn check(sandbox: &Sandbox) -> Result<(), Error> {
    let refuse = |object, words| Err(Error::config(object, words));
    if sandbox.nice.is_some_and(|Nice(nice)| !(-20..=19).contains(&nice)) {
        return refuse("nice", "is not in -20 to 19");
    }
    if let Some(Scheduler::Fifo(priority) | Scheduler::RoundRobin(priority)) = sandbox.scheduler
        && !(1..=99).contains(&priority)
    {
        return refuse("scheduler", "has a priority that is not in 1 to 99");
    }
    if sandbox.io_priority.is_some_and(|priority| priority.level() > 7) {
        return refuse("io priority", "has a level that is not in 0 to 7");
    }
    match &sandbox.cpu_affinity {
        Some(cpus) if cpus.is_empty() => refuse("cpu affinity", "has no processor"),
        Some(cpus) if cpus.last().is_some_and(|last| *last >= CPUS) => {
            refuse("cpu affinity", "has a processor above 8191")
        }
        _ => Ok(()),
    }
}

pub(crate) fn compile(program: &mut Program, sandbox: &Sandbox) {
    let step = Step::Scheduling;
    if let Some(cpus) = &sandbox.cpu_affinity {
        let mut mask = vec![0_u64; cpus.last().map_or(1, |last| usize::from(*last) / 64 + 1)];
        for cpu in cpus {
            if let Some(word) = mask.get_mut(usize::from(*cpu) / 64) {
                *word |= 1 << (cpu % 64);
            }
        }
        let bytes = mask.len() as u64 * 8;
        let mask = program.words(mask);
        program.call(step, "cpu affinity", Sys::sched_setaffinity, [0_u64.into(), bytes.into(), mask.into()]);
    }
    if let Some(scheduler) = sandbox.scheduler {
        let (policy, priority) = scheduler.policy();
        let priority = program.words([priority.into()]);
        program.call(step, "scheduler", Sys::sched_setscheduler, [0_u64.into(), policy.into(), priority.into()]);
    }
    if let Some(Nice(nice)) = sandbox.nice {
        let args = [libc::PRIO_PROCESS.into(), 0_u64.into(), i32::from(nice).into()];
        program.call(step, "nice", Sys::setpriority, args);
    }
    if let Some(priority) = sandbox.io_priority {
        const WHO_PROCESS: u64 = 1;
        program.call(step, "io priority", Sys::ioprio_set, [WHO_PROCESS.into(), 0_u64.into(), priority.bits().into()]);
    }
}

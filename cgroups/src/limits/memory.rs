//! Limits of memory and swap.

use crate::limits::Max;

/// The limits of memory and swap, in bytes, below the cgroup too. The kernel counts in pages: a limit is rounded down
/// to a multiple of the page size, and reads back so.
///
/// The two are limits of different things, as on v2. v1 knows memory and the *sum* of both; the difference is taken
/// care of, except that a limit of swap needs a limit of memory there: see
/// [limits of memory](crate#limits-of-memory).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct MemoryLimits {
    /// How much memory may be used, page cache included: `memory.max` (v2), `memory.limit_in_bytes` (v1). What is
    /// beyond is reclaimed; if it cannot be, a process in the cgroup is killed. 0 leaves nothing to run with: a process
    /// that enters is killed when it first needs memory.
    pub max: Option<Max<u64>>,
    /// How much swap may be used besides: `memory.swap.max` (v2), the difference between
    /// `memory.memsw.limit_in_bytes` and `memory.limit_in_bytes` (v1). 0 is no swap: otherwise what a limit of memory
    /// stops goes to swap, as long as there is some.
    pub swap: Option<Max<u64>>,
    /// Above this the cgroup is slowed down and reclaimed from, but nothing is killed: `memory.high`. v2 only.
    pub high: Option<Max<u64>>,
    /// Up to this its memory is reclaimed only if nothing else can be: `memory.low` (v2). On v1 the nearest is
    /// `memory.soft_limit_in_bytes`: what is *beyond* is reclaimed first.
    pub low: Option<Max<u64>>,
    /// Up to this its memory is never reclaimed: `memory.min`. v2 only.
    pub min: Option<Max<u64>>,
    /// How readily anonymous memory is swapped out, 0 to 200: v1's `memory.swappiness`. v2 has none.
    pub swappiness: Option<u64>,
    /// Whether the OOM killer takes all of the cgroup, or one process: `memory.oom.group`. v2 only.
    pub oom_group: Option<bool>,
    /// Whether the OOM killer may come. Without it who needs memory that is not there waits, until somebody raises the
    /// limit or frees some: v1's `memory.oom_control`. On v2 it always may.
    pub oom_killer: Option<bool>,
}

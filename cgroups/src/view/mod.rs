//! The container's own view of `/proc`: what `free`, `top`, `nproc` and `uptime` read, made from a cgroup's statistics
//! and limits instead of the host's.
//!
//! [`render`] has the pure functions, from values and the host's texts to texts. [`Snapshot`] keeps such files current
//! in a directory, to be bind-mounted over those in the container's `/proc`. `sysinfo(2)` is a system call, not a file:
//! what it says stays the host's.

mod active;
mod ceiling;
mod load;
pub mod render;
mod snapshot;

pub use ceiling::{Ceiling, QuotaView};
pub use load::LoadAverage;
pub use snapshot::Snapshot;

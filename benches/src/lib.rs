//! How fast cofferdam is: beside the least that the kernel asks for the same effect, and beside the tools that people use today.
//!
//! ```text
//! cargo run --release -p cofferdam-benches --features peers --bin ratios -- --area spawn --json spawn.json --svg plots
//! ```
//!
//! `BENCHMARKS.md` shows the results and says how to read them.
//!
//! # How it is measured
//!
//! - An [`Area`] has [`Case`]s, and in each some [`Contender`]s do the same thing: cofferdam, the *floor*, which is the same
//!   system calls written down by hand ([`floor`]), and with the feature `peers` the field's other tools.
//! - The contenders take turns, so that whatever else the machine does meets all of them ([`measuring`]).
//! - Every run checks what it did: exit status and output. One that is wrong ends the bench.
//! - System calls are counted by the test kit's supervisor, not sampled ([`counting`]): the numbers are exact.
//!
//! # To add an area
//!
//! One file with a `pub const AREA: Area`, beside [`spawn`], and its name in [`AREAS`]. What must be written with `unsafe`
//! goes to a file below [`floor`].

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("cofferdam-benches is for Linux on x86_64 and aarch64");

pub mod area;
pub mod cgroup;
pub mod confine;
pub mod counting;
pub mod floor;
pub mod image;
pub mod join;
pub mod measuring;
pub mod mount;
pub mod network;
pub mod report;
pub mod spawn;
pub mod svg;

pub use area::{Area, Case, Contender, Ready, Role, Runner, Sample};

/// Every area, in the order in which they are run.
pub const AREAS: &[Area] =
    &[spawn::AREA, join::AREA, confine::AREA, mount::AREA, image::AREA, cgroup::AREA, network::AREA];

/// A bench that went wrong says so and ends: nobody acts on what kind of failure it was.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

//! What the tests of the cofferdam crates need, and no program does: a harness in which each test
//! declares what it needs and has a process of its own, a leak check, fault injection, [changed inputs](Fuzz) for parsers.
//!
//! ```no_run
//! use cofferdam_testkit::{Need, Test};
//!
//! fn sets_a_hostname() {
//!     // ... assert!(..) as in any test
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     cofferdam_testkit::run(&[Test::new("sets_a_hostname", sets_a_hostname).needs(&[Need::Root])])
//! }
//! ```
//!
//! The program is a test target with `harness = false`; `cargo test` and `cargo nextest` run it.
//!
//! # What happens to a test
//!
//! 1. Its needs are probed when the list of tests is built. If one is not met, the test is shown as
//!    *ignored* with the reason. [`Place`] tells when that is a failure instead.
//! 2. The program starts itself again for this one test, with three processes:
//!    - the *guard* makes the test's cgroups and folder, watches the clock, and whatever happens,
//!      kills what is left and removes what it made;
//!    - the *reaper* is process 1 of the test's pid namespace (for an ordinary user: a subreaper)
//!      and finds the processes that the test forgot;
//!    - the *test* itself, whose `TMPDIR` is a folder of its own. As root it has its own mount
//!      namespace (where everything is shared mounts, as under systemd, so that a mount that
//!      should have been private shows up) and network namespace, and if it declared a need of
//!      cgroups, it sits in a cgroup of its own.
//! 3. When the test function returns, nothing of what it did may be left: no fd, process, mount,
//!    network link, cgroup, file in `TMPDIR`, and no change to what a library must not change in
//!    the program that uses it (signal mask, dumpable, working directory, umask, ids, namespaces,
//!    ...). A leak fails the test and is named.

mod cgroup;
pub mod fault;
mod fuzz;
mod guard;
mod harness;
mod inside;
mod leak;
mod log;
mod need;
mod place;
mod probe;
mod process;
mod sys;
mod test;
#[cfg(feature = "union")]
pub mod union;

pub use cgroup::Layout;
pub use fuzz::Fuzz;
pub use harness::{run, run_listed};
pub use log::Ran;
pub use need::Need;
pub use place::{Place, Places, patience};
pub use probe::debian;
pub use test::Test;

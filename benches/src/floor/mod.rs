//! The floors: what is measured, written by hand with nothing around it. The only folder with `unsafe`.
//!
//! A floor makes the same system calls as the library does for the same case. It checks that they succeed, because a bench
//! of failures would be fast, but tells nobody which one did not.

mod child;
pub mod fork;
pub mod join;
pub mod mount;
pub mod netlink;
pub mod probe;
pub mod root;
pub mod spawn;
mod syscall;

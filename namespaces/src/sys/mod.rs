//! System calls that nix does not wrap, and all that runs between clone and exec: the only folder with `unsafe`.
//!
//! A child of [`Engine::Shared`](crate::Engine) has the caller's memory while one of the caller's threads is suspended and all others go on; one of
//! `Copy` has what the others left in the middle of everything. It therefore touches nothing but its own stack, its [`Frame`] and what
//! the frame points to: no allocator, no lock, no thread-local (libc's errno is one), no panic.
#![allow(unsafe_code, reason = "the one folder for it; every block says why it is sound")]

mod clone;
mod closure;
mod each;
mod errand;
mod exit_info;
#[cfg(feature = "init")]
mod init;
mod interpreter;
#[cfg(feature = "seccomp")]
mod listener;
mod process;
mod raw;
mod related;
mod relay;
mod rights;
mod script;
mod shared;
mod signals;
mod stack;
mod telling;
mod terminal;

pub(crate) use clone::{Birth, Born, World, clone_and_run, pid_of};
pub(crate) use closure::{Task, clone_task};
pub(crate) use exit_info::exit_info;
#[cfg(feature = "init")]
pub(crate) use init::{InitFacts, RECORD, STAGES, init_image};
pub(crate) use interpreter::Frame;
#[cfg(feature = "seccomp")]
pub(crate) use listener::{add_fd, answer_notification, is_notification, random, receive_notification};
pub(crate) use process::{Block, copy_above, never_started, own_pidfd, pidfd_of, reap, received, send_signal};
pub(crate) use related::{Related, kind_of_namespace, owner_of_namespace, related_namespace};
pub(crate) use relay::clone_relay;
#[cfg(feature = "landlock")]
pub(crate) use rights::landlock_abi;
pub(crate) use rights::{Rights, has_no_new_privs, known_capabilities};
pub(crate) use script::HEAD;
pub(crate) use shared::SharedPage;
pub(crate) use signals::{DUMPING_SIGNALS, SIGNAL_SET_SIZE, SignalMask, ignored_signals};
pub(crate) use stack::Stack;
pub(crate) use telling::{Outcome, Telling};
pub(crate) use terminal::{set_terminal_size, terminal_peer, terminal_size, unlock_terminal};

fn last_errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

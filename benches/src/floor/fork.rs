//! The way most programs make std copy their page tables: a closure that runs before exec.
#![allow(unsafe_code, reason = "std marks the closure's environment as unsafe; this one does nothing in it")]

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Gives the command a `pre_exec` that does nothing. std then forks, where it would have shared memory.
pub fn with_pre_exec(command: &mut Command) {
    // SAFETY: the closure does nothing, which may be done between fork and exec.
    unsafe { command.pre_exec(|| Ok(())) };
}

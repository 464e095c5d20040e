//! Signals as a new program expects them, and what one that comes too early must not do.

use crate::program::{Arg, Finding, Program, Sys, Then};
use crate::sys::SIGNAL_SET_SIZE;
use crate::{Engine, Error, Fallbacks, Namespaces, Sandbox, Step, sys};

/// The clone has reset all handlers, but what the caller ignores stays ignored; Rust's runtime ignores SIGPIPE. The older clone resets nothing.
///
/// An init unblocks them for the program, so that none is lost which comes before it listens.
pub(crate) fn compile(program: &mut Program, sandbox: &Sandbox, engine: Engine, init: bool) -> Result<(), Error> {
    if engine == Engine::Copy {
        // It may die of signals from now on, and of its filters: no core dump of the caller's memory, which its root would get.
        program.call(Step::Hide, "", Sys::prctl, [libc::PR_SET_DUMPABLE.into(), 0_u64.into()]);
    }
    let default = program.words([libc::SIG_DFL as u64, 0, 0, 0]);
    let size: Arg = SIGNAL_SET_SIZE.into();
    let reset = |program: &mut Program, signal: u32| {
        let args = [signal.into(), default.into(), 0_u64.into(), size];
        program.call(Step::Signals, format!("signal {signal}"), Sys::rt_sigaction, args);
    };
    let ignored = sys::ignored_signals().map_err(|errno| Error::os(Step::Prepare, "rt_sigaction", errno))?;
    for signal in &ignored {
        reset(program, *signal);
    }
    if sandbox.fallbacks.contains(Fallbacks::CLONE) {
        let fixed = [libc::SIGKILL.cast_unsigned(), libc::SIGSTOP.cast_unsigned()];
        program.only(Fallbacks::CLONE, |program| {
            for signal in (1..=64).filter(|signal| !ignored.contains(signal) && !fixed.contains(signal)) {
                reset(program, signal);
            }
        });
    }
    if !init {
        // What would end it with a core dump of the caller's memory (and before Linux 5.16 all who have that memory) does so without. Process 1 does not die of it.
        if engine == Engine::Shared && !sandbox.namespaces.contains(Namespaces::PID) {
            let dumping = Finding { word: 0, mask: sys::DUMPING_SIGNALS, value: 0 };
            let then = Then::Finds([dumping; 2], libc::EINTR);
            program.call_then(Step::Signals, "pending", Sys::rt_sigpending, [Arg::Scratch, size], then);
        }
        let none = program.words([0]);
        let args = [libc::SIG_SETMASK.into(), none.into(), 0_u64.into(), size];
        program.call(Step::Signals, "", Sys::rt_sigprocmask, args);
    }
    Ok(())
}

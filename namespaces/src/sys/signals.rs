//! Signals as the kernel knows them: libc hides the two that it uses itself.

use super::raw::{errno_of, syscall6};

/// A signal mask as the kernel knows it: libc's own calls would leave out the signals that it uses itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignalMask(u64);

impl SignalMask {
    pub(crate) const ALL: SignalMask = SignalMask(u64::MAX);

    /// Gives this thread the mask; returns the one before.
    pub(crate) fn set(self) -> Result<SignalMask, i32> {
        let mut before = 0_u64;
        let new = (&raw const self.0).expose_provenance() as u64;
        let old = (&raw mut before).expose_provenance() as u64;
        // SAFETY: both point to 8 bytes on this stack; blocking and unblocking signals is always sound.
        let result =
            unsafe { syscall6(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as u64, new, old, SIGNAL_SET_SIZE, 0, 0]) };
        if result == 0 { Ok(SignalMask(before)) } else { Err(errno_of(result)) }
    }
}

/// The signals that this process ignores. Asked of the kernel, because libc hides the two that it uses itself.
pub(crate) fn ignored_signals() -> Result<Vec<u32>, i32> {
    let mut ignored = Vec::new();
    for signal in 1..=64_u32 {
        // Of the kernel's struct sigaction, on both architectures: handler, flags, restorer, mask.
        let mut action = [0_u64; 4];
        let old = (&raw mut action).expose_provenance() as u64;
        // SAFETY: without a new action nothing changes; `old` points to a struct of the right size.
        let result = unsafe { syscall6(libc::SYS_rt_sigaction, [signal.into(), 0, old, SIGNAL_SET_SIZE, 0, 0]) };
        if result < 0 {
            return Err(errno_of(result));
        }
        if action[0] == libc::SIG_IGN as u64 {
            ignored.push(signal);
        }
    }
    Ok(ignored)
}

/// Those of which a process dies with a core dump, as the kernel's set of signals.
pub(crate) const DUMPING_SIGNALS: u64 = bit(libc::SIGQUIT)
    | bit(libc::SIGILL)
    | bit(libc::SIGTRAP)
    | bit(libc::SIGABRT)
    | bit(libc::SIGBUS)
    | bit(libc::SIGFPE)
    | bit(libc::SIGSEGV)
    | bit(libc::SIGSYS)
    | bit(libc::SIGXCPU)
    | bit(libc::SIGXFSZ);

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Bytes in the kernel's signal set.
pub(crate) const SIGNAL_SET_SIZE: u64 = 8;

//! For this crate's own tests, behind a feature that nobody else needs: one of the kernel's answers to a thread is replaced by an error.
//! What was asked for has been done all the same, which is the harder case.

use rustix::process::{Signal, getpid, kill_process};
use std::cell::{Cell, RefCell};

pub use crate::netlink::fuzz::replies;

/// Instead of an errno: the process is killed.
pub const DEATH: i32 = i32::MIN;

/// At which answer something is run, and what.
type Meanwhile = (usize, Box<dyn FnOnce()>);

thread_local! {
    static SEEN: Cell<usize> = const { Cell::new(0) };
    static FAULT: Cell<Option<(usize, i32)>> = const { Cell::new(None) };
    static AND_ON: Cell<bool> = const { Cell::new(false) };
    static MEANWHILE: RefCell<Option<Meanwhile>> = const { RefCell::new(None) };
}

/// Runs `f` with the `nth` answer (from 0) to this thread replaced by this errno; with how many answers there were.
pub fn with_answer<T>(fault: Option<(usize, i32)>, f: impl FnOnce() -> T) -> (usize, T) {
    SEEN.set(0);
    FAULT.set(fault);
    let result = f();
    FAULT.set(None);
    (SEEN.get(), result)
}

/// Runs `f` with all answers to this thread from the `nth` on replaced by this errno.
pub fn with_answers_from<T>(nth: usize, errno: i32, f: impl FnOnce() -> T) -> T {
    AND_ON.set(true);
    let (_, result) = with_answer(Some((nth, errno)), f);
    AND_ON.set(false);
    result
}

/// Runs `f`, and `meanwhile` once when the `nth` answer (from 0) to this thread has come: what others can do just then.
pub fn with_meanwhile<T>(nth: usize, meanwhile: impl FnOnce() + 'static, f: impl FnOnce() -> T) -> T {
    MEANWHILE.set(Some((nth, Box::new(meanwhile))));
    let (_, result) = with_answer(None, f);
    MEANWHILE.set(None);
    result
}

pub(crate) fn next_answer() -> Option<i32> {
    let nth = SEEN.get();
    SEEN.set(nth + 1);
    let meanwhile = MEANWHILE.with_borrow_mut(|one| one.take_if(|(at, _)| *at == nth));
    if let Some((_, meanwhile)) = meanwhile {
        meanwhile();
    }
    let errno = FAULT.get().filter(|(at, _)| *at == nth || AND_ON.get() && *at < nth).map(|(_, errno)| errno);
    if errno == Some(DEATH) {
        // It cannot fail, and nothing comes after it.
        let _ = kill_process(getpid(), Signal::KILL);
    }
    errno
}

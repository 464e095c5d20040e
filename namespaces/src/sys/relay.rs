//! A process that joins namespaces and clones the child in them.
//!
//! Who joins a pid namespace is not in it, only its children are. So one process joins, clones the child as its *sibling* (`CLONE_PARENT`), that the
//! caller can wait for it, and ends. It has a copy of the caller's memory, which its child shares until the program starts, and the
//! caller's descriptors themselves (`CLONE_FILES`): the pidfd that its clone opens is the caller's, whatever happens to it afterwards.

use super::clone::{Birth, CloneArgs, IN_OUR_MEMORY, WAITED_FOR, World};
use super::interpreter::{Frame, exit, follow};
use std::sync::atomic::Ordering::Relaxed;

/// How the child is cloned.
#[derive(Debug)]
pub(super) struct Relay<'a> {
    args: CloneArgs,
    by_old_clone: bool,
    /// Shared with the caller.
    child: &'a Birth,
}

/// Clones a process that makes the calls up to the clone of the child, and returns when the child has started its program or ended, and
/// nothing is left of the other but its status. `first` is the one between; `child` is in memory that all share.
pub(crate) fn clone_relay<'a>(
    world: World<'_>,
    frame: &mut Frame<'a>,
    first: &Birth,
    child: &'a Birth,
) -> Result<(), i32> {
    let inner = World { cgroup: None, ..world };
    let args = CloneArgs::new(IN_OUR_MEMORY | libc::CLONE_PARENT as u64, inner, None, child);
    frame.relay = Some(Relay { args, by_old_clone: world.by_old_clone, child });
    let outer = World { namespaces: 0, ..world };
    let args = CloneArgs::new(WAITED_FOR | libc::CLONE_FILES as u64, outer, None, first);
    // SAFETY: CLONE_VFORK suspends this thread, and a copy has copies of `frame` and of the stack. It does not open or close any descriptor
    // but by its clone. `run_relay` never returns and keeps to the rules of this folder.
    let result = unsafe { args.clone(world.by_old_clone, run_relay, std::ptr::from_ref(frame).cast_mut().cast()) };
    if result < 0 { Err(first.failed(result)) } else { Ok(()) }
}

extern "C" fn run_relay(frame: *mut libc::c_void) -> ! {
    // SAFETY: `clone_relay` passes a frame, of which this process has a copy.
    let frame = unsafe { &*frame.cast::<Frame<'_>>() };
    if let Some(relay) = &frame.relay {
        relay.child.begins();
    }
    let code = if follow(frame, 0) { 0 } else { 127 };
    exit(frame, code)
}

/// Clones the child, which goes on with the calls from `next` on, and waits until it has started its program or ended. Returns whether there was one.
pub(super) fn pass_on(frame: &Frame<'_>, next: usize) -> bool {
    let Some(relay) = &frame.relay else {
        frame.telling.errno.store(libc::ENOTSUP, Relaxed);
        return false;
    };
    frame.born_at.store(next, Relaxed);
    let data = std::ptr::from_ref(frame).cast_mut().cast();
    // SAFETY: CLONE_VFORK suspends this process, which has one thread, until the child has left this memory; all that the child uses
    // outlives it, and nobody else uses the stack.
    let result = unsafe { relay.args.clone(relay.by_old_clone, run_child, data) };
    if result < 0 {
        frame.telling.errno.store(relay.child.failed(result), Relaxed);
    }
    result >= 0
}

extern "C" fn run_child(frame: *mut libc::c_void) -> ! {
    // SAFETY: `pass_on` passes a frame, and keeps it until this process has left its memory.
    let frame = unsafe { &*frame.cast::<Frame<'_>>() };
    follow(frame, frame.born_at.load(Relaxed));
    exit(frame, 127)
}

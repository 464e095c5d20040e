//! What the child does, as a list of system calls.
//!
//! The list is data: the child only interprets it ([`crate::sys`]), errors are told by an index into it, [`Plan::explain`](crate::Plan::explain)
//! prints it, and the tests fail each of its entries in turn.

mod call;
mod op;
mod sys;

use crate::{Fallbacks, Step};
pub use call::Call;
pub(crate) use op::{Arg, Finding, Op, SCRATCH, SLOTS, STATFS_FLAGS, Slot, Stops, Then};
use std::ffi::{CString, OsStr, OsString};
use std::sync::atomic::AtomicU64;
pub(crate) use sys::Sys;

/// A call that the program branches at.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub(crate) struct Fork(usize);

/// The system calls of a child, and all the memory that they refer to.
#[derive(Debug, Default)]
pub(crate) struct Program {
    always_held: bool,
    stops: Stops,
    /// The descriptors that are needed behind the creation.
    kept: Vec<Arg>,
    /// What the last two arguments of a call are from here on.
    secret: Option<[u64; 2]>,
    ops: Vec<Op>,
    objects: Vec<OsString>,
    // Boxes do not move when this struct does, so that addresses in `ops` stay good.
    strings: Vec<CString>,
    words: Vec<Box<[AtomicU64]>>,
    only: Fallbacks,
    slots: usize,
    /// Files that the child has written to and not closed.
    left_open: Vec<Slot>,
    /// The caller's `/proc`, if the child is not where that has its place.
    proc: Option<i32>,
}

impl Program {
    /// Adds a system call of `step`, which is about `object`.
    pub(crate) fn call<const N: usize>(&mut self, step: Step, object: impl AsRef<OsStr>, sys: Sys, args: [Arg; N]) {
        self.call_then(step, object, sys, args, Then::Go);
    }

    /// Adds a system call whose result matters.
    pub(crate) fn call_then<const N: usize>(
        &mut self,
        step: Step,
        object: impl AsRef<OsStr>,
        sys: Sys,
        given: [Arg; N],
        then: Then,
    ) {
        let mut args = [Arg::Value(0); 6];
        if let (Some(secret), [_, _, _, _, last @ ..]) = (self.secret, &mut args) {
            *last = secret.map(Arg::Value);
        }
        for (arg, given) in args.iter_mut().zip(given) {
            *arg = given;
        }
        let object = self.object(object.as_ref());
        let stops = match step {
            Step::Creation => Stops::Creation,
            Step::Hold if !self.always_held => Stops::Release,
            _ => Stops::Nowhere,
        };
        self.ops.push(Op {
            number: sys.number(),
            args,
            then,
            stops: stops.max(self.stops),
            only: self.only,
            seals: false,
            sometimes: false,
            step,
            name: sys.name(),
            object,
        });
    }

    /// Adds a system call of which `errno` is no failure; where it and where success go on is told by [`failure_joins`](Self::failure_joins)
    /// and [`success_joins`](Self::success_joins), or it is the next call.
    pub(crate) fn fork<const N: usize>(
        &mut self,
        step: Step,
        object: impl AsRef<OsStr>,
        (sys, args): (Sys, [Arg; N]),
        errno: i32,
        keep: Option<Slot>,
    ) -> Fork {
        self.call_then(step, object, sys, args, Then::Branch { keep, errno, done: 0, failed: 0 });
        Fork(self.ops.len() - 1)
    }

    /// Adds a system call that opens one of several programs; where it goes on if that is not there is told by [`failure_joins`](Self::failure_joins).
    pub(crate) fn look<const N: usize>(
        &mut self,
        step: Step,
        object: impl AsRef<OsStr>,
        (sys, args): (Sys, [Arg; N]),
        keep: Slot,
    ) -> Fork {
        self.call_then(step, object, sys, args, Then::Look { keep, past: 0 });
        Fork(self.ops.len() - 1)
    }

    /// The calls that `add` adds are made once, in front of the first start that is tried.
    pub(crate) fn seal(&mut self, add: impl FnOnce(&mut Self)) {
        let from = self.ops.len();
        add(self);
        for op in self.ops.get_mut(from..).unwrap_or_default() {
            op.seals = true;
        }
    }

    /// The calls that `add` adds may not be made.
    pub(crate) fn sometimes(&mut self, add: impl FnOnce(&mut Self)) {
        let from = self.ops.len();
        add(self);
        for op in self.ops.get_mut(from..).unwrap_or_default() {
            op.sometimes = true;
        }
    }

    /// The failure of this call goes on with the call that is added next.
    pub(crate) fn failure_joins(&mut self, Fork(at): Fork) {
        let skipped = self.skipped_since(at);
        if let Some(Op { then: Then::Branch { failed: past, .. } | Then::Look { past, .. }, .. }) = self.ops.get_mut(at)
        {
            *past = skipped;
        }
    }

    /// The success of this call goes on with the call that is added next.
    pub(crate) fn success_joins(&mut self, Fork(at): Fork) {
        let skipped = self.skipped_since(at);
        if let Some(Op { then: Then::Branch { done, .. }, .. }) = self.ops.get_mut(at) {
            *done = skipped;
        }
    }

    fn skipped_since(&mut self, fork: usize) -> usize {
        let skipped = self.ops.get_mut(fork + 1..).unwrap_or_default();
        for op in &mut *skipped {
            op.sometimes = true;
        }
        skipped.len()
    }

    /// The calls that `add` adds are made only where this is used.
    pub(crate) fn only(&mut self, fallback: Fallbacks, add: impl FnOnce(&mut Self)) {
        self.begin_only(fallback);
        add(self);
        self.end_only();
    }

    /// From here on calls are made only where this is used.
    pub(crate) fn begin_only(&mut self, fallback: Fallbacks) {
        self.only = fallback;
    }

    /// From here on they are made in any case.
    pub(crate) fn end_only(&mut self) {
        self.only = Fallbacks::empty();
    }

    /// The calls that `add` adds are made only by a child that waits there.
    pub(crate) fn stopping(&mut self, stops: Stops, add: impl FnOnce(&mut Self)) {
        self.stops = stops;
        add(self);
        self.stops = Stops::Nowhere;
    }

    /// Names descriptors that [`Then::AllButKept`] leaves open.
    pub(crate) fn keep(&mut self, descriptors: impl IntoIterator<Item = Arg>) {
        self.kept.extend(descriptors);
    }

    pub(crate) fn kept(&self) -> &[Arg] {
        &self.kept
    }

    /// From here on each call has this in its last two arguments, if it does not use them: by that a filter knows it.
    #[cfg_attr(not(feature = "seccomp"), expect(dead_code, reason = "those of features"))]
    pub(crate) fn sign(&mut self, secret: [u64; 2]) {
        self.secret = Some(secret);
    }

    pub(crate) fn secret(&self) -> Option<[u64; 2]> {
        self.secret
    }

    /// A slot that nobody else has.
    pub(crate) fn slot(&mut self) -> Slot {
        self.slots += 1;
        Slot(SLOTS + self.slots - 1)
    }

    /// Notes that a file stays open for writing.
    pub(crate) fn leaves_open(&mut self, file: Slot) {
        self.left_open.push(file);
    }

    pub(crate) fn proc_is(&mut self, proc: i32) {
        self.proc = Some(proc);
    }

    pub(crate) fn proc(&self) -> Option<i32> {
        self.proc
    }

    /// Closes such files: a mount with one cannot become read-only.
    pub(crate) fn close_written(&mut self, step: Step) {
        for file in std::mem::take(&mut self.left_open) {
            self.call(step, "", Sys::close, [file.into()]);
        }
    }

    /// How many slots a child needs.
    pub(crate) fn slots(&self) -> usize {
        SLOTS + self.slots
    }

    /// Every child is held: what is added from here on is made always.
    pub(crate) fn hold_always(&mut self) {
        self.always_held = true;
    }

    /// The address of a string that the child may read.
    pub(crate) fn string(&mut self, string: CString) -> u64 {
        self.strings.push(string);
        self.strings.last().map_or(0, |kept| kept.as_ptr().expose_provenance() as u64)
    }

    /// The address of machine words for the child: a struct, a list of pointers. The kernel writes into some of them (`poll(2)`).
    pub(crate) fn words(&mut self, words: impl IntoIterator<Item = u64>) -> u64 {
        self.words.push(words.into_iter().map(AtomicU64::new).collect());
        self.words.last().map_or(0, |kept| kept.as_ptr().expose_provenance() as u64)
    }

    pub(crate) fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The calls of a child that is not held, and needs no fallback.
    pub(crate) fn calls(&self) -> impl Iterator<Item = Call<'_>> {
        self.ops
            .iter()
            .filter(|op| op.stops == Stops::Nowhere && op.only.is_empty())
            .map(|op| Call { program: self, op })
    }

    pub(crate) fn get(&self, at: usize) -> Option<Call<'_>> {
        self.ops.get(at).map(|op| Call { program: self, op })
    }

    fn object(&mut self, object: &OsStr) -> usize {
        let known = self.objects.iter().position(|known| known == object);
        known.unwrap_or_else(|| {
            self.objects.push(object.to_owned());
            self.objects.len() - 1
        })
    }
}

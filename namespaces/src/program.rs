//! What the child does, as a list of system calls.
//!
//! The list is data: the child only interprets it ([`crate::sys`]), errors are told by an index into it, [`Plan::explain`](crate::Plan::explain)
//! prints it, and the tests fail each of its entries in turn.

use crate::{Fallbacks, Step};
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::sync::atomic::AtomicU64;

/// Slots with a fixed use, see the modules that name them; [`Program::slot`] makes more.
pub(crate) const SLOTS: usize = 24;

/// A value that is known only in the child, or only at the spawn: a result of an earlier call, a descriptor that differs from spawn to spawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(pub(crate) usize);

/// An argument of a system call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arg {
    /// As it is: a number, a flag, a descriptor, an address of something that the program keeps.
    Value(u64),
    /// What the slot holds then.
    Slot(Slot),
    /// The address of [`SCRATCH`] words of the child's own, for a call that tells something.
    Scratch,
}

/// Machine words that a call may write to: enough for the longest path.
pub(crate) const SCRATCH: usize = 512;

/// What becomes of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// An error ends the child, anything else is fine.
    Go,
    /// As `Go`, and the result is kept.
    Keep(Slot),
    /// The call has written two descriptors to the scratch words, which are kept.
    #[cfg(feature = "init")]
    KeepPair([Slot; 2]),
    /// As `Go`, but this error is as good as success.
    Unless(i32),
    /// Must be the first of these: anything else is the second, an errno.
    Exactly(i64, i32),
    /// One of several programs to start: when it is not there, the next call is tried.
    TryNext,
    /// As `TryNext`, for a look at a program: when it is not there, so many calls behind it are not made. Success is kept.
    Look { keep: Slot, past: usize },
    /// The call has read how a program begins: if it names one that is to run it, that one is looked at too, by `openat2(2)` with this
    /// `struct open_how`.
    Interpreters(u64),
    /// Success goes on behind the next `done` calls, and the result is kept; this errno goes on behind the next `failed` ones.
    Branch { keep: Option<Slot>, errno: i32, done: usize, failed: usize },
    /// As `Go`, but with one of these errnos the calls follow that are made [`only`](Program::only) then.
    Or(Fallbacks, [i32; 2]),
    /// As `Go`, and that it was done is told.
    Notes(Fallbacks),
    /// It lists descriptors: each above 2 is closed at the start of a program.
    MarkEach,
    /// It lists descriptors: each above this one is closed, but these.
    CloseEachBut(u64, [Slot; 2]),
    /// A clone: the calls from here on are the new process's, and this one has no others.
    PassOn,
    /// Closes all descriptors above 2 but those that [`Program::keep`] names: a call for each gap.
    AllButKept,
    /// The call has written all of this to the scratch words; anything else is this errno.
    Finds([Finding; 2], i32),
}

/// Where a child waits for its caller. Who waits at a place waits also at those before it in this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Stops {
    #[default]
    Nowhere,
    /// In front of its program.
    Release,
    /// With its mounts, but in the host's root.
    Creation,
}

/// What some bits of a scratch word must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) word: usize,
    pub(crate) mask: u64,
    pub(crate) value: u64,
}

/// A call that the program branches at.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub(crate) struct Fork(usize);

/// One system call of the child.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Op {
    pub(crate) number: i64,
    pub(crate) args: [Arg; 6],
    pub(crate) then: Then,
    /// Made only by a child that waits there.
    pub(crate) stops: Stops,
    /// Made only where one of these is used.
    pub(crate) only: Fallbacks,
    /// Not made again: the filters are in place.
    pub(crate) seals: bool,
    /// Not made if a branch goes on behind it.
    sometimes: bool,
    step: Step,
    name: &'static str,
    object: usize,
}

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

macro_rules! calls {
    ($($name:ident = $number:ident,)*) => {
        /// The system calls that a child may make.
        #[derive(Debug, Clone, Copy)]
        #[allow(non_camel_case_types, reason = "the names of system calls")]
        #[cfg_attr(
            not(all(feature = "init", feature = "landlock", feature = "seccomp")),
            allow(dead_code, reason = "those of features")
        )]
        pub(crate) enum Sys { $($name,)* }
        impl Sys {
            fn name(self) -> &'static str {
                match self { $(Sys::$name => stringify!($name),)* }
            }
            fn number(self) -> i64 {
                match self { $(Sys::$name => libc::$number,)* }
            }
        }
    };
}

calls! {
    capset = SYS_capset,
    chdir = SYS_chdir,
    chroot = SYS_chroot,
    close = SYS_close,
    clone3 = SYS_clone3,
    close_range = SYS_close_range,
    dup3 = SYS_dup3,
    execve = SYS_execve,
    execveat = SYS_execveat,
    fcntl = SYS_fcntl,
    fchdir = SYS_fchdir,
    fchown = SYS_fchown,
    fsconfig = SYS_fsconfig,
    fsmount = SYS_fsmount,
    fsopen = SYS_fsopen,
    getcwd = SYS_getcwd,
    ioctl = SYS_ioctl,
    ioprio_set = SYS_ioprio_set,
    getdents64 = SYS_getdents64,
    keyctl = SYS_keyctl,
    landlock_restrict_self = SYS_landlock_restrict_self,
    lseek = SYS_lseek,
    mkdirat = SYS_mkdirat,
    mknodat = SYS_mknodat,
    mount = SYS_mount,
    mount_setattr = SYS_mount_setattr,
    move_mount = SYS_move_mount,
    open_tree = SYS_open_tree,
    openat = SYS_openat,
    openat2 = SYS_openat2,
    personality = SYS_personality,
    pipe2 = SYS_pipe2,
    pivot_root = SYS_pivot_root,
    ppoll = SYS_ppoll,
    prctl = SYS_prctl,
    prlimit64 = SYS_prlimit64,
    read = SYS_read,
    recvfrom = SYS_recvfrom,
    rt_sigaction = SYS_rt_sigaction,
    rt_sigprocmask = SYS_rt_sigprocmask,
    sched_setaffinity = SYS_sched_setaffinity,
    sched_setscheduler = SYS_sched_setscheduler,
    seccomp = SYS_seccomp,
    sendmsg = SYS_sendmsg,
    sendto = SYS_sendto,
    setdomainname = SYS_setdomainname,
    setns = SYS_setns,
    setgroups = SYS_setgroups,
    sethostname = SYS_sethostname,
    setpriority = SYS_setpriority,
    setresgid = SYS_setresgid,
    setresuid = SYS_setresuid,
    setsid = SYS_setsid,
    statx = SYS_statx,
    symlinkat = SYS_symlinkat,
    umask = SYS_umask,
    umount2 = SYS_umount2,
    unshare = SYS_unshare,
    write = SYS_write,
}

impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Arg::Value(value)
    }
}

/// A number that the kernel reads as an `unsigned int`.
impl From<u32> for Arg {
    fn from(value: u32) -> Self {
        Arg::Value(value.into())
    }
}

impl From<Slot> for Arg {
    fn from(slot: Slot) -> Self {
        Arg::Slot(slot)
    }
}

/// A number that the kernel reads as an `int`: sign-extended, as C would pass it.
impl From<i32> for Arg {
    fn from(value: i32) -> Self {
        Arg::Value(i64::from(value).cast_unsigned())
    }
}

impl Op {
    /// Whether it belongs to the last steps, after which there is another program.
    pub(crate) fn starts_program(&self) -> bool {
        matches!(self.step, Step::LetGo | Step::Exec)
    }

    /// Whether there is another program once it has succeeded.
    pub(crate) fn is_the_start(&self) -> bool {
        matches!(self.number, libc::SYS_execve | libc::SYS_execveat)
    }
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
        self.only = fallback;
        add(self);
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

/// One system call that the child will make, see [`Plan::explain`](crate::Plan::explain).
///
/// Displays as `mount: fsopen(/proc)`.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    program: &'a Program,
    op: &'a Op,
}

impl<'a> Call<'a> {
    /// The step that it belongs to.
    #[must_use]
    pub fn step(&self) -> Step {
        self.op.step
    }

    /// Its name, as in the manual's section 2.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.op.name
    }

    /// Its number on this architecture.
    #[must_use]
    pub fn number(&self) -> i64 {
        self.op.number
    }

    /// What it is about: a path, a name, a stream.
    #[must_use]
    pub fn object(&self) -> &'a OsStr {
        self.program.objects.get(self.op.object).map_or(OsStr::new(""), OsString::as_os_str)
    }

    /// Whether an error of it may be overcome: `execve(2)` of a program that may also lie elsewhere in `PATH`, `openat2(2)` of
    /// a mount point that is made if it is missing.
    #[must_use]
    pub fn may_fail(&self) -> bool {
        matches!(self.op.then, Then::TryNext | Then::Look { .. } | Then::Branch { .. })
    }

    pub(crate) fn starts_program(&self) -> bool {
        self.op.is_the_start()
    }

    /// Whether it depends on the outcome of a call before it that [may fail](Self::may_fail): it is not made in each spawn.
    #[must_use]
    pub fn is_conditional(&self) -> bool {
        self.op.sometimes
    }
}

impl fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}({})", self.step(), self.name(), self.object().display())
    }
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Call({self})")
    }
}

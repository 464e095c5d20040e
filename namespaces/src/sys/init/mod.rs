//! The init: what process 1 of a sandbox runs until its program ends. A complete ELF program of its own, as text for the assembler.
//!
//! Why in assembly. It has to be a program without anything of the host's, so the host's code cannot be it. A Rust source for it would
//! take a second run of the compiler and a linker for the target in a build script: that fails where there is no such linker, which `cargo check` and docs.rs
//! do not need, and where another build system does not run build scripts. A binary in the repository could not be read. This is some two dozen system calls in
//! a row, without memory but a few words of its stack; it is made by whatever assembles the rest of the crate, and stands here once for both machines
//! (`machine.rs`). It is never run where it lies: `image` is only read.
//!
//! What it does, as process 1 with all signals blocked:
//!
//! 1. It forks. The child waits, so that nothing else runs yet.
//! 2. It closes all descriptors, leaves the caller's process group to the child, and tells it to go on.
//! 3. It waits for signals. `SIGCHLD`: whoever has ended is reaped; when it was the child, the init ends with its status, and the kernel kills all
//!    others. Any other signal goes to the child.
//!
//! The child makes a session and takes the terminal if that is wanted, unblocks the signals, and starts the program from the list of places where it may be,
//! as `execvp(3)` does. What fails it writes to a pipe, whose other end the caller has and of which it has the only descriptor: the
//! kernel closes that at the start of the program, which nobody inside can hold back. (Were it the init that told of the start, a
//! program could stop it before it does, by `ptrace(2)`, and the caller would wait for ever.)
//!
//! What a hostile program can do to it: the init has the program's own user, capabilities, filters and namespaces, no more, so that there is nothing to be had from it
//! by `ptrace(2)` but a wrong exit status, which the program can choose anyway. The kernel keeps `SIGKILL` and `SIGSTOP` of its own
//! namespace from it. It has no descriptors, no writable memory but its stack, and its file is sealed.

mod machine;

use machine::{address, apply, call, compare, copy, jump, lines, load, reg, set, shift_byte, store, trap};
use std::arch::naked_asm;

/// What the init is to know, words in its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InitFacts {
    /// The descriptor by which the child tells.
    pub(crate) report: u32,
    /// Whether the child makes a session.
    pub(crate) session: bool,
    /// The descriptor of the terminal that it takes.
    pub(crate) terminal: Option<u32>,
    /// How many places there are where the program may be: so many arguments follow the init's own name.
    pub(crate) places: usize,
    /// How many arguments the program has, its own name among them: they come behind those.
    pub(crate) arguments: usize,
}

/// What the child was at when it failed, as it writes it.
pub(crate) const STAGES: [(crate::Step, &str); 7] = {
    use crate::Step;
    [
        (Step::Init, "clone"),
        (Step::Init, "rt_sigtimedwait"),
        (Step::Init, "fcntl"),
        (Step::Session, "setsid"),
        (Step::Session, "ioctl"),
        (Step::Signals, "rt_sigprocmask"),
        // With errno 0: it is about to be made.
        (Step::Exec, "execve"),
    ]
};

/// Bytes of what it writes: a stage and an errno, each a machine word.
pub(crate) const RECORD: usize = 16;

/// The program, as it is to be in a file.
pub(crate) fn init_image(facts: &InitFacts) -> Vec<u8> {
    const FACTS_AT: usize = 176;
    const LENGTH_AT: usize = 96;
    let start = (image as extern "C" fn() -> !) as *const u8;
    // SAFETY: the bytes of `image` are those of the ELF file below, of which this word is the length.
    let length = unsafe { start.wrapping_add(LENGTH_AT).cast::<u64>().read_unaligned() };
    let length = usize::try_from(length).unwrap_or(0);
    // SAFETY: as above; code is never written to.
    let mut file = unsafe { std::slice::from_raw_parts(start, length) }.to_vec();
    let word = size_of::<u64>();
    let program = word * (1 + facts.places);
    let environment = program + word * (facts.arguments + 1);
    let words = [
        i64::from(facts.report),
        facts.session.into(),
        facts.terminal.map_or(-1, i64::from),
        i64::try_from(facts.places).unwrap_or(0),
        i64::try_from(program).unwrap_or(0),
        i64::try_from(environment).unwrap_or(0),
    ];
    let places = file.get_mut(FACTS_AT..).unwrap_or_default().chunks_exact_mut(word);
    for (place, value) in places.zip(words) {
        place.copy_from_slice(&value.to_le_bytes());
    }
    file
}

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// The labels: 2 the file, 3 the facts, 4 the first instruction, 9 the end of the file. All others are used near by.
macro_rules! file {
    () => {
        lines!(
            // An ELF file of this machine that can lie anywhere.
            "2: .byte 0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0",
            ".2byte 3, {machine}",
            ".4byte 1",
            ".8byte 4f - 2b, 64, 0",
            ".4byte 0",
            ".2byte 64, 56, 2, 64, 0, 0",
            // All of it is mapped once, to be read and executed.
            ".4byte 1, 5",
            ".8byte 0, 0, 0, 9f - 2b, 9f - 2b, 0x10000",
            // The stack is not executed.
            ".4byte 0x6474e551, 6",
            ".8byte 0, 0, 0, 0, 0, 16",
            // What `InitFacts` says: descriptor, session, terminal, places, where the program's arguments begin and where the environment does; then what
            // wait4(2) is asked for, WNOHANG | __WALL and __WALL.
            "3: .8byte 0, 0, -1, 0, 0, 0, 0x40000001, 0x40000000",
        )
    };
}

/// Process 1.
macro_rules! init {
    () => {
        lines!(
            "4:",
            copy!(argv, stack),
            apply!("add", argv, 8),
            address!(facts, "3b"),
            apply!("sub", stack, 32),
            // Otherwise it is called after a number.
            set!(a0, "{set_name}"),
            address!(a1, "8f"),
            call!("{prctl}"),
            set!(a0, "{sigchld}"),
            set!(a1, 0),
            set!(a2, 0),
            set!(a3, 0),
            set!(a4, 0),
            call!("{clone}"),
            copy!(child, result),
            set!(stage, 0),
            compare!(child, 0),
            jump!(equal "6f"),
            jump!(less "7f"),
            // From here on the child alone can tell. If that cannot be, it must not be waited for.
            load!(count, facts, 0),
            copy!(a0, count),
            call!("{close}"),
            compare!(result, 0),
            jump!(less "5f"),
            "2:",
            apply!("sub", count, 1),
            copy!(a0, count),
            call!("{close}"),
            compare!(count, 0),
            jump!(greater "2b"),
            // What is sent to the group, by a terminal or by a shell, is the child's alone.
            set!(a0, 0),
            set!(a1, 0),
            call!("{setpgid}"),
            copy!(a0, child),
            set!(a1, "{sigchld}"),
            call!("{kill}"),
            compare!(result, 0),
            jump!(less "5f"),
            "2:",
            load!(count, facts, 48),
            address!(a0, "8f + 8"),
            set!(a1, 0),
            set!(a2, 0),
            set!(a3, 8),
            call!("{rt_sigtimedwait}"),
            copy!(a1, result),
            compare!(a1, "{eintr}"),
            jump!(equal "2b"),
            compare!(a1, "{sigchld}"),
            jump!(equal "3f"),
            compare!(a1, 0),
            jump!(greater "4f"),
            // A filter forbids it: there is still the child's end to be waited for.
            load!(count, facts, 56),
            jump!("3f"),
            "4:",
            copy!(a0, child),
            call!("{kill}"),
            jump!("2b"),
            // Whoever has ended, one after the other.
            "3:",
            set!(a0, 0),
            store!(a0, stack, 0),
            set!(a0, "-1"),
            copy!(a1, stack),
            copy!(a2, count),
            set!(a3, 0),
            call!("{wait4}"),
            compare!(result, 0),
            jump!(equal "2b"),
            jump!(less "5f"),
            compare!(result, child),
            jump!(unequal "3b"),
            // As a shell tells it: its code, or 128 and the signal that killed it.
            load!(a0, stack, 0),
            copy!(a1, a0),
            apply!("and", a1, 127),
            shift_byte!(a0),
            compare!(a1, 0),
            jump!(equal "4f"),
            copy!(a0, a1),
            apply!("add", a0, 128),
            "4:",
            call!("{exit_group}"),
            // A filter forbids even that.
            trap!(),
            // It cannot work.
            "5:",
            set!(a0, 125),
            jump!("4b"),
        )
    };
}

/// Its child, until there is another program.
macro_rules! child {
    () => {
        lines!(
            "6:",
            set!(stage, 1),
            address!(a0, "8f + 16"),
            set!(a1, 0),
            set!(a2, 0),
            set!(a3, 8),
            call!("{rt_sigtimedwait}"),
            copy!(child, result),
            compare!(child, "{eintr}"),
            jump!(equal "6b"),
            compare!(child, 0),
            jump!(less "7f"),
            set!(stage, 2),
            load!(a0, facts, 0),
            set!(a1, "{set_flags}"),
            set!(a2, "{cloexec}"),
            call!("{fcntl}"),
            copy!(child, result),
            compare!(child, 0),
            jump!(less "7f"),
            load!(a0, facts, 8),
            compare!(a0, 0),
            jump!(equal "2f"),
            set!(stage, 3),
            call!("{setsid}"),
            copy!(child, result),
            compare!(child, 0),
            jump!(less "7f"),
            "2:",
            load!(a0, facts, 16),
            compare!(a0, 0),
            jump!(less "2f"),
            set!(stage, 4),
            set!(a1, "{take_terminal}"),
            set!(a2, 0),
            call!("{ioctl}"),
            copy!(child, result),
            compare!(child, 0),
            jump!(less "7f"),
            "2:",
            set!(stage, 5),
            set!(a0, "{set_mask}"),
            address!(a1, "8f + 24"),
            set!(a2, 0),
            set!(a3, 8),
            call!("{rt_sigprocmask}"),
            copy!(child, result),
            compare!(child, 0),
            jump!(less "7f"),
            // From here on silence is success.
            set!(stage, 6),
            set!(child, 0),
            store!(stage, stack, 0),
            store!(child, stack, 8),
            load!(a0, facts, 0),
            copy!(a1, stack),
            set!(a2, 16),
            call!("{write}"),
            compare!(result, 16),
            jump!(unequal "5f"),
            load!(envp, facts, 40),
            apply!("add", envp, argv),
            load!(program, facts, 32),
            apply!("add", program, argv),
            load!(count, facts, 24),
            set!(denied, 0),
            "2:",
            apply!("add", argv, 8),
            load!(a0, argv, 0),
            copy!(a1, program),
            copy!(a2, envp),
            call!("{execve}"),
        )
    };
}

/// The program is not in that place: in the next one, maybe.
macro_rules! next_place {
    () => {
        lines!(
            copy!(child, result),
            compare!(child, "{enoent}"),
            jump!(equal "3f"),
            compare!(child, "{enotdir}"),
            jump!(equal "3f"),
            compare!(child, "{estale}"),
            jump!(equal "3f"),
            compare!(child, "{enodev}"),
            jump!(equal "3f"),
            compare!(child, "{etimedout}"),
            jump!(equal "3f"),
            compare!(child, "{eacces}"),
            jump!(unequal "7f"),
            copy!(denied, child),
            "3:",
            apply!("sub", count, 1),
            compare!(count, 0),
            jump!(greater "2b"),
            // One that may not be started says more than all that are not there.
            compare!(denied, 0),
            jump!(equal "7f"),
            copy!(child, denied),
            // What has failed, and why.
            "7:",
            store!(stage, stack, 0),
            store!(child, stack, 8),
            load!(a0, facts, 0),
            copy!(a1, stack),
            set!(a2, 16),
            call!("{write}"),
            "5:",
            set!(a0, 127),
            call!("{exit_group}"),
            trap!(),
            // Its name; then three sets of signals: all of them, SIGCHLD, none.
            ".balign 8",
            "8: .byte 0x69, 0x6e, 0x69, 0x74, 0, 0, 0, 0",
            ".8byte -1, 0x10000, 0",
            "9:",
        )
    };
}

#[unsafe(naked)]
extern "C" fn image() -> ! {
    naked_asm!(
        file!(),
        init!(),
        child!(),
        next_place!(),
        machine = const MACHINE,
        set_name = const libc::PR_SET_NAME,
        set_flags = const libc::F_SETFD,
        cloexec = const libc::FD_CLOEXEC,
        set_mask = const libc::SIG_SETMASK,
        take_terminal = const libc::TIOCSCTTY,
        sigchld = const libc::SIGCHLD,
        eintr = const -libc::EINTR,
        enoent = const -libc::ENOENT,
        enotdir = const -libc::ENOTDIR,
        estale = const -libc::ESTALE,
        enodev = const -libc::ENODEV,
        etimedout = const -libc::ETIMEDOUT,
        eacces = const -libc::EACCES,
        prctl = const libc::SYS_prctl,
        clone = const libc::SYS_clone,
        close = const libc::SYS_close,
        setpgid = const libc::SYS_setpgid,
        kill = const libc::SYS_kill,
        rt_sigtimedwait = const libc::SYS_rt_sigtimedwait,
        wait4 = const libc::SYS_wait4,
        exit_group = const libc::SYS_exit_group,
        fcntl = const libc::SYS_fcntl,
        setsid = const libc::SYS_setsid,
        ioctl = const libc::SYS_ioctl,
        rt_sigprocmask = const libc::SYS_rt_sigprocmask,
        write = const libc::SYS_write,
        execve = const libc::SYS_execve,
    )
}

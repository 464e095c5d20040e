//! System calls by hand: for a child that may touch nothing of libc.
#![allow(clippy::many_single_char_names, reason = "the six arguments of a system call have no better names here")]

use std::arch::asm;

/// What a child runs.
pub(super) type Entry = extern "C" fn(*mut libc::c_void) -> !;

/// clone3(2), or clone(2) with the arguments that both architectures take in the same order, that calls `entry` with `data` in the child, on the
/// stack that is named or further down on this one, and returns in the caller.
///
/// # Safety
/// The arguments ask for `CLONE_VFORK` or not for `CLONE_VM` and, if they name a stack, for one that is the child's alone; all pointers are valid
/// during the call.
pub(super) unsafe fn clone(number: i64, [a, b, c]: [u64; 3], entry: Entry, data: *mut libc::c_void) -> i64 {
    let result: i64;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the child starts with an empty frame on an aligned stack and never comes back here; if it is this stack, then below all that is in
    // use (there is no red zone, because this may push), and this thread waits until the child has left it. The return address 0 tells
    // an unwinder (a panic's backtrace) that there is nothing above. The kernel keeps all registers but rax, rcx and r11, which are declared.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "push 0",
            "jmp r9",
            "2:",
            inlateout("rax") number => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") 0_u64,
            in("r8") 0_u64,
            in("r9") entry,
            in("r12") data,
            out("rcx") _,
            out("r11") _,
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above; the kernel keeps all registers but x0.
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x10",
            "br x9",
            "2:",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b,
            in("x2") c,
            in("x3") 0_u64,
            in("x4") 0_u64,
            in("x9") entry,
            in("x10") data,
        );
    }
    result
}

/// A system call that touches nothing of libc. Returns what the kernel returns: an error is a negated errno.
///
/// # Safety
/// As the system call demands.
pub(super) unsafe fn syscall6(number: i64, [a, b, c, d, e, f]: [u64; 6]) -> i64 {
    let result: i64;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller vouches for the arguments; the kernel keeps all registers but rax, rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            out("rcx") _, out("r11") _,
            options(nostack),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the caller vouches for the arguments; the kernel keeps all registers but x0.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack),
        );
    }
    result
}

/// Ends the process by an instruction that is none: a signal that nobody can hold back.
pub(super) fn trap() -> ! {
    loop {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: it is never gone on from.
        unsafe {
            asm!("ud2", options(nomem, nostack));
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        unsafe {
            asm!("udf #0", options(nomem, nostack));
        }
    }
}

/// The errno in a system call's result.
pub(super) fn errno_of(result: i64) -> i32 {
    i32::try_from(result.wrapping_neg()).unwrap_or(libc::EINVAL)
}

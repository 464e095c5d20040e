//! A system call without libc: in shared memory its errno would be somebody else's.
#![allow(unsafe_code, reason = "the instruction itself")]
#![allow(clippy::many_single_char_names, reason = "the arguments of a system call have no better names here")]

use std::arch::asm;

/// # Safety
/// As the system call demands.
pub(super) unsafe fn syscall(number: i64, [a, b, c, d, e]: [u64; 5]) -> i64 {
    let result;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller vouches for the arguments; the kernel keeps all registers but rax, rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
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
            in("x1") b, in("x2") c, in("x3") d, in("x4") e,
            options(nostack),
        );
    }
    result
}

/// An address as the kernel takes it.
pub(super) fn at<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

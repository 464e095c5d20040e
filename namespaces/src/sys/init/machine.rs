//! The two machines that the init is written for: what its registers are called, and how the few instructions are spelled that it is made of.
//!
//! Each macro is the text of one instruction, so that the init itself, in `mod.rs`, stands there once.

#[cfg(target_arch = "x86_64")]
macro_rules! reg {
    (argv) => {
        "rbx"
    };
    (envp) => {
        "rbp"
    };
    (child) => {
        "r12"
    };
    (facts) => {
        "r13"
    };
    (stage) => {
        "r14"
    };
    (count) => {
        "r15"
    };
    (denied) => {
        "r9"
    };
    (program) => {
        "r8"
    };
    (stack) => {
        "rsp"
    };
    (a0) => {
        "rdi"
    };
    (a1) => {
        "rsi"
    };
    (a2) => {
        "rdx"
    };
    (a3) => {
        "r10"
    };
    (a4) => {
        "r8"
    };
    (result) => {
        "rax"
    };
}

#[cfg(target_arch = "aarch64")]
macro_rules! reg {
    (argv) => {
        "x19"
    };
    (envp) => {
        "x20"
    };
    (child) => {
        "x21"
    };
    (facts) => {
        "x22"
    };
    (stage) => {
        "x23"
    };
    (count) => {
        "x24"
    };
    (denied) => {
        "x25"
    };
    (program) => {
        "x26"
    };
    (stack) => {
        "sp"
    };
    (a0) => {
        "x0"
    };
    (a1) => {
        "x1"
    };
    (a2) => {
        "x2"
    };
    (a3) => {
        "x3"
    };
    (a4) => {
        "x4"
    };
    (result) => {
        "x0"
    };
}

/// The lines, as one text.
macro_rules! lines {
    ($($line:expr,)*) => { concat!($($line, "\n",)*) };
}

/// A number into a register.
macro_rules! set {
    ($to:ident, $value:literal) => {
        concat!("mov ", reg!($to), ", ", $value)
    };
}

macro_rules! copy {
    ($to:ident, $from:ident) => {
        concat!("mov ", reg!($to), ", ", reg!($from))
    };
}

macro_rules! compare {
    ($one:ident, $other:ident) => {
        concat!("cmp ", reg!($one), ", ", reg!($other))
    };
    ($one:ident, $value:literal) => {
        concat!("cmp ", reg!($one), ", ", $value)
    };
}

/// `to` plus, minus, and so on, a register or a number.
#[cfg(target_arch = "x86_64")]
macro_rules! apply {
    ($what:literal, $to:ident, $from:ident) => {
        concat!($what, " ", reg!($to), ", ", reg!($from))
    };
    ($what:literal, $to:ident, $value:literal) => {
        concat!($what, " ", reg!($to), ", ", $value)
    };
}

#[cfg(target_arch = "aarch64")]
macro_rules! apply {
    ($what:literal, $to:ident, $from:ident) => {
        concat!($what, " ", reg!($to), ", ", reg!($to), ", ", reg!($from))
    };
    ($what:literal, $to:ident, $value:literal) => {
        concat!($what, " ", reg!($to), ", ", reg!($to), ", ", $value)
    };
}

/// Divides by 256.
#[cfg(target_arch = "x86_64")]
macro_rules! shift_byte {
    ($to:ident) => {
        concat!("shr ", reg!($to), ", 8")
    };
}

#[cfg(target_arch = "aarch64")]
macro_rules! shift_byte {
    ($to:ident) => {
        concat!("lsr ", reg!($to), ", ", reg!($to), ", 8")
    };
}

/// The address of a label.
#[cfg(target_arch = "x86_64")]
macro_rules! address {
    ($to:ident, $label:literal) => {
        concat!("lea ", reg!($to), ", [rip + ", $label, "]")
    };
}

#[cfg(target_arch = "aarch64")]
macro_rules! address {
    ($to:ident, $label:literal) => {
        concat!("adr ", reg!($to), ", ", $label)
    };
}

/// The eight bytes at a register's address and so many behind it.
#[cfg(target_arch = "x86_64")]
macro_rules! load {
    ($to:ident, $base:ident, $offset:literal) => {
        concat!("mov ", reg!($to), ", [", reg!($base), " + ", $offset, "]")
    };
}

#[cfg(target_arch = "aarch64")]
macro_rules! load {
    ($to:ident, $base:ident, $offset:literal) => {
        concat!("ldr ", reg!($to), ", [", reg!($base), ", ", $offset, "]")
    };
}

#[cfg(target_arch = "x86_64")]
macro_rules! store {
    ($from:ident, $base:ident, $offset:literal) => {
        concat!("mov [", reg!($base), " + ", $offset, "], ", reg!($from))
    };
}

#[cfg(target_arch = "aarch64")]
macro_rules! store {
    ($from:ident, $base:ident, $offset:literal) => {
        concat!("str ", reg!($from), ", [", reg!($base), ", ", $offset, "]")
    };
}

/// Goes on elsewhere: always, or as the last comparison came out.
#[cfg(target_arch = "x86_64")]
macro_rules! jump {
    ($label:literal) => {
        concat!("jmp ", $label)
    };
    (equal $label:literal) => {
        concat!("je ", $label)
    };
    (unequal $label:literal) => {
        concat!("jne ", $label)
    };
    (less $label:literal) => {
        concat!("jl ", $label)
    };
    (greater $label:literal) => {
        concat!("jg ", $label)
    };
}

#[cfg(target_arch = "aarch64")]
macro_rules! jump {
    ($label:literal) => {
        concat!("b ", $label)
    };
    (equal $label:literal) => {
        concat!("b.eq ", $label)
    };
    (unequal $label:literal) => {
        concat!("b.ne ", $label)
    };
    (less $label:literal) => {
        concat!("b.lt ", $label)
    };
    (greater $label:literal) => {
        concat!("b.gt ", $label)
    };
}

/// The system call of this name, an operand.
#[cfg(target_arch = "x86_64")]
macro_rules! call {
    ($number:literal) => {
        concat!("mov eax, ", $number, "\nsyscall")
    };
}

#[cfg(target_arch = "aarch64")]
macro_rules! call {
    ($number:literal) => {
        concat!("mov x8, ", $number, "\nsvc 0")
    };
}

/// Ends the process by a signal that nobody can hold back.
#[cfg(target_arch = "x86_64")]
macro_rules! trap {
    () => {
        "ud2"
    };
}

#[cfg(target_arch = "aarch64")]
macro_rules! trap {
    () => {
        "udf #0"
    };
}

pub(super) use {address, apply, call, compare, copy, jump, lines, load, reg, set, shift_byte, store, trap};

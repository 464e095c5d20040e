//! The program that all contenders start: as small as a program can be, and able to tell where it is.
//!
//! It prints its process id, as the `/proc` that it sees tells it, and its host name: `1 bench`. So the output proves the
//! pid namespace, the fresh `/proc` and the host name, and its start is a small and constant part of what is measured. It is
//! one page without an interpreter or a library, kept in this program and written to a file.
#![allow(unsafe_code, reason = "the bytes of a program, put here by the assembler")]

use std::arch::global_asm;

/// The program as an ELF file.
#[must_use]
pub fn elf() -> &'static [u8] {
    unsafe extern "C" {
        static cofferdam_probe: u8;
        static cofferdam_probe_end: u8;
    }
    let (start, end) = (&raw const cofferdam_probe, &raw const cofferdam_probe_end);
    // SAFETY: the two labels enclose read-only data of this program.
    unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
}

/// ELF header and one program header: this file, readable and executable, at a fixed address.
macro_rules! elf_headers {
    ($machine:literal) => {
        concat!(
            ".pushsection .rodata.cofferdam_probe,\"a\"\n",
            ".balign 16\n",
            ".globl cofferdam_probe, cofferdam_probe_end\n",
            ".hidden cofferdam_probe, cofferdam_probe_end\n",
            "cofferdam_probe:\n",
            ".byte 0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0\n",
            ".short 2, ",
            $machine,
            "\n.long 1\n",
            ".quad 0x400000 + (100f - cofferdam_probe), 64, 0\n",
            ".long 0\n",
            ".short 64, 56, 1, 0, 0, 0\n",
            ".long 1, 5\n",
            ".quad 0, 0x400000, 0x400000\n",
            ".quad cofferdam_probe_end - cofferdam_probe, cofferdam_probe_end - cofferdam_probe, 0x10000\n",
        )
    };
}

#[cfg(target_arch = "x86_64")]
global_asm!(
    elf_headers!("62"),
    "100:",
    "sub rsp, 512",
    // openat(AT_FDCWD, "/proc/self/stat", O_RDONLY, 0)
    "mov eax, 257",
    "mov edi, -100",
    "lea rsi, [rip + 200f]",
    "xor edx, edx",
    "xor r10d, r10d",
    "syscall",
    "test eax, eax",
    "js 105f",
    // read(it, rsp, 16): "PID (NAME) ..."
    "mov edi, eax",
    "xor eax, eax",
    "mov rsi, rsp",
    "mov edx, 16",
    "syscall",
    "cmp rax, 16",
    "jne 105f",
    // uname(rsp + 64); the host name is at 65 of that
    "mov eax, 63",
    "lea rdi, [rsp + 64]",
    "syscall",
    "test eax, eax",
    "jnz 105f",
    // rdi: after the first space
    "mov rdi, rsp",
    "102:",
    "mov al, [rdi]",
    "inc rdi",
    "cmp al, 32",
    "jne 102b",
    // the host name behind it
    "lea rsi, [rsp + 129]",
    "103:",
    "mov al, [rsi]",
    "test al, al",
    "jz 104f",
    "mov [rdi], al",
    "inc rsi",
    "inc rdi",
    "jmp 103b",
    "104:",
    "mov byte ptr [rdi], 10",
    "inc rdi",
    // write(1, rsp, rdi - rsp)
    "mov rdx, rdi",
    "sub rdx, rsp",
    "mov eax, 1",
    "mov edi, 1",
    "mov rsi, rsp",
    "syscall",
    "cmp rax, rdx",
    "jne 105f",
    // exit_group(0)
    "mov eax, 231",
    "xor edi, edi",
    "syscall",
    "105:",
    "mov eax, 231",
    "mov edi, 1",
    "syscall",
    "ud2",
    "200:",
    ".asciz \"/proc/self/stat\"",
    "cofferdam_probe_end:",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    elf_headers!("183"),
    "100:",
    "sub sp, sp, #512",
    // openat(AT_FDCWD, "/proc/self/stat", O_RDONLY, 0)
    "mov x8, #56",
    "mov x0, #-100",
    "adr x1, 200f",
    "mov x2, #0",
    "mov x3, #0",
    "svc #0",
    "tbnz x0, #63, 105f",
    // read(it, sp, 16): "PID (NAME) ..."
    "mov x8, #63",
    "mov x1, sp",
    "mov x2, #16",
    "svc #0",
    "cmp x0, #16",
    "b.ne 105f",
    // uname(sp + 64); the host name is at 65 of that
    "mov x8, #160",
    "add x0, sp, #64",
    "svc #0",
    "cbnz x0, 105f",
    // x9: after the first space
    "mov x9, sp",
    "102:",
    "ldrb w10, [x9], #1",
    "cmp w10, #32",
    "b.ne 102b",
    // the host name behind it
    "add x11, sp, #129",
    "103:",
    "ldrb w10, [x11], #1",
    "cbz w10, 104f",
    "strb w10, [x9], #1",
    "b 103b",
    "104:",
    "mov w10, #10",
    "strb w10, [x9], #1",
    // write(1, sp, x9 - sp)
    "mov x8, #64",
    "mov x0, #1",
    "mov x1, sp",
    "sub x2, x9, x1",
    "svc #0",
    "cmp x0, x2",
    "b.ne 105f",
    // exit_group(0)
    "mov x8, #94",
    "mov x0, #0",
    "svc #0",
    "105:",
    "mov x8, #94",
    "mov x0, #1",
    "svc #0",
    "brk #1",
    "200:",
    ".asciz \"/proc/self/stat\"",
    "cofferdam_probe_end:",
    ".popsection",
);

//! The seccomp filter, classic BPF over `struct seccomp_data`.

use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xC000_00B7;

/// Offsets in `struct seccomp_data`; both architectures are little-endian, so that an argument's
/// low half comes first.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

/// Notify of all system calls, or of `only` these; never of `write(bell, ..)`.
pub(super) fn build(only: Option<&[i64]>, bell: u32) -> Vec<sock_filter> {
    let (notify, allow) = (
        ret(libc::SECCOMP_RET_USER_NOTIF),
        ret(libc::SECCOMP_RET_ALLOW),
    );
    let mut program = vec![
        load(ARCHITECTURE),
        skip_if(ARCH, 1),
        allow,
        load(NUMBER),
        skip_unless(number(libc::SYS_write), 3),
        load(FIRST_ARGUMENT),
        skip_unless(bell, 1),
        allow,
        load(NUMBER),
    ];
    match only {
        None => program.push(notify),
        Some(numbers) => {
            program.extend(
                numbers
                    .iter()
                    .flat_map(|nr| [skip_unless(number(*nr), 1), notify]),
            );
            program.push(allow);
        }
    }
    program
}

fn number(nr: i64) -> u32 {
    u32::try_from(nr).expect("a system call's number")
}

fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset)
}

/// Skips that many instructions unless the loaded value is this one.
fn skip_unless(value: u32, instructions: u8) -> sock_filter {
    instruction(BPF_JMP | BPF_JEQ | BPF_K, 0, instructions, value)
}

/// Skips that many instructions if the loaded value is this one.
fn skip_if(value: u32, instructions: u8) -> sock_filter {
    instruction(BPF_JMP | BPF_JEQ | BPF_K, instructions, 0, value)
}

fn ret(action: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, 0, 0, action)
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    let code = u16::try_from(code).expect("an opcode has 16 bits");
    sock_filter { code, jt, jf, k }
}

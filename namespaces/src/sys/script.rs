//! Who runs a script: the first line says it, as the kernel reads it.

use super::interpreter::{is_elsewhere, make};
use super::raw::errno_of;
use crate::compile::OPEN_HOW_SIZE;
use crate::program::SCRATCH;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// As much of a program as the kernel looks at.
pub(crate) const HEAD: u64 = 256;
/// How often a script may be run by another one: the kernel gives up earlier.
const DEPTH: u32 = 8;

/// Looks at the program that is to run a script, of which so much was `read` into the scratch words, and at the one that is to run that, and so on. An
/// errno, or 0.
///
/// What is not there is left to `execve(2)` to tell; all else that keeps a file from being looked at is an error.
pub(super) fn look(scratch: &[AtomicU64; SCRATCH], how: u64, read: i64) -> i32 {
    let (head, mut read) = (scratch.as_ptr().expose_provenance() as u64, read);
    for _ in 0..DEPTH {
        let length = match (usize::try_from(read), errno_of(read)) {
            (Ok(length), _) => length,
            // A directory, a pipe: it cannot be started.
            (_, libc::EISDIR | libc::EAGAIN) => return 0,
            (_, errno) => return errno,
        };
        let Some(name) = interpreter(scratch, length) else { return 0 };
        let here = i64::from(libc::AT_FDCWD).cast_unsigned();
        let opened = make(libc::SYS_openat2, [here, head + name, how, OPEN_HOW_SIZE, 0, 0]);
        match (u64::try_from(opened), errno_of(opened)) {
            (Ok(file), _) => {
                read = make(libc::SYS_read, [file, head, HEAD, 0, 0, 0]);
                make(libc::SYS_close, [file, 0, 0, 0, 0, 0]);
            }
            (_, errno) if is_elsewhere(errno) => return 0,
            (_, errno) => return errno,
        }
    }
    libc::ELOOP
}

/// Where the name of the program begins that runs this script; a zero is put behind it.
fn interpreter(scratch: &[AtomicU64; SCRATCH], length: usize) -> Option<u64> {
    if length < 2 || byte(scratch, 0) != b'#' || byte(scratch, 1) != b'!' {
        return None;
    }
    let space = |at: &usize| matches!(byte(scratch, *at), b' ' | b'\t');
    let begin = (2..length).find(|at| !space(at))?;
    let end = (begin..length).find(|at| space(at) || matches!(byte(scratch, *at), 0 | b'\n')).unwrap_or(length);
    put_zero(scratch, end);
    (begin < end).then_some(begin as u64)
}

pub(super) fn byte(scratch: &[AtomicU64; SCRATCH], at: usize) -> u8 {
    let word = scratch.get(at / 8).map_or(0, |word| word.load(Relaxed));
    word.to_le_bytes().get(at % 8).copied().unwrap_or(0)
}

fn put_zero(scratch: &[AtomicU64; SCRATCH], at: usize) {
    if let Some(word) = scratch.get(at / 8) {
        word.store(word.load(Relaxed) & !(0xff << (at % 8 * 8)), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name as the kernel would read it, of a script in memory that was full before.
    fn name(text: &str) -> Option<String> {
        let scratch = [const { AtomicU64::new(u64::MAX) }; SCRATCH];
        for (word, bytes) in scratch.iter().zip(text.as_bytes().chunks(8)) {
            let mut all = [0xff; 8];
            all[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(all), Relaxed);
        }
        let begin = usize::try_from(interpreter(&scratch, text.len())?).unwrap();
        let bytes: Vec<u8> = (begin..SCRATCH).map(|at| byte(&scratch, at)).take_while(|byte| *byte != 0).collect();
        Some(String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn the_first_line_is_read_as_the_kernel_does() {
        for (text, expected) in [
            ("#!/bin/sh\necho", Some("/bin/sh")),
            ("#! \t /bin/sh -e x\n", Some("/bin/sh")),
            ("#!/bin/sh\t-e", Some("/bin/sh")),
            ("#!/bin/sh", Some("/bin/sh")),
            ("#!/bin/sh\0-e\n", Some("/bin/sh")),
            ("#!sh\n", Some("sh")),
            ("#!\n/bin/sh", None),
            ("#! \t ", None),
            ("#!", None),
            ("#", None),
            ("", None),
            ("\x7fELF", None),
            (" #!/bin/sh\n", None),
        ] {
            assert_eq!(name(text).as_deref(), expected, "{text:?}");
        }
    }
}

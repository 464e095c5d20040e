//! `bpf(2)`, as far as devices on v2 need it: no library wraps it without a C library behind; and `sched_setaffinity(2)`
//! for more than 1024 CPUs, which is where rustix ends. The only `unsafe` of this crate: the kernel is given addresses.

#![allow(unsafe_code, reason = "system calls that take addresses")]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::Pid;

/// The structure of all commands, as 32-bit words: more than any kernel writes to. What a kernel does not know must be
/// zero.
type Words = [u32; 48];

const QUERY: i32 = 16;
const LOAD: i32 = 5;
const ATTACH: i32 = 8;
const DETACH: i32 = 9;
const BY_ID: i32 = 13;
/// `BPF_PROG_TYPE_CGROUP_DEVICE` and `BPF_CGROUP_DEVICE`.
const PROGRAM_TYPE: u32 = 15;
const ATTACH_TYPE: u32 = 6;

/// Several programs may be attached, and all of them must agree.
pub(crate) const ALLOW_MULTI: u32 = 2;
/// In the place of one that is.
pub(crate) const REPLACE: u32 = 4;

fn bpf(command: i32, words: &mut Words) -> Result<i32, Errno> {
    // SAFETY: the structure is ours and as long as we say. What its addresses point to is alive and long enough: the
    // functions below are the only callers, and each holds a reference to it until this returns.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, words.as_mut_ptr(), size_of::<Words>()) };
    if result >= 0 { Ok(i32::try_from(result).unwrap_or(i32::MAX)) } else { Err(last_error()) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

/// Lets a thread run on every CPU that its cpuset has. As many as any kernel is built for: it ignores what it has not.
pub(crate) fn run_on_all_cpus(thread: Pid) -> Result<(), Errno> {
    let all = [u64::MAX; 8192 / 64];
    let thread = thread.as_raw_nonzero().get();
    // SAFETY: the mask is alive and as long as we say, and is only read.
    let result = unsafe { libc::syscall(libc::SYS_sched_setaffinity, thread, size_of_val(&all), all.as_ptr()) };
    if result >= 0 { Ok(()) } else { Err(last_error()) }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made it for us, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Both halves of an address.
fn address<T>(pointer: *const T) -> [u32; 2] {
    let address = pointer.addr() as u64;
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(0);
    let (low, high) = (half(address), half(address >> 32));
    if cfg!(target_endian = "little") { [low, high] } else { [high, low] }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn words<const N: usize>(first: [u32; N]) -> Words {
    let mut words = [0; 48];
    for (word, value) in words.iter_mut().zip(first) {
        *word = value;
    }
    words
}

/// Loads a program. The kernel checks that it ends and touches nothing it should not.
pub(crate) fn load(program: &[u64]) -> Result<OwnedFd, Errno> {
    const LICENSE: &[u8] = b"Apache-2.0\0";
    let count = u32::try_from(program.len()).map_err(|_| Errno::TOOBIG)?;
    program.as_ptr().expose_provenance();
    LICENSE.as_ptr().expose_provenance();
    let ([p0, p1], [l0, l1]) = (address(program.as_ptr()), address(LICENSE.as_ptr()));
    // After the license: log level, size, address (2), kernel version, flags, name (4), interface, kind of attachment.
    let mut attributes = words([PROGRAM_TYPE, count, p0, p1, l0, l1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ATTACH_TYPE]);
    bpf(LOAD, &mut attributes).map(owned)
}

/// Attaches a program to a cgroup.
pub(crate) fn attach(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    flags: u32,
    replace: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let replace = replace.map_or(0, raw);
    bpf(ATTACH, &mut words([raw(cgroup), raw(program), ATTACH_TYPE, flags, replace])).map(drop)
}

/// Detaches a program from a cgroup.
pub(crate) fn detach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    bpf(DETACH, &mut words([raw(cgroup), raw(program), ATTACH_TYPE])).map(drop)
}

/// The programs that are attached to a cgroup itself, by id, and the flags with which they are.
pub(crate) fn attached(cgroup: BorrowedFd<'_>) -> Result<(Vec<u32>, u32), Errno> {
    /// The kernel allows 64.
    const MOST: u32 = 64;
    let mut ids = vec![0u32; 64];
    ids.as_mut_ptr().expose_provenance();
    let [i0, i1] = address(ids.as_ptr());
    let mut attributes = words([raw(cgroup), ATTACH_TYPE, 0, 0, i0, i1, MOST]);
    bpf(QUERY, &mut attributes)?;
    let [_, _, _, flags, _, _, count, ..] = attributes;
    ids.truncate(usize::try_from(count).unwrap_or(0));
    Ok((ids, flags))
}

/// A program by its id.
pub(crate) fn by_id(id: u32) -> Result<OwnedFd, Errno> {
    bpf(BY_ID, &mut words([id])).map(owned)
}

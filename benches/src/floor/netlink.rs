//! A netlink socket with nothing around it.
#![allow(unsafe_code, reason = "the system calls: by hand is the point")]

use nix::sched::{CloneFlags, setns};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::thread;

/// For links, addresses and routes.
pub const ROUTE: i32 = libc::NETLINK_ROUTE;
/// For rules.
pub const NETFILTER: i32 = libc::NETLINK_NETFILTER;

/// The type of an answer that is a verdict.
const ERROR: u16 = 2;
/// `struct nlmsghdr`.
const HEADER: usize = 16;

/// A netlink socket. Who uses it waits for all answers, so that the next one finds none.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// In the namespace of the calling thread.
    ///
    /// # Errors
    /// The errno of `socket`.
    pub fn open(protocol: i32) -> io::Result<Self> {
        // SAFETY: numbers.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it for us.
        Ok(Socket(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// In another namespace, which a thread enters for it.
    ///
    /// # Errors
    /// The errno of whatever system call failed.
    pub fn open_in(namespace: BorrowedFd<'_>, protocol: i32) -> io::Result<Self> {
        thread::scope(|scope| {
            let helper = scope.spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWNET)?;
                Self::open(protocol)
            });
            helper.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
        })
    }

    /// Sends messages and waits for so many verdicts, which must be good ones; `reply` is given the bodies of other answers.
    ///
    /// # Errors
    /// The errno of whatever system call failed, or the kernel's against a message.
    pub fn talk(&self, messages: &[u8], verdicts: usize, mut reply: impl FnMut(&[u8])) -> io::Result<()> {
        // SAFETY: the pointer and the length are of a slice.
        check(unsafe { libc::send(self.0.as_raw_fd(), messages.as_ptr().cast(), messages.len(), 0) })?;
        let mut buffer = [0; 8192];
        let mut seen = 0;
        while seen < verdicts {
            // SAFETY: the pointer and the length are of a buffer.
            let length = unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            let mut rest = &buffer[..check(length)?];
            while let Some((kind, body, after)) = first(rest) {
                rest = after;
                if kind != ERROR {
                    reply(body);
                    continue;
                }
                let verdict = body.first_chunk().map_or(libc::EPROTO, |bytes| -i32::from_ne_bytes(*bytes));
                if verdict != 0 {
                    return Err(io::Error::from_raw_os_error(verdict));
                }
                seen += 1;
            }
        }
        Ok(())
    }
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// The first message: its type, its body, and what comes after it.
fn first(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, bytes.get(HEADER..length)?, after))
}

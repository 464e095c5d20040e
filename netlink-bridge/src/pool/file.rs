//! A pool in a folder: one file, rewritten as a whole, and a lock.
//!
//! What is held is valid for one boot: no container outlives it. So nothing needs to reach the disk, and a crash of the machine
//! loses nothing that is still true. A crash of a program loses nothing either: the file is replaced by renaming.
//!
//! But records of endpoints may outlive the boot, and with them the numbers of their claims. So those go on where they were, with a leap, as the
//! file that a loss of power leaves may not be the last one; and if it is lost altogether (it may be on a tmpfs), they begin at a random number.

use super::leases::Leases;
use super::{AddressPool, Holder, TakenAddresses, WantedAddress};
use crate::{Error, ErrorKind, Operation};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, fstat, openat, renameat, statat, unlinkat};
use rustix::io::{Errno, retry_on_intr};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

const LOCK: &str = "lock";
const FILE: &str = "leases";
const NEXT: &str = "leases.new";
/// What the file begins with, before its version. Version 2 had no more than one line for an address.
const HEAD: &str = "cofferdam leases ";
const VERSION: u32 = 3;
const OLDEST: u32 = 2;
/// Between the numbers of one boot and the next: further than those of one file ever are from each other, see [`is_until`](super::leases::is_until).
const LEAP: u64 = 1 << 33;
/// No file of ours is longer; who can write to the folder cannot fill the memory.
const LONGEST: u64 = 64 << 20;

/// A pool of addresses in a folder, shared by all programs that name it.
///
/// Each call locks it, reads it, and writes it anew: a millisecond with thousands of addresses. A call waits for others. What is in it ends
/// with the boot: then no container has an address any more. The folder should be its users' own: who can write to it can give away what others have.
#[derive(Debug)]
pub struct FilePool {
    folder: OwnedFd,
    boot: String,
}

impl FilePool {
    /// The pool in this folder, which must be there.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`PermissionDenied`](ErrorKind::PermissionDenied).
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let folder = folder.as_ref();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(CWD, folder, flags, Mode::empty());
        let folder = opened.map_err(|errno| failed("openat", errno).about(folder.to_string_lossy()))?;
        let boot = read_file(CWD, "/proc/sys/kernel/random/boot_id")?;
        let boot = boot.ok_or_else(|| failed("openat", Errno::NOENT).about("/proc/sys/kernel/random/boot_id"))?;
        Ok(FilePool { folder, boot: boot.trim().to_owned() })
    }

    /// Who has which address. One is there twice while another owner tries to attach with the same id, or if such a one was killed: once for each.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`UnknownVersion`](ErrorKind::UnknownVersion) if a later version of this crate wrote the file;
    /// [`Protocol`](ErrorKind::Protocol) if it is not one of ours.
    pub fn held(&self) -> Result<Vec<(IpAddr, Holder)>, Error> {
        let _lock = self.lock()?;
        Ok(self.read()?.holders())
    }

    /// Takes back the addresses of all whose owner is not to be kept. Tells which. What another owner has with the same id stays theirs.
    ///
    /// # Errors
    /// As [`held`](Self::held), or if it cannot be stored.
    #[doc(alias("garbage collection", "prune"))]
    pub fn gc(&self, keep: impl Fn(&Holder) -> bool) -> Result<Vec<(IpAddr, Holder)>, Error> {
        self.change(|leases| Ok(leases.keep(keep)))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Leases) -> Result<T, Error>) -> Result<T, Error> {
        let _lock = self.lock()?;
        let before = self.read()?;
        let mut leases = before.clone();
        let result = change(&mut leases)?;
        if leases != before {
            self.write(&leases)?;
        }
        Ok(result)
    }

    /// The lock is the descriptor's: it ends with it, however the program ends.
    fn lock(&self) -> Result<OwnedFd, Error> {
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let lock = openat(&self.folder, LOCK, flags, Mode::RUSR | Mode::WUSR).map_err(|e| failed("openat", e))?;
            retry_on_intr(|| rustix::fs::flock(&lock, FlockOperation::LockExclusive))
                .map_err(|e| failed("flock", e))?;
            // Somebody may have removed the folder's files meanwhile: then the lock of a file without a name keeps nobody out.
            let here = fstat(&lock).map_err(|e| failed("fstat", e))?;
            match statat(&self.folder, LOCK, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(there) if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino) => return Ok(lock),
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed("fstatat", errno)),
            }
        }
    }

    fn read(&self) -> Result<Leases, Error> {
        let text = read_file(&self.folder, FILE)?.unwrap_or_default();
        let refuse = |kind, words| Err(Error::words(kind, Operation::TakeAddress, words).about(FILE));
        if version(&text).is_some_and(|version| version > VERSION) {
            return refuse(ErrorKind::UnknownVersion, "a later version of this crate wrote the file of addresses");
        }
        match parse(&text, &self.boot, crate::attach::random()?) {
            Some(leases) => Ok(leases),
            None => refuse(ErrorKind::Protocol, "the file of addresses is none of ours, or damaged"),
        }
    }

    fn write(&self, leases: &Leases) -> Result<(), Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&self.folder, NEXT, flags, Mode::RUSR | Mode::WUSR).map_err(|e| failed("openat", e))?;
        let written = std::fs::File::from(file).write_all(print(leases, &self.boot).as_bytes());
        let renamed = written
            .map_err(|e| io_failed("write", &e))
            .and_then(|()| renameat(&self.folder, NEXT, &self.folder, FILE).map_err(|e| failed("renameat", e)));
        renamed.inspect_err(|_| {
            // The next one would overwrite it; the error that is told is the first.
            let _ = unlinkat(&self.folder, NEXT, AtFlags::empty());
        })
    }
}

impl AddressPool for FilePool {
    fn take(&self, wanted: &[WantedAddress], holder: &Holder) -> Result<TakenAddresses, Error> {
        crate::name::check_tag("id", &holder.id)?;
        crate::name::check_tag("owner", &holder.owner)?;
        self.change(|leases| leases.take(wanted, holder))
    }

    fn undo(&self, taken: &TakenAddresses, holder: &Holder) -> Result<(), Error> {
        self.change(|leases| {
            leases.undo(taken, holder);
            Ok(())
        })
    }

    fn give_back(&self, holder: &Holder, claim: Option<u64>) -> Result<(), Error> {
        self.change(|leases| {
            leases.give_back(holder, claim);
            Ok(())
        })
    }
}

fn failed(call: &'static str, errno: Errno) -> Error {
    Error::os(Operation::TakeAddress, call, errno.raw_os_error())
}

fn io_failed(call: &'static str, error: &std::io::Error) -> Error {
    Error::os(Operation::TakeAddress, call, error.raw_os_error().unwrap_or(libc::EIO))
}

/// Nothing if there is no such file.
fn read_file(folder: impl rustix::fd::AsFd, name: &str) -> Result<Option<String>, Error> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match openat(folder, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        file => file.map_err(|errno| failed("openat", errno).about(name))?,
    };
    let mut text = String::new();
    let read = std::fs::File::from(file).take(LONGEST).read_to_string(&mut text);
    read.map_err(|error| io_failed("read", &error).about(name))?;
    Ok(Some(text))
}

/// A line each; ids and owners have no control characters, see [`crate::name::check_tag`].
fn print(leases: &Leases, boot: &str) -> String {
    let last = leases.last.iter().map(|(subnet, address)| format!("last\t{subnet}\t{address}\n"));
    let claims =
        leases.held.iter().flat_map(|(address, lease)| lease.claims.iter().map(move |one| (address, lease, one)));
    let held = claims.map(|(address, lease, (owner, claims))| {
        let claims: Vec<_> = claims.iter().map(u64::to_string).collect();
        format!("held\t{address}\t{}\t{}\t{owner}\n", claims.join(","), lease.id)
    });
    let begin = format!("{HEAD}{VERSION}\nboot\t{boot}\nclaim\t{}\n", leases.claim);
    [begin].into_iter().chain(last).chain(held).chain(["end\n".into()]).collect()
}

/// In which form this is, if it is one of ours.
fn version(text: &str) -> Option<u32> {
    text.lines().next()?.strip_prefix(HEAD)?.parse().ok()
}

/// What is held in this boot. A file of another one tells only which claims were numbered, whatever else is in it; `None` if it makes no sense. Claims
/// are numbered from `start` on if there is no number.
fn parse(text: &str, boot: &str, start: u64) -> Option<Leases> {
    let mut lines = text.lines();
    let mut leases = Leases { claim: start, ..Leases::default() };
    if text.is_empty() {
        return Some(leases);
    }
    if !(OLDEST..=VERSION).contains(&version(text)?) {
        return None;
    }
    if lines.nth(1)?.strip_prefix("boot\t")? != boot {
        let last = whole_lines(text).find_map(|line| line.strip_prefix("claim\t")?.parse::<u64>().ok());
        leases.claim = last.map_or(start, |last| last.wrapping_add(LEAP));
        return Some(leases);
    }
    for line in lines.by_ref() {
        let fields: Vec<_> = line.split('\t').collect();
        match *fields.as_slice() {
            ["last", subnet, address] => drop(leases.last.insert(subnet.parse().ok()?, address.parse().ok()?)),
            ["claim", claim] => leases.claim = claim.parse().ok()?,
            ["held", address, claims, id, owner] => {
                let holder = Holder { id: id.into(), owner: owner.into() };
                let claims = claims.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
                leases.add(address.parse().ok()?, holder, claims)?;
            }
            ["end"] => return lines.next().is_none().then_some(leases),
            _ => return None,
        }
    }
    None
}

/// Those that have their end.
fn whole_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some() -> Leases {
        let mut leases = Leases { claim: 9, ..Leases::default() };
        for (address, id, owner, claims) in [
            ("10.0.0.2", "web", "my ci", &[7][..]),
            ("10.0.0.2", "web", "another", &[8]),
            ("fd00::2", "web", "my ci", &[5, 5, 7]),
            ("10.0.0.3", "a b ä", "my ci", &[9]),
        ] {
            let holder = Holder { id: id.into(), owner: owner.into() };
            leases.add(address.parse().unwrap(), holder, claims.into()).unwrap();
        }
        leases.last.insert("10.0.0.0/24".parse().unwrap(), "10.0.0.3".parse().unwrap());
        leases
    }

    #[test]
    fn text_and_back() {
        let text = print(&some(), "boot-1");
        assert_eq!(parse(&text, "boot-1", 77), Some(some()));
        let numbered = |claim| Some(Leases { claim, ..Leases::default() });
        assert_eq!(parse(&text, "boot-2", 77), numbered(LEAP + 9), "of another boot: the numbers go on");
        assert_eq!(parse("", "boot-1", 77), numbered(77), "no number: they begin elsewhere");
        // What a loss of power has left of it: a number without its end may be another.
        let (cut, _) = text.split_once("9\n").unwrap();
        for end in ["", "9", "x\n", "9x\n", "\n"] {
            assert_eq!(parse(&format!("{cut}{end}"), "boot-2", 77), numbered(77), "{end:?}");
        }
        assert_eq!(parse(&format!("{cut}12\nrubbish"), "boot-2", 77), numbered(LEAP + 12));
    }

    #[test]
    fn other_versions() {
        let text = print(&some(), "b");
        let of = |version: &str| text.replacen(&format!("{HEAD}{VERSION}\n"), &format!("{HEAD}{version}\n"), 1);
        assert_eq!(parse(&of("2"), "b", 77), Some(some()), "nothing in it means anything else");
        for other in ["1", "4", "x", "", "3 ", "-3"] {
            assert_eq!(parse(&of(other), "b", 77), None, "{other:?}");
            // Of another boot it would tell which claims were numbered, if it were known how.
            assert_eq!(parse(&of(other), "later", 77), None, "{other:?}");
        }
        // One owner twice, or one address of two ids.
        let line = "held\tfd00::2\t5,5,7\tweb\tmy ci\n";
        for wrong in [line, "held\tfd00::2\t5\tother\tsomebody\n"] {
            assert_eq!(parse(&text.replace(line, &format!("{line}{wrong}")), "b", 77), None, "{wrong}");
        }
    }

    proptest! {
        /// Cut off or damaged, it is refused or read; never taken for less than it was without a word.
        #[test]
        fn damaged(length in 0usize..200, at in 0usize..200, value: char) {
            let text = print(&some(), "b");
            let cut: String = text.chars().take(length).collect();
            // Cut off in its second line it looks like another boot's.
            let looks_older = cut.starts_with(HEAD) && cut.lines().count() == 2;
            if cut.len() < text.len() - 1 && !cut.is_empty() && !looks_older {
                prop_assert_eq!(parse(&cut, "b", 1), None);
            }
            let damaged: String = text.chars().enumerate().map(|(n, c)| if n == at { value } else { c }).collect();
            let _ = parse(&damaged, "b", 1);
        }
    }
}

//! What is in an ordinary file: shared with the original where the file system can, else copied without its holes.

use crate::facts::At;
use crate::{Error, ErrorKind, Operation};
use rustix::fs::{Mode, OFlags, SeekFrom, Stat, copy_file_range, fstat, ftruncate, ioctl_ficlone, openat, seek};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};
use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Copies a file to a name in `dir`, of which `clear` makes sure that it is free if it is not.
pub(super) fn copy(
    from: At<'_>,
    stat: &Stat,
    dir: BorrowedFd<'_>,
    name: &OsStr,
    clear: impl Fn() -> Result<(), Error>,
) -> Result<(), Error> {
    let fail = |call| move |e| Error::os(Operation::Copy, call, e);
    let careful = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let source = openat(from.dir, from.name, OFlags::RDONLY | careful, Mode::empty()).map_err(fail("openat"))?;
    let create =
        || openat(dir, name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | careful, Mode::RUSR | Mode::WUSR);
    let target = match create() {
        Err(Errno::EXIST) => {
            clear()?;
            create()
        }
        result => result,
    };
    let target = target.map_err(fail("openat"))?;
    let length = u64::try_from(stat.st_size).unwrap_or_default();
    if length == 0 || ioctl_ficlone(&target, &source).is_ok() {
        return Ok(());
    }
    // What is not written is a hole.
    ftruncate(&target, length).map_err(fail("ftruncate"))?;
    let mut at = 0;
    while at < length {
        let begin = match seek(&source, SeekFrom::Data(at)) {
            Ok(begin) => begin,
            // Nothing but a hole up to the end, if that is where it was.
            Err(Errno::NXIO) => {
                let now = fstat(&source).map_err(fail("fstat"))?;
                return if now.st_size < stat.st_size { Err(shorter()) } else { Ok(()) };
            }
            Err(e) => return Err(fail("lseek")(e)),
        };
        let end = seek(&source, SeekFrom::Hole(begin)).map_err(fail("lseek"))?;
        copy_range(&source, &target, begin, end)?;
        at = end;
    }
    Ok(())
}

/// Makes a file that is not there yet.
pub(super) fn write(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    content: &[u8],
    mode: Mode,
) -> Result<(), (&'static str, Errno)> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::RUSR | Mode::WUSR).map_err(|e| ("openat", e))?;
    let mut rest = content;
    while !rest.is_empty() {
        let written = retry_on_intr(|| rustix::io::write(&file, rest)).map_err(|e| ("write", e))?;
        rest = rest.get(written..).unwrap_or_default();
    }
    // Whatever the umask.
    rustix::fs::fchmod(&file, mode).map_err(|e| ("fchmod", e))
}

/// Zeros in place of what is missing would pass for its content.
fn shorter() -> Error {
    Error::explained(ErrorKind::Os, Operation::Copy, "has become shorter while it was copied")
}

fn copy_range(source: &OwnedFd, target: &OwnedFd, begin: u64, end: u64) -> Result<(), Error> {
    let (mut from, mut to) = (begin, begin);
    while from < end {
        let length = usize::try_from(end - from).unwrap_or(usize::MAX).min(1 << 30);
        match copy_file_range(source, Some(&mut from), target, Some(&mut to), length) {
            // Some file systems say so of what can be read all the same.
            Ok(0) => return copy_by_hand(source, target, from, end),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return copy_by_hand(source, target, from, end);
            }
            Err(e) => return Err(Error::os(Operation::Copy, "copy_file_range", e)),
        }
    }
    Ok(())
}

fn copy_by_hand(source: &OwnedFd, target: &OwnedFd, begin: u64, end: u64) -> Result<(), Error> {
    let mut buffer = vec![0; 1 << 17];
    let mut at = begin;
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let space = buffer.get_mut(..most).unwrap_or_default();
        let length =
            retry_on_intr(|| pread(source, &mut *space, at)).map_err(|e| Error::os(Operation::Copy, "pread64", e))?;
        if length == 0 {
            return Err(shorter());
        }
        let mut rest = buffer.get(..length).unwrap_or_default();
        while !rest.is_empty() {
            let written =
                retry_on_intr(|| pwrite(target, rest, at)).map_err(|e| Error::os(Operation::Copy, "pwrite64", e))?;
            at += written as u64;
            rest = rest.get(written..).unwrap_or_default();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::fd::AsFd;

    #[test]
    fn what_becomes_shorter_meanwhile_is_no_copy() {
        let temp = tempfile::tempdir().unwrap();
        let dir = File::open(temp.path()).unwrap();
        fs::write(temp.path().join("source"), "whole").unwrap();
        let open =
            |name| File::options().create(true).truncate(false).read(true).write(true).open(temp.path().join(name));
        let (source, target) = (OwnedFd::from(open("source").unwrap()), OwnedFd::from(open("target").unwrap()));
        assert!(copy_range(&source, &target, 0, 5).is_ok());
        assert_eq!(fs::read(temp.path().join("target")).unwrap(), b"whole");
        for copy in [copy_range, copy_by_hand] {
            assert_eq!(copy(&source, &target, 0, 6).unwrap_err().kind(), ErrorKind::Os);
        }
        // Also where all that is left looks like a hole. (Where data is shared there is nothing to be cut off.)
        let from = At { dir: dir.as_fd(), name: OsStr::new("source") };
        let mut stat = from.stat().unwrap().unwrap();
        stat.st_size = 1 << 20;
        if ioctl_ficlone(&target, &source).is_err() {
            let error = copy(from, &stat, dir.as_fd(), OsStr::new("new"), || Ok(())).unwrap_err();
            assert_eq!((error.kind(), error.operation()), (ErrorKind::Os, Operation::Copy));
        }
    }
}

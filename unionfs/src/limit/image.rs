//! An ext4 in a file, mounted by a loop device that nobody else sees.

use super::ext4::{BLOCK, Layout, Size};
use super::room::{Bounds, explained, failed};
use super::{filesystem, project};
use crate::context::{THREAD_FDS, check_proc};
use crate::dir::Dir;
use crate::sys::block;
use crate::{Error, ErrorKind, Operation};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, fstat, ftruncate, major, minor, openat};
use rustix::io::{Errno, pwrite, retry_on_intr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread::sleep;
use std::time::Duration;

pub(super) const NAME: &str = "image";
const LOOP_MAJOR: u32 = 7;
/// How often a device that was free is tried to be had, which others may be faster to have.
const TRIES: usize = 64;
/// What the kernel does when a mount ends may take a moment, and udev may look at the device meanwhile.
const PATIENCE: [Duration; 100] = [Duration::from_millis(10); 100];

/// Makes the file, of holes for the most part.
pub(super) fn create(place: &Dir, bounds: Bounds) -> Result<(), Error> {
    let Some(bytes) = bounds.bytes else {
        return Err(explained(ErrorKind::Unsupported, "an image needs a limit of bytes").about(NAME));
    };
    // As mkfs.ext4(8) has it, unless told: one for each 16 KiB.
    let inodes = bounds.inodes.unwrap_or(bytes / (4 * BLOCK) + 1);
    let size = Size { blocks: bytes.div_ceil(BLOCK), inodes };
    let layout = Layout::new(size).ok_or_else(|| Error::invalid(Operation::LimitSpace, "bytes", "is too large"))?;
    let fail = |call| move |e| failed(call, e).about(NAME);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(place, NAME, flags, Mode::RUSR | Mode::WUSR).map_err(fail("openat"))?;
    ftruncate(&file, layout.length()).map_err(fail("ftruncate"))?;
    for (mut at, bytes) in layout.pieces(project::random()?) {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let written = retry_on_intr(|| pwrite(&file, rest, at)).map_err(fail("pwrite64"))?;
            at += written as u64;
            rest = rest.get(written..).unwrap_or_default();
        }
    }
    Ok(())
}

/// Mounts it. That can be once at a time: two would destroy what is in it.
pub(super) fn mount(place: &Dir) -> Result<OwnedFd, Error> {
    check_proc().map_err(|e| e.during(Operation::LimitSpace))?;
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(place, NAME, flags, Mode::empty()).map_err(|e| failed("openat", e).about(NAME))?;
    // The device keeps what was opened here, and the lock with it, until the last mount is gone.
    lock(&file)?;
    let device = attach(&file)?;
    let source = format!("{THREAD_FDS}/{}", device.as_raw_fd());
    filesystem::mount("ext4", &[("source", Some(source)), ("discard", None)])
}

fn lock(file: &OwnedFd) -> Result<(), Error> {
    for patience in PATIENCE {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => sleep(patience),
            result => return result.map_err(|e| failed("flock", e).about(NAME)),
        }
    }
    Err(explained(ErrorKind::Busy, "is mounted still").about(NAME))
}

/// Finds a loop device for a file.
fn attach(file: &OwnedFd) -> Result<OwnedFd, Error> {
    let open = |path: &str| {
        openat(CWD, path, OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).map_err(|e| match e {
            Errno::NOENT | Errno::NXIO => explained(ErrorKind::Unsupported, "there is no loop device").about(path),
            e => failed("openat", e).about(path),
        })
    };
    let control = open("/dev/loop-control")?;
    for _ in 0..TRIES {
        let number = block::free_loop(control.as_fd()).map_err(|e| failed("ioctl", e).about("LOOP_CTL_GET_FREE"))?;
        let path = format!("/dev/loop{number}");
        let device = open(&path)?;
        let stat = fstat(&device).map_err(|e| failed("fstat", e).about(&path))?;
        if (major(stat.st_rdev), minor(stat.st_rdev)) != (LOOP_MAJOR, number) {
            return Err(explained(ErrorKind::Unsupported, "is not the loop device that it should be").about(path));
        }
        match block::attach(device.as_fd(), file.as_fd(), 4096) {
            // Somebody else was faster.
            Err(Errno::BUSY) => {}
            result => return result.map(|()| device).map_err(|e| failed("ioctl", e).about("LOOP_CONFIGURE")),
        }
    }
    Err(explained(ErrorKind::Busy, "others have taken every loop device that was free").about("/dev/loop-control"))
}

//! The most memory that was in use since one last asked.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::io::{Errno, retry_on_intr};

use crate::cgroup::{Cgroup, file_missing};
use crate::controllers::Subsystems;
use crate::dir::buffer;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::layout::Version;
use crate::policy::memory;
use crate::text;

/// The most memory, or swap, that was in use since this was [reset](Self::reset), or else since the cgroup was made. Made by
/// [`Cgroup::memory_peak`] and [`Cgroup::swap_peak`]. Owns a descriptor, which is the reader that the kernel knows.
#[derive(Debug)]
pub struct Peak {
    fd: OwnedFd,
    /// Who may not write can read all the same.
    writable: bool,
    path: PathBuf,
    version: Version,
}

impl Cgroup {
    /// A reader of its own of the most memory that was in use: `memory.peak` (v2), `memory.max_usage_in_bytes` (v1).
    ///
    /// # Errors
    /// [`ErrorKind::ControllerUnavailable`] without [`Controllers::MEMORY`](crate::Controllers::MEMORY), and on v2 before
    /// Linux 5.19; [`ErrorKind::PermissionDenied`]; [`ErrorKind::Gone`].
    pub fn memory_peak(&self) -> Result<Peak> {
        self.peak(|version| Some(memory::files(version).peak))
    }

    /// The same of swap: `memory.swap.peak`, since Linux 6.5.
    ///
    /// # Errors
    /// As for [`memory_peak`](Self::memory_peak); [`ErrorKind::Unsupported`] on v1.
    pub fn swap_peak(&self) -> Result<Peak> {
        self.peak(|version| (version == Version::V2).then_some("memory.swap.peak"))
    }

    fn peak(&self, file: fn(Version) -> Option<&'static str>) -> Result<Peak> {
        let member = self.governing(Subsystems::MEMORY)?;
        let Some(file) = file(member.version()) else {
            let error = Error::new(ErrorKind::Unsupported, Op::Open, member.dir.path());
            return Err(error.with_note("v1 does not tell of swap alone"));
        };
        let (fd, writable) = match member.dir.open_both(file) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => (member.dir.readable(file), false),
            both => (both, true),
        };
        let fd = fd.map_err(|error| file_missing(&member.dir, error))?;
        Ok(Peak { fd, writable, path: member.dir.path().join(file), version: member.version() })
    }
}

impl Peak {
    /// How much it was, in bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`] when the cgroup was deleted.
    pub fn read(&self) -> Result<u64> {
        let mut buffer = buffer();
        let n = retry_on_intr(|| rustix::io::pread(&self.fd, &mut buffer[..], 0))
            .map_err(|errno| Error::os(errno, Op::Read, &self.path))?;
        let text = buffer.get(..n).unwrap_or_default();
        text::number(text).ok_or_else(|| Error::new(ErrorKind::Malformed, Op::Read, &self.path))
    }

    /// Begins anew, with what is in use now: on v2 for this reader alone, since Linux 6.12; on v1 for everyone.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] on v2 before Linux 6.12, and where the caller might only read the file when this was made;
    /// [`ErrorKind::Gone`].
    pub fn reset(&self) -> Result<()> {
        if !self.writable {
            let error = Error::new(ErrorKind::Unsupported, Op::Write, &self.path).with_value("0");
            return Err(error.with_note("it may only be read"));
        }
        match retry_on_intr(|| rustix::io::pwrite(&self.fd, b"0", 0)) {
            Ok(_) => Ok(()),
            Err(errno) => {
                let error = Error::os(errno, Op::Write, &self.path).with_value("0");
                // A file that cannot be written to.
                let is_old = self.version == Version::V2 && errno == Errno::INVAL;
                Err(if is_old { error.with_kind(ErrorKind::Unsupported).with_note("since Linux 6.12") } else { error })
            }
        }
    }
}

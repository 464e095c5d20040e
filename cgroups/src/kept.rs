//! Files that are read before they are written to, opened once for both.

use std::os::fd::OwnedFd;

use crate::dir::{Buffer, Dir};
use crate::error::{ErrorKind, Result};

/// Files of one directory that stay open between a look and a write; by default, that are just looked at.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    to_write: bool,
    open: Vec<(&'static str, OwnedFd)>,
}

impl Kept {
    /// What is read is to be written to.
    pub(crate) fn to_write() -> Self {
        Kept { to_write: true, open: Vec::new() }
    }

    /// Reads a file that this kernel, or this kind of cgroup, may not have, and keeps it open. Who may not write to it is told
    /// when he does.
    pub(crate) fn read<'b>(
        &mut self,
        dir: &Dir,
        file: &'static str,
        buffer: &'b mut Buffer,
    ) -> Result<Option<&'b [u8]>> {
        if !self.to_write {
            return dir.read_if_there(file, buffer);
        }
        match dir.open_both(file) {
            Ok(fd) => {
                let text = dir.read_from(&fd, file, buffer)?;
                self.open.push((file, fd));
                Ok(Some(text))
            }
            Err(error) if error.is_gone() && dir.is_alive() => Ok(None),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => dir.read_if_there(file, buffer),
            Err(error) => Err(error),
        }
    }

    /// Writes to a file, through what is open if it is.
    pub(crate) fn write(&self, dir: &Dir, file: &str, text: &str) -> Result<()> {
        match self.open.iter().find(|(kept, _)| *kept == file) {
            Some((_, fd)) => dir.write_to(fd, file, text),
            None => dir.write(file, text),
        }
    }
}

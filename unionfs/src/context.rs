//! A file system context of overlayfs: `fsopen(2)`, `fsconfig(2)`, `fsmount(2)`, and what it says when something fails.

use crate::layer::OpenLayer;
use crate::options::Setting;
use crate::{Error, ErrorKind, Operation, Support};
use rustix::fs::{PROC_SUPER_MAGIC, statfs};
use rustix::io::{Errno, read};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

pub(crate) const THREAD_FDS: &str = "/proc/thread-self/fd";

const LOWERDIR_PLUS: &str = "lowerdir+";

/// How this kernel takes a layer. Both end at the directory that was opened, and no name of a file is in either: a
/// string is short (the kernel takes 255 bytes) and has nothing that would have to be escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HandOver {
    /// As a descriptor, Linux 6.13.
    Descriptor,
    /// As the path of its link in `/proc`, Linux 6.8.
    Link,
}

pub(crate) struct Context {
    fd: OwnedFd,
    by: HandOver,
    /// Whether the kernel has taken a descriptor, and so will take others.
    settled: bool,
}

impl Context {
    pub(crate) fn open(support: Option<Support>) -> Result<Self, Error> {
        let fd = new_context()?;
        let by = match support {
            Some(support) if !support.descriptors => {
                check_proc()?;
                HandOver::Link
            }
            _ => HandOver::Descriptor,
        };
        Ok(Context { fd, by, settled: false })
    }

    pub(crate) fn set(&self, setting: Setting) -> Result<(), Error> {
        let (key, result) = match setting {
            Setting::Flag(key) => (key, fsconfig_set_flag(&self.fd, key)),
            Setting::Value(key, value) => (key, fsconfig_set_string(&self.fd, key, value)),
        };
        result.map_err(|e| self.failed("fsconfig", e).about(key))
    }

    /// Adds a layer: `lowerdir+`, `upperdir` or `workdir`.
    pub(crate) fn add(&mut self, key: &'static str, layer: &OpenLayer<'_>) -> Result<(), Error> {
        if self.by == HandOver::Descriptor {
            match fsconfig_set_fd(&self.fd, key, layer.handed_over()) {
                // A kernel that does not know descriptors here (EOPNOTSUPP before Linux 6.5, EINVAL before 6.13); or one
                // that does not like this directory, which it will say again.
                Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::BADF) if !self.settled => {
                    self.messages();
                    check_proc()?;
                    self.by = HandOver::Link;
                }
                result => {
                    self.settled = true;
                    return result.map_err(|e| self.failed("fsconfig", e).about(&layer.name));
                }
            }
        }
        let link = format!("{THREAD_FDS}/{}", layer.handed_over().as_raw_fd());
        match fsconfig_set_string(&self.fd, key, link) {
            Err(Errno::INVAL) if !knows_lowerdir_plus() => Err(too_old()),
            result => result.map_err(|e| self.failed("fsconfig", e).about(&layer.name)),
        }
    }

    pub(crate) fn create(&self) -> Result<(), Error> {
        match fsconfig_create(&self.fd) {
            Err(Errno::INVAL) if self.by == HandOver::Link && !knows_lowerdir_plus() => Err(too_old()),
            result => result.map_err(|e| self.failed("fsconfig", e).about("create")),
        }
    }

    pub(crate) fn mount(&self, attributes: MountAttrFlags) -> Result<OwnedFd, Error> {
        fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(|e| self.failed("fsmount", e))
    }

    fn failed(&self, call: &'static str, errno: Errno) -> Error {
        Error::os(Operation::Mount, call, errno).with_kernel_message(self.messages())
    }

    /// What the kernel has written so far, one message a line.
    fn messages(&self) -> Option<String> {
        messages(self.fd.as_fd())
    }
}

pub(crate) fn new_context() -> Result<OwnedFd, Error> {
    fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|e| Error::os(Operation::Mount, "fsopen", e).about("overlay"))
}

/// Takes the messages out of a context's log. The kernel keeps eight; each begins with its level and a space.
pub(crate) fn messages(context: BorrowedFd<'_>) -> Option<String> {
    let mut lines = Vec::new();
    let mut buffer = [0; 1024];
    // The end is ENODATA; with any other error there is nothing to be had either.
    while let Ok(length @ 1..) = read(context, &mut buffer) {
        let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
        let text = text.trim_end();
        lines.push(text.split_once(' ').map_or(text, |(_level, words)| words).to_owned());
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// Links are of use only in a real `/proc`.
pub(crate) fn check_proc() -> Result<(), Error> {
    match statfs(THREAD_FDS) {
        Ok(stat) if stat.f_type == PROC_SUPER_MAGIC => Ok(()),
        Ok(_) | Err(Errno::NOENT) => {
            let words = "there is no proc file system, which this kernel needs to take layers";
            Err(Error::explained(ErrorKind::Unsupported, Operation::Mount, words).about(THREAD_FDS))
        }
        Err(e) => Err(Error::os(Operation::Mount, "statfs", e).about(THREAD_FDS)),
    }
}

/// Whether lowers can be added one by one: only asked when something has failed.
pub(crate) fn knows_lowerdir_plus() -> bool {
    let Ok(context) = new_context() else {
        // Cannot be asked: whatever has failed keeps its own error.
        return true;
    };
    // Before Linux 6.5 anything is taken, and the mount fails later on.
    let checks = fsconfig_set_string(&context, "no_such_option", "x").is_err();
    checks && fsconfig_set_string(&context, "lowerdir+", "/") != Err(Errno::INVAL)
}

pub(crate) fn is_too_old(error: &Error) -> bool {
    error.kind() == ErrorKind::Unsupported && error.object().is_some_and(|object| object == LOWERDIR_PLUS)
}

fn too_old() -> Error {
    let words = "this kernel does not take lowers one by one; Linux 6.8 does";
    Error::explained(ErrorKind::Unsupported, Operation::Mount, words).about(LOWERDIR_PLUS)
}

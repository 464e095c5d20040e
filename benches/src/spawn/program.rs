//! The program that all contenders start, and what it should say.

use super::shape::{HOSTNAME, Shape};
use crate::Result;
use crate::floor::probe;
use cofferdam_namespaces::Namespaces;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program, in a folder that can be its root.
#[derive(Debug)]
pub struct Program {
    folder: tempfile::TempDir,
}

/// Where it lies, seen from its root.
pub(super) const INSIDE: &str = "/bin/probe";
/// The same, seen from the folder.
const NAME: &str = "bin/probe";

/// Copies a program, by a process of its own: whoever forks in this one meanwhile has the new file open for writing until it executes
/// something, and so long the file cannot be executed (ETXTBSY).
pub(crate) fn copy_program(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp").arg(from).arg(to).status()?;
    if copied.success() { Ok(()) } else { Err(format!("cp {}: {copied}", from.display()).into()) }
}

impl Program {
    /// Writes it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("cofferdam-bench-").tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        for part in ["bin", "proc", "dev"] {
            fs::DirBuilder::new().mode(0o755).create(folder.path().join(part))?;
        }
        let file = folder.path().join(NAME);
        let data = folder.path().join("probe.elf");
        fs::write(&data, probe::elf())?;
        copy_program(&data, &file)?;
        fs::set_permissions(file, fs::Permissions::from_mode(0o755))?;
        Ok(Program { folder })
    }

    /// The folder: the program, and where to mount `/proc` and `/dev`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The program's path, as it is seen from inside.
    #[must_use]
    pub fn path(&self, shape: Shape) -> PathBuf {
        if shape.root { INSIDE.into() } else { self.folder().join(NAME) }
    }

    pub(super) fn path_text(&self, shape: Shape) -> Result<CString> {
        Ok(CString::new(self.path(shape).into_os_string().into_vec())?)
    }

    pub(super) fn root(&self) -> Result<CString> {
        Ok(CString::new(self.folder().to_owned().into_os_string().into_vec())?)
    }
}

/// What the program should say: its process id, as its `/proc` tells it, and its host name.
#[derive(Debug, Clone)]
pub(super) struct Expect {
    /// Of a process whose `/proc` is the caller's, the id is what the caller knows.
    pub(super) pid: Option<u32>,
    pub(super) hostname: String,
}

impl Expect {
    pub(super) fn of(shape: Shape) -> Result<Self> {
        let hostname =
            if shape.has(Namespaces::UTS) { HOSTNAME.to_string_lossy().into_owned() } else { own_hostname()? };
        Ok(Expect { pid: shape.has_proc().then_some(1), hostname })
    }

    pub(super) fn check(&self, said: &[u8], pid: u32) -> Result<()> {
        let expected = format!("{} {}\n", self.pid.unwrap_or(pid), self.hostname);
        if said == expected.as_bytes() {
            return Ok(());
        }
        Err(format!("printed {:?} instead of {expected:?}", String::from_utf8_lossy(said)).into())
    }
}

/// The caller's own host name.
pub(super) fn own_hostname() -> Result<String> {
    Ok(nix::unistd::gethostname()?.to_string_lossy().into_owned())
}

//! Everything or nothing: a folder beside DEST, which takes its place in one step.

use crate::Result;
use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2};
use nix::sys::stat::Mode;
use nix::unistd::mkdtemp;
use std::fs::{self, File, create_dir};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A folder that only we can enter, with the tree that is being made in it. It is removed when this is dropped.
pub(crate) struct Staging {
    folder: PathBuf,
    dest: PathBuf,
}

impl Staging {
    /// In the folder that DEST is in, so that it can be moved.
    pub(crate) fn beside(dest: &Path) -> Result<Self> {
        match fs::symlink_metadata(dest) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(format!("{dest:?}: {e}").into()),
            Ok(meta) if meta.is_dir() && fs::read_dir(dest)?.next().is_none() => {}
            Ok(_) => return Err(format!("{dest:?} is there already, and is not an empty directory").into()),
        }
        // Its last component, whatever the user wrote: a trailing slash or dot means the directory.
        let dest: PathBuf = dest.components().collect();
        let parent = match dest.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let folder =
            mkdtemp(&parent.join(".unpack-image-XXXXXX")).map_err(|e| format!("make a folder in {parent:?}: {e}"))?;
        Ok(Staging { folder, dest })
    }

    /// A new folder within.
    pub(crate) fn make(&self, name: &str) -> Result<File> {
        open_new(&self.folder.join(name))
    }

    /// A new folder in the tree, which is made for the first one.
    pub(crate) fn make_in_tree(&self, number: usize) -> Result<File> {
        let tree = self.tree();
        if !tree.is_dir() {
            create_dir(&tree)?;
        }
        open_new(&tree.join(number.to_string()))
    }

    fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }

    /// Puts the tree in the place of DEST, which is not there or empty.
    pub(crate) fn publish(self) -> Result<()> {
        let tree = self.tree();
        if !tree.is_dir() {
            create_dir(&tree)?;
        }
        let moved = match renameat2(AT_FDCWD, &tree, AT_FDCWD, &self.dest, RenameFlags::RENAME_NOREPLACE) {
            // An empty directory is replaced; whatever has come into it meanwhile is not.
            Err(nix::errno::Errno::EEXIST) => fs::rename(&tree, &self.dest),
            other => other.map_err(Into::into),
        };
        moved.map_err(|e| format!("put the files to {:?}: {e}", self.dest).into())
    }
}

fn open_new(path: &Path) -> Result<File> {
    create_dir(path).map_err(|e| format!("make {path:?}: {e}"))?;
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(File::from(nix::fcntl::open(path, flags, Mode::empty())?))
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What an ordinary user may have unpacked can have directories that keep even them out.
        if fs::remove_dir_all(&self.folder).is_err() {
            unlock(&self.folder);
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn unlock(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            unlock(&entry.path());
        }
    }
}

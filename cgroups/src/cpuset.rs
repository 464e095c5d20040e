//! v1's cpuset: a new cgroup has no CPUs and no memory nodes, and nothing can enter it until it has.

use std::path::Path;

use crate::dir::{Dir, buffer};
use crate::error::Result;

/// Named with and without the controller: the latter where the tree is mounted with `noprefix`.
const FILES: [[&str; 2]; 2] = [["cpuset.cpus", "cpus"], ["cpuset.mems", "mems"]];

/// Gives a new cgroup what the one above has. Where that is empty itself, it is given what is above it first, and so on
/// from the top: what is not empty is never touched.
pub(crate) fn inherit(root: &Dir, parent: &Path, parent_dir: &Dir, child: &Dir) -> Result<()> {
    for names in FILES {
        let Some(file) = present(child, names)? else { continue };
        let mut value = read(parent_dir, file)?;
        if value.is_empty() {
            value = fill(root, parent, parent_dir, file)?;
        }
        // An empty write would be refused; and what the kernel may have copied itself (clone_children) is the same.
        if !value.is_empty() {
            child.write(file, &value)?;
        }
    }
    Ok(())
}

/// Fills a cgroup, and those above it that are empty too. Returns what it has then.
fn fill(root: &Dir, path: &Path, dir: &Dir, file: &str) -> Result<String> {
    let mut empty = Vec::new();
    let mut value = String::new();
    for above in path.ancestors().skip(1) {
        let dir = root.dir(above)?;
        value = read(&dir, file)?;
        if !value.is_empty() {
            break;
        }
        empty.push(dir);
    }
    if !value.is_empty() {
        for dir in empty.iter().rev().chain([dir]) {
            dir.write(file, &value)?;
        }
    }
    Ok(value)
}

fn read(dir: &Dir, file: &str) -> Result<String> {
    let mut buffer = buffer();
    let text = dir.read(file, &mut buffer)?.trim_ascii();
    std::str::from_utf8(text).map(str::to_owned).map_err(|_| dir.malformed(file))
}

fn present(dir: &Dir, names: [&'static str; 2]) -> Result<Option<&'static str>> {
    for name in names {
        if dir.has(name)? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A tree that is mounted with `noprefix` (Android, `mount -t cpuset`): any directory looks like one.
    #[test]
    fn names_without_the_controller() {
        let top = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(top.path().join(file), text).unwrap();
        for dir in ["a", "a/b"] {
            fs::create_dir(top.path().join(dir)).unwrap();
            write(&[dir, "/cpus"].concat(), "");
            write(&[dir, "/mems"].concat(), "");
        }
        write("cpus", "0-3\n");
        write("mems", "0\n");
        write("a/mems", "1\n");
        let root = Dir::any(top.path());
        let (a, b) = (root.dir(Path::new("a")).unwrap(), root.dir(Path::new("a/b")).unwrap());
        inherit(&root, Path::new("a"), &a, &b).unwrap();
        let read = |file: &str| fs::read_to_string(top.path().join(file)).unwrap().trim().to_owned();
        assert_eq!((read("a/cpus"), read("a/b/cpus")), ("0-3".to_owned(), "0-3".to_owned()));
        // What is not empty is not touched.
        assert_eq!((read("a/mems"), read("a/b/mems")), ("1".to_owned(), "1".to_owned()));
    }
}

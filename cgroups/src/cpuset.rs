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

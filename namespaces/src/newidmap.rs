//! `newuidmap(1)` and `newgidmap(1)`: they write what an ordinary user may not, if `/etc/subuid` and `/etc/subgid` allow it.

use crate::identity::{IdRange, Ranges};
use crate::{Error, ErrorKind, Sandbox, Stdio, Step, hint};
use nix::sys::statvfs::{FsFlags, statvfs};
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where only the administrator can have put them. The last one is NixOS'.
const PLACES: [&str; 3] = ["/usr/bin", "/bin", "/run/wrappers/bin"];

/// More than either has ever to say.
const TEXT: u64 = 4096;

/// Blocks as long as the helper takes: it may have to ask for the user's name.
pub(crate) fn run(helper: &'static str, (pid, file): (u32, &str), ranges: &Ranges) -> Result<(), Error> {
    let path = find(helper)?;
    let numbers = ranges.as_slice().iter().flat_map(|IdRange { inside, outside, count }| [inside, outside, count]);
    let numbers = [&pid].into_iter().chain(numbers).map(u32::to_string);
    // Nothing of the caller's environment, and no descriptor: it runs as root.
    let sandbox = Sandbox::new(&path).args(numbers).working_directory("/").stdin(Stdio::Null).stdout(Stdio::Null);
    let mut child = sandbox.stderr(Stdio::Pipe).spawn()?;
    let mut text = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let failed = |e: std::io::Error| Error::os(Step::IdMap, "read", e.raw_os_error().unwrap_or(0)).about(&path);
        stderr.take(TEXT).read_to_end(&mut text).map_err(failed)?;
    }
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    let said = match child.wait() {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) if text.is_empty() => status.to_string(),
        // Somebody else has taken its status, or SIGCHLD is ignored: what it was to write tells as well.
        Err(error) if error.kind() == ErrorKind::StatusLost && has_map(pid, file, ranges) => return Ok(()),
        Err(error) if text.is_empty() || error.kind() != ErrorKind::StatusLost => return Err(error),
        _ => text,
    };
    let (nosuid, no_new_privs) = (is_nosuid(&path), has_no_new_privs());
    let error = Error::words(ErrorKind::PermissionDenied, Step::IdMap, path, said);
    Err(hint::of_helper(error, nosuid, no_new_privs))
}

/// Whether the child has this map now.
fn has_map(pid: u32, file: &str, ranges: &Ranges) -> bool {
    fs::read_to_string(format!("/proc/{pid}/{file}")).is_ok_and(|text| says(&text, ranges))
}

/// The kernel sorts a map of more than a few ranges.
fn says(text: &str, ranges: &Ranges) -> bool {
    let numbers = |line: &str| line.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>();
    let Ok(mut found) = text.lines().map(numbers).collect::<Result<Vec<_>, _>>() else { return false };
    let wanted = ranges.as_slice().iter().map(|IdRange { inside, outside, count }| vec![*inside, *outside, *count]);
    let mut wanted: Vec<_> = wanted.collect();
    wanted.sort_unstable();
    found.sort_unstable();
    wanted == found
}

/// Whether a program there gets no rights of its own.
fn is_nosuid(path: &Path) -> bool {
    statvfs(path).is_ok_and(|file_system| file_system.flags().contains(FsFlags::ST_NOSUID))
}

/// Of this thread, as its children then are.
fn has_no_new_privs() -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    status.lines().filter_map(|line| line.strip_prefix("NoNewPrivs:")).any(|value| value.trim() == "1")
}

fn find(helper: &'static str) -> Result<PathBuf, Error> {
    let places = PLACES.iter().map(|place| PathBuf::from(place).join(helper));
    let roots = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|file| file.is_file() && file.uid() == 0 && file.mode() & 0o022 == 0)
    };
    places.into_iter().find(roots).ok_or_else(|| {
        let words = "is missing, or others than root may change it; Debian has it in the package uidmap, Fedora in shadow-utils";
        Error::words(ErrorKind::NotFound, Step::IdMap, helper, words)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_known_by_its_ranges() {
        let ranges = vec![IdRange::new(1, 100_000, 65536), IdRange::new(0, 1000, 1)];
        let ranges = Ranges::check("user map", ranges).unwrap();
        for (text, same) in [
            ("         1     100000      65536\n         0       1000          1\n", true),
            ("0 1000 1\n1 100000 65536\n", true),
            ("0 1000 1\n1 100000 65535\n", false),
            ("0 1000 1\n", false),
            ("0 1000 1\n1 100000 65536\n70000 200000 1\n", false),
            ("0 1000 1\n1 100000 x\n", false),
            ("", false),
        ] {
            assert_eq!(says(text, &ranges), same, "{text:?}");
        }
    }
}

//! `/proc/PID/mountinfo`, as far as cgroups need it: `proc_pid_mountinfo(5)`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount of a cgroup file system. The fields are as the kernel wrote them, with their escapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mount<'a> {
    /// Major and minor number of the file system: the same for every mount of one hierarchy.
    pub(crate) device: (u32, u32),
    /// The directory of the file system that is visible at the mount point.
    pub(crate) root: &'a [u8],
    pub(crate) point: &'a [u8],
    pub(crate) read_only: bool,
    /// `cgroup2`, as opposed to `cgroup`.
    pub(crate) unified: bool,
    super_options: &'a [u8],
}

impl<'a> Mount<'a> {
    /// For v1: the controllers, among other options.
    pub(crate) fn super_options(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.super_options.split(|byte| *byte == b',')
    }
}

/// The mounts of cgroup file systems, in the kernel's order. Lines that are not of the documented form are passed
/// over: a field that we do not know must not hide all cgroups.
pub(crate) fn cgroup_mounts(text: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    text.split(|byte| *byte == b'\n').filter_map(mount)
}

fn mount(line: &[u8]) -> Option<Mount<'_>> {
    let mut fields = line.split(|byte| *byte == b' ').skip(2);
    let device = device(fields.next()?)?;
    let root = fields.next()?;
    let point = fields.next()?;
    let options = fields.next()?;
    // Any number of optional fields, then a hyphen.
    fields.find(|field| *field == b"-")?;
    let unified = match fields.next()? {
        b"cgroup" => false,
        b"cgroup2" => true,
        _ => return None,
    };
    let _source = fields.next()?;
    let super_options = fields.next().unwrap_or_default();
    let read_only = |options: &[u8]| options.split(|byte| *byte == b',').any(|o| o == b"ro");
    Some(Mount {
        device,
        root,
        point,
        read_only: read_only(options) || read_only(super_options),
        unified,
        super_options,
    })
}

fn device(text: &[u8]) -> Option<(u32, u32)> {
    let colon = text.iter().position(|byte| *byte == b':')?;
    let (major, minor) = (text.get(..colon)?, text.get(colon + 1..)?);
    let number = |text| crate::text::number(text).and_then(|n| u32::try_from(n).ok());
    Some((number(major)?, number(minor)?))
}

/// Undoes the kernel's octal escapes (`\040` for a space).
pub(crate) fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let escaped = match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                Some(((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'), after))
            }
            _ => None,
        };
        let (byte, after) = escaped.unwrap_or((*first, tail));
        bytes.push(byte);
        rest = after;
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    #[test]
    fn fields_of_a_line() {
        let line = b"35 31 0:30 /docker/a\\040b /sys/fs/cgroup/cpu,cpuacct ro,nosuid shared:9 master:3 - cgroup cgroup rw,cpu,cpuacct";
        let mount = cgroup_mounts(line).next().unwrap();
        assert_eq!(mount.device, (0, 30));
        assert_eq!(unescape(mount.root), Path::new("/docker/a b"));
        assert_eq!(unescape(mount.point), Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert!(mount.read_only && !mount.unified);
        let options: Vec<_> = mount.super_options().collect();
        assert_eq!(options, [b"rw".as_slice(), b"cpu", b"cpuacct"]);
    }

    #[test]
    fn other_file_systems_and_broken_lines_are_passed_over() {
        let text = b"23 28 0:21 / /sys rw - sysfs sysfs rw\n\
            x\n\n1 2 3 4\n\
            30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n\
            31 23 0:x / /bad rw - cgroup2 cgroup2 rw\n\
            32 23 0:27 / /noend rw shared:1 cgroup2 cgroup2 rw\n";
        let found: Vec<_> = cgroup_mounts(text).collect();
        assert_eq!(found.len(), 1);
        assert!(found[0].unified && !found[0].read_only);
    }

    #[test]
    fn a_point_that_looks_like_the_separator() {
        // " - " cannot stand in a path: its spaces are escaped.
        let line = b"35 31 0:30 / /a\\040-\\040cgroup rw - tmpfs tmpfs rw";
        assert_eq!(cgroup_mounts(line).count(), 0);
    }

    #[test]
    fn escapes() {
        for (from, to) in
            [("/a\\040b\\011c\\012d\\134e", "/a b\tc\nd\\e"), ("/\\04", "/\\04"), ("/\\400", "/\\400"), ("\\", "\\")]
        {
            assert_eq!(unescape(from.as_bytes()), Path::new(to));
        }
    }

    proptest! {
        #[test]
        fn never_panics(text: Vec<u8>) {
            for mount in cgroup_mounts(&text) {
                let _ = unescape(mount.root);
            }
            let _ = unescape(&text);
        }

        #[test]
        fn never_panics_on_nearly_good_text(text in "([0-9]{1,3} ){0,2}[0-9:]{1,12} /[a-z\\\\0-7]{0,9} /[a-z]{0,3} r[ow] (- )?(cgroup2?)? ?[a-z,]{0,9}\n?") {
            let _ = cgroup_mounts(text.as_bytes()).count();
        }
    }
}

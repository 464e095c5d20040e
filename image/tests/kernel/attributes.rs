//! Extended attributes that an image may not have, and those that a file system cannot.

use crate::support::{Scratch, Tar, lenient, listing, tree, unpack, unpack_onto, xattrs};
use cofferdam_image::test_hooks::{Defence, without};
use cofferdam_image::{ErrorKind, Options, Policy, SkippedPart};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// `cap_net_raw=ep`.
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What security modules go by. The last one is of none, and so can be set on any machine.
const LABELS: [&str; 4] = ["security.SMACK64EXEC", "security.selinux", "security.ima", "security.foo"];

/// An image does not choose as what its programs run on this machine. File capabilities are its own.
pub(crate) fn labels_are_the_machines() {
    let keys = LABELS.map(|name| format!("SCHILY.xattr.{name}"));
    let labels: Vec<(&str, &[u8])> = keys.iter().map(|key| (key.as_str(), &b"chosen"[..])).collect();
    let with_capability = [&labels[..], &[("SCHILY.xattr.security.capability", CAPABILITY)]].concat();
    let tar = Tar::default().pax(b'x', &with_capability).entry("f=1");
    let tar = tar.pax(b'x', &labels).entry("d/").pax(b'x', &labels).entry("s->f").pax(b'x', &labels).entry("p|").end();
    let chosen = |root: &Path| -> usize {
        let of = |name: &str| xattrs(&root.join(name)).into_values().filter(|value| value == b"chosen").count();
        ["f", "d", "s", "p"].iter().map(|name| of(name)).sum()
    };
    for policy in [Policy::Strict, Policy::Lenient] {
        let scratch = Scratch::new();
        let (stage, target) = (scratch.stage(), scratch.stage());
        let options = || Options::new().policy(policy);
        let report = unpack(&tar, &stage, None, options()).unwrap();
        for name in LABELS {
            let told = report.skipped.iter().filter(|skipped| skipped.what == SkippedPart::Xattr(name.into())).count();
            assert_eq!(told, 4, "{policy:?}: {name} of each");
        }
        unpack_onto(&tar, &scratch.stage(), &target, options()).unwrap();
        for root in [&stage, &target] {
            assert_eq!(chosen(root), 0, "{policy:?}: {:?}", tree(root));
            assert_eq!(xattrs(&root.join("f"))["security.capability"], CAPABILITY);
        }
    }
    // It could be had.
    let label = Tar::default().pax(b'x', &[("SCHILY.xattr.security.foo", b"chosen")]);
    let (scratch, layer) =
        (Scratch::new(), ["f=1", "d/", "s->f", "p|"].map(|entry| label.clone().entry(entry).0).concat());
    let stage = scratch.stage();
    without(&[Defence::Labels], || unpack(&Tar(layer).end(), &stage, None, Options::new())).unwrap();
    assert_eq!(chosen(&stage), 4, "{:?}", tree(&stage));
}

pub(crate) const MKFS: &str = "/sbin/mkfs.ext4";

/// An ext4 on which root has no more space than others.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn new(scratch: &Scratch, at: &'a Path) -> Self {
        let image = scratch.path().join("image");
        File::create(&image).and_then(|file| file.set_len(16 << 20)).unwrap();
        let run = |program: &str, args: &[&str], paths: &[&Path]| {
            let output = Command::new(program).args(args).args(paths).output().unwrap();
            assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        run(MKFS, &["-q", "-m", "0", "-b", "4096", "-O", "^ea_inode,^inline_data"], &[&image]);
        run("/bin/mount", &["-t", "ext4", "-o", "loop"], &[&image, at]);
        Disk(at)
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let unmounted = nix::mount::umount(self.0);
        assert!(unmounted.is_ok() || std::thread::panicking(), "{unmounted:?}");
    }
}

/// ext4 says that there is no space for what would not fit on an empty disk either. On a full one there is none.
pub(crate) fn attributes_that_are_too_large() {
    let scratch = Scratch::new();
    let at = scratch.stage();
    let disk = Disk::new(&scratch, &at);
    let stage = |name: &str| {
        let path = disk.0.join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let with = |size: usize| Tar::default().pax(b'x', &[("SCHILY.xattr.user.big", &vec![b'x'; size])]);
    for entry in ["f=1", "d/"] {
        let tar = with(10_000).entry(entry).end();
        let error =
            unpack(&tar, &stage(&format!("strict {entry}").replace('/', "")), None, Options::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("user.big"), "{error}");
        let lenient_stage = stage(&format!("lenient {entry}").replace('/', ""));
        let report = unpack(&tar, &lenient_stage, None, lenient()).unwrap();
        let skipped: Vec<_> = report.skipped.into_iter().map(|skipped| skipped.what).collect();
        assert_eq!(skipped, [SkippedPart::Xattr("user.big".into())]);
        assert_eq!(listing(&lenient_stage), [entry]);
    }
    let small = with(2_000).entry("f=").end();
    let fits = stage("fits");
    assert!(unpack(&small, &fits, None, Options::new()).unwrap().skipped.is_empty());
    let full = stage("full");
    let mut filler = File::create(disk.0.join("filler")).unwrap();
    let error = (0..1 << 16).find_map(|_| filler.write_all(&[0; 4096]).err()).unwrap();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    // The file system has kept back some blocks for what it has to write.
    let many = (0..200).fold(Tar::default(), |tar, number| {
        let value = format!("{number:02000}");
        tar.pax(b'x', &[("SCHILY.xattr.user.big", value.as_bytes())]).entry(&format!("{number}="))
    });
    let error = unpack(&many.end(), &full, None, lenient()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    drop(filler);
}

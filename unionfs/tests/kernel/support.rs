//! What several of these tests share: layers on disk, and a user namespace.

use cofferdam_unionfs::{Form, Overlay, WritableLayer};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const IN_USERNS: &str = "--in-userns";

/// A test that is run in both forms: its name and what it does.
pub(crate) type Body = (&'static str, fn(Form));

/// Runs a test of this program again as root of a new user namespace, with a mount namespace. A process of its own does,
/// because a process with threads cannot enter one.
pub(crate) fn in_userns(name: &str) {
    let status = Command::new("/proc/self/exe").args([IN_USERNS, name]).status().expect("starts itself");
    assert!(status.success(), "in a user namespace: {status}");
}

pub(crate) fn asked_for_userns() -> Option<String> {
    let mut args = std::env::args().skip(1);
    (args.next()? == IN_USERNS).then(|| args.next().expect("a test's name"))
}

pub(crate) fn run_in_userns(name: &str, bodies: &[Body]) -> ExitCode {
    let (_, body) = bodies.iter().find(|(n, _)| *n == name).expect("a test of that name");
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).expect("namespaces");
    fs::write("/proc/self/setgroups", "deny").expect("setgroups");
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).expect("uid_map");
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).expect("gid_map");
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).expect("private mounts");
    let (fds, mounts) = (open_fds(), mount_table());
    body(Form::User);
    assert_eq!((open_fds(), mount_table()), (fds, mounts), "descriptors and mounts, after and before");
    ExitCode::SUCCESS
}

/// How many descriptors are open that this crate could have opened. Those of the test kit's supervisor come and go.
pub(crate) fn open_fds() -> usize {
    let links = fs::read_dir("/proc/self/fd").expect("is read").map(|e| fs::read_link(e.expect("an entry").path()));
    links.flatten().filter(|to| to.is_absolute() || to.ends_with("anon_inode:[fscontext]")).count()
}

/// Whether this kernel is Linux 6.8 or newer.
pub(crate) fn takes_lowers_one_by_one() -> bool {
    is_linux(6, 8)
}

/// Whether this kernel is that version or a newer one.
pub(crate) fn is_linux(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("is read");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}

/// Whether this kernel has a module, or could load it.
pub(crate) fn has_module(name: &str) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("is read");
    let folder = Path::new("/lib/modules").join(release.trim());
    let lists =
        ["modules.dep", "modules.builtin"].map(|list| fs::read_to_string(folder.join(list)).unwrap_or_default());
    lists.iter().any(|list| list.contains(&format!("/{name}.ko")))
}

/// A user namespace in which 0 and what follows is `first` and what follows outside.
pub(crate) fn user_namespace(first: u32) -> File {
    let (mut told, tell) = std::io::pipe().expect("a pipe");
    let (wait, go) = std::io::pipe().expect("a pipe");
    #[expect(unsafe_code, reason = "a process with a user namespace")]
    // SAFETY: the child only makes system calls and ends.
    let child = match unsafe { nix::unistd::fork() }.expect("a process") {
        nix::unistd::ForkResult::Parent { child } => child,
        nix::unistd::ForkResult::Child => {
            drop(go);
            unshare(CloneFlags::CLONE_NEWUSER).expect("a namespace");
            (&tell).write_all(b"x").expect("is told");
            let _ = (&wait).read(&mut [0]);
            std::process::exit(0);
        }
    };
    drop(tell);
    told.read_exact(&mut [0]).expect("is told");
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{child}/{map}"), format!("0 {first} 65536")).expect("is mapped");
    }
    let namespace = open(format!("/proc/{child}/ns/user"));
    drop(go);
    nix::sys::wait::waitpid(child, None).expect("has ended");
    namespace
}

pub(crate) fn mount_table() -> String {
    fs::read_to_string("/proc/self/mountinfo").expect("is read")
}

/// A folder with layers, deleted at the end.
pub(crate) struct Place {
    dir: tempfile::TempDir,
    pub(crate) form: Form,
}

impl Place {
    pub(crate) fn new(form: Form) -> Self {
        Place { dir: tempfile::tempdir().expect("a folder"), form }
    }

    pub(crate) fn on(disk: &Disk, form: Form) -> Self {
        Place { dir: tempfile::tempdir_in(disk.path()).expect("a folder"), form }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A layer with these files; a name that ends with a slash is a directory.
    pub(crate) fn layer(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let layer = self.path().join(name);
        fs::create_dir_all(&layer).expect("is made");
        for (path, content) in files {
            let path = layer.join(path);
            if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
                fs::create_dir_all(path).expect("is made");
            } else {
                fs::create_dir_all(path.parent().expect("a parent")).expect("is made");
                fs::write(path, content).expect("is written");
            }
        }
        layer
    }

    /// A writable layer, and where its upper is.
    pub(crate) fn writable(&self) -> (WritableLayer, PathBuf) {
        let path = self.layer("writable", &[]);
        let layer = WritableLayer::create(open(&path)).expect("is made");
        (layer, path.join("upper"))
    }

    pub(crate) fn overlay<P: AsRef<Path>>(&self, lowers: &[P]) -> Overlay {
        Overlay::new().form(self.form).lowers(lowers.iter().map(AsRef::as_ref))
    }
}

/// An ext4 of its own, on a loop device that goes with it. For real root.
pub(crate) struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// With features of mkfs.ext4(8) and options of mount(8).
    pub(crate) fn new(features: &str, options: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let image = folder.path().join("image");
        File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("is made");
        let run = |program: &str, args: &[&str], paths: &[&Path]| {
            let output = Command::new(program).args(args).args(paths).output().expect("is started");
            assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        run(MKFS, &["-q", "-O", features], &[&image]);
        let disk = folder.path().join("disk");
        fs::create_dir(&disk).expect("is made");
        run("/bin/mount", &["-t", "ext4", "-o", &format!("loop,{options}")], &[&image, &disk]);
        Disk { folder }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = nix::mount::umount(&self.path());
        assert!(unmounted.is_ok() || std::thread::panicking(), "{unmounted:?}");
    }
}

pub(crate) const MKFS: &str = "/sbin/mkfs.ext4";

/// A directory, open for reading.
pub(crate) fn open(path: impl AsRef<Path>) -> File {
    File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}

pub(crate) fn mounted(overlay: &Overlay) -> Merged {
    Merged(overlay.mount().unwrap_or_else(|e| panic!("{e}")))
}

/// The root of a mount.
pub(crate) struct Merged(pub(crate) OwnedFd);

impl Merged {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_fd().as_raw_fd()).parse::<PathBuf>().expect("a path").join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// The names in a directory, sorted. Each must exist: a listing must not promise what is not there.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let dir = self.path(name);
        let names = list(&dir);
        for name in &names {
            fs::symlink_metadata(dir.join(name)).unwrap_or_else(|e| panic!("{name} is listed, but: {e}"));
        }
        names
    }
}

/// The names in a directory, sorted.
pub(crate) fn list(dir: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("is read").map(|e| e.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|n| n.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Runs something on a thread that may not do more with files than their owner may, as an ordinary user.
pub(crate) fn without_file_rights<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    // CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH.
    const FILE_RIGHTS: u32 = 1 << 1 | 1 << 2;
    #[repr(C)]
    struct Header(u32, i32);
    let drop_them = || {
        let header = Header(0x2008_0522, 0);
        let mut sets = [0_u32; 6];
        #[expect(unsafe_code, reason = "no safe wrapper")]
        // SAFETY: a header of version 3 and its two structs of three words each.
        let got = unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) };
        sets[0] &= !FILE_RIGHTS;
        #[expect(unsafe_code, reason = "no safe wrapper")]
        // SAFETY: as above; the calling thread alone loses rights.
        let set = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
        assert_eq!((got, set), (0, 0));
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            drop_them();
            f()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// An overlay by hand, without any care: a lower for each path, nothing else.
pub(crate) fn raw_overlay<P: AsRef<Path>>(lowers: &[P], form: Form) -> Result<Merged, rustix::io::Errno> {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
        fsopen,
    };
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    if form == Form::User {
        fsconfig_set_flag(&context, "userxattr")?;
    }
    for lower in lowers {
        fsconfig_set_string(&context, "lowerdir+", lower.as_ref())?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map(Merged)
}

/// Random numbers: small, fast, the same each time.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &'a [&T]) -> &'a T {
        from[usize::try_from(self.below(from.len() as u64)).expect("small")]
    }
}

/// How many cases of a random test: few of them where a system call takes long, ten times as many if `COFFERDAM_TEST_LONG` is set.
pub(crate) fn cases(usual: u64) -> u64 {
    let many = if std::env::var_os("COFFERDAM_TEST_LONG").is_some() { usual * 10 } else { usual };
    if cofferdam_testkit::patience() > 1 { many / 20 } else { many }
}

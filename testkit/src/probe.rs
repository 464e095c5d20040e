//! How the needs are tried. Functions with a "child" in their words run in a throw-away process.

use std::env;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{AccessFlags, Uid, access, getegid, geteuid};

use crate::need::read;
use crate::process::in_child;

pub(crate) fn root() -> Result<(), String> {
    if !geteuid().is_root() {
        return Err(format!("the user id is {}", geteuid()));
    }
    in_child(|| new(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID))
}

pub(crate) fn ordinary_user() -> Result<(), String> {
    if Uid::current().is_root() || geteuid().is_root() {
        return Err("this is root".into());
    }
    match capabilities()? {
        0 => Ok(()),
        effective => Err(format!("this user has capabilities: {effective:x}")),
    }
}

pub(crate) fn raise_limits() -> Result<(), String> {
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    if capabilities()? & CAP_SYS_RESOURCE == 0 { Err("this process has no such capability".into()) } else { Ok(()) }
}

/// The effective ones.
fn capabilities() -> Result<u64, String> {
    let status = read("/proc/self/status")?;
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:")).unwrap_or_default().trim();
    u64::from_str_radix(effective, 16).map_err(|e| format!("/proc/self/status has no capabilities: {e}"))
}

/// Moves this child into a user namespace in which its ids are 0.
pub(crate) fn userns() -> Result<(), String> {
    let (uid, gid) = (geteuid(), getegid());
    new(CloneFlags::CLONE_NEWUSER)?;
    for (file, text) in
        [("setgroups", "deny".into()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))]
    {
        let path = format!("/proc/self/{file}");
        fs::write(&path, text).map_err(|e| format!("cannot write {path} in a new user namespace: {e}"))?;
    }
    Ok(())
}

/// The root that `testkit/debian` has made; it is everybody's, so do not write to it.
///
/// # Errors
/// It is not there.
pub fn debian() -> Result<PathBuf, String> {
    const VERSION: &str = "1";
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache"))).ok_or("HOME is not set")?;
    let root = cache.join("cofferdam-debian").join(VERSION).join("root");
    match fs::metadata(root.join("usr/bin/python3")) {
        Ok(_) => Ok(root),
        Err(e) => Err(format!("run testkit/debian first: {}: {e}", root.display())),
    }
}

pub(crate) fn subordinate_ids() -> Result<(), String> {
    let uid = geteuid();
    let name = nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    for path in ["/etc/subuid", "/etc/subgid"] {
        if !read(path)?.lines().any(|line| line.split(':').next() == Some(&name)) {
            return Err(format!("{path} has no line for {name}"));
        }
    }
    Ok(())
}

/// In a child: mounts an overlay in a mount namespace of its own.
pub(crate) fn overlay() -> Result<(), String> {
    in_own(CloneFlags::CLONE_NEWNS)?;
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .map_err(|e| format!("cannot make mounts private: {e}"))?;
    mount(Some("tmpfs"), "/tmp", Some("tmpfs"), MsFlags::empty(), nothing)
        .map_err(|e| format!("cannot mount a tmpfs: {e}"))?;
    for dir in ["/tmp/lower", "/tmp/upper", "/tmp/work", "/tmp/merged"] {
        fs::create_dir(dir).map_err(|e| format!("cannot make {dir} in a fresh tmpfs: {e}"))?;
    }
    let options = Some("lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work");
    mount(Some("overlay"), "/tmp/merged", Some("overlay"), MsFlags::empty(), options)
        .map_err(|e| format!("cannot mount an overlay: {e}"))
}

/// In a child: mounts one that answers nothing, in a mount namespace of its own.
pub(crate) fn fuse() -> Result<(), String> {
    in_own(CloneFlags::CLONE_NEWNS)?;
    let device = fs::File::options().read(true).write(true).open("/dev/fuse");
    let device = device.map_err(|e| format!("cannot open /dev/fuse: {e}"))?;
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .map_err(|e| format!("cannot make mounts private: {e}"))?;
    let options = format!("fd={},rootmode=40755,user_id=0,group_id=0", device.as_raw_fd());
    mount(Some("fuse"), "/mnt", Some("fuse"), MsFlags::empty(), Some(&*options))
        .map_err(|e| format!("cannot mount a fuse: {e}"))
}

/// In a child: makes a link of this kind in a network namespace of its own, by ip(8).
pub(crate) fn link(kind: &str) -> Result<(), String> {
    in_own(CloneFlags::CLONE_NEWNET)?;
    let more: &[&str] = if kind == "vxlan" { &["id", "1", "dstport", "4789"] } else { &[] };
    let output = Command::new("ip").args(["link", "add", "cofferdam0", "type", kind]).args(more).output();
    let output = output.map_err(|e| format!("cannot run ip: {e}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

/// New namespaces for this child, with a user namespace around them unless it is root.
fn in_own(flags: CloneFlags) -> Result<(), String> {
    if !geteuid().is_root() {
        userns()?;
    }
    new(flags)
}

fn new(flags: CloneFlags) -> Result<(), String> {
    unshare(flags).map_err(|e| format!("unshare {flags:?}: {e}"))
}

/// A path, or a name that execvp(3) would find.
pub(crate) fn program(program: &str) -> Result<(), String> {
    if program.contains('/') {
        return access(program, AccessFlags::X_OK).map_err(|e| e.to_string());
    }
    let folders = env::var_os("PATH").unwrap_or_default();
    let is_there = |path: PathBuf| path.is_file() && access(&path, AccessFlags::X_OK).is_ok();
    if env::split_paths(&folders).any(|folder| is_there(folder.join(program))) {
        Ok(())
    } else {
        Err("not found".into())
    }
}

/// An ELF file of 64 bits without an interpreter, which would load its libraries.
pub(crate) fn static_program(path: &str) -> Result<(), String> {
    const PT_INTERP: usize = 3;
    program(path)?;
    let elf = fs::read(path).map_err(|e| e.to_string())?;
    let number = |at: usize, length: usize| {
        let bytes = elf.iter().skip(at).take(length).rev();
        bytes.fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
    };
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return Err("it is no such program".into());
    }
    // Of its program headers: where they begin, and how large each is.
    let (from, size) = (number(32, 8), number(54, 2));
    let mut types = (0..number(56, 2)).map(|header| number(from.saturating_add(header * size), 4));
    if types.any(|is| is == PT_INTERP) { Err("it is linked dynamically".into()) } else { Ok(()) }
}

pub(crate) fn memory(bytes: u64) -> Result<(), String> {
    let meminfo = read("/proc/meminfo")?;
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemAvailable:")).unwrap_or_default();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().map_err(|e| format!("MemAvailable:{line}: {e}"))?;
    if kib << 10 >= bytes { Ok(()) } else { Err(format!("{} MiB are available", kib >> 10)) }
}

pub(crate) fn core_files() -> Result<(), String> {
    let pattern = read("/proc/sys/kernel/core_pattern")?;
    if pattern.trim().is_empty() || pattern.contains(['|', '/']) {
        return Err(format!("core_pattern is {:?}", pattern.trim()));
    }
    match nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_CORE) {
        Ok((_, hard)) if hard == nix::sys::resource::RLIM_INFINITY => Ok(()),
        Ok((_, hard)) => Err(format!("RLIMIT_CORE is at most {hard}")),
        Err(errno) => Err(format!("cannot ask for RLIMIT_CORE: {errno}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_static_program_has_no_interpreter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        // The head, and after it one program header.
        let mut elf = vec![0; 64 + 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (elf[32], elf[54], elf[56]) = (64, 56, 1);
        for (kind, expected) in [(1, Ok(())), (3, Err("it is linked dynamically".into()))] {
            elf[64] = kind;
            fs::write(&path, &elf).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            assert_eq!(static_program(path.to_str().unwrap()), expected);
        }
        fs::write(&path, "#!/bin/sh\n").unwrap();
        assert_eq!(static_program(path.to_str().unwrap()), Err("it is no such program".into()));
        assert!(static_program("/no/such/program").unwrap_err().starts_with("ENOENT"));
    }
}

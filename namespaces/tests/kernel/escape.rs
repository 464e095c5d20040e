//! Ways out of a sandbox, tried from inside: this test program, started there as `kernel escape NAME...`, prints a line for each, `refused: NAME` or
//! `ESCAPED: NAME`. What would harm the machine is tried up to the point where the kernel has let it pass.
#![expect(unsafe_code, reason = "raw system calls, in one function")]
#![allow(clippy::cast_sign_loss, reason = "as C passes numbers to the kernel")]

use std::ffi::{CStr, CString};
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A name, and what is tried.
type Way = (&'static str, fn() -> Attempt);

/// All of them.
pub(crate) const ALL: &[Way] = &[
    ("ptrace", ptrace),
    ("exe", exe),
    ("mknod", mknod),
    ("mount", mount),
    ("unmask", unmask),
    ("remount", remount),
    ("tiocsti", || type_into_the_terminal(libc::TIOCSTI)),
    ("tiocsti-64", || type_into_the_terminal(libc::TIOCSTI | 1 << 32)),
    ("tioclinux", || type_into_the_terminal(0x541c)),
    ("key", key),
    ("handle", handle),
    ("userns", userns),
    ("bpf", bpf),
    ("kexec", kexec),
    ("module", module),
    ("time", time),
    ("raw-socket", raw_socket),
    ("proc-sys", || open_for_writing("/proc/sys/kernel/domainname")),
    ("core-pattern", || open_for_writing("/proc/sys/kernel/core_pattern")),
    ("sysrq", || open_for_writing("/proc/sysrq-trigger")),
    ("release-agent", release_agent),
    ("descriptors", descriptors),
    ("inheritable", inheritable),
    ("host-files", host_files),
    ("chroot", chroot),
];

/// `Ok` is an escape; the errno or what else was in the way.
pub(crate) type Attempt = Result<(), String>;

/// This program.
pub(crate) fn program() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// As said at the top.
pub(crate) fn main(names: impl Iterator<Item = String>) {
    let wanted: Vec<String> = names.collect();
    for (name, attempt) in ALL {
        if wanted.is_empty() || wanted.iter().any(|one| one == name) {
            match attempt() {
                Ok(()) => println!("ESCAPED: {name}"),
                Err(why) => {
                    println!("refused: {name}");
                    eprintln!("{name}: {why}");
                }
            }
        }
    }
}

fn call(number: i64, args: [u64; 6]) -> Result<i64, String> {
    // SAFETY: pointers are to memory that the caller of this function keeps, and as long as the call wants.
    let result = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) };
    if result < 0 { Err(std::io::Error::last_os_error().to_string()) } else { Ok(result) }
}

fn text(string: &CStr) -> u64 {
    string.as_ptr() as u64
}

fn open_for_writing(path: &str) -> Attempt {
    fs::OpenOptions::new().write(true).open(path).map(drop).map_err(|e| e.to_string())
}

/// Processes that are in sight and not this one.
fn others() -> Vec<u32> {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).filter(|pid| *pid != std::process::id()).collect()
}

/// Any process, the parent first. Seized, it is not stopped, and let go at the end of this one.
fn ptrace() -> Attempt {
    let parent = std::os::unix::process::parent_id();
    let mut why = "nobody in sight".to_owned();
    for pid in others().into_iter().chain([parent]).filter(|pid| *pid != 0) {
        match call(libc::SYS_ptrace, [u64::from(libc::PTRACE_SEIZE), pid.into(), 0, 0, 0, 0]) {
            Ok(_) => return Ok(()),
            Err(errno) => why = errno,
        }
    }
    Err(why)
}

/// CVE-2019-5736. A program that runs is busy, but not for ever: what counts is whether it may be written.
fn exe() -> Attempt {
    let paths = others().into_iter().map(|pid| format!("/proc/{pid}/exe"));
    let mut why = String::new();
    for path in ["/proc/self/exe".to_owned(), "/proc/1/exe".to_owned()].into_iter().chain(paths) {
        let path = CString::new(path).unwrap();
        let access = [libc::AT_FDCWD as u64, text(&path), libc::W_OK as u64, 0, 0, 0];
        match call(libc::SYS_faccessat, access) {
            Ok(_) => return Ok(()),
            Err(errno) => why = errno,
        }
    }
    Err(why)
}

fn place(name: &str) -> PathBuf {
    let folder = std::env::var_os("ESCAPE_FOLDER").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
    folder.join(name)
}

fn c_path(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

/// The device that gives zeros.
fn mknod() -> Attempt {
    let path = place("device");
    let _ = fs::remove_file(&path);
    let mode = libc::S_IFCHR | 0o666;
    call(libc::SYS_mknodat, [libc::AT_FDCWD as u64, text(&c_path(&path)), mode.into(), libc::makedev(1, 5), 0, 0])?;
    let mut byte = [1];
    let read = fs::File::open(&path).and_then(|mut file| file.read(&mut byte));
    let _ = fs::remove_file(&path);
    read.map(drop).map_err(|e| e.to_string())
}

fn mount_at(source: &CStr, target: &Path, kind: &CStr, flags: u64, data: &CStr) -> Attempt {
    let target = c_path(target);
    call(libc::SYS_mount, [text(source), text(&target), text(kind), flags, text(data), 0]).map(drop)
}

fn mount() -> Attempt {
    let path = place("mounted");
    let _ = fs::create_dir(&path);
    mount_at(c"tmpfs", &path, c"tmpfs", 0, c"")?;
    let _ = call(libc::SYS_umount2, [text(&c_path(&path)), libc::MNT_DETACH as u64, 0, 0, 0, 0]);
    Ok(())
}

/// What is behind the mask.
fn unmask() -> Attempt {
    call(libc::SYS_umount2, [text(c"/etc/secret"), libc::MNT_DETACH as u64, 0, 0, 0, 0])?;
    match fs::read_to_string("/etc/secret") {
        Ok(found) if found == "secret" => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// Somewhere that is read-only.
fn remount() -> Attempt {
    mount_at(c"", Path::new("/usr"), c"", libc::MS_REMOUNT | libc::MS_BIND, c"")
}

/// Typed as if by its user.
fn type_into_the_terminal(request: libc::Ioctl) -> Attempt {
    let typed = *b"x\0";
    let argument = if request == 0x541c { [3, 0] } else { typed };
    call(libc::SYS_ioctl, [0, request, argument.as_ptr() as u64, 0, 0, 0]).map(drop)
}

/// One that the host has put into its session's keyring.
fn key() -> Attempt {
    let session = libc::KEY_SPEC_SESSION_KEYRING as u64;
    let search = [libc::KEYCTL_SEARCH.into(), session, text(c"user"), text(c"cofferdam-secret"), 0, 0];
    let key = call(libc::SYS_keyctl, search)?;
    let mut value = [0_u8; 16];
    let read = [libc::KEYCTL_READ.into(), key.cast_unsigned(), value.as_mut_ptr() as u64, 16, 0, 0];
    call(libc::SYS_keyctl, read).map(drop)
}

/// By a handle any file of a mount can be opened, where no path leads to it.
fn handle() -> Attempt {
    let mut handle = [0_u32; 34];
    handle[0] = 128;
    let mut mount = 0_i32;
    let path = c"/usr";
    let name = [libc::AT_FDCWD as u64, text(path), handle.as_mut_ptr() as u64, (&raw mut mount) as u64, 0, 0];
    let named = call(libc::SYS_name_to_handle_at, name);
    let root = fs::File::open("/usr").map_err(|e| e.to_string())?;
    // The check comes before the handle is looked at: one that cannot be made, as on an overlay, shows it too.
    let opened = call(
        libc::SYS_open_by_handle_at,
        [root.as_raw_fd() as u64, handle.as_ptr() as u64, libc::O_PATH as u64, 0, 0, 0],
    );
    match (named, opened) {
        (_, Err(errno)) if errno.contains("(os error 1)") => Err(errno),
        (Ok(_), opened) => opened.map(drop),
        (Err(_), Err(errno)) if errno.contains("(os error 38)") => Err(errno),
        (Err(_), _) => Ok(()),
    }
}

/// Root of one's own namespace, who may mount. In a process of its own, which this one waits for.
fn userns() -> Attempt {
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS;
    in_child(|| {
        call(libc::SYS_unshare, [flags as u64, 0, 0, 0, 0, 0])?;
        mount_at(c"", Path::new("/"), c"", libc::MS_PRIVATE | libc::MS_REC, c"")?;
        mount_at(c"tmpfs", &place("."), c"tmpfs", 0, c"")
    })
}

fn in_child(body: impl FnOnce() -> Attempt) -> Attempt {
    // SAFETY: this program has one thread.
    match unsafe { nix::unistd::fork() }.map_err(|e| e.to_string())? {
        nix::unistd::ForkResult::Child => std::process::exit(match body() {
            Ok(()) => 0,
            Err(why) => {
                eprintln!("{why}");
                1
            }
        }),
        nix::unistd::ForkResult::Parent { child } => match nix::sys::wait::waitpid(child, None) {
            Ok(nix::sys::wait::WaitStatus::Exited(_, 0)) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    }
}

/// A map: an array of one.
fn bpf() -> Attempt {
    let attributes = [2_u32, 4, 4, 1, 0];
    call(libc::SYS_bpf, [0, attributes.as_ptr() as u64, 20, 0, 0, 0]).map(drop)
}

/// With too many segments, which the kernel says only to who may.
fn kexec() -> Attempt {
    passed(call(libc::SYS_kexec_load, [0, 17, 0, 0, 0, 0]), libc::EINVAL)
}

/// What is no module.
fn module() -> Attempt {
    let nothing = [0_u8; 64];
    passed(call(libc::SYS_init_module, [nothing.as_ptr() as u64, 64, text(c""), 0, 0, 0]), libc::ENOEXEC)
}

/// This errno comes after the check.
fn passed(result: Result<i64, String>, errno: i32) -> Attempt {
    match result {
        Err(why) if why.contains(&format!("(os error {errno})")) => Ok(()),
        result => result.map(drop),
    }
}

/// The clock's rate, to what it is.
fn time() -> Attempt {
    let mut now = [0_u64; 32];
    call(libc::SYS_adjtimex, [now.as_mut_ptr() as u64, 0, 0, 0, 0, 0])?;
    // Its first member says what is to be set: ADJ_TICK.
    now[0] = 0x4000;
    call(libc::SYS_adjtimex, [now.as_mut_ptr() as u64, 0, 0, 0, 0, 0]).map(drop)
}

fn raw_socket() -> Attempt {
    let raw = libc::SOCK_RAW as u64;
    let ip = call(libc::SYS_socket, [libc::AF_INET as u64, raw, libc::IPPROTO_ICMP as u64, 0, 0, 0]);
    ip.or_else(|_| call(libc::SYS_socket, [libc::AF_PACKET as u64, raw, 0, 0, 0, 0])).map(drop)
}

/// A program that the kernel runs outside when a cgroup becomes empty.
fn release_agent() -> Attempt {
    let path = place("cgroup");
    let _ = fs::create_dir(&path);
    let mut why = String::new();
    for controller in [c"rdma", c"memory", c"net_cls", c"none,name=escape"] {
        match mount_at(c"cgroup", &path, c"cgroup", 0, controller) {
            Ok(()) => {
                let opened = open_for_writing(path.join("release_agent").to_str().unwrap());
                let _ = call(libc::SYS_umount2, [text(&c_path(&path)), libc::MNT_DETACH as u64, 0, 0, 0, 0]);
                match opened {
                    Ok(()) => return Ok(()),
                    Err(errno) => why = errno,
                }
            }
            Err(errno) => why = errno,
        }
    }
    for tree in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        if open_for_writing(tree.path().join("release_agent").to_str().unwrap()).is_ok() {
            return Ok(());
        }
    }
    Err(why)
}

/// Anything that is open beside the streams.
fn descriptors() -> Attempt {
    let open = |number: &i32| fs::read_link(format!("/proc/self/fd/{number}")).is_ok();
    match (3..1024).find(open) {
        Some(_) => Ok(()),
        None => Err("none".into()),
    }
}

/// CVE-2022-27650.
fn inheritable() -> Attempt {
    let status = fs::read_to_string("/proc/self/status").map_err(|e| e.to_string())?;
    let set = status.lines().find_map(|line| line.strip_prefix("CapInh:\t")).ok_or("no such line")?;
    if u64::from_str_radix(set, 16) == Ok(0) { Err("none".into()) } else { Ok(()) }
}

/// The root of the first process, and what only the host has.
fn host_files() -> Attempt {
    let name = std::env::var("ESCAPE_HOST_FILE").unwrap_or_default();
    let ways = [format!("/proc/1/root{name}"), format!("/proc/1/cwd/..{name}"), name.clone()];
    ways.iter().any(|way| fs::metadata(way).is_ok()).then_some(()).ok_or_else(|| "not there".into())
}

/// Up and out of a root that is only a `chroot(2)`.
fn chroot() -> Attempt {
    let name = std::env::var("ESCAPE_HOST_FILE").unwrap_or_default();
    in_child(move || {
        let folder = place("deeper");
        let _ = fs::create_dir(&folder);
        call(libc::SYS_chroot, [text(&c_path(&folder)), 0, 0, 0, 0, 0])?;
        for _ in 0..64 {
            call(libc::SYS_chdir, [text(c".."), 0, 0, 0, 0, 0])?;
        }
        let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(name.trim_start_matches('/'));
        file.map(drop).map_err(|e| e.to_string())
    })
}

//! Holding a cgroup to its device nodes.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;

use crate::apply::{Applied, Written};
use crate::cgroup::Cgroup;
use crate::controllers::Subsystems;
use crate::dir::Dir;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::layout::Version;
use crate::limits::Devices;
use crate::policy::devices;
use crate::sys;

/// The kernel says EAGAIN when the loading of a program was interrupted.
const LOAD_TRIES: u32 = 5;
const ALL_TRIES: u32 = 25;

impl Cgroup {
    pub(crate) fn apply_devices(&self, wanted: &Devices, applied: &mut Applied) -> Result<()> {
        let member = self.governing(Subsystems::DEVICES)?;
        let dir = &member.dir;
        if member.version() == Version::V2 {
            let program = devices::program(wanted);
            let is_needed = !wanted.allow || !wanted.exceptions.is_empty();
            replace_program(dir, is_needed.then_some(&program)).map_err(|errno| explain(dir, errno))?;
            let text = format!("eBPF program of {} instructions", program.len());
            applied.written.push(Written { path: dir.path().to_owned(), text });
            return Ok(());
        }
        let list = dir.read_list(devices::LIST)?;
        let in_force = devices::parse_list(&list).ok_or_else(|| dir.malformed(devices::LIST))?;
        for (file, text) in devices::v1_writes(wanted, &in_force) {
            write(dir, file, &text)?;
            applied.written.push(Written { path: dir.path().join(file), text });
        }
        Ok(())
    }
}

/// v1 refuses to change all at once while there are cgroups below, and goes on for a moment after they were deleted.
fn write(dir: &Dir, file: &str, text: &str) -> Result<()> {
    for _ in 1..ALL_TRIES {
        match dir.write(file, text) {
            Err(error) if error.errno() == Some(Errno::INVAL) && text == "a" => {
                std::thread::sleep(Duration::from_millis(2));
            }
            result => return result,
        }
    }
    dir.write(file, text)
}

fn explain(dir: &Dir, errno: Errno) -> Error {
    let error = Error::os(errno, Op::Attach, dir.path());
    match errno {
        Errno::PERM | Errno::ACCESS => error.with_note(
            "CAP_BPF and CAP_NET_ADMIN on the host are needed, to replace rules that are in force CAP_SYS_ADMIN; \
             before Linux 5.11 more locked memory may be",
        ),
        Errno::NOSYS | Errno::INVAL => {
            error.with_kind(ErrorKind::Unsupported).with_note("the kernel may lack CONFIG_CGROUP_BPF")
        }
        _ => error.with_note("the program of device rules"),
    }
}

/// At no time is there none, if there is to be one: a single old one is replaced, several are detached after the new one
/// has come. Every program that is attached must agree; what others have attached here would not know our rules.
fn replace_program(dir: &Dir, program: Option<&Vec<u64>>) -> std::result::Result<(), Errno> {
    let cgroup = dir.as_fd();
    let (old, flags) = sys::attached(cgroup)?;
    let old = old.into_iter().map(sys::by_id).filter(|fd| !matches!(fd, Err(Errno::NOENT)));
    let old = old.collect::<std::result::Result<Vec<_>, _>>()?;
    let new = match program {
        Some(program) => Some(load(program)?),
        None => None,
    };
    match (&new, &old[..]) {
        (Some(new), [one]) if flags & sys::ALLOW_MULTI != 0 => {
            return sys::attach(cgroup, new.as_fd(), sys::ALLOW_MULTI | sys::REPLACE, Some(one.as_fd()));
        }
        // Attached such that there can be only one: the next takes its place.
        (Some(new), [_]) => return sys::attach(cgroup, new.as_fd(), flags, None),
        (Some(new), _) => sys::attach(cgroup, new.as_fd(), sys::ALLOW_MULTI, None)?,
        (None, _) => {}
    }
    old.iter().try_for_each(|old| match sys::detach(cgroup, old.as_fd()) {
        // Somebody else was faster.
        Err(Errno::NOENT) => Ok(()),
        result => result,
    })
}

fn load(program: &[u64]) -> std::result::Result<OwnedFd, Errno> {
    for _ in 1..LOAD_TRIES {
        match sys::load(program) {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
    sys::load(program)
}

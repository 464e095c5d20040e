//! The maps of a user namespace: what they are for this caller, and how they are written.

use crate::identity::{Change, IdRange, Kind, Maps, Ranges};
use crate::program::{Arg, Program, Sys, Then};
use crate::report::{KEPT_INSIDE, KEPT_OUTSIDE};
use crate::{Error, IdMap, Step, gate, newidmap, subid};
use std::ffi::{CString, OsStr};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

impl Maps {
    /// For a caller with these effective ids.
    pub(crate) fn new(map: &IdMap, caller: (u32, u32)) -> Result<Self, Error> {
        let mut maps = match &map.kind {
            Kind::Single { uid, gid } => Maps {
                uids: Ranges::check("user map", vec![IdRange::new(*uid, caller.0, 1)])?,
                gids: Ranges::check("group map", vec![IdRange::new(*gid, caller.1, 1)])?,
                setgroups: false,
                by_child: true,
            },
            Kind::Ranges { uids, gids } => Maps {
                uids: Ranges::check("user map", uids.clone())?,
                gids: Ranges::check("group map", gids.clone())?,
                // Of the caller's own group alone nobody has said that its supplementary groups may be dropped.
                setgroups: !matches!(gids[..], [IdRange { outside, count: 1, .. }] if outside == caller.1),
                by_child: false,
            },
            Kind::Subordinate => subid::maps(caller)?,
            Kind::Join(_) => return Err(Error::config("user namespace", "that is joined has its maps already")),
        };
        maps.setgroups &= !map.deny_setgroups;
        Ok(maps)
    }

    /// What the child does: it writes the maps, or lets the caller know that it is there, and waits.
    pub(crate) fn compile(&self, program: &mut Program) {
        if !self.by_child {
            return gate::compile(program, Step::IdMap);
        }
        // setgroups first: who may drop groups could pass a file that denies one of them.
        let files = [
            (c"/proc/self/setgroups", "deny".to_owned()),
            (c"/proc/self/uid_map", self.uids.text()),
            (c"/proc/self/gid_map", self.gids.text()),
        ];
        for (path, text) in files {
            write_file(program, Step::IdMap, path.to_owned(), text);
        }
    }

    /// What the caller does meanwhile. What the kernel does not let it write is given to the helpers that the administrator provides.
    pub(crate) fn write(&self, pid: u32) -> Result<(), Error> {
        if !self.setgroups {
            write_of(pid, "setgroups", "deny")?;
        }
        for (file, ranges, helper) in [("uid_map", &self.uids, "newuidmap"), ("gid_map", &self.gids, "newgidmap")] {
            match write_of(pid, file, &ranges.text()) {
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => newidmap::run(helper, (pid, file), ranges)?,
                result => result?,
            }
        }
        Ok(())
    }
}

/// In one write: these files take no second one.
fn write_of(pid: u32, file: &str, text: &str) -> Result<(), Error> {
    let path = format!("/proc/{pid}/{file}");
    let failed = |call| {
        let path = &path;
        move |e: std::io::Error| Error::os(Step::IdMap, call, e.raw_os_error().unwrap_or(0)).about(path)
    };
    let mut file = OpenOptions::new().write(true).open(&path).map_err(failed("openat"))?;
    match file.write(text.as_bytes()).map_err(failed("write"))? {
        written if written == text.len() => Ok(()),
        _ => Err(Error::os(Step::IdMap, "write", libc::EIO).about(&path)),
    }
}

/// The child writes a text into one of its files below the caller's `/proc`.
pub(crate) fn write_file(program: &mut Program, step: Step, path: CString, text: String) {
    let object = OsStr::from_bytes(path.to_bytes()).to_owned();
    // Below the caller's own, also where another one has its place.
    let (folder, path) = match (program.proc(), path.to_bytes().strip_prefix(b"/proc/")) {
        (Some(proc), Some(inner)) => (proc, CString::new(inner).unwrap_or_default()),
        _ => (libc::AT_FDCWD, path),
    };
    let path = program.string(path);
    let flags = libc::O_WRONLY | libc::O_CLOEXEC;
    let open = [folder.into(), path.into(), flags.into(), 0_u64.into()];
    let file = program.slot();
    program.leaves_open(file);
    program.call_then(step, &object, Sys::openat, open, Then::Keep(file));
    let len = text.len() as u64;
    let text = program.string(CString::new(text).unwrap_or_default());
    program.call(step, &object, Sys::write, [file.into(), text.into(), len.into()]);
}

/// The child goes into a user namespace that is there. Root in it must not trace a process that has a copy of the caller's memory (CVE-2016-9962).
pub(crate) fn join(program: &mut Program, user_namespace: i32) {
    program.call(Step::JoinUser, "", Sys::prctl, [libc::PR_SET_DUMPABLE.into(), 0_u64.into()]);
    drop_groups(program, Step::JoinUser);
    program.call(Step::JoinUser, "", Sys::setns, [user_namespace.into(), libc::CLONE_NEWUSER.into()]);
}

/// Before a user namespace is joined: inside, `setgroups(2)` may be denied, by somebody whom the caller's groups are no business of. A caller that may not drop
/// them keeps them, and is [told](crate::Report::kept_groups).
pub(crate) fn drop_groups(program: &mut Program, step: Step) {
    let none = [0_u64.into(), 0_u64.into()];
    program.call_then(step, "groups", Sys::setgroups, none, Then::Or(KEPT_OUTSIDE, [libc::EPERM; 2]));
}

/// Groups first and the user last: who is no longer root may not change them. By system calls of this process alone: libc's would
/// want to do it for each thread of the host program.
pub(crate) fn change(program: &mut Program, step: Step, change: &Change) {
    if let Some(groups) = &change.groups {
        let pairs = groups.chunks(2).map(|pair| match *pair {
            [low, high] => u64::from(low) | u64::from(high) << 32,
            [low] => low.into(),
            _ => 0,
        });
        let list = program.words(pairs);
        let then = if change.may_keep_groups { Then::Or(KEPT_INSIDE, [libc::EPERM; 2]) } else { Then::Go };
        program.call_then(step, "groups", Sys::setgroups, [(groups.len() as u64).into(), list.into()], then);
    }
    if let Some(gid) = change.gid {
        program.call(step, format!("group {gid}"), Sys::setresgid, [gid; 3].map(Arg::from));
    }
    if let Some(uid) = change.uid {
        program.call(step, format!("user {uid}"), Sys::setresuid, [uid; 3].map(Arg::from));
    }
}

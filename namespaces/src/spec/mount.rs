//! A mount: what is left out of it is as the constructor of its kind has it.

use crate::Mount;
use crate::mount::{MountFlags, MountKind, Source};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenMount {
    #[serde(with = "super::text")]
    target: PathBuf,
    kind: MountKind,
    flags: Option<MountFlags>,
    options: Option<Vec<Setting>>,
    #[serde(default)]
    non_recursive: bool,
    id_mapped: Option<String>,
}

/// An option of a file system; one without a value is a flag.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Setting {
    key: String,
    #[serde(default, with = "super::text")]
    value: Option<OsString>,
}

impl From<Mount> for WrittenMount {
    fn from(Mount { target, kind, flags, options, alone, ids }: Mount) -> Self {
        let options = options.into_iter().map(|(key, value)| Setting { key, value }).collect();
        WrittenMount { target, kind, flags: Some(flags), options: Some(options), non_recursive: alone, id_mapped: ids }
    }
}

impl From<WrittenMount> for Mount {
    fn from(written: WrittenMount) -> Self {
        let mut mount = usual(written.kind, written.target);
        if let Some(flags) = written.flags {
            mount.flags = flags;
        }
        if let Some(options) = written.options {
            mount.options = options.into_iter().map(|Setting { key, value }| (key, value)).collect();
        }
        mount.alone = written.non_recursive;
        mount.ids = written.id_mapped;
        mount
    }
}

fn usual(kind: MountKind, target: PathBuf) -> Mount {
    match kind {
        MountKind::New(name) => match &*name {
            "proc" => Mount::proc(target),
            "sysfs" => Mount::sysfs(target),
            "tmpfs" => Mount::tmpfs(target),
            "devpts" => Mount::devpts(target),
            "mqueue" => Mount::mqueue(target),
            _ => Mount::file_system(name, target),
        },
        MountKind::Dev => Mount::dev(target),
        MountKind::Cgroup => Mount::cgroup(target),
        MountKind::Bind(Source::Path(path)) => Mount::bind(path, target),
        MountKind::Bind(Source::Fd(name)) => Mount::bind_fd(name, target),
        MountKind::Bind(Source::Mount(name)) => Mount::attach(name, target),
        MountKind::Mask => Mount::mask(target),
        MountKind::Freeze => Mount::read_only_path(target),
        MountKind::Directory => Mount::directory(target),
        MountKind::Link(to) => Mount::link(to, target),
    }
}

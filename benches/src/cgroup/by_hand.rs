//! The floor: the files by their paths, known beforehand, and nothing checked. No `unsafe` is needed for that.

use super::Place;
use crate::Result;
use crate::area::{Contender, Role, Sample};
use cofferdam_cgroups::Cgroup;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

/// The same limits, in either version: in an order that the kernel takes.
const LIMITS: [(&str, &str); 7] = [
    ("cpu.cfs_quota_us", "20000"),
    ("cpu.max", "20000 100000"),
    ("memory.swap.max", "0"),
    ("memory.max", "67108864"),
    ("memory.limit_in_bytes", "67108864"),
    ("memory.memsw.limit_in_bytes", "67108864"),
    ("pids.max", "64"),
];

/// The same files, where they are: all that tell of CPU time, processes and memory.
const FILES: [&str; 21] = [
    "cpu.stat",
    "cpuacct.usage",
    "cpuacct.usage_user",
    "cpuacct.usage_sys",
    "pids.current",
    "pids.max",
    "pids.peak",
    "pids.events",
    "memory.current",
    "memory.max",
    "memory.peak",
    "memory.swap.current",
    "memory.swap.peak",
    "memory.events",
    "memory.usage_in_bytes",
    "memory.limit_in_bytes",
    "memory.max_usage_in_bytes",
    "memory.memsw.usage_in_bytes",
    "memory.oom_control",
    "memory.failcnt",
    "memory.memsw.failcnt",
];

fn write(path: &Path, text: &str) -> Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())?;
    Ok(())
}

/// A hybrid's unified tree has a `cpu.stat` too, which tells nothing more.
fn files(cgroup: &Cgroup) -> Vec<PathBuf> {
    let paths: Vec<_> = cgroup.paths().collect();
    let is_hybrid = paths.iter().any(|path| path.join("cpuacct.usage").exists());
    let tells = |path: &&&Path| !is_hybrid || !path.join("cgroup.subtree_control").exists();
    let all = |path: &&Path| FILES.map(|file| path.join(file));
    paths.iter().filter(tells).flat_map(all).filter(|file| file.exists()).collect()
}

pub(super) fn life(place: &Arc<Place>) -> Result<Contender> {
    // One to look at: which directories and files there are.
    let name = format!("cofferdam-bench-floor-{}", std::process::id());
    let model = place.hierarchy.create(&name, super::CONTROLLERS)?;
    let dirs: Vec<PathBuf> = model.paths().map(Path::to_owned).collect();
    let in_all = |file: &str| dirs.iter().map(|dir| dir.join(file)).filter(|path| path.exists()).collect::<Vec<_>>();
    let limits: Vec<_> =
        LIMITS.iter().flat_map(|(file, text)| in_all(file).into_iter().map(|path| (path, *text))).collect();
    let read = files(&model);
    let out: Vec<PathBuf> = place.top.paths().map(|path| path.join("cgroup.procs")).collect();
    model.delete()?;
    let place = Arc::clone(place);
    Ok(Contender::new("floor", Role::Floor, move || {
        let (place, dirs, limits, read, out) =
            (Arc::clone(&place), dirs.clone(), limits.clone(), read.clone(), out.clone());
        move || {
            let pid = place.process.lock().unwrap_or_else(PoisonError::into_inner).id().to_string();
            let start = Instant::now();
            dirs.iter().try_for_each(fs::create_dir)?;
            limits.iter().try_for_each(|(path, text)| write(path, text))?;
            dirs.iter().try_for_each(|dir| write(&dir.join("cgroup.procs"), &pid))?;
            let returned = start.elapsed();
            let mut buffer = [0; 8192];
            let mut bytes = 0;
            for path in &read {
                bytes += File::open(path)?.read(&mut buffer)?;
            }
            out.iter().try_for_each(|path| write(path, &pid))?;
            for dir in &dirs {
                // The kernel may need a moment; how often that is counts for all.
                while let Err(error) = fs::remove_dir(dir) {
                    if error.kind() != std::io::ErrorKind::ResourceBusy {
                        return Err(error.into());
                    }
                }
            }
            let whole = start.elapsed();
            if bytes == 0 { Err("nothing was read".into()) } else { Ok(Sample { whole, returned }) }
        }
    }))
}

pub(super) fn sampling(many: &[Cgroup]) -> Result<Contender> {
    let open = many.iter().flat_map(files).map(File::open).collect::<std::io::Result<Vec<_>>>()?;
    let open = Arc::new(open);
    Ok(Contender::new("floor", Role::Floor, move || {
        let open = Arc::clone(&open);
        move || {
            let start = Instant::now();
            let mut buffer = [0; 8192];
            let mut bytes = 0;
            for file in open.iter() {
                bytes += file.read_at(&mut buffer, 0)?;
            }
            let whole = start.elapsed();
            if bytes == 0 { Err("nothing was read".into()) } else { Ok(Sample { whole, returned: whole }) }
        }
    }))
}

//! Reading what the kernel has counted: once, or again and again.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::io::{Errno, retry_on_intr};

use crate::cgroup::Cgroup;
use crate::controllers::Subsystems;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::layout::Version;
use crate::limits::PageSize;
use crate::member::Member;
use crate::stats::table::{self, File, Home, Read, ReadPages};
use crate::stats::{CpuStats, MemoryStats, PidsStats, Select, Stats};

/// Enough for every file but the lists of many devices; those make it grow, once.
const BUFFER: usize = 8192;
/// More than that is no statistics.
const LARGEST: usize = 1 << 24;

/// Reads statistics of one cgroup again and again, as a monitoring loop does: one system call for each file, and
/// after the first time no allocation, unless something new appears, such as a device. Made by [`Cgroup::sampler`].
///
/// It owns a descriptor for each of its files, and keeps working when the [`Cgroup`] is dropped.
#[derive(Debug)]
pub struct Sampler {
    sources: Vec<Source>,
    buffer: Vec<u8>,
    stats: Stats,
}

#[derive(Debug)]
struct Source {
    fd: OwnedFd,
    path: PathBuf,
    read: ReadSource,
}

enum ReadSource {
    File(Read, u64),
    Pages(ReadPages, PageSize),
}

impl std::fmt::Debug for ReadSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ReadSource::File(..) => "File",
            ReadSource::Pages(..) => "Pages",
        })
    }
}

impl Cgroup {
    /// Opens the files of these statistics, to be read again and again. What this cgroup or this kernel does not have
    /// is left out, so that [`Select::all`] can be asked for everywhere.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`], [`ErrorKind::PermissionDenied`].
    pub fn sampler(&self, select: Select) -> Result<Sampler> {
        let mut sources = Vec::new();
        let mut missing = Select::empty();
        let chosen = table::FILES.iter().chain([&table::MISC_EVENTS]).filter(|file| select.contains(file.select));
        for file in chosen {
            let Some(member) = self.home(file.home).filter(|_| !missing.contains(file.select)) else { continue };
            match open(member, file.name)? {
                Some(fd) => sources.push(file.source(member, fd)),
                None if file.is_needed => missing |= file.select,
                None => {}
            }
        }
        if let (true, Ok(member)) = (select.contains(Select::HUGETLB), self.governing(Subsystems::HUGETLB)) {
            open_pages(member, &mut sources)?;
        }
        if sources.is_empty() && self.members().iter().any(|member| !member.dir.is_alive()) {
            return Err(self.gone());
        }
        Ok(Sampler { sources, buffer: vec![0; BUFFER], stats: Stats::default() })
    }

    /// Reads statistics once. See [`sampler`](Self::sampler) for a loop.
    ///
    /// # Errors
    /// As for [`sampler`](Self::sampler).
    pub fn stats(&self, select: Select) -> Result<Stats> {
        let mut sampler = self.sampler(select)?;
        sampler.sample()?;
        Ok(sampler.stats)
    }

    /// CPU time used by this cgroup and everything below it.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`]; [`ErrorKind::ControllerUnavailable`] on v1 if `cpuacct` is not mounted, or the cgroup was
    /// made without [`Controllers::CPU`](crate::Controllers::CPU). On v2 the time is counted without the controller too.
    pub fn cpu_stats(&self) -> Result<CpuStats> {
        self.stats(Select::CPU)?.cpu.ok_or_else(|| self.not_counted(Subsystems::CPU))
    }

    /// The number of processes and threads of this cgroup and everything below it.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`]; [`ErrorKind::ControllerUnavailable`] without [`Controllers::PIDS`](crate::Controllers::PIDS),
    /// or at a root, which does not count them.
    pub fn pids_stats(&self) -> Result<PidsStats> {
        self.stats(Select::PIDS)?.pids.ok_or_else(|| self.not_counted(Subsystems::PIDS))
    }

    /// The memory of this cgroup and everything below it, and what has happened for lack of it.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`]; [`ErrorKind::ControllerUnavailable`] without
    /// [`Controllers::MEMORY`](crate::Controllers::MEMORY), or at v2's root, which does not tell.
    pub fn memory_stats(&self) -> Result<MemoryStats> {
        self.stats(Select::MEMORY)?.memory.ok_or_else(|| self.not_counted(Subsystems::MEMORY))
    }

    fn not_counted(&self, subsystem: Subsystems) -> Error {
        match self.governing(subsystem) {
            Err(error) => error,
            Ok(member) => Error::new(ErrorKind::ControllerUnavailable, Op::Read, member.dir.path())
                .with_note("the kernel does not count it here"),
        }
    }

    fn gone(&self) -> Error {
        Error::new(ErrorKind::Gone, Op::Open, self.paths().last().unwrap_or(Path::new("")))
    }

    fn home(&self, home: Home) -> Option<&Member> {
        let unified = || self.members().last().filter(|member| member.version() == Version::V2);
        let governing = |subsystem| self.governing(subsystem).ok();
        match home {
            Home::Of(subsystem, version) => governing(subsystem).filter(|member| member.version() == version),
            Home::Unified => unified(),
            Home::UnifiedCpu => match governing(Subsystems::CPU) {
                Some(member) => Some(member).filter(|member| member.version() == Version::V2),
                None => unified(),
            },
        }
    }
}

impl File {
    fn source(&self, member: &Member, fd: OwnedFd) -> Source {
        Source { fd, path: member.dir.path().join(self.name), read: ReadSource::File(self.read, member.tree.page) }
    }
}

/// A file, where this kernel and this cgroup have it and it is not switched off, as PSI can be.
fn open(member: &Member, name: &str) -> Result<Option<OwnedFd>> {
    match member.dir.readable(name) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(None),
        Err(error) if error.is_gone() && member.dir.is_alive() => Ok(None),
        Err(error) => Err(error),
    }
}

fn open_pages(member: &Member, sources: &mut Vec<Source>) -> Result<()> {
    let names = member.dir.files()?;
    let sizes = names.iter().filter_map(|name| crate::policy::shared::hugetlb_size(name.to_str()?, member.version()));
    for size in sizes {
        for (name, read) in table::hugetlb(member.version()) {
            let name = format!("hugetlb.{size}.{name}");
            if let Some(fd) = open(member, &name)? {
                let path = member.dir.path().join(name);
                sources.push(Source { fd, path, read: ReadSource::Pages(*read, size) });
            }
        }
    }
    Ok(())
}

impl Sampler {
    /// Reads all of it anew.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`] when the cgroup was deleted.
    pub fn sample(&mut self) -> Result<&Stats> {
        for source in &self.sources {
            let text = match read(&source.fd, &mut self.buffer) {
                Ok(text) => text,
                // PSI that has been switched off since.
                Err(Errno::OPNOTSUPP) => continue,
                Err(errno) => return Err(Error::os(errno, Op::Read, &source.path)),
            };
            let parsed = match source.read {
                ReadSource::File(Read::Plain(read), _) => read(&mut self.stats, text),
                ReadSource::File(Read::InPages(read), page) => read(&mut self.stats, text, page),
                ReadSource::Pages(read, size) => read(&mut self.stats, text, size),
            };
            if parsed.is_none() {
                return Err(Error::new(ErrorKind::Malformed, Op::Read, &source.path));
            }
        }
        Ok(&self.stats)
    }

    /// What the last [`sample`](Self::sample) has found.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}

/// The whole of a file, from its beginning. The kernel makes its text at each read from there.
fn read<'a>(fd: &OwnedFd, buffer: &'a mut Vec<u8>) -> std::result::Result<&'a [u8], Errno> {
    let n = loop {
        let n = retry_on_intr(|| rustix::io::pread(fd, &mut buffer[..], 0))?;
        if n < buffer.len() || n >= LARGEST {
            break n;
        }
        buffer.resize(n * 2, 0);
    };
    Ok(buffer.get(..n).unwrap_or_default())
}

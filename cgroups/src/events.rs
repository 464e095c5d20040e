//! What happens in a cgroup, as a descriptor to be polled.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::fs::inotify;
use rustix::io::{Errno, retry_on_intr};

use crate::cgroup::Cgroup;
use crate::controllers::Subsystems;
use crate::dir::{Buffer, Dir, buffer};
use crate::error::{Error, ErrorKind, Op, Result};
use crate::layout::Version;
use crate::member::Member;
use crate::stats::table::Plain;
use crate::stats::{MemoryEvents, Stats, memory, pids};
use crate::text;
use crate::wait::Deadline;

/// v1 says that memory has run out *before* it kills; how long we look for what came of it.
const KILL_TAKES: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How often we look for what has no event.
const LOOK_FOR_SILENT: Duration = Duration::from_millis(50);
/// The same for the end of the cgroup, where that has no event.
const LOOK_FOR_END: Duration = Duration::from_secs(1);

/// Something has happened. Numbers say how often since the last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// There are processes in it or below it, or none any more. Where there is a unified tree.
    Populated(bool),
    /// It has stopped, or runs again. Where there is a unified tree.
    Frozen(bool),
    /// Memory was reclaimed though there was less than `memory.low` (v2).
    MemoryLow(u64),
    /// `memory.high` was exceeded (v2).
    MemoryHigh(u64),
    /// The limit of memory was about to be exceeded. On v1 told together with the next event only.
    MemoryMax(u64),
    /// Memory has run out.
    Oom(u64),
    /// Processes were killed for it.
    OomKill(u64),
    /// The cgroup was killed for it as a whole (v2).
    OomGroupKill(u64),
    /// A fork was refused by the limit of processes. On v1 the descriptor does not become readable for it.
    PidsMax(u64),
    /// The cgroup was deleted. Nothing more will come. The descriptor becomes readable for it if it
    /// [tells of the end](Events::tells_of_the_end).
    Gone,
}

/// Tells what happens in a cgroup. It is a descriptor (an epoll instance) that becomes readable: poll it, or give it to
/// tokio's `AsyncFd` or mio, and [`read`](Self::read); or [`wait`](Self::wait). Made by [`Cgroup::events`].
///
/// That the cgroup is deleted the kernel tells in the directory above only, so that the descriptor also becomes readable
/// when one of its siblings is deleted; there is then nothing to read.
#[derive(Debug)]
pub struct Events {
    epoll: OwnedFd,
    /// Where it is looked whether the cgroup is there still, in one of its trees. `None` once it is not.
    dir: Option<Dir>,
    /// Read in this order. Whether there are processes comes before what happens to them: who sees that there are none any
    /// more has then also seen why.
    sources: Vec<Source>,
    state: State,
    /// v1: memory has run out, and nobody was killed yet.
    expecting_kill: Option<Instant>,
    /// Something is counted that the kernel gives no event of.
    has_silent: bool,
    /// There is an event of the cgroup's end.
    tells_of_the_end: bool,
}

#[derive(Debug)]
struct Source {
    fd: OwnedFd,
    path: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// `cgroup.events`.
    Cgroup,
    /// Counts, which the reader knows.
    Counts(Plain),
    /// v1's event of having run out.
    Eventfd,
    /// Something was deleted in the directory above.
    Above,
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Cgroup => "Cgroup",
            Kind::Counts(_) => "Counts",
            Kind::Eventfd => "Eventfd",
            Kind::Above => "Above",
        })
    }
}

/// What was found the last time.
#[derive(Debug, Clone, Default)]
struct State {
    populated: Option<bool>,
    frozen: Option<bool>,
    counts: Stats,
    v1_ooms: u64,
}

impl Cgroup {
    /// What happens in this cgroup and below it from now on: out of memory, processes killed for it, limits met, the
    /// last process gone, frozen, as far as its controllers tell.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`], [`ErrorKind::PermissionDenied`].
    pub fn events(&self) -> Result<Events> {
        let failed = |errno| Error::os(errno, Op::Watch, self.paths().last().map(PathBuf::from).unwrap_or_default());
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        let mut events = Events {
            epoll,
            dir: None,
            sources: Vec::new(),
            state: State::default(),
            expecting_kill: None,
            has_silent: false,
            tells_of_the_end: false,
        };
        // The unified tree, if there is one: what deletes a cgroup as a whole comes there last.
        if let Some(last) = self.members().last() {
            events.add_end(&last.dir)?;
        }
        if let Some(unified) = self.members().last().filter(|member| member.version() == Version::V2) {
            events.add(unified, "cgroup.events", Kind::Cgroup)?;
        }
        if let Ok(member) = self.governing(Subsystems::MEMORY) {
            match member.version() {
                Version::V2 => events.add(member, "memory.events", Kind::Counts(memory::v2_events))?,
                Version::V1 => events.add_v1_memory(member)?,
            }
        }
        if let Ok(member) = self.governing(Subsystems::PIDS) {
            events.add(member, "pids.events", Kind::Counts(pids::events))?;
            events.has_silent |= member.version() == Version::V1;
        }
        // The watch stands; what has happened before is the base line.
        events.state = events.look()?;
        events.state.v1_ooms = 0;
        Ok(events)
    }
}

impl Events {
    fn add(&mut self, member: &Member, file: &str, kind: Kind) -> Result<()> {
        let fd = match member.dir.readable(file) {
            Err(error) if error.is_gone() && member.dir.is_alive() => return Ok(()),
            fd => fd?,
        };
        let path = member.dir.path().join(file);
        self.watch(fd, path, kind, epoll::EventFlags::PRI)
    }

    /// `cgroup.events` says nothing at the end of a cgroup that was empty already, nor does its directory (`IN_DELETE_SELF`)
    /// for as long as it is open. That it may be renamed does not matter (v1): it stays where it is. Without a watch we
    /// look.
    fn add_end(&mut self, dir: &Dir) -> Result<()> {
        self.dir = Some(dir.dir(Path::new(""))?);
        let Some(above) = dir.above()? else { return Ok(()) };
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).and_then(|fd| {
            // Who has a table of descriptors of his own has it as a thread.
            let path = format!("/proc/thread-self/fd/{}", above.as_raw_fd());
            inotify::add_watch(&fd, path, inotify::WatchFlags::DELETE | inotify::WatchFlags::ONLYDIR).map(|_| fd)
        });
        if let Ok(watch) = watch {
            self.watch(watch, dir.path().to_owned(), Kind::Above, epoll::EventFlags::IN)?;
            self.tells_of_the_end = true;
        }
        Ok(())
    }

    /// Whether the descriptor becomes readable when the cgroup is deleted. Each `Events` takes one inotify instance for it,
    /// of which a user has 128 in all unless `fs.inotify.max_user_instances` says otherwise (`inotify(7)`). It does not when
    /// these are used up, where `/proc` is missing, and at the top of what is mounted, as in a container. Then
    /// [`read`](Self::read) has to be called now and then to learn of it; [`wait`](Self::wait) looks every second.
    #[must_use]
    pub fn tells_of_the_end(&self) -> bool {
        self.tells_of_the_end
    }

    fn watch(&mut self, fd: OwnedFd, path: PathBuf, kind: Kind, flags: epoll::EventFlags) -> Result<()> {
        let data = epoll::EventData::new_u64(self.sources.len() as u64);
        epoll::add(&self.epoll, &fd, data, flags).map_err(|errno| Error::os(errno, Op::Watch, &path))?;
        self.sources.push(Source { fd, path, kind });
        Ok(())
    }

    /// The event is asked for by writing two descriptors into a file; the counts have no events, and are read with it.
    fn add_v1_memory(&mut self, member: &Member) -> Result<()> {
        const CONTROL: &str = "memory.oom_control";
        let path = member.dir.path().join(CONTROL);
        let failed = |errno| Error::os(errno, Op::Watch, &path);
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed)?;
        let control = member.dir.readable(CONTROL)?;
        let text = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
        member.dir.write("cgroup.event_control", &text)?;
        self.watch(event, path.clone(), Kind::Eventfd, epoll::EventFlags::IN)?;
        self.sources.push(Source { fd: control, path, kind: Kind::Counts(memory::v1_oom_control) });
        let failures = member.dir.path().join("memory.failcnt");
        let fd = member.dir.readable("memory.failcnt")?;
        self.sources.push(Source { fd, path: failures, kind: Kind::Counts(memory::v1_failures) });
        Ok(())
    }

    /// What has happened since the last time, which may be nothing. Does not block.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`], [`ErrorKind::Os`]. That the cgroup was deleted is [`Event::Gone`].
    pub fn read(&mut self) -> Result<Vec<Event>> {
        let mut found = Vec::new();
        let now = match self.look() {
            Err(error) if error.is_gone() => {
                self.sources.clear();
                self.dir = None;
                return Ok(vec![Event::Gone]);
            }
            now => now?,
        };
        compare(&self.state, &now, &mut found);
        if found.iter().any(|event| matches!(event, Event::OomKill(_))) {
            self.expecting_kill = None;
        } else if now.v1_ooms > 0 {
            self.expecting_kill = Some(Instant::now());
        }
        self.state = now;
        Ok(found)
    }

    /// Waits until something has happened, at most for `timeout`, and tells what; nothing if nothing has. On v1 it
    /// goes on looking for a second after [`Event::Oom`], since the kernel does not tell when it has killed. Blocks.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn wait(&mut self, timeout: Duration) -> Result<Vec<Event>> {
        let deadline = Deadline::after(timeout);
        loop {
            let found = self.read()?;
            if !found.is_empty() || deadline.has_passed() {
                return Ok(found);
            }
            let slice = match self.expecting_kill {
                Some(since) if since.elapsed() < KILL_TAKES => deadline.at_most(LOOK_AGAIN).remaining(),
                _ if self.has_silent => deadline.at_most(LOOK_FOR_SILENT).remaining(),
                _ if !self.tells_of_the_end => deadline.at_most(LOOK_FOR_END).remaining(),
                _ => deadline.remaining(),
            };
            self.sleep(&slice)?;
        }
    }

    fn sleep(&self, most: &Timespec) -> Result<()> {
        let mut ready = Vec::with_capacity(self.sources.len().max(1));
        match epoll::wait(&self.epoll, spare_capacity(&mut ready), Some(most)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => {
                let path = self.sources.first().map(|source| source.path.clone()).unwrap_or_default();
                Err(Error::os(errno, Op::Wait, path))
            }
        }
    }

    /// Reads all of it, which also arms the events again.
    fn look(&self) -> Result<State> {
        let mut state = State { counts: self.state.counts.clone(), v1_ooms: 0, ..State::default() };
        for Source { fd, path, kind } in &self.sources {
            let mut buffer = buffer();
            let read = match kind {
                Kind::Eventfd => retry_on_intr(|| rustix::io::read(fd, &mut buffer[..])),
                Kind::Above => drain(fd, &mut buffer),
                _ => retry_on_intr(|| rustix::io::pread(fd, &mut buffer[..], 0)),
            };
            let text = match read {
                Ok(n) => buffer.get(..n).unwrap_or_default(),
                Err(Errno::AGAIN) => continue,
                Err(errno) => return Err(Error::os(errno, Op::Read, path)),
            };
            match kind {
                Kind::Cgroup => {
                    state.populated = text::field(text, "populated").map(|value| value != 0);
                    state.frozen = text::field(text, "frozen").map(|value| value != 0);
                }
                Kind::Counts(read) => {
                    read(&mut state.counts, text).ok_or_else(|| Error::new(ErrorKind::Malformed, Op::Read, path))?;
                }
                Kind::Eventfd => {
                    let count: Option<[u8; 8]> = text.try_into().ok();
                    state.v1_ooms = count.map_or(0, u64::from_ne_bytes);
                }
                Kind::Above => {}
            }
        }
        // After what tells of the end was taken away: what comes now tells again.
        match self.dir.as_ref().filter(|dir| !dir.is_alive()) {
            Some(dir) => Err(Error::new(ErrorKind::Gone, Op::Watch, dir.path())),
            None => Ok(state),
        }
    }
}

/// Takes everything away, or who is told of changes only would not be told of the next one.
fn drain(fd: &OwnedFd, buffer: &mut Buffer) -> std::result::Result<usize, Errno> {
    loop {
        match retry_on_intr(|| rustix::io::read(fd, &mut buffer[..])) {
            Err(Errno::AGAIN) => return Ok(0),
            read => read?,
        };
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

type Make = fn(u64) -> Event;

/// What must have happened between two looks.
fn compare(before: &State, now: &State, found: &mut Vec<Event>) {
    let none = MemoryEvents::default();
    let memory = |state: &State| state.counts.memory.as_ref().map_or_else(|| none.clone(), |m| m.events.clone());
    let (old, new) = (memory(before), memory(now));
    let pids = |state: &State| state.counts.pids.as_ref().and_then(|pids| pids.events_max);
    let v1_ooms = Some(now.v1_ooms).filter(|count| *count > 0);
    let counts: [(_, _, Make); 8] = [
        (old.low, new.low, Event::MemoryLow),
        (old.high, new.high, Event::MemoryHigh),
        (old.max, new.max, Event::MemoryMax),
        (Some(0), v1_ooms, Event::Oom),
        (old.oom, new.oom, Event::Oom),
        (old.oom_kill, new.oom_kill, Event::OomKill),
        (old.oom_group_kill, new.oom_group_kill, Event::OomGroupKill),
        (pids(before), pids(now), Event::PidsMax),
    ];
    for (old, new, event) in counts {
        let more = new.unwrap_or(0).saturating_sub(old.unwrap_or(0));
        found.extend((more > 0).then(|| event(more)));
    }
    if now.frozen != before.frozen {
        found.extend(now.frozen.map(Event::Frozen));
    }
    // The last: why it is empty has been told.
    if now.populated != before.populated {
        found.extend(now.populated.map(Event::Populated));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_process_goes_after_what_ended_it() {
        let (mut before, mut now) = (State::default(), State::default());
        (before.populated, before.frozen, now.populated, now.frozen) =
            (Some(true), Some(false), Some(false), Some(false));
        memory::v2_events(&mut before.counts, b"low 0\nhigh 2\nmax 5\noom 0\noom_kill 0\n").unwrap();
        memory::v2_events(&mut now.counts, b"low 0\nhigh 2\nmax 9\noom 1\noom_kill 2\n").unwrap();
        let mut found = Vec::new();
        compare(&before, &now, &mut found);
        assert_eq!(found, [Event::MemoryMax(4), Event::Oom(1), Event::OomKill(2), Event::Populated(false)]);
        found.clear();
        compare(&now, &now, &mut found);
        assert_eq!(found, []);
    }
}

//! Stopping everything in a cgroup for a while.

use std::time::Duration;

use crate::cgroup::Cgroup;
use crate::controllers::Subsystems;
use crate::dir::buffer;
use crate::error::{ErrorKind, Op, Result, gone_is_fine};
use crate::kill::{ROUND, all_processes, for_each_below, own_ids};
use crate::layout::Version;
use crate::member::Member;
use crate::text;
use crate::wait::{Deadline, LOOK_AGAIN, wait_for_event};

impl Cgroup {
    /// Stops every process in this cgroup and below it, forks in progress included, and waits until they have
    /// stopped, at most for `timeout`. They do not notice, except that time goes by; a signal reaches them when they
    /// are thawed, on v2 `SIGKILL` at once. What was frozen before stays so. New processes that enter are stopped too.
    /// Blocks.
    ///
    /// By `cgroup.freeze` in a unified tree, by v1's `freezer.state` otherwise, of a cgroup that has
    /// [`Controllers::FREEZER`](crate::Controllers::FREEZER).
    ///
    /// # Errors
    /// Nothing is left frozen that was not before. [`ErrorKind::TimedOut`], for example for a process in an
    /// uninterruptible wait; [`ErrorKind::Gone`]; [`ErrorKind::PermissionDenied`]; [`ErrorKind::InvalidInput`] if the
    /// caller itself is in it; [`ErrorKind::ControllerUnavailable`] without a freezer (v1).
    pub fn freeze(&self, timeout: Duration) -> Result<()> {
        let member = self.freezer()?;
        let inside = all_processes(&[member])?;
        if self.is_own() || own_ids().any(|id| inside.contains(&id)) {
            return Err(self.refused(Op::Freeze));
        }
        let deadline = Deadline::after(timeout);
        let was_frozen = is_self_frozen(member)?;
        let frozen = match member.version() {
            Version::V1 => freeze_v1(member, deadline).and_then(|is_frozen| {
                if is_frozen { Ok(()) } else { Err(self.error(ErrorKind::TimedOut, Op::Freeze)) }
            }),
            Version::V2 => (member.dir.write("cgroup.freeze", "1"))
                .and_then(|()| wait_for_event(&member.dir, "frozen", 1, deadline)),
        };
        frozen.inspect_err(|_| {
            if !was_frozen {
                // The first error tells more.
                let _ = write(member, false);
            }
        })
    }

    /// Lets what was [frozen](Self::freeze) run again, and waits until it does, at most for `timeout`. Nothing happens
    /// if it was not frozen. Cgroups below that were frozen by themselves stay so. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`]: a cgroup above is frozen; otherwise as for [`freeze`](Self::freeze).
    pub fn thaw(&self, timeout: Duration) -> Result<()> {
        let member = self.freezer()?;
        let deadline = Deadline::after(timeout);
        write(member, false)?;
        let note = "perhaps a cgroup above is frozen";
        match member.version() {
            Version::V2 => wait_for_event(&member.dir, "frozen", 0, deadline).map_err(|error| error.with_note(note)),
            Version::V1 => {
                let mut buffer = buffer();
                while member.dir.read("freezer.state", &mut buffer)? != b"THAWED\n" {
                    if deadline.has_passed() {
                        return Err(self.error(ErrorKind::TimedOut, Op::Freeze).with_note(note));
                    }
                    std::thread::sleep(LOOK_AGAIN);
                }
                Ok(())
            }
        }
    }

    /// Whether everything in it has stopped, by itself or because a cgroup above is frozen.
    ///
    /// # Errors
    /// As for [`freeze`](Self::freeze).
    pub fn is_frozen(&self) -> Result<bool> {
        let member = self.freezer()?;
        let mut buffer = buffer();
        match member.version() {
            Version::V1 => Ok(member.dir.read("freezer.state", &mut buffer)? == b"FROZEN\n"),
            Version::V2 => Ok(text::field(member.dir.read("cgroup.events", &mut buffer)?, "frozen") == Some(1)),
        }
    }

    fn freezer(&self) -> Result<&Member> {
        let unified = self.members().last().filter(|member| member.version() == Version::V2);
        unified.map_or_else(|| self.governing(Subsystems::FREEZER), Ok)
    }
}

/// Whether it was told to be frozen, as opposed to a cgroup above it.
fn is_self_frozen(member: &Member) -> Result<bool> {
    let file = match member.version() {
        Version::V1 => "freezer.self_freezing",
        Version::V2 => "cgroup.freeze",
    };
    let mut buffer = buffer();
    Ok(text::number(member.dir.read(file, &mut buffer)?) == Some(1))
}

/// v1: processes that fork keep it in "FREEZING" until it is told again, and some get there only if the others run
/// for a moment.
fn freeze_v1(member: &Member, deadline: Deadline) -> Result<bool> {
    for round in 1u32.. {
        member.dir.write("freezer.state", "FROZEN")?;
        if is_frozen(member)? {
            return Ok(true);
        }
        if deadline.has_passed() {
            break;
        }
        if round % 50 == 0 {
            member.dir.write("freezer.state", "THAWED")?;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(false)
}

fn write(member: &Member, on: bool) -> Result<()> {
    let (file, text) = freezer(member, on);
    member.dir.write(file, text)
}

/// The directories that can be frozen.
fn freezers<'a>(members: &'a [&'a Member]) -> impl Iterator<Item = &'a Member> {
    let can = |member: &&Member| match member.version() {
        Version::V1 => member.subsystems.contains(Subsystems::FREEZER),
        Version::V2 => true,
    };
    members.iter().copied().filter(can)
}

/// Stops forking, where there is a freezer: for a while at most, and for a part at worst. What escapes is caught in
/// the next round.
pub(crate) fn freeze(members: &[&Member], deadline: Deadline) -> Result<()> {
    let until = deadline.at_most(ROUND);
    for member in freezers(members) {
        loop {
            match gone_is_fine(write(member, true)) {
                Ok(()) if is_frozen(member)? => break,
                // v1: processes that fork keep it in "FREEZING" until it is told again.
                Ok(()) if !until.has_passed() => std::thread::sleep(LOOK_AGAIN),
                result => break result?,
            }
        }
    }
    Ok(())
}

/// Also what had been frozen below before: on v1 a frozen process does not even die.
pub(crate) fn thaw(members: &[&Member]) -> Result<()> {
    let mut result = Ok(());
    for member in freezers(members) {
        let (file, text) = freezer(member, false);
        // All of them, also after one that cannot be thawed.
        let mut first = Ok(());
        let walked = for_each_below(&member.dir, |dir| {
            let thawed = gone_is_fine(dir.write(file, text));
            first = std::mem::replace(&mut first, Ok(())).and(thawed);
            Ok(())
        });
        result = result.and(first).and(walked);
    }
    result
}

/// The file of a freezer, and what to write.
fn freezer(member: &Member, on: bool) -> (&'static str, &'static str) {
    match (member.version(), on) {
        (Version::V1, true) => ("freezer.state", "FROZEN"),
        (Version::V1, false) => ("freezer.state", "THAWED"),
        (Version::V2, true) => ("cgroup.freeze", "1"),
        (Version::V2, false) => ("cgroup.freeze", "0"),
    }
}

/// Whether there is nothing more to wait for: also where the cgroup is gone.
fn is_frozen(member: &Member) -> Result<bool> {
    let mut buffer = buffer();
    let frozen = match member.version() {
        Version::V1 => (member.dir.read_if_there("freezer.state", &mut buffer))
            .map(|text| text.is_none_or(|text| text == b"FROZEN\n")),
        Version::V2 => (member.dir.read_if_there("cgroup.events", &mut buffer))
            .map(|text| text.is_none_or(|text| text::field(text, "frozen") != Some(0))),
    };
    match frozen {
        Err(error) if error.is_gone() => Ok(true),
        frozen => frozen,
    }
}

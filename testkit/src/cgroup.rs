//! The cgroups that the guard makes for a test: a private subtree in each hierarchy that the test
//! declared a need of. The library under test has its own, far more careful, code for this.
//!
//! On v1 a library makes a cgroup *below* its own, on v2 *beside* its own. So that both land in the
//! private subtree, the test sits in `OWN/cofferdam-test-X` on v1, and on v2 in
//! `PARENT/cofferdam-test-X/leaf`, where PARENT is the cgroup above our own (which has processes,
//! and therefore cannot have controllers for its children), or the root.

use std::fmt;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::need::{Need, read};

/// Which versions of cgroups have controllers on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Only v1 hierarchies.
    V1,
    /// Only the unified hierarchy.
    V2,
    /// Both are mounted.
    Hybrid,
}

impl Layout {
    /// Looks at what is mounted.
    ///
    /// # Errors
    /// Nothing is, or `/proc` cannot be read.
    pub fn of_this_machine() -> Result<Self, String> {
        let all = Hierarchy::mounted()?;
        match (all.iter().any(|h| h.v2), all.iter().any(|h| !h.v2)) {
            (true, false) => Ok(Self::V2),
            (false, true) => Ok(Self::V1),
            (true, true) => Ok(Self::Hybrid),
            (false, false) => Err("no cgroup hierarchy is mounted".into()),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "cgroup v1 only",
            Self::V2 => "cgroup v2 only",
            Self::Hybrid => "cgroup v1 and v2 (hybrid)",
        })
    }
}

/// A mounted hierarchy.
#[derive(Debug)]
struct Hierarchy {
    v2: bool,
    /// v1: the super block's options, controllers among them.
    options: Vec<String>,
    /// Where it is mounted.
    top: PathBuf,
    /// This process's own cgroup.
    own: PathBuf,
}

impl Hierarchy {
    fn mounted() -> Result<Vec<Self>, String> {
        let (mounts, own) = (read("/proc/self/mountinfo")?, read("/proc/self/cgroup")?);
        let mut found: Vec<Self> = Vec::new();
        for one in mounts.lines().filter_map(|mount| Self::parse(mount, &own)) {
            if !found.iter().any(|h| h.v2 == one.v2 && h.options == one.options) {
                found.push(one);
            }
        }
        Ok(found)
    }

    /// `36 35 0:30 /root /mount/point rw ... - cgroup cgroup rw,cpu`, and the lines of
    /// `/proc/self/cgroup`: `1:cpu:/own` for v1, `0::/own` for v2.
    fn parse(mount: &str, cgroups: &str) -> Option<Self> {
        let (left, right) = mount.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, top) = (left.next()?, PathBuf::from(left.next()?));
        let (kind, rest) = right.split_once(' ')?;
        let v2 = match kind {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        let options: Vec<String> = rest.rsplit(' ').next()?.split(',').map(str::to_owned).collect();
        let own = cgroups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let ours = if v2 {
                controllers.is_empty()
            } else {
                controllers.split(',').all(|c| options.iter().any(|o| o == c)) && !controllers.is_empty()
            };
            ours.then_some(path)
        })?;
        let own = top.join(Path::new(own).strip_prefix(root).ok()?);
        Some(Self { v2, options, top, own })
    }

    fn has(&self, controller: &str) -> bool {
        if self.v2 {
            let list = fs::read_to_string(self.top.join("cgroup.controllers")).unwrap_or_default();
            list.split_whitespace().any(|c| c == controller)
        } else {
            self.options.iter().any(|o| o == controller)
        }
    }
}

/// The private subtrees of one test.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// What was made, one folder for each hierarchy.
    tops: Vec<PathBuf>,
    /// Where the test goes.
    homes: Vec<PathBuf>,
}

impl Groups {
    /// Makes the cgroups that these needs ask for.
    pub(crate) fn make(needs: &[Need]) -> Result<Self, String> {
        let mut groups = Self::default();
        let made = needs.iter().try_for_each(|need| groups.add(*need));
        if let Err(why) = made {
            groups.remove()?;
            return Err(why);
        }
        Ok(groups)
    }

    fn add(&mut self, need: Need) -> Result<(), String> {
        let (controller, version) = match need {
            Need::Cgroup(c) => (c, None),
            Need::CgroupV1(c) => (c, Some(false)),
            Need::CgroupV2(c) => (c, Some(true)),
            Need::CgroupV2Tree => ("", Some(true)),
            _ => return Ok(()),
        };
        let all = Hierarchy::mounted()?;
        let fits = |h: &&Hierarchy| version.is_none_or(|v2| h.v2 == v2) && (controller.is_empty() || h.has(controller));
        let one = all.iter().find(fits).ok_or("no such hierarchy is mounted")?;
        if one.v2 { self.add_v2(one, controller) } else { self.add_v1(one) }
    }

    fn add_v1(&mut self, hierarchy: &Hierarchy) -> Result<(), String> {
        if self.tops.iter().any(|top| top.parent() == Some(&hierarchy.own)) {
            return Ok(());
        }
        let top = hierarchy.own.join(fresh_name());
        create(&top)?;
        self.tops.push(top.clone());
        // A new cpuset has no CPU and no memory node, and takes no process in that state.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if top.join(file).exists() {
                write(&top.join(file), read(hierarchy.own.join(file))?.trim())?;
            }
        }
        self.homes.push(top);
        Ok(())
    }

    fn add_v2(&mut self, hierarchy: &Hierarchy, controller: &str) -> Result<(), String> {
        // Only the real root has no cgroup.type, and may have processes and controllers at once.
        let is_root = !hierarchy.own.join("cgroup.type").exists();
        let base = match hierarchy.own.parent() {
            _ if is_root => hierarchy.own.as_path(),
            Some(parent) if parent.starts_with(&hierarchy.top) => parent,
            _ => {
                return Err("our own cgroup is the topmost that we can see, and has processes".into());
            }
        };
        let known = self.tops.iter().find(|top| top.parent() == Some(base)).cloned();
        let top = known.clone().unwrap_or_else(|| base.join(fresh_name()));
        if known.is_none() {
            enable(base, controller)?;
            create(&top)?;
            self.tops.push(top.clone());
            create(&top.join("leaf"))?;
            self.homes.push(top.join("leaf"));
        } else {
            enable(base, controller)?;
        }
        enable(&top, controller)
    }

    /// Moves this process into them.
    pub(crate) fn enter(&self) -> Result<(), String> {
        self.homes.iter().try_for_each(|home| write(&home.join("cgroup.procs"), "0"))
    }

    /// The cgroups that somebody else made inside.
    pub(crate) fn others(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for top in &self.tops {
            walk(top, &mut found);
        }
        found.retain(|dir| !self.tops.contains(dir) && !self.homes.contains(dir));
        found
    }

    /// Thaws what is frozen in them: on v1 a frozen process cannot be killed.
    pub(crate) fn thaw(&self) {
        for dir in self.tops.iter().cloned().chain(self.others()) {
            // Only the freezer's hierarchy has the file.
            let state = fs::OpenOptions::new().write(true).open(dir.join("freezer.state"));
            let _ = state.and_then(|mut file| file.write_all(b"THAWED"));
        }
    }

    /// Removes them and whatever was made inside. No process may be left.
    pub(crate) fn remove(&self) -> Result<(), String> {
        let mut dirs = Vec::new();
        for top in &self.tops {
            walk(top, &mut dirs);
        }
        // A cgroup stays busy for a moment after its last process has been waited for, and nothing
        // that works on v1 and v2 alike tells when it is over.
        let until = Instant::now() + Duration::from_secs(5);
        for dir in dirs {
            while let Err(e) = fs::remove_dir(&dir) {
                if e.kind() == std::io::ErrorKind::NotFound {
                    break;
                }
                if Instant::now() > until {
                    return Err(format!("cannot remove cgroup {}: {e}", dir.display()));
                }
                thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(())
    }
}

/// All cgroups from `dir` down, children before their parents.
fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            walk(&entry.path(), found);
        }
    }
    found.push(dir.to_owned());
}

fn enable(dir: &Path, controller: &str) -> Result<(), String> {
    let file = dir.join("cgroup.subtree_control");
    if controller.is_empty() || read(&file)?.split_whitespace().any(|c| c == controller) {
        return Ok(());
    }
    write(&file, &format!("+{controller}"))
}

/// The error names the parent: it becomes part of what a runner takes for the test's name, which
/// must not change from one run to the next.
fn create(dir: &Path) -> Result<(), String> {
    let parent = dir.parent().unwrap_or(dir);
    fs::create_dir(dir).map_err(|e| format!("cannot make a cgroup in {}: {e}", parent.display()))
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|e| format!("cannot write {text:?} to {}: {e}", file.display()))
}

fn fresh_name() -> String {
    let nanos = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_nanos());
    format!("cofferdam-test-{}-{nanos:x}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cgroup_is_found_through_the_mounts_root() {
        let mount = "36 35 0:30 /docker/a /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct";
        let h = Hierarchy::parse(mount, "4:cpu,cpuacct:/docker/a/b\n0::/\n").unwrap();
        assert!(!h.v2 && h.has("cpuacct"));
        assert_eq!(h.own, Path::new("/sys/fs/cgroup/cpu/b"));
    }

    #[test]
    fn v2_is_the_line_without_controllers() {
        let mount = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        let h = Hierarchy::parse(mount, "1:cpu:/x\n0::/user.slice\n").unwrap();
        assert!(h.v2);
        assert_eq!(h.own, Path::new("/sys/fs/cgroup/unified/user.slice"));
    }

    #[test]
    fn other_file_systems_are_passed_over() {
        assert!(Hierarchy::parse("22 27 0:21 / /proc rw - proc proc rw", "0::/\n").is_none());
    }
}

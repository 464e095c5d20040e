//! Being born in a cgroup, by descriptors alone.

use crate::support::{output_with, program, sh};
use cofferdam_namespaces::{ErrorKind, Fds, Namespaces, Sandbox, Step};
use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A cgroup below the test's own (version 1) or beside it (version 2), removed when dropped.
pub(crate) struct Group(PathBuf);

impl Group {
    /// In the version 1 hierarchy of a controller.
    fn v1(controller: &str) -> Self {
        let (mount, path) =
            own_group(|kind, options, _| kind == "cgroup" && options.split(',').any(|o| o == controller));
        Self::make(&mount.join(path))
    }

    pub(crate) fn v2() -> Self {
        let (mount, path) = own_group(|kind, _, _| kind == "cgroup2");
        let parent = path.parent().expect("the test is in a leaf");
        Self::make(&mount.join(parent))
    }

    /// In the hierarchy that has the pids controller.
    pub(crate) fn any() -> Self {
        let v1 = fs::read_to_string("/proc/self/cgroup").unwrap().contains(":pids:");
        if v1 { Self::v1("pids") } else { Self::v2() }
    }

    fn make(parent: &Path) -> Self {
        let group = Group(parent.join(format!("born-{:?}", std::thread::current().id()).replace(['(', ')'], "")));
        fs::create_dir(&group.0).unwrap();
        group
    }

    pub(crate) fn name(&self) -> &str {
        self.0.file_name().unwrap().to_str().unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Who is in it.
    pub(crate) fn members(&self) -> String {
        fs::read_to_string(self.file("cgroup.procs")).unwrap()
    }

    pub(crate) fn procs(&self) -> OwnedFd {
        OpenOptions::new().write(true).open(self.file("cgroup.procs")).unwrap().into()
    }

    pub(crate) fn directory(&self) -> OwnedFd {
        File::open(&self.0).unwrap().into()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Says, if it fails, that a process is still in it.
        fs::remove_dir(&self.0).unwrap();
    }
}

/// Mount point of a hierarchy and the test's own path in it.
fn own_group(wanted: impl Fn(&str, &str, &str) -> bool) -> (PathBuf, PathBuf) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let (mount, options) = mounts
        .lines()
        .find_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let right: Vec<&str> = right.split(' ').collect();
            let left: Vec<&str> = left.split(' ').collect();
            wanted(right[0], right[2], left[4]).then(|| (PathBuf::from(left[4]), right[2].to_owned()))
        })
        .expect("the hierarchy is mounted");
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let controllers = parts.nth(1)?;
        let here = if controllers.is_empty() {
            !options.contains("rw,") || line.starts_with("0::")
        } else {
            controllers.split(',').all(|c| options.split(',').any(|o| o == c))
        };
        here.then(|| parts.next().unwrap().trim_start_matches('/').to_owned())
    });
    (mount, path.expect("a path in it").into())
}

/// Lines of /proc/self/cgroup, inside.
fn membership(sandbox: Sandbox, entry: Vec<OwnedFd>) -> Vec<String> {
    output_with(sandbox, Fds::new().cgroup(entry)).lines().map(str::to_owned).collect()
}

pub(crate) fn born_in_v1_cgroups() {
    let groups = [Group::v1("cpu"), Group::v1("pids")];
    let entry = || groups.iter().map(Group::procs).collect();
    let show = sh("cat /proc/self/cgroup");
    let inside = membership(show.clone(), entry());
    for group in &groups {
        assert!(inside.iter().any(|line| line.ends_with(group.name())), "{inside:?}");
    }
    // The cgroup namespace is made after they were entered: they are its roots.
    let rooted = membership(show.namespaces(Namespaces::CGROUP), entry());
    for controller in ["cpu", "pids"] {
        let line = rooted.iter().find(|line| line.split(':').nth(1).unwrap().split(',').any(|c| c == controller));
        assert!(line.unwrap().ends_with(":/"), "{rooted:?}");
    }
}

pub(crate) fn born_in_a_v2_cgroup() {
    let group = Group::v2();
    let show = sh("grep ^0: /proc/self/cgroup");
    let inside = membership(show.clone(), vec![group.directory()]);
    assert!(inside[0].ends_with(group.name()), "{inside:?}");
    let rooted = membership(
        show.user(cofferdam_namespaces::IdMap::root()).namespaces(Namespaces::CGROUP),
        vec![group.directory()],
    );
    assert_eq!(rooted, ["0::/"]);
    // By its file, too.
    let inside = membership(sh("grep ^0: /proc/self/cgroup"), vec![group.procs()]);
    assert!(inside[0].ends_with(group.name()), "{inside:?}");
}

pub(crate) fn what_is_no_cgroup_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = |path: &Path| OwnedFd::from(File::open(path).unwrap());
    let writable = |path: &Path| OwnedFd::from(OpenOptions::new().write(true).open(path).unwrap());
    let group = Group::v2();
    let cases = [
        (vec![file(folder.path())], "is a directory, but not of a cgroup2 file system"),
        (vec![file(Path::new("/dev/null"))], "is not a file of a cgroup file system"),
        (vec![file(&group.file("cgroup.procs"))], "is not open for writing"),
        (vec![writable(&group.file("cgroup.max.depth"))], "is not cgroup.procs"),
        (vec![group.directory(), group.directory()], "is a second version 2 cgroup; a process is in one"),
    ];
    for (entry, words) in cases {
        let error = program("/bin/true").spawn_with(Fds::new().cgroup(entry)).unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::InvalidConfig, Step::Configure));
        assert!(error.to_string().ends_with(words), "{error}");
    }
}

/// A cgroup that is gone, or whose file refuses: the step says so, and names the path.
pub(crate) fn a_cgroup_that_is_gone() {
    let group = Group::v2();
    let (directory, procs, path) = (group.directory(), group.procs(), group.0.clone());
    drop(group);
    let spawn = |fd| program("/bin/true").spawn_with(Fds::new().cgroup([fd])).unwrap_err();
    for (error, step) in [(spawn(directory), Step::Clone), (spawn(procs), Step::Cgroup)] {
        assert_eq!((error.step(), error.kind()), (step, ErrorKind::NotFound), "{error}");
        let object = error.object().unwrap().to_str().unwrap();
        assert!(object.starts_with(path.to_str().unwrap()), "{object}");
    }
}

/// The pids controller counts the child itself: the clone is refused.
pub(crate) fn no_room_for_another_process() {
    let group = Group::v2();
    fs::write(group.file("pids.max"), "0").unwrap();
    let error = program("/bin/true").spawn_with(Fds::new().cgroup([group.directory()])).unwrap_err();
    assert_eq!(
        (error.kind(), error.step(), error.raw_os_error()),
        (ErrorKind::LimitReached, Step::Clone, Some(libc::EAGAIN))
    );
    assert!(error.object().unwrap().to_str().unwrap().ends_with(group.0.to_str().unwrap()), "{error}");
}

/// A clone that fails late has noted a descriptor that is none any more by then: it must not be closed, for its number may be another's.
pub(crate) fn a_clone_that_fails_late() {
    let group = Group::any();
    let plan = program("/bin/true").prepare(Fds::new()).unwrap();
    let (mount, own) = own_group(|kind, options, _| match kind {
        "cgroup" => options.split(',').any(|option| option == "pids"),
        kind => kind == "cgroup2" && group.file("cgroup.kill").exists(),
    });
    let home = mount.join(own).join("cgroup.procs");
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    fs::write(group.file("cgroup.procs"), "0").unwrap();
    let before = open();
    let now: u32 = fs::read_to_string(group.file("pids.current")).unwrap().trim().parse().unwrap();
    // Room for the thread that holds, and not for the child.
    fs::write(group.file("pids.max"), (now + 1).to_string()).unwrap();
    let held = plan.hold().map(drop);
    fs::write(group.file("pids.max"), now.to_string()).unwrap();
    let spawned = plan.spawn().map(drop);
    fs::write(group.file("pids.max"), "max").unwrap();
    let after = open();
    fs::write(home, "0").unwrap();
    for error in [held.unwrap_err(), spawned.unwrap_err()] {
        assert_eq!((error.step(), error.system_call()), (Step::Clone, Some("clone3")), "{error}");
        assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "{error}");
    }
    assert_eq!(after, before);
}

/// Too little memory, for the clone, for the program's arguments or for the program. The child shares this program's memory: this program must
/// not be killed along with it. The limits are tried from almost nothing to almost enough; with the last ones the program starts in any case, whatever each
/// CPU keeps of the group's memory for later.
fn starved(group: &Group, limit_file: &str, kills_file: &str, entry: impl Fn() -> Vec<OwnedFd>) {
    // By itself: a process of its own would be in the group for a moment after it.
    let hungry = "a=xxxxxxxxxxxxxxxx; while [ ${#a} -lt 16000000 ]; do a=$a$a; done";
    let hungry = sh(hungry).args(vec!["x".repeat(100_000); 8]);
    for kib in (8..1024).step_by(64).chain([2048, 3072]) {
        fs::write(group.file(limit_file), (kib << 10).to_string()).unwrap();
        match hungry.spawn_with(Fds::new().cgroup(entry())) {
            Ok(child) => {
                child.wait().unwrap();
            }
            Err(error) => {
                // E2BIG is how execve says that there is no memory for the arguments.
                let expected = [libc::ENOMEM, libc::E2BIG].map(Some).contains(&error.raw_os_error());
                assert!(expected || error.signal() == Some(libc::SIGKILL), "{error}");
            }
        }
    }
    let events = fs::read_to_string(group.file(kills_file)).unwrap();
    let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill ")).expect("is counted");
    assert_ne!(kills, "0", "{events}");
}

pub(crate) fn an_oom_kill_spares_the_caller_v1() {
    let group = Group::v1("memory");
    starved(&group, "memory.limit_in_bytes", "memory.oom_control", || vec![group.procs()]);
}

pub(crate) fn an_oom_kill_spares_the_caller_v2() {
    let group = Group::v2();
    starved(&group, "memory.max", "memory.events", || vec![group.directory()]);
}

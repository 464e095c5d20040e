//! The control groups' hierarchies.

use super::Mounts;
use crate::mount::MountFlags;
use crate::{Error, Step};
use std::path::Path;

/// A hierarchy of version 1, as `/proc/self/cgroup` lists it: its controllers, and its name if it has none.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    controllers: Vec<String>,
    name: Option<String>,
}

impl Hierarchy {
    /// As everybody calls the directory on which it is mounted.
    fn directory(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.controllers.join(","))
    }
}

/// Those of version 1, and whether there is version 2.
fn hierarchies(text: &str) -> (Vec<Hierarchy>, bool) {
    let lists = text.lines().filter_map(|line| line.split(':').nth(1));
    let (version_1, version_2): (Vec<&str>, Vec<&str>) = lists.partition(|field| !field.is_empty());
    let parse = |field: &str| {
        let (names, controllers): (Vec<&str>, Vec<&str>) = field.split(',').partition(|one| one.starts_with("name="));
        let name = names.first().and_then(|name| name.strip_prefix("name=")).map(str::to_owned);
        Hierarchy { controllers: controllers.into_iter().map(str::to_owned).collect(), name }
    };
    (version_1.into_iter().map(parse).collect(), !version_2.is_empty())
}

impl Mounts<'_> {
    pub(super) fn cgroup(&mut self, target: &Path, flags: MountFlags) -> Result<(), Error> {
        let path = "/proc/self/cgroup";
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::os(Step::Prepare, "read", error.raw_os_error().unwrap_or(0)).about(path))?;
        let (version_1, version_2) = hierarchies(&text);
        let mount = self.hands.mount;
        if version_1.is_empty() {
            self.create(Step::Mount, target, ("cgroup2", &[]), flags, mount);
            self.attach(target, mount, self.hands.target);
            return Ok(());
        }
        let options = [("mode", "755"), ("size", "64k")];
        self.create(Step::Mount, target, ("tmpfs", &options), flags - MountFlags::READ_ONLY, mount);
        self.attach(target, mount, self.hands.target);
        for hierarchy in &version_1 {
            let directory = hierarchy.directory();
            let object = target.join(&directory);
            self.inside(&object, &directory);
            let mut options: Vec<&str> = hierarchy.controllers.iter().map(String::as_str).collect();
            if options.is_empty() {
                options.push("none");
            }
            self.hierarchy(&object, (&options, hierarchy.name.as_deref()), flags, self.hands.inner);
            self.attach_inside(&object, &directory);
            for controller in hierarchy.controllers.iter().filter(|one| **one != directory) {
                self.link(&target.join(controller), controller, &directory);
            }
        }
        if version_2 {
            let object = target.join("unified");
            self.inside(&object, "unified");
            self.create(Step::Mount, &object, ("cgroup2", &[]), flags, self.hands.inner);
            self.attach_inside(&object, "unified");
        }
        self.seal(target, flags);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hierarchy(controllers: &[&str], name: Option<&str>) -> Hierarchy {
        Hierarchy {
            controllers: controllers.iter().map(|one| (*one).to_owned()).collect(),
            name: name.map(str::to_owned),
        }
    }

    #[test]
    fn both_versions_are_told_apart() {
        assert_eq!(hierarchies("0::/user.slice\n"), (vec![], true));
        let text = "12:cpu,cpuacct:/\n3:name=systemd:/init.scope\n2:net_cls:/a:b\n0::/\n";
        let (version_1, version_2) = hierarchies(text);
        let expected =
            [hierarchy(&["cpu", "cpuacct"], None), hierarchy(&[], Some("systemd")), hierarchy(&["net_cls"], None)];
        assert_eq!((version_1.as_slice(), version_2), (expected.as_slice(), true));
        let names: Vec<String> = version_1.iter().map(Hierarchy::directory).collect();
        assert_eq!(names, ["cpu,cpuacct", "systemd", "net_cls"]);
        assert_eq!(hierarchies("4:memory,name=both:/x\n"), (vec![hierarchy(&["memory"], Some("both"))], false));
    }
}

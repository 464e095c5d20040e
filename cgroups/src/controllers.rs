//! Which controllers a caller may ask for, and which of the kernel's subsystems that means.

use bitflags::bitflags;

bitflags! {
    /// The controllers that a cgroup is made with.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Controllers: u32 {
        /// CPU time: quota, weight and accounting. On v1 both `cpu` and `cpuacct`.
        const CPU = 1;
        /// The number of processes and threads.
        const PIDS = 1 << 1;
        /// Memory, and swap where the kernel counts it.
        const MEMORY = 1 << 2;
    }
}

bitflags! {
    /// The kernel's own subsystems, as far as we use them.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub(crate) struct Subsystems: u32 {
        const CPU = 1;
        const CPUACCT = 1 << 1;
        const PIDS = 1 << 2;
        const FREEZER = 1 << 3;
        /// Never asked for; but where it is co-mounted, a new cgroup must be filled in before it can be entered.
        const CPUSET = 1 << 4;
        const MEMORY = 1 << 5;
    }
}

const NAMES: [(Subsystems, &str); 6] = [
    (Subsystems::CPU, "cpu"),
    (Subsystems::CPUACCT, "cpuacct"),
    (Subsystems::PIDS, "pids"),
    (Subsystems::FREEZER, "freezer"),
    (Subsystems::CPUSET, "cpuset"),
    (Subsystems::MEMORY, "memory"),
];

impl Subsystems {
    /// The subsystems in a list of the kernel's names. Names that we do not know are left out.
    pub(crate) fn named<'a>(names: impl Iterator<Item = &'a [u8]>) -> Self {
        names
            .filter_map(|name| NAMES.iter().find(|(_, known)| known.as_bytes() == name))
            .map(|(subsystem, _)| *subsystem)
            .collect()
    }

    /// The kernel's names, for example `cpu`.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().filter(move |(subsystem, _)| self.contains(*subsystem)).map(|(_, name)| *name)
    }

    /// For `cgroup.subtree_control`: `+cpu +pids`, with the sign given.
    pub(crate) fn signed(self, sign: char) -> String {
        let mut text = String::new();
        for name in self.names() {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push(sign);
            text.push_str(name);
        }
        text
    }
}

impl From<Controllers> for Subsystems {
    /// What must be there. `cpuacct` is taken along on v1 where it is.
    fn from(controllers: Controllers) -> Self {
        let mut subsystems = Subsystems::empty();
        subsystems.set(Subsystems::CPU, controllers.contains(Controllers::CPU));
        subsystems.set(Subsystems::PIDS, controllers.contains(Controllers::PIDS));
        subsystems.set(Subsystems::MEMORY, controllers.contains(Controllers::MEMORY));
        subsystems
    }
}

impl From<Subsystems> for Controllers {
    fn from(subsystems: Subsystems) -> Self {
        let mut controllers = Controllers::empty();
        controllers.set(Controllers::CPU, subsystems.contains(Subsystems::CPU));
        controllers.set(Controllers::PIDS, subsystems.contains(Subsystems::PIDS));
        controllers.set(Controllers::MEMORY, subsystems.contains(Subsystems::MEMORY));
        controllers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_both_ways() {
        let set = Subsystems::named(b"cpu,net_cls,pids".split(|b| *b == b','));
        assert_eq!(set, Subsystems::CPU | Subsystems::PIDS);
        assert_eq!(set.signed('+'), "+cpu +pids");
        assert_eq!(Subsystems::empty().signed('+'), "");
    }
}

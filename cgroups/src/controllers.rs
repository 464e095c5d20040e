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
        /// CPUs and memory nodes.
        const CPUSET = 1 << 3;
        /// Block devices. On v1 `blkio`.
        const IO = 1 << 4;
        /// Huge pages.
        const HUGETLB = 1 << 5;
        /// RDMA devices.
        const RDMA = 1 << 6;
        /// Other countable resources. v2 only.
        const MISC = 1 << 7;
        /// The class of network packets. v1 only.
        const NET_CLS = 1 << 8;
        /// The priority of network packets. v1 only.
        const NET_PRIO = 1 << 9;
        /// Events of `perf_event_open(2)`. v2 always has it.
        const PERF_EVENT = 1 << 10;
        /// Stopping for a while. v2 always has it, and so has a hybrid, in its unified tree.
        const FREEZER = 1 << 11;
        /// Access to device nodes. On v2 always there, for who may load eBPF programs.
        const DEVICES = 1 << 12;
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
        const CPUSET = 1 << 4;
        const MEMORY = 1 << 5;
        const IO = 1 << 6;
        const HUGETLB = 1 << 7;
        const RDMA = 1 << 8;
        const MISC = 1 << 9;
        const NET_CLS = 1 << 10;
        const NET_PRIO = 1 << 11;
        const PERF_EVENT = 1 << 12;
        const DEVICES = 1 << 13;
    }
}

/// The kernel's name, and what callers call it. `cpuacct` is taken along on v1 where it is.
const NAMES: [(Subsystems, &str, Controllers); 14] = [
    (Subsystems::CPU, "cpu", Controllers::CPU),
    (Subsystems::CPUACCT, "cpuacct", Controllers::empty()),
    (Subsystems::PIDS, "pids", Controllers::PIDS),
    (Subsystems::FREEZER, "freezer", Controllers::FREEZER),
    (Subsystems::CPUSET, "cpuset", Controllers::CPUSET),
    (Subsystems::MEMORY, "memory", Controllers::MEMORY),
    (Subsystems::IO, "io", Controllers::IO),
    (Subsystems::HUGETLB, "hugetlb", Controllers::HUGETLB),
    (Subsystems::RDMA, "rdma", Controllers::RDMA),
    (Subsystems::MISC, "misc", Controllers::MISC),
    (Subsystems::NET_CLS, "net_cls", Controllers::NET_CLS),
    (Subsystems::NET_PRIO, "net_prio", Controllers::NET_PRIO),
    (Subsystems::PERF_EVENT, "perf_event", Controllers::PERF_EVENT),
    (Subsystems::DEVICES, "devices", Controllers::DEVICES),
];

/// v1's name of [`Subsystems::IO`].
const BLKIO: &[u8] = b"blkio";

impl Subsystems {
    /// What every cgroup of v2 has, without being asked.
    pub(crate) const IMPLICIT: Subsystems =
        Subsystems::FREEZER.union(Subsystems::PERF_EVENT).union(Subsystems::DEVICES);

    /// What a threaded cgroup of v2 can have too. Only with nothing but these does the kernel let a process into a cgroup
    /// that has controllers on for its children. (It has `perf_event` besides, which is never on or off.)
    pub(crate) const THREADED: Subsystems = Subsystems::CPU.union(Subsystems::CPUSET).union(Subsystems::PIDS);

    /// What no threaded cgroup of v2 can have, nor one that has threaded children: where these are on for the children of a
    /// cgroup, its children are domains.
    pub(crate) const OF_DOMAINS: Subsystems = Subsystems::MEMORY
        .union(Subsystems::IO)
        .union(Subsystems::HUGETLB)
        .union(Subsystems::RDMA)
        .union(Subsystems::MISC);

    /// The subsystems in a list of the kernel's names. Names that we do not know are left out.
    pub(crate) fn named<'a>(names: impl Iterator<Item = &'a [u8]>) -> Self {
        let known = |name: &[u8]| match name {
            BLKIO => Some(Subsystems::IO),
            name => NAMES.iter().find(|(_, known, _)| known.as_bytes() == name).map(|(subsystem, ..)| *subsystem),
        };
        names.filter_map(known).collect()
    }

    /// The kernel's names, for example `cpu`.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().filter(move |(subsystem, ..)| self.contains(*subsystem)).map(|(_, name, _)| *name)
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
    /// What must be there.
    fn from(controllers: Controllers) -> Self {
        let asked = |(_, _, public): &&(_, _, Controllers)| !public.is_empty() && controllers.contains(*public);
        NAMES.iter().filter(asked).map(|(subsystem, ..)| *subsystem).collect()
    }
}

impl From<Subsystems> for Controllers {
    fn from(subsystems: Subsystems) -> Self {
        let there = NAMES.iter().filter(|(subsystem, ..)| subsystems.contains(*subsystem));
        there.map(|(_, _, controller)| *controller).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_both_ways() {
        let set = Subsystems::named(b"cpu,name=systemd,pids,blkio".split(|b| *b == b','));
        assert_eq!(set, Subsystems::CPU | Subsystems::PIDS | Subsystems::IO);
        assert_eq!(set.signed('+'), "+cpu +pids +io");
        assert_eq!(Subsystems::empty().signed('+'), "");
    }

    #[test]
    fn every_controller_is_a_subsystem() {
        for controller in Controllers::all().iter() {
            let subsystems = Subsystems::from(controller);
            assert_eq!(subsystems.iter().count(), 1);
            assert_eq!(Controllers::from(subsystems), controller);
        }
        assert_eq!(Controllers::from(Subsystems::all()), Controllers::all());
    }
}

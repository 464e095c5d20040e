//! What is spawned: into which namespaces, and whether into a root of its own.

use cofferdam_namespaces::Namespaces;

/// The host name inside a uts namespace.
pub(super) const HOSTNAME: &std::ffi::CStr = c"bench";

/// What is spawned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Namespaces of its own. With `USER` it is root there, with `UTS` it has a host name, with `PID` and `MOUNT` a fresh `/proc`.
    pub namespaces: Namespaces,
    /// Whether it changes into a root of its own, with a small `/dev`.
    pub root: bool,
}

impl Shape {
    /// A process in the caller's namespaces.
    pub const PLAIN: Shape = Shape { namespaces: Namespaces::empty(), root: false };
    /// Root for whoever starts it, alone: on the host's files.
    pub const SIX: Shape = Shape { namespaces: Self::ALL.namespaces.difference(Namespaces::CGROUP), root: false };
    /// All that a clone can make: a time namespace is entered by the program.
    pub const ALL: Shape = Shape { namespaces: Namespaces::all().difference(Namespaces::TIME), root: false };
    /// A container that has the host's network.
    pub const ROOT: Shape = Shape {
        namespaces: Namespaces::PID.union(Namespaces::MOUNT).union(Namespaces::UTS).union(Namespaces::IPC),
        root: true,
    };
    /// A container as engines make it.
    pub const ROOT_NET: Shape = Shape { namespaces: Self::ROOT.namespaces.union(Namespaces::NET), root: true };
    /// A container whose root is nobody outside.
    pub const ROOT_USER: Shape = Shape { namespaces: Self::SIX.namespaces, root: true };

    /// One namespace each.
    pub fn each() -> impl Iterator<Item = Shape> {
        Self::ALL.namespaces.iter().map(|namespaces| Shape { namespaces, root: false })
    }

    pub(crate) fn name(self) -> String {
        let names: Vec<String> = self.namespaces.iter_names().map(|(name, _)| name.to_lowercase()).collect();
        let root = if self.root { "rootfs, " } else { "" };
        match names.as_slice() {
            [] => format!("{root}no namespaces"),
            [one] => format!("{root}{one} namespace"),
            many => format!("{root}{} namespaces", many.len()),
        }
    }

    pub(super) fn has(self, namespaces: Namespaces) -> bool {
        self.namespaces.contains(namespaces)
    }

    /// Whether it sees itself as its own first process.
    pub(super) fn has_proc(self) -> bool {
        self.has(Namespaces::PID | Namespaces::MOUNT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_it_is() {
        assert_eq!(Shape::PLAIN.name(), "no namespaces");
        assert_eq!(Shape::SIX.name(), "6 namespaces");
        assert_eq!(Shape::ROOT.name(), "rootfs, 4 namespaces");
        let each: Vec<String> = Shape::each().map(Shape::name).collect();
        assert_eq!(each.len(), 7);
        assert!(each.contains(&"uts namespace".to_owned()), "{each:?}");
    }
}

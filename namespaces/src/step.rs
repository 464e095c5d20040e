//! The steps of a spawn, by which errors say where it stopped.

use std::fmt;

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident $side:ident $words:literal,)*) => {
        /// One step on the way from a [`Sandbox`](crate::Sandbox) to the end of its process.
        ///
        /// [`Error::step`](crate::Error::step) says at which one something failed; [`Plan::explain`](crate::Plan::explain) shows
        /// the system calls of those that the child takes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Step {
            $($(#[$doc])* $name,)*
        }

        impl Step {
            /// All steps, in the order in which they are taken.
            pub const ALL: &'static [Step] = &[$(Step::$name,)*];

            /// Whether the child takes this step, between its birth and the program's start.
            #[must_use]
            pub fn in_child(self) -> bool {
                match self {
                    $(Step::$name => steps!(@$side),)*
                }
            }

            fn words(self) -> &'static str {
                match self {
                    $(Step::$name => $words,)*
                }
            }
        }
    };
    (@caller) => { false };
    (@child) => { true };
}

steps! {
    /// Checking the configuration. Nothing has been done yet.
    Configure caller "check the configuration",
    /// Opening what the plan needs: `/dev/null`, a pidfd of the caller.
    Prepare caller "prepare",
    /// Looking at the process whose namespaces are to be joined.
    Target caller "look at the target",
    /// Making the pipes for the child's standard streams.
    Pipe caller "make a pipe",
    /// Opening a terminal, or receiving it.
    Terminal caller "open a terminal",
    /// Getting memory for a copy of the caller: a page that both share, a stack for a closure.
    Memory caller "get memory for the child",
    /// Holding back signals around the clone.
    BlockSignals caller "hold back signals",
    /// The clone itself, with its namespaces and its version 2 cgroup.
    Clone caller "clone",
    /// Going into the namespaces of others, and being born there.
    Join child "join the namespaces",
    /// Asking for a signal at the parent's death.
    ParentDeath child "die with the parent",
    /// Marking every descriptor to be closed at the program's start.
    CloseDescriptors child "close descriptors",
    /// Entering version 1 cgroups.
    Cgroup child "enter the cgroup",
    /// A cgroup namespace rooted at the version 1 cgroups just entered.
    CgroupNamespace child "make a cgroup namespace",
    /// Saying how soon it is killed when memory is short.
    OomScore child "set the oom score",
    /// Saying which label of a security module the program gets.
    Label child "set the label",
    /// Making a time namespace and setting its clocks.
    Time child "set the clocks",
    /// Joining a user namespace that is there.
    JoinUser child "join the user namespace",
    /// Writing the user namespace's id maps, or waiting for the caller to do it; then being root inside.
    IdMap child "map ids",
    /// Making the other namespaces in a user namespace that was joined.
    Unshare child "make namespaces",
    /// Writing settings of the new namespaces.
    Sysctl child "write a sysctl",
    /// Making all mounts private, so that none propagates to the host.
    Propagation child "make mounts private",
    /// Attaching the new root.
    Root child "attach the root",
    /// Mounting.
    Mount child "mount",
    /// Waiting for [`Creating::finish`](crate::Creating::finish), if the caller asked for that.
    Creation child "wait to be created",
    /// Changing to the new root and letting the host's go.
    Pivot child "change the root",
    /// Setting the host name.
    Hostname child "set the host name",
    /// Setting the NIS domain name.
    Domainname child "set the domain name",
    /// Putting the standard streams in place.
    Stdio child "connect the standard streams",
    /// Making a session.
    Session child "make a session",
    /// Limiting resources.
    Limits child "limit resources",
    /// Nice value, scheduling policy, processors, priority of disk access.
    Scheduling child "set the scheduling",
    /// Setting the personality.
    Personality child "set the personality",
    /// Dropping from the bounding set of capabilities, which takes the user that the child still is.
    BoundingSet child "limit capabilities",
    /// Changing to the program's user and groups.
    Credentials child "change the user",
    /// Setting the other sets of capabilities; the last time behind the filters, if those take one.
    Capabilities child "set capabilities",
    /// Saying what being user 0 means for capabilities.
    SecureBits child "set the securebits",
    /// Joining a new session keyring.
    Keyring child "join a new keyring",
    /// Setting the file mode creation mask.
    Umask child "set the umask",
    /// Changing into the working directory.
    WorkingDirectory child "change into the working directory",
    /// Giving up new privileges.
    NoNewPrivs child "give up new privileges",
    /// Restricting itself by a Landlock ruleset.
    Landlock child "restrict by landlock",
    /// Waiting for [`Held::release`](crate::Held::release), if the child is held.
    Hold child "wait for the release",
    /// Keeping a copy of the caller's memory out of core dumps, and out of sight, until the program starts.
    Hide child "hide the caller's memory",
    /// Signals as a new program expects them: nothing blocked, SIGPIPE not ignored.
    Signals child "reset signals",
    /// Closing every descriptor but the standard streams: nothing of the caller's is open when the kernel looks for the program.
    LetGo child "let go of descriptors",
    /// Installing a filter of system calls.
    Seccomp child "install a seccomp filter",
    /// Starting the init, which then is process 1 and starts the program.
    Init child "start the init",
    /// Starting the program.
    Exec child "start the program",
    /// Waiting at a path for the release, or releasing by it.
    Release caller "release by a path",
    /// Running a hook.
    Hook caller "run a hook",
    /// Opening one of its namespaces.
    Namespace caller "open a namespace",
    /// Listing namespaces.
    List caller "list namespaces",
    /// Running code in a [`Scope`](crate::Scope).
    Scope caller "work in the scope",
    /// Answering for the kernel: the listener of a seccomp filter.
    Supervise caller "answer for the kernel",
    /// Waiting for the process.
    Wait caller "wait",
    /// Sending it a signal.
    Signal caller "send a signal",
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

#[cfg(test)]
mod tests {
    use super::Step;

    #[test]
    fn the_child_takes_its_steps_in_one_run() {
        let sides: Vec<bool> = Step::ALL.iter().map(|s| s.in_child()).collect();
        let changes = sides.windows(2).filter(|w| w.first() != w.last()).count();
        assert_eq!(changes, 2, "caller, child, caller");
    }
}

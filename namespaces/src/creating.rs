//! A sandbox that is being created: its namespaces and mounts are there, its root is still the host's.

use crate::deadline::Deadline;
use crate::inside::{Confined, Inside};
use crate::program::Stops;
use crate::{Engine, Error, Fds, Held, Hook, Namespaces, OciState, Sandbox, held, hook, scope};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A sandbox that is being created, see [`Sandbox::create`].
///
/// Dropping it kills and reaps the child: nothing is left of the sandbox. It also dies with the caller's process.
#[derive(Debug)]
pub struct Creating {
    held: Held,
    inside: Inside,
}

impl Sandbox {
    /// Creates it as an OCI runtime does: in steps, between which hooks run, or code of the caller's.
    ///
    /// | point of OCI's lifecycle | the call of this crate | where a [`Hook`] runs | where its program is looked up | `status` of the [state](OciState) |
    /// |---|---|---|---|---|
    /// | `createRuntime`, `prestart` | [`Creating::create_runtime`] | with the caller | the caller's root | `creating` |
    /// | `createContainer` | [`Creating::create_container`] | in the sandbox's namespaces | the caller's root, among the sandbox's mounts | `creating` |
    /// | (`pivot_root`) | [`Creating::finish`] | | | |
    /// | `startContainer` | [`Held::start_container`] | in the sandbox's namespaces, confined as its program | the sandbox's root | `created` |
    /// | (the program) | [`Held::release`] | | | |
    /// | `poststart` | [`Child::poststart`](crate::Child::poststart) | with the caller | the caller's root | `running` |
    /// | (its end) | [`Child::wait`](crate::Child::wait) | | | |
    /// | `poststop` | [`Child::poststop`](crate::Child::poststop) | with the caller | the caller's root | `stopped` |
    ///
    /// What the caller has to do itself at a point (connect a network at the first, say) it does between the calls: [`Creating::namespace`] and
    /// [`Held::namespace`] give the namespaces. A hook that fails before the program runs is an error, with which the caller drops what it has of the sandbox,
    /// and so ends it. One that fails afterwards is told, and the others run.
    ///
    /// ```no_run
    /// # use cofferdam_namespaces::{Error, Fds, Hook, Mount, Namespaces, OciState, Root, Sandbox};
    /// # use std::time::Duration;
    /// # fn connect(_: std::os::fd::OwnedFd) -> Result<(), Error> { Ok(()) }
    /// let sandbox = Sandbox::new("/bin/server")
    ///     .namespaces(Namespaces::MOUNT | Namespaces::PID | Namespaces::NET)
    ///     .root(Root::directory("/srv/debian"))
    ///     .mount(Mount::proc("/proc"));
    /// let state = OciState::new("web-1", "/srv/bundles/web-1");
    /// let devices = Hook::new("/usr/bin/device-hook").args(["prestart"]).timeout(Duration::from_secs(10));
    /// let loader = Hook::new("/sbin/ldconfig");
    ///
    /// let creating = sandbox.create(Fds::new())?;
    /// connect(creating.namespace(Namespaces::NET)?)?;
    /// creating.create_container(&[devices], &state)?;
    /// let held = creating.finish()?;
    /// held.start_container(&[loader], &state)?;
    /// let child = held.release()?;
    /// let status = child.wait()?;
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// The child is always a [copy](Engine::Copy), and has let go of all descriptors that it does not need; `close_range(2)` has no fallback here.
    ///
    /// # Errors
    /// As [`prepare`](Sandbox::prepare) and [`Plan::hold`](crate::Plan::hold); [`InvalidConfig`](crate::ErrorKind::InvalidConfig) with [`Engine::Shared`], and for a
    /// sandbox that [joins](Sandbox::join) others; `EACCES` where the caller may not look at the child, because it is somebody else now: with a map in which an
    /// ordinary user is not.
    #[doc(alias("hooks", "createRuntime", "createContainer", "startContainer", "oci"))]
    pub fn create(&self, fds: Fds) -> Result<Creating, Error> {
        if self.engine == Some(Engine::Shared) {
            return Err(Error::config("engine", "cannot be Shared, because programs may run in the sandbox meanwhile"));
        }
        if self.join.is_some() {
            return Err(Error::config("join", "is no creation: what is joined is there already"));
        }
        let confined = Confined::of(self, &fds)?;
        let plan = self.prepare(fds)?;
        scope::check(plan.0.parts.apart)?;
        let held = held::hold(&plan.0, Stops::Creation, Deadline::NEVER)?;
        match Inside::of(held.born(), confined) {
            Ok(inside) => Ok(Creating { held, inside }),
            Err(error) => Err(held.cause(error)),
        }
    }
}

impl Creating {
    /// Its process id in the caller's pid namespace.
    #[must_use]
    #[doc(alias = "pid")]
    pub fn id(&self) -> u32 {
        self.held.id()
    }

    /// A descriptor of one of its namespaces. Its time namespace is entered by the program only.
    ///
    /// # Errors
    /// [`InvalidConfig`](crate::ErrorKind::InvalidConfig) unless exactly one is asked for.
    pub fn namespace(&self, which: Namespaces) -> Result<OwnedFd, Error> {
        self.inside.namespace(which)
    }

    /// Runs these hooks one after the other where the caller is.
    ///
    /// # Errors
    /// That of the first that fails: see [`Hook`]. Those behind it are not run.
    #[doc(alias("createRuntime", "prestart"))]
    pub fn create_runtime(&self, hooks: &[Hook], state: &OciState) -> Result<(), Error> {
        let json = state.json("creating", Some(self.id()));
        hooks.iter().try_for_each(|one| hook::run(one, (Sandbox::new(""), Fds::new()), &json))
    }

    /// Runs these hooks one after the other in the sandbox's namespaces, but in the caller's root. A [directory](crate::Root::directory) that will be the sandbox's root is,
    /// with all that is mounted in it, where it is outside, so that what a hook mounts there will be in the sandbox. Any other root, and one with
    /// [`Propagation::Shared`](crate::Propagation::Shared), has no path at which hooks would find it.
    ///
    /// They are the caller's programs, with all capabilities that there are in the sandbox's user namespace, and in the caller's cgroup.
    ///
    /// # Errors
    /// As [`create_runtime`](Creating::create_runtime).
    #[doc(alias = "createContainer")]
    pub fn create_container(&self, hooks: &[Hook], state: &OciState) -> Result<(), Error> {
        let json = state.json("creating", Some(hook::pid_inside(self.id())?));
        hooks.iter().try_for_each(|one| hook::run(one, self.inside.with_the_hosts_root()?, &json))
    }

    /// Lets it change its root, and take all steps but the start of its program.
    ///
    /// # Errors
    /// As [`Plan::hold`](crate::Plan::hold).
    pub fn finish(self) -> Result<Held, Error> {
        let Creating { mut held, inside } = self;
        held.go_on()?;
        held.inside = Some(inside);
        Ok(held)
    }
}

/// The pidfd: readable if it ends meanwhile.
impl AsFd for Creating {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.held.as_fd()
    }
}

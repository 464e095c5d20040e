//! Who is joined: a process that sleeps.

use crate::Result;
use crate::spawn::{Program, Shape, copy_program};
use cofferdam_namespaces::{Child, IdMap, Mount, Namespaces, Root, Sandbox, Stdio};
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// A static program with a shell and `sleep`, for a root that has no other.
const BUSYBOX: &str = "/bin/busybox";

/// It is killed with this.
#[derive(Debug)]
pub(super) struct Target(Child);

impl Target {
    pub(super) fn start(shape: Shape, program: &Program) -> Result<Self> {
        let mut sandbox = if shape.root {
            let copy = program.folder().join("bin/busybox");
            if !copy.exists() {
                copy_program(Path::new(BUSYBOX), &copy)?;
            }
            Sandbox::new(BUSYBOX).args(["sh", "-c", "echo ready; exec /bin/busybox sleep 1000000"])
        } else {
            // Every host has these two.
            Sandbox::new("/bin/sh").args(["-c", "echo ready; exec /bin/sleep 1000000"])
        };
        sandbox = sandbox
            .namespaces(shape.namespaces)
            .hostname("bench")
            .mount(Mount::proc("/proc"))
            .stdin(Stdio::Null)
            .stdout(Stdio::Pipe);
        if shape.namespaces.contains(Namespaces::USER) {
            sandbox = sandbox.user(IdMap::root());
        }
        if shape.root {
            sandbox = sandbox.root(Root::directory(program.folder())).mount(Mount::dev("/dev"));
        }
        let mut child = sandbox.spawn()?;
        let mut line = [0; 6];
        child.stdout.take().ok_or("no pipe")?.read_exact(&mut line)?;
        Ok(Target(child))
    }

    #[cfg(feature = "peers")]
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(super) fn pidfd(&self) -> Result<OwnedFd> {
        Ok(self.0.as_fd().try_clone_to_owned()?)
    }

    /// Its root directory.
    pub(super) fn root(&self) -> Result<OwnedFd> {
        Ok(fs::File::open(format!("/proc/{}/root", self.0.id()))?.into())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // It has ended, or will have.
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

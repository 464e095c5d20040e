//! What several of these tests share.

use cofferdam_namespaces::{Child, Error, Fds, Sandbox, Stdio};
use std::io::Read;

/// A shell script, with the usual programs.
pub(crate) fn sh(script: &str) -> Sandbox {
    Sandbox::new("/bin/sh").args(["-c", script]).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
}

/// What it prints, when it succeeds.
pub(crate) fn output(sandbox: Sandbox) -> String {
    output_with(sandbox, Fds::new())
}

pub(crate) fn output_with(sandbox: Sandbox, fds: Fds) -> String {
    let mut child = sandbox.stdout(Stdio::Pipe).spawn_with(fds).expect("spawns");
    let text = read(&mut child);
    let status = child.wait().expect("is waited for");
    assert!(status.success(), "{status}: {text}");
    text
}

/// Everything that comes from its standard output.
pub(crate) fn read(child: &mut Child) -> String {
    let mut text = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut text).expect("is read");
    text
}

/// Why it does not spawn.
pub(crate) fn refused(sandbox: &Sandbox) -> Error {
    match sandbox.spawn() {
        Ok(child) => {
            child.kill().expect("is killed");
            child.wait().expect("is waited for");
            panic!("spawned, against expectation");
        }
        Err(error) => error,
    }
}

//! The program of a root whose maker wants out: which file it really is.

use crate::attacks::{ANYWHERE, inside_with};
use crate::roots::Busybox;
use crate::support::{output_with, refused};
use cofferdam_namespaces::{Error, ErrorKind, Fds, Mount, Sandbox, Step};
use cofferdam_testkit::fault::weaken;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

fn script(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A program that would be this one, with libraries of the root's choice.
fn hostile(root: &Busybox, name: &str) -> Sandbox {
    let mut sandbox = inside_with(root.path(), name).arg("--list").mount(Mount::proc("/proc"));
    for libraries in ["/lib", "/lib64"] {
        if Path::new(libraries).exists() {
            sandbox = sandbox.mount(Mount::bind(libraries, libraries));
        }
    }
    sandbox
}

/// Starts it, and tells which file it was.
fn started(sandbox: &Sandbox) -> Result<PathBuf, Error> {
    let child = sandbox.spawn()?;
    let file = fs::read_link(format!("/proc/{}/exe", child.id())).unwrap_or_default();
    child.kill().unwrap();
    child.wait().unwrap();
    Ok(file)
}

/// As CVE-2019-5736: until the program is started, `/proc/self/exe` is the host's.
pub(crate) fn a_program_that_is_the_hosts() {
    let (root, ours) = (Busybox::new(), fs::read_link("/proc/self/exe").unwrap());
    symlink("/proc/self/exe", root.path().join("link")).unwrap();
    symlink("/proc/thread-self/exe", root.path().join("bin/thread")).unwrap();
    script(root.path(), "script", "#!/proc/self/exe\n");
    script(root.path(), "spaced", "#! \t /link argument\n");
    script(root.path(), "twice", "#!/script\n");
    for name in ["/link", "/bin/thread", "thread", "/script", "/spaced", "/twice"] {
        let sandbox = hostile(&root, name);
        let error = refused(&sandbox);
        assert_eq!((error.step(), error.raw_os_error()), (Step::Exec, Some(libc::ELOOP)), "{name}: {error}");
        assert_eq!(error.object(), Some(name.as_ref()));
        let (_, escaped) = weaken(ANYWHERE, || started(&sandbox));
        assert_eq!(escaped.unwrap(), ours, "the attack {name} is none");
    }
}

/// What is no attack works as ever: scripts, links, scripts for scripts, and what is not there is looked for elsewhere.
pub(crate) fn scripts_of_a_root() {
    let root = Busybox::new();
    script(root.path(), "hello", "#!/bin/sh -e\necho hello \"$1\"\n");
    symlink("hello", root.path().join("alias")).unwrap();
    script(root.path(), "twice", "#!/hello\n");
    fs::create_dir_all(root.path().join("first/hello")).unwrap();
    for (name, said) in [("/hello", "hello --list\n"), ("/alias", "hello --list\n"), ("/twice", "hello /twice\n")] {
        assert_eq!(output_with(hostile(&root, name), Fds::new()), said, "{name}");
    }
    // In PATH there is a folder of that name before it.
    let searched = hostile(&root, "hello").env("PATH", "/nowhere:/first:/");
    assert_eq!(output_with(searched.clone(), Fds::new()), "hello --list\n");
    script(root.path(), "lost", "#!/nowhere/sh\n");
    let error = refused(&hostile(&root, "/lost"));
    assert_eq!((error.step(), error.kind(), error.system_call()), (Step::Exec, ErrorKind::NotFound, Some("execve")));
    let error = refused(&hostile(&root, "hello").env("PATH", "/nowhere:/first"));
    assert_eq!((error.step(), error.raw_os_error()), (Step::Exec, Some(libc::EACCES)), "{error}");
    for (name, errno) in [("/missing", libc::ENOENT), ("missing", libc::ENOENT), ("/bin", libc::EACCES)] {
        let error = refused(&hostile(&root, name));
        assert_eq!((error.step(), error.raw_os_error()), (Step::Exec, Some(errno)), "{name}: {error}");
    }
    script(root.path(), "endless", "#!/endless\n");
    assert_eq!(refused(&hostile(&root, "/endless")).raw_os_error(), Some(libc::ELOOP));
}

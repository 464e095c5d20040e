//! Directories and links, which are made beside mounts.

use crate::mounts::{inside, output, sh};
use crate::roots::Busybox;
use crate::support::{read, refused};
use cofferdam_namespaces::{ErrorKind, Fds, Mount, Root, Stdio, Step};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs;

/// More of them than a process may have descriptors.
pub(crate) fn many_directories_and_links() {
    let paths = |name: &str| (0..600).map(|at| format!("/some/way/{}/{name}{at}", at % 7)).collect::<Vec<_>>();
    let sandbox = || {
        let sandbox =
            sh("set -- /some/way/*/link*; echo $# $(readlink /some/way/3/link3); set -- /some/way/*/dir*; echo $#");
        let sandbox = ["sh", "readlink"].into_iter().fold(sandbox.root(Root::Empty), |sandbox, name| {
            sandbox.mount(Mount::bind("/bin/busybox", format!("/bin/{name}")))
        });
        let sandbox = paths("dir").into_iter().fold(sandbox, |sandbox, path| sandbox.mount(Mount::directory(path)));
        paths("link").into_iter().fold(sandbox, |sandbox, path| sandbox.mount(Mount::link("text", path)))
    };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 512, hard).unwrap();
    for sandbox in [sandbox(), sandbox().read_only_root()] {
        assert_eq!(output(sandbox), "600 text\n600\n");
    }
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
}

/// Each at its place and in its turn, and none is dropped without a word.
pub(crate) fn links_of_one_name() {
    let script = "readlink /x/y";
    let base = || {
        ["sh", "readlink"].into_iter().fold(sh(script).root(Root::Empty), |sandbox, name| {
            sandbox.mount(Mount::bind("/bin/busybox", format!("/bin/{name}")))
        })
    };
    let covered = || base().mount(Mount::link("a", "/x/y")).mount(Mount::tmpfs("/x")).mount(Mount::link("b", "/x/y"));
    assert_eq!(output(covered()), "b\n");
    assert_eq!(output(covered().read_only_root()), "b\n");
    let twice =
        |text: &str| base().mount(Mount::link("a long text of some words", "/x/y")).mount(Mount::link(text, "/x/y"));
    let others = ["a", "a long text of some wordz", "a long text of some words and more", "b long text of some words"];
    for sandbox in others.map(twice) {
        for sandbox in [sandbox.clone(), sandbox.read_only_root()] {
            let error = refused(&sandbox);
            assert_eq!((error.step(), error.raw_os_error()), (Step::Mount, Some(libc::EEXIST)), "{error}");
            assert_eq!(error.object(), Some("/x/y".as_ref()), "{error}");
        }
    }
    assert_eq!(output(twice("a long text of some words").read_only_root()), "a long text of some words\n");
    // What the last one has made is there, in a root that stays.
    let root = Busybox::new();
    let plan = inside(&root, "readlink /x/y")
        .stdout(Stdio::Pipe)
        .mount(Mount::link("/proc/self/mounts", "/x/y"))
        .prepare(Fds::new())
        .unwrap();
    for _ in 0..2 {
        let mut child = plan.spawn().unwrap();
        assert_eq!(read(&mut child), "/proc/self/mounts\n");
        assert!(child.wait().unwrap().success());
    }
    let error = refused(&inside(&root, "true").mount(Mount::link("/proc/self/mountz", "/x/y")));
    let told = (error.system_call(), error.raw_os_error());
    assert_eq!(told, (Some("readlinkat"), Some(libc::EEXIST)), "{error}");
}

/// Directories and links, where missing mount points may be made and nowhere else.
pub(crate) fn directories_and_links_are_made() {
    let script = "for at in /bin /lib/deep/link /tmp/inner; do echo $at $(readlink $at); done; echo /empty/*; stat -c %a /empty /lib/deep
        cat /tmp/inner/file";
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("file"), "bound\n").unwrap();
    let sandbox = || {
        sh(script)
            .root(Root::Empty)
            .mount(Mount::link("usr/bin", "/bin"))
            .mount(Mount::bind("/bin/busybox", "/usr/bin/sh"))
            .mount(Mount::bind("/bin/busybox", "/usr/bin/cat"))
            .mount(Mount::bind("/bin/busybox", "/usr/bin/stat"))
            .mount(Mount::bind("/bin/busybox", "/usr/bin/readlink"))
            .mount(Mount::directory("/empty"))
            .mount(Mount::link("/etc/\u{e9}", "/lib/deep/link"))
            .mount(Mount::tmpfs("/tmp"))
            .mount(Mount::link("/bound", "/tmp/inner"))
            .mount(Mount::bind(source.path(), "/bound"))
    };
    let expected = "/bin usr/bin\n/lib/deep/link /etc/\u{e9}\n/tmp/inner /bound\n/empty/*\n755\n755\nbound\n";
    assert_eq!(output(sandbox()), expected);
    assert_eq!(output(sandbox().read_only_root()), expected, "made before the root is sealed");
    // What is there is not replaced; what is bound is not written to.
    let root = Busybox::new();
    let error = refused(&inside(&root, "true").mount(Mount::link("elsewhere", "/bin")));
    let told = (error.step(), error.system_call(), error.raw_os_error());
    assert_eq!(told, (Step::Mount, Some("symlinkat"), Some(libc::EEXIST)), "{error}");
    let bound = inside(&root, "true").mount(Mount::bind(source.path(), "/data"));
    for (mount, object) in [(Mount::link("x", "/data/link"), "link"), (Mount::directory("/x").read_only(), "mount on")]
    {
        let error = refused(&bound.clone().mount(mount));
        assert_eq!((error.kind(), error.step()), (ErrorKind::InvalidConfig, Step::Configure), "{error}");
        assert!(error.object().unwrap().to_string_lossy().starts_with(object), "{error}");
    }
    let error = refused(&bound.mount(Mount::directory("/data/folder")));
    assert_eq!((error.step(), error.raw_os_error()), (Step::Mount, Some(libc::ENOENT)), "{error}");
    assert_eq!(refused(&sh("true").mount(Mount::link("x", "/link"))).kind(), ErrorKind::InvalidConfig);
    assert_eq!(fs::read_dir(source.path()).unwrap().count(), 1);
    // A way that leads out of the root stays in it.
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), root.path().join("out")).unwrap();
    let leads = inside(&root, "true").mount(Mount::link("x", "/out/link"));
    assert!(refused(&leads).raw_os_error().is_some());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

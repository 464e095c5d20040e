//! Root file systems as people have them: what runs in them everywhere runs in them here.

use crate::roots::Busybox;
use crate::support::{all_namespaces, output_with, program};
use cofferdam_namespaces::{Fds, IdMap, Mount, Root, Sandbox};
use std::path::Path;

/// A program in all namespaces, with what an image expects, and nothing written to its root.
fn inside(root: &Path, words: &[&str]) -> Sandbox {
    let (name, args) = words.split_first().unwrap();
    program(*name)
        .args(args.iter().copied())
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("TERM", "dumb")
        .namespaces(all_namespaces())
        .root(Root::directory(root))
        .read_only_root()
        .hostname("real")
        .working_directory("/")
        .mount(Mount::proc("/proc"))
        .mount(Mount::mask("/proc/kcore"))
        .mount(Mount::read_only_path("/proc/sys"))
        .mount(Mount::sysfs("/sys"))
        .mount(Mount::dev("/dev"))
        .mount(Mount::tmpfs("/tmp").mode(0o1777))
}

/// As root of a user namespace, and as the machine's.
fn both(root: &Path, words: &[&str], check: impl Fn(&str)) {
    let sandbox = inside(root, words);
    check(&output_with(sandbox.clone().user(IdMap::root()), Fds::new()));
    check(&output_with(sandbox, Fds::new()));
}

/// The header, and the one process that there is.
fn alone(text: &str, name: &str) {
    let lines = text.lines().skip_while(|line| !line.trim_start().starts_with("PID")).skip(1);
    let processes: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    assert!(matches!(processes[..], [one] if one.trim_start().starts_with("1 ") && one.contains(name)), "{text}");
}

pub(crate) fn a_busybox_root() {
    let root = Busybox::new();
    for folder in ["proc", "sys", "dev", "tmp"] {
        std::fs::create_dir(root.path().join(folder)).unwrap();
    }
    std::os::unix::fs::symlink("busybox", root.path().join("bin/top")).unwrap();
    both(root.path(), &["sh", "-c", "echo $$ $(hostname) >/tmp/said && cat /tmp/said"], |text| {
        assert_eq!(text, "1 real\n");
    });
    both(root.path(), &["ps", "-o", "pid,comm"], |text| alone(text, "ps"));
    both(root.path(), &["top", "-b", "-n1"], |text| alone(text, "top"));
}

pub(crate) fn a_debian_root() {
    let root = cofferdam_testkit::debian().unwrap();
    let hello = "set -e; cat /etc/os-release | grep ^ID=; echo $$ $(hostname) >/tmp/said; cat /tmp/said; touch /x 2>&- || echo kept";
    both(&root, &["sh", "-c", hello], |text| assert_eq!(text, "ID=debian\n1 real\nkept\n"));
    both(&root, &["ps", "-e", "-o", "pid,comm"], |text| alone(text, "ps"));
    both(&root, &["top", "-b", "-n1"], |text| alone(text, "top"));
    // The lists' addresses, without going there.
    both(&root, &["apt-get", "update", "--print-uris"], |text| {
        assert!(text.starts_with('\'') && text.contains("bookworm/InRelease' "), "{text}");
    });
    let python = "import os, sys, threading
threading.Thread(target=lambda: os.urandom(8)).start()
if os.fork() == 0:
    os.execvp('sh', ['sh', '-c', 'exit 7'])
print(os.getpid(), os.uname().nodename, os.path.realpath('/proc/self/exe'), os.wait()[1] >> 8)";
    both(&root, &["python3", "-c", python], |text| {
        assert!(text.starts_with("1 real /usr/bin/python3.") && text.ends_with(" 7\n"), "{text}");
    });
}

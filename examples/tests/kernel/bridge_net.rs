//! bridge-net, call by call.

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use std::io::Read;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::thread;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_bridge-net");

/// With the test's own folder and network namespace.
pub(crate) fn call(words: &str) -> Output {
    let state = std::env::temp_dir().join("state");
    Command::new(PROGRAM).args(words.split(' ')).arg("--state").arg(state).output().unwrap()
}

/// What it prints; it must end well.
pub(crate) fn run(words: &str) -> String {
    let output = call(words);
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A thread in a network namespace of its own, which answers what it is asked: the path of its namespace and the thread's end.
fn container(port: u16) -> (String, thread::JoinHandle<()>) {
    let (sender, receiver) = std::sync::mpsc::channel();
    let server = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
        let thread = std::fs::read_link("/proc/thread-self").unwrap();
        sender.send(format!("/proc/{}/ns/net", thread.display())).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"hello").unwrap();
    });
    (receiver.recv().unwrap(), server)
}

pub(crate) fn every_command() {
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    run("up br-net --subnet 10.88.0.0/16 --subnet6 fd00:88::/64");
    let (netns, server) = container(80);
    let endpoint: Value =
        serde_json::from_str(&run(&format!("attach br-net --netns {netns} --publish 8080:80 --json"))).unwrap();
    assert_eq!(endpoint["interface"], "eth0");
    assert_eq!(endpoint["addresses"], serde_json::json!(["10.88.0.2/16", "fd00:88::2/64"]));
    assert_eq!((&endpoint["gateway"], &endpoint["ports"][0]), (&"10.88.0.1".into(), &"8080:80/tcp".into()));
    assert_eq!(run("check") + &run("plan"), "");
    let flush = || assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
    flush();
    assert_eq!(call("check").status.code(), Some(1));
    let planned = run("plan br-net");
    assert!(planned.contains("tcp . 8080 : 10.88.0.2 . 80"), "{planned}");
    assert_eq!(run("reapply"), planned);
    assert_eq!(run("check") + &run("gc"), "");
    let mut said = String::new();
    TcpStream::connect(("127.0.0.1", 8080)).unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "hello");
    server.join().unwrap();
    // Its namespace is gone now.
    let collected = run("gc --json");
    assert!(collected.contains("detach br-net"), "{collected}");
    run(&format!("detach br-net --netns {netns}"));
    run(&format!("detach br-net --netns {netns}"));
    for _ in 0..2 {
        run("down br-net");
    }
    let bad = [("attach nothing --netns /proc/self/ns/net", 1), ("up x --subnet 10.0.0.1/8", 1), ("fly", 2)];
    for (words, code) in bad {
        let output = call(words);
        assert_eq!(output.status.code(), Some(code), "{words}");
        assert!(output.stderr.starts_with(b"bridge-net: "), "{words}");
    }
    std::fs::remove_dir_all(std::env::temp_dir().join("state")).unwrap();
}

//! run-image that was killed: what it has left of the network leads nobody to those who come after it.

use crate::containers::start;
use crate::image::{Images, links};
use rustix::process::{Pid, Signal, kill_process};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

/// In the mount namespace of the test.
const ADDRESSES: &str = "/run/run-image";

fn connect(port: u16) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), Duration::from_secs(30))
}

fn ports() -> String {
    let output = Command::new("nft").args(["list", "map", "inet", "cofferdam", "ports4"]).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// The next container has the address of one that was killed, and publishes nothing: nobody gets in by the other's port. What a living one publishes stays.
pub(crate) fn a_killed_one_publishes_nothing() {
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    // No address is taken by the containers of other tests.
    std::fs::create_dir_all(ADDRESSES).unwrap();
    let alone = Command::new("mount").args(["-t", "tmpfs", "-o", "mode=700", "none", ADDRESSES]).status().unwrap();
    assert!(alone.success());
    let [killed, living, next] = [(); 3].map(|()| Images::new());
    let serve = "cd /etc && httpd -p 80 && ip -4 -o addr show dev eth0 | awk '{print $4}' && exec cat";
    let serving = |images: &Images, publish: &str| {
        start(images.command(&format!("--network bridge {publish}"), &["sh", "-c", serve]))
    };
    let (mut first, address) = serving(&killed, "--publish 8080:80");
    let (mut second, _) = serving(&living, "--publish 9090:80");
    connect(8080).unwrap();
    kill_process(Pid::from_child(&first), Signal::KILL).unwrap();
    first.wait().unwrap();
    assert!(ports().contains("8080"), "it had no time to take it back");
    let (mut third, again) = serving(&next, "");
    assert_eq!(again, address);
    assert!(!ports().contains("8080"), "{}", ports());
    connect(8080).unwrap_err();
    connect(9090).unwrap();
    for running in [&mut second, &mut third] {
        drop(running.stdin.take());
        assert_eq!(running.wait().unwrap().code(), Some(0));
    }
    next.assert_nothing_left();
    assert_eq!(links(), ["lo"]);
    assert!(Command::new("umount").arg(ADDRESSES).status().unwrap().success());
}

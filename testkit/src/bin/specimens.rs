//! Tests that fail, leak, hang or cannot run, each in one way. `tests/harness.rs` runs them one by
//! one and looks at what the harness makes of them.
#![allow(clippy::zombie_processes, reason = "leaving processes behind is what some of these tests are for")]

use std::fs::{self, File};
use std::mem;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use cofferdam_testkit::{Need, Places, Test};

fn passes() {}

fn fails() {
    println!("said on stdout");
    eprintln!("said on stderr");
    assert_eq!(1 + 1, 3, "arithmetic");
}

fn dies() {
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
}

fn hangs() {
    let _child = Command::new("sleep").arg("1000.25").spawn().unwrap();
    thread::sleep(Duration::from_secs(1000));
}

fn leaks_fd() {
    mem::forget(File::open("/dev/null").unwrap());
}

fn leaks_child() {
    mem::forget(Command::new("sleep").arg("1000.5").spawn().unwrap());
}

fn leaks_zombie() {
    let child = Command::new("true").spawn().unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    let flags = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
    nix::sys::wait::waitid(nix::sys::wait::Id::Pid(pid), flags).unwrap();
}

fn leaks_orphan() {
    let script = "setsid sleep 1000.75 >/dev/null 2>&1 &";
    assert!(Command::new("sh").args(["-c", script]).status().unwrap().success());
}

fn leaks_file() {
    fs::write(std::env::temp_dir().join("forgotten"), "").unwrap();
}

fn leaks_cwd() {
    std::env::set_current_dir(std::env::temp_dir()).unwrap();
}

fn leaks_umask() {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o007));
}

fn leaks_dumpable() {
    nix::sys::prctl::set_dumpable(false).unwrap();
}

fn leaks_signal_mask() {
    use nix::sys::signal::{SigSet, Signal};
    SigSet::from_iter([Signal::SIGUSR1]).thread_block().unwrap();
}

fn leaks_no_new_privs() {
    nix::sys::prctl::set_no_new_privs().unwrap();
}

fn leaks_oom_score_adj() {
    fs::write("/proc/self/oom_score_adj", "500").unwrap();
}

fn leaks_mount() {
    let dir = std::env::temp_dir().join("mounted");
    fs::create_dir(&dir).unwrap();
    nix::mount::mount(None::<&str>, &dir, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
}

fn leaks_link() {
    assert!(Command::new("ip").args(["link", "add", "forgotten0", "type", "veth"]).status().unwrap().success());
}

/// A cgroup where a library would make one: below our own on v1, beside our own on v2.
fn leaks_cgroup() {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let (v1, v2) = ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup");
    let line = own.lines().find(|l| l.split(':').nth(1).is_some_and(|c| c.split(',').any(|c| c == "cpu")));
    let dir = match line {
        Some(v1_line) => format!("{v1}{}", v1_line.splitn(3, ':').nth(2).unwrap()),
        None => format!("{v2}{}/..", own.lines().find_map(|l| l.strip_prefix("0::")).unwrap()),
    };
    fs::create_dir(format!("{dir}/forgotten")).unwrap();
}

/// A process that cannot be killed before somebody thaws it.
fn leaks_frozen() {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = own.lines().find_map(|l| l.split_once(":freezer:")).expect("a freezer hierarchy").1;
    let dir = format!("/sys/fs/cgroup/freezer{path}/forgotten");
    fs::create_dir(&dir).unwrap();
    let child = Command::new("sleep").arg("1000.375").spawn().unwrap();
    fs::write(format!("{dir}/cgroup.procs"), child.id().to_string()).unwrap();
    fs::write(format!("{dir}/freezer.state"), "FROZEN").unwrap();
    mem::forget(child);
}

/// Says so, and waits to be killed with all that belongs to it.
fn waits() {
    let _child = Command::new("sleep").arg("1000.125").spawn().unwrap();
    fs::write(std::env::temp_dir().join("forgotten"), "").unwrap();
    println!("waiting");
    thread::sleep(Duration::from_secs(1000));
}

fn main() -> ExitCode {
    let tests = [
        Test::new("passes", passes),
        Test::new("fails", fails),
        Test::new("dies", dies),
        Test::new("hangs", hangs).time(Duration::from_secs(1)),
        Test::new("leaks_fd", leaks_fd),
        Test::new("leaks_child", leaks_child),
        Test::new("leaks_zombie", leaks_zombie),
        Test::new("leaks_orphan", leaks_orphan),
        Test::new("leaks_file", leaks_file),
        Test::new("leaks_cwd", leaks_cwd),
        Test::new("leaks_umask", leaks_umask),
        Test::new("leaks_dumpable", leaks_dumpable),
        Test::new("leaks_signal_mask", leaks_signal_mask),
        Test::new("leaks_no_new_privs", leaks_no_new_privs),
        Test::new("leaks_oom_score_adj", leaks_oom_score_adj),
        Test::new("leaks_mount", leaks_mount).needs(&[Need::Root]),
        Test::new("leaks_link", leaks_link).needs(&[Need::Root, Need::Veth]),
        Test::new("leaks_cgroup", leaks_cgroup).needs(&[Need::Cgroup("cpu")]),
        Test::new("leaks_frozen", leaks_frozen).needs(&[Need::CgroupV1("freezer")]),
        Test::new("waits", waits),
        Test::new("waits_in_a_cgroup", waits).needs(&[Need::Cgroup("cpu")]),
        Test::new("cannot_run", passes).needs(&[Need::Program("/no/such/program")]),
        Test::new("needs_a_program_by_name", passes).needs(&[Need::Program("a-program")]),
        Test::new("must_run_on_the_host", passes).needs(&[Need::Program("/no/such/program")]),
        Test::new("unlisted", passes),
    ];
    let place = |name| {
        if name == "must_run_on_the_host" { "host" } else { "vm-v1" }
    };
    let listed = tests.iter().map(Test::name).filter(|name| *name != "unlisted");
    let list: Vec<String> = listed.map(|name| format!("specimens::{name} {}", place(name))).collect();
    let places = Places::parse(&list.join("\n")).expect("a list made of names");
    cofferdam_testkit::run_listed(&places, "specimens", &tests)
}

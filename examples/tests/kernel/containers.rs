//! run-image: what a container is, how it ends, and what is left then.

use crate::image::{Images, links};
use crate::support::{left_of, outcome};
use cofferdam_netlink_bridge::{Host, Network, NetworkSpec};
use cofferdam_testkit::patience;
use nix::fcntl::{Flock, FlockArg};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Nothing on standard output, one line on standard error, that exit status, and nothing left.
fn assert_refused(images: &Images, output: &Output, code: i32, says: &str) {
    let (found, out, err) = outcome(output);
    assert_eq!((found, out), (Some(code), ""), "{err}");
    assert!(err.starts_with("run-image: ") && err.ends_with('\n') && err.lines().count() == 1, "{err:?}");
    assert!(err.contains(says), "{says}: {err}");
    images.assert_nothing_left();
}

/// A container that runs, and the first line that it said.
pub(crate) fn start(mut command: Command) -> (Child, String) {
    let mut running = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    // The rest stays in the pipe: nothing is said before it is told to go on.
    BufReader::new(running.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "{:?}", running.wait_with_output());
    (running, line.trim_end().to_owned())
}

pub(crate) fn layers_are_one_root() {
    let images = Images::new();
    let script = "ls / /etc /hidden; cat /etc/kept /etc/link; stat -c ' %h %i' /etc/linked /etc/link";
    let text = images.text("", &["sh", "-c", script]);
    let (text, links) = text.split_once(' ').unwrap();
    assert_eq!(
        text.split_whitespace().collect::<Vec<_>>(),
        "/: bin dev etc hidden proc /etc: hostname hosts kept link linked resolv.conf /hidden: above keptlinked"
            .split(' ')
            .collect::<Vec<_>>()
    );
    let mut links = links.lines().map(str::trim);
    let first = links.next().unwrap();
    assert!(first.starts_with("2 "), "{first}");
    assert_eq!(links.next(), Some(first), "two names of one file");
}

pub(crate) fn what_the_image_says() {
    let images = Images::new();
    assert_eq!(images.text("", &[]), "hello from /hidden\n");
}

pub(crate) fn changes_are_the_containers_own() {
    let images = Images::new();
    let before = images.layout_digests();
    let change = "echo new >/etc/new && echo more >>/etc/kept && rm /etc/link /bin/true && rm -r /hidden && ls / /etc && cat /etc/kept";
    let text = images.text("", &["sh", "-c", change]);
    let changed = "/:\nbin\ndev\netc\nproc\n\n/etc:\nhostname\nhosts\nkept\nlinked\nnew\nresolv.conf\nkeptmore\n";
    assert_eq!(text, changed);
    assert_eq!(
        images.text("", &["sh", "-c", "ls /etc /hidden; true; cat /etc/kept"]),
        "/etc:\nhostname\nhosts\nkept\nlink\nlinked\nresolv.conf\n\n/hidden:\nabove\nkept"
    );
    assert_eq!(images.layout_digests(), before);
}

/// The layers are unpacked by the first run only, and each run has a place of its own above them.
pub(crate) fn layers_are_unpacked_once() {
    let images = Images::new();
    let layers = || {
        let all = fs::read_dir(images.store().join("layers")).unwrap().map(|entry| entry.unwrap().path());
        let file = |layer: std::path::PathBuf| (fs::metadata(layer.join("content")).unwrap().ino(), layer);
        all.map(file).collect::<std::collections::BTreeMap<_, _>>()
    };
    let change = ["sh", "-c", "cat /etc/kept /etc/hosts /etc/hostname; echo changed >/etc/kept; rm /etc/hosts"];
    let said = format!("kept127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{}\n", images.name());
    assert_eq!(images.text("", &change), said);
    let first = layers();
    assert_eq!(first.len(), 2);
    for tag in ["box", "silent"] {
        assert_eq!(outcome(&images.command_of(tag, "", &change).output().unwrap()), (Some(0), said.as_str(), ""));
        assert_eq!(layers(), first, "not unpacked again");
    }
    images.assert_nothing_left();
    // Those with the host's network know what the host knows.
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let server = host.lines().find(|line| line.starts_with("nameserver")).unwrap_or_default();
    let conf = images.text("--network host", &["cat", "/etc/resolv.conf"]);
    assert!(conf.contains(server), "{server:?}: {conf:?}");
    assert_eq!(images.text("--network none", &["cat", "/etc/resolv.conf"]), "");
}

/// What one leaves that is killed is a container in the store, and goes with the next one; not while it runs.
pub(crate) fn what_a_killed_one_leaves_goes_with_the_next() {
    let images = Images::new();
    let (mut killed, line) = start(images.command("", &["sh", "-c", "echo x >/left && echo written && exec cat"]));
    assert_eq!(line, "written");
    // One that runs is nobody's to remove.
    let other = images.command("--name other", &["true"]).output().unwrap();
    assert_eq!((outcome(&other), images.in_store("containers")), ((Some(0), "", ""), 1));
    kill_process(Pid::from_child(&killed), Signal::KILL).unwrap();
    killed.wait().unwrap();
    assert_eq!((images.in_store("containers"), images.in_store("layers")), (1, 2));
    // Its process goes with it, but not before it: until then a mount keeps the files, not their place.
    assert_eq!(images.text("", &["ls", "/"]), "bin\ndev\netc\nhidden\nproc\n");
    assert_eq!(images.in_store("layers"), 2, "the image is kept");
}

/// A limit on what is written, by whatever method is possible here.
pub(crate) fn the_size_limit_is_in_force() {
    let images = Images::new();
    let write = |megabytes: u32| format!("dd if=/dev/zero of=/big bs=1048576 count={megabytes} 2>/dev/null; echo $?");
    assert_eq!(images.text("--size 16M", &["sh", "-c", &write(15)]), "0\n");
    assert_eq!(images.text("--size 16M", &["sh", "-c", &write(30)]), "1\n");
    assert_eq!(images.text("", &["sh", "-c", &write(30)]), "0\n");
}

pub(crate) fn alone_in_its_namespaces() {
    let images = Images::new();
    assert_eq!(images.text("", &["ps", "-o", "pid,comm"]), "PID   COMMAND\n    1 ps\n");
    assert_eq!(images.text("--name box", &["hostname"]), "box\n");
    assert_eq!(images.text("", &["id", "-u"]), "0\n");
    // None of the host's mounts.
    let mounts = images.text("", &["awk", "{print $5}", "/proc/self/mountinfo"]);
    assert!(
        mounts.starts_with("/\n") && mounts.lines().skip(1).all(|m| m.starts_with("/proc") || m.starts_with("/dev")),
        "{mounts}"
    );
    let devices = images
        .text("", &["sh", "-c", "echo >/dev/null && ls /dev/pts && touch /dev/shm/x && echo $$ >/proc/self/comm"]);
    assert_eq!(devices, "ptmx\n");
    let kinds = ["pid", "mnt", "uts", "ipc", "cgroup", "net"];
    let own =
        |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().into_os_string().into_string().unwrap();
    for kind in kinds {
        assert_ne!(images.text("", &["readlink", &format!("/proc/self/ns/{kind}")]).trim_end(), own(kind));
    }
}

/// Neither the user's nor the one in which run-image works: a program there could write run-image's memory.
pub(crate) fn a_user_namespace_in_a_user_namespace() {
    let images = Images::new();
    // A map is shown in the ids of the namespace above that of the reader, unless the reader is there.
    assert_eq!(images.text("", &["awk", "{print $1, $2, $3}", "/proc/self/uid_map"]), "0 0 1\n");
    assert_ne!(geteuid().as_raw(), 0);
    // The mounter's rights make the overlay work, not those of the program.
    assert_eq!(images.text("", &["sh", "-c", "mkdir /a && mount -t tmpfs none /a && echo x >/a/x && cat /a/x"]), "x\n");
}

pub(crate) fn loopback_alone_or_the_hosts_network() {
    let images = Images::new();
    let names = "NR > 2 {sub(\":\", \"\", $1); print $1}";
    assert_eq!(images.text("--network none", &["awk", names, "/proc/net/dev"]), "lo\n");
    assert!(images.text("", &["ip", "-o", "addr"]).contains("127.0.0.1/8"), "and it is up");
    let net = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(images.text("--network host", &["readlink", "/proc/self/ns/net"]).trim_end(), net.to_str().unwrap());
}

pub(crate) fn exit_codes() {
    let images = Images::new();
    for code in [0, 1, 7, 255] {
        let output = images.output("", &["sh", "-c", &format!("exit {code}")]);
        assert_eq!(outcome(&output), (Some(code), "", ""));
    }
    assert_refused(&images, &images.output("", &["/bin/nope"]), 127, "(\"/bin/nope\"): No such file or directory");
    assert_refused(&images, &images.output("", &["nope"]), 127, "nope");
    assert_refused(&images, &images.output("", &["/etc/kept"]), 126, "execve(\"/etc/kept\"): Permission denied");
}

pub(crate) fn what_cannot_be_run() {
    let images = Images::new();
    let output = images.command_of("silent", "", &[]).output().unwrap();
    assert_refused(&images, &output, 125, "neither the image nor the command line says what to run");
    let output = images.command_of("silent", "", &["echo", "x"]).output().unwrap();
    assert_eq!(outcome(&output), (Some(0), "x\n", ""));
    let output = images.command_of("other", "", &[]).output().unwrap();
    assert_refused(&images, &output, 125, "other");
    assert_refused(
        &images,
        &images.output(&format!("--name {}", "x".repeat(65)), &["true"]),
        125,
        "longer than 64 bytes",
    );
    assert_refused(&images, &images.output("--store /proc/nonexistent", &["true"]), 125, "\"/proc/nonexistent\"");
    for bad in ["--memory lots", "--cpus 0", "--network up", "--memory", "--what\x1b[31m"] {
        assert_refused(&images, &images.output(bad, &["true"]), 2, bad.split([' ', '\x1b']).next().unwrap());
    }
}

/// The blob of a layer is not what its digest says.
pub(crate) fn a_damaged_image() {
    let images = Images::new();
    for path in images.layout_digests().into_keys().filter(|path| path.metadata().unwrap().len() > 100_000) {
        let mut bytes = fs::read(&path).unwrap();
        bytes[50_000] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    assert_refused(&images, &images.output("", &["true"]), 125, "layer 0");
}

pub(crate) fn not_for_an_ordinary_user() {
    let images = Images::new();
    let output = |args| images.command_of_nobody(args, &["true"]).output().unwrap();
    assert_refused(&images, &output("--network bridge"), 125, "only root");
    assert_refused(&images, &output("--network container:web"), 125, "only root");
    assert_refused(&images, &output("--memory 64M"), 125, "systemd-run --user --scope -p Delegate=yes");
}

const SIGNALS: [(Signal, i32); 4] = [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129), (Signal::QUIT, 131)];

fn ended_by(signals: &[(Signal, i32)], args: &str) {
    let images = Images::new();
    for &(signal, code) in signals {
        // It would not end of itself, nor by these signals, as process 1 of its namespace.
        let (mut running, _) = start(images.command(args, &["sh", "-c", "echo up; sleep 1000 & wait"]));
        kill_process(Pid::from_child(&running), signal).unwrap();
        let mut rest = String::new();
        running.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "all that could write is gone");
        let output = running.wait_with_output().unwrap();
        assert_eq!((output.status.code(), outcome(&output).2), (Some(code), ""), "{signal:?}");
        images.assert_nothing_left();
    }
}

pub(crate) fn signals_end_it_and_leave_nothing_of_it() {
    ended_by(&SIGNALS, "");
}

pub(crate) fn signals_end_it_with_cgroup_and_bridge() {
    ended_by(&SIGNALS[..2], "--network bridge --memory 64M --cpus 1");
}

fn ended_at_any_moment(args: &str) {
    let images = Images::new();
    // On a busy machine it begins later: until it has.
    for moment in 0..60 {
        let running = images.command(args, &["sleep", "1000"]).stderr(Stdio::piped()).spawn().unwrap();
        // Closer together where more happens.
        sleep(Duration::from_millis(moment * moment * u64::from(patience())));
        kill_process(Pid::from_child(&running), Signal::TERM).unwrap();
        let output = running.wait_with_output().unwrap();
        let status = output.status;
        assert_eq!(outcome(&output).2, "", "after {moment}");
        // Or it had not begun.
        assert!(status.code() == Some(143) || status.signal() == Some(15), "{status} after {moment}");
        images.assert_nothing_left();
        if moment >= 14 && status.code() == Some(143) {
            return;
        }
    }
    panic!("it never begins");
}

pub(crate) fn a_signal_at_any_moment() {
    ended_at_any_moment("");
}

pub(crate) fn a_signal_at_any_moment_with_cgroup_and_bridge() {
    ended_at_any_moment("--network bridge --memory 64M --cpus 1");
}

/// Each after everything else was made.
pub(crate) fn failures_with_cgroup_and_bridge() {
    let images = Images::new();
    let all = "--network bridge --memory 64M --cpus 1";
    assert_refused(&images, &images.output(all, &["/bin/nope"]), 127, "/bin/nope");
    let long = format!("{all} --name {}", "x".repeat(65));
    assert_refused(&images, &images.output(&long, &["true"]), 125, "longer than 64 bytes");
    assert_eq!(left_of(&"x".repeat(65)), [""; 0]);
    // Somebody else's bridge of that name.
    let host = Host::current().unwrap();
    let foreign = Network::create(&host, &NetworkSpec::new("cofferdam0").owner("somebody")).unwrap();
    let output = images.output(all, &["true"]);
    assert_eq!(links(), ["lo", "cofferdam0"]);
    foreign.delete().unwrap();
    assert_refused(&images, &output, 125, "cofferdam0");
}

/// One serves a page, the other reads it; then the bridge goes with the last of them.
pub(crate) fn two_containers_reach_each_other() {
    let (one, two) = (Images::new(), Images::new());
    // httpd goes into the background when it listens.
    let serve = "cd /etc && httpd -p 80 && ip -4 -o addr show dev eth0 | awk '{print $4}' && exec cat";
    let (mut server, address) = start(one.command("--network bridge", &["sh", "-c", serve]));
    let address = address.strip_suffix("/24").unwrap();
    let wget = ["wget", "-q", "-O", "-", &format!("http://{address}/kept")];
    let output = two.output("--network bridge", &wget);
    assert_eq!(outcome(&output), (Some(0), "kept", ""));
    let left = links();
    assert!(left.len() == 3 && left.contains(&"cofferdam0".to_owned()), "the first is still connected: {left:?}");
    assert_eq!(outcome(&two.output("--network none", &wget)).0, Some(1), "it is not reached otherwise");
    drop(server.stdin.take());
    let output = server.wait_with_output().unwrap();
    assert_eq!(outcome(&output), (Some(0), "", ""));
    one.assert_nothing_left();
}

/// Who comes is known by name to those who are there, and no longer when it has gone; one has another's network, with its loopback.
pub(crate) fn names_and_a_shared_network() {
    let (one, two, three) = (Images::new(), Images::new(), Images::new());
    let serve = "cd /etc && httpd -p 80 && ip -4 -o addr show dev eth0 | awk '{print $4}'; read x; cat hosts; read x; cat hosts";
    let (mut server, address) = start(one.command("--network bridge --publish 8080:80", &["sh", "-c", serve]));
    let look = format!("grep {} /etc/hosts; cat", one.name());
    let (client, line) = start(two.command("--network bridge", &["sh", "-c", &look]));
    let address = address.strip_suffix("/24").unwrap();
    assert_eq!(line, format!("{address}\t{}", one.name()));
    // At the host's loopback, also after one has come that publishes nothing.
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    TcpStream::connect_timeout(&([127, 0, 0, 1], 8080).into(), Duration::from_secs(30)).unwrap();
    // By its name, in the image's own program.
    let page = |host: &str| ["wget".into(), "-q".into(), "-O".into(), "-".into(), format!("http://{host}/kept")];
    let get = |images: &Images, args: &str, host: &str| {
        let page = page(host);
        let output = images.output(args, &page.each_ref().map(String::as_str));
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let kept = (Some(0), "kept".to_owned(), String::new());
    assert_eq!(get(&three, "--network bridge", &one.name()), kept);
    let shared = format!("--network container:{}", one.name());
    assert_eq!(get(&three, &shared, "127.0.0.1"), kept);
    assert_eq!(get(&three, "--network none", "127.0.0.1").0, Some(1));
    let mut told = |images: &[&Images]| {
        server.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        let mut lines = BufReader::new(server.stdout.as_mut().unwrap()).lines().map(Result::unwrap).skip(2);
        let names: Vec<_> =
            lines.by_ref().take(images.len()).map(|l| l.split('\t').nth(1).unwrap().to_owned()).collect();
        let mut wanted: Vec<_> = images.iter().map(|images| images.name()).collect();
        wanted.sort();
        let mut found = names;
        found.sort();
        assert_eq!(found, wanted);
    };
    told(&[&one, &two]);
    let output = client.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    told(&[&one]);
    assert_eq!(server.wait().unwrap().code(), Some(0));
    one.assert_nothing_left();
    let output = three.output(&shared, &["true"]);
    assert_refused(&three, &output, 125, "there is no container");
}

/// They come and go as they like: each has an address of its own, and a bridge as long as it is there.
pub(crate) fn a_crowd_on_the_bridge() {
    let images: Vec<Images> = (0..5).map(|_| Images::new()).collect();
    let script = "ip -4 -o addr show dev eth0 | awk '{print $4}'; read line; ip route; ip link show dev eth0";
    let mut running: Vec<_> =
        images.iter().map(|i| i.command("--network bridge", &["sh", "-c", script])).map(start).collect();
    let mut addresses: Vec<_> = running.iter().map(|(_, address)| address.clone()).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), images.len(), "{addresses:?}");
    for (child, _) in &mut running {
        drop(child.stdin.take());
    }
    for (child, _) in running {
        let output = child.wait_with_output().unwrap();
        let (code, out, err) = outcome(&output);
        assert_eq!((code, err), (Some(0), ""));
        assert!(out.contains("default via 10.107.77.1") && out.contains("LOWER_UP"), "{out}");
    }
    // Short ones, of which one is often the last while another comes.
    let all: Vec<_> = images.iter().cycle().take(20).enumerate().collect();
    for some in all.chunks(images.len()) {
        let spawn = |(number, images): &(usize, &Images)| {
            sleep(Duration::from_millis(*number as u64 % 5 * 5));
            images
                .command("--network bridge", &["ip", "link", "show", "dev", "eth0"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
        };
        let spawned: Vec<_> = some.iter().map(spawn).collect::<Result<_, _>>().unwrap();
        for child in spawned {
            let output = child.wait_with_output().unwrap();
            let (code, out, err) = outcome(&output);
            assert_eq!((code, err), (Some(0), ""));
            assert!(out.contains("LOWER_UP"), "the bridge is at the other end: {out}");
        }
    }
    images.iter().for_each(Images::assert_nothing_left);
}

/// While somebody else changes the bridge, nobody connects to it or takes it away.
pub(crate) fn one_at_a_time_at_the_bridge() {
    let images = Images::new();
    fs::create_dir_all("/run/run-image").unwrap();
    let turn = || Flock::lock(File::open("/run/run-image").unwrap(), FlockArg::LockExclusive).unwrap();
    let waits = |pid: u32| {
        let pid = format!(" {pid} ");
        let found =
            || fs::read_to_string("/proc/locks").unwrap().lines().any(|l| l.contains("-> FLOCK") && l.contains(&pid));
        let end = Instant::now() + Duration::from_secs(30) * patience();
        while !found() {
            assert!(Instant::now() < end, "it does not wait for its turn");
            sleep(Duration::from_millis(1));
        }
    };

    let ours = turn();
    let mut command = images.command("--network bridge", &["sh", "-c", "echo up; read line"]);
    let mut running = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    waits(running.id());
    assert_eq!(links(), ["lo"]);
    drop(ours);
    running.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    assert_eq!(links().len(), 3);

    let ours = turn();
    drop(running.stdin.take());
    waits(running.id());
    assert!(links().contains(&"cofferdam0".to_owned()));
    drop(ours);
    assert_eq!(running.wait().unwrap().code(), Some(1), "read is at the end of its input");
    images.assert_nothing_left();
}

pub(crate) fn the_memory_limit_kills() {
    let images = Images::new();
    // In one piece, and all of it is written to.
    let eat = ["dd", "if=/dev/zero", "of=/dev/null", "bs=96M", "count=1"];
    let output = images.output("--memory 32M", &eat);
    assert_eq!((output.status.code(), outcome(&output).1), (Some(137), ""));
    images.assert_nothing_left();
    assert_eq!(images.output("--memory 256M", &eat).status.code(), Some(0), "it is the limit that kills");
    images.assert_nothing_left();
}

pub(crate) fn the_cpu_limit_is_in_force() {
    let images = Images::new();
    let (mut running, _) = start(images.command("--cpus 0.5", &["sh", "-c", "echo up; read line"]));
    let cgroups = left_of(&images.name());
    let read = |cgroup: &String, file: &str| fs::read_to_string(Path::new(cgroup).join(file)).ok();
    let number = |text: String| text.trim().parse::<u64>().unwrap();
    let quotas = cgroups.iter().filter_map(|cgroup| match read(cgroup, "cpu.max") {
        Some(max) => Some(max.trim_end().to_owned()),
        None => Some(format!(
            "{} {}",
            number(read(cgroup, "cpu.cfs_quota_us")?),
            number(read(cgroup, "cpu.cfs_period_us")?)
        )),
    });
    let quotas: Vec<String> = quotas.collect();
    assert!(!quotas.is_empty() && quotas.iter().all(|quota| quota == "50000 100000"), "{cgroups:?}: {quotas:?}");
    // Of all that is in there, the program was born there.
    let inside = cgroups.iter().filter_map(|cgroup| read(cgroup, "cgroup.procs"));
    assert!(inside.into_iter().all(|procs| procs.lines().count() == 1));
    drop(running.stdin.take());
    assert_eq!(running.wait().unwrap().code(), Some(1), "read is at the end of its input");
    images.assert_nothing_left();
}

//! What people use today, as programs: ip(8) and nft(8), netavark, the CNI plugins. All work in the same host, on the same bridge.

use super::place::{ALIAS, BRIDGE, GATEWAY, Place, SUBNET, Target};
use super::{Task, Variant, timed};
use crate::Result;
use crate::area::{Contender, Role};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use tempfile::TempDir;

/// A way to attach a container and to detach it.
trait Tool: Send + Sync {
    fn attach(&self) -> Result<()>;
    fn detach(&self) -> Result<()>;
    fn target(&self) -> &Target;

    /// Looks at what an attach did. Of ports that iptables publishes the exit status must do.
    fn check(&self) -> Result<()> {
        self.target().check()
    }
}

/// More containers than this are there for cofferdam and ip(8) only: the others list all links each time.
const MOST_THERE: usize = 100;

/// The peers of a variant. With ports that are there already, those that share cofferdam's map of them.
pub(super) fn of(variant: Variant, place: &Arc<Place>) -> Result<Vec<Contender>> {
    match variant.task {
        Task::DetachAll => return Ok(vec![ip_all(place)]),
        Task::OpenNamespace => return Ok(Vec::new()),
        Task::Attach | Task::Detach => {}
    }
    let target = |nth, id| Target::new(nth, id, variant.ports).map(Arc::new);
    let name = if variant.ports > 0 { "ip(8), nft(8)" } else { "ip(8)" };
    let mut contenders = vec![contender(name, variant.task, Arc::new(Ip::new(place, &target(2, "ip")?)))];
    if variant.ports_there == 0 && variant.there <= MOST_THERE {
        contenders.push(contender("netavark", variant.task, Arc::new(Netavark::new(&target(3, "netavark")?)?)));
        let name = if variant.ports > 0 { "CNI bridge, portmap" } else { "CNI bridge" };
        contenders.push(contender(name, variant.task, Arc::new(Cni::new(&target(4, "cni")?)?)));
    }
    Ok(contenders)
}

fn contender(name: &str, task: Task, tool: Arc<dyn Tool>) -> Contender {
    Contender::new(name, Role::Peer, move || {
        let tool = Arc::clone(&tool);
        move || {
            let attached = timed(|| tool.attach())?;
            // What is left of a failure would be in the way of a later run, but that ends the bench.
            tool.check()?;
            let detached = timed(|| tool.detach())?;
            Ok(if task == Task::Attach { attached } else { detached })
        }
    })
}

/// Runs a program with this input; brings its output.
fn run(command: &mut Command, input: &str) -> Result<Vec<u8>> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().ok_or("no pipe")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("{:?}: {}: {}", command.get_program(), output.status, String::from_utf8_lossy(&said).trim()).into())
}

/// Where other programs find a container's namespace.
fn path(target: &Target) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), target.netns.as_fd().as_raw_fd())
}

/// Where a program keeps what it must not forget.
fn state() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("cofferdam-bench-").tempdir()?)
}

/// The first of these folders that has the program.
fn find(program: &str, folders: &[&str]) -> Result<PathBuf> {
    let all = folders.iter().map(|folder| Path::new(folder).join(program));
    all.into_iter().find(|path| path.is_file()).ok_or_else(|| format!("there is no {program}").into())
}

/// Three programs at most: one in the host and one in the container, each with a batch of commands; and nft, with cofferdam's map.
struct Ip {
    host: String,
    inside: String,
    publish: Option<[String; 2]>,
    target: Arc<Target>,
}

impl Ip {
    fn new(place: &Place, target: &Arc<Target>) -> Self {
        let (port, address, group) = (&target.port, target.address, place.group);
        let mac = target.mac().map(|byte| format!("{byte:02x}")).join(":");
        let path = path(target);
        let mut host = format!(
            "link add {port} address 02:cd:f2:00:00:00 mtu 1500 group {group} master {BRIDGE} type veth \
             peer name eth0 address {mac} mtu 1500 netns {path}\nlink set {port} alias {ALIAS} up\n"
        );
        let inside = format!(
            "link set lo up\naddress add {address}/16 broadcast + dev eth0\nlink set eth0 alias {ALIAS} up\n\
             route add default via {GATEWAY} dev eth0 proto static\n"
        );
        let publish = (!target.ports.is_empty()).then(|| {
            let _ = writeln!(host, "link set {port} type bridge_slave isolated off hairpin on");
            let (mut add, mut delete) = (String::new(), String::new());
            for port in &target.ports {
                let _ = write!(add, "tcp . {port} comment \"{} bench\" : {address} . {port}, ", target.port);
                let _ = write!(delete, "tcp . {port} : {address} . {port}, ");
            }
            [("add", add), ("delete", delete)]
                .map(|(what, elements)| format!("{what} element inet cofferdam ports4 {{ {elements} }}\n"))
        });
        Ip { host, inside, publish, target: Arc::clone(target) }
    }
}

impl Tool for Ip {
    fn attach(&self) -> Result<()> {
        run(Command::new("ip").args(["-batch", "-"]), &self.host)?;
        let namespace = format!("--net={}", path(&self.target));
        run(Command::new("nsenter").arg(namespace).args(["ip", "-batch", "-"]), &self.inside)?;
        if let Some([add, _]) = &self.publish {
            run(Command::new("nft").args(["-f", "-"]), add)?;
        }
        Ok(())
    }

    fn detach(&self) -> Result<()> {
        if let Some([_, delete]) = &self.publish {
            run(Command::new("nft").args(["-f", "-"]), delete)?;
        }
        run(Command::new("ip").args(["link", "delete", &self.target.port]), "").map(drop)
    }

    fn target(&self) -> &Target {
        &self.target
    }

    fn check(&self) -> Result<()> {
        self.target.check()?;
        self.target.check_ports()
    }
}

/// All ports of the bridge, by their group. They are attached by cofferdam.
fn ip_all(place: &Arc<Place>) -> Contender {
    let place = Arc::clone(place);
    Contender::new("ip(8)", Role::Peer, move || {
        let place = Arc::clone(&place);
        move || {
            place.fill(0)?;
            let group = place.group.to_string();
            timed(|| run(Command::new("ip").args(["link", "delete", "group", &group]), "").map(drop))
        }
    })
}

/// With the address given, and without names.
struct Netavark {
    program: PathBuf,
    state: TempDir,
    options: String,
    target: Arc<Target>,
}

impl Netavark {
    fn new(target: &Arc<Target>) -> Result<Self> {
        let program = find("netavark", &["/usr/lib/podman", "/usr/libexec/podman"])?;
        let port = |port: &u16| json!({"host_ip": "", "host_port": port, "container_port": port, "range": 1, "protocol": "tcp"});
        let options = json!({
            "container_id": "c0ffee",
            "container_name": "bench",
            "port_mappings": target.ports.iter().map(port).collect::<Vec<_>>(),
            "networks": {"bench": {"static_ips": [target.address], "interface_name": "eth0", "aliases": []}},
            "network_info": {"bench": {
                "name": "bench",
                "id": "b".repeat(64),
                "driver": "bridge",
                "network_interface": BRIDGE,
                "subnets": [{"subnet": SUBNET, "gateway": GATEWAY}],
                "ipv6_enabled": false,
                "internal": false,
                "dns_enabled": false,
                "ipam_options": {"driver": "host-local"},
                "options": {},
            }},
        });
        Ok(Netavark { program, state: state()?, options: options.to_string(), target: Arc::clone(target) })
    }

    fn run(&self, what: &str) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.state.path()).arg(what).arg(path(&self.target));
        run(&mut command, &self.options).map(drop)
    }
}

impl Tool for Netavark {
    fn attach(&self) -> Result<()> {
        self.run("setup")
    }

    fn detach(&self) -> Result<()> {
        self.run("teardown")
    }

    fn target(&self) -> &Target {
        &self.target
    }
}

/// The plugins `bridge`, which calls `host-local` for its only address, and `portmap` if there are ports: called as container engines do.
struct Cni {
    bridge: PathBuf,
    folder: PathBuf,
    options: String,
    _state: TempDir,
    target: Arc<Target>,
}

impl Cni {
    fn new(target: &Arc<Target>) -> Result<Self> {
        let bridge = find("bridge", &["/usr/lib/cni", "/opt/cni/bin"])?;
        let folder = bridge.parent().map(Path::to_owned).unwrap_or_default();
        let (state, address) = (state()?, target.address);
        let options = json!({
            "cniVersion": "0.4.0",
            "name": "bench",
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": true,
            "ipMasq": true,
            "ipam": {
                "type": "host-local",
                "dataDir": state.path(),
                "ranges": [[{"subnet": SUBNET, "rangeStart": address, "rangeEnd": address}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        });
        Ok(Cni { bridge, folder, options: options.to_string(), _state: state, target: Arc::clone(target) })
    }

    fn run(&self, plugin: &Path, what: &str, options: &str) -> Result<Vec<u8>> {
        let mut command = Command::new(plugin);
        command.env("CNI_COMMAND", what).env("CNI_CONTAINERID", &self.target.port).env("CNI_IFNAME", "eth0");
        command.env("CNI_NETNS", path(&self.target)).env("CNI_PATH", &self.folder);
        run(&mut command, options)
    }

    fn portmap(&self, what: &str, previous: &Value) -> Result<()> {
        let port = |port: &u16| json!({"hostPort": port, "containerPort": port, "protocol": "tcp"});
        let options = json!({
            "cniVersion": "0.4.0",
            "name": "bench",
            "type": "portmap",
            "capabilities": {"portMappings": true},
            "runtimeConfig": {"portMappings": self.target.ports.iter().map(port).collect::<Vec<_>>()},
            "prevResult": previous,
        });
        self.run(&self.folder.join("portmap"), what, &options.to_string()).map(drop)
    }
}

impl Tool for Cni {
    fn attach(&self) -> Result<()> {
        let result = self.run(&self.bridge, "ADD", &self.options)?;
        if self.target.ports.is_empty() {
            return Ok(());
        }
        self.portmap("ADD", &serde_json::from_slice(&result)?)
    }

    fn detach(&self) -> Result<()> {
        if !self.target.ports.is_empty() {
            self.portmap("DEL", &Value::Null)?;
        }
        self.run(&self.bridge, "DEL", &self.options).map(drop)
    }

    fn target(&self) -> &Target {
        &self.target
    }
}

//! Networks of containers from the command line: a bridge, addresses, published ports. What is there is kept in a folder, so that each call
//! is a process of its own: what one has made, another checks, brings back, or takes away.

mod options;
mod state;

use cofferdam_netlink_bridge::{Endpoint, EndpointSpec, ErrorKind, Host, NetNs, Network};
use options::{Attach, Command, HELP, Options, Up};
use serde_json::json;
use state::{State, Stored};
use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::process::ExitCode;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Who made the bridges: no link of anybody else is touched.
const OWNER: &str = "bridge-net";

fn main() -> ExitCode {
    let options = match Options::parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("bridge-net: {error}\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bridge-net: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode> {
    let host = match &options.host_netns {
        Some(path) => Host::from_fd(File::open(path).map_err(|e| format!("open {}: {e}", path.display()))?)?,
        None => Host::current()?,
    };
    // One at a time: what is stored and what is made go together.
    let state = State::open(&options.state)?;
    match &options.command {
        Command::Up(wanted) => up(&host, &state, wanted),
        Command::Attach(wanted) => attach(&host, &state, wanted, options.json),
        Command::Detach { network, netns } => detach(&host, &state, network, netns),
        Command::Down { network } => down(&host, &state, network),
        Command::Check { network } => each(&state, network.as_deref(), |stored| {
            let findings = Network::open(&host, &stored.spec)?.check(&stored.endpoints)?;
            Ok(findings.iter().map(ToString::to_string).collect())
        })
        .map(|lines| print(&lines, options.json, ExitCode::FAILURE)),
        Command::Plan { network } => each(&state, network.as_deref(), |stored| {
            let changes = Network::plan(&host, &stored.spec, &stored.endpoints)?;
            Ok(changes.iter().map(ToString::to_string).collect())
        })
        .map(|lines| print(&lines, options.json, ExitCode::SUCCESS)),
        Command::Reapply { network } => each(&state, network.as_deref(), |stored| {
            let (_, changes) = Network::reapply(&host, &stored.spec, &stored.endpoints)?;
            Ok(changes.iter().map(ToString::to_string).collect())
        })
        .map(|lines| print(&lines, options.json, ExitCode::SUCCESS)),
        Command::Gc { network } => each(&state, network.as_deref(), |stored| gc(&host, &state, stored))
            .map(|lines| print(&lines, options.json, ExitCode::SUCCESS)),
    }
}

/// Makes the network, or brings one that is there to what is wanted now.
fn up(host: &Host, state: &State, wanted: &Up) -> Result<ExitCode> {
    let spec = wanted.spec(OWNER);
    // What makes no sense, or is somebody else's, is refused before anything else.
    Network::plan(host, &spec, &[])?;
    // Stored before it is made: whatever happens then, `down` knows of it.
    let before = state.load(&wanted.network)?;
    state.store_network(&spec, &wanted.network)?;
    let made = Network::create(host, &spec).inspect_err(|_| {
        // The error that is told is the first one.
        let _ = match &before {
            Some(before) => state.store_network(&before.spec, &wanted.network).and_then(|()| {
                Network::reapply(host, &before.spec, &before.endpoints)?;
                Ok(())
            }),
            None => state.forget_network(&wanted.network),
        };
    });
    for change in made?.host_settings() {
        eprintln!("bridge-net: {change}");
    }
    Ok(ExitCode::SUCCESS)
}

fn attach(host: &Host, state: &State, wanted: &Attach, json: bool) -> Result<ExitCode> {
    let stored = state.load(&wanted.network)?.ok_or_else(|| format!("there is no network {}", wanted.network))?;
    let netns = NetNs::from_path(&wanted.netns)?;
    let network = Network::open(host, &stored.spec)?;
    // The first network of a container has eth0 and the default route, the next eth1 and so on; what was detached is free again.
    let taken = state.interfaces_of(&wanted.netns)?;
    let interface = (0..=taken.len()).map(|n| format!("eth{n}")).find(|name| !taken.contains(name));
    let interface = interface.ok_or("all names of interfaces are taken")?;
    let mut spec = EndpointSpec::new().id(id(&wanted.network, &wanted.netns)).owner(owner(&wanted.netns));
    spec = if interface == "eth0" { spec } else { spec.interface(interface).no_default_route() };
    spec = wanted.addresses.iter().fold(spec, |spec, address| spec.address(*address));
    spec = wanted.ports.iter().fold(spec, |spec, port| spec.publish(*port));
    let pool = state.pool(&wanted.network)?;
    let endpoint = network.attach_from(&pool, &netns, &spec)?;
    if let Err(error) = state.store_endpoint(&wanted.network, &endpoint) {
        endpoint.detach_to(&pool, host)?;
        return Err(error);
    }
    if json {
        println!("{}", described(&endpoint));
    } else {
        let addresses: Vec<_> = endpoint.addresses().iter().map(ToString::to_string).collect();
        println!("{} {} {}", endpoint.interface(), endpoint.mac(), addresses.join(" "));
    }
    Ok(ExitCode::SUCCESS)
}

fn described(endpoint: &Endpoint) -> serde_json::Value {
    let ports: Vec<_> = endpoint.ports().iter().map(ToString::to_string).collect();
    json!({
        "network": endpoint.network(),
        "interface": endpoint.interface(),
        "mac": endpoint.mac(),
        "addresses": endpoint.addresses(),
        "gateway": endpoint.gateways().first(),
        "gateways": endpoint.gateways(),
        "ports": ports,
        "host_interface": endpoint.port(),
    })
}

/// Whatever of it is there goes; the namespace may be gone.
fn detach(host: &Host, state: &State, network: &str, netns: &Path) -> Result<ExitCode> {
    let id = id(network, netns);
    let stored = state.load(network)?;
    if let Some(endpoint) = stored.iter().flat_map(|stored| &stored.endpoints).find(|e| e.id() == id) {
        remove(host, state, network, endpoint)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn remove(host: &Host, state: &State, network: &str, endpoint: &Endpoint) -> Result<()> {
    endpoint.detach_to(&state.pool(network)?, host)?;
    state.forget_endpoint(network, endpoint)
}

fn down(host: &Host, state: &State, network: &str) -> Result<ExitCode> {
    if let Some(stored) = state.load(network)? {
        match Network::open(host, &stored.spec) {
            Ok(open) => open.detach_all()?,
            // The bridge has been deleted behind our back: the containers' interfaces and the rules are still there.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                for endpoint in &stored.endpoints {
                    endpoint.detach(host)?;
                }
            }
            Err(error) => return Err(error.into()),
        }
        Network::remove(host, &stored.spec)?;
        state.forget_network(network)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes endpoints whose namespace is gone, and what a call that was killed has left.
fn gc(host: &Host, state: &State, stored: &Stored) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let (mut ids, mut owners) = (HashSet::new(), HashSet::new());
    for endpoint in &stored.endpoints {
        match NetNs::from_path(endpoint.owner()) {
            Ok(_) => {
                ids.insert(endpoint.id());
                owners.insert(endpoint.owner());
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                remove(host, state, &stored.name, endpoint)?;
                lines.push(format!("detach {}", endpoint.id()));
            }
            // It may be there all the same.
            Err(error) => return Err(error.into()),
        }
    }
    // Nobody attaches meanwhile, since we have the lock: a port without an owner is of one that was killed.
    let changes = Network::open(host, &stored.spec)?.gc(|owner| owner.is_some_and(|owner| owners.contains(owner)))?;
    lines.extend(changes.iter().map(ToString::to_string));
    let given_back = state.pool(&stored.name)?.gc(|holder| ids.contains(holder.id.as_str()))?;
    lines.extend(given_back.iter().map(|(address, holder)| format!("give back {address} of {}", holder.id)));
    Ok(lines)
}

/// Does something for one network, or for all.
fn each(state: &State, network: Option<&str>, work: impl Fn(&Stored) -> Result<Vec<String>>) -> Result<Vec<String>> {
    let names = network.map_or_else(|| state.networks(), |name| Ok(vec![name.to_owned()]))?;
    let mut lines = Vec::new();
    for name in names {
        let stored = state.load(&name)?.ok_or_else(|| format!("there is no network {name}"))?;
        lines.extend(work(&stored)?.into_iter().map(|line| format!("{name}: {line}")));
    }
    Ok(lines)
}

/// Prints lines; the code is for when there are some.
fn print(lines: &[String], json: bool, some: ExitCode) -> ExitCode {
    if json {
        println!("{}", json!(lines));
    } else {
        for line in lines {
            println!("{line}");
        }
    }
    if lines.is_empty() { ExitCode::SUCCESS } else { some }
}

/// An endpoint is known by its network and the path of its namespace, which need not lead anywhere any more.
fn id(network: &str, netns: &Path) -> String {
    format!("{network} {}", netns.display())
}

fn owner(netns: &Path) -> String {
    netns.display().to_string()
}

//! The command line. Pure: nothing is looked at but the arguments.

use cofferdam_netlink_bridge::{NetworkSpec, PublishedPort, Subnet};
use lexopt::prelude::*;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

pub(crate) const HELP: &str = "\
Connects network namespaces by a bridge.

usage: bridge-net up NAME --subnet 10.88.0.0/16 [--subnet6 fd00:88::/64] [--internal] [--icc on|off]
       bridge-net attach NAME --netns PATH [--ip ADDRESS]... [--publish [ADDR:]8080:80[/tcp|udp|sctp]]...
       bridge-net detach NAME --netns PATH
       bridge-net check|plan|reapply|gc [NAME]
       bridge-net down NAME
  --subnet, --subnet6   its addresses; the bridge has the first, containers the others
  --internal            containers reach each other and the bridge, nothing else
  --icc off             containers do not reach each other
  --ip ADDRESS          this address, and not the next one that is free
  --publish PORTS       a port of the host, or a range 8000-8010:80-90, that leads to the container
  --state DIR           what is there is kept here (/run/bridge-net)
  --host-netns PATH     this network namespace plays the host
  --json                print for programs

check prints what is wrong, and then exits with 1; plan what reapply would do, and reapply what it did; gc removes what is
left of namespaces that are gone. Forwarding is switched on when a network needs it, which is told. Detaching twice and going down
twice is no error. Exit status: 0, 1 for failures, 2 for bad usage.
";

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) command: Command,
    pub(crate) state: PathBuf,
    pub(crate) host_netns: Option<PathBuf>,
    pub(crate) json: bool,
}

#[derive(Debug)]
pub(crate) enum Command {
    Up(Up),
    Attach(Attach),
    Detach { network: String, netns: PathBuf },
    Check { network: Option<String> },
    Plan { network: Option<String> },
    Reapply { network: Option<String> },
    Gc { network: Option<String> },
    Down { network: String },
}

#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) network: String,
    subnets: Vec<Subnet>,
    internal: bool,
    icc: bool,
}

#[derive(Debug)]
pub(crate) struct Attach {
    pub(crate) network: String,
    pub(crate) netns: PathBuf,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<PublishedPort>,
}

impl Up {
    pub(crate) fn spec(&self, owner: &str) -> NetworkSpec {
        let spec = NetworkSpec::new(&self.network).owner(owner).internal(self.internal).between_containers(self.icc);
        let spec = spec.enable_forwarding(!self.internal).host_loopback(!self.internal);
        self.subnets.iter().fold(spec, |spec, subnet| spec.subnet(*subnet))
    }
}

/// All that can be said, whatever the command.
#[derive(Debug, Default)]
struct Words {
    names: Vec<String>,
    subnets: Vec<Subnet>,
    internal: bool,
    icc_off: bool,
    netns: Option<PathBuf>,
    addresses: Vec<IpAddr>,
    ports: Vec<PublishedPort>,
}

impl Options {
    /// `None` if help is wanted; what is wrong comes as a line.
    pub(crate) fn parse(mut args: lexopt::Parser) -> Result<Option<Self>, String> {
        let mut words = Words::default();
        let (mut state, mut host_netns, mut json) = (PathBuf::from("/run/bridge-net"), None, false);
        while let Some(arg) = args.next().map_err(|e| e.to_string())? {
            match arg {
                Long("subnet" | "subnet6") => words.subnets.push(value(&mut args, "a subnet, such as 10.88.0.0/16")?),
                Long("internal") => words.internal = true,
                Long("icc") => {
                    words.icc_off = match value::<String>(&mut args, "on or off")?.as_str() {
                        "on" => false,
                        "off" => true,
                        other => return Err(format!("--icc {other:?} is not on or off")),
                    }
                }
                Long("netns") => words.netns = Some(args.value().map_err(|e| e.to_string())?.into()),
                Long("ip") => words.addresses.push(value(&mut args, "an address")?),
                Long("publish") => words.ports.push(value(&mut args, "[ADDR:]8080:80[/tcp|udp|sctp]")?),
                Long("state") => state = args.value().map_err(|e| e.to_string())?.into(),
                Long("host-netns") => host_netns = Some(args.value().map_err(|e| e.to_string())?.into()),
                Long("json") => json = true,
                Long("help") | Short('h') => return Ok(None),
                Value(word) => words.names.push(word.into_string().map_err(|word| format!("{word:?} is not text"))?),
                other => return Err(other.unexpected().to_string()),
            }
        }
        Ok(Some(Options { command: words.command()?, state, host_netns, json }))
    }
}

impl Words {
    fn command(self) -> Result<Command, String> {
        let mut names = self.names.into_iter();
        let verb = names.next().ok_or("what is to be done? up, attach, detach, check, plan, reapply, gc or down")?;
        let network = names.next();
        if let Some(more) = names.next() {
            return Err(format!("{more:?} is one name too many"));
        }
        let needed = || network.clone().ok_or_else(|| format!("{verb}: which network?"));
        let netns = || self.netns.clone().ok_or_else(|| format!("{verb}: which namespace? --netns PATH"));
        match verb.as_str() {
            "up" if self.subnets.is_empty() => Err("up: which addresses? --subnet 10.88.0.0/16".into()),
            "up" => {
                let (subnets, icc) = (self.subnets, !self.icc_off);
                Ok(Command::Up(Up { network: needed()?, subnets, internal: self.internal, icc }))
            }
            "attach" => {
                let (network, netns) = (needed()?, netns()?);
                Ok(Command::Attach(Attach { network, netns, addresses: self.addresses, ports: self.ports }))
            }
            "detach" => Ok(Command::Detach { network: needed()?, netns: netns()? }),
            "check" => Ok(Command::Check { network }),
            "plan" => Ok(Command::Plan { network }),
            "reapply" => Ok(Command::Reapply { network }),
            "gc" => Ok(Command::Gc { network }),
            "down" => Ok(Command::Down { network: needed()? }),
            other => Err(format!("{other:?} is no command")),
        }
    }
}

fn value<T: FromStr>(args: &mut lexopt::Parser, what: &str) -> Result<T, String> {
    let value = args.value().map_err(|e| e.to_string())?;
    value.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| format!("{value:?} is not {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Options>, String> {
        Options::parse(lexopt::Parser::from_args(line.split(' ').filter(|word| !word.is_empty())))
    }

    #[test]
    fn commands() {
        let up = parse("up br0 --subnet 10.88.0.0/16 --subnet6 fd00::/64 --icc off --state /tmp/x").unwrap().unwrap();
        assert!(matches!(&up.command, Command::Up(up) if up.subnets.len() == 2 && !up.icc && !up.internal));
        assert_eq!(up.state, PathBuf::from("/tmp/x"));
        let attach = parse("attach br0 --netns /run/netns/a --publish 127.0.0.1:8080:80 --publish 53:53/udp --json");
        assert!(matches!(attach.unwrap().unwrap().command, Command::Attach(attach) if attach.ports.len() == 2));
        assert!(matches!(parse("gc").unwrap().unwrap().command, Command::Gc { network: None }));
        assert!(parse("--help").unwrap().is_none());
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "",
            "fly",
            "up br0",
            "up --subnet 10.0.0.0/8",
            "up br0 --subnet x",
            "attach br0",
            "detach --netns /x",
            "down",
            "gc a b",
            "up br0 --subnet 10.0.0.0/8 --icc maybe",
            "attach br0 --netns /x --publish 80",
            "check --color",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}

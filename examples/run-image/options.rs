//! The command line. Pure: nothing is looked at but the arguments.

use cofferdam_cgroups::{Controllers, CpuQuota, Limits};
use cofferdam_image::Selection;
use cofferdam_netlink_bridge::PublishedPort;
use lexopt::prelude::*;
use std::ffi::OsString;
use std::path::PathBuf;

pub(crate) const HELP: &str = "\
Runs a program in a container made from an image.

usage: run-image oci:DIR[:TAG] [options] [-- CMD [ARG...]]
  --cpus N                    at most that much CPU time: 0.5 is half of one core
  --memory SIZE               at most that much memory, and no swap: 64M, 1G, or bytes
  --size SIZE                 at most that much in files of its own
  --network none|bridge|host|container:NAME
                              loopback alone (default); an address on a bridge that containers share, who know each other's
                              names; the host's own; that of a container on the bridge
  --publish [ADDR:]8080:80[/tcp|udp|sctp]
                              a port of the host, or a range 8000-8010:80-90, that leads to the container; with --network bridge
  --init                      in front of the program a process 1 that waits for orphans and sends signals on
  --name NAME                 its host name, and the name of its cgroup
  --store DIR                 the folder of the layers (/var/lib/run-image; a user's: ~/.local/share/run-image)
  --help                      print this

Exit status: the program's, or 128 and the number of the signal that ended it or run-image; 127 and 126 if there is
no such program or it cannot be started, 125 for other failures, 2 for bad usage.

As root, the container's root is the host's root, with all its rights: run only what you trust. As an ordinary user
it is that user, in a user namespace. Layers are unpacked once, and stay until the store is removed. What the program writes
is in the store, too, until it ends; what is left of one that was killed goes with the next one.
";

/// What the user wants.
#[derive(Debug)]
pub(crate) enum Command {
    Run(Box<Options>),
    Help,
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) layout: PathBuf,
    pub(crate) selection: Selection,
    pub(crate) command: Vec<OsString>,
    pub(crate) controllers: Controllers,
    pub(crate) limits: Limits,
    pub(crate) network: Network,
    pub(crate) ports: Vec<PublishedPort>,
    pub(crate) name: String,
    pub(crate) init: bool,
    /// How much it may write, in bytes.
    pub(crate) size: Option<u64>,
    pub(crate) store: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Network {
    Bridge,
    None,
    Host,
    Container(String),
}

impl Options {
    /// What is wrong comes as a line.
    pub(crate) fn parse(mut args: lexopt::Parser) -> Result<Command, String> {
        let (mut source, mut command) = (None, Vec::new());
        let (mut controllers, mut limits) = (Controllers::empty(), Limits::new());
        let mut ports: Vec<PublishedPort> = Vec::new();
        let (mut written, mut store) = (None, None);
        let (mut network, mut name) = (Network::None, format!("run-image-{}", std::process::id()));
        let mut init = false;
        while let Some(arg) = args.next().map_err(|e| e.to_string())? {
            match arg {
                Long("cpus") => {
                    let text = text(&mut args)?;
                    let quota = text.parse().ok().and_then(|cores| CpuQuota::cores(cores).ok());
                    limits = limits.cpu_quota(quota.ok_or_else(|| format!("--cpus {text:?} is not 0.001 to 4096"))?);
                    controllers |= Controllers::CPU;
                }
                Long("memory") => {
                    let text = text(&mut args)?;
                    let bytes = size(&text).ok_or_else(|| format!("--memory {text:?} is not a size, such as 64M"))?;
                    limits = limits.memory(bytes).swap(0);
                    controllers |= Controllers::MEMORY;
                }
                Long("size") => {
                    let text = text(&mut args)?;
                    written = Some(size(&text).ok_or_else(|| format!("--size {text:?} is not a size, such as 64M"))?);
                }
                Long("store") => store = Some(args.value().map_err(|e| e.to_string())?.into()),
                Long("network") => network = mode(&text(&mut args)?)?,
                Long("publish") => {
                    let text = text(&mut args)?;
                    let port = text.parse().map_err(|error| format!("--publish {text:?}: {error}"))?;
                    ports.push(port);
                }
                Long("name") => name = text(&mut args)?,
                Long("init") => init = true,
                Long("help") | Short('h') => return Ok(Command::Help),
                Value(first) if source.is_none() => source = Some(first),
                Value(first) => {
                    command.push(first);
                    command.extend(args.raw_args().map_err(|e| e.to_string())?);
                }
                other => return Err(other.unexpected().to_string()),
            }
        }
        if !ports.is_empty() && network != Network::Bridge {
            return Err("--publish needs --network bridge".into());
        }
        let source = source.ok_or("which image? oci:DIR or oci:DIR:TAG")?;
        let (layout, selection) = image(&source)?;
        let size = written;
        let options =
            Options { layout, selection, command, controllers, limits, network, ports, name, init, size, store };
        Ok(Command::Run(Box::new(options)))
    }
}

/// `oci:DIR[:TAG]`. The first colon ends the folder: a tag may have more.
fn image(source: &OsString) -> Result<(PathBuf, Selection), String> {
    let wrong = || format!("{source:?} is not oci:DIR or oci:DIR:TAG");
    let rest = source.to_str().and_then(|text| text.strip_prefix("oci:")).ok_or_else(wrong)?;
    let (folder, tag) = match rest.split_once(':') {
        Some((folder, tag)) => (folder, Some(tag)),
        None => (rest, None),
    };
    if folder.is_empty() || tag == Some("") {
        return Err(wrong());
    }
    let selection = Selection::new();
    Ok((folder.into(), tag.map_or(selection.clone(), |tag| selection.reference(tag))))
}

fn mode(text: &str) -> Result<Network, String> {
    match text {
        "bridge" => Ok(Network::Bridge),
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        _ => match text.strip_prefix("container:") {
            Some(name) if !name.is_empty() => Ok(Network::Container(name.to_owned())),
            _ => Err(format!("--network {text:?} is not bridge, none, host or container:NAME")),
        },
    }
}

/// Bytes, or with a unit of 1024.
fn size(text: &str) -> Option<u64> {
    let units = [('K', 10), ('M', 20), ('G', 30)];
    let unit = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(*unit)?, *shift)));
    let (number, shift) = unit.unwrap_or((text, 0));
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn text(args: &mut lexopt::Parser) -> Result<String, String> {
    let value = args.value().map_err(|e| e.to_string())?;
    value.into_string().map_err(|value| format!("{value:?} is not text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options, String> {
        match Options::parse(lexopt::Parser::from_args(args))? {
            Command::Run(options) => Ok(*options),
            Command::Help => Err("help".into()),
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("64M", Some(64 << 20)), ("1G", Some(1 << 30)), ("4096", Some(4096)), ("2K", Some(2048))]
        {
            assert_eq!(size(text), bytes, "{text}");
        }
        for text in ["", "M", "-1M", "1T", "1.5G", "99999999999G"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn everything_at_once() {
        let line = "oci:/images/box:host:5/latest --cpus 0.5 --size 1G --store /layers --memory 64M --network host --name box --init -- sh -c --help";
        let options = parse(&line.split(' ').collect::<Vec<_>>()).unwrap();
        assert_eq!((options.layout, options.network), ("/images/box".into(), Network::Host));
        assert_eq!(options.command, ["sh", "-c", "--help"]);
        assert!(options.init);
        assert_eq!((options.size, options.store), (Some(1 << 30), Some("/layers".into())));
        assert_eq!(options.controllers, Controllers::CPU | Controllers::MEMORY);
        let options = parse(&["oci:x", "--network", "bridge", "--publish", "80:80", "--publish", "53:53/udp"]).unwrap();
        assert_eq!(options.ports.len(), 2);
        let options = parse(&["oci:x", "--network", "container:web"]).unwrap();
        assert_eq!(options.network, Network::Container("web".into()));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "",
            "box",
            "oci:",
            "oci:x:",
            "oci:x --cpus 0",
            "oci:x --memory lots",
            "oci:x --size lots",
            "oci:x --network up",
            "oci:x --network container:",
            "oci:x --network container:web --publish 80:80",
            "oci:x --no",
            "oci:x --publish 80:80",
            "oci:x --network bridge --publish 80",
        ] {
            let args: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
            assert!(parse(&args).is_err(), "{line}");
        }
    }
}

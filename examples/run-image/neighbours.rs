//! The containers on the bridge: who has which address, and under which name the others know it.

use crate::network::FOLDER;
use crate::{Result, say};
use cofferdam_netlink_bridge::{ErrorKind, Hosts};
use nix::fcntl::{Flock, FlockArg};
use std::fmt::Display;
use std::fs::{File, metadata, read_dir, read_to_string, remove_file};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const SUBNET: [u8; 3] = [10, 107, 77];

/// An address that nobody else has: who has the lock on its file has it, for as long as they live. For one's turn at the bridge.
pub(crate) struct Lease {
    pub(crate) address: Ipv4Addr,
    path: PathBuf,
    lock: Flock<File>,
}

impl Lease {
    pub(crate) fn take() -> Result<Self> {
        for last in 2..=254 {
            let address = address(last);
            let path = Path::new(FOLDER).join(address.to_string());
            let file = File::options().create(true).truncate(false).write(true).open(&path);
            let file = file.map_err(|e| format!("open {path:?}: {e}"))?;
            if let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // Of one who died.
                lock.set_len(0)?;
                return Ok(Lease { address, path, lock });
            }
        }
        Err("all addresses of the bridge are in use".into())
    }

    /// Says for whom it is: a process of the container, and its name.
    pub(crate) fn sign(&mut self, process: u32, name: &str) -> Result<()> {
        let (host, own) = (network_of("thread-self")?, network_of(process)?);
        Ok(writeln!(self.lock, "{host} {process} {own} {name}")?)
    }

    pub(crate) fn give_back(&self) {
        // If the file stays, nobody has it locked.
        let _ = remove_file(&self.path);
    }
}

pub(crate) fn address(last: u8) -> Ipv4Addr {
    let [a, b, c] = SUBNET;
    Ipv4Addr::new(a, b, c, last)
}

/// A container on the bridge.
pub(crate) struct Neighbour {
    pub(crate) address: Ipv4Addr,
    /// Its first process. Its number can be another's, if it has just ended: see [`is`](Self::is).
    pub(crate) process: u32,
    /// By which its network namespace is known.
    network: u64,
    pub(crate) name: String,
}

impl Neighbour {
    /// Whether this is its network namespace.
    pub(crate) fn is(&self, network: u64) -> bool {
        self.network == network
    }
}

/// All containers on this host's bridge, by their addresses. For one's turn.
pub(crate) fn all() -> Result<Vec<Neighbour>> {
    let mut all = Vec::new();
    for entry in read_dir(FOLDER)? {
        let entry = entry?;
        let Ok(address) = entry.file_name().to_string_lossy().parse() else { continue };
        let is_alive = Flock::lock(File::open(entry.path())?, FlockArg::LockSharedNonblock).is_err();
        let text = read_to_string(entry.path())?;
        let words: Vec<_> = text.trim_end().splitn(4, ' ').collect();
        if let (true, [host, process, network, name]) = (is_alive, words.as_slice())
            && host.parse() == Ok(network_of("thread-self")?)
            && let (Ok(process), Ok(network)) = (process.parse(), network.parse())
        {
            all.push(Neighbour { address, process, network, name: (*name).to_owned() });
        }
    }
    all.sort_unstable_by_key(|neighbour| neighbour.address);
    Ok(all)
}

/// By which a process' network namespace is known. The folder is the same for those who play another host, whose bridge is another.
fn network_of(process: impl Display) -> Result<u64> {
    Ok(metadata(format!("/proc/{process}/ns/net"))?.ino())
}

/// Writes the names of all into the `/etc/hosts` of each. What fails for the one that is new is an error; what fails for others is said.
pub(crate) fn tell(new: Option<u32>) -> Result<()> {
    let all = all()?;
    let hosts = all.iter().try_fold(Hosts::new(), |hosts, one| hosts.entry(one.address, [&one.name]))?;
    for neighbour in &all {
        // Its root, as it sees it: no link of the container's leads out of it.
        let root = File::open(format!("/proc/{}/root", neighbour.process));
        // It may have ended, and its number be another's, of the host for example. This is asked when the root is open: then both are of the same one.
        let written = match (root, network_of(neighbour.process)) {
            (Ok(root), Ok(network)) if neighbour.is(network) => hosts.write(root, "etc/hosts"),
            _ => continue,
        };
        match written {
            // An image without the folder has nobody who would look there.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if new == Some(neighbour.process) => return Err(error.into()),
            Err(error) => say(&format!("{}: {error}", neighbour.name)),
            Ok(()) => {}
        }
    }
    Ok(())
}

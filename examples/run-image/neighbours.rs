//! The containers on the bridge: who has which address, and under which name the others know it.

use crate::network::FOLDER;
use crate::{Result, say};
use cofferdam_netlink_bridge::{ErrorKind, Hosts};
use nix::fcntl::{Flock, FlockArg};
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
        Ok(writeln!(self.lock, "{} {process} {name}", host()?)?)
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
    address: Ipv4Addr,
    /// Its first process, which whoever has the lease has not waited for yet.
    pub(crate) process: u32,
    pub(crate) name: String,
}

/// All containers on this host's bridge, by their addresses. For one's turn.
pub(crate) fn all() -> Result<Vec<Neighbour>> {
    let mut all = Vec::new();
    for entry in read_dir(FOLDER)? {
        let entry = entry?;
        let Ok(address) = entry.file_name().to_string_lossy().parse() else { continue };
        let is_alive = Flock::lock(File::open(entry.path())?, FlockArg::LockSharedNonblock).is_err();
        let text = read_to_string(entry.path())?;
        let mut words = text.trim_end().splitn(3, ' ');
        if let (true, Some(of), Some(process), Some(name)) = (is_alive, words.next(), words.next(), words.next())
            && of == host()?
            && let Ok(process) = process.parse()
        {
            all.push(Neighbour { address, process, name: name.to_owned() });
        }
    }
    all.sort_unstable_by_key(|neighbour| neighbour.address);
    Ok(all)
}

/// Of which network namespace the bridge is: another one's containers have the same folder.
fn host() -> Result<String> {
    Ok(metadata("/proc/thread-self/ns/net")?.ino().to_string())
}

/// Writes the names of all into the `/etc/hosts` of each. What fails for the one that is new is an error; what fails for others is said.
pub(crate) fn tell(new: Option<u32>) -> Result<()> {
    let all = all()?;
    let hosts = all.iter().try_fold(Hosts::new(), |hosts, one| hosts.entry(one.address, [&one.name]))?;
    for neighbour in &all {
        // Its root, as it sees it: no link of the container's leads out of it.
        let written = match File::open(format!("/proc/{}/root", neighbour.process)) {
            Ok(root) => hosts.write(root, "etc/hosts"),
            // It has just ended.
            Err(_) => continue,
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

//! What is kept between calls: a folder for each network, with its spec, its endpoints and who has which address.

use crate::Result;
use cofferdam_netlink_bridge::{Endpoint, FilePool, NetworkSpec};
use nix::fcntl::{Flock, FlockArg};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Locked while it is open.
pub(crate) struct State {
    folder: PathBuf,
    _lock: Flock<File>,
}

/// A network as stored.
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) spec: NetworkSpec,
    pub(crate) endpoints: Vec<Endpoint>,
}

impl State {
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let locked = || {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            Flock::lock(File::open(folder)?, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
        };
        let lock = locked().map_err(|e: std::io::Error| format!("lock {}: {e}", folder.display()))?;
        Ok(State { folder: folder.to_owned(), _lock: lock })
    }

    /// The names of all networks, sorted.
    pub(crate) fn networks(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.path().join("network").exists() {
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// A network; nothing if it was never made, or is gone.
    pub(crate) fn load(&self, name: &str) -> Result<Option<Stored>> {
        let folder = self.of(name)?;
        let Some(spec) = read(&folder.join("network"))? else { return Ok(None) };
        let mut endpoints = Vec::new();
        for entry in fs::read_dir(folder.join("endpoints"))? {
            endpoints.extend(read::<Endpoint>(&entry?.path())?);
        }
        Ok(Some(Stored { name: name.to_owned(), spec, endpoints }))
    }

    /// The names of the interfaces that a namespace has, of all networks.
    pub(crate) fn interfaces_of(&self, netns: &Path) -> Result<HashSet<String>> {
        let mut interfaces = HashSet::new();
        for name in self.networks()? {
            let stored = self.load(&name)?;
            let all = stored.iter().flat_map(|stored| &stored.endpoints);
            let own = all.filter(|endpoint| Path::new(endpoint.owner()) == netns);
            interfaces.extend(own.map(|endpoint| endpoint.interface().to_owned()));
        }
        Ok(interfaces)
    }

    pub(crate) fn store_network(&self, spec: &NetworkSpec, name: &str) -> Result<()> {
        let folder = self.of(name)?;
        if !folder.join("network").exists() {
            // Of a call that was killed while it took the network away.
            gone(fs::remove_dir_all(&folder))?;
        }
        for part in ["endpoints", "addresses"] {
            DirBuilder::new().recursive(true).mode(0o700).create(folder.join(part))?;
        }
        write(&folder, "network", spec)
    }

    pub(crate) fn store_endpoint(&self, network: &str, endpoint: &Endpoint) -> Result<()> {
        write(&self.of(network)?.join("endpoints"), endpoint.port(), endpoint)
    }

    pub(crate) fn forget_endpoint(&self, network: &str, endpoint: &Endpoint) -> Result<()> {
        gone(fs::remove_file(self.of(network)?.join("endpoints").join(endpoint.port())))
    }

    pub(crate) fn forget_network(&self, name: &str) -> Result<()> {
        let folder = self.of(name)?;
        // First what says that there is a network: the rest alone means nothing.
        gone(fs::remove_file(folder.join("network")))?;
        gone(fs::remove_dir_all(folder))
    }

    pub(crate) fn pool(&self, network: &str) -> Result<FilePool> {
        Ok(FilePool::open(self.of(network)?.join("addresses"))?)
    }

    /// A network's folder: its name must be one step down.
    fn of(&self, name: &str) -> Result<PathBuf> {
        let plain = !name.is_empty() && !name.starts_with('.') && !name.contains('/');
        if plain { Ok(self.folder.join(name)) } else { Err(format!("{name:?} is no name of a network").into()) }
    }
}

fn gone(removed: std::io::Result<()>) -> Result<()> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => Ok(removed?),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    match fs::read(path) {
        // A call was killed while it wrote: what it wrote was never true.
        _ if path.extension().is_some_and(|extension| extension == "new") => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&error).into()),
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).map_err(|error| failed(&error))?)),
    }
}

/// Whole or not at all.
fn write(folder: &Path, name: &str, value: &impl Serialize) -> Result<()> {
    let new = folder.join("unfinished.new");
    fs::write(&new, serde_json::to_vec_pretty(value)?)?;
    Ok(fs::rename(new, folder.join(name))?)
}

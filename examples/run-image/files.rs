//! The container's files: the image's layers in a store that all containers share, and above them what this one writes.

use crate::options::{Network, Options};
use crate::signals::Signals;
use crate::{Result, say};
use cofferdam_image::{Image, Options as Unpacking, Policy};
use cofferdam_netlink_bridge::{Hosts, ResolvConf};
use cofferdam_unionfs::{
    Container, ContainerSpec, Fallbacks, Form, InitLayer, LayerId, LayerStore, Owner, SpaceLimit, SyncPolicy,
};
use nix::fcntl::{Flock, FlockArg};
use std::collections::BTreeSet;
use std::env::var_os;
use std::fs::{DirBuilder, File, read_to_string};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::time::SystemTime;

/// The names of those who need the layers of an image begin so. They need them until the folder is removed.
const IMAGE: &str = "image:";

/// The files of a container in the store. They are removed when this is dropped.
pub(crate) struct Files(Option<Container>);

impl Files {
    /// Unpacks what is not there yet, and makes the container's own place.
    pub(crate) fn prepare(options: &Options, image: &Image, signals: &Signals, rootless: bool) -> Result<Self> {
        let folder = folder(options, rootless)?;
        make_folder(&folder).map_err(|e| format!("make the folder {folder:?}: {e}"))?;
        collect(&folder, form(rootless))?;
        Self::prepare_in(&folder, options, image, signals, rootless).inspect_err(|_| {
            // The error that is told is the first one; what is left, such as half a layer, else goes with the next run.
            let _ = collect(&folder, form(rootless));
        })
    }

    fn prepare_in(folder: &Path, options: &Options, image: &Image, signals: &Signals, rootless: bool) -> Result<Self> {
        // Whoever collects must not do so from here on, until the container is there.
        let _turn = Flock::lock(File::open(folder)?, FlockArg::LockShared).map_err(|(_, errno)| errno)?;
        let store = LayerStore::open(File::open(folder.join("layers"))?, form(rootless))?;
        let top = unpack(image, &store, signals, rootless)?;
        let spec = ContainerSpec::new().init(init(options)).fallbacks(Fallbacks::all());
        let spec = match options.size {
            Some(bytes) => spec.limit(SpaceLimit::new().bytes(bytes)),
            None => spec,
        };
        let now = SystemTime::UNIX_EPOCH.elapsed()?.as_nanos();
        let owner = Owner::new(format!("container:{}-{now}", process::id()))?;
        // It goes with us: nothing of it has to outlive the machine.
        let store = store.sync_policy(SyncPolicy::None);
        Ok(Files(Some(store.prepare(&owner, top.as_ref(), &spec)?)))
    }

    /// All layers as one tree, to be written to.
    pub(crate) fn mount(&self) -> Result<OwnedFd> {
        Ok(self.0.as_ref().ok_or("there are no files")?.mount()?)
    }

    pub(crate) fn remove(mut self) -> Result<()> {
        Ok(self.0.take().map_or(Ok(()), Container::discard)?)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Some(container) = self.0.take() {
            // On the way out of an error, which is told instead.
            let _ = container.discard();
        }
    }
}

fn form(rootless: bool) -> Form {
    if rootless { Form::User } else { Form::Trusted }
}

/// Unpacks the layers that are not in the store, and gives the name of the topmost.
fn unpack(image: &Image, store: &LayerStore, signals: &Signals, rootless: bool) -> Result<Option<LayerId>> {
    let options = if rootless { Unpacking::rootless() } else { Unpacking::new() };
    // What cannot be had is said below.
    let options = options.policy(Policy::Lenient);
    let owner = Owner::new(format!("{IMAGE}{}", image.digest()))?;
    let told = signals.watcher()?;
    let observer = move |_| if told.told() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let unpacked = image.unpack_into(store, &owner, &options, Some(Arc::new(observer)));
    signals.check()?;
    let unpacked = unpacked?;
    for (number, report) in &unpacked.reports {
        if let Some(first) = report.skipped.first() {
            let count = report.skipped.len();
            say(&format!("layer {number}: {count} parts were left out, the first of them {first}"));
        }
    }
    Ok(unpacked.layers.last().map(|layer| layer.id().clone()))
}

/// Removes what those have left who were killed: all containers that nobody uses. Not while somebody begins: who has no container yet could not be told from the dead.
fn collect(folder: &Path, form: Form) -> Result<()> {
    let Ok(_turn) = Flock::lock(File::open(folder)?, FlockArg::LockExclusiveNonblock) else { return Ok(()) };
    let store = LayerStore::open(File::open(folder.join("layers"))?, form)?;
    let mut images = BTreeSet::new();
    for layer in store.layers()? {
        images.extend(store.owners(&layer)?.into_iter().filter(|owner| owner.as_str().starts_with(IMAGE)));
    }
    store.gc(&images)?;
    Ok(())
}

/// What the container finds of its own: places to mount at, and who it is.
fn init(options: &Options) -> InitLayer {
    let host = || ResolvConf::parse(&read_to_string("/etc/resolv.conf").unwrap_or_default());
    let resolver = match options.network {
        Network::None => String::new(),
        Network::Host => host().to_string(),
        Network::Bridge | Network::Container(_) => host().for_container(&[]).to_string(),
    };
    InitLayer::new()
        .directory("/dev")
        .directory("/proc")
        .file("/etc/hosts", Hosts::new().to_string())
        .file("/etc/hostname", format!("{}\n", options.name))
        .file("/etc/resolv.conf", resolver)
}

/// Where the store is, unless it was said. Root and each user have their own: their layers say in different ways what they hide.
fn folder(options: &Options, rootless: bool) -> Result<PathBuf> {
    if let Some(folder) = &options.store {
        return Ok(folder.clone());
    }
    if !rootless {
        return Ok("/var/lib/run-image".into());
    }
    let home = || var_os("HOME").map(|home| Path::new(&home).join(".local/share"));
    let folder = var_os("XDG_DATA_HOME").map(PathBuf::from).or_else(home).filter(|folder| folder.is_absolute());
    Ok(folder.ok_or("there is no home to keep layers in: say --store DIR")?.join("run-image"))
}

/// Nobody else can enter it: layers have set-user-id programs.
fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder.join("layers"))
}

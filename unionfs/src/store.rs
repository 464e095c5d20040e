//! A folder of layers that several programs share.

mod about;
mod check;
mod collect;
mod containers;
mod entry;
mod id;
mod lineage;
mod lock;
mod owners;
mod recover;
mod stage;
mod sync;
mod usage;

pub use check::{Fault, Problem};
pub use collect::Collected;
pub use id::{LayerId, Owner};
pub(crate) use lock::InUse;
pub use stage::Stage;
pub use sync::SyncPolicy;
pub use usage::Usage;
pub(crate) use usage::usage as usage_of;

use crate::dir::{Dir, open_directory};
use crate::{Error, ErrorKind, Form, Layer, Operation};
use about::{AboutLayer, Unreadable};
use entry::{BootId, EntryName};
use lineage::Parents;
use lock::Lock;
use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const LAYERS: &str = "layers";
const CONTAINERS: &str = "containers";
const STAGING: &str = "staging";
const TRASH: &str = "trash";
const ABOUT: &str = "about";
const CONTENT: &str = "content";
const OWNERS: &str = "owners";

/// Layers in a folder, each under a [`LayerId`]: published whole or not at all, shared by threads and processes, kept while somebody needs them.
///
/// ```no_run
/// use cofferdam_unionfs::{Form, LayerId, LayerStore, Overlay, Owner};
///
/// # fn unpack(_: impl std::os::fd::AsFd) -> std::io::Result<()> { Ok(()) }
/// let store = LayerStore::open(std::fs::File::open("/var/lib/build/layers")?, Form::Trusted)?;
/// let image = Owner::new("image:debian-12")?;
/// let id = LayerId::new("sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef")?;
///
/// // A layer that is there is taken, one that is not is made.
/// let layer = match store.acquire(&id, &image)? {
///     Some(layer) => layer,
///     None => {
///         let stage = store.stage(&image)?;
///         unpack(&stage)?;
///         stage.publish_or_take(&id, None)?
///     }
/// };
/// let root = Overlay::new().lowers(store.chain(layer.id())?).mount()?;
///
/// // Later, perhaps in another process: what nobody needs goes.
/// let live = [image];
/// let report = store.gc(&live)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # The life of a layer
///
/// 1. [`stage`](Self::stage) gives an empty directory, to be filled by any means. Nobody else sees it.
/// 2. [`Stage::publish`] writes what has to be known of it, waits for the disk as the [`SyncPolicy`] says, and *renames* the directory into its place. That
///    rename is the only moment that matters: before it the layer is not there, after it the whole layer is, with its parent and with the stage's
///    owner as the first who needs it.
/// 3. From then on its files are nobody's to change. [`acquire`](Self::acquire) and [`release`](Self::release) add and
///    remove those who need it; a layer is needed, too, while a layer stands on it.
/// 4. [`gc`](Self::gc) is told which owners are alive. Layers that nobody needs are renamed away, and deleted after that.
///
/// What a container writes on top of them is a [`Container`](crate::Container), by [`prepare`](Self::prepare).
///
/// # After a crash
///
/// [`open`](Self::open) cleans up what was in the middle of 1, 2 or 4: stages whose process has ended, and what was being deleted. It never waits
/// for a living stage and never touches one. There is no journal and no database: the name of a directory says its state, and
/// renaming is how it changes. So a process may be killed anywhere.
///
/// # After a loss of power
///
/// A layer that was published with [`SyncPolicy::None`] has the machine's boot id in its directory's name. In another run of the machine it is not believed, and
/// `open` removes it. With the other policies a published layer is on the disk when `publish` returns.
///
/// # On disk
///
/// ```text
/// about                     the version, and the form of all layers
/// lock                      flock(2): shared to add, alone to publish and to delete; held for some system calls only
/// layers/ID                 a layer; layers/ID~BOOT if its content may not be on the disk yet
/// layers/ID/about           its parent, and whether its root is opaque
/// layers/ID/content/        what is mounted
/// layers/ID/owners/OWNER    who needs it: empty files
/// containers/OWNER          a container's files; containers/OWNER~BOOT as with layers; in use while somebody has its flock(2)
/// staging/N/                as a layer or a container, on its way in; in use while somebody has its flock(2)
/// trash/N/                  on its way out
/// ```
///
/// The folders are mode 0700: layers have set-user-id programs. The file system must know `flock(2)` and `renameat2(2)`; what it is needs for layers
/// is overlayfs' concern. `/proc` must be mounted (for the boot id).
#[derive(Debug, Clone)]
#[doc(alias("snapshotter", "graphdriver", "content store"))]
pub struct LayerStore {
    shared: Arc<Shared>,
    sync: SyncPolicy,
}

#[derive(Debug)]
struct Shared {
    root: Dir,
    layers: Dir,
    containers: Dir,
    staging: Dir,
    trash: Dir,
    form: Form,
    boot: BootId,
    /// For names in `staging` and `trash`, of which nothing is expected but that they differ.
    count: AtomicU64,
}

/// A layer that is published: its directory, open for reading, and what is known of it.
///
/// It gives itself to an [`Overlay`](crate::Overlay) as a lower. The descriptor does not keep the layer: an [owner](LayerStore::acquire) does.
#[derive(Debug, Clone)]
pub struct StoredLayer {
    id: LayerId,
    parent: Option<LayerId>,
    content: Arc<OwnedFd>,
    opaque_root: bool,
    synced: bool,
}

impl LayerStore {
    /// Opens the store in a folder, after making it there if the folder is empty, and cleans up what a crash has left.
    ///
    /// The folder is the caller's, and only the caller should be able to write to it. `form` is how the layers say what is hidden: the store remembers
    /// it, and all who open it must agree. Blocks while another thread or process holds the lock, and while what a crash has left is deleted. What of that
    /// cannot be deleted is in nobody's way: [`empty_trash`](Self::empty_trash) says why.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the folder has other things in it, or layers in another form;
    /// [`Unsupported`](ErrorKind::Unsupported) for a store of a later version; [`Corrupt`](ErrorKind::Corrupt); what the system calls say.
    pub fn open(dir: impl AsFd, form: Form) -> Result<Self, Error> {
        let operation = Operation::OpenStore;
        let root = open_directory(dir, ".").map_err(|e| Error::os(operation, "openat2", e).about("."))?;
        let root = Dir::new(root, "");
        let lock = Lock::alone(&root, operation)?;
        recover::prepare(&root, form)?;
        let open = |name| root.open(operation, name);
        let (layers, containers, staging, trash) = (open(LAYERS)?, open(CONTAINERS)?, open(STAGING)?, open(TRASH)?);
        let boot = boot_id(operation)?;
        let shared = Shared { root, layers, containers, staging, trash, form, boot, count: AtomicU64::new(0) };
        let store = LayerStore { shared: Arc::new(shared), sync: SyncPolicy::default() };
        store.shared.set_aside_what_is_dead(&lock, operation)?;
        drop(lock);
        store.shared.empty_trash(operation)?;
        Ok(store)
    }

    /// What this handle does so that its work outlives a loss of power. By default [`SyncPolicy::Filesystem`].
    #[must_use]
    pub fn sync_policy(mut self, policy: SyncPolicy) -> Self {
        self.sync = policy;
        self
    }

    /// How all layers say what is hidden.
    #[must_use]
    pub fn form(&self) -> Form {
        self.shared.form
    }

    /// Looks a layer up. That alone keeps it from nothing: see [`acquire`](Self::acquire).
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt); what the system calls say. That there is none is no error.
    pub fn layer(&self, id: &LayerId) -> Result<Option<StoredLayer>, Error> {
        let operation = Operation::FindLayer;
        let lock = Lock::shared(&self.shared.root, operation)?;
        self.shared.find(&lock, operation, id)?.map(|found| found.load(operation, id)).transpose()
    }

    /// A layer and all that it stands on, topmost first: the lowers of an [`Overlay`](crate::Overlay). Takes a descriptor for each.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound); [`Corrupt`](ErrorKind::Corrupt); what the system calls say.
    pub fn chain(&self, id: &LayerId) -> Result<Vec<StoredLayer>, Error> {
        let operation = Operation::FindLayer;
        let lock = Lock::shared(&self.shared.root, operation)?;
        let mut chain: Vec<StoredLayer> = Vec::new();
        let mut seen = HashSet::new();
        let mut next = Some(id.clone());
        while let Some(id) = next.take() {
            let found = self.shared.find(&lock, operation, &id)?;
            let layer = match found {
                Some(found) => found.load(operation, &id)?,
                None if chain.is_empty() => return Err(no_such_layer(operation, &id)),
                None => return Err(Error::corrupt(operation, id.as_str(), "is not there, and a layer stands on it")),
            };
            if seen.contains(&id) {
                return Err(Error::corrupt(operation, id.as_str(), "stands on itself"));
            }
            seen.insert(id);
            next.clone_from(&layer.parent);
            chain.push(layer);
        }
        Ok(chain)
    }

    /// All layers, in the order of their names.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn layers(&self) -> Result<Vec<LayerId>, Error> {
        let operation = Operation::FindLayer;
        let lock = Lock::shared(&self.shared.root, operation)?;
        let mut ids: Vec<LayerId> = self.shared.entries(&lock, operation)?.into_iter().map(|entry| entry.id).collect();
        ids.sort_unstable();
        Ok(ids)
    }
}

/// A layer's directory in `layers`.
struct Found {
    name: EntryName,
    dir: Dir,
}

impl Shared {
    /// The lock is a witness: nobody renames a layer meanwhile.
    fn find(&self, _: &Lock, operation: Operation, id: &LayerId) -> Result<Option<Found>, Error> {
        for unsynced in [None, Some(self.boot.clone())] {
            let name = EntryName { id: id.clone(), unsynced };
            if let Some(dir) = self.layers.find(operation, name.to_os_string())? {
                return Ok(Some(Found { name, dir }));
            }
        }
        Ok(None)
    }

    fn find_or_fail(&self, lock: &Lock, operation: Operation, id: &LayerId) -> Result<Found, Error> {
        self.find(lock, operation, id)?.ok_or_else(|| no_such_layer(operation, id))
    }

    /// The layers that can be believed.
    fn entries(&self, _: &Lock, operation: Operation) -> Result<Vec<EntryName>, Error> {
        let names = self.layers.names(operation)?;
        Ok(names
            .iter()
            .filter_map(|name| EntryName::parse(name))
            .filter(|entry| !entry.is_doubtful(&self.boot))
            .collect())
    }

    /// What stands on what.
    fn parents(&self, lock: &Lock, operation: Operation) -> Result<Parents, Error> {
        let mut parents = Parents::new();
        for entry in self.entries(lock, operation)? {
            let about = Found::about(&self.layers.open(operation, entry.to_os_string())?, operation)?;
            parents.insert(entry.id, about.parent);
        }
        Ok(parents)
    }

    /// A name that nothing in `staging` or `trash` is likely to have.
    fn fresh_name(&self) -> OsString {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        format!("{}-{count}", rustix::process::getpid().as_raw_nonzero()).into()
    }
}

impl Found {
    /// What is known of a layer; that it cannot be read is an error.
    fn about(dir: &Dir, operation: Operation) -> Result<AboutLayer, Error> {
        about(dir, operation)?.map_err(|why| unreadable(operation, dir.path(), why))
    }

    /// One of the folders that every layer has.
    fn folder(dir: &Dir, operation: Operation, name: &str) -> Result<Dir, Error> {
        dir.find(operation, name)?.ok_or_else(|| Error::corrupt(operation, dir.path().join(name), "is missing"))
    }

    fn owners(&self, operation: Operation) -> Result<Dir, Error> {
        Self::folder(&self.dir, operation, OWNERS)
    }

    fn load(self, operation: Operation, id: &LayerId) -> Result<StoredLayer, Error> {
        let about = Self::about(&self.dir, operation)?;
        let content = Self::folder(&self.dir, operation, CONTENT)?.into_fd();
        Ok(StoredLayer {
            id: id.clone(),
            parent: about.parent,
            content: Arc::new(content),
            opaque_root: about.opaque_root,
            synced: self.name.unsynced.is_none(),
        })
    }
}

impl StoredLayer {
    /// Under which name it was published.
    #[must_use]
    pub fn id(&self) -> &LayerId {
        &self.id
    }

    /// The layer that it stands on.
    #[must_use]
    pub fn parent(&self) -> Option<&LayerId> {
        self.parent.as_ref()
    }

    /// Whether its root hides all that is below, so that nothing of its parents is ever seen.
    #[must_use]
    pub fn has_opaque_root(&self) -> bool {
        self.opaque_root
    }

    /// Whether it is known to be on the disk: see [`SyncPolicy`].
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced
    }
}

/// The directory with the layer's content, open for reading.
impl AsFd for StoredLayer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.content.as_fd()
    }
}

impl From<&StoredLayer> for Layer {
    fn from(layer: &StoredLayer) -> Self {
        Layer::ready(&layer.content).root_is_opaque(layer.opaque_root)
    }
}

impl From<StoredLayer> for Layer {
    fn from(layer: StoredLayer) -> Self {
        (&layer).into()
    }
}

/// What a layer's directory says of itself.
fn about(dir: &Dir, operation: Operation) -> Result<Result<AboutLayer, Unreadable>, Error> {
    Ok(about_text(dir, operation)?.map_or(Err(Unreadable::Damaged), |text| AboutLayer::parse(&text)))
}

/// `None`: it is not there, or damaged beyond reading.
fn about_text(dir: &Dir, operation: Operation) -> Result<Option<Vec<u8>>, Error> {
    match dir.read(operation, ABOUT) {
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(None),
        result => result,
    }
}

fn unreadable(operation: Operation, path: &Path, why: Unreadable) -> Error {
    let path = path.join(ABOUT);
    match why {
        Unreadable::Version => {
            let words = "was written by a later version of this crate";
            Error::explained(ErrorKind::Unsupported, operation, words).about(path)
        }
        Unreadable::Damaged => Error::corrupt(operation, path, "is missing or damaged"),
    }
}

fn no_such_layer(operation: Operation, id: &LayerId) -> Error {
    Error::explained(ErrorKind::NotFound, operation, "there is no such layer").about(id.as_str())
}

fn boot_id(operation: Operation) -> Result<BootId, Error> {
    const FOLDER: &str = "/proc/sys/kernel/random";
    let fail = |e| Error::os(operation, "openat", e).about(FOLDER);
    let folder =
        rustix::fs::open(FOLDER, rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty());
    let folder = Dir::new(folder.map_err(fail)?, FOLDER);
    let text = folder.read(operation, "boot_id")?.and_then(|text| BootId::parse(&text));
    text.ok_or_else(|| Error::explained(ErrorKind::Unsupported, operation, "does not say the boot id").about(FOLDER))
}

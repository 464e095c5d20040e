//! The files of a container: layers below, what it writes above.

mod backend;
mod commit;
mod files;
mod init;
mod spec;

pub use backend::Backend;
pub use init::InitLayer;
pub use spec::ContainerSpec;

pub(crate) use files::{Copied, Files, Overlaid};
pub(crate) use init::{InitEntry, InitPlaces};

use crate::limit::Room;
use crate::store::{InUse, usage_of};
use crate::{Diff, Error, Fallbacks, LayerId, LayerStore, Operation, Overlay, Owner, Space, Usage};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The files of a container in a [`LayerStore`]: a layer of the store and all below it, an [`InitLayer`] on them, and what the container writes.
///
/// ```no_run
/// use cofferdam_unionfs::{ContainerSpec, Form, InitLayer, LayerId, LayerStore, Owner};
///
/// let store = LayerStore::open(std::fs::File::open("/var/lib/build/layers")?, Form::Trusted)?;
/// let debian: LayerId = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef".parse()?;
///
/// let spec = ContainerSpec::new().init(InitLayer::usual());
/// let container = store.prepare(&Owner::new("build:42")?, Some(&debian), &spec)?;
/// let root = container.mount()?;
/// // ... a program runs in it, and then:
/// drop(root);
/// container.commit(&LayerId::new("build-42-done")?)?;
/// container.discard()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # The life of a container's files
///
/// 1. [`LayerStore::prepare`] notes that the owner needs the layer, and makes the place. After a crash there is a whole one or none.
/// 2. [`mount`](Self::mount) gives the root to write to, one at a time; [`view`](Self::view) a read-only one of what is there.
/// 3. [`commit`](Self::commit) makes a layer of what has changed, as often as one likes. The container goes on as before, on what it stood on.
/// 4. [`discard`](Self::discard) removes it, and the note. Or its owner dies, and [`LayerStore::gc`] does.
///
/// Meanwhile the process may end: [`LayerStore::container`] finds it again. As long as this value lives, in any process, the container is in use: nobody else gets it, and
/// `gc` leaves it and its layers alone. Dropping the value deletes nothing.
#[derive(Debug)]
#[doc(alias("snapshot", "rwlayer"))]
pub struct Container {
    pub(crate) store: LayerStore,
    pub(crate) owner: Owner,
    pub(crate) parent: Option<LayerId>,
    pub(crate) backend: Backend,
    pub(crate) fallbacks: Fallbacks,
    pub(crate) places: InitPlaces,
    pub(crate) files: Box<dyn Files>,
    pub(crate) room: Option<Room>,
    /// Holds the flock(2) by which others see that it is in use.
    pub(crate) dir: InUse,
}

impl Container {
    /// Whose files they are: one owner has one container at most.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The layer that it stands on.
    #[must_use]
    pub fn parent(&self) -> Option<&LayerId> {
        self.parent.as_ref()
    }

    /// How its files are kept.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// What may be done instead where the kernel is older, at each of its mounts.
    #[must_use]
    pub fn fallbacks(&self) -> Fallbacks {
        self.fallbacks
    }

    /// Mounts it, attached nowhere, as [`Overlay::mount`] does. One such mount at a time.
    ///
    /// # Errors
    /// As [`Overlay::mount`].
    pub fn mount(&self) -> Result<OwnedFd, Error> {
        self.files.mount()
    }

    /// Mounts what is there now, read-only. If the container is mounted and written to meanwhile, the kernel does not say what is seen.
    ///
    /// # Errors
    /// As [`Overlay::mount`].
    #[doc(alias = "snapshot")]
    pub fn view(&self) -> Result<OwnedFd, Error> {
        self.files.view()
    }

    /// The stack that [`mount`](Self::mount) mounts, for options of one's own. `None` with another back-end than [`Backend::Overlay`]. What becomes of
    /// [`commit`](Self::commit) with `metacopy` or `redirect_dir` is told by [`Overlay::diff`], which is asked of this one with the defaults: so
    /// do not use these two.
    #[must_use]
    pub fn overlay(&self) -> Option<Overlay> {
        self.files.overlay()
    }

    /// The directory of all its files, open for reading. `None` unless the back-end is [`Backend::Copy`]: for those who may not mount.
    #[must_use]
    pub fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.files.directory()
    }

    /// What it changes about the layers that it stands on, nothing of the [`InitLayer`] among it. Nothing may write to it meanwhile.
    ///
    /// # Errors
    /// As [`Overlay::diff`].
    pub fn diff(&self) -> Result<Diff, Error> {
        let mut diff = self.files.changes(&self.store, &self.owner)?;
        diff.keep_only(&self.places);
        Ok(diff)
    }

    /// How much of the disk it takes, without the layers that it stands on.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn usage(&self) -> Result<Usage, Error> {
        usage_of(self.files.own(), Operation::MeasureUsage)
    }

    /// How much it has written, and may, if it has a [limit](ContainerSpec::limit). The kernel keeps count: nothing is gone through.
    ///
    /// # Errors
    /// What the system calls say.
    #[doc(alias("quota", "df"))]
    pub fn space(&self) -> Result<Option<Space>, Error> {
        self.room.as_ref().map(|room| room.space(self.as_fd())).transpose()
    }

    /// Removes it, and the note that its owner needs the layer that it stands on. Nothing may be mounted of it any more. Blocks for as long as it takes.
    ///
    /// # Errors
    /// What the system calls say; it can be found again then, or is in the trash: see [`LayerStore::empty_trash`]. What others have left there is not told here.
    pub fn discard(self) -> Result<(), Error> {
        let Container { store, owner, parent, files, room, dir, .. } = self;
        drop((files, room));
        store.discard_container(&owner, parent.as_ref(), dir)
    }
}

/// The folder in which its files are kept, as the store has it.
impl AsFd for Container {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

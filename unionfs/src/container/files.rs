//! The back-ends behind one interface.

use super::{ContainerSpec, InitEntry, InitLayer};
use crate::copy::{Copier, beneath, flatten};
use crate::dir::Dir;
use crate::facts::At;
use crate::limit::Room;
use crate::{
    AfterVolatile, Diff, Error, Fallbacks, Form, Layer, LayerStore, MAX_LOWERS, Operation, Overlay, Owner, StoredLayer,
    WritableLayer, make_opaque, mount,
};
use rustix::fs::{Mode, fchmod};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Debug;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

const INIT: &str = "init";
const TREE: &str = "tree";

/// A container's files, however they are kept.
pub(crate) trait Files: Debug + Send + Sync {
    /// Mounts them to be written to.
    fn mount(&self) -> Result<OwnedFd, Error>;
    /// Mounts them read-only.
    fn view(&self) -> Result<OwnedFd, Error>;
    /// What they change about the layers below, those of the init layer among it.
    fn changes(&self, store: &LayerStore, owner: &Owner) -> Result<Diff, Error>;
    /// What takes up space for this container alone.
    fn own(&self) -> BorrowedFd<'_>;
    fn overlay(&self) -> Option<Overlay> {
        None
    }
    fn directory(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// By overlayfs: `init` as a lower, `upper` and `work`.
#[derive(Debug)]
pub(crate) struct Overlaid {
    /// Topmost first.
    chain: Vec<StoredLayer>,
    /// What has nothing in it is no lower, unless there is no other.
    init: Option<Arc<OwnedFd>>,
    writable: WritableLayer,
    form: Form,
    fallbacks: Fallbacks,
}

impl Overlaid {
    /// Whether that many layers can be mounted, with what is written as one more: that is how it is viewed.
    pub(crate) fn check(chain: &[StoredLayer], init: &InitLayer) -> Result<(), Error> {
        let hiding = chain.iter().position(StoredLayer::has_opaque_root);
        let lowers = hiding.map_or(chain.len(), |hiding| hiding + 1);
        if lowers + usize::from(!init.places().is_empty()) < MAX_LOWERS {
            return Ok(());
        }
        let words = "are more than overlayfs takes: 500, what is written and the init layer among them";
        Err(Error::invalid(Operation::PrepareContainer, "the layers", words))
    }

    pub(crate) fn prepare(
        place: &Dir,
        chain: Vec<StoredLayer>,
        (spec, room): (&ContainerSpec, Option<&Room>),
        form: Form,
    ) -> Result<Self, Error> {
        let operation = Operation::PrepareContainer;
        let (has_init, fallbacks) = (!spec.init.places().is_empty(), spec.fallbacks);
        let init = if has_init || chain.is_empty() {
            place.make(operation, INIT)?;
            let layer = place.open(operation, INIT)?;
            fchmod(&layer, Mode::from_raw_mode(0o755))
                .map_err(|e| Error::os(operation, "fchmod", e).about(layer.path()))?;
            let stack = Overlay::new().form(form).fallbacks(fallbacks).lowers(&chain);
            let below = if has_init && !chain.is_empty() { Some(stack.mount()?) } else { None };
            furnish(layer.as_fd(), &spec.init, below.as_ref().map(AsFd::as_fd), Hide::Mark(form))?;
            Some(Arc::new(layer.into_fd()))
        } else {
            None
        };
        let writable = Self::writable(place, room, chain.first())?;
        Ok(Overlaid { chain, init, writable, form, fallbacks })
    }

    /// Makes the place to write to, in the room that there is.
    fn writable(place: &Dir, room: Option<&Room>, top: Option<&StoredLayer>) -> Result<WritableLayer, Error> {
        let inside = room.map(Room::directory).transpose()?.flatten();
        let writable = WritableLayer::create(inside.as_ref().unwrap_or(place))?;
        if let Some(room) = room {
            room.limit_layer(place, &writable)?;
        }
        if let Some(top) = top {
            // What is seen of a merged root is the topmost.
            let mut copier = Copier::new(writable.upper().as_fd(), Operation::PrepareContainer);
            lead_through(&mut copier, Path::new(""), Some(top.as_fd()))?;
            copier.finish()?;
        }
        Ok(writable)
    }

    pub(crate) fn find(
        place: &Dir,
        chain: Vec<StoredLayer>,
        has_init: bool,
        room: Option<(&Room, bool)>,
        (form, fallbacks): (Form, Fallbacks),
        after: AfterVolatile,
    ) -> Result<Self, Error> {
        let init = if has_init || chain.is_empty() {
            Some(Arc::new(place.open(Operation::PrepareContainer, INIT)?.into_fd()))
        } else {
            None
        };
        let writable = match room {
            Some((room, true)) => Self::writable(place, Some(room), chain.first())?,
            Some((room, false)) => {
                let inside = room.directory()?;
                WritableLayer::open(inside.as_ref().unwrap_or(place), after)?
            }
            None => WritableLayer::open(place, after)?,
        };
        Ok(Overlaid { chain, init, writable, form, fallbacks })
    }

    fn stack<'a>(&self, above: impl IntoIterator<Item = &'a Arc<OwnedFd>>) -> Overlay {
        let above = above.into_iter().map(|layer| Layer::ready(layer).root_is_opaque(false));
        Overlay::new().form(self.form).fallbacks(self.fallbacks).lowers(above).lowers(&self.chain)
    }
}

impl Files for Overlaid {
    fn mount(&self) -> Result<OwnedFd, Error> {
        self.stack(&self.init).writable(&self.writable).mount()
    }

    fn view(&self) -> Result<OwnedFd, Error> {
        self.stack([self.writable.upper()].into_iter().chain(&self.init)).mount()
    }

    fn changes(&self, _: &LayerStore, _: &Owner) -> Result<Diff, Error> {
        let below = if self.chain.is_empty() { self.stack(&self.init) } else { self.stack(None) };
        below.writable(&self.writable).diff()
    }

    fn own(&self) -> BorrowedFd<'_> {
        self.writable.upper().as_fd()
    }

    fn overlay(&self) -> Option<Overlay> {
        Some(self.stack(&self.init).writable(&self.writable))
    }
}

/// As a copy of all that is shown.
#[derive(Debug)]
pub(crate) struct Copied {
    /// Topmost first.
    chain: Vec<StoredLayer>,
    tree: Arc<OwnedFd>,
    form: Form,
}

impl Copied {
    pub(crate) fn prepare(
        place: &Dir,
        chain: Vec<StoredLayer>,
        (init, room): (&InitLayer, Option<&Room>),
        form: Form,
    ) -> Result<Self, Error> {
        let operation = Operation::PrepareContainer;
        place.make(operation, TREE)?;
        let tree = place.open(operation, TREE)?;
        room.map_or(Ok(()), |room| room.watch(&tree))?;
        fchmod(&tree, Mode::from_raw_mode(0o755)).map_err(|e| Error::os(operation, "fchmod", e).about(tree.path()))?;
        flatten(chain.iter().map(AsFd::as_fd), form, tree.as_fd(), operation)?;
        furnish(tree.as_fd(), init, Some(tree.as_fd()), Hide::Remove)?;
        room.map_or(Ok(()), |room| room.limit_more(place))?;
        Ok(Copied { chain, tree: Arc::new(tree.into_fd()), form })
    }

    pub(crate) fn find(place: &Dir, chain: Vec<StoredLayer>, form: Form) -> Result<Self, Error> {
        let tree = place.open(Operation::PrepareContainer, TREE)?.into_fd();
        Ok(Copied { chain, tree: Arc::new(tree), form })
    }
}

impl Files for Copied {
    fn mount(&self) -> Result<OwnedFd, Error> {
        mount::bind_writable(&Layer::ready(&self.tree))
    }

    fn view(&self) -> Result<OwnedFd, Error> {
        Overlay::new().form(self.form).lower(Layer::ready(&self.tree)).mount()
    }

    fn changes(&self, store: &LayerStore, owner: &Owner) -> Result<Diff, Error> {
        let operation = Operation::Diff;
        // Nobody has kept what it was before.
        let before = store.stage(owner)?;
        let result = flatten(self.chain.iter().map(AsFd::as_fd), self.form, before.as_fd(), operation)
            .and_then(|()| Diff::between(&self.tree, &before));
        before.discard()?;
        result
    }

    fn own(&self) -> BorrowedFd<'_> {
        self.tree.as_fd()
    }

    fn directory(&self) -> Option<BorrowedFd<'_>> {
        Some(self.tree.as_fd())
    }
}

/// How a directory of an init layer hides what is there already.
#[derive(Debug, Clone, Copy)]
enum Hide {
    /// It is below: in the layer, the directory is marked as opaque.
    Mark(Form),
    /// It is in the same tree: it goes.
    Remove,
}

/// Makes the entries of an init layer in a directory. Directories that lead to them look like those `below`, if they are there.
fn furnish(to: BorrowedFd<'_>, init: &InitLayer, below: Option<BorrowedFd<'_>>, hide: Hide) -> Result<(), Error> {
    let operation = Operation::PrepareContainer;
    let entries = init.checked()?;
    let mut copier = Copier::new(to, operation);
    let all: BTreeSet<&Path> = entries.keys().flat_map(|path| path.ancestors()).collect();
    for path in all {
        // In a directory that hides all there is nothing more to hide, and nothing to look like.
        let inside = path.ancestors().skip(1).any(|above| entries.contains_key(above));
        match entries.get(path) {
            Some(InitEntry::Directory) | None if inside => copier.new_directory(path, 0o755)?,
            Some(InitEntry::Directory) => hiding_directory(&mut copier, path, below.and(Some(hide)))?,
            Some(InitEntry::File(content)) => copier.new_file(path, content, 0o644)?,
            Some(InitEntry::Link(target)) => copier.new_link(path, target)?,
            None => lead_through(&mut copier, path, below)?,
        }
    }
    copier.finish()
}

/// Makes a directory that shows nothing of what the image has in it.
fn hiding_directory(copier: &mut Copier<'_>, path: &Path, hide: Option<Hide>) -> Result<(), Error> {
    if let Some(Hide::Remove) = hide {
        copier.remove(path)?;
    }
    copier.new_directory(path, 0o755)?;
    if let Some(Hide::Mark(form)) = hide {
        let about = |e: Error| e.during(Operation::PrepareContainer).about(path);
        make_opaque(copier.directory(path)?, form).map_err(about)?;
    }
    Ok(())
}

/// Makes a directory that leads to an entry.
fn lead_through(copier: &mut Copier<'_>, path: &Path, below: Option<BorrowedFd<'_>>) -> Result<(), Error> {
    let source = below.map(|below| directory(below, path)).transpose()?.flatten();
    let Some(source) = &source else { return copier.new_directory(path, 0o755) };
    let here = At { dir: source.as_fd(), name: OsStr::new("") };
    match here.stat()? {
        Some(stat) => copier.put(here, &stat, path),
        None => copier.new_directory(path, 0o755),
    }
}

/// A directory, reached through directories only.
fn directory(root: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>, Error> {
    use rustix::io::Errno;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    match beneath(root, path) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(e) => Err(Error::os(Operation::PrepareContainer, "openat2", e).about(path)),
    }
}

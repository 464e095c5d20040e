//! An image's layers, unpacked into a layer store.

use crate::layers::{Job, Lowers};
use crate::{Digest, Error, ErrorKind, Image, Observer, Operation, Options, Report, Unpacker};
use cofferdam_unionfs::{LayerId, LayerStore, Owner, Stage, StoredLayer};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

/// An image whose layers are all in a store.
#[derive(Debug)]
#[non_exhaustive]
pub struct Unpacked {
    /// The layers, lowest first. The last one stands on all others: [`LayerStore::chain`] of it is what is to be mounted.
    pub layers: Vec<StoredLayer>,
    /// What was unpacked, by the number of the layer: nothing of layers that were there.
    pub reports: Vec<(usize, Report)>,
}

impl Image {
    /// Unpacks all layers into a store, several at a time, for `owner`, who needs them from then on. Those that are there are taken as they are.
    ///
    /// ```no_run
    /// use cofferdam_image::{Image, Options, Selection};
    /// use cofferdam_unionfs::{Form, LayerStore, Overlay, Owner};
    /// use std::fs::File;
    ///
    /// let image = Image::open("busybox", &Selection::new())?;
    /// let store = LayerStore::open(File::open("/var/lib/build/layers")?, Form::Trusted)?;
    /// let unpacked = image.unpack_into(&store, &Owner::new("image:busybox")?, &Options::new(), None)?;
    /// if let Some(top) = unpacked.layers.last() {
    ///     let root = Overlay::new().lowers(store.chain(top.id())?).mount()?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A layer is published under its OCI `ChainID`: the same archive on the same layers. It is verified before. Layers that were published stay if a later one
    /// fails, or it is cancelled, or the observer panics; what was staged is removed before this returns. What else the [`Options`] say is not part of that name, so a store must always be used with the same ones; [`Options::form`] is the
    /// store's. A caller who was killed leaves whole layers only.
    ///
    /// # Errors
    /// As [`unpack_layer`](Self::unpack_layer), and what the store says.
    pub fn unpack_into(
        &self,
        store: &LayerStore,
        owner: &Owner,
        options: &Options,
        observer: Option<Arc<dyn Observer>>,
    ) -> Result<Unpacked, Error> {
        let ids = self.chain_ids()?;
        let mut found = Vec::new();
        for id in &ids {
            found.push(store.acquire(id, owner).map_err(|e| Error::from_store(&e))?);
        }
        let there: Vec<usize> = found.iter().enumerate().filter(|(_, layer)| layer.is_some()).map(|(n, _)| n).collect();
        let published = Arc::new(Mutex::new(found));
        let options = options.clone().form(store.form());
        let mut layers = self.all_layers(options)?;
        if let Some(observer) = observer {
            layers = layers.observer(observer);
        }
        let known = Arc::clone(&published);
        let lowers: Arc<Lowers> = Arc::new(move |number| below(&known, number).map(Some));
        let job = |number: usize, options: Options| {
            let mut staged = Staged(Some(store.stage(owner).map_err(|e| Error::from_store(&e))?));
            // All below are looked up when they are there.
            let nothing: &[BorrowedFd<'_>] = &[];
            let unpacker = Unpacker::new(staged.stage()?, options)?.lowers(nothing)?;
            let (ids, published) = (&ids, Arc::clone(&published));
            let finish = move |wait: &dyn Fn() -> Result<(), Error>| {
                wait()?;
                let id = ids.get(number).ok_or_else(gone)?;
                let parent = number.checked_sub(1).and_then(|below| ids.get(below));
                let layer = staged.take()?.publish_or_take(id, parent).map_err(|e| Error::from_store(&e))?;
                if let Some(place) = published.lock().unwrap_or_else(PoisonError::into_inner).get_mut(number) {
                    *place = Some(layer);
                }
                Ok(())
            };
            Ok(Job { unpacker, finish: Box::new(finish) })
        };
        let reports = layers.run(&there, &lowers, job)?;
        let new = (0..ids.len()).filter(|number| !there.contains(number));
        let reports = new.zip(reports).collect();
        let mut published = published.lock().unwrap_or_else(PoisonError::into_inner);
        let layers = published.drain(..).collect::<Option<Vec<_>>>().ok_or_else(gone)?;
        Ok(Unpacked { layers, reports })
    }

    /// The name of each layer together with all below it: OCI's `ChainID`.
    fn chain_ids(&self) -> Result<Vec<LayerId>, Error> {
        let mut ids = Vec::new();
        let mut chain: Option<Digest> = None;
        for layer in self.layers() {
            let next = match chain {
                Some(below) => Digest::of(format!("{below} {}", layer.diff_id).as_bytes()),
                None => layer.diff_id.clone(),
            };
            ids.push(LayerId::new(next.to_string()).map_err(|e| Error::from_store(&e))?);
            chain = Some(next);
        }
        Ok(ids)
    }
}

/// A stage that is removed unless it is taken to be published: whatever ends the work on it, a panic of the observer among that.
struct Staged(Option<Stage>);

impl Staged {
    fn stage(&self) -> Result<&Stage, Error> {
        self.0.as_ref().ok_or_else(gone)
    }

    fn take(&mut self) -> Result<Stage, Error> {
        self.0.take().ok_or_else(gone)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(stage) = self.0.take() {
            // The error that is told is the one that ended the work; what is left goes with the next opening.
            let _ = stage.discard();
        }
    }
}

/// The directories below a layer, lowest first.
fn below(published: &Mutex<Vec<Option<StoredLayer>>>, number: usize) -> Result<Vec<OwnedFd>, Error> {
    let published = published.lock().unwrap_or_else(PoisonError::into_inner);
    let copy = |layer: &Option<StoredLayer>| {
        let layer = layer.as_ref().ok_or_else(gone)?;
        layer.as_fd().try_clone_to_owned().map_err(|e| Error::from_io(Operation::Unpack, e))
    };
    published.iter().take(number).map(copy).collect()
}

fn gone() -> Error {
    Error::new(ErrorKind::NotFound, Operation::Unpack, "is not in the store")
}

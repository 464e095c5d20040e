//! Watching an unpacking, and ending it.

use std::ops::ControlFlow;

/// How far the unpacking of a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The number of the layer, lowest 0.
    pub layer: usize,
    /// Bytes of its blob that have been read. Of how many, the image tells: [`Layer::size`](crate::Layer::size).
    pub blob: u64,
    /// Bytes of the archive that have come out of it.
    pub archive: u64,
}

/// Is told how far an unpacking is, and can end it.
///
/// ```
/// use cofferdam_image::{Observer, Progress};
/// use std::ops::ControlFlow;
/// use std::sync::atomic::{AtomicBool, Ordering};
///
/// struct Stop(AtomicBool);
///
/// impl Observer for Stop {
///     fn progress(&self, _: Progress) -> ControlFlow<()> {
///         if self.0.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
///     }
/// }
/// ```
#[doc(alias = "cancel")]
pub trait Observer: Send + Sync {
    /// Called at the beginning of a layer, about once for each MiB of its archive, and at its end, by one of the threads that unpack it, which waits
    /// for the answer. Then again and again, with the numbers of the end: twice for each whiteout and opaque directory, for each hard link to what comes later or is below,
    /// for each directory that only other entries told of, and while files of lower layers are looked for and copied because this one links to them.
    /// After `Break` the operation ends with an error of kind [`Cancelled`](crate::ErrorKind::Cancelled).
    fn progress(&self, progress: Progress) -> ControlFlow<()>;
}

impl<F: Fn(Progress) -> ControlFlow<()> + Send + Sync> Observer for F {
    fn progress(&self, progress: Progress) -> ControlFlow<()> {
        self(progress)
    }
}

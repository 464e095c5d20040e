//! All layers of an image at once, several at a time.

use crate::Algorithm;
use crate::image::Layer;
use crate::unpack::{Budget, Wait};
use crate::{Error, ErrorKind, LayerReader, Observer, Operation, Options, Progress, Report, Unpacker};
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, unlinkat};
use std::fmt;
use std::io::Read;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// As many layers are unpacked at a time at most: the buffers of each are a part of what all may take.
const AT_A_TIME: usize = 4;

/// All layers of an image, lowest first, to be unpacked as they are or flattened: several at a time, each with a thread for every step.
///
/// ```no_run
/// use cofferdam_image::{Image, Options, Selection};
/// use std::fs::{File, create_dir};
///
/// let image = Image::open("busybox", &Selection::new())?;
/// for folder in ["work", "work/scratch", "work/root"] {
///     create_dir(folder)?;
/// }
/// let reports = image.all_layers(Options::new())?.flatten(File::open("work/scratch")?, File::open("work/root")?)?;
/// assert_eq!(reports.len(), image.layers().len());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Layers are decompressed, verified and written in parallel; one waits for those below only when it needs to know what they have.
/// That never changes the result.
#[must_use]
pub struct Layers {
    sources: Vec<Source>,
    options: Options,
    observer: Option<Arc<dyn Observer>>,
    at_a_time: usize,
}

struct Source {
    blob: Box<dyn Read + Send>,
    promised: Option<Layer>,
}

impl Layers {
    /// None so far.
    pub fn new(options: Options) -> Self {
        let at_a_time = thread::available_parallelism().map_or(1, usize::from).min(AT_A_TIME);
        Layers { sources: Vec::new(), options, observer: None, at_a_time }
    }

    /// Adds a layer on top: a blob of which nothing is known. Compare the digests in its [`Report`].
    pub fn layer(mut self, blob: impl Read + Send + 'static) -> Self {
        self.sources.push(Source { blob: Box::new(blob), promised: None });
        self
    }

    /// Adds a layer on top that must be the one that is promised.
    pub(crate) fn promised(mut self, blob: impl Read + Send + 'static, promised: Layer) -> Self {
        self.sources.push(Source { blob: Box::new(blob), promised: Some(promised) });
        self
    }

    /// Tells how far each layer is, and can be cancelled.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Unpacks so many layers at a time: as many as there are processors if nothing is said, and four at most. Each has three threads.
    #[doc(alias = "threads")]
    pub fn at_a_time(mut self, layers: usize) -> Self {
        self.at_a_time = layers.clamp(1, AT_A_TIME);
        self
    }

    /// Unpacks each layer into the stage of its number, an empty directory, as [`Unpacker::unpack`] does, which knows all layers below.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if there are not as many stages as layers; as [`Unpacker::unpack`]. [`Error::layer`] tells the
    /// layer's number. The stages hold parts of layers then: discard all of them.
    pub fn unpack(self, stages: &[impl AsFd]) -> Result<Vec<Report>, Error> {
        let stages: Vec<BorrowedFd<'_>> = stages.iter().map(AsFd::as_fd).collect();
        if stages.len() != self.sources.len() {
            let words = "needs one stage for each layer";
            return Err(Error::new(ErrorKind::InvalidInput, Operation::Unpack, words));
        }
        let unpacker = |number: usize, options: Options| {
            let (below, from) = stages.split_at(number);
            let stage = from.first().ok_or_else(missing)?;
            Ok(Job { unpacker: Unpacker::new(stage, options)?.lowers(below)?, finish: Box::new(|_| Ok(())) })
        };
        self.run(&[], &no_news(), unpacker)
    }

    /// Merges all layers onto the tree `target`. If that is empty, its root becomes the image's in every respect. `scratch` is an empty directory of the same file system, not in the target, which
    /// is empty again in the end.
    ///
    /// # Errors
    /// As [`unpack`](Self::unpack) and [`Unpacker::onto`]. The target can have been changed then, and what is in the scratch directory is to be removed.
    #[doc(alias = "squash")]
    pub fn flatten(self, scratch: impl AsFd, target: impl AsFd) -> Result<Vec<Report>, Error> {
        let (scratch, target) = (scratch.as_fd(), target.as_fd());
        let unpacker = |number: usize, options: Options| {
            let stage = Stage::make(scratch, number)?;
            let unpacker = Unpacker::new(&stage.dir, options)?.onto(target)?;
            // The first one makes the root; the others find it made.
            let unpacker = if number == 0 { unpacker.onto_nothing(target)? } else { unpacker };
            Ok(Job { unpacker, finish: Box::new(|_| stage.remove()) })
        };
        self.run(&[], &no_news(), unpacker)
    }

    /// Takes only some of the layers as work to be done: the others are there. `lowers` says where those below a layer are, when all of them are there,
    /// if they are not where they were said to be before.
    pub(crate) fn run<'a>(
        self,
        there: &[usize],
        lowers: &Arc<Lowers>,
        job: impl Fn(usize, Options) -> Result<Job<'a>, Error> + Sync,
    ) -> Result<Vec<Report>, Error> {
        let Layers { sources, options, observer, at_a_time } = self;
        let state = |number| if there.contains(&number) { State::Done } else { State::Waiting };
        let state = Mutex::new((0..sources.len()).map(state).collect());
        let turns = Arc::new(Turns { state, changed: Condvar::new() });
        let watch = Arc::new(Watch { observer, stopped: AtomicBool::new(false) });
        let budget = Arc::new(Budget::new(options.limits.kept_bytes, sources.len(), there));
        let todo: Vec<_> = sources.into_iter().enumerate().filter(|(number, _)| !there.contains(number)).collect();
        let (count, queue) = (todo.len(), Mutex::new(todo.into_iter()));
        let one = |number: usize, source: Source| {
            let Job { unpacker, finish } = job(number, options.clone())?;
            let observer = OfLayer { number, watch: Arc::clone(&watch) };
            let (turn, lowers) = (Arc::clone(&turns), Arc::clone(lowers));
            let wait = Wait(Box::new(move || turn.wait(number).and_then(|()| lowers(number))));
            let unpacker = unpacker.observer(Arc::new(observer)).beside_others(wait, budget.share(number));
            let report = source.unpack(unpacker)?;
            finish(&|| turns.wait(number))?;
            Ok(report)
        };
        let work = || {
            let mut done = Vec::new();
            loop {
                let next = lock(&queue).next();
                let Some((number, source)) = next else { return done };
                let mut turn = Turn { number, well: false, turns: &turns, watch: &watch };
                let result = one(number, source).map_err(|e: Error| e.in_layer(number));
                turn.well = result.is_ok();
                drop(turn);
                done.push((number, result));
            }
        };
        let mut results = on_threads(at_a_time.min(count), work);
        results.sort_by_key(|(number, _)| *number);
        reports(results.into_iter().map(|(_, result)| result).collect())
    }
}

/// Where the layers below one are, lowest first.
pub(crate) type Lowers = dyn Fn(usize) -> Result<Option<Vec<OwnedFd>>, Error> + Send + Sync;

/// They are where they were said to be.
fn no_news() -> Arc<Lowers> {
    Arc::new(|_| Ok(None))
}

/// How one layer is unpacked, and what is done when that went well. It is given a way to wait for the layers below.
pub(crate) struct Job<'a> {
    pub(crate) unpacker: Unpacker,
    pub(crate) finish: Finish<'a>,
}

type Finish<'a> = Box<dyn FnOnce(&dyn Fn() -> Result<(), Error>) -> Result<(), Error> + 'a>;

/// Does the work on so many threads, this one among them.
fn on_threads<T: Send>(count: usize, work: impl Fn() -> Vec<T> + Sync + Copy + Send) -> Vec<T> {
    thread::scope(|scope| {
        // A thread that cannot be had is not needed: this one does the work.
        let spawn = |_| thread::Builder::new().name("cofferdam-layer".into()).spawn_scoped(scope, work).ok();
        let threads: Vec<_> = (1..count).filter_map(spawn).collect();
        let mut results = work();
        for thread in threads {
            results.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        results
    })
}

/// All of them, or the first error that is not the consequence of another.
fn reports(results: Vec<Result<Report, Error>>) -> Result<Vec<Report>, Error> {
    let (mut reports, mut cancelled) = (Vec::new(), None);
    for result in results {
        match result {
            Ok(report) => reports.push(report),
            Err(error) if error.kind() == ErrorKind::Cancelled => drop(cancelled.get_or_insert(error)),
            Err(error) => return Err(error),
        }
    }
    cancelled.map_or(Ok(reports), Err)
}

fn missing() -> Error {
    Error::new(ErrorKind::InvalidInput, Operation::Unpack, "has no stage")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind it is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Source {
    fn unpack(self, unpacker: Unpacker) -> Result<Report, Error> {
        let Some(promised) = self.promised else { return unpacker.unpack(LayerReader::new(self.blob)?) };
        let reader = promised.reader(self.blob)?;
        unpacker.unpack_checked(reader, |found| promised.verify(found))
    }
}

impl Layer {
    /// Reads the blob of this layer, with the digests that it must have.
    pub(crate) fn reader<R: Read>(&self, blob: R) -> Result<LayerReader<R>, Error> {
        let of_blob = self.digest.as_ref().map_or(Algorithm::Sha256, crate::Digest::algorithm);
        LayerReader::with_algorithms(blob, of_blob, self.diff_id.algorithm())
    }
}

/// A directory in which a layer is unpacked before it is merged.
struct Stage<'a> {
    scratch: BorrowedFd<'a>,
    name: String,
    dir: OwnedFd,
}

impl<'a> Stage<'a> {
    fn make(scratch: BorrowedFd<'a>, number: usize) -> Result<Self, Error> {
        let name = number.to_string();
        let fail = |call| {
            let name = name.clone();
            move |errno| Error::os(Operation::Unpack, call, errno).about(name)
        };
        mkdirat(scratch, &name, Mode::RWXU).map_err(fail("mkdirat"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = crate::layout::open_beneath(scratch, &name, flags).map_err(fail("openat2"))?;
        Ok(Stage { scratch, name, dir })
    }

    fn remove(self) -> Result<(), Error> {
        unlinkat(self.scratch, &self.name, AtFlags::REMOVEDIR)
            .map_err(|e| Error::os(Operation::Unpack, "unlinkat", e).about(&self.name))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Done,
    Failed,
}

/// Which layers are there.
struct Turns {
    state: Mutex<Vec<State>>,
    changed: Condvar,
}

impl Turns {
    /// Blocks until all layers below this one are there. They have been begun before it, and the lowest of them waits for none.
    fn wait(&self, number: usize) -> Result<(), Error> {
        let mut state = lock(&self.state);
        loop {
            let below = state.get(..number).unwrap_or_default();
            if below.contains(&State::Failed) {
                return Err(Error::cancelled());
            }
            if !below.contains(&State::Waiting) {
                return Ok(());
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn ended(&self, number: usize, well: bool) {
        if let Some(state) = lock(&self.state).get_mut(number) {
            *state = if well { State::Done } else { State::Failed };
        }
        self.changed.notify_all();
    }
}

/// One layer in the making. Also an observer that panics ends it, and with it all that wait for it.
struct Turn<'a> {
    number: usize,
    well: bool,
    turns: &'a Turns,
    watch: &'a Watch,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.watch.stopped.fetch_or(!self.well, Ordering::Relaxed);
        self.turns.ended(self.number, self.well);
    }
}

/// The caller's observer, and the end of all when one has failed.
struct Watch {
    observer: Option<Arc<dyn Observer>>,
    stopped: AtomicBool,
}

struct OfLayer {
    number: usize,
    watch: Arc<Watch>,
}

impl Observer for OfLayer {
    fn progress(&self, progress: Progress) -> ControlFlow<()> {
        if self.watch.stopped.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        let progress = Progress { layer: self.number, ..progress };
        self.watch.observer.as_ref().map_or(ControlFlow::Continue(()), |observer| observer.progress(progress))
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layers")
            .field("layers", &self.sources.len())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

//! What is measured: areas, their cases, and who contends in each.

use crate::Result;
use std::any::Any;
use std::fmt;
use std::time::Duration;

/// A field of work, `--area NAME`.
#[derive(Debug, Clone, Copy)]
pub struct Area {
    /// Its name on the command line and in the report.
    pub name: &'static str,
    /// Its cases; fewer if the run is to be quick.
    pub cases: fn(quick: bool) -> Result<Vec<Case>>,
    /// What is drawn of them.
    pub plots: &'static [Plot],
    /// Whether a run makes few enough system calls for each to be counted.
    pub counted: bool,
}

/// A drawing of some cases of an area: time against something that differs from case to case.
#[derive(Debug, Clone, Copy)]
pub struct Plot {
    /// The file's name, without `.svg`.
    pub name: &'static str,
    /// Above it.
    pub title: &'static str,
    /// Below it: what the cases differ in.
    pub x: &'static str,
    /// Whether x is logarithmic too.
    pub log_x: bool,
}

/// One thing to do, by all contenders.
pub struct Case {
    /// Its name in the report.
    pub name: String,
    /// How many threads do it at once.
    pub threads: usize,
    /// The plot that shows it, and where on the x axis.
    pub point: Option<(&'static str, f64)>,
    /// Gets it ready, when its turn comes.
    pub ready: Box<dyn FnOnce() -> Result<Ready>>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// A case that can be run.
pub struct Ready {
    /// Who contends.
    pub contenders: Vec<Contender>,
    /// What must be there meanwhile: memory, a folder.
    pub held: Box<dyn Any>,
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").field("contenders", &self.contenders).finish_non_exhaustive()
    }
}

/// Who contends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Our library.
    Cofferdam,
    /// The same system calls by hand.
    Floor,
    /// Somebody else's way to the same end.
    Peer,
}

/// One way to do what the case is about.
pub struct Contender {
    /// Its name in the report.
    pub name: String,
    /// Whose it is.
    pub role: Role,
    /// Makes what a thread runs.
    pub make: Box<dyn Fn() -> Runner>,
}

impl Contender {
    /// A contender whose threads each run what `make` makes.
    pub fn new<F>(name: impl Into<String>, role: Role, make: impl Fn() -> F + 'static) -> Self
    where
        F: FnMut() -> Result<Sample> + Send + 'static,
    {
        Contender { name: name.into(), role, make: Box::new(move || Box::new(make())) }
    }
}

impl fmt::Debug for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contender").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

/// Does it once, checks the effect, and says how long it took.
pub type Runner = Box<dyn FnMut() -> Result<Sample> + Send>;

/// How long one run took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sample {
    /// From the beginning until all was over: what the case is about, and what is compared.
    pub whole: Duration,
    /// Until what was wanted was there: the mount was made, the program ran and had said so.
    pub returned: Duration,
}

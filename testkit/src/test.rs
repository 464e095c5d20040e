//! One test: a name, a function, and what it needs.

use std::time::Duration;

use crate::need::Need;

/// How long a test may take where nothing else is said, without [patience](crate::patience).
const USUAL_TIME: Duration = Duration::from_secs(60);

/// A test: a name, a function that panics if it fails, and what it needs.
#[derive(Debug, Clone)]
pub struct Test {
    pub(crate) name: &'static str,
    pub(crate) before: Option<fn()>,
    pub(crate) run: fn(),
    pub(crate) needs: Vec<Need>,
    pub(crate) time: Duration,
}

impl Test {
    /// A test that needs nothing. The name must be unique in its package.
    #[must_use]
    pub fn new(name: &'static str, run: fn()) -> Self {
        Self { name, before: None, run, needs: Vec::new(), time: USUAL_TIME }
    }

    /// Says what the test needs; see [`Need`].
    #[must_use]
    pub fn needs(mut self, needs: &[Need]) -> Self {
        self.needs.extend_from_slice(needs);
        self
    }

    /// How long it may take (60 s if not said) before it is killed. In the virtual machine it is
    /// given [`patience`](crate::patience) times as long.
    #[must_use]
    pub fn time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// The same test with `suffix` behind its name and with something done before it, in its process: which of two ways it takes through the
    /// code under test, say.
    #[must_use]
    pub fn variant(&self, suffix: &str, before: fn()) -> Self {
        // A list of tests lives as long as its process.
        let name = format!("{}{suffix}", self.name).leak();
        Self { name, before: Some(before), ..self.clone() }
    }

    /// The test's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }
}

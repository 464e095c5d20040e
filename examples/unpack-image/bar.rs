//! A bar for each layer, on a terminal.

use cofferdam_image::{Observer, Progress};
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const WIDTH: u64 = 40;
const INTERVAL: Duration = Duration::from_millis(50);

/// How far the layers are. Drawn on standard error, if that is a terminal.
pub(crate) struct Bars {
    /// The lengths of the blobs.
    sizes: Vec<u64>,
    state: Mutex<State>,
    shown: bool,
}

struct State {
    read: Vec<u64>,
    drawn: Option<Instant>,
}

impl Bars {
    pub(crate) fn new(sizes: Vec<u64>) -> Arc<Self> {
        let state = State { read: vec![0; sizes.len()], drawn: None };
        Arc::new(Bars { sizes, state: Mutex::new(state), shown: io::stderr().is_terminal() })
    }

    pub(crate) fn count(&self) -> usize {
        self.sizes.len()
    }

    /// Draws them once more, as they were left.
    pub(crate) fn end(&self) {
        if self.shown {
            self.draw(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn draw(&self, state: &mut State) {
        let mut text = match state.drawn {
            // Back to the first line.
            Some(_) => format!("\x1b[{}A", self.sizes.len()),
            None => String::new(),
        };
        for (number, (size, read)) in self.sizes.iter().zip(&state.read).enumerate() {
            let filled = read * WIDTH / (*size).max(1);
            let bar: String = (0..WIDTH).map(|at| if at < filled { '#' } else { '.' }).collect();
            let _ = writeln!(text, "layer {number:3} [{bar}] {:>6} of {} MiB\x1b[K", read >> 20, size >> 20);
        }
        state.drawn = Some(Instant::now());
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

impl Observer for Bars {
    fn progress(&self, progress: Progress) -> ControlFlow<()> {
        if self.shown {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(read) = state.read.get_mut(progress.layer) {
                *read = progress.blob;
            }
            if state.drawn.is_none_or(|drawn| drawn.elapsed() > INTERVAL) {
                self.draw(&mut state);
            }
        }
        ControlFlow::Continue(())
    }
}

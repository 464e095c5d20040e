//! The lines that appear while it runs: with a bar on a terminal, plain elsewhere, none at all with `--json`.

use crate::options::Options;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

const WIDTH: usize = 50;

pub(crate) struct Screen {
    silent: bool,
    bars: bool,
    /// What the whole width of a bar stands for.
    full: f64,
    mark: Option<f64>,
}

impl Screen {
    pub(crate) fn new(options: &Options, cores: f64) -> Self {
        Screen { silent: options.json, bars: io::stdout().is_terminal(), full: cores * 100.0, mark: None }
    }

    /// What comes now, and where its limit is.
    pub(crate) fn title(&mut self, title: &str, limit: Option<f64>) -> io::Result<()> {
        self.mark = limit;
        self.line(format_args!("\n{title}"))
    }

    pub(crate) fn line(&self, text: impl Display) -> io::Result<()> {
        if self.silent { Ok(()) } else { writeln!(io::stdout(), "{text}") }
    }

    /// What the last second of a phase was.
    pub(crate) fn second(&self, elapsed: Duration, percent: f64) -> io::Result<()> {
        let bar = if self.bars { format!("  [{}]", bar(percent, self.full, self.mark)) } else { String::new() };
        self.line(format_args!("{:5.1} s {percent:7.1} %{bar}", elapsed.as_secs_f64()))
    }
}

fn bar(percent: f64, full: f64, mark: Option<f64>) -> String {
    let (end, mark) = (column(percent, full), mark.map(|percent| column(percent, full)));
    let cell = |at| {
        if Some(at) == mark {
            '|'
        } else if at <= end {
            '#'
        } else {
            ' '
        }
    };
    (1..=WIDTH).map(cell).collect()
}

/// The column in which so much of the whole ends; 0 for nothing.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "from 0 to WIDTH, and NaN becomes 0"
)]
fn column(percent: f64, full: f64) -> usize {
    (percent / full * WIDTH as f64).round().clamp(0.0, WIDTH as f64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        for (percent, mark, bar_starts) in [
            (0.0, None, " "),
            (20.0, None, "##### "),
            (20.0, Some(20.0), "####| "),
            (10.0, Some(20.0), "### | "),
            (30.0, Some(20.0), "####|### "),
            (f64::NAN, None, " "),
        ] {
            let bar = bar(percent, 200.0, mark);
            assert!(bar.starts_with(bar_starts) && bar.len() == WIDTH, "{percent}: {bar}");
        }
        assert_eq!(bar(205.0, 200.0, Some(4000.0)), "#".repeat(WIDTH - 1) + "|");
    }
}

//! What comes out: a table for people, JSON for programs.

use crate::area::{Role, Sample};
use crate::counting::{Calls, more, total};
use crate::measuring::Times;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::time::Duration;

/// A case that has been measured.
#[derive(Debug)]
pub struct Outcome {
    /// The area's name.
    pub area: &'static str,
    /// The case's name.
    pub case: String,
    /// The plot that shows it, and where.
    pub point: Option<(&'static str, f64)>,
    /// The contenders, in their order.
    pub entries: Vec<Entry>,
}

/// A contender that has been measured.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub role: Role,
    /// How long it took.
    pub times: Times,
    /// Its system calls; not of peers.
    pub calls: Option<Calls>,
}

impl Outcome {
    fn of(&self, role: Role) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.role == role)
    }

    fn peers(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.role == Role::Peer)
    }

    fn median(&self, role: Role) -> Option<f64> {
        self.of(role).map(|entry| micros(entry.times.median.whole))
    }

    fn ours_over_floor(&self) -> Option<f64> {
        Some(self.median(Role::Cofferdam)? / self.median(Role::Floor)?)
    }

    fn best_peer_over_ours(&self) -> Option<f64> {
        let best = self.peers().map(|entry| micros(entry.times.median.whole)).min_by(f64::total_cmp)?;
        Some(best / self.median(Role::Cofferdam)?)
    }
}

#[derive(Serialize)]
struct Line<'a> {
    area: &'a str,
    case: &'a str,
    cofferdam_us: Option<f64>,
    floor_us: Option<f64>,
    peers: BTreeMap<&'a str, f64>,
    ours_over_floor: Option<f64>,
    best_peer_over_ours: Option<f64>,
    syscalls: Counts,
    cofferdam_best_us: Option<f64>,
    floor_best_us: Option<f64>,
    cofferdam_p95_us: Option<f64>,
    floor_p95_us: Option<f64>,
    peers_p95: BTreeMap<&'a str, f64>,
    peers_returned: BTreeMap<&'a str, f64>,
    cofferdam_returned_us: Option<f64>,
    floor_returned_us: Option<f64>,
    rounds: Option<usize>,
}

#[derive(Serialize)]
struct Counts {
    cofferdam: Option<usize>,
    floor: Option<usize>,
}

/// The outcomes as a JSON array, times in microseconds.
///
/// # Errors
/// None that is known: all keys are strings.
pub fn json(outcomes: &[Outcome]) -> serde_json::Result<String> {
    let lines: Vec<Line<'_>> = outcomes.iter().map(line).collect();
    serde_json::to_string_pretty(&lines)
}

fn line(outcome: &Outcome) -> Line<'_> {
    let (ours, floor) = (outcome.of(Role::Cofferdam), outcome.of(Role::Floor));
    let peers = |time: fn(&Times) -> Duration| {
        outcome.peers().map(|entry| (entry.name.as_str(), rounded(micros(time(&entry.times))))).collect()
    };
    let time =
        |entry: Option<&Entry>, time: fn(&Times) -> Duration| entry.map(|entry| rounded(micros(time(&entry.times))));
    let calls = |entry: Option<&Entry>| entry.and_then(|entry| entry.calls.as_ref()).map(total);
    Line {
        area: outcome.area,
        case: &outcome.case,
        cofferdam_us: time(ours, |t| t.median.whole),
        floor_us: time(floor, |t| t.median.whole),
        peers: peers(|t| t.median.whole),
        ours_over_floor: outcome.ours_over_floor().map(rounded),
        best_peer_over_ours: outcome.best_peer_over_ours().map(rounded),
        syscalls: Counts { cofferdam: calls(ours), floor: calls(floor) },
        cofferdam_best_us: time(ours, |t| t.best.whole),
        floor_best_us: time(floor, |t| t.best.whole),
        cofferdam_p95_us: time(ours, |t| t.p95.whole),
        floor_p95_us: time(floor, |t| t.p95.whole),
        peers_p95: peers(|t| t.p95.whole),
        peers_returned: peers(|t| t.median.returned),
        cofferdam_returned_us: time(ours, |t| t.median.returned),
        floor_returned_us: time(floor, |t| t.median.returned),
        rounds: ours.or(floor).map(|entry| entry.times.rounds),
    }
}

/// The outcomes of one area as tables in Markdown: until all was over, until what was wanted was there, and what of our system
/// calls the floor lacks.
#[must_use]
pub fn table(outcomes: &[Outcome]) -> String {
    let mut peers: Vec<&str> = Vec::new();
    for entry in outcomes.iter().flat_map(Outcome::peers) {
        if !peers.contains(&entry.name.as_str()) {
            peers.push(&entry.name);
        }
    }
    let mut text = String::new();
    for (title, time) in TIMES {
        let _ = writeln!(text, "{title}:\n\n{}", aligned(&rows(outcomes, &peers, time)));
    }
    text += "System calls, ours and the floor's:\n\n";
    let mut said: Vec<String> = Vec::new();
    for outcome in outcomes {
        if let Some(words) = difference(outcome).filter(|words| !said.contains(words)) {
            let _ = writeln!(text, "- {}: {words}", outcome.case);
            said.push(words);
        }
    }
    text
}

/// One of the times of a sample.
type Time = fn(&Sample) -> Duration;

const TIMES: [(&str, Time); 2] =
    [("From the beginning to the end", |s| s.whole), ("Until it is ready", |s| s.returned)];

fn rows(outcomes: &[Outcome], peers: &[&str], time: Time) -> Vec<Vec<String>> {
    let fixed = ["case", "cofferdam", "p95", "floor", "p95", "ours/floor", "calls"];
    let heads = fixed.iter().chain(peers).map(|head| (*head).to_owned()).collect();
    [heads].into_iter().chain(outcomes.iter().map(|outcome| row(outcome, peers, time))).collect()
}

/// How the system calls of ours and of the floor differ.
fn difference(outcome: &Outcome) -> Option<String> {
    let calls = |role| outcome.of(role).and_then(|entry| entry.calls.as_ref());
    let (ours, floor) = (calls(Role::Cofferdam)?, calls(Role::Floor)?);
    let mut words = format!("{} and {}", total(ours), total(floor));
    for (whose, extra) in [("ours alone", more(ours, floor)), ("the floor's alone", more(floor, ours))] {
        if !extra.is_empty() {
            let _ = write!(words, "; {whose}: {extra}");
        }
    }
    Some(words)
}

fn row(outcome: &Outcome, peers: &[&str], time: Time) -> Vec<String> {
    let mut cells = vec![outcome.case.clone()];
    let median = |entry: &Entry| micros(time(&entry.times.median));
    for role in [Role::Cofferdam, Role::Floor] {
        let times = outcome.of(role).map(|entry| entry.times);
        cells.push(cell(times.map(|t| Micros(time(&t.median)))));
        cells.push(cell(times.map(|t| Micros(time(&t.p95)))));
    }
    let (ours, floor) = (outcome.of(Role::Cofferdam).map(median), outcome.of(Role::Floor).map(median));
    cells.push(cell(ours.zip(floor).map(|(ours, floor)| format!("{:.2}", ours / floor))));
    let count = |role| outcome.of(role).and_then(|entry| entry.calls.as_ref()).map(total);
    cells.push(format!("{}/{}", cell(count(Role::Cofferdam)), cell(count(Role::Floor))));
    for name in peers {
        let entry = outcome.peers().find(|entry| entry.name == *name);
        let over = |entry: &Entry| ours.map_or(String::new(), |ours| format!(", {:.1} ×", median(entry) / ours));
        cells.push(cell(entry.map(|entry| format!("{}{}", Micros(time(&entry.times.median)), over(entry)))));
    }
    cells
}

fn cell(value: Option<impl fmt::Display>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|at| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = if column == 0 { write!(text, "| {cell:<width$} ") } else { write!(text, "| {cell:>width$} ") };
        }
        text += "|\n";
        if at == 0 {
            for (column, width) in widths.iter().enumerate() {
                let dashes = "-".repeat(width + 1);
                let _ = if column == 0 { write!(text, "|{dashes}-") } else { write!(text, "|{dashes}:") };
            }
            text += "|\n";
        }
    }
    text
}

/// Shown with as many digits as mean something.
#[derive(Clone, Copy)]
struct Micros(Duration);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match micros(self.0) {
            long if long >= 10_000.0 => write!(f, "{:.1} ms", long / 1000.0),
            middle if middle >= 1000.0 => write!(f, "{:.2} ms", middle / 1000.0),
            short => write!(f, "{short:.0} µs"),
        }
    }
}

/// In microseconds.
#[must_use]
pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, role: Role, micros: u64, calls: &[(&'static str, usize)]) -> Entry {
        let took = Duration::from_micros(micros);
        let sample = Sample { whole: took, returned: took / 2 };
        let calls = (role != Role::Peer).then(|| calls.iter().copied().collect());
        Entry { name: name.into(), role, times: Times { median: sample, p95: sample, best: sample, rounds: 31 }, calls }
    }

    fn outcome() -> Outcome {
        let entries = vec![
            entry("cofferdam", Role::Cofferdam, 110, &[("clone3", 1), ("poll", 1)]),
            entry("floor", Role::Floor, 100, &[("clone3", 1)]),
            entry("slow", Role::Peer, 22_000, &[]),
            entry("fast", Role::Peer, 220, &[]),
        ];
        Outcome { area: "spawn", case: "plain".into(), point: None, entries }
    }

    #[test]
    fn json_has_the_agreed_fields() {
        let value: serde_json::Value = serde_json::from_str(&json(&[outcome()]).unwrap()).unwrap();
        let line = &value[0];
        assert_eq!((&line["area"], &line["case"]), (&"spawn".into(), &"plain".into()));
        assert_eq!((&line["cofferdam_us"], &line["floor_us"]), (&110.0.into(), &100.0.into()));
        assert_eq!(line["peers"], serde_json::json!({"slow": 22000.0, "fast": 220.0}));
        assert_eq!((&line["ours_over_floor"], &line["best_peer_over_ours"]), (&1.1.into(), &2.0.into()));
        assert_eq!(line["syscalls"], serde_json::json!({"cofferdam": 2, "floor": 1}));
    }

    #[test]
    fn the_table_tells_the_calls_that_differ() {
        let alone = Outcome { entries: outcome().entries.into_iter().take(2).collect(), ..outcome() };
        let text = table(&[outcome(), alone]);
        let rows: Vec<&str> = text.lines().collect();
        assert!(rows[2].ends_with("| calls |             slow |          fast |"), "{text}");
        assert!(rows[4].contains(" 110 µs | 110 µs |"), "{text}");
        assert!(rows[4].ends_with("| 22.0 ms, 200.0 × | 220 µs, 2.0 × |"), "{text}");
        assert!(rows[5].ends_with("|                - |             - |"), "{text}");
        assert!(text.contains(" 55 µs |"), "until it was ready: {text}");
        assert!(text.ends_with("\n- plain: 2 and 1; ours alone: poll ×1\n"), "{text}");
        assert_eq!(text.matches("poll").count(), 1, "said once: {text}");
        let widths: Vec<usize> = rows[2..6].iter().map(|row| row.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
    }
}

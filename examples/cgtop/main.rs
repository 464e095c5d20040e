//! A table of all cgroups and what they use, again and again, like systemd-cgtop.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cofferdam_cgroups::{Controllers, ErrorKind, Hierarchy, Sampler, Select};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const HELP: &str = "\
Usage: cgtop [--rounds N] [--delay SECONDS]

Shows the cgroups that use something: tasks, CPU in percent of one core, memory, and what is read and written
in a second. Goes on until it is interrupted, or for N rounds.
";

struct Options {
    rounds: u64,
    delay: Duration,
}

/// What is kept of a cgroup from one round to the next: its open files, and what they said.
struct Row {
    sampler: Sampler,
    cpu: Duration,
    io: u64,
}

fn main() -> ExitCode {
    let ended = options().and_then(|options| match options {
        Some(options) => run(&options),
        None => Ok(write!(io::stdout(), "{HELP}")?),
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "cgtop: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Option<Options>> {
    use lexopt::prelude::{Long, Short, ValueExt};
    let mut options = Options { rounds: u64::MAX, delay: Duration::from_secs(1) };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("rounds") => options.rounds = parser.value()?.parse()?,
            Long("delay") => options.delay = Duration::try_from_secs_f64(parser.value()?.parse()?)?,
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}

fn run(options: &Options) -> Result<()> {
    let hierarchy = Hierarchy::detect()?;
    let wanted = Controllers::CPU | Controllers::PIDS | Controllers::MEMORY | Controllers::IO;
    let select = Select::CPU | Select::PIDS | Select::MEMORY | Select::IO;
    let root = hierarchy.root(wanted & hierarchy.controllers())?;
    let mut rows: BTreeMap<PathBuf, Row> = BTreeMap::new();
    let mut last = Instant::now();
    for round in 0..options.rounds {
        if round > 0 {
            std::thread::sleep(options.delay);
        }
        for path in root.walk()? {
            // On v1 a cgroup need not be in all of the trees. One that has gone since is passed over.
            if let Entry::Vacant(free) = rows.entry(path)
                && let Ok(sampler) = root.find_below(free.key()).and_then(|found| found.sampler(select))
            {
                free.insert(Row { sampler, cpu: Duration::ZERO, io: 0 });
            }
        }
        let elapsed = last.elapsed();
        last = Instant::now();
        show(&mut rows, elapsed.as_secs_f64().max(0.001), round > 0)?;
    }
    Ok(())
}

/// One line of the table.
#[derive(Default)]
struct Line {
    tasks: Option<u64>,
    cpu: f64,
    memory: Option<u64>,
    io: f64,
}

fn show(rows: &mut BTreeMap<PathBuf, Row>, seconds: f64, has_rates: bool) -> Result<()> {
    let mut lines: Vec<(PathBuf, Line)> = Vec::with_capacity(rows.len());
    let mut gone = Vec::new();
    for (key, row) in rows.iter_mut() {
        let stats = match row.sampler.sample() {
            Err(error) if error.kind() == ErrorKind::Gone => {
                gone.push(key.clone());
                continue;
            }
            stats => stats?,
        };
        let mut line = Line {
            tasks: stats.pids.as_ref().map(|pids| pids.current),
            memory: stats.memory.as_ref().map(|memory| memory.current),
            ..Line::default()
        };
        let cpu = stats.cpu.as_ref().map_or(Duration::ZERO, |cpu| cpu.usage);
        let io = stats.io.as_ref().map_or(0, |io| io.total().read_bytes + io.total().written_bytes);
        if has_rates {
            line.cpu = cpu.saturating_sub(row.cpu).as_secs_f64() / seconds * 100.0;
            #[expect(clippy::cast_precision_loss, reason = "a rate, for people to read")]
            let rate = io.saturating_sub(row.io) as f64 / seconds;
            line.io = rate;
        }
        (row.cpu, row.io) = (cpu, io);
        lines.push((key.clone(), line));
    }
    for key in &gone {
        rows.remove(key);
    }
    lines.sort_by(|(_, a), (_, b)| b.cpu.total_cmp(&a.cpu).then(b.memory.cmp(&a.memory)));
    let mut out = io::stdout().lock();
    writeln!(out, "{:>6} {:>7} {:>10} {:>10}  cgroup", "tasks", "% cpu", "memory", "io/s")?;
    for (path, line) in lines.iter().take(30) {
        let tasks = line.tasks.map_or_else(|| "-".to_owned(), |tasks| tasks.to_string());
        let memory = line.memory.map_or_else(|| "-".to_owned(), |bytes| format!("{} KiB", bytes >> 10));
        // A name is whatever its maker wanted: escaped, it cannot speak to the terminal.
        let name = path.to_string_lossy();
        writeln!(out, "{tasks:>6} {:>7.1} {memory:>10} {:>10.0}  {}", line.cpu, line.io, name.escape_debug())?;
    }
    Ok(writeln!(out)?)
}

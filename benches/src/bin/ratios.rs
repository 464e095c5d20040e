//! Measures and compares: `ratios [--area A] [--case TEXT] [--quick] [--rounds N] [--json FILE] [--svg DIR]`. See `BENCHMARKS.md`.

use cofferdam_benches::measuring::Effort;
use cofferdam_benches::report::{Entry, Outcome, json, micros, table};
use cofferdam_benches::svg::{Drawing, Line, draw};
use cofferdam_benches::{AREAS, Area, Case, Result, Role, counting, measuring};
use lexopt::prelude::{Long, Short, ValueExt};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
Usage: ratios [--area AREA] [--case TEXT] [--quick] [--rounds N] [--json FILE] [--svg DIR]

  --area AREA  only this area; may be given again
  --case TEXT  only the case of this name, or those that have it in their names; may be given again
  --quick      fewer rounds and cases: a look, not a result
  --rounds N   at most so many rounds, for cases that take long
  --json FILE  write the results for programs
  --svg DIR    draw plots into this folder";

#[derive(Debug, Default)]
struct Options {
    areas: Vec<String>,
    cases: Vec<String>,
    quick: bool,
    rounds: Option<usize>,
    json: Option<PathBuf>,
    svg: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("ratios: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ratios: {error}");
            ExitCode::FAILURE
        }
    }
}

/// None if only help was asked for.
fn options() -> Result<Option<Options>> {
    let mut options = Options::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("area") => {
                let name = parser.value()?.string()?;
                if !AREAS.iter().any(|area| area.name == name) {
                    let known: Vec<&str> = AREAS.iter().map(|area| area.name).collect();
                    return Err(format!("no area {name:?}; there are: {}", known.join(", ")).into());
                }
                options.areas.push(name);
            }
            Long("case") => options.cases.push(parser.value()?.string()?),
            Long("quick") => options.quick = true,
            Long("rounds") => options.rounds = Some(parser.value()?.parse()?),
            Long("json") => options.json = Some(parser.value()?.into()),
            Long("svg") => options.svg = Some(parser.value()?.into()),
            Short('h') | Long("help") => return Ok(None),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}

fn run(options: &Options) -> Result<()> {
    println!("{}", machine());
    if !cfg!(feature = "peers") {
        eprintln!("without the feature `peers`: cofferdam and the floor only");
    }
    let mut outcomes = Vec::new();
    for area in AREAS.iter().filter(|area| options.areas.is_empty() || options.areas.iter().any(|a| a == area.name)) {
        let mut measured = Vec::new();
        for case in wanted((area.cases)(options.quick)?, &options.cases) {
            let (name, started) = (case.name.clone(), std::time::Instant::now());
            if let Some(outcome) = measure(area, case, effort(options))? {
                eprintln!("{}: {name}: measured in {:.0} s", area.name, started.elapsed().as_secs_f64());
                measured.push(outcome);
            }
        }
        println!("\n## {}\n\n{}", area.name, table(&measured));
        if let Some(folder) = &options.svg {
            plots(area, &measured, folder)?;
        }
        outcomes.extend(measured);
    }
    if let Some(file) = &options.json {
        fs::write(file, json(&outcomes)? + "\n").map_err(|e| format!("{}: {e}", file.display()))?;
    }
    if outcomes.is_empty() { Err("nothing could be measured".into()) } else { Ok(()) }
}

/// The cases that are named, or have in their names what is asked for; all if nothing is.
fn wanted(mut cases: Vec<Case>, asked: &[String]) -> Vec<Case> {
    let named: Vec<bool> = asked.iter().map(|asked| cases.iter().any(|case| case.name == *asked)).collect();
    cases.retain(|case| {
        let fits = |(asked, named): (&String, &bool)| case.name == *asked || (!named && case.name.contains(asked));
        asked.is_empty() || asked.iter().zip(&named).any(fits)
    });
    cases
}

/// Which kernel, on what.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let who = if nix::unistd::geteuid().is_root() { "root" } else { "an ordinary user" };
    let huge = read("/sys/kernel/mm/transparent_hugepage/enabled");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("Linux {kernel}, {cpus} × {model}, as {who}; load {load} at the start; transparent huge pages: {huge}")
}

fn effort(options: &Options) -> Effort {
    let usual = if options.quick { Effort::QUICK } else { Effort::FULL };
    let most = options.rounds.map_or(usual.most, |rounds| rounds.max(1));
    Effort { rounds: usual.rounds.min(most), most, ..usual }
}

/// None if the case cannot be run here, which has been said then.
fn measure(area: &Area, case: Case, effort: Effort) -> Result<Option<Outcome>> {
    let ready = match (case.ready)() {
        Ok(ready) => ready,
        Err(why) => {
            eprintln!("{}: {}: skipped: {why}", area.name, case.name);
            return Ok(None);
        }
    };
    let mut contenders = Vec::new();
    for contender in ready.contenders {
        match (contender.make)()() {
            Ok(_) => contenders.push(contender),
            Err(why) => eprintln!("{}: {}: {}: skipped: {why}", area.name, case.name, contender.name),
        }
    }
    if contenders.is_empty() {
        return Ok(None);
    }
    let named = |e| format!("{}: {}: {e}", area.name, case.name);
    let times = measuring::measure(&contenders, case.threads, effort).map_err(named)?;
    let entries = contenders.iter().zip(times).map(|(contender, times)| {
        let counted = area.counted && contender.role != Role::Peer;
        let calls = counted.then(|| counting::count(contender)).transpose()?;
        Ok(Entry { name: contender.name.clone(), role: contender.role, times, calls })
    });
    let entries = entries.collect::<Result<_>>().map_err(named)?;
    Ok(Some(Outcome { area: area.name, case: case.name, point: case.point, entries }))
}

fn plots(area: &Area, outcomes: &[Outcome], folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for plot in area.plots {
        let mut lines: Vec<Line<'_>> = Vec::new();
        for outcome in outcomes {
            let Some((_, x)) = outcome.point.filter(|(name, _)| *name == plot.name) else { continue };
            for entry in &outcome.entries {
                let point = (x, micros(entry.times.median.whole));
                match lines.iter_mut().find(|line| line.name == entry.name) {
                    Some(line) => line.points.push(point),
                    None => lines.push(Line {
                        name: &entry.name,
                        strong: entry.role == Role::Cofferdam,
                        points: vec![point],
                    }),
                }
            }
        }
        if lines.is_empty() {
            continue;
        }
        let svg = draw(&Drawing { title: plot.title, x: plot.x, log_x: plot.log_x, y: "median time", lines });
        let file = folder.join(format!("{}.svg", plot.name));
        fs::write(&file, svg).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    Ok(())
}

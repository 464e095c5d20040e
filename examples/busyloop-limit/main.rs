//! A busy loop that would eat every core, and a control group that holds it to what was asked for.
//!
//! Read [`demonstrate`] first: it is the way of one sandbox through the two crates, from the cgroup to the process in
//! its namespaces, to the limit and what comes of it. What is beside that way has a file of its own.

mod busy;
mod draw;
mod measure;
mod options;
mod report;
mod stop;
mod watch;

use cofferdam_cgroups::{Controllers, CpuWeight, Enforcement, Hierarchy, Limits};
use cofferdam_namespaces::Fds;
use measure::{Meter, Phase, Room};
use nix::errno::Errno;
use options::{Command, HELP, Options};
use report::Report;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;
use stop::Stop;
use watch::Watch;

fn main() -> ExitCode {
    if let Some(threads) = busy::threads_asked_for() {
        return busy::spin(threads);
    }
    let done = match Options::parse(lexopt::Parser::from_env()) {
        Ok(Command::Run(options)) => demonstrate(&options),
        Ok(Command::Help) => write!(io::stdout(), "{HELP}").map(|()| ExitCode::SUCCESS).map_err(Stop::from),
        Err(why) => {
            complain(&format!("{why}; --help tells more"));
            return ExitCode::from(2);
        }
    };
    done.unwrap_or_else(|stop| {
        if let Stop::Failed(why) = &stop {
            complain(why);
        }
        stop.exit_code()
    })
}

/// The whole demonstration.
fn demonstrate(options: &Options) -> Result<ExitCode, Stop> {
    // From here on a signal ends a wait below, not this process, which has things to put away.
    let watch = Watch::start()?;

    // A cgroup of our own, in whatever hierarchies this machine has. The guard kills and deletes it, however we leave.
    let hierarchy = Hierarchy::detect()?;
    let cgroup = hierarchy.create(fresh_name(), Controllers::CPU)?.into_guard();
    // Ten times the usual weight, so that what else runs on the machine changes the figures less. More would starve us.
    cgroup.apply(&Limits::new().cpu_weight(CpuWeight::new(1000)?), Enforcement::Strict)?;

    // A process in namespaces of its own, born in that cgroup: not a moment of it is spent outside.
    let room = Room::look(&hierarchy);
    let threads = options.threads.unwrap_or(room.cpus);
    let child = busy::sandbox(threads)?.spawn_with(Fds::new().cgroup(cgroup.entry()?))?;

    // What came of it is looked at after everything has been put away.
    let possible = room.cores_for(threads);
    let mut meter = Meter::new(options, possible, &watch, &cgroup, &child);
    let measured = free_then_held(options, possible, &mut meter);
    child.kill()?; // as process 1 it takes everything in its namespaces along
    child.wait()?;
    cgroup.close()?;
    let (free, held) = measured?;

    let report = Report::new(hierarchy.layout(), options.cores, possible, &free, &held);
    if options.json {
        report.write_json(&mut io::stdout())?;
    } else {
        writeln!(io::stdout(), "{}", report.summary())?;
    }
    Ok(if report.is_held() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Some seconds without a limit and some with it, of the same running process.
fn free_then_held(options: &Options, possible: f64, meter: &mut Meter) -> Result<(Phase, Phase), Stop> {
    let asked = options.cores * 100.0;
    let has_effect = options.cores < possible;
    if !has_effect {
        let most = possible * 100.0;
        complain(&format!("a limit of {asked:.1} % is without effect: {most:.1} % is all that the threads can use"));
    }
    meter.introduce()?;
    let free = meter.phase("without a limit", None, options.seconds.div_ceil(2).min(3))?;

    let limits = Limits::new().cpu_quota(options.cpu).cpu_period(options.period);
    match meter.cgroup.apply(&limits, Enforcement::Strict) {
        // v1 refuses a quota beyond that of a cgroup above, v2 accepts it. On neither has it an effect.
        Err(error) if !has_effect && error.raw_os_error() == Some(Errno::EINVAL as i32) => {}
        applied => drop(applied?),
    }
    let title = format!("limited to {asked:.1} %: {:?} in each {:?}", options.quota, options.period.get());
    Ok((free, meter.phase(&title, Some(asked), options.seconds)?))
}

/// A name that tells whose cgroup it is, and that no leftover of an earlier process of the same number can have.
fn fresh_name() -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!("busyloop-limit-{}-{:x}", std::process::id(), now.as_nanos())
}

/// One line on standard error. That nobody reads it is no reason to fail.
fn complain(why: &str) {
    let line = why.replace(char::is_control, " ");
    let _ = writeln!(io::stderr(), "busyloop-limit: {line}");
}

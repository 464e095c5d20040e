//! The command line. Pure: nothing is looked at but the arguments.

use cofferdam_cgroups::{CpuPeriod, CpuQuota};
use lexopt::prelude::*;
use std::time::Duration;

pub(crate) const HELP: &str = "\
Runs a busy loop in new namespaces, first free and then held by a control group, and shows what the kernel counts.

usage: busyloop-limit [options]
  --cpu LIMIT     how much of one core it may use: 20%, or in cores 0.2 or 1.5 (default 20%)
  --threads N     busy threads (default: one for each CPU)
  --seconds S     how long it is held (default 5); before that it is free for about half of that, at most 3
  --period TIME   how often the kernel refills the quota: 1ms to 1s (default 100ms)
  --json          print the result as one JSON object, and nothing else
  --help          print this

Exit status: 0 held to within 3 points or 10 %, whichever is larger, or the limit is without effect; 1 not held, or
something failed; 2 bad usage; 128 and its number after a signal.
";

const MOST_THREADS: u32 = 4096;
const MOST_SECONDS: u32 = 3600;

/// What the user wants.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    Run(Options),
    Help,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    /// The limit in cores, and as the kernel is told it: the CPU time of each period.
    pub(crate) cores: f64,
    pub(crate) cpu: CpuQuota,
    pub(crate) quota: Duration,
    pub(crate) period: CpuPeriod,
    pub(crate) threads: Option<u32>,
    pub(crate) seconds: u32,
    pub(crate) json: bool,
}

impl Options {
    /// What is wrong comes as a line.
    pub(crate) fn parse(mut args: lexopt::Parser) -> Result<Command, String> {
        let (mut cpu, mut period) = ("20%".to_owned(), "100ms".to_owned());
        let (mut threads, mut seconds, mut json) = (None, 5, false);
        while let Some(arg) = args.next().map_err(|e| e.to_string())? {
            match arg {
                Long("cpu") => cpu = value(&mut args)?,
                Long("period") => period = value(&mut args)?,
                Long("threads") => threads = Some(number("--threads", &value(&mut args)?, MOST_THREADS)?),
                Long("seconds") => seconds = number("--seconds", &value(&mut args)?, MOST_SECONDS)?,
                Long("json") => json = true,
                Long("help") | Short('h') => return Ok(Command::Help),
                other => return Err(other.unexpected().to_string()),
            }
        }
        let period = parse_period(&period)?;
        let (cores, quota) = parse_cpu(&cpu)?;
        // A small part of a short period can be less than the kernel takes.
        let time = quota.in_period(period).map_err(|_| {
            format!("--cpu {cpu:?} of {:?} is less than {:?}, take a longer --period", period.get(), CpuQuota::MIN)
        })?;
        Ok(Command::Run(Options { cores, cpu: quota, quota: time, period, threads, seconds, json }))
    }
}

/// `20%`, or a number of cores.
fn parse_cpu(text: &str) -> Result<(f64, CpuQuota), String> {
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |percent| (percent.trim_end(), 100.0));
    let cores = number.parse::<f64>().ok().map(|number| number / unit);
    let found = cores.and_then(|cores| Some((cores, CpuQuota::cores(cores).ok()?)));
    found.ok_or_else(|| format!("--cpu {text:?} is neither a percentage, such as 20%, nor 0.001 to 4096 cores"))
}

/// A number with its unit.
fn parse_period(text: &str) -> Result<CpuPeriod, String> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    let seconds = units.iter().find_map(|(unit, scale)| {
        let number = text.strip_suffix(unit)?.trim_end().parse::<f64>().ok()?;
        Some(number * scale)
    });
    let period = seconds.and_then(|seconds| CpuPeriod::new(Duration::try_from_secs_f64(seconds).ok()?).ok());
    period.ok_or_else(|| format!("--period {text:?} is not a time from 1ms to 1s, which is what the kernel takes"))
}

/// From 1 to the most.
fn number(name: &str, text: &str, most: u32) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("{name} {text:?} is not a number from 1 to {most}"))
}

/// The word after an option. What is not UTF-8 is not a number either.
fn value(args: &mut lexopt::Parser) -> Result<String, String> {
    let value = args.value().map_err(|e| e.to_string())?;
    Ok(value.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Command, String> {
        Options::parse(lexopt::Parser::from_args(args))
    }

    fn options(args: &[&str]) -> Options {
        match parse(args) {
            Ok(Command::Run(options)) => options,
            other => panic!("{args:?}: {other:?}"),
        }
    }

    #[test]
    fn without_arguments() {
        let options = options(&[]);
        assert!((options.cores - 0.2).abs() < 1e-9);
        assert_eq!((options.quota, options.period), (Duration::from_millis(20), CpuPeriod::DEFAULT));
        assert_eq!((options.threads, options.seconds, options.json), (None, 5, false));
    }

    #[test]
    fn limits() {
        for (cpu, period, micros) in [
            ("20%", "100ms", 20_000),
            ("20 %", "100ms", 20_000),
            ("0.2", "100ms", 20_000),
            ("1.5", "100ms", 150_000),
            ("150%", "0.1s", 150_000),
            ("33.3333%", "100ms", 33_333),
            ("1%", "100 ms", 1000),
            ("0.1%", "1s", 1000),
            ("100%", "1ms", 1000),
            ("4096", "1000000us", 4_096_000_000),
        ] {
            let options = options(&["--cpu", cpu, "--period", period]);
            assert_eq!(options.quota, Duration::from_micros(micros), "{cpu} {period}");
        }
    }

    #[test]
    fn the_rest() {
        let options = options(&["--threads", "3", "--seconds=2", "--json", "--cpu=50%"]);
        assert_eq!((options.threads, options.seconds, options.json), (Some(3), 2, true));
        assert_eq!(parse(&["--json", "--help", "--cpu"]), Ok(Command::Help));
        assert_eq!(parse(&["-h"]), Ok(Command::Help));
    }

    #[test]
    fn bad_use() {
        for (args, says) in [
            (&["--cpu", "0"][..], "--cpu \"0\" is neither"),
            (&["--cpu", "-5"], "--cpu \"-5\" is neither"),
            (&["--cpu", "abc"], "neither"),
            (&["--cpu", "1e9"], "neither"),
            (&["--cpu", "nan"], "neither"),
            (&["--cpu", "inf"], "neither"),
            (&["--cpu", "-inf%"], "neither"),
            (&["--cpu", ""], "neither"),
            (&["--cpu", "%"], "neither"),
            (&["--cpu", "20%%"], "neither"),
            (&["--cpu", "1\n2"], "\"1\\n2\""),
            (&["--cpu", "0.5%"], "of 100ms is less than 1ms, take a longer --period"),
            (&["--cpu", "50%", "--period", "1ms"], "of 1ms is less than 1ms"),
            (&["--cpu"], "--cpu"),
            (&["--period", "0.9ms"], "from 1ms to 1s"),
            (&["--period", "1.1s"], "from 1ms to 1s"),
            (&["--period", "100"], "from 1ms to 1s"),
            (&["--period", "-1s"], "from 1ms to 1s"),
            (&["--period", "nans"], "from 1ms to 1s"),
            (&["--period", "1e300s"], "from 1ms to 1s"),
            (&["--threads", "0"], "--threads \"0\" is not a number from 1 to 4096"),
            (&["--threads", "4097"], "from 1 to 4096"),
            (&["--threads", "-1"], "from 1 to 4096"),
            (&["--seconds", "0"], "--seconds \"0\" is not a number from 1 to 3600"),
            (&["--seconds", "1e3"], "from 1 to 3600"),
            (&["--json=1"], "json"),
            (&["--spin-inside", "2"], "--spin-inside"),
            (&["20%"], "20%"),
        ] {
            let why = parse(args).unwrap_err();
            assert!(why.contains(says) && !why.contains('\n'), "{args:?}: {why}");
        }
    }
}

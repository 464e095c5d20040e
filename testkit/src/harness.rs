//! The list of tests as libtest-mimic wants it, and the start of each one's guard.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::panic::Location;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::guard::{self, Order};
use crate::log::log;
use crate::need::Need;
use crate::place::{Place, Places, patience};
use crate::test::Test;

/// Runs the tests as the command line asks, which is that of every Rust test program: the whole
/// `main` of a test target with `harness = false`.
///
/// The name of a test in `places.txt` begins with the workspace folder that the caller is in.
#[must_use]
#[track_caller]
pub fn run(tests: &[Test]) -> ExitCode {
    let package = Location::caller().file().split('/').next().unwrap_or_default();
    match Places::committed() {
        Ok(places) => run_listed(&places, package, tests),
        Err(why) => refuse(&why),
    }
}

/// As [`run`], with a list of places and the package's name in it.
#[must_use]
pub fn run_listed(places: &Places, package: &str, tests: &[Test]) -> ExitCode {
    if let Some(order) = Order::from_command_line() {
        return match order {
            Ok(order) => guard::run(&order, tests),
            Err(why) => refuse(&why),
        };
    }
    let place = match Place::required() {
        Ok(place) => place,
        Err(why) => return refuse(&why),
    };
    let args = Arguments::from_args();
    let mut probes = Probes::default();
    let isolated = probes.check(Need::Root).is_ok();
    let trials: Vec<Trial> = tests
        .iter()
        .map(|test| Plan { full_name: format!("{package}::{}", test.name), place, isolated, show: args.nocapture })
        .zip(tests)
        .map(|(plan, test)| plan.trial(test, places, &mut probes))
        .collect();
    if !args.list && !args.ignored && !args.include_ignored {
        for trial in trials.iter().filter(|t| t.has_ignored_flag() && !args.is_filtered_out(t)) {
            if let Err(why) = log(place, &format!("{package}::{}", trial.name()), &format!("ignored: {}", trial.kind()))
            {
                return refuse(&why);
            }
        }
    }
    libtest_mimic::run(&args, trials).exit_code()
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("testkit: {why}");
    ExitCode::from(2)
}

/// The answers so far: a need is probed once.
#[derive(Default)]
struct Probes(Vec<(Need, Result<(), String>)>);

impl Probes {
    fn check(&mut self, need: Need) -> Result<(), String> {
        if let Some((_, known)) = self.0.iter().find(|(n, _)| *n == need) {
            return known.clone();
        }
        let answer = need.check();
        self.0.push((need, answer.clone()));
        answer
    }

    /// The first unmet need of a test; `None` if all are met.
    fn unmet(&mut self, needs: &[Need]) -> Option<String> {
        let mut unmet = needs.iter().filter_map(|n| self.check(*n).err().map(|why| format!("needs {n}: {why}")));
        Some(unmet.next()?.replace('\n', " "))
    }
}

/// How one test is to be run.
struct Plan {
    full_name: String,
    place: Option<Place>,
    isolated: bool,
    /// Show the output as it comes instead of with the failure.
    show: bool,
}

impl Plan {
    fn trial(self, test: &Test, places: &Places, probes: &mut Probes) -> Trial {
        let Some(listed) = places.of(&self.full_name) else {
            let why = format!("{} is not in testkit/places.txt, which says where each test must run", self.full_name);
            return Trial::test(test.name, move || Err(why.into()));
        };
        let required = self.place.is_some_and(|place| listed.contains(&place));
        // What runs in a place is what the list says, and not what happens to find its needs met there.
        if let Some(place) = self.place.filter(|_| !required) {
            let why = format!("not listed for {}", place.name());
            let kind = why.clone();
            return Trial::test(test.name, move || self.record(Err(why.into())))
                .with_kind(kind)
                .with_ignored_flag(true);
        }
        match probes.unmet(&test.needs) {
            None => {
                let (name, time) = (test.name, test.time * patience());
                Trial::test(name, move || self.run(name, time))
            }
            Some(why) if required => {
                let place = self.place.map_or("", Place::name);
                let why = format!("listed for {place} in testkit/places.txt, but {why}");
                Trial::test(test.name, move || self.record(Err(why.into())))
            }
            Some(why) => {
                let kind = why.clone();
                Trial::test(test.name, move || self.record(Err(why.into()))).with_kind(kind).with_ignored_flag(true)
            }
        }
    }

    fn run(&self, name: &str, time: Duration) -> Result<(), Failed> {
        self.record(self.run_guarded(name, time).map_err(Failed::from))
    }

    fn record(&self, result: Result<(), Failed>) -> Result<(), Failed> {
        log(self.place, &self.full_name, if result.is_ok() { "passed" } else { "failed" })?;
        result
    }

    /// Starts the guard in a folder with the test's `TMPDIR` and output.
    fn run_guarded(&self, name: &str, time: Duration) -> Result<(), String> {
        let say = |what: &str, e: &dyn std::fmt::Display| format!("testkit: {what}: {e}");
        let dir = tempfile::Builder::new().prefix("cofferdam-test-").tempdir();
        let dir = dir.map_err(|e| say("cannot make a temporary folder", &e))?;
        let (temp, output) = (dir.path().join("tmp"), dir.path().join("output"));
        // Programs with other ids, in a test's sandbox, may have to go through them.
        let open = |path| fs::set_permissions(path, Permissions::from_mode(0o755));
        let made = open(dir.path()).and_then(|()| fs::create_dir(&temp)).and_then(|()| open(&temp));
        made.map_err(|e| say("cannot prepare a temporary folder", &e))?;

        let order = Order {
            test: name.to_owned(),
            dir: dir.path().to_owned(),
            time,
            isolated: self.isolated,
            parent: nix::unistd::Pid::this(),
        };
        let mut guard = Command::new("/proc/self/exe");
        guard.arg0(format!("guard of {name}"));
        guard.args(order.to_args()).env("TMPDIR", &temp).stdin(Stdio::null());
        if !self.show {
            let file = OpenOptions::new().append(true).create(true).open(&output);
            let file = file.map_err(|e| say("cannot make the output file", &e))?;
            let again = file.try_clone().map_err(|e| say("cannot share the output file", &e))?;
            guard.stdout(file).stderr(again);
        }
        let status = guard.status().map_err(|e| say("cannot start the test's process", &e))?;
        if status.success() {
            return Ok(());
        }
        let output = fs::read(&output).unwrap_or_default();
        Err(format!("{}({status})", String::from_utf8_lossy(&output)))
    }
}

//! `cofferdam-cgroup-peers [--rounds N] [life] [sample COUNT]...`, as root.
//!
//! `life`: from nothing to a process in a limited cgroup, its statistics, and until all is gone again, by each of the three, in
//! turns. `sample`: the statistics of so many cgroups, again and again, as a monitoring loop does. Tells medians of the time,
//! and the system calls, counted exactly.
//!
//! All have the same limits: 20 ms in each 100 ms, 64 MiB of memory, 64 processes. cofferdam knows its trees already, as a program that keeps a
//! `Hierarchy` does; the two others look for them for each cgroup, which is how they are made to be used. They join every
//! controller of v1 that is mounted, and read what each of them counts; so they do more.

mod libcgroups_peer;
mod ours;
mod rs_peer;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cofferdam_testkit::fault::record;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The steps of a life.
const STEPS: [&str; 4] = ["create, limit", "enter", "read", "delete"];

/// One way to do it. Each step once, in their order; a life ends with the process out of the cgroup, and killed.
trait Contender: Send {
    fn name(&self) -> &'static str;
    fn create_and_limit(&mut self) -> Result<()>;
    fn enter(&mut self, pid: u32) -> Result<()>;
    /// How many processes are counted.
    fn read(&mut self) -> Result<u64>;
    fn delete(&mut self) -> Result<()>;
    /// So many cgroups with nobody in them, ready to be read.
    fn make_many(&mut self, count: usize) -> Result<()>;
    /// Reads all of them: how many processes are counted.
    fn sample(&mut self) -> Result<u64>;
    fn delete_many(&mut self) -> Result<()>;
}

fn process() -> Result<Child> {
    Ok(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn()?)
}

/// Does what `run` is given each of the steps to.
fn life(one: &mut dyn Contender, mut run: impl FnMut(usize, &mut (dyn FnMut() -> Result<()> + Send)) -> Result<()>) -> Result<()> {
    let mut process = process()?;
    let pid = process.id();
    run(0, &mut || one.create_and_limit())?;
    run(1, &mut || one.enter(pid))?;
    let mut counted = 0;
    run(2, &mut || one.read().map(|found| counted = found))?;
    // By nobody's means, and not counted: it is not what is compared.
    process.kill()?;
    process.wait()?;
    run(3, &mut || one.delete())?;
    if counted == 1 { Ok(()) } else { Err(format!("{}: {counted} processes", one.name()).into()) }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn lives(contenders: &mut [Box<dyn Contender>], rounds: usize) -> Result<()> {
    let mut times = vec![[const { Vec::<Duration>::new() }; 4]; contenders.len()];
    for _ in 0..rounds {
        for (one, times) in contenders.iter_mut().zip(&mut times) {
            life(&mut **one, |step, what| {
                let start = Instant::now();
                what()?;
                times[step].push(start.elapsed());
                Ok(())
            })?;
        }
    }
    println!("| | {} | all | times ours |", STEPS.join(" | "));
    println!("|---|---:|---:|---:|---:|---:|---:|");
    let mut ours = None;
    for (one, times) in contenders.iter_mut().zip(&mut times) {
        let mut calls = [0; 4];
        life(&mut **one, |step, what| {
            let (recorded, result) = record(what);
            calls[step] = recorded.len();
            result
        })?;
        let medians = times.each_mut().map(|times| median(times));
        let cells = medians.iter().zip(calls).map(|(time, calls)| format!("{}, {calls}", micros(*time)));
        let (time, calls) = (medians.iter().sum::<Duration>(), calls.iter().sum::<usize>());
        let cells = cells.collect::<Vec<_>>().join(" | ");
        println!("| {} | {cells} | {}, {calls} | {} |", one.name(), micros(time), ratio(&mut ours, time, calls));
    }
    Ok(())
}

/// Leaves no cgroup behind, however it goes.
fn samples(contenders: &mut [Box<dyn Contender>], rounds: usize, count: usize) -> Result<()> {
    let made = contenders.iter_mut().try_for_each(|one| one.make_many(count));
    let sampled = made.and_then(|()| sample_made(contenders, rounds, count));
    contenders.iter_mut().fold(sampled, |result, one| result.and(one.delete_many()))
}

fn sample_made(contenders: &mut [Box<dyn Contender>], rounds: usize, count: usize) -> Result<()> {
    let mut times = vec![Vec::new(); contenders.len()];
    for _ in 0..rounds {
        for (one, times) in contenders.iter_mut().zip(&mut times) {
            let start = Instant::now();
            let processes = one.sample()?;
            times.push(start.elapsed());
            if processes != 0 {
                return Err(format!("{}: {processes} processes", one.name()).into());
            }
        }
    }
    println!("| sample {count} | time | system calls | times ours |");
    println!("|---|---:|---:|---:|");
    let mut ours = None;
    for (one, times) in contenders.iter_mut().zip(&mut times) {
        let (recorded, result) = record(|| one.sample());
        result?;
        let time = median(times);
        println!("| {} | {} | {} | {} |", one.name(), micros(time), recorded.len(), ratio(&mut ours, time, recorded.len()));
    }
    Ok(())
}

fn micros(time: Duration) -> String {
    format!("{} µs", time.as_micros())
}

/// How many times as much as the first, which is ours.
fn ratio(ours: &mut Option<(Duration, usize)>, time: Duration, calls: usize) -> String {
    let Some((first, least)) = *ours else {
        *ours = Some((time, calls));
        return String::new();
    };
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let calls = calls as f64 / least as f64;
    format!("{:.1}, {calls:.1}", time.as_secs_f64() / first.as_secs_f64())
}

fn main() -> Result<()> {
    let mut contenders: Vec<Box<dyn Contender>> =
        vec![Box::new(ours::Ours::new()?), Box::new(libcgroups_peer::Peer::default()), Box::new(rs_peer::Peer::default())];
    let mut rounds = 31;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || -> Result<usize> { Ok(words.next().ok_or("a number is missing")?.parse()?) };
        match word.as_str() {
            "--rounds" => rounds = number()?,
            "life" => lives(&mut contenders, rounds)?,
            "sample" => samples(&mut contenders, rounds, number()?)?,
            word => return Err(format!("{word}? life, sample COUNT, --rounds N").into()),
        }
    }
    Ok(())
}

//! `cofferdam-cgroup-peers [ROUNDS]`: from nothing to a process in a limited cgroup, its statistics, and until all is gone again, by
//! each of the three, in turns. Tells medians of the time, and the system calls, counted exactly. As root.
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

fn main() -> Result<()> {
    let rounds: usize = std::env::args().nth(1).map_or(Ok(31), |rounds| rounds.parse())?;
    let mut contenders: Vec<Box<dyn Contender>> =
        vec![Box::new(ours::Ours::new()?), Box::new(libcgroups_peer::Peer::default()), Box::new(rs_peer::Peer::default())];
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
    println!("| | {} | all |", STEPS.join(" | "));
    println!("|---|---:|---:|---:|---:|---:|");
    for (one, times) in contenders.iter_mut().zip(&mut times) {
        let mut calls = [0; 4];
        life(&mut **one, |step, what| {
            let (recorded, result) = record(what);
            calls[step] = recorded.len();
            result
        })?;
        let medians = times.each_mut().map(|times| {
            times.sort();
            times[times.len() / 2].as_micros()
        });
        let cells = medians.iter().zip(calls).map(|(time, calls)| format!("{time} µs, {calls}"));
        let (time, calls) = (medians.iter().sum::<u128>(), calls.iter().sum::<usize>());
        println!("| {} | {} | {time} µs, {calls} |", one.name(), cells.collect::<Vec<_>>().join(" | "));
    }
    Ok(())
}

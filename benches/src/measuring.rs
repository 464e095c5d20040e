//! Contenders take turns; what comes out is medians.

use crate::Result;
use crate::area::{Contender, Runner, Sample};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// How often each contender runs.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// At least so many rounds,
    pub rounds: usize,
    /// and more until this time has passed,
    pub time: Duration,
    /// but not more than so many.
    pub most: usize,
}

impl Effort {
    /// Good enough to be shown to others.
    pub const FULL: Effort = Effort { rounds: 31, time: Duration::from_secs(2), most: 501 };
    /// A look.
    pub const QUICK: Effort = Effort { rounds: 7, time: Duration::from_millis(500), most: 31 };
}

/// What a contender took over all rounds.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// In the middle.
    pub median: Sample,
    /// 95 of 100 took no longer.
    pub p95: Sample,
    /// The quickest: what a machine that does nothing else would show.
    pub best: Sample,
    /// How many samples these are of.
    pub rounds: usize,
}

/// How many times in a row each of several threads does it, so that starting together does not matter.
const IN_A_ROW: u32 = 4;

/// Runs all contenders in turn, each of them `threads` times at once.
///
/// Before each run that counts there are some of the same contender that do not: what another one did to caches and page
/// tables (a fork makes all of the caller's memory copy-on-write) is not charged to it.
///
/// # Errors
/// The first run that fails or has a wrong effect, with the contender's name.
pub fn measure(contenders: &[Contender], threads: usize, effort: Effort) -> Result<Vec<Times>> {
    let mut runners: Vec<Vec<Runner>> =
        contenders.iter().map(|contender| (0..threads).map(|_| (contender.make)()).collect()).collect();
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); contenders.len()];
    let start = Instant::now();
    let mut round = 0;
    while round < effort.rounds || (round < effort.most && start.elapsed() < effort.time) {
        for at in order(contenders.len(), round) {
            let sample = warm_up(&mut runners[at]).and_then(|()| run(&mut runners[at]));
            samples[at].push(sample.map_err(|e| format!("{}: {e}", contenders[at].name))?);
        }
        round += 1;
    }
    Ok(samples.iter().map(|samples| summary(samples)).collect())
}

/// At least one run, and more for so long. After the fork of a large program one is not enough.
const WARM_UP: Duration = Duration::from_millis(2);

fn warm_up(runners: &mut [Runner]) -> Result<()> {
    let start = Instant::now();
    loop {
        run(runners)?;
        if start.elapsed() >= WARM_UP {
            return Ok(());
        }
    }
}

/// The order of a round. Shuffled, so that nobody always comes after the same one: what a container engine leaves behind
/// (a namespace or a cgroup to be torn down) is still at work when the next one starts. The same in every run of the bench.
fn order(len: usize, round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    let mut state = round as u64;
    for last in (1..len).rev() {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let any = usize::try_from((mixed ^ (mixed >> 31)) % (last as u64 + 1)).unwrap_or(0);
        order.swap(last, any);
    }
    order
}

fn run(runners: &mut [Runner]) -> Result<Sample> {
    match runners {
        [one] => one(),
        many => run_at_once(many),
    }
}

/// For several threads the sample is the wall-clock time per operation, and the mean time until each was ready.
fn run_at_once(runners: &mut [Runner]) -> Result<Sample> {
    let together = Barrier::new(runners.len());
    let count = u32::try_from(runners.len())? * IN_A_ROW;
    let each: Vec<Result<(Instant, Instant, Duration)>> = thread::scope(|scope| {
        let threads: Vec<_> = runners.iter_mut().map(|runner| scope.spawn(|| in_a_row(runner, &together))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err("a thread panicked".into()))).collect()
    });
    let each = each.into_iter().collect::<Result<Vec<_>>>()?;
    let start = each.iter().map(|(start, _, _)| *start).min().ok_or("no thread")?;
    let end = each.iter().map(|(_, end, _)| *end).max().ok_or("no thread")?;
    let returned: Duration = each.iter().map(|(_, _, returned)| *returned).sum();
    Ok(Sample { whole: (end - start) / count, returned: returned / count })
}

fn in_a_row(runner: &mut Runner, together: &Barrier) -> Result<(Instant, Instant, Duration)> {
    together.wait();
    let start = Instant::now();
    let mut returned = Duration::ZERO;
    for _ in 0..IN_A_ROW {
        returned += runner()?.returned;
    }
    Ok((start, Instant::now(), returned))
}

fn summary(samples: &[Sample]) -> Times {
    let whole = quantiles(samples.iter().map(|s| s.whole).collect());
    let returned = quantiles(samples.iter().map(|s| s.returned).collect());
    let [best, median, p95] = [0, 1, 2].map(|at| Sample { whole: whole[at], returned: returned[at] });
    Times { median, p95, best, rounds: samples.len() }
}

/// The least, the median and the 95th percentile: the smallest value that half, or 95 of 100, do not exceed.
fn quantiles(mut values: Vec<Duration>) -> [Duration; 3] {
    values.sort_unstable();
    [0, 50, 95].map(|percent: usize| {
        let rank = (values.len() * percent).div_ceil(100).max(1);
        values.get(rank - 1).copied().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let micros = |values: &[u64]| {
            quantiles(values.iter().map(|v| Duration::from_micros(*v)).collect()).map(|time| time.as_micros())
        };
        assert_eq!(micros(&[7]), [7, 7, 7]);
        assert_eq!(micros(&[3, 1, 2]), [1, 2, 3]);
        let to_100: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(micros(&to_100), [1, 50, 95]);
    }

    #[test]
    fn everybody_comes_after_everybody_else_about_as_often() {
        let mut after = [[0; 4]; 4];
        for round in 0..300 {
            let order = order(4, round);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3]);
            for pair in order.windows(2) {
                after[pair[0]][pair[1]] += 1;
            }
        }
        // 900 pairs of 12 kinds.
        let kinds = (0..4).flat_map(|a| (0..4).filter(move |b| *b != a).map(move |b| (a, b)));
        assert!(kinds.map(|(a, b)| after[a][b]).all(|times| (50..100).contains(&times)), "{after:?}");
    }

    fn constant(name: &str, micros: u64) -> Contender {
        let took = Duration::from_micros(micros);
        Contender::new(name, Role::Peer, move || move || Ok(Sample { whole: took, returned: took }))
    }

    #[test]
    fn every_contender_runs_as_often() {
        let effort = Effort { rounds: 3, time: Duration::ZERO, most: 5 };
        let times = measure(&[constant("a", 1), constant("b", 2)], 1, effort).unwrap();
        assert_eq!(times.iter().map(|t| t.rounds).collect::<Vec<_>>(), [3, 3]);
        assert_eq!(times[1].median.whole, Duration::from_micros(2));
        let times = measure(&[constant("a", 1)], 4, effort).unwrap();
        assert_eq!(times[0].median.returned, Duration::from_micros(1), "the mean over all threads");
    }

    #[test]
    fn a_wrong_run_ends_it_and_is_named() {
        let wrong = Contender::new("wrong", Role::Peer, || || Err("printed nothing".into()));
        let error = measure(&[constant("right", 1), wrong], 1, Effort::QUICK).unwrap_err();
        assert_eq!(error.to_string(), "wrong: printed nothing");
    }
}

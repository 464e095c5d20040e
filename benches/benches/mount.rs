//! Mounting against the number of lowers: `cargo bench -p cofferdam-benches --features criterion --bench mount`.
#![allow(missing_docs, reason = "criterion's macros make functions without any")]

use cofferdam_benches::mount::{Given, Place, Shape, cofferdam, floor};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::sync::Arc;
use std::time::Duration;

fn against_lowers(c: &mut Criterion) {
    let mut group = c.benchmark_group("mount");
    group.sample_size(31).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    for lowers in [1, 2, 10, 128, 500] {
        let place = match Place::new(Shape::Overlay(lowers)) {
            Ok(place) => Arc::new(place),
            Err(why) => {
                eprintln!("mount: skipped: {why}");
                return;
            }
        };
        for contender in [cofferdam(&place, Given::Paths), floor(&place)] {
            let contender = contender.expect("layers");
            let mut run = (contender.make)();
            // The check of what was mounted is not in a sample, but would be in the time of an iteration.
            group.bench_function(BenchmarkId::new(&contender.name, lowers), |b| {
                b.iter_custom(|times| (0..times).map(|_| run().expect("mounts").whole).sum());
            });
        }
    }
}

criterion_group!(benches, against_lowers);
criterion_main!(benches);

//! Spawn against the caller's heap: `cargo bench -p cofferdam-benches --features criterion`.
#![allow(missing_docs, reason = "criterion's macros make functions without any")]

use cofferdam_benches::spawn::{Heap, Program, Shape, Way, cofferdam, floor};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::time::Duration;

fn against_heap(c: &mut Criterion) {
    let program = Program::write().expect("a folder for the program");
    for (name, shape) in [("plain", Shape::PLAIN), ("namespaces", Shape::SIX)] {
        let mut group = c.benchmark_group(format!("spawn/{name}"));
        group.sample_size(31).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
        for gib in [0, 1, 4, 8] {
            let heap = match Heap::touch(gib) {
                Ok(heap) => heap,
                Err(why) => {
                    eprintln!("spawn/{name} with {gib} GiB: skipped: {why}");
                    continue;
                }
            };
            for contender in [cofferdam(shape, Way::Prepared, &program), floor(shape, &program)] {
                let contender = contender.expect("a plan");
                let mut run = (contender.make)();
                group.bench_function(BenchmarkId::new(&contender.name, format!("{gib} GiB")), |b| {
                    b.iter(|| run().expect("runs"));
                });
            }
            drop(heap);
        }
    }
}

criterion_group!(benches, against_heap);
criterion_main!(benches);

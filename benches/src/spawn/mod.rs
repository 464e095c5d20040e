//! Spawning a process: until it has said where it runs, and until it has ended and been waited for.
//!
//! All contenders start the same tiny program ([`probe`](crate::floor::probe)), whose output says where it ran.

#[cfg(feature = "peers")]
mod bundle;
mod heap;
mod ours;
#[cfg(feature = "peers")]
mod peers;
mod program;
pub(crate) mod run;
mod shape;
#[cfg(feature = "peers")]
mod tools;

use crate::Result;
use crate::area::{Area, Case, Plot, Ready};
#[cfg(feature = "peers")]
pub(crate) use bundle::{Bundle, container_id};
pub use heap::Heap;
pub(crate) use ours::ignored_signals;
pub use ours::{cofferdam, floor};
#[cfg(feature = "peers")]
pub(crate) use peers::found;
use program::Expect;
pub use program::Program;
pub(crate) use program::copy_program;
pub use shape::Shape;
use std::sync::Arc;

/// See the module.
pub const AREA: Area = Area {
    name: "spawn",
    cases,
    plots: &[
        Plot { name: "spawn-plain-heap", title: "Spawn, no namespaces: until its end", x: HEAP_AXIS, log_x: false },
        Plot {
            name: "spawn-namespaces-heap",
            title: "Spawn into six namespaces: until its end",
            x: HEAP_AXIS,
            log_x: false,
        },
        Plot {
            name: "spawn-rootfs-heap",
            title: "Spawn into a root of its own, four namespaces: until its end",
            x: HEAP_AXIS,
            log_x: false,
        },
    ],
    counted: true,
};

const HEAP_AXIS: &str = "memory that the spawning program has touched, GiB";
/// The shapes that are drawn against the heap, in the order of the plots.
const DRAWN: [Shape; 3] = [Shape::PLAIN, Shape::SIX, Shape::ROOT];

/// How cofferdam is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `Plan::spawn` of a plan made before.
    Prepared,
    /// `Sandbox::spawn`, which makes the plan too.
    OneShot,
    /// As `Prepared`, on the engine that copies the caller's memory.
    Copied,
    /// As `OneShot`, on that engine.
    CopiedOneShot,
}

impl Way {
    fn is_prepared(self) -> bool {
        matches!(self, Way::Prepared | Way::Copied)
    }

    fn is_copy(self) -> bool {
        matches!(self, Way::Copied | Way::CopiedOneShot)
    }
}

#[derive(Debug, Clone, Copy)]
struct Variant {
    shape: Shape,
    way: Way,
    gib: usize,
    threads: usize,
}

impl Variant {
    /// One thread, nothing on the heap, a plan that is kept if that can be: a root that is a mount can be attached once.
    fn new(shape: Shape) -> Self {
        let way = if shape.root { Way::OneShot } else { Way::Prepared };
        Variant { shape, way, gib: 0, threads: 1 }
    }

    fn name(self) -> String {
        let way = match self.way {
            Way::Prepared if self.shape.root => ", prepared",
            Way::Prepared => "",
            Way::OneShot => ", one-shot",
            Way::Copied => ", copy",
            Way::CopiedOneShot => ", copy, one-shot",
        };
        let threads = if self.threads == 1 { String::new() } else { format!(", {} threads", self.threads) };
        format!("{}{way}, {} GiB heap{threads}", self.shape.name(), self.gib)
    }

    /// Alone and on the usual way: what others are compared with.
    fn is_usual(self) -> bool {
        self.threads == 1 && self.way == Variant::new(self.shape).way
    }

    fn point(self) -> Option<(&'static str, f64)> {
        let plot = DRAWN.iter().zip(AREA.plots).find(|(shape, _)| **shape == self.shape).map(|(_, plot)| plot.name)?;
        #[expect(clippy::cast_precision_loss, reason = "a handful of gibibytes")]
        self.is_usual().then_some((plot, self.gib as f64))
    }
}

/// How many threads spawn at once, where several do.
const MANY: usize = 8;

fn variants(heaps: &[usize]) -> Vec<Variant> {
    let mut variants = Vec::new();
    for shape in [Shape::ROOT, Shape::ROOT_NET, Shape::ROOT_USER, Shape::PLAIN, Shape::SIX] {
        let one = Variant::new(shape);
        let against: &[usize] = if DRAWN.contains(&shape) { heaps } else { &[0] };
        variants.extend(against.iter().map(|gib| Variant { gib: *gib, ..one }));
        let most = against.iter().max().copied().unwrap_or(0);
        variants
            .extend([0, most].map(|gib| Variant { gib, threads: MANY, ..one }).into_iter().take(against.len().min(2)));
        if shape.root {
            variants.push(Variant { way: Way::Prepared, ..one });
            variants.push(Variant { way: Way::Prepared, threads: MANY, ..one });
            variants.extend([Way::Copied, Way::CopiedOneShot].map(|way| Variant { way, ..one }));
        } else {
            variants.push(Variant { way: Way::OneShot, ..one });
            let copied = Variant { way: Way::Copied, ..one };
            variants.extend(heaps.iter().map(|gib| Variant { gib: *gib, ..copied }));
            variants.extend([0, most].map(|gib| Variant { gib, threads: MANY, ..copied }));
            variants.push(Variant { way: Way::CopiedOneShot, ..one });
        }
    }
    for shape in Shape::each().chain([Shape::ALL]) {
        for threads in [1, MANY] {
            variants.extend([Way::Prepared, Way::OneShot].map(|way| Variant { way, threads, ..Variant::new(shape) }));
        }
    }
    variants
}

fn cases(quick: bool) -> Result<Vec<Case>> {
    let program = Arc::new(Program::write()?);
    let heaps: &[usize] = if quick { &[0, 1] } else { &[0, 1, 4, 8] };
    Ok(variants(heaps).into_iter().map(|variant| case(variant, &program)).collect())
}

fn case(variant: Variant, program: &Arc<Program>) -> Case {
    let program = Arc::clone(program);
    Case {
        name: variant.name(),
        threads: variant.threads,
        point: variant.point(),
        ready: Box::new(move || {
            let heap = Heap::touch(variant.gib)?;
            #[cfg_attr(not(feature = "peers"), expect(unused_mut, reason = "peers are added"))]
            let mut contenders =
                vec![ours::cofferdam(variant.shape, variant.way, &program)?, ours::floor(variant.shape, &program)?];
            #[cfg(feature = "peers")]
            let (peers, also_held) = peers::of(variant, &program)?;
            #[cfg(feature = "peers")]
            contenders.extend(peers);
            #[cfg(not(feature = "peers"))]
            let also_held = ();
            Ok(Ready { contenders, held: Box::new((heap, program, also_held)) })
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_only_comparable_cases_are_drawn() {
        let all = cases(false).unwrap();
        let mut names: Vec<&str> = all.iter().map(|case| case.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
        for plot in AREA.plots {
            let xs: Vec<f64> = all.iter().filter_map(|c| c.point.filter(|p| p.0 == plot.name)).map(|p| p.1).collect();
            assert_eq!(xs, [0.0, 1.0, 4.0, 8.0], "{}", plot.name);
        }
    }

    #[test]
    fn both_spawn_a_process_that_says_where_it_is() {
        let program = Arc::new(Program::write().unwrap());
        for way in [Way::Prepared, Way::OneShot] {
            (cofferdam(Shape::PLAIN, way, &program).unwrap().make)()().unwrap();
        }
        let sample = (floor(Shape::PLAIN, &program).unwrap().make)()().unwrap();
        assert!(sample.whole >= sample.returned);
        assert!(Expect::of(Shape::SIX).unwrap().check(b"2 bench\n", 2).is_err());
    }
}

//! Mounting: from the directories of layers to a mount, and until that is gone again.
//!
//! Every run looks into its mount: a file that only the lowest layer has is there, the topmost layer wins, and it can be
//! written to or not as was wanted. That look is not timed.

mod layers;
mod ours;
#[cfg(feature = "peers")]
mod peers;
mod place;

use crate::Result;
use crate::area::{Area, Case, Plot, Ready};
use std::sync::Arc;

pub use ours::{Given, cofferdam, floor};
pub use place::Place;

/// See the module.
pub const AREA: Area = Area {
    name: "mount",
    cases,
    plots: &[Plot {
        name: PLOT,
        title: "Overlay with a writable layer: mounted, and gone again",
        x: "lowers",
        log_x: true,
    }],
    counted: true,
};

const PLOT: &str = "mount-lowers";

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A lower alone: a read-only bind mount.
    Bind,
    /// An overlay of so many lowers and a writable layer.
    Overlay(usize),
}

impl Shape {
    /// How many lowers it has.
    #[must_use]
    pub fn lowers(self) -> usize {
        match self {
            Shape::Bind => 1,
            Shape::Overlay(lowers) => lowers,
        }
    }

    /// Whether it can be written to.
    #[must_use]
    pub fn is_writable(self) -> bool {
        self != Shape::Bind
    }

    fn name(self) -> String {
        match self {
            Shape::Bind => "1 lower, read-only".to_owned(),
            Shape::Overlay(1) => "1 lower + upper".to_owned(),
            Shape::Overlay(lowers) => format!("{lowers} lowers + upper"),
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as other areas")]
fn cases(quick: bool) -> Result<Vec<Case>> {
    let counts: &[usize] = if quick { &[2, 10, 500] } else { &[1, 2, 3, 10, 128, 500] };
    let overlays = || counts.iter().map(|lowers| Shape::Overlay(*lowers));
    let mut cases: Vec<Case> =
        std::iter::once(Shape::Bind).chain(overlays()).map(|shape| case(shape, Given::Paths)).collect();
    cases.push(case(Shape::Overlay(10), Given::Descriptors));
    cases.extend([10, 128, 500].map(|lowers| case(Shape::Overlay(lowers), Given::Known)));
    cases.extend(layers::cases());
    Ok(cases)
}

fn case(shape: Shape, given: Given) -> Case {
    let drawn = given == Given::Paths && shape.is_writable();
    Case {
        name: match given {
            Given::Paths => shape.name(),
            Given::Known => shape.name() + ", roots known",
            Given::Descriptors => shape.name() + ", as descriptors",
        },
        threads: 1,
        #[expect(clippy::cast_precision_loss, reason = "some hundreds")]
        point: drawn.then_some((PLOT, shape.lowers() as f64)),
        ready: Box::new(move || {
            let place = Arc::new(Place::new(shape)?);
            #[cfg_attr(not(feature = "peers"), expect(unused_mut, reason = "peers are added"))]
            let mut contenders = vec![cofferdam(&place, given)?, floor(&place)?];
            #[cfg(feature = "peers")]
            contenders.extend(peers::of(&place));
            Ok(Ready { contenders, held: Box::new(place) })
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_plot_has_every_number_of_lowers() {
        let all = cases(false).unwrap();
        let mut names: Vec<&str> = all.iter().map(|case| case.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
        let xs: Vec<f64> = all.iter().filter_map(|case| case.point).map(|point| point.1).collect();
        assert_eq!(xs, [1.0, 2.0, 3.0, 10.0, 128.0, 500.0]);
    }
}

//! Joining the namespaces of a process that runs: until the program has said where it is, and until it has ended and been waited for.
//!
//! All contenders start the tiny program of [`spawn`](crate::spawn) there.

mod ours;
#[cfg(feature = "peers")]
mod peers;
mod target;

use crate::Result;
use crate::area::{Area, Case, Ready};
use crate::spawn::{Program, Shape};
use std::sync::Arc;
use target::Target;

/// See the module.
pub const AREA: Area = Area { name: "join", cases, plots: &[], counted: true };

/// A process on the host's files, and one in a root of its own.
const SHAPES: [Shape; 3] = [Shape::SIX, Shape::ROOT_NET, Shape::ROOT_USER];

fn cases(_quick: bool) -> Result<Vec<Case>> {
    let program = Arc::new(Program::write()?);
    Ok(SHAPES.into_iter().flat_map(|shape| [true, false].map(|prepared| case(shape, prepared, &program))).collect())
}

fn case(shape: Shape, prepared: bool, program: &Arc<Program>) -> Case {
    let program = Arc::clone(program);
    Case {
        name: format!("{}{}", shape.name(), if prepared { "" } else { ", one-shot" }),
        threads: 1,
        point: None,
        ready: Box::new(move || {
            let target = Arc::new(Target::start(shape, &program)?);
            #[cfg_attr(not(feature = "peers"), expect(unused_mut, reason = "peers are added"))]
            let mut contenders =
                vec![ours::cofferdam(shape, prepared, &program, &target)?, ours::floor(shape, &program, &target)?];
            #[cfg(feature = "peers")]
            let (peers, container) = if prepared { peers::of(shape, &program, &target) } else { (Vec::new(), None) };
            #[cfg(feature = "peers")]
            contenders.extend(peers);
            #[cfg(not(feature = "peers"))]
            let container = ();
            Ok(Ready { contenders, held: Box::new((target, program, container)) })
        }),
    }
}

/// What the program says: a number in the target's pid namespace that is not 1, and the target's host name.
fn check(said: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(said);
    let pid: Option<u32> = text.strip_suffix(" bench\n").and_then(|pid| pid.parse().ok());
    if pid.is_some_and(|pid| pid > 1) { Ok(()) } else { Err(format!("printed {text:?}").into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_join_and_say_where_they_are() {
        let program = Arc::new(Program::write().unwrap());
        let target = Arc::new(Target::start(Shape::SIX, &program).unwrap());
        for prepared in [true, false] {
            (ours::cofferdam(Shape::SIX, prepared, &program, &target).unwrap().make)()().unwrap();
        }
        (ours::floor(Shape::SIX, &program, &target).unwrap().make)()().unwrap();
        assert!(check(b"1 bench\n").is_err() && check(b"7 other\n").is_err() && check(b"7 bench\n").is_ok());
    }
}

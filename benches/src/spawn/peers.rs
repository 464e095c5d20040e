//! What people use today: std, and programs where they are found (`install-peers` installs them).
//!
//! Each is given the options that make it do the least that has the effect; `BENCHMARKS.md` says where it does more than is asked.

use super::bundle::Bundle;
use super::program::{Expect, own_hostname};
use super::run::of_command;
use super::{Program, Shape, Variant, tools};
use crate::Result;
use crate::area::{Contender, Role};
use crate::floor::fork;
use cofferdam_namespaces::Namespaces;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The peers of a variant, and what they need meanwhile.
pub(super) fn of(variant: Variant, program: &Arc<Program>) -> Result<(Vec<Contender>, Option<Bundle>)> {
    if variant.shape == Shape::PLAIN {
        return Ok((std_command(program, variant.threads == 1)?, None));
    }
    // A container engine takes so long that eight of them at once, round after round, would take hours. And nobody has a tool for one namespace.
    if !variant.is_usual() || !(variant.shape.root || variant.shape == Shape::SIX) {
        return Ok((Vec::new(), None));
    }
    let bundle = Bundle::make(variant.shape, program)?;
    Ok((programs(variant.shape, program, &bundle)?, Some(bundle)))
}

/// std shares memory while it can (`posix_spawn`), and forks when it is given a closure to run.
fn std_command(program: &Program, fork_too: bool) -> Result<Vec<Contender>> {
    let path = program.path(Shape::PLAIN);
    let (with_closure, expect) = (path.clone(), Expect::of(Shape::PLAIN)?);
    let mut contenders = vec![contender("std Command", expect.clone(), move |_| Command::new(&path))];
    if fork_too {
        contenders.push(contender("std Command + pre_exec (fork)", expect, move |_| {
            let mut command = Command::new(&with_closure);
            fork::with_pre_exec(&mut command);
            command
        }));
    }
    Ok(contenders)
}

/// Programs for sandboxes and containers.
fn programs(shape: Shape, program: &Arc<Program>, bundle: &Bundle) -> Result<Vec<Contender>> {
    let expect = Expect::of(shape)?;
    let mut contenders = Vec::new();
    let mut tool = |name: &str, title: &str, expect: &Expect, make: fn(Shape, &Program) -> Command| {
        if found(name) {
            let program = Arc::clone(program);
            contenders.push(contender(title, expect.clone(), move |_| make(shape, &program)));
        }
    };
    if shape.root {
        tool("unshare", "unshare(1) and a script", &expect, tools::unshare);
    } else {
        let without = Expect { hostname: own_hostname()?, ..expect.clone() };
        tool("unshare", "unshare(1)", &without, tools::unshare);
    }
    tool("bwrap", "bwrap", &expect, tools::bwrap);
    if shape.has(Namespaces::USER) {
        tool("hakoniwa", "hakoniwa", &expect, tools::hakoniwa);
    }
    for (name, make) in [("runc", tools::runc as fn(&_, &_, _) -> _), ("crun", tools::crun)] {
        if found(name) {
            let (path, state) = (bundle.path(), bundle.state());
            contenders.push(contender(name, expect.clone(), move |nth| make(&path, &state, nth)));
        }
    }
    Ok(contenders)
}

/// A contender that is a command, made anew for each run from the number of the run.
fn contender(name: &str, expect: Expect, make: impl Fn(u64) -> Command + Send + Sync + 'static) -> Contender {
    let make = Arc::new(make);
    let count = Arc::new(AtomicU64::new(0));
    Contender::new(name, Role::Peer, move || {
        let (make, count, expect) = (Arc::clone(&make), Arc::clone(&count), expect.clone());
        move || of_command(make(count.fetch_add(1, Ordering::Relaxed)), |said, pid| expect.check(said, pid))
    })
}

pub(crate) fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

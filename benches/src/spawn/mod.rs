//! Spawning a process: from the call until the process has printed a line, ended and been waited for.
//!
//! All contenders start the same tiny program ([`probe`]), whose output says where it ran. Time to the
//! call's return is taken too: std and we return when the program has started.

#[cfg(feature = "peers")]
mod bundle;
mod heap;
mod ours;
#[cfg(feature = "peers")]
mod peers;

use crate::Result;
use crate::area::{Area, Case, Plot, Ready};
use crate::floor::probe;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

/// See the module.
pub const AREA: Area = Area {
    name: "spawn",
    cases,
    plots: &[
        Plot { name: PLAIN_PLOT, title: "Spawn, no namespaces: until its end", x: HEAP_AXIS },
        Plot { name: NAMESPACES_PLOT, title: "Spawn into six namespaces: until its end", x: HEAP_AXIS },
    ],
};

const HEAP_AXIS: &str = "memory that the spawning program has touched, GiB";
const PLAIN_PLOT: &str = "spawn-plain-heap";
const NAMESPACES_PLOT: &str = "spawn-namespaces-heap";
/// The host name inside.
const HOSTNAME: &std::ffi::CStr = c"bench";

/// What is spawned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A process in the caller's namespaces.
    Plain,
    /// In new user, pid, mount, uts, ipc and network namespaces, as root there, with a fresh `/proc` and a host name.
    Namespaces,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Shape::Plain => "no namespaces",
            Shape::Namespaces => "6 namespaces",
        }
    }

    fn plot(self) -> &'static str {
        match self {
            Shape::Plain => PLAIN_PLOT,
            Shape::Namespaces => NAMESPACES_PLOT,
        }
    }
}

/// How cofferdam is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `Plan::spawn` of a plan made before.
    Prepared,
    /// `Sandbox::spawn`, which makes the plan too.
    OneShot,
}

#[derive(Debug, Clone, Copy)]
struct Variant {
    shape: Shape,
    way: Way,
    gib: usize,
    threads: usize,
}

impl Variant {
    fn name(self) -> String {
        let way = if self.way == Way::OneShot { ", one-shot" } else { "" };
        let threads = if self.threads == 1 { String::new() } else { format!(", {} threads", self.threads) };
        format!("{}{way}, {} GiB heap{threads}", self.shape.name(), self.gib)
    }
}

fn cases(quick: bool) -> Result<Vec<Case>> {
    let program = Arc::new(Program::write()?);
    let heaps: &[usize] = if quick { &[0, 1] } else { &[0, 1, 4, 8] };
    let mut variants = Vec::new();
    for shape in [Shape::Plain, Shape::Namespaces] {
        let one = Variant { shape, way: Way::Prepared, gib: 0, threads: 1 };
        variants.extend(heaps.iter().map(|gib| Variant { gib: *gib, ..one }));
        variants.push(Variant { way: Way::OneShot, ..one });
        variants.extend(heaps.iter().filter(|gib| quick || [0, 8].contains(*gib)).map(|gib| Variant {
            gib: *gib,
            threads: 8,
            ..one
        }));
    }
    Ok(variants.into_iter().map(|variant| case(variant, &program)).collect())
}

fn case(variant: Variant, program: &Arc<Program>) -> Case {
    let program = Arc::clone(program);
    let comparable = variant.way == Way::Prepared && variant.threads == 1;
    Case {
        name: variant.name(),
        threads: variant.threads,
        #[expect(clippy::cast_precision_loss, reason = "a handful of gibibytes")]
        point: comparable.then_some((variant.shape.plot(), variant.gib as f64)),
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

/// The program that is started, in a folder of its own.
#[derive(Debug)]
pub struct Program {
    folder: tempfile::TempDir,
}

impl Program {
    /// Writes it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("cofferdam-bench-").tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let program = Program { folder };
        fs::write(program.path(), probe::elf())?;
        fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755))?;
        Ok(program)
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("probe")
    }
}

/// What the probe should say.
fn check(said: &[u8], pid: u32, hostname: &str) -> Result<()> {
    let expected = format!("{pid} {hostname}\n");
    if said == expected.as_bytes() {
        return Ok(());
    }
    Err(format!("printed {:?} instead of {expected:?}", String::from_utf8_lossy(said)).into())
}

/// The caller's own host name.
fn own_hostname() -> Result<String> {
    Ok(nix::unistd::gethostname()?.to_string_lossy().into_owned())
}

pub use heap::Heap;
pub use ours::{cofferdam, floor};

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
            (cofferdam(Shape::Plain, way, &program).unwrap().make)()().unwrap();
        }
        let sample = (floor(Shape::Plain, &program).unwrap().make)()().unwrap();
        assert!(sample.whole >= sample.returned);
        assert!(check(b"1 other\n", 1, "bench").is_err());
    }
}

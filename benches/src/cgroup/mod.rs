//! Control groups: from nothing to a process in a limited one, and until it is gone again; and reading the statistics of
//! many, as a monitoring loop does.
//!
//! Every life checks that the process was in the cgroup and that the limit was in force; every sample that there were
//! processes to count, or none. Moving a process costs milliseconds in the kernel wherever it is not v2 with
//! `CLONE_INTO_CGROUP`, for all contenders alike: the system calls tell more than the time does.

mod by_hand;
mod ours;

use crate::Result;
use crate::area::{Area, Case, Ready};
use cofferdam_cgroups::{Controllers, Guard, Hierarchy};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// See the module.
pub const AREA: Area = Area { name: "cgroup", cases, plots: &[], counted: true };

const CONTROLLERS: Controllers = Controllers::CPU.union(Controllers::PIDS).union(Controllers::MEMORY);

/// Where the contenders work, and a process for them to move.
#[derive(Debug)]
pub struct Place {
    hierarchy: Hierarchy,
    top: Guard,
    process: Mutex<Child>,
}

impl Place {
    /// A cgroup of our own for all of it, and a process that waits.
    ///
    /// # Errors
    /// Without the right to make cgroups.
    pub fn new() -> Result<Self> {
        let hierarchy = Hierarchy::detect()?;
        let top = hierarchy.create(format!("cofferdam-bench-{}", std::process::id()), CONTROLLERS)?.into_guard();
        let process = Command::new("sleep").arg("100000").stdin(Stdio::null()).spawn()?;
        Ok(Place { hierarchy, top, process: Mutex::new(process) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut process = self.process.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = process.kill();
        let _ = process.wait();
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as other areas")]
fn cases(quick: bool) -> Result<Vec<Case>> {
    let counts: &[usize] = if quick { &[100] } else { &[100, 1000] };
    let life = Case {
        name: "create, limit, enter, read, delete".to_owned(),
        threads: 1,
        point: None,
        ready: Box::new(|| {
            let place = Arc::new(Place::new()?);
            let contenders = vec![ours::life(&place)?, by_hand::life(&place)?];
            Ok(Ready { contenders, held: Box::new(place) })
        }),
    };
    let sampling = |count: usize| Case {
        name: format!("sample {count} cgroups"),
        threads: 1,
        point: None,
        ready: Box::new(move || {
            let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
            setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
            let place = Arc::new(Place::new()?);
            let many =
                (0..count).map(|n| place.top.child(n.to_string())).collect::<std::result::Result<Vec<_>, _>>()?;
            let contenders = vec![ours::sampling(&many)?, by_hand::sampling(&many)?];
            Ok(Ready { contenders, held: Box::new(place) })
        }),
    };
    Ok(std::iter::once(life).chain(counts.iter().map(|count| sampling(*count))).collect())
}

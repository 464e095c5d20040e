//! cofferdam.

use super::{CONTROLLERS, Place};
use crate::Result;
use crate::area::{Contender, Role, Sample};
use cofferdam_cgroups::{Cgroup, CpuQuota, Enforcement, Limits, Max, Sampler, Select};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What both contenders read.
const SELECT: Select = Select::CPU.union(Select::PIDS).union(Select::MEMORY);

pub(super) fn life(place: &Arc<Place>) -> Result<Contender> {
    let quota = CpuQuota::time(Duration::from_millis(20))?;
    let limits = Limits::new().cpu_quota(quota).pids(64).memory(64 << 20).swap(0);
    let place = Arc::clone(place);
    Ok(Contender::new("cofferdam", Role::Cofferdam, move || {
        let (place, limits) = (Arc::clone(&place), limits.clone());
        move || {
            let pid = place.process.lock().unwrap_or_else(PoisonError::into_inner).id();
            let start = Instant::now();
            let job = place.hierarchy.create(format!("cofferdam-bench-life-{}", std::process::id()), CONTROLLERS)?;
            job.apply(&limits, Enforcement::Strict)?;
            job.attach(pid)?;
            let returned = start.elapsed();
            let stats = job.stats(SELECT)?;
            place.top.attach(pid)?;
            job.delete()?;
            let whole = start.elapsed();
            let pids = stats.pids.ok_or("no pids")?;
            if (pids.current, pids.max) != (1, Max::Limit(64)) {
                return Err("the process was not in the cgroup, or the limit not in force".into());
            }
            Ok(Sample { whole, returned })
        }
    }))
}

pub(super) fn sampling(many: &[Cgroup]) -> Result<Contender> {
    let samplers = many.iter().map(|one| one.sampler(SELECT)).collect::<std::result::Result<Vec<Sampler>, _>>()?;
    let samplers = Arc::new(Mutex::new(samplers));
    Ok(Contender::new("cofferdam", Role::Cofferdam, move || {
        let samplers = Arc::clone(&samplers);
        move || {
            let mut samplers = samplers.lock().unwrap_or_else(PoisonError::into_inner);
            let start = Instant::now();
            let mut processes = 0;
            for sampler in samplers.iter_mut() {
                processes += sampler.sample()?.pids.as_ref().map_or(1, |pids| pids.current);
            }
            let whole = start.elapsed();
            if processes != 0 {
                return Err("there is nobody in these cgroups".into());
            }
            Ok(Sample { whole, returned: whole })
        }
    }))
}

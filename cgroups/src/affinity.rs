//! On which CPUs a process wants to run, besides those on which it may.

use rustix::io::Errno;
use rustix::process::Pid;

use crate::cgroup::Cgroup;
use crate::error::{ErrorKind, Op, Result};
use crate::{sys, text};

impl Cgroup {
    /// Lets every thread of a process run on all CPUs that its cpuset allows: `sched_setaffinity(2)`. Since Linux 6.2 a
    /// process that was moved keeps the affinity that it once asked for, or was born with: who was started by a program
    /// that runs on one CPU stays on it, however many the cgroup has. That may be wanted, so [`attach`](Self::attach)
    /// does not touch it. Threads that are made meanwhile by others may be missed.
    ///
    /// # Errors
    /// [`ErrorKind::NoProcess`]; [`ErrorKind::PermissionDenied`]: it is another user's; [`ErrorKind::InvalidInput`]: the
    /// process is not in this cgroup itself.
    pub fn reset_affinity(&self, pid: u32) -> Result<()> {
        text::positive(pid, "process")?;
        if !self.processes()?.contains(&pid) {
            return Err(self
                .error(ErrorKind::InvalidInput, Op::Check)
                .with_value(pid.to_string())
                .with_note("not in it"));
        }
        reset_threads(pid).map_err(|errno| self.os(Op::Schedule, errno))
    }
}

fn reset_threads(pid: u32) -> std::result::Result<(), Errno> {
    let tasks = match std::fs::read_dir(format!("/proc/{pid}/task")) {
        Ok(tasks) => tasks,
        // The process, not a cgroup, is no more.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Errno::SRCH),
        Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    };
    let threads = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok()).filter_map(Pid::from_raw);
    for thread in threads {
        match sys::run_on_all_cpus(thread) {
            // It has ended since.
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_ended_is_no_process() {
        let mut process = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = process.id();
        process.wait().unwrap();
        assert_eq!(reset_threads(pid), Err(Errno::SRCH));
    }
}

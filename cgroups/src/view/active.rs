//! How many threads run, or would if they could.

use crate::cgroup::Cgroup;
use crate::dir::Dir;
use crate::error::Result;
use crate::kill::for_each_below;
use crate::text;
use crate::walk::thread_list;

impl Cgroup {
    /// How many threads in this cgroup and below it run or want to (state R in `/proc/TID/stat`), or wait for a device (D):
    /// what the kernel counts for its load averages, see [`LoadAverage`](crate::view::LoadAverage). One file is read for
    /// each thread. Those that this pid namespace, or this mount of `/proc`, does not show are left out.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`](crate::ErrorKind::Gone).
    pub fn active_threads(&self) -> Result<u64> {
        let Some(member) = self.members().last() else { return Ok(0) };
        active_below(&member.dir, thread_list(member))
    }
}

/// Counts in a cgroup and below it, by the name of the list of threads.
pub(crate) fn active_below(top: &Dir, list: &str) -> Result<u64> {
    let mut active = 0;
    // A list first: that it is gone is told of the top only.
    top.read_list(list)?;
    for_each_below(top, |dir| {
        for thread in text::pids(&dir.read_list(list)?) {
            // It may have ended since.
            let stat = std::fs::read(format!("/proc/{thread}/stat"));
            active += u64::from(stat.is_ok_and(|stat| is_active(&stat)));
        }
        Ok(())
    })?;
    Ok(active)
}

/// The state follows the name, which may hold anything.
fn is_active(stat: &[u8]) -> bool {
    let end = stat.iter().rposition(|byte| *byte == b')');
    let state = end.and_then(|end| text::words(stat.get(end + 1..)?).next());
    matches!(state, Some(b"R" | b"D"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn states() {
        let table: [(&[u8], bool); 6] = [
            (b"12 (sh) R 1 12 12 0 -1", true),
            (b"12 (dd) D 1 12", true),
            (b"12 (sleep) S 1 12", false),
            (b"12 (a) R (b) Z 1 12", false),
            (b"12 (R) ) T 1", false),
            (b"", false),
        ];
        for (stat, active) in table {
            assert_eq!(is_active(stat), active, "{}", String::from_utf8_lossy(stat));
        }
    }

    proptest! {
        #[test]
        fn never_panics(stat: Vec<u8>) {
            let _ = is_active(&stat);
        }
    }
}

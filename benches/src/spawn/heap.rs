//! Memory that the spawning program has: page tables that a fork has to copy.

use crate::Result;
use std::fs;

/// Pages that have been written to.
#[derive(Debug)]
pub struct Heap(#[expect(dead_code, reason = "there to be there")] Vec<u8>);

const PAGE: usize = 4096;
/// What must be left to the machine, in KiB.
const SPARE: usize = 2 << 20;

impl Heap {
    /// So many gibibytes, each page touched.
    ///
    /// # Errors
    /// If the machine has not got them to spare.
    pub fn touch(gib: usize) -> Result<Self> {
        let wanted = gib << 20;
        let available = available()?;
        if wanted > 0 && available < wanted + SPARE {
            return Err(format!("needs {gib} GiB of memory and 2 to spare; {} are free", available >> 20).into());
        }
        let mut memory = vec![0_u8; gib << 30];
        for byte in memory.iter_mut().step_by(PAGE) {
            *byte = 1;
        }
        Ok(Heap(memory))
    }
}

/// `MemAvailable`, in KiB.
fn available() -> Result<usize> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).ok_or("no MemAvailable")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

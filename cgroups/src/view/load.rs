//! Load averages, as the kernel reckons them.

/// The kernel's fixed-point numbers have 11 bits behind the point.
const ONE: u64 = 1 << 11;
/// What is left of an average after 5 seconds, for 1, 5 and 15 minutes: `include/linux/sched/loadavg.h`.
const KEPT: [u64; 3] = [1884, 2014, 2037];

/// The load averages of a group of processes: how many wanted to run, or waited for a device, over 1, 5 and 15 minutes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadAverage([u64; 3]);

impl LoadAverage {
    /// Takes another count into account, 5 seconds after the last one.
    pub fn update(&mut self, running: u64) {
        for (average, kept) in self.0.iter_mut().zip(KEPT) {
            let active = running.min(1 << 32) * ONE;
            let mut new = *average * kept + active * (ONE - kept);
            // Rounded up while it grows, or it would never get there.
            if active >= *average {
                new += ONE - 1;
            }
            *average = new / ONE;
        }
    }

    /// The averages over 1, 5 and 15 minutes, each as a whole number and hundredths.
    #[must_use]
    pub fn averages(&self) -> [(u64, u64); 3] {
        self.0.map(|average| {
            let rounded = average + ONE / 200;
            (rounded / ONE, rounded % ONE * 100 / ONE)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_load_is_reached_and_left() {
        let mut load = LoadAverage::default();
        for _ in 0..12 {
            load.update(2);
        }
        // After a minute the first average is at 1 - 1/e.
        assert_eq!(load.averages()[0].0, 1);
        assert!((24..=28).contains(&load.averages()[0].1), "{load:?}");
        for _ in 0..3000 {
            load.update(2);
        }
        assert_eq!(load.averages(), [(2, 0); 3]);
        for _ in 0..3000 {
            load.update(0);
        }
        assert_eq!(load.averages(), [(0, 0); 3]);
        load.update(u64::MAX);
    }
}

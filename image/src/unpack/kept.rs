//! What has to be remembered until the end of a layer: counted, before it is too much.

use crate::{Error, Operation};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The part of the limit that all layers but the lowest of those in the making have, together.
const OTHERS: u64 = 4;

/// What the layers of an image that are unpacked at the same time keep in memory.
///
/// The lowest of those in the making may keep as much as the limit, less what the reports of those below it take. The others have a part of it beside that, together;
/// who needs more waits until it is the lowest. So the memory has a bound, and whether a layer keeps too much never depends on who was faster.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    layers: Mutex<Vec<Layer>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Layer {
    kept: u64,
    done: bool,
}

/// What the budget says to a layer that keeps so much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Fine,
    /// Go on when all layers below are there.
    Wait,
    TooMuch,
}

impl Budget {
    /// For so many layers; those of `there` are not unpacked.
    pub(crate) fn new(limit: u64, layers: usize, there: &[usize]) -> Self {
        let layer = |number| Layer { kept: 0, done: there.contains(&number) };
        Budget { limit, layers: Mutex::new((0..layers).map(layer).collect()) }
    }

    /// The part of a layer.
    pub(crate) fn share(self: &Arc<Self>, number: usize) -> Share {
        #[cfg(feature = "test-hooks")]
        if crate::test_hooks::is_off(crate::test_hooks::Defence::Budget) {
            return Share::alone(self.limit);
        }
        Share { budget: Arc::clone(self), number, told: 0 }
    }

    fn layers(&self) -> MutexGuard<'_, Vec<Layer>> {
        // What is behind it is whole at any time.
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, number: usize, bytes: u64) -> Answer {
        let mut layers = self.layers();
        if let Some(layer) = layers.get_mut(number) {
            layer.kept = bytes;
        }
        let lowest = layers.iter().position(|layer| !layer.done).unwrap_or(number);
        let sum = |layers: &[Layer]| layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.kept));
        let others = layers.get(lowest.saturating_add(1)..).map_or(0, sum);
        let with_reports = layers.get(..=number).map_or(bytes, sum);
        match number > lowest {
            _ if bytes > self.limit => Answer::TooMuch,
            false if with_reports > self.limit => Answer::TooMuch,
            true if others > self.limit / OTHERS => Answer::Wait,
            _ => Answer::Fine,
        }
    }
}

/// What one layer has of a [`Budget`].
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    number: usize,
    told: u64,
}

impl Share {
    /// Of a layer that is unpacked alone.
    pub(super) fn alone(limit: u64) -> Self {
        Share { budget: Arc::new(Budget::new(limit, 1, &[])), number: 0, told: 0 }
    }

    /// Says how much the layer keeps now. `false`: it must wait for those below, and ask again.
    pub(super) fn keep(&mut self, bytes: u64) -> Result<bool, Error> {
        if bytes == self.told {
            return Ok(true);
        }
        match self.budget.keep(self.number, bytes) {
            Answer::Fine => self.told = bytes,
            Answer::Wait => return Ok(false),
            Answer::TooMuch => return Err(self.too_much()),
        }
        Ok(true)
    }

    /// How much more a layer that waits for nobody may keep.
    pub(super) fn room(&self) -> u64 {
        let layers = self.budget.layers();
        let kept = layers.get(..=self.number).unwrap_or_default();
        kept.iter().fold(self.budget.limit, |room, layer| room.saturating_sub(layer.kept))
    }

    pub(super) fn too_much(&self) -> Error {
        Error::limit(Operation::Unpack, "bytes to be kept until the end", self.budget.limit)
    }

    /// The layer is there. What its report takes stays.
    pub(super) fn done(&mut self, report: u64) {
        if let Some(layer) = self.budget.layers().get_mut(self.number) {
            *layer = Layer { kept: report, done: true };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_has_all_and_the_others_a_part() {
        let budget = Arc::new(Budget::new(100, 4, &[0]));
        let [mut one, mut two, mut three] = [1, 2, 3].map(|number| budget.share(number));
        assert!(two.keep(15).unwrap() && three.keep(10).unwrap());
        assert!(!three.keep(11).unwrap(), "together they have a quarter");
        assert!(one.keep(100).unwrap(), "whatever they have");
        assert!(one.keep(101).is_err() && two.keep(101).is_err());
        two.keep(15).unwrap();
        // The third ends first: it stays one of the others until the first has ended too.
        three.done(9);
        assert!(!two.keep(17).unwrap());
        one.done(30);
        assert!(two.keep(70).unwrap(), "it is the lowest now");
        assert_eq!(two.room(), 0);
        assert!(two.keep(71).is_err(), "with what the report of the first takes");
    }

    #[test]
    fn alone() {
        let mut share = Share::alone(10);
        assert!(share.keep(10).unwrap());
        assert!(share.keep(11).is_err());
    }
}

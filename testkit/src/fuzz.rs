//! Feeds a function with changed inputs, the same ones in each run: what a fuzzer does, as an ordinary test on a stable compiler.
//!
//! A target is a plain function from bytes that panics if something is wrong, so that a fuzzer with feedback (cargo-fuzz, AFL) can call the same
//! one. The corpus is a folder of inputs that is committed: real ones, and whatever was found once.
//!
//! ```no_run
//! fn target(bytes: &[u8]) {
//!     let _ = std::str::from_utf8(bytes).map(str::trim);
//! }
//!
//! cofferdam_testkit::Fuzz::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/trim")).words(&[b"\n", b" "]).run(target);
//! ```

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// So many executions in a usual run; a million if `COFFERDAM_TEST_LONG` is set.
const EXECUTIONS: u64 = 10_000;
const LONG: u64 = 1_000_000;
/// Inputs do not grow beyond this.
const LONGEST: usize = 256 << 10;
/// Whatever takes longer hangs.
const SLOWEST: Duration = Duration::from_secs(20);

type Mend = Box<dyn Fn(&mut Vec<u8>)>;

/// One target's corpus, and how its inputs are changed.
pub struct Fuzz {
    folder: PathBuf,
    words: Vec<Vec<u8>>,
    block: usize,
    mend: Mend,
    executions: u64,
}

impl Fuzz {
    /// With the corpus in this folder, all files of it.
    #[must_use]
    pub fn new(folder: impl AsRef<Path>) -> Self {
        let executions = if std::env::var_os("COFFERDAM_TEST_LONG").is_some() { LONG } else { EXECUTIONS };
        let folder = folder.as_ref().to_owned();
        Fuzz { folder, words: Vec::new(), block: 1, mend: Box::new(|_| {}), executions }
    }

    /// What has a meaning to the target, and is put in here and there.
    #[must_use]
    pub fn words(mut self, words: &[&[u8]]) -> Self {
        self.words = words.iter().map(|word| word.to_vec()).collect();
        self
    }

    /// The input consists of blocks of so many bytes, which are also moved as such.
    #[must_use]
    pub fn blocks(mut self, length: usize) -> Self {
        self.block = length;
        self
    }

    /// Makes most changed inputs again such as get past the first check: sets a checksum right, for example.
    #[must_use]
    pub fn mend(mut self, mend: impl Fn(&mut Vec<u8>) + 'static) -> Self {
        self.mend = Box::new(mend);
        self
    }

    /// Calls the target with all of the corpus, and so many times with something changed.
    ///
    /// # Panics
    /// As the target does, after the input was written to a file that is named; if an execution takes 20 seconds; if there is no corpus.
    pub fn run(&self, target: impl Fn(&[u8])) {
        let corpus = self.corpus();
        assert!(!corpus.is_empty(), "no corpus in {:?}", self.folder);
        for input in &corpus {
            self.execute(input, &target);
        }
        let name = self.folder.to_string_lossy();
        // A state of its own for each target, the same one on each machine.
        let mut random = Random(
            name.rsplit('/')
                .next()
                .unwrap_or_default()
                .bytes()
                .fold(1, |seed, byte| (seed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)),
        );
        for _ in 0..self.executions {
            let mut input = corpus[random.below(corpus.len())].clone();
            for _ in 0..=random.below(6) {
                self.change(&mut input, &corpus, &mut random);
            }
            input.truncate(LONGEST);
            if random.below(8) > 0 {
                (self.mend)(&mut input);
            }
            self.execute(&input, &target);
        }
    }

    fn corpus(&self) -> Vec<Vec<u8>> {
        let Ok(folder) = fs::read_dir(&self.folder) else { return Vec::new() };
        let mut paths: Vec<_> = folder.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        paths.iter().map(|path| fs::read(path).unwrap_or_else(|e| panic!("{path:?}: {e}"))).collect()
    }

    fn execute(&self, input: &[u8], target: &impl Fn(&[u8])) {
        let begin = Instant::now();
        let panic = catch_unwind(AssertUnwindSafe(|| target(input))).err();
        let slow = begin.elapsed() > SLOWEST;
        if panic.is_none() && !slow {
            return;
        }
        let name = self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = std::env::temp_dir().join(format!("fuzz-{name}-{}", std::process::id()));
        let kept = fs::write(&file, input);
        eprintln!(
            "fuzz {name}: {} with {} bytes: {file:?} ({kept:?})",
            if slow { "slow" } else { "panics" },
            input.len()
        );
        match panic {
            Some(panic) => resume_unwind(panic),
            None => panic!("an execution took {:?}", begin.elapsed()),
        }
    }

    fn change(&self, input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
        let block = if random.below(2) == 0 { self.block } else { 1 };
        let (from, to) = random.range(input.len(), block);
        match random.below(10) {
            0 => drop(input.drain(from..to)),
            1 => {
                let piece = input[from..to].to_vec();
                let at = random.place(input.len(), block);
                drop(input.splice(at..at, piece));
            }
            2 => {
                // A piece of another one.
                let other = &corpus[random.below(corpus.len())];
                let (from, to) = random.range(other.len(), block);
                let at = random.place(input.len(), block);
                drop(input.splice(at..at, other[from..to].iter().copied()));
            }
            3 if !self.words.is_empty() => {
                let word = &self.words[random.below(self.words.len())];
                let at = random.below(input.len() + 1);
                let end = if random.below(2) == 0 { at } else { input.len().min(at + word.len()) };
                drop(input.splice(at..end, word.iter().copied()));
            }
            4 => input.truncate(from),
            5 => input[from..to].iter_mut().take(32).for_each(|byte| *byte = random.byte()),
            // Digits become other digits: numbers that are wrong in their value only.
            6 => {
                let digits: Vec<usize> = (0..input.len()).filter(|at| input[*at].is_ascii_digit()).collect();
                if let Some(at) = digits.get(random.below(digits.len().max(1))) {
                    input[*at] = b'0' + random.byte() % 10;
                }
            }
            _ => {
                let at = random.below(input.len().max(1));
                if let Some(byte) = input.get_mut(at) {
                    *byte = match random.below(3) {
                        0 => *byte ^ (1 << random.below(8)),
                        1 => [0, 1, 0x7f, 0x80, 0xff, b'/', b'.', b'\n', b' '][random.below(9)],
                        _ => random.byte(),
                    };
                }
            }
        }
    }
}

impl std::fmt::Debug for Fuzz {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fuzz").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Marsaglia's xorshift: it need not be better.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Less than `limit`; 0 if that is 0.
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % (limit as u64).max(1)).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    /// A place in so many bytes, where a block begins.
    fn place(&mut self, length: usize, block: usize) -> usize {
        (self.below(length / block + 1) * block).min(length)
    }

    /// Two of them, mostly near each other.
    fn range(&mut self, length: usize, block: usize) -> (usize, usize) {
        let from = self.place(length, block);
        let most = 1 << self.below(7);
        (from, length.min(from + (1 + self.below(most)) * block))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeSet;

    fn corpus(inputs: &[&[u8]]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (number, input) in inputs.iter().enumerate() {
            fs::write(dir.path().join(number.to_string()), input).unwrap();
        }
        dir
    }

    #[test]
    fn the_same_inputs_in_each_run_and_many_different_ones() {
        let dir = corpus(&[b"some words that are longer", b"two words and 12 digits", b""]);
        let seen = || {
            let inputs = RefCell::new(Vec::new());
            let mut fuzz = Fuzz::new(dir.path()).words(&[b"word"]);
            fuzz.executions = 500;
            fuzz.run(|input| inputs.borrow_mut().push(input.to_vec()));
            inputs.into_inner()
        };
        let first = seen();
        assert_eq!(first, seen());
        assert!(first.iter().collect::<BTreeSet<_>>().len() > 300);
    }

    #[test]
    fn what_panics_is_found_and_kept() {
        let dir = corpus(&[b"x12"]);
        let fuzz = Fuzz::new(dir.path());
        let last = RefCell::new(Vec::new());
        let found = catch_unwind(AssertUnwindSafe(|| {
            fuzz.run(|input| {
                *last.borrow_mut() = input.to_vec();
                assert!(!input.starts_with(b"x7"));
            });
        }));
        assert!(found.is_err());
        let name = dir.path().file_name().unwrap().to_string_lossy();
        let file = std::env::temp_dir().join(format!("fuzz-{name}-{}", std::process::id()));
        assert_eq!(fs::read(&file).unwrap(), *last.borrow());
        fs::remove_file(file).unwrap();
    }

    #[test]
    fn mended_inputs_are_the_rule() {
        let dir = corpus(&[b"12345678"]);
        let mut fuzz = Fuzz::new(dir.path()).blocks(4).mend(|input| input.insert(0, b'M'));
        fuzz.executions = 800;
        let mended = Cell::new(0);
        fuzz.run(|input| mended.set(mended.get() + u32::from(input.first() == Some(&b'M'))));
        assert!((600..780).contains(&mended.get()), "{}", mended.get());
    }
}

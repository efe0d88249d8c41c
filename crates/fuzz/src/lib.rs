//! Fuzzing on a stable toolchain, as tests: inputs are kept ones, changed at random, and a target says of each what it noticed; an input at which something new
//! was noticed is changed further. Bounded in time, reproducible from a printed command. For tests only: it panics with what it found.
//!
//! A target is a test:
//!
//! ```no_run
//! use polity_fuzz::{Target, Verdict};
//!
//! Target {
//!     package: "polity-fuzz",
//!     test: "doc",
//!     corpus: concat!(env!("CARGO_MANIFEST_DIR"), "/no-such-folder"),
//!     seeds: &["1 + 1"],
//!     words: &["+", "1", "("],
//! }
//! .run(|input, seen| {
//!     seen.note(&input.len());
//!     match std::str::from_utf8(input) {
//!         Ok(_) => Verdict::Used,
//!         Err(_) => Verdict::Unused,
//!     }
//! });
//! ```
//!
//! | variable | |
//! |---|---|
//! | `POLITY_FUZZ_SECONDS` | how long a target runs; 4 |
//! | `POLITY_FUZZ_SEED` | where the random numbers begin; else the clock |
//! | `POLITY_FUZZ_INPUT` | a file: run that input and nothing else |
//! | `POLITY_FUZZ_KEEP` | 1: write inputs that were new into the corpus |

mod change;

use std::{
    any::Any,
    collections::{BTreeSet, hash_map::DefaultHasher},
    env, fs,
    hash::{Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use change::Random;

/// How long a target runs when nothing is said.
const SECONDS: u64 = 4;
/// How long the shortening of an input that failed may take.
const SHORTEN: Duration = Duration::from_secs(5);
/// Most inputs that are kept in memory; after that a new one takes the place of another.
const MAX_POOL: usize = 4096;
/// Longest input.
const MAX_INPUT: usize = 8192;
/// Share of inputs, in hundredths, that must have been of use to the target: less proves nothing.
const LEAST_USED: u64 = 5;

/// What came of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It reached what the target is about.
    Used,
    /// It was refused before.
    Unused,
    /// What must not be, in words.
    Wrong(String),
}

/// What a target noticed of inputs so far.
#[derive(Debug, Default)]
pub struct Seen {
    known: BTreeSet<u64>,
    new: bool,
}

impl Seen {
    /// Notes something about the input under test: a kind of message, a path that was taken. An input at which something new was noted is changed further.
    pub fn note(&mut self, what: &impl Hash) {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        self.new |= self.known.insert(hasher.finish());
    }
}

/// Something to be fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The package of the test, for the command that repeats a failure.
    pub package: &'static str,
    /// The name of the test, likewise.
    pub test: &'static str,
    /// The folder with the kept inputs.
    pub corpus: &'static str,
    /// More inputs to begin with.
    pub seeds: &'static [&'static str],
    /// Words that inputs of the target have.
    pub words: &'static [&'static str],
}

impl Target {
    /// Runs every kept input, then changed ones until the time is over.
    ///
    /// # Panics
    /// Something was wrong with an input. The message has the input, shortened, and the command that repeats it.
    #[expect(clippy::panic, reason = "it is a test")]
    pub fn run(&self, check: impl Fn(&[u8], &mut Seen) -> Verdict) {
        if let Some(path) = env::var_os("POLITY_FUZZ_INPUT") {
            let input = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", PathBuf::from(path).display()));
            match attempt(&check, &input, &mut Seen::default()) {
                Verdict::Wrong(why) => panic!("{why}"),
                verdict => return println!("nothing is wrong with it: {verdict:?}"),
            }
        }
        let number = |name: &str| env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| u64::from(d.subsec_nanos()) ^ d.as_secs());
        let seed = number("POLITY_FUZZ_SEED").unwrap_or(clock);
        self.run_for(Duration::from_secs(number("POLITY_FUZZ_SECONDS").unwrap_or(SECONDS)), seed, check);
    }

    fn run_for(&self, time: Duration, seed: u64, check: impl Fn(&[u8], &mut Seen) -> Verdict) {
        let until = Instant::now() + time;
        let mut random = Random(seed);
        let mut seen = Seen::default();
        let mut pool: Vec<Vec<u8>> = self.kept();
        let (mut runs, mut used, mut at) = (0_u64, 0_u64, 0);
        while at < pool.len() || Instant::now() < until {
            let fresh = at >= pool.len();
            let input = if fresh { change::changed(&pool, self.words, &mut random, MAX_INPUT) } else { pool[at].clone() };
            at += usize::from(!fresh);
            seen.new = false;
            let verdict = attempt(&check, &input, &mut seen);
            let of_use = verdict == Verdict::Used;
            runs += 1;
            used += u64::from(of_use);
            if let Verdict::Wrong(why) = verdict {
                self.fail(&check, &input, &why, seed);
            }
            // what comes of an input that is refused is mostly refused as well
            if fresh && seen.new && of_use {
                if env::var("POLITY_FUZZ_KEEP").is_ok_and(|keep| keep == "1") {
                    self.keep(&input);
                }
                if pool.len() < MAX_POOL {
                    pool.push(input);
                } else {
                    pool[random.below(MAX_POOL)] = input;
                }
                at = pool.len();
            }
        }
        println!("{}: {runs} inputs, {used} of use, {} in the pool, {} notes, seed {seed}", self.test, pool.len(), seen.known.len());
        assert!(used * 100 >= runs * LEAST_USED, "{}: only {used} of {runs} inputs were of use", self.test);
    }

    /// The kept inputs, in the order of their names, and the seeds.
    #[expect(clippy::panic, reason = "it is a test")]
    fn kept(&self) -> Vec<Vec<u8>> {
        let mut paths: Vec<PathBuf> = fs::read_dir(self.corpus)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok().map(|e| e.path()))
            .filter(|p| p.is_file())
            .collect();
        paths.sort();
        let read = |p: &PathBuf| fs::read(p).unwrap_or_else(|e| panic!("{}: {e}", p.display()));
        let pool: Vec<Vec<u8>> = self.seeds.iter().map(|s| s.as_bytes().to_vec()).chain(paths.iter().map(read)).collect();
        assert!(!pool.is_empty(), "{} has neither seeds nor a corpus in {}", self.test, self.corpus);
        pool
    }

    #[expect(clippy::panic, reason = "it is a test")]
    fn keep(&self, input: &[u8]) {
        let mut hasher = DefaultHasher::new();
        input.hash(&mut hasher);
        let path = PathBuf::from(self.corpus).join(format!("{:016x}", hasher.finish()));
        let written = fs::create_dir_all(self.corpus).and_then(|()| fs::write(&path, input));
        written.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    #[expect(clippy::panic, reason = "it is a test")]
    fn fail(&self, check: &impl Fn(&[u8], &mut Seen) -> Verdict, input: &[u8], why: &str, seed: u64) -> ! {
        let wrong = |input: &[u8]| matches!(attempt(check, input, &mut Seen::default()), Verdict::Wrong(_));
        let until = Instant::now() + SHORTEN;
        let short = change::shortened(input, |input| Instant::now() < until && wrong(input));
        let why = match attempt(check, &short, &mut Seen::default()) {
            Verdict::Wrong(why) => why,
            _ => why.to_owned(),
        };
        let path = env::temp_dir().join(format!("polity-fuzz-{}", self.test.replace(':', "-")));
        let kept = match fs::write(&path, &short) {
            Ok(()) => path.display().to_string(),
            Err(e) => format!("(not written: {e})"),
        };
        panic!(
            "{}\ninput: {:?}\nseed {seed}; again: POLITY_FUZZ_INPUT={kept} cargo test -p {} {}\nonce it is right, keep it: cp {kept} {}/",
            why.trim_end(),
            String::from_utf8_lossy(&short),
            self.package,
            self.test,
            self.corpus
        );
    }
}

/// Runs a target on an input. A panic is what must not be.
fn attempt(check: &impl Fn(&[u8], &mut Seen) -> Verdict, input: &[u8], seen: &mut Seen) -> Verdict {
    catch_unwind(AssertUnwindSafe(|| check(input, seen))).unwrap_or_else(|e| Verdict::Wrong(format!("it panicked: {}", said(&*e))))
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target =
        Target { package: "polity-fuzz", test: "tests", corpus: "/nonexistent", seeds: &["abcdef"], words: &["needle", "x"] };

    #[test]
    fn what_is_wrong_is_found_shortened_and_can_be_repeated() {
        let found = catch_unwind(|| {
            TARGET.run_for(Duration::from_secs(20), 1, |input, seen| {
                let text = String::from_utf8_lossy(input);
                seen.note(&text.matches("needle").count().min(3));
                assert!(text.matches("needle").count() < 3, "three needles");
                Verdict::Used
            });
        });
        let error = found.expect_err("three needles are found by keeping what has one, then two");
        let message = said(&*error);
        assert!(message.contains("it panicked: three needles"), "{message}");
        assert!(message.contains("input: \"needleneedleneedle\""), "shortened: {message}");
        assert!(message.contains("cargo test -p polity-fuzz tests"), "{message}");
    }

    #[test]
    fn a_target_that_uses_hardly_any_input_fails() {
        let found = catch_unwind(|| TARGET.run_for(Duration::from_millis(100), 1, |_, _| Verdict::Unused));
        assert!(said(&*found.expect_err("nothing was of use")).contains("of use"));
    }

    #[test]
    fn the_same_seed_gives_the_same_inputs() {
        let run = || {
            let mut random = Random(7);
            let pool = vec![b"abc def".to_vec(), b"{\"a\": 12}".to_vec()];
            (0..500).map(|_| change::changed(&pool, TARGET.words, &mut random, 64)).collect::<Vec<_>>()
        };
        let inputs = run();
        assert_eq!(inputs, run());
        assert!(inputs.iter().all(|i| i.len() <= 64));
        assert!(inputs.iter().collect::<BTreeSet<_>>().len() > 200, "they differ");
    }
}

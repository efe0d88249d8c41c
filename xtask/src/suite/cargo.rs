//! Running `cargo test` with its output shown as it comes, and counting what its binaries report.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use anyhow::{Context, Result, bail};

use crate::{paths, run};

/// Sums over `test result:` lines, and what the failed tests said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u64,
    pub failed: u64,
    /// Lines that libtest prints under `failures:`, to be said again where a reader of the last page sees them.
    pub failures: Vec<String>,
}

impl Counts {
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.failures.extend(other.failures);
    }

    /// What whole output tells.
    pub fn of(output: &str) -> Self {
        let (mut counts, mut in_failures) = (Self::default(), false);
        output.lines().for_each(|line| counts.read(line, &mut in_failures));
        counts
    }

    /// Takes a line of a test binary's output.
    fn read(&mut self, line: &str, in_failures: &mut bool) {
        let sums = parse(line);
        if line == "failures:" {
            // libtest prints it twice: what each said, then only their names, which the first part has too.
            *in_failures = !*in_failures && self.failures.len() < MOST_LINES;
        } else if sums != Self::default() {
            *in_failures = false;
        } else if *in_failures && !line.trim().is_empty() && self.failures.len() < MOST_LINES {
            self.failures.push(line.to_owned());
        }
        self.add(sums);
    }
}

/// How much of what failed tests said is said again.
const MOST_LINES: usize = 200;

/// Runs tests, all of them even when one binary fails.
pub fn test(arguments: &[&str], env: &[(&str, String)]) -> Result<Counts> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(paths::root()).args(["test", "--locked", "--no-fail-fast"]).args(arguments);
    cargo.envs(env.iter().map(|(key, value)| (key, value))).stdout(Stdio::piped());
    let mut child = run::spawn(&mut cargo)?;
    let output = child.stdout.take().context("output of cargo test")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut counts, mut in_failures) = (Counts::default(), false);
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // Also under a runner that reports tests: only our own last line is a summary.
            println!("{line}");
            counts.read(&line, &mut in_failures);
        }
        // Nobody listens any more after a signal.
        let _unheard = sender.send(counts);
    });
    let status = run::wait(child, &cargo)?;
    let counts = receiver.recv().context("count the tests")?;
    if !status.success() && counts.failed == 0 {
        bail!("`{}` failed before its tests could tell: {status}", run::shown(&cargo));
    }
    Ok(counts)
}

/// The counts in a line of libtest's, zero in any other.
fn parse(line: &str) -> Counts {
    let Some(rest) = line.strip_prefix("test result: ") else { return Counts::default() };
    let count = |word: &str| {
        let before = rest.split(&format!(" {word}")).next().unwrap_or_default();
        before.rsplit([' ', ';']).next().and_then(|number| number.parse().ok()).unwrap_or_default()
    };
    Counts { passed: count("passed"), failed: count("failed"), failures: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_result_lines_are_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.01s";
        assert_eq!(parse(line), Counts { passed: 12, failed: 3, failures: Vec::new() });
        assert_eq!(parse("test decide::tests::denies ... ok"), Counts::default());
        assert_eq!(parse("12 passed, 3 failed"), Counts::default());
    }

    #[test]
    fn what_failed_tests_said_is_kept_once() {
        let output = "\
running 2 tests
test a ... ok
test b ... FAILED

failures:

---- b ----
expected 1
got 2


failures:
    b

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
invariants hold over 3 ledger records
";
        let counts = Counts::of(output);
        assert_eq!((counts.passed, counts.failed), (1, 1));
        assert_eq!(counts.failures, ["---- b ----", "expected 1", "got 2"]);
    }
}

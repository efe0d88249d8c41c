//! Running `cargo test` with its output shown as it comes, and counting what its binaries report.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use anyhow::{Context, Result, bail};

use crate::{paths, run};

/// Sums over `test result:` lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u64,
    pub failed: u64,
}

impl Counts {
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Runs tests, all of them even when one binary fails.
pub fn test(arguments: &[&str], env: &[(&str, String)]) -> Result<Counts> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(paths::root()).args(["test", "--locked", "--no-fail-fast"]).args(arguments);
    cargo.envs(env.iter().map(|(key, value)| (key, value))).stdout(Stdio::piped());
    let mut child = run::spawn(&mut cargo)?;
    let output = child.stdout.take().context("output of cargo test")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut counts = Counts::default();
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // Also under a runner that reports tests: only our own last line is a summary.
            println!("{line}");
            counts.add(parse(&line));
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
    Counts { passed: count("passed"), failed: count("failed") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_result_lines_are_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.01s";
        assert_eq!(parse(line), Counts { passed: 12, failed: 3 });
        assert_eq!(parse("test decide::tests::denies ... ok"), Counts::default());
        assert_eq!(parse("12 passed, 3 failed"), Counts::default());
    }
}

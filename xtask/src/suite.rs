//! `cargo xtask test`: every check there is, in steps with a heading each.
//!
//! All steps run even when one fails, so that one run shows everything; then the sums over all test
//! binaries are printed, and any failure fails the whole. Clusters are always stopped at the end. Nothing is skipped:
//! what cannot run here fails; only the test that fills a file system of its own is listed as ignored for who may not mount one.

mod beside;
mod cargo;
mod clusters;
mod conformance;
mod unprivileged;

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::{arrows, deny, generate, packages, paths, run, stop};
use beside::Beside;
use cargo::Counts;

/// Parts of the suite.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Formatting, lints, generated files, dependency direction, licences.
    Lint,
    /// Tests without a cluster.
    Unit,
    /// The published CEL cases (needs Go).
    Cel,
    /// Tests on a real API server.
    Plane,
    /// `up` and `down` by a user without rights.
    Unprivileged,
    /// Tests on a real node (root on Linux).
    Node,
}

/// Parts that can run beside the tests on a real API server.
const REST: [Part; 3] = [Part::Cel, Part::Unprivileged, Part::Node];

/// What ran so far.
#[derive(Default)]
struct Suite {
    counts: Counts,
    failed: Vec<String>,
}

/// Runs all parts, or only those named.
pub fn run(only: &[Part], install_packages: bool) -> Result<()> {
    let started = Instant::now();
    let wanted = |part: Part| only.is_empty() || only.contains(&part);
    let mut suite = Suite::default();
    if wanted(Part::Node) {
        suite.step("packages of the machine", || packages::ensure(install_packages))?;
    }
    if wanted(Part::Unit) || wanted(Part::Plane) {
        suite.step("packages of the tests", || packages::ensure_for_tests(install_packages))?;
    }
    if wanted(Part::Lint) {
        suite.lint()?;
    }
    if wanted(Part::Unit) {
        suite.tests("unit tests", || cargo::test(&["--workspace", "--exclude", "polity-e2e"], &[]))?;
        suite.tests("unit tests of what drives clusters", || cargo::test(&["--package", "polity-e2e", "--lib"], &[]))?;
    }
    if !wanted(Part::Plane) {
        return suite.rest(wanted).and_then(|()| suite.end(started));
    }
    // All of them mostly wait for clusters, so the others run while the longest does.
    let others: Vec<Part> = REST.into_iter().filter(|part| wanted(*part)).collect();
    let others = (!others.is_empty()).then(|| Beside::start(&others)).transpose()?;
    suite.tests("tests on a real API server", clusters::plane)?;
    if let Some(others) = others {
        suite.tests("meanwhile", || others.join())?;
    }
    suite.end(started)
}

/// Kills parts at random for so long and checks what must hold.
pub fn chaos(seconds: u64, seed: Option<u64>) -> Result<()> {
    let started = Instant::now();
    let mut suite = Suite::default();
    suite.tests("parts killed at random", || clusters::chaos(seconds, seed))?;
    suite.end(started)
}

impl Suite {
    /// The parts that can run beside the tests on a real API server.
    fn rest(&mut self, wanted: impl Fn(Part) -> bool) -> Result<()> {
        if wanted(Part::Cel) {
            self.tests("published CEL cases", conformance::check)?;
        }
        if wanted(Part::Unprivileged) {
            self.step("up and down without root", unprivileged::check)?;
        }
        if wanted(Part::Node) {
            self.tests("tests on a real node", clusters::node)?;
        }
        Ok(())
    }

    fn lint(&mut self) -> Result<()> {
        self.step("formatting", generate::formatted)?;
        self.step("clippy", || {
            let mut clippy = Command::new("cargo");
            clippy.current_dir(paths::root()).args([
                "clippy",
                "--quiet",
                "--workspace",
                "--all-targets",
                "--locked",
                "--",
                "-D",
                "warnings",
            ]);
            run::check(&mut clippy)
        })?;
        self.step("generated files", generate::check)?;
        self.step("direction of dependencies", arrows::check)?;
        self.step("licences, bans and sources", deny::check)
    }

    /// Runs a step; its failure is kept for the end, a signal ends all.
    fn step(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        self.tests(name, || work().map(|()| Counts::default()))
    }

    fn tests(&mut self, name: &str, work: impl FnOnce() -> Result<Counts>) -> Result<()> {
        println!("\n=== {name}");
        let started = Instant::now();
        let result = work();
        stop::check()?;
        let failure = match result {
            Ok(counts) => {
                let failure = (counts.failed > 0).then(|| format!("{} tests failed", counts.failed));
                self.counts.add(counts);
                failure
            }
            Err(error) => {
                // A step that could not even count is one failure more than its tests tell.
                self.counts.failed += 1;
                Some(format!("{error:#}"))
            }
        };
        let verdict = if failure.is_some() { "FAILED" } else { "ok" };
        if let Some(failure) = failure {
            println!("{failure}");
            self.failed.push(name.to_owned());
        }
        println!("=== {name}: {verdict} ({} s)", started.elapsed().as_secs());
        Ok(())
    }

    fn end(self, started: Instant) -> Result<()> {
        println!("\nran for {} s; upstream binaries and tools are kept in {}", started.elapsed().as_secs(), paths::cache()?.display());
        if !self.counts.failures.is_empty() {
            println!("\nwhat failed, again:\n{}\n", self.counts.failures.join("\n"));
        }
        println!("{} passed, {} failed", self.counts.passed, self.counts.failed);
        if !self.failed.is_empty() {
            bail!("failed: {}", self.failed.join("; "));
        }
        if self.counts.failed > 0 {
            bail!("tests failed");
        }
        Ok(())
    }
}

//! The published conformance cases of CEL, from the Go module that `e2e/cel-conformance` pins, against the rules' evaluators.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::cargo::{Counts, test};
use crate::{paths, run};

/// Fetches the cases (Go verifies them by `go.sum` and keeps them) and runs them.
pub fn check() -> Result<Counts> {
    let module = paths::root().join("e2e/cel-conformance");
    let go = |arguments: &[&str]| run::output(Command::new("go").current_dir(&module).args(arguments));
    go(&["mod", "download", "cel.dev/expr"]).context("fetch the published CEL cases")?;
    let folder = go(&["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", "cel.dev/expr"])?;
    let cases = Path::new(folder.trim()).join("tests/simple/testdata");
    ensure!(cases.is_dir(), "the module cel.dev/expr has no {}", cases.display());
    test(
        &["--package", "polity-policy", "--lib", "the_published_cases", "--", "--ignored", "--nocapture"],
        &[("POLITY_CEL_CASES", cases.display().to_string())],
    )
}

//! `policy test`: decides the calls of test files against manifests and compares with what they expect.
//!
//! A test file holds tests as a list, under `tests:`, or one a document.

use std::{collections::BTreeSet, io::Write, path::PathBuf};

use anyhow::{Context, Result, bail};
use polity_policy::{Fixture, FixtureResult, RuleCoverage, coverage, run_fixtures};
use serde_json::{Value, json};

use super::manifests;
use crate::{Verdict, args::Output, table, yaml::documents};

/// What is asked about the coverage of rules.
#[derive(Clone, Copy, Debug)]
pub struct Coverage {
    /// It is printed.
    pub shown: bool,
    /// Less than all is a failure.
    pub required: bool,
}

pub fn run(paths: &[PathBuf], tests: &[PathBuf], asked: Coverage, output: Output, out: &mut dyn Write) -> Result<Verdict> {
    let fixtures = fixtures(tests)?;
    let (world, misshapen) = manifests::read(paths)?;
    let results = run_fixtures(&world, &fixtures);
    let failed = results.iter().filter(|r| !r.passed()).count();
    let rules = if asked.shown { Some(coverage(&world, &fixtures)) } else { None };
    let covered = rules.iter().flatten().all(RuleCoverage::full);
    let good = failed == 0 && misshapen.is_empty() && (covered || !asked.required);
    if output == Output::Json {
        let tests: Vec<Value> = results.iter().map(report).collect();
        let mut said = json!({"passed": good, "total": results.len(), "failed": failed, "misshapen": misshapen, "tests": tests});
        if let Some(rules) = &rules {
            said["coverage"] = covered_json(rules);
        }
        writeln!(out, "{said}")?;
    } else {
        for m in &misshapen {
            writeln!(out, "ERROR {} ({})\n      {}", m.object, m.file, m.problem)?;
        }
        for result in &results {
            writeln!(out, "{}  {}", if result.passed() { "PASS" } else { "FAIL" }, result.name)?;
            for failure in &result.failures {
                writeln!(out, "      {failure}")?;
            }
        }
        writeln!(out, "{} tests, {failed} failed", results.len())?;
        if let Some(rules) = &rules {
            covered_table(rules, out)?;
        }
    }
    Ok(if good { Verdict::Good } else { Verdict::Bad })
}

/// The tests of files, in order.
pub fn fixtures(paths: &[PathBuf]) -> Result<Vec<Fixture>> {
    let mut all: Vec<Fixture> = Vec::new();
    let mut names = BTreeSet::new();
    for document in documents(paths)? {
        let list = match document.value {
            Value::Array(list) => list,
            Value::Object(mut one) => match one.remove("tests") {
                Some(Value::Array(list)) if one.is_empty() => list,
                Some(_) => bail!("{}: tests must be a list, and nothing beside it", document.file.display()),
                None => vec![Value::Object(one)],
            },
            _ => bail!("{}: expected a list of tests", document.file.display()),
        };
        for value in list {
            let name = value["name"].as_str().unwrap_or("without name").to_owned();
            let fixture =
                serde_json::from_value(value).with_context(|| format!("{}: test {name:?} is not understood", document.file.display()))?;
            if !names.insert(name.clone()) {
                bail!("{}: there is more than one test {name:?}", document.file.display());
            }
            all.push(fixture);
        }
    }
    if all.is_empty() {
        bail!("there are no tests");
    }
    Ok(all)
}

fn covered_json(rules: &[RuleCoverage]) -> Value {
    let each: Vec<Value> = rules
        .iter()
        .map(|r| {
            let never_ran: Vec<&str> = r.never_ran().collect();
            json!({"rule": r.rule, "tried": r.tried, "held": r.held, "failed": r.failed, "branches": r.branches.len(), "neverRan": never_ran, "full": r.full()})
        })
        .collect();
    json!({"rules": rules.len(), "full": rules.iter().filter(|r| r.full()).count(), "each": each})
}

fn covered_table(rules: &[RuleCoverage], out: &mut dyn Write) -> Result<()> {
    let rows: Vec<Vec<String>> = rules
        .iter()
        .map(|r| {
            let lacks = match (r.tried, r.failed) {
                (0, _) => "never tried".to_owned(),
                (_, 0) => "never failed".to_owned(),
                _ => String::new(),
            };
            let never: Vec<&str> = r.never_ran().collect();
            vec![r.rule.clone(), r.tried.to_string(), r.held.to_string(), r.failed.to_string(), lacks, never.join("; ")]
        })
        .collect();
    writeln!(out)?;
    table::print(out, &["RULE", "TRIED", "HELD", "FAILED", "LACKS", "NEVER RAN"], &rows)?;
    writeln!(out, "{} of {} rules are covered in full", rules.iter().filter(|r| r.full()).count(), rules.len())?;
    Ok(())
}

fn report(result: &FixtureResult) -> Value {
    let decision = result.decision.as_ref().map(|d| {
        let advisory: Vec<&str> = d.advisory.iter().map(|a| a.rule.as_str()).collect();
        json!({"verdict": d.verdict.name(), "reason": d.reason, "message": d.message, "hint": d.hint, "rules": d.rules, "advisory": advisory})
    });
    json!({"name": result.name, "passed": result.passed(), "failures": result.failures, "decision": decision})
}

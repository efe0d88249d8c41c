//! The direction of dependencies between the crates of the workspace, held to the table below.
//!
//! A crate may depend on those of its row and on no other of ours; a crate without a row is an error,
//! so that a new one gets its place on purpose. Test dependencies count as well.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{paths, run};

const ALLOWED: &[(&str, &[&str])] = &[
    ("polity-api", &[]),
    ("polity-policy", &["polity-api", "polity-fuzz"]),
    ("polity-plan", &["polity-api"]),
    ("polity-ledger", &["polity-api"]),
    ("polity-runtime", &["polity-api", "polity-policy", "polity-plan", "polity-ledger"]),
    ("polity-upstream", &["polity-api", "polity-ledger"]),
    ("polity-webhook", &["polity-api", "polity-policy", "polity-plan", "polity-ledger", "polity-runtime", "polity-upstream"]),
    (
        "polity-gateway",
        &["polity-api", "polity-policy", "polity-plan", "polity-ledger", "polity-runtime", "polity-upstream", "polity-fuzz"],
    ),
    (
        "polity-operator",
        &[
            "polity-api",
            "polity-policy",
            "polity-plan",
            "polity-ledger",
            "polity-runtime",
            "polity-upstream",
            "polity-webhook",
            "polity-gateway",
        ],
    ),
    ("kubectl-polity", &["polity-api", "polity-policy", "polity-ledger", "polity-upstream"]),
    ("polity-worker", &["polity-api"]),
    ("polity-shim", &[]),
    ("polity-fuzz", &[]),
    ("polity-e2e", &["polity-api", "polity-policy", "polity-ledger", "polity-upstream"]),
    (
        "polity-bench",
        &["polity-api", "polity-policy", "polity-plan", "polity-ledger", "polity-runtime", "polity-webhook", "polity-gateway"],
    ),
    ("xtask", &["polity-api"]),
];

/// Crates that compute and nothing else, and what they may therefore not depend on.
const PURE: &[&str] = &["polity-api", "polity-policy", "polity-plan"];
const IMPURE: &[&str] = &["tokio", "reqwest", "hyper", "axum", "rusqlite", "rustls", "rand"];

/// Fails with every arrow that goes the wrong way.
pub fn check() -> Result<()> {
    let text = run::output(Command::new("cargo").current_dir(paths::root()).args(["metadata", "--no-deps", "--format-version=1"]))?;
    let metadata: Value = serde_json::from_str(&text).context("output of cargo metadata")?;
    let wrong = wrong(&metadata);
    if !wrong.is_empty() {
        bail!("dependencies in the wrong direction:\n  {}", wrong.join("\n  "));
    }
    Ok(())
}

fn wrong(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let ours: Vec<String> = packages.iter().filter_map(|package| Some(package["name"].as_str()?.to_owned())).collect();
    let mut wrong = Vec::new();
    for package in &packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ALLOWED.iter().find(|(crate_name, _)| *crate_name == name) else {
            wrong.push(format!("{name} has no row in xtask/src/arrows.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            if ours.iter().any(|one| one == on) && !allowed.contains(&on) {
                wrong.push(format!("{name} → {on}"));
            }
            if PURE.contains(&name) && IMPURE.contains(&on) && dependency["kind"].is_null() {
                wrong.push(format!("{name} computes only, and must not depend on {on}"));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn workspace(from: &str, on: &str) -> Value {
        let dependencies = json!([{"name": on, "kind": null}]);
        json!({"packages": [{"name": from, "dependencies": dependencies}, {"name": "polity-operator", "dependencies": []}]})
    }

    #[test]
    fn an_arrow_against_the_table_is_found() {
        assert_eq!(wrong(&workspace("polity-policy", "polity-operator")), ["polity-policy → polity-operator"]);
        assert_eq!(wrong(&workspace("polity-policy", "serde")), [""; 0]);
    }

    #[test]
    fn a_pure_crate_gets_no_runtime_and_a_new_crate_needs_a_row() {
        assert_eq!(wrong(&workspace("polity-plan", "tokio")), ["polity-plan computes only, and must not depend on tokio"]);
        assert_eq!(wrong(&workspace("polity-new", "serde")), ["polity-new has no row in xtask/src/arrows.rs"]);
    }
}

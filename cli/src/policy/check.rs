//! `policy check`: every Policy of the manifests against the Tools beside it, as admission checks it; and every Tool's schema.

use std::{io::Write, path::PathBuf};

use anyhow::Result;
use polity_policy::{CompiledTool, World, check_policy, tool_facts, unknown_names};
use serde::Serialize;
use serde_json::json;

use super::manifests::{self, Misshapen};
use crate::{Verdict, args::Output};

/// What was found of one Policy or Tool.
#[derive(Debug, Serialize)]
struct Found {
    object: String,
    errors: Vec<String>,
    warnings: Vec<String>,
}

pub fn run(paths: &[PathBuf], output: Output, out: &mut dyn Write) -> Result<Verdict> {
    let (world, misshapen) = manifests::read(paths)?;
    let found: Vec<Found> = policies(&world).chain(tools(&world)).collect();
    let good = misshapen.is_empty() && found.iter().all(|f| f.errors.is_empty());
    match output {
        Output::Json => writeln!(out, "{}", json!({"passed": good, "misshapen": misshapen, "checked": found}))?,
        Output::Table => table(&misshapen, &found, out)?,
    }
    Ok(if good { Verdict::Good } else { Verdict::Bad })
}

fn policies(world: &World) -> impl Iterator<Item = Found> {
    world.policies.iter().map(|((namespace, name), policy)| {
        let mut warnings = Vec::new();
        let tools = match world.org_of(namespace) {
            Some(org) => {
                warnings.extend(unknown_names(&policy.spec, org, world));
                world.tools_in_reach(org)
            }
            None => {
                warnings.push(format!("namespace {namespace:?} belongs to no Org among the manifests"));
                Vec::new()
            }
        };
        let check = check_policy(&policy.spec, tools.iter().map(AsRef::as_ref));
        if check.missing_tools {
            warnings.push("no Tool that it selects is among the manifests; without one what it selects is denied".to_owned());
        }
        // a Policy with errors is not stored: what it would deny is no news
        let not_typed = check.not_typed.iter().filter(|_| check.errors.is_empty());
        warnings.extend(not_typed.map(|(tool, problem)| format!("calls of Tool {tool} will be denied: {problem}")));
        warnings.extend(check.warnings.iter().map(ToString::to_string));
        Found { object: format!("Policy {namespace}/{name}"), errors: check.errors.iter().map(ToString::to_string).collect(), warnings }
    })
}

fn tools(world: &World) -> impl Iterator<Item = Found> {
    world.tools.iter().filter_map(|((namespace, name), tool)| {
        let org = world.orgs.get(world.org_of(namespace)?)?;
        let broken = CompiledTool::new(&tool_facts(org, tool)).broken;
        Some(Found { object: format!("Tool {namespace}/{name}"), errors: broken.into_iter().collect(), warnings: Vec::new() })
    })
}

fn table(misshapen: &[Misshapen], found: &[Found], out: &mut dyn Write) -> Result<()> {
    for Misshapen { file, object, problem } in misshapen {
        writeln!(out, "ERROR  {object} ({file})\n       {problem}")?;
    }
    for Found { object, errors, warnings } in found {
        writeln!(out, "{}  {object}", if errors.is_empty() { "ok   " } else { "ERROR" })?;
        for error in errors {
            writeln!(out, "       {error}")?;
        }
        for warning in warnings {
            writeln!(out, "       warning: {warning}")?;
        }
    }
    let broken = misshapen.len() + found.iter().filter(|f| !f.errors.is_empty()).count();
    writeln!(out, "{} Policies and Tools checked, {broken} with errors", found.len())?;
    Ok(())
}

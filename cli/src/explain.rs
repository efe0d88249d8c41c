//! `explain`: why a call would be decided as it would, from manifests or from the definitions on a cluster. Shows every Policy that binds with what became of each rule. It shows names, types and
//! the rules' own constants, never a value of the input.

use std::io::Write;

use anyhow::{Context, Result, anyhow};
use polity_policy::{Decision, Explanation, Fixture, Trial, TrialResult, Verdict as Decided, World, prepare, snapshots};
use serde_json::{Value, json};

use crate::{
    Verdict,
    args::{ExplainArgs, Output},
    can_i::organisation,
    cluster::{Cluster, call::input, world},
    table,
};

/// Decides from manifests, and says why.
pub fn offline(args: &ExplainArgs, out: &mut dyn Write) -> Result<Verdict> {
    let org = args.org.as_deref().context("say which Org of the manifests: --org NAME")?;
    decide(&organisation(&args.manifests, org)?, org, args, out)
}

/// Decides from what is on the cluster, and says why.
pub async fn online(cluster: &Cluster, args: &ExplainArgs, out: &mut dyn Write) -> Result<Verdict> {
    let (org, world) = world::of_org(cluster, args.org.as_deref()).await?;
    decide(&world, &org, args, out)
}

fn decide(world: &World, org: &str, args: &ExplainArgs, out: &mut dyn Write) -> Result<Verdict> {
    let fixtures = [Fixture {
        name: "explain".to_owned(),
        org: org.to_owned(),
        agent: args.agent.clone(),
        caller: args.caller.clone(),
        tool: args.tool.clone(),
        tool_org: args.tool_org.clone(),
        args: Value::Object(input(&args.input)?),
        job_space: args.job_space.clone(),
        counters: args.past.counters()?,
        history: args.past.history(),
        ..Fixture::default()
    }];
    let [fixture] = &fixtures;
    let snapshots = snapshots(world, &fixtures);
    let Explanation { decision, tried } = prepare(&snapshots, fixture).map_err(|problem| anyhow!(problem))?.explain();
    match args.output {
        Output::Json => writeln!(out, "{}", all(&decision, &tried))?,
        Output::Table => show(&decision, &tried, out)?,
    }
    Ok(if decision.verdict == Decided::Deny { Verdict::Bad } else { Verdict::Good })
}

fn all(decision: &Decision, tried: &[Trial]) -> Value {
    let tried: Vec<Value> = tried
        .iter()
        .map(|t| {
            let part = t.part.as_ref().map(|p| {
                let reads: Vec<Value> = p.reads.iter().map(|(name, kind)| json!({"name": name, "type": kind})).collect();
                json!({"expression": p.expression, "reads": reads})
            });
            let would_pass = t.part.as_ref().and_then(|p| p.would_pass.as_deref());
            let (rule, mode, effect, result) = (&t.rule, t.mode, t.effect, t.result.name());
            json!({"rule": rule, "mode": mode, "effect": effect, "result": result, "why": why(t), "part": part, "wouldPass": would_pass})
        })
        .collect();
    let Decision { verdict, reason, message, hint, snapshot, rules, .. } = decision;
    json!({
        "verdict": verdict.name(), "reason": reason, "message": message, "hint": hint, "snapshot": snapshot, "rules": rules,
        "approvals": asked(decision), "tried": tried,
    })
}

fn asked(decision: &Decision) -> Vec<String> {
    decision.requirements.iter().map(|r| format!("{} (rule {})", r.asked(), r.rule)).collect()
}

/// What led to a rule's result.
fn why(trial: &Trial) -> String {
    let part = trial.part.as_ref().map(|p| p.expression.as_str());
    match &trial.result {
        TrialResult::Holds => String::new(),
        TrialResult::Fails => part.unwrap_or("which part of it cannot be said: it has no compiled form").to_owned(),
        TrialResult::Error(why) => part.map_or_else(|| why.clone(), |part| format!("{part}: {why}")),
        TrialResult::Broken(why) | TrialResult::Would(why) => why.clone(),
        TrialResult::NotSelected(field) => format!("match.{field}"),
        TrialResult::Rewrites(places) if places.is_empty() => "nothing to change".to_owned(),
        TrialResult::Rewrites(places) => places.join(", "),
    }
}

fn show(decision: &Decision, tried: &[Trial], out: &mut dyn Write) -> Result<()> {
    let verdict = decision.verdict.name();
    if decision.reason.is_empty() {
        writeln!(out, "{verdict}")?;
    } else {
        writeln!(out, "{verdict}: {}", decision.reason)?;
    }
    for (what, text) in [("why", &decision.message), ("hint", &decision.hint)] {
        if !text.is_empty() {
            writeln!(out, "  {what}: {text}")?;
        }
    }
    for asks in asked(decision) {
        writeln!(out, "  asks: {asks}")?;
    }
    writeln!(out, "  snapshot: {}", decision.snapshot)?;
    if tried.is_empty() {
        let none = if decision.verdict == Decided::Deny { "no rule was tried: denied before" } else { "no Policy binds here" };
        return Ok(writeln!(out, "  {none}")?);
    }
    let rows: Vec<Vec<String>> = tried.iter().map(row).collect();
    Ok(table::print(out, &["RULE", "MODE", "EFFECT", "RESULT", "WHY", "READS", "WOULD PASS"], &rows)?)
}

fn row(trial: &Trial) -> Vec<String> {
    let part = trial.part.as_ref();
    let reads = part.map(|p| p.reads.iter().map(|(name, kind)| format!("{name}: {kind}")).collect::<Vec<_>>().join(", "));
    let cells = [
        trial.rule.clone(),
        trial.mode.map(|mode| format!("{mode:?}")).unwrap_or_default(),
        trial.effect.map(|effect| format!("{effect:?}")).unwrap_or_default(),
        trial.result.name().to_owned(),
        why(trial),
        reads.unwrap_or_default(),
        part.and_then(|p| p.would_pass.clone()).unwrap_or_default(),
    ];
    // each row is one line
    cells.map(|cell| cell.replace(['\n', '\r'], " ")).into()
}

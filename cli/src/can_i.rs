//! `can-i`: whether a call would be allowed, and why or why not. Makes no call and leaves no trace.
//!
//! On a cluster it is a server-side dry run in the user's own name, decided by the same code as the call itself would be at
//! admission; offline the same decision is made from manifests. Both can only tell of now: a call is decided again before it runs.

use std::{io::Write, path::PathBuf};

use anyhow::{Context, Result, bail};
use kube::{Api, api::PostParams};
use polity_api::{
    ToolCall, ToolCallSpec, names,
    toolcall::{TaskRef, ToolRef},
};
use polity_policy::{Expect, Fixture, Verdict as Decided, World, run_fixtures};
use serde_json::{Value, json};

use crate::{
    Verdict,
    args::{CanIArgs, Output},
    cluster::{
        Cluster,
        call::{input, is_denial, told},
        worded,
    },
    policy::manifests,
};

/// What was answered.
struct Answer {
    verdict: Decided,
    reason: String,
    message: String,
    hint: String,
    /// Who would be asked.
    approvals: Vec<String>,
    rules: Vec<String>,
}

/// Asks the cluster.
pub async fn online(cluster: &Cluster, args: &CanIArgs, out: &mut dyn Write) -> Result<Verdict> {
    if args.past.said() {
        bail!("--counter and --history-... are for files (-f): the cluster knows what was before");
    }
    let spec = ToolCallSpec {
        tool: ToolRef { name: args.tool.clone(), org: args.tool_org.clone() },
        input: Some(input(&args.input)?),
        task_ref: args.task.clone().map(|name| TaskRef { name }),
        job_space: args.job_space.clone(),
        ..ToolCallSpec::default()
    };
    let mut call = ToolCall::new("", spec);
    call.metadata.name = None;
    call.metadata.generate_name = Some(format!("{}-", args.tool));
    let api: Api<ToolCall> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let answer = match api.create(&PostParams { dry_run: true, ..PostParams::default() }, &call).await {
        Ok(_would_be_stored) => {
            let approvals: Vec<String> =
                cluster.warnings.heard().iter().filter_map(|w| Some(w.strip_prefix(names::WAITS_FOR)?.to_owned())).collect();
            let verdict = if approvals.is_empty() { Decided::Allow } else { Decided::RequireApproval };
            Answer { verdict, reason: String::new(), message: String::new(), hint: String::new(), approvals, rules: Vec::new() }
        }
        Err(kube::Error::Api(status)) if is_denial(&status) => {
            let (message, hint) = told(&status);
            let (message, hint) = (message.to_owned(), hint.to_owned());
            Answer { verdict: Decided::Deny, reason: status.reason.clone(), message, hint, approvals: Vec::new(), rules: Vec::new() }
        }
        Err(e) => return Err(worded(e, "cannot ask")),
    };
    show(&answer, args.output, out)
}

/// Reads manifests that are whole and have the Org.
pub fn organisation(files: &[PathBuf], org: &str) -> Result<World> {
    let (world, misshapen) = manifests::read(files)?;
    if let Some(first) = misshapen.first() {
        bail!("{} ({}): {}; `kubectl polity policy check` lists all that is wrong", first.object, first.file, first.problem);
    }
    if !world.orgs.contains_key(org) {
        let known: Vec<&str> = world.orgs.keys().map(String::as_str).collect();
        bail!("there is no Org {org:?} among the manifests; there are {}", known.join(", "));
    }
    Ok(world)
}

/// Decides from manifests.
pub fn offline(args: &CanIArgs, out: &mut dyn Write) -> Result<Verdict> {
    if args.agent.is_none() && args.caller.is_none() {
        bail!("say who would call: --agent NAME or --caller USERNAME");
    }
    let fixture = Fixture {
        name: "can-i".to_owned(),
        org: args.org.clone().unwrap_or_default(),
        agent: args.agent.clone(),
        caller: args.caller.clone(),
        tool: args.tool.clone(),
        tool_org: args.tool_org.clone(),
        args: Value::Object(input(&args.input)?),
        job_space: args.job_space.clone(),
        counters: args.past.counters()?,
        history: args.past.history(),
        expect: Expect::default(),
        ..Fixture::default()
    };
    let world = organisation(&args.manifests, &fixture.org)?;
    let result = run_fixtures(&world, &[fixture]).pop().context("no decision")?;
    let decision = match result.decision {
        Some(decision) => decision,
        None => bail!("{}", result.failures.join("; ")),
    };
    let approvals = decision.requirements.iter().map(|r| format!("{} (rule {})", r.asked(), r.rule)).collect();
    let (reason, message, hint) = (decision.reason.to_owned(), decision.message, decision.hint);
    show(&Answer { verdict: decision.verdict, reason, message, hint, approvals, rules: decision.rules }, args.output, out)
}

fn show(answer: &Answer, output: Output, out: &mut dyn Write) -> Result<Verdict> {
    let good = if answer.verdict == Decided::Deny { Verdict::Bad } else { Verdict::Good };
    if output == Output::Json {
        let Answer { verdict, reason, message, hint, approvals, rules } = answer;
        let all =
            json!({"verdict": verdict.name(), "reason": reason, "message": message, "hint": hint, "approvals": approvals, "rules": rules});
        writeln!(out, "{all}")?;
        return Ok(good);
    }
    match answer.verdict {
        Decided::Allow => writeln!(out, "yes")?,
        Decided::RequireApproval => writeln!(out, "yes, after approval")?,
        Decided::Deny => writeln!(out, "no: {}", answer.reason)?,
    }
    for (what, text) in [("why", &answer.message), ("hint", &answer.hint)] {
        if answer.verdict == Decided::Deny && !text.is_empty() {
            writeln!(out, "  {what}: {text}")?;
        }
    }
    for approval in &answer.approvals {
        writeln!(out, "  asks: {approval}")?;
    }
    Ok(good)
}

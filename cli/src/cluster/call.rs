//! `call`: makes a ToolCall and shows what became of it. Ends well only if the Tool ran well.

use std::{io::Read, io::Write, time::Duration};

use anyhow::{Context, Result, bail};
use kube::{Api, ResourceExt, api::PostParams, core::Status, runtime::wait::await_condition};
use polity_api::{
    ToolCall, ToolCallSpec,
    toolcall::{Phase, TaskRef, ToolRef},
};
use serde_json::{Map, Value};

use super::{Cluster, worded};
use crate::{
    Verdict,
    args::{CallArgs, Output},
};

pub async fn run(cluster: &Cluster, args: &CallArgs, out: &mut dyn Write) -> Result<Verdict> {
    let spec = ToolCallSpec {
        tool: ToolRef { name: args.tool.clone(), org: args.tool_org.clone() },
        input: Some(input(&args.input)?),
        task_ref: args.task.clone().map(|name| TaskRef { name }),
        job_space: args.job_space.clone(),
        idempotency_key: args.idempotency_key.clone(),
        ttl_seconds_after_finished: 3600,
        ..ToolCallSpec::default()
    };
    let mut call = ToolCall::new("", spec);
    call.metadata.name = None;
    call.metadata.generate_name = Some(format!("{}-", args.tool));
    let api: Api<ToolCall> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let made = match api.create(&PostParams::default(), &call).await {
        Ok(made) => made,
        Err(kube::Error::Api(status)) if is_denial(&status) => return denied(&status, args.output, out),
        Err(e) => return Err(worded(e, "the call was not accepted")),
    };
    let name = made.name_any();
    let ended = if args.wait { wait(api, &name, args.timeout).await? } else { made };
    show(&name, &ended, args, out)
}

/// The input of a call from the command line: JSON, `@FILE` or `-`.
pub fn input(text: &str) -> Result<Map<String, Value>> {
    let text = match text.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?,
        None if text == "-" => {
            let mut read = String::new();
            std::io::stdin().read_to_string(&mut read).context("cannot read standard input")?;
            read
        }
        None => text.to_owned(),
    };
    serde_json::from_str(&text).context("the input is not a JSON object")
}

/// A denial of ours carries causes; anything else is an error of another kind.
pub fn is_denial(status: &Status) -> bool {
    status.code == 403 && status.details.as_ref().is_some_and(|d| !d.causes.is_empty())
}

fn denied(status: &Status, output: Output, out: &mut dyn Write) -> Result<Verdict> {
    if output == Output::Json {
        writeln!(out, "{}", serde_json::to_string(status)?)?;
        return Ok(Verdict::Bad);
    }
    let (message, hint) = told(status);
    writeln!(out, "denied: {}", status.reason)?;
    writeln!(out, "  why:  {message}")?;
    if !hint.is_empty() {
        writeln!(out, "  hint: {hint}")?;
    }
    Ok(Verdict::Bad)
}

/// Message and hint of a denial, without what the API server and the reason code put before them.
pub fn told(status: &Status) -> (&str, &str) {
    let text = status.message.split_once("denied the request: ").map_or(status.message.as_str(), |(_, text)| text);
    let text = text.strip_prefix(&status.reason).and_then(|text| text.strip_prefix(": ")).unwrap_or(text);
    text.split_once(" Hint: ").unwrap_or((text, ""))
}

async fn wait(api: Api<ToolCall>, name: &str, seconds: u64) -> Result<ToolCall> {
    let over = |call: Option<&ToolCall>| {
        phase(call).is_none_or(|phase| phase.ended() || phase == Phase::Unknown) && (call.is_none() || phase(call).is_some())
    };
    let waited = tokio::time::timeout(Duration::from_secs(seconds), await_condition(api, name, over)).await;
    match waited {
        Ok(Ok(Some(call))) => Ok(call),
        Ok(Ok(None)) => bail!("toolcall.polity.dev/{name} was deleted meanwhile"),
        Ok(Err(e)) => Err(anyhow::Error::new(e).context("cannot watch the call")),
        Err(_elapsed) => {
            bail!("toolcall.polity.dev/{name} has not ended within {seconds} s; it goes on (kubectl get toolcalls.polity.dev {name})")
        }
    }
}

fn phase(call: Option<&ToolCall>) -> Option<Phase> {
    call?.status.as_ref()?.phase
}

fn show(name: &str, call: &ToolCall, args: &CallArgs, out: &mut dyn Write) -> Result<Verdict> {
    let phase = phase(Some(call));
    let good = if args.wait { phase == Some(Phase::Succeeded) } else { true };
    let verdict = if good { Verdict::Good } else { Verdict::Bad };
    if args.output == Output::Json {
        writeln!(out, "{}", serde_json::to_string(call)?)?;
        return Ok(verdict);
    }
    let words = phase.map_or_else(|| "created".to_owned(), |phase| format!("{phase:?}"));
    writeln!(out, "toolcall.polity.dev/{name} {words}")?;
    let Some(status) = &call.status else { return Ok(verdict) };
    if let Some(condition) =
        status.conditions.iter().find(|c| c.type_ == polity_api::conditions::SUCCEEDED).filter(|c| args.wait && c.status != "True")
    {
        writeln!(out, "  why:  {}: {}", condition.reason, condition.message)?;
    }
    if let Some(hint) = status.decision.as_ref().map(|d| d.hint.as_str()).filter(|hint| !hint.is_empty() && !good) {
        writeln!(out, "  hint: {hint}")?;
    }
    if let Some(approval) = &status.approval {
        writeln!(out, "  approval: {approval}")?;
    }
    if let Some(result) = &status.result {
        if let Some(tail) = &result.stderr_tail {
            writeln!(out, "  stderr:\n{tail}")?;
        }
        if let Some(output) = &result.output {
            writeln!(out, "{}", serde_json::to_string_pretty(output)?)?;
        }
    }
    Ok(verdict)
}

//! From what a shim posted, or from what became of its Pod, to how the ledger settles it. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use polity_api::{names, reasons};
use polity_ledger::{Amounts, OrgId, Outcome, Settle};
use polity_runtime::{
    deliver::{End, deliver},
    internal::ShimOutput,
};
use serde_json::{Value, json};

/// How long a Pod that is bound to a node may fail to get an image, before its call is given up.
const PULL_PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// What the run is known by while it runs; kept in the ledger as `resume`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Id of the call.
    pub id: String,
    /// Its Org.
    pub org: OrgId,
    /// Namespace of the Pod.
    pub namespace: String,
    /// The Tool's namespace and name.
    pub tool: (String, String),
    /// The tool's container, as decided on.
    pub container: polity_api::tool::Container,
    /// Output schema, as decided on.
    pub output_schema: Option<serde_json::Map<String, Value>>,
    /// Seconds it may run.
    pub timeout_seconds: i32,
    /// Whether running it twice does no harm.
    pub idempotent: bool,
    /// The input.
    pub input: Value,
    /// What was reserved; a call is priced by the call, so this is what it uses.
    pub reserve: Amounts,
    /// The ToolCall's name and uid, when there is one.
    pub call: Option<(String, String)>,
    /// W3C traceparent.
    pub trace: String,
    /// What Policies demand of the result, as decided on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obligations: Option<polity_policy::Obligations>,
}

/// Settles by what the shim posted, as far as it may be delivered.
#[must_use]
pub fn posted(run: &Run, result: &ShimOutput) -> Settle {
    let settle = came_back(run, result);
    let end = End { message: settle.message, result: settle.result, facts: settle.facts };
    let (reason, End { message, result, facts }) = deliver(run.obligations.as_ref(), &run.input, &settle.reason, end);
    Settle { reason: reason.map_or(settle.reason, str::to_owned), message, result, facts, ..settle }
}

fn came_back(run: &Run, result: &ShimOutput) -> Settle {
    if result.timed_out {
        let message = format!("the tool did not finish within {} s and was stopped", run.timeout_seconds);
        // A tool stopped in the middle may have taken effect.
        return end(run, stopped(run), reasons::TIMED_OUT, message, None, facts(result));
    }
    // A tool that writes too much is killed for that: its exit code says nothing.
    if result.exit_code != 0 && !result.too_large {
        let message = format!("the tool exited with code {}", result.exit_code);
        return end(run, Outcome::Done, reasons::TOOL_FAILED, message, None, facts(result));
    }
    match output(run, result) {
        Ok(value) => end(run, Outcome::Done, "", String::new(), Some(value), facts(result)),
        Err((reason, message)) => end(run, Outcome::Done, reason, message, None, facts(result)),
    }
}

/// Parses and checks what the tool wrote.
fn output(run: &Run, result: &ShimOutput) -> Result<Value, (&'static str, String)> {
    if result.too_large || result.stdout.len() > names::MAX_RESULT {
        return Err((reasons::RESULT_TOO_LARGE, format!("the tool wrote more than {} bytes to stdout", names::MAX_RESULT)));
    }
    let value: Value = serde_json::from_str(&result.stdout)
        .map_err(|e| (reasons::INVALID_RESULT, format!("the tool's stdout is not one JSON value: {e}")))?;
    let size = polity_ledger::canonical(&value).map_or(usize::MAX, |text| text.len());
    if size > names::MAX_INLINE_RESULT {
        let message = format!("the result has {size} bytes; at most {} are kept", names::MAX_INLINE_RESULT);
        return Err((reasons::RESULT_TOO_LARGE, message));
    }
    if let Some(schema) = &run.output_schema {
        let schema = Value::Object(schema.clone());
        let validator = jsonschema::validator_for(&schema).map_err(|e| (reasons::TOOL_NOT_READY, format!("output schema: {e}")))?;
        if let Err(error) = validator.validate(&value) {
            return Err((
                reasons::INVALID_RESULT,
                format!("the result is not what outputSchema says, at {:?}: {error}", error.instance_path().to_string()),
            ));
        }
    }
    Ok(value)
}

/// Settles by what became of the Pod when no result came: not done if the tool was not given its input and never started.
#[must_use]
pub fn lost(run: &Run, pod: Option<&Pod>, given: bool, why: &str) -> Settle {
    let started = given || pod.is_none_or(tool_started);
    let outcome = if started { stopped(run) } else { Outcome::NotDone };
    let reason = match outcome {
        Outcome::Unknown => reasons::OUTCOME_UNKNOWN,
        _ => reasons::TOOL_FAILED,
    };
    let never = if started { String::new() } else { format!("; the container of image {} never started", run.container.image) };
    let detail = pod.and_then(trouble).map(|t| format!(": {t}")).unwrap_or_default();
    end(run, outcome, reason, format!("{why}{detail}{never}"), None, BTreeMap::new())
}

/// Settles a run that was stopped on request.
#[must_use]
pub fn canceled(run: &Run, pod: Option<&Pod>, given: bool) -> Settle {
    let mut settle = lost(run, pod, given, "canceled while it ran");
    settle.reason = reasons::CANCELED.to_owned();
    settle
}

/// Outcome of a tool that was stopped in the middle: harmless only if it may run twice.
fn stopped(run: &Run) -> Outcome {
    if run.idempotent { Outcome::NotDone } else { Outcome::Unknown }
}

/// Whether the tool's container ever ran.
#[must_use]
pub fn tool_started(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    statuses.iter().filter(|s| s.name == "tool" && !made_up(s)).any(|s| {
        let state = s.state.as_ref();
        state.is_some_and(|s| s.running.is_some() || s.terminated.is_some())
            || s.last_state.as_ref().is_some_and(|s| s.terminated.is_some())
    })
}

/// Whether this is what a kubelet says of a container that it never made, once the Pod's time is over: it has ended, without an id.
fn made_up(status: &ContainerStatus) -> bool {
    let ended = status.state.as_ref().and_then(|s| s.terminated.as_ref());
    ended.is_some_and(|e| e.reason.as_deref() == Some("ContainerStatusUnknown") && e.container_id.is_none() && e.started_at.is_none())
        && status.container_id.as_ref().is_none_or(String::is_empty)
        && status.last_state.as_ref().is_none_or(|s| s.terminated.is_none() && s.running.is_none())
        && status.restart_count == 0
}

/// Why a Pod does not start, in its own words.
#[must_use]
pub fn trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let inits = status.init_container_statuses.as_deref().unwrap_or_default();
    let tools = status.container_statuses.as_deref().unwrap_or_default();
    let waiting = inits.iter().chain(tools).find_map(|s| {
        let waiting = s.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref()?;
        (reason != "PodInitializing" && reason != "ContainerCreating")
            .then(|| format!("{reason} {}", waiting.message.as_deref().unwrap_or_default()).trim().to_owned())
    });
    let exited = inits.iter().chain(tools).filter(|s| !made_up(s)).find_map(|s| {
        let ended = s.state.as_ref()?.terminated.as_ref()?;
        (ended.exit_code != 0).then(|| {
            format!("container {} exited with code {} {}", s.name, ended.exit_code, ended.reason.as_deref().unwrap_or_default())
                .trim()
                .to_owned()
        })
    });
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let unscheduled = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False").and_then(|c| c.message.clone());
    waiting.or(exited).or(unscheduled).or_else(|| status.message.clone())
}

/// Whether a Pod can never start its tool, however long one waits.
#[must_use]
pub fn hopeless(pod: &Pod) -> bool {
    let Some(status) = pod.status.as_ref() else { return false };
    if matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
        return true;
    }
    waits_with(
        status,
        &["ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError", "RunContainerError"],
    )
}

/// Whether one of the Pod's containers waits for one of these reasons of the kubelet.
fn waits_with(status: &PodStatus, reasons: &[&str]) -> bool {
    let inits = status.init_container_statuses.as_deref().unwrap_or_default();
    let tools = status.container_statuses.as_deref().unwrap_or_default();
    inits.iter().chain(tools).any(|container| {
        let waiting = container.state.as_ref().and_then(|s| s.waiting.as_ref());
        waiting.and_then(|w| w.reason.as_deref()).is_some_and(|reason| reasons.contains(&reason))
    })
}

/// Whether an image of a Pod has not been got for longer than a registry that stumbles would take. The kubelet itself tries for ever.
#[must_use]
pub fn no_image(pod: &Pod, now: Timestamp) -> bool {
    let Some(status) = pod.status.as_ref() else { return false };
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let bound = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "True").and_then(|c| c.last_transition_time.as_ref());
    if bound.is_none_or(|at| now.duration_since(at.0) < PULL_PATIENCE) {
        return false;
    }
    waits_with(status, &["ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed"])
}

fn facts(result: &ShimOutput) -> BTreeMap<String, Value> {
    let mut facts = BTreeMap::from([("exitCode".to_owned(), json!(result.exit_code))]);
    if !result.stderr_tail.is_empty() && (result.exit_code != 0 || result.timed_out) {
        facts.insert("stderrTail".to_owned(), json!(result.stderr_tail));
    }
    facts
}

fn end(run: &Run, outcome: Outcome, reason: &str, message: String, result: Option<Value>, facts: BTreeMap<String, Value>) -> Settle {
    let used = if outcome == Outcome::NotDone { Amounts::new() } else { run.reserve.clone() };
    Settle {
        org: run.org.clone(),
        id: run.id.clone(),
        used,
        last: true,
        outcome: Some(outcome),
        reason: reason.to_owned(),
        message,
        result,
        facts,
        by: names::CORE.to_owned(),
        resolution: false,
    }
}

#[cfg(test)]
#[path = "outcome_tests.rs"]
mod tests;

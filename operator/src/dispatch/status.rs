//! The status of a ToolCall, made from what the ledger and the decision say. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use polity_api::{
    ToolCallStatus, conditions, reasons,
    toolcall::{CallResult, Decision as Shown, Digest, Phase, PodRef},
};
use polity_ledger::{Attempt, KeyedDigest, Outcome, State};
use polity_policy::Decision;

/// Most characters of stderr shown in a status; the ledger's limit is larger.
const SHOWN_STDERR: usize = 4096;

/// A decision as shown in a status.
#[must_use]
pub fn shown(decision: &Decision, input: Option<KeyedDigest>, record: Option<i64>, now: Timestamp) -> Shown {
    Shown {
        verdict: decision.verdict.name().to_owned(),
        reason: decision.reason.to_owned(),
        message: cut(&decision.message, 4000),
        hint: cut(&decision.hint, 4000),
        rules: decision.rules.iter().take(64).cloned().collect(),
        advisory: decision.advisory.iter().take(64).map(|a| a.rule.clone()).collect(),
        rewrites: decision.rewrites.clone(),
        snapshot: decision.snapshot.clone(),
        input: input.map(digest),
        record,
        at: Time(now),
        by: polity_api::names::CORE.to_owned(),
    }
}

fn digest(from: KeyedDigest) -> Digest {
    Digest { digest: from.digest, key_id: from.key_id }
}

/// Ends a call that did not begin: denied or canceled.
#[must_use]
pub fn refused(mut status: ToolCallStatus, phase: Phase, decision: Shown, generation: i64, now: Timestamp) -> ToolCallStatus {
    let message = if decision.hint.is_empty() { decision.message.clone() } else { format!("{} Hint: {}", decision.message, decision.hint) };
    conditions::set(&mut status.conditions, conditions::SUCCEEDED, false, &decision.reason, &message, generation, now);
    conditions::clear(&mut status.conditions, conditions::RECONCILING);
    ToolCallStatus { observed_generation: generation, phase: Some(phase), decision: Some(decision), finished_at: Some(Time(now)), ..status }
}

/// A call that waits for an Approval.
#[must_use]
pub fn waiting(mut status: ToolCallStatus, decision: Shown, approval: &str, generation: i64, now: Timestamp) -> ToolCallStatus {
    set_unknown(&mut status, reasons::APPROVAL_REQUIRED, &format!("waits for Approval {approval}: {}", decision.message), generation, now);
    ToolCallStatus {
        observed_generation: generation,
        phase: Some(Phase::WaitingApproval),
        decision: Some(decision),
        approval: Some(approval.to_owned()),
        ..status
    }
}

/// A call that cannot start yet for a reason that is not a denial.
#[must_use]
pub fn held_up(mut status: ToolCallStatus, reason: &str, message: &str, generation: i64, now: Timestamp) -> ToolCallStatus {
    set_unknown(&mut status, reason, message, generation, now);
    ToolCallStatus { observed_generation: generation, phase: status.phase.or(Some(Phase::Pending)), ..status }
}

/// A call that has begun in a Pod.
#[must_use]
pub fn running(mut status: ToolCallStatus, decision: Shown, pod: PodRef, generation: i64, now: Timestamp) -> ToolCallStatus {
    set_unknown(&mut status, reasons::RUNNING, "the tool runs", generation, now);
    let started_at = status.started_at.clone().or(Some(Time(now)));
    ToolCallStatus {
        observed_generation: generation,
        phase: Some(Phase::Running),
        decision: Some(decision),
        pod: Some(pod),
        started_at,
        ..status
    }
}

/// A call whose attempt has ended, as the ledger has it.
#[must_use]
pub fn ended(mut status: ToolCallStatus, attempt: &Attempt, generation: i64, now: Timestamp) -> ToolCallStatus {
    let phase = phase_of(attempt);
    let reason = match (attempt.reason.as_str(), phase) {
        ("", Phase::Succeeded) => reasons::DONE,
        ("", _) => reasons::TOOL_FAILED,
        (reason, _) => reason,
    };
    let message = if attempt.message.is_empty() { "the tool ran and its result is recorded".to_owned() } else { attempt.message.clone() };
    if phase == Phase::Unknown {
        let ask = format!("{message}. Find out whether it took effect and set spec.resolution (verb resolve)");
        set_unknown(&mut status, reasons::OUTCOME_UNKNOWN, &ask, generation, now);
    } else {
        conditions::set(&mut status.conditions, conditions::SUCCEEDED, phase == Phase::Succeeded, reason, &message, generation, now);
    }
    conditions::clear(&mut status.conditions, conditions::RECONCILING);
    let finished_at = if phase.ended() { Some(Time(now)) } else { None };
    ToolCallStatus { observed_generation: generation, phase: Some(phase), result: Some(result(attempt)), finished_at, ..status }
}

/// The phase that an ended attempt means.
#[must_use]
pub fn phase_of(attempt: &Attempt) -> Phase {
    match (attempt.state, attempt.outcome, attempt.reason.as_str()) {
        (State::Released, ..) => Phase::Denied,
        (_, Some(Outcome::Unknown), _) => Phase::Unknown,
        (_, Some(Outcome::NotDone), reasons::CANCELED) => Phase::Canceled,
        (_, Some(Outcome::Done), "" | reasons::RESOLVED) => Phase::Succeeded,
        _ => Phase::Failed,
    }
}

fn result(attempt: &Attempt) -> CallResult {
    let code = attempt.facts.get("exitCode").or_else(|| attempt.facts.get("httpStatus")).and_then(serde_json::Value::as_i64);
    CallResult {
        output: attempt.result.clone(),
        size: attempt.result_digest.as_ref().map(|d| d.size),
        digest: attempt.result_digest.clone().map(digest),
        code: code.and_then(|c| i32::try_from(c).ok()),
        stderr_tail: attempt.facts.get("stderrTail").and_then(|v| v.as_str()).map(|text| tail(text, SHOWN_STDERR)),
    }
}

/// A call that has begun without a record of it in this ledger.
#[must_use]
pub fn forgotten(mut status: ToolCallStatus, message: &str, generation: i64, now: Timestamp) -> ToolCallStatus {
    let ask = format!("{message}. Find out whether it took effect and set spec.resolution (verb resolve)");
    set_unknown(&mut status, reasons::OUTCOME_UNKNOWN, &ask, generation, now);
    ToolCallStatus { observed_generation: generation, phase: Some(Phase::Unknown), ..status }
}

/// A call whose unknown outcome a person settled without a record of its run.
#[must_use]
pub fn resolved(mut status: ToolCallStatus, done: bool, message: &str, generation: i64, now: Timestamp) -> ToolCallStatus {
    conditions::set(&mut status.conditions, conditions::SUCCEEDED, done, reasons::RESOLVED, message, generation, now);
    let phase = if done { Phase::Succeeded } else { Phase::Failed };
    ToolCallStatus { observed_generation: generation, phase: Some(phase), finished_at: Some(Time(now)), ..status }
}

fn set_unknown(status: &mut ToolCallStatus, reason: &str, message: &str, generation: i64, now: Timestamp) {
    conditions::clear(&mut status.conditions, conditions::RECONCILING);
    conditions::set_status(&mut status.conditions, conditions::SUCCEEDED, "Unknown", reason, message, generation, now);
}

/// The first `most` bytes at a character boundary.
fn cut(text: &str, most: usize) -> String {
    text[..text.floor_char_boundary(most)].to_owned()
}

/// The last `most` bytes at a character boundary.
fn tail(text: &str, most: usize) -> String {
    text[text.ceil_char_boundary(text.len().saturating_sub(most))..].to_owned()
}

/// Whether a decision is one with which a call begins.
#[must_use]
pub fn shows_allowed(decision: &Shown) -> bool {
    decision.verdict == polity_policy::Verdict::Allow.name()
}

/// A call that begun before core was restarted: its decision is shown from what the ledger kept.
#[must_use]
pub fn resumed(
    status: ToolCallStatus,
    attempt: &Attempt,
    snapshot: &polity_policy::Snapshot,
    generation: i64,
    now: Timestamp,
) -> ToolCallStatus {
    // What was decided when it was asked for approval is not why it began.
    let (input, allowed) = (status.decision.as_ref().and_then(|d| d.input.clone()), status.decision.clone().filter(shows_allowed));
    let decision = allowed.unwrap_or_else(|| Shown {
        verdict: polity_policy::Verdict::Allow.name().to_owned(),
        reason: String::new(),
        message: String::new(),
        hint: String::new(),
        rules: Vec::new(),
        advisory: Vec::new(),
        rewrites: Vec::new(),
        snapshot: snapshot.digest().to_owned(),
        input,
        record: None,
        at: Time(now),
        by: polity_api::names::CORE.to_owned(),
    });
    let pod = PodRef { name: polity_runtime::subject::pod_name(&attempt.id), uid: String::new() };
    running(status, decision, pod, generation, now)
}

//! The status of a ToolCall that the edge runs: claimed, ended, denied. Pure. What core has written stays but for what these say.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use polity_api::{
    ToolCallStatus, conditions, reasons,
    toolcall::{Claim, Decision as Shown, Phase},
};
use polity_ledger::Attempt;

use crate::answer::{phase_of, result_of};

/// Claimed and begun: one write.
pub fn running(
    mut status: ToolCallStatus,
    decision: Shown,
    claim: Claim,
    approval: Option<&str>,
    generation: i64,
    now: Timestamp,
) -> ToolCallStatus {
    conditions::clear(&mut status.conditions, conditions::RECONCILING);
    conditions::set_status(&mut status.conditions, conditions::SUCCEEDED, "Unknown", reasons::RUNNING, "the tool runs", generation, now);
    ToolCallStatus {
        observed_generation: generation,
        phase: Some(Phase::Running),
        decision: Some(decision),
        claim: Some(claim),
        approval: approval.map(str::to_owned).or(status.approval),
        started_at: status.started_at.or(Some(Time(now))),
        ..status
    }
}

/// Ended, as the ledger has it; `replay` names the earlier call whose outcome this is.
pub fn ended(mut status: ToolCallStatus, attempt: &Attempt, replay: Option<&str>, generation: i64, now: Timestamp) -> ToolCallStatus {
    let phase = phase_of(attempt);
    let good = phase == Phase::Succeeded;
    let reason = match (replay, attempt.reason.as_str()) {
        (Some(_), _) => reasons::IDEMPOTENCY_REPLAY,
        (None, "") if good => reasons::DONE,
        (None, "") => reasons::TOOL_FAILED,
        (None, reason) => reason,
    };
    let message = match replay {
        Some(id) => format!("the same request ran before as {id}; this is its outcome"),
        None if attempt.message.is_empty() => "the tool ran and its result is recorded".to_owned(),
        None => attempt.message.clone(),
    };
    if phase == Phase::Unknown {
        let ask = format!("{message}. Find out whether it took effect and set spec.resolution (verb resolve)");
        conditions::set_status(&mut status.conditions, conditions::SUCCEEDED, "Unknown", reasons::OUTCOME_UNKNOWN, &ask, generation, now);
    } else {
        conditions::set(&mut status.conditions, conditions::SUCCEEDED, good, reason, &message, generation, now);
    }
    conditions::clear(&mut status.conditions, conditions::RECONCILING);
    let finished_at = phase.ended().then_some(Time(now));
    ToolCallStatus { observed_generation: generation, phase: Some(phase), result: Some(result_of(attempt)), finished_at, ..status }
}

/// Denied before it began.
pub fn denied(mut status: ToolCallStatus, decision: Shown, generation: i64, now: Timestamp) -> ToolCallStatus {
    let message = if decision.hint.is_empty() { decision.message.clone() } else { format!("{} Hint: {}", decision.message, decision.hint) };
    conditions::set(&mut status.conditions, conditions::SUCCEEDED, false, &decision.reason, &message, generation, now);
    conditions::clear(&mut status.conditions, conditions::RECONCILING);
    ToolCallStatus {
        observed_generation: generation,
        phase: Some(Phase::Denied),
        decision: Some(decision),
        finished_at: Some(Time(now)),
        ..status
    }
}

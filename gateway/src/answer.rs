//! What a caller is told of a call, made from the ledger's attempt, from a ToolCall, or from a run that has just ended.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use polity_api::{
    ToolCall, conditions, reasons,
    toolcall::{CallResult, Decision as Shown, Digest, Phase},
};
use polity_ledger::{Attempt, Begun, KeyedDigest, Outcome, State};
use polity_policy::Decision;
use serde::Serialize;
use serde_json::Value;

/// State of a call.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Id of the call: ask for it under `calls/ID`.
    pub id: String,
    /// Where it stands.
    pub phase: Phase,
    /// Name of its ToolCall, when it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// Name of the Approval that it waits for or rests on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<String>,
    /// Stable reason code of anything but a success.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The input as rules have rewritten it; absent when they left it alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// What came out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<CallResult>,
    /// The decision that had effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Shown>,
}

impl Answer {
    /// A call in a phase, nothing more.
    pub fn new(id: impl Into<String>, phase: Phase) -> Self {
        Self {
            id: id.into(),
            phase,
            call: None,
            approval: None,
            reason: String::new(),
            message: String::new(),
            input: None,
            result: None,
            decision: None,
        }
    }

    /// With the decision.
    #[must_use]
    pub fn decided(mut self, decision: Option<Shown>) -> Self {
        self.decision = decision.or(self.decision);
        self
    }

    /// With the input that was decided, where rules have rewritten it.
    #[must_use]
    pub fn rewritten(mut self, decision: &Decision) -> Self {
        self.input = decision.rewritten.clone().or(self.input);
        self
    }

    /// Whether nothing will happen any more by itself.
    pub fn settled(&self) -> bool {
        self.phase.ended() || self.phase == Phase::Unknown
    }

    /// As the ledger has it.
    pub fn of_attempt(attempt: &Attempt) -> Self {
        let phase = phase_of(attempt);
        let ended = attempt.state == State::Settled;
        Self {
            reason: attempt.reason.clone(),
            message: attempt.message.clone(),
            result: ended.then(|| result_of(attempt)),
            ..Self::new(&attempt.id, phase)
        }
    }

    /// As its object shows it.
    pub fn of_call(call: &ToolCall) -> Self {
        let id = call.metadata.uid.clone().unwrap_or_default();
        let Some(status) = &call.status else { return Self { call: call.metadata.name.clone(), ..Self::new(id, Phase::Pending) } };
        let condition = status.conditions.iter().find(|c| c.type_ == conditions::SUCCEEDED);
        let phase = status.phase.unwrap_or(Phase::Pending);
        let told = condition.filter(|c| c.status != "True");
        Self {
            call: call.metadata.name.clone(),
            approval: status.approval.clone(),
            reason: told.map(|c| c.reason.clone()).unwrap_or_default(),
            message: told.map(|c| c.message.clone()).unwrap_or_default(),
            input: call.spec.input.clone().filter(|_| !call.spec.rewrites.is_empty()).map(Value::Object),
            result: status.result.clone(),
            decision: status.decision.clone(),
            ..Self::new(id, phase)
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = if self.settled() { StatusCode::OK } else { StatusCode::ACCEPTED };
        (status, Json(self)).into_response()
    }
}

/// The phase that an attempt means.
pub fn phase_of(attempt: &Attempt) -> Phase {
    match (attempt.state, attempt.outcome, attempt.reason.as_str()) {
        (State::Held, ..) => Phase::WaitingApproval,
        (State::Begun, ..) => Phase::Running,
        (State::Released, ..) => Phase::Denied,
        (_, Some(Outcome::Unknown), _) => Phase::Unknown,
        (_, Some(Outcome::NotDone), reasons::CANCELED) => Phase::Canceled,
        (_, Some(Outcome::Done), "" | reasons::RESOLVED) => Phase::Succeeded,
        _ => Phase::Failed,
    }
}

/// Result as shown; empty parts stay absent.
pub fn result_of(attempt: &Attempt) -> CallResult {
    let code = attempt.facts.get("httpStatus").or_else(|| attempt.facts.get("exitCode")).and_then(Value::as_i64);
    CallResult {
        output: attempt.result.clone(),
        size: attempt.result_digest.as_ref().map(|d| d.size),
        digest: attempt.result_digest.as_ref().map(digest),
        code: code.and_then(|c| i32::try_from(c).ok()),
        stderr_tail: attempt.facts.get("stderrTail").and_then(Value::as_str).map(|text| tail(text, 4096).to_owned()),
    }
}

/// A keyed digest as shown.
pub fn digest(from: &KeyedDigest) -> Digest {
    Digest { digest: from.digest.clone(), key_id: from.key_id.clone() }
}

/// The last `most` bytes, from a character on.
fn tail(text: &str, most: usize) -> &str {
    let from = text.ceil_char_boundary(text.len().saturating_sub(most));
    &text[from..]
}

/// A decision as shown, with its record when something has begun.
pub fn shown(decision: &Decision, begun: Option<&Begun>, by: &str, now: Timestamp) -> Shown {
    let cut = |text: &str| text[..text.floor_char_boundary(4000)].to_owned();
    Shown {
        verdict: decision.verdict.name().to_owned(),
        reason: decision.reason.to_owned(),
        message: cut(&decision.message),
        hint: cut(&decision.hint),
        rules: decision.rules.iter().take(64).cloned().collect(),
        advisory: decision.advisory.iter().take(64).map(|a| a.rule.clone()).collect(),
        rewrites: decision.rewrites.clone(),
        snapshot: decision.snapshot.clone(),
        input: begun.map(|b| digest(&b.input)),
        record: begun.map(|b| b.seq),
        at: Time(now),
        by: by.to_owned(),
    }
}

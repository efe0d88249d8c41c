//! Notes of refused calls for the ledger, kind `attempt`: best effort, never of a dry run, without any effect.

use polity_api::ToolCall;
use polity_ledger::{Actor, Note, OrgId, Target};
use polity_policy::{Decision, Request as Action, Snapshot};

use crate::{outcome::Refusal, review::Request, state::State, user};

const KIND: &str = "attempt";

fn org_of(view: &Snapshot) -> OrgId {
    OrgId { name: view.org().to_owned(), uid: view.org_uid().to_owned() }
}

/// The note of a decision, under the id that the object would have had.
pub(super) fn of_decision(view: &Snapshot, request: &Request<'_>, call: &ToolCall, action: &Action<'_>, decision: &Decision) -> Note {
    let trace = call.spec.trace.as_ref().map(|t| t.traceparent.as_str()).unwrap_or_default();
    let mut subject = polity_runtime::subject::subject(org_of(view), request.namespace(), action, decision, trace, view.keep_input());
    subject.id = call.metadata.uid.clone().unwrap_or_else(|| request.uid.clone());
    Note { subject: Some(subject), reason: decision.reason.to_owned(), ..empty(org_of(view)) }
}

/// Hands on the note of a denial.
pub(super) fn denied(state: &State, request: &Request<'_>, note: Note) {
    if !request.dry_run {
        state.attempts.take(note);
    }
}

/// Notes a call that was refused before it could be decided. Its input is not looked at: it may be anything.
pub(super) fn refused(state: &State, request: &Request<'_>, view: &Snapshot, refusal: &Refusal) {
    let caller = user::caller_of(&request.user_info);
    let agent = view.agent_by_username(&caller.username);
    let actor = Actor {
        kind: agent.as_ref().map_or_else(|| "Unknown".to_owned(), |a| a.kind.clone()),
        agent: agent.map(|a| format!("{}/{}", a.namespace, a.name)).unwrap_or_default(),
        username: caller.username,
        pod_uid: caller.pod_uid,
        ..Actor::default()
    };
    let target = Target {
        kind: request.kind.kind.clone(),
        namespace: request.namespace().to_owned(),
        name: request.name.clone(),
        digest: String::new(),
    };
    let facts = [("message".to_owned(), serde_json::Value::String(refusal.message.clone()))].into();
    denied(
        state,
        request,
        Note { actor: Some(actor), target: Some(target), reason: refusal.reason.to_owned(), facts, ..empty(org_of(view)) },
    );
}

fn empty(org: OrgId) -> Note {
    Note { kind: KIND.to_owned(), org, once: None, subject: None, actor: None, target: None, reason: String::new(), facts: [].into() }
}

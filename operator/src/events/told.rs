//! What is told of an object, and when it came to that. Pure.

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Resource,
    runtime::events::{Event, EventType},
};
use polity_api::{Approval, ToolCall, approval::ApprovalPhase, conditions, reasons, toolcall::Phase};
use polity_ledger::Settle;

/// Reason of an Event: what the tool returned is not what a condition on results says.
pub const OUTCOME_DIFFERS: &str = "OutcomeDiffers";
/// Most bytes of a note.
const NOTE: usize = 1000;

/// One Event on its way.
pub struct Told {
    pub event: Event,
    pub regarding: ObjectReference,
}

fn told(type_: EventType, reason: &str, action: &str, note: &str, regarding: ObjectReference) -> Told {
    let note = Some(note[..note.floor_char_boundary(NOTE)].to_owned()).filter(|n| !n.is_empty());
    let event = Event { type_, reason: reason.to_owned(), note, action: action.to_owned(), secondary: None };
    Told { event, regarding }
}

fn condition<'a>(list: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    list.iter().find(|c| c.type_ == type_)
}

/// A call that was denied or failed, or whose outcome is unknown or not what was claimed.
pub fn of_call(call: &ToolCall) -> Option<(Told, Timestamp)> {
    let status = call.status.as_ref()?;
    let phase = status.phase.filter(|phase| matches!(phase, Phase::Denied | Phase::Failed | Phase::Unknown))?;
    let said = condition(&status.conditions, conditions::SUCCEEDED).filter(|c| c.status != "True")?;
    let reason = if said.reason == reasons::POSTCONDITION_FAILED { OUTCOME_DIFFERS } else { &said.reason };
    let action = if phase == Phase::Denied { "Decide" } else { "Call" };
    let at = status.finished_at.as_ref().map_or(said.last_transition_time.0, |t| t.0);
    Some((told(EventType::Warning, reason, action, &said.message, call.object_ref(&())), at))
}

/// An Approval that waits for people, or that nobody has given in time.
pub fn of_approval(approval: &Approval) -> Option<(Told, Timestamp)> {
    let status = approval.status.as_ref()?;
    let said = condition(&status.conditions, conditions::SUCCEEDED)?;
    let (type_, action, at) = match status.phase? {
        ApprovalPhase::Pending => (EventType::Normal, "Ask", approval.metadata.creation_timestamp.as_ref()?.0),
        ApprovalPhase::Expired => (EventType::Warning, "Expire", said.last_transition_time.0),
        _ => return None,
    };
    let spec = &approval.spec;
    let what = format!("{} asks for {} of {}: {}", spec.requester.username, spec.action.verb, spec.action.target.name, said.message);
    Some((told(type_, &said.reason, action, &what, approval.object_ref(&())), at))
}

/// An object that cannot go on until somebody changes something.
pub fn of_stalled<K: Resource<DynamicType = ()>>(object: &K, list: &[Condition]) -> Option<(Told, Timestamp)> {
    let said = condition(list, conditions::STALLED).filter(|c| c.status == "True")?;
    Some((told(EventType::Warning, &said.reason, "Reconcile", &said.message, object.object_ref(&())), said.last_transition_time.0))
}

/// The end of a call without an object, if its outcome is not what was claimed.
pub fn of_end(settle: &Settle, tool: ObjectReference) -> Option<Told> {
    let note = format!("call {}: {}", settle.id, settle.message);
    (settle.reason == reasons::POSTCONDITION_FAILED).then(|| told(EventType::Warning, OUTCOME_DIFFERS, "Call", &note, tool))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const AT: &str = "2026-11-21T10:00:00Z";

    fn list(type_: &str, status: &str, reason: &str) -> Value {
        json!([{"type": type_, "status": status, "reason": reason, "message": "why", "lastTransitionTime": AT}])
    }

    fn call(phase: &str, status: &str, reason: &str) -> ToolCall {
        serde_json::from_value(json!({
            "apiVersion": "polity.dev/v1alpha1", "kind": "ToolCall", "metadata": {"name": "c", "namespace": "acme", "uid": "u"},
            "spec": {"tool": {"name": "pay"}}, "status": {"phase": phase, "conditions": list("Succeeded", status, reason)}
        }))
        .unwrap()
    }

    #[test]
    fn calls_that_somebody_must_notice() {
        let reason = |phase, status, reason| of_call(&call(phase, status, reason)).map(|(told, _)| told.event.reason);
        assert_eq!(reason("Denied", "False", "PolicyDenied").as_deref(), Some("PolicyDenied"));
        assert_eq!(reason("Failed", "False", "ToolFailed").as_deref(), Some("ToolFailed"));
        assert_eq!(reason("Failed", "False", "PostconditionFailed").as_deref(), Some("OutcomeDiffers"));
        assert_eq!(reason("Unknown", "Unknown", "OutcomeUnknown").as_deref(), Some("OutcomeUnknown"));
        for (phase, status, word) in [
            ("Succeeded", "True", "Done"),
            ("Running", "Unknown", "Running"),
            ("WaitingApproval", "Unknown", "ApprovalRequired"),
            ("Canceled", "False", "Canceled"),
        ] {
            assert_eq!(reason(phase, status, word), None, "{phase}");
        }
        let (told, at) = of_call(&call("Denied", "False", "PolicyDenied")).unwrap();
        assert_eq!((told.event.type_, told.event.note.as_deref(), at), (EventType::Warning, Some("why"), AT.parse().unwrap()));
        assert_eq!((told.regarding.kind.as_deref(), told.regarding.uid.as_deref()), (Some("ToolCall"), Some("u")));
    }

    #[test]
    fn what_stalls() {
        let call = call("Running", "Unknown", "Running");
        let stalled = |status| serde_json::from_value::<Vec<Condition>>(list("Stalled", status, "NamespaceRefused")).unwrap();
        assert_eq!(of_stalled(&call, &stalled("True")).unwrap().0.event.reason, "NamespaceRefused");
        assert!(of_stalled(&call, &stalled("False")).is_none() && of_stalled(&call, &[]).is_none());
    }

    #[test]
    fn an_outcome_that_is_not_what_was_claimed() {
        let settle = |reason: &str| -> Settle {
            serde_json::from_value(json!({
                "org": {"name": "acme", "uid": "o"}, "id": "i", "used": {}, "last": true, "outcome": "Done", "reason": reason,
                "message": "acme/paid/sum: not what was asked", "result": null, "by": "polity-core"
            }))
            .unwrap()
        };
        let tool = ObjectReference { kind: Some("Tool".into()), uid: Some("t".into()), ..ObjectReference::default() };
        let told = of_end(&settle("PostconditionFailed"), tool.clone()).unwrap();
        assert_eq!((told.event.reason.as_str(), told.regarding.uid.as_deref()), ("OutcomeDiffers", Some("t")));
        assert!(told.event.note.unwrap().contains("not what was asked"));
        assert!(of_end(&settle("ToolFailed"), tool).is_none());
    }
}

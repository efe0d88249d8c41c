//! Approval: a person adds the own entry, once, while it is pending, and only if it counts for something.

use jiff::SignedDuration;
use polity_api::{
    Approval, ApprovalSpec,
    approval::{ApprovalPhase, Requirement},
    reasons,
};
use polity_policy::Person;

use crate::{
    mutate::near,
    outcome::{Accepted, Outcome, Refusal},
    review::Request,
    state::State,
};

const SKEW: SignedDuration = SignedDuration::from_secs(60);

pub(super) fn update(state: &State, request: &Request<'_>) -> Outcome {
    let Some(new) = super::changed::<Approval, _>(request, |a| &a.spec)? else { return Ok(Accepted::default()) };
    let old: Approval = request.stored()?;
    if (ApprovalSpec { decisions: old.spec.decisions.clone(), ..new.spec.clone() }) != old.spec {
        return Err(Refusal::unprocessable(reasons::APPROVAL_MISMATCH, "only decisions may be added to an Approval"));
    }
    let (kept, added): (Vec<_>, Vec<_>) = new.spec.decisions.iter().partition(|d| old.spec.decisions.contains(d));
    if kept.len() != old.spec.decisions.len() {
        return Err(Refusal::forbidden(reasons::APPROVAL_MISMATCH, "a decision cannot be changed or taken back"));
    }
    let now = state.clock.now();
    open(&old, now)?;
    let view = state.views.of_namespace(request.namespace())?;
    for entry in added {
        let own = entry.by == request.username();
        let stamped = own
            && entry.groups == request.user_info.groups.clone().unwrap_or_default()
            && entry.at.as_ref().is_some_and(|at| near(at, now, SKEW));
        if !stamped {
            return Err(Refusal::forbidden(
                reasons::CALLER_NOT_STAMPED,
                "the new entry is not your own, stamped with your groups and the present time",
            )
            .hint("add only your own entry, with by = your username; leave at and groups out"));
        }
        let person = Person { username: &entry.by, groups: &entry.groups };
        let refuse = |message: String| Refusal::forbidden(reasons::NOT_AN_APPROVER, message);
        let agent = view.approver(&old.spec.requester, person).map_err(refuse)?;
        let why: Vec<String> =
            old.spec.requirements.iter().filter_map(|r| view.approves(&old.spec.requester, r, person, &agent, now).err()).collect();
        if why.len() == old.spec.requirements.len() {
            let who = old.spec.requirements.iter().map(Requirement::asked).collect::<Vec<_>>().join("; ");
            return Err(refuse(why.join("; ")).hint(format!("ask {who}")));
        }
    }
    Ok(Accepted::default())
}

/// Still waiting?
fn open(approval: &Approval, now: jiff::Timestamp) -> Result<(), Refusal> {
    let phase = approval.status.as_ref().and_then(|s| s.phase);
    if phase == Some(ApprovalPhase::Expired) || now >= approval.spec.expires_at.0 {
        return Err(Refusal::forbidden(reasons::APPROVAL_EXPIRED, format!("the Approval expired at {}", approval.spec.expires_at.0)));
    }
    match phase {
        None | Some(ApprovalPhase::Pending) => Ok(()),
        Some(phase) => Err(Refusal::forbidden(reasons::APPROVAL_ENDED, format!("the Approval is {phase:?} already"))),
    }
}

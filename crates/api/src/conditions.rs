//! Condition types and the one way to set them. Times move only when the status flips; the clock is the caller's.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The object does what it says (definition kinds).
pub const READY: &str = "Ready";
/// The run has ended well (ToolCall, Approval).
pub const SUCCEEDED: &str = "Succeeded";
/// Core is still working towards the spec.
pub const RECONCILING: &str = "Reconciling";
/// Core cannot go on without a change of the object or of something it refers to.
pub const STALLED: &str = "Stalled";
/// Something about a Tool looks suspicious: hidden or instruction-like text, a name that looks like another's. True only; absent otherwise.
pub const FLAGGED: &str = "Flagged";
/// Org stage: parents are there, alive and acyclic.
pub const ANCESTRY: &str = "AncestryReady";
/// Org stage: the namespace is there and consents.
pub const NAMESPACE: &str = "NamespaceReady";
/// Org stage: quota is granted and in force.
pub const QUOTA: &str = "QuotaReady";
/// Org stage: network policies are in force as objects.
pub const NETWORK: &str = "NetworkReady";
/// Org stage: members are bound.
pub const MEMBERS: &str = "MembersReady";
/// Org stage: `startAt` has passed and the Org is not suspended: calls may start.
pub const STARTED: &str = "Started";

/// Sets a condition in a list kept sorted by type. The transition time moves only when `status` changes.
pub fn set(list: &mut Vec<Condition>, type_: &str, status: bool, reason: &str, message: &str, generation: i64, now: Timestamp) {
    set_status(list, type_, if status { "True" } else { "False" }, reason, message, generation, now);
}

/// As [`set`], with the status `True`, `False` or `Unknown` in words.
pub fn set_status(list: &mut Vec<Condition>, type_: &str, status: &str, reason: &str, message: &str, generation: i64, now: Timestamp) {
    debug_assert!(crate::reasons::is_listed(reason), "{reason} of {type_} is on no page");
    let fresh = Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: Some(generation),
        last_transition_time: Time(now),
    };
    match list.iter_mut().find(|c| c.type_ == type_) {
        // the birth state of an object carries no time: what core says first is said now
        Some(old) if old.status == status && old.last_transition_time.0 != Timestamp::UNIX_EPOCH => {
            let since = old.last_transition_time.clone();
            *old = Condition { last_transition_time: since, ..fresh };
        }
        Some(old) => *old = fresh,
        None => {
            list.push(fresh);
            list.sort_by(|a, b| a.type_.cmp(&b.type_));
        }
    }
}

/// Removes a condition.
pub fn clear(list: &mut Vec<Condition>, type_: &str) {
    list.retain(|c| c.type_ != type_);
}

/// Sets the three conditions of a definition kind at once: ready, or not ready and waiting
/// (`stalled: false`, core tries again by itself), or not ready until somebody changes something (`stalled: true`).
pub fn summary(list: &mut Vec<Condition>, ready: bool, stalled: bool, reason: &str, message: &str, generation: i64, now: Timestamp) {
    set(list, READY, ready, reason, message, generation, now);
    if ready {
        clear(list, RECONCILING);
        clear(list, STALLED);
    } else if stalled {
        clear(list, RECONCILING);
        set(list, STALLED, true, reason, message, generation, now);
    } else {
        clear(list, STALLED);
        set(list, RECONCILING, true, reason, message, generation, now);
    }
}

/// Whether a condition is True.
#[must_use]
pub fn is_true(list: &[Condition], type_: &str) -> bool {
    list.iter().any(|c| c.type_ == type_ && c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reasons;

    #[test]
    fn times_move_when_the_status_flips_and_away_from_the_birth_state() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut list = Vec::new();
        set_status(&mut list, SUCCEEDED, "Unknown", reasons::NOT_SEEN, "", 0, Timestamp::UNIX_EPOCH);
        for (status, now, since) in [("Unknown", 10, 10), ("Unknown", 20, 10), ("True", 30, 30), ("True", 40, 30)] {
            set_status(&mut list, SUCCEEDED, status, reasons::RUNNING, "", 1, at(now));
            assert_eq!(list[0].last_transition_time.0, at(since), "{status} at {now}");
        }
    }
}

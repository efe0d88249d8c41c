//! `/mutate`: stamps what only admission can know, on ToolCall and Approval, rewrites the input of a ToolCall as Policies say, and changes nothing else.
//!
//! Patches are minimal, and running it again on its own outcome patches nothing; a call that was rewritten is refused then, as nobody but Polity may
//! say by which rules. An object that cannot be read passes
//! unpatched: the API server's schema refuses it next, and `/validate` refuses whatever lacks its stamps.

mod approval;
mod resolution;
mod toolcall;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use polity_api::GROUP;

use crate::{
    outcome::{Accepted, Op, Outcome},
    review::{Operation, Request},
    state::State,
};

/// A stamp of this age is left alone, so that a second round does not change it.
const SAME: SignedDuration = SignedDuration::from_secs(10);

/// Answers one review.
///
/// # Errors
/// The user wrote a stamp that is not true.
pub async fn review(state: &State, request: &Request<'_>) -> Outcome {
    if request.kind.group != GROUP || request.sub_resource.as_deref().is_some_and(|s| !s.is_empty()) {
        return Ok(Accepted::default());
    }
    let now = state.clock.now();
    let patch = match (request.kind.kind.as_str(), request.operation) {
        ("ToolCall", Operation::Create) => toolcall::create(state, request).await?,
        ("ToolCall", Operation::Update) => resolution::update(request, now)?,
        ("Approval", Operation::Update) => approval::update(request, now)?,
        _ => Vec::new(),
    };
    Ok(Accepted { patch, ..Accepted::default() })
}

/// The time to stamp in place of what is written: a stamp of our own a moment ago stays.
fn stamp_time(written: Option<&Time>, now: Timestamp) -> Time {
    match written {
        Some(at) if near(at, now, SAME) => at.clone(),
        _ => Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
    }
}

/// Whether a stamp is of this moment, on clocks that differ by so much at most.
pub(crate) fn near(at: &Time, now: Timestamp, by: SignedDuration) -> bool {
    now.duration_since(at.0).abs() <= by
}

/// Sets a member when it differs.
fn set<T: PartialEq + serde::Serialize>(patch: &mut Vec<Op>, path: String, written: Option<&T>, wanted: &T) {
    if written != Some(wanted) {
        patch.push(Op::set(path, serde_json::json!(wanted)));
    }
}

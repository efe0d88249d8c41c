//! Stamps a new ToolCall: who asks, and its trace context.

use polity_api::{Caller, Trace};
use serde::Deserialize;

use super::set;
use crate::{
    outcome::{Op, Refusal},
    review::Request,
    state::State,
    user,
};

/// As much of a ToolCall as is stamped. The schema has not been checked yet when this runs.
#[derive(Deserialize)]
struct Unstamped {
    spec: Stamps,
}

#[derive(Deserialize)]
struct Stamps {
    #[serde(default)]
    caller: Option<Caller>,
    #[serde(default)]
    trace: Option<Trace>,
}

pub(super) fn create(state: &State, request: &Request<'_>) -> Result<Vec<Op>, Refusal> {
    let Ok(Unstamped { spec }) = request.new_object() else { return Ok(Vec::new()) };
    let caller = user::stamp(&request.user_info, spec.caller.as_ref(), &state.system_namespace)?;
    let mut patch = Vec::new();
    set(&mut patch, "/spec/caller".to_owned(), spec.caller.as_ref(), &caller);
    if spec.trace.is_none() {
        set(&mut patch, "/spec/trace".to_owned(), None, &user::new_trace(state.clock.trace_bytes()));
    }
    Ok(patch)
}

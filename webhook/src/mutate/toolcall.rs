//! Stamps a new ToolCall: who asks, its trace context, and what Policies rewrite in its input, with their names.

use polity_api::{Caller, ToolCall, Trace, reasons, toolcall::Rewritten};
use polity_policy::Verdict;
use serde::Deserialize;

use super::set;
use crate::{
    outcome::{Op, Refusal},
    review::Request,
    state::State,
    user,
    validate::toolcall::decide,
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
    #[serde(default)]
    rewrites: Vec<Rewritten>,
}

pub(super) async fn create(state: &State, request: &Request<'_>) -> Result<Vec<Op>, Refusal> {
    let Ok(Unstamped { spec }) = request.new_object() else { return Ok(Vec::new()) };
    let caller = user::stamp(&request.user_info, spec.caller.as_ref(), &state.system_namespace)?;
    let mut patch = Vec::new();
    set(&mut patch, "/spec/caller".to_owned(), spec.caller.as_ref(), &caller);
    if spec.trace.is_none() {
        set(&mut patch, "/spec/trace".to_owned(), None, &user::new_trace(state.clock.trace_bytes()));
    }
    if !spec.rewrites.is_empty() && caller.via.is_none() {
        let message =
            "spec.rewrites is stamped by Polity, once: leave it out, and let no other webhook change a call after Polity has rewritten it";
        return Err(Refusal::forbidden(reasons::CALLER_NOT_STAMPED, message));
    }
    rewrite(state, request, &caller, spec.rewrites, &mut patch).await;
    Ok(patch)
}

/// Rewrites the input. A call that cannot be decided, or is denied, stays as it is: `/validate` says why.
async fn rewrite(state: &State, request: &Request<'_>, caller: &Caller, mut rewrites: Vec<Rewritten>, patch: &mut Vec<Op>) {
    let (Ok(mut call), Ok(view)) = (request.new_object::<ToolCall>(), state.views.of_namespace(request.namespace())) else { return };
    let tool = (&call.spec.tool.name, call.spec.tool.org.as_deref());
    // a Tool that is not known yet is looked for by the decision
    if view.tool(tool.0, tool.1).is_some() && !view.may_rewrite(tool.0, tool.1) {
        return;
    }
    call.spec.caller = Some(caller.clone());
    let Ok((decision, _)) = decide(state, request, &call, view, false).await else { return };
    if decision.verdict == Verdict::Deny {
        return;
    }
    if let Some(input) = &decision.rewritten {
        rewrites.extend(decision.rewrites);
        patch.push(Op::set("/spec/input", input.clone()));
        patch.push(Op::set("/spec/rewrites", serde_json::json!(rewrites)));
    }
}

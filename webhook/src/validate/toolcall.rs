//! ToolCall: the stamps must be the truth on the object as it will be stored, then the call is decided early.
//!
//! An accepted call has no permission yet: dispatch decides again. A refused one is noted, best effort, unless it is a dry run.

use std::sync::Arc;

use polity_api::{ToolCall, names, reasons};
use polity_policy::{Decision, Past, Request as Action, Snapshot, TaskFacts, Verdict};

use super::attempt;
use crate::{
    mutate::near,
    outcome::{Accepted, Outcome, Refusal, Warnings},
    review::Request,
    state::{Permission, State},
    user,
};

/// The verb of a ToolCall.
const VERB: &str = "tool.call";
/// Largest difference between the clocks of two replicas that is accepted in a stamp.
const SKEW: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);

pub(super) async fn create(state: &State, request: &Request<'_>) -> Outcome {
    let call: ToolCall = request.new_object()?;
    let view = state.views.of_namespace(request.namespace());
    if let Err(refusal) = check_stamps(state, request, &call) {
        if let Ok(view) = &view {
            attempt::refused(state, request, view, &refusal);
        }
        return Err(refusal);
    }
    let view = view?;
    match decide(state, request, &call, Arc::clone(&view), true).await {
        Ok((decision, _)) if decision.verdict != Verdict::Deny => Ok(accepted(&call, &decision, &view, state.clock.now())),
        Ok((decision, note)) => {
            attempt::denied(state, request, *note);
            Err(denial(&decision))
        }
        Err(refusal) => {
            attempt::refused(state, request, &view, &refusal);
            Err(refusal)
        }
    }
}

/// Every stamp is what this request gives; another mutator, or nobody, may have written it.
fn check_stamps(state: &State, request: &Request<'_>, call: &ToolCall) -> Result<(), Refusal> {
    let wrong = |message: &str| Err(Refusal::forbidden(reasons::CALLER_NOT_STAMPED, message));
    let truth = user::stamp(&request.user_info, call.spec.caller.as_ref(), &state.system_namespace)?;
    if call.spec.caller.as_ref() != Some(&truth) {
        return wrong("spec.caller is not as Polity stamps it; is its mutating webhook in place, and does another one change it?");
    }
    if !call.spec.trace.as_ref().is_some_and(user::trace_is_valid) {
        return wrong("spec.trace is not a W3C trace context; leave it out, Polity stamps it");
    }
    if call.spec.resolution.is_some() {
        return Err(Refusal::unprocessable(reasons::RESOLUTION_REFUSED, "a new call has no outcome to resolve"));
    }
    Ok(())
}

/// Decides on the object; the second value is the note to keep if it is denied. `stored`: it is not rewritten any more.
pub(crate) async fn decide(
    state: &State,
    request: &Request<'_>,
    call: &ToolCall,
    mut view: Arc<Snapshot>,
    stored: bool,
) -> Result<(Decision, Box<polity_ledger::Note>), Refusal> {
    let spec = &call.spec;
    let args = serde_json::Value::Object(spec.input.clone().unwrap_or_default());
    let size = args.to_string().len();
    if size > names::MAX_INLINE_INPUT {
        return Err(Refusal::forbidden(
            reasons::INPUT_TOO_LARGE,
            format!("the input has {size} bytes; inline it may have {}", names::MAX_INLINE_INPUT),
        )
        .hint("send large inputs through the Org's calls endpoint"));
    }
    let task = task_of(state, request, call).await?;
    let Some(caller) = spec.caller.as_ref() else {
        return Err(Refusal::forbidden(reasons::CALLER_NOT_STAMPED, "spec.caller is missing"));
    };
    let action = Action {
        verb: VERB,
        tool: &spec.tool.name,
        tool_org: spec.tool.org.as_deref(),
        args: &args,
        caller,
        task: task.as_ref(),
        job_space: spec.job_space.as_deref().filter(|_| task.is_none()),
        context: spec.context.as_deref(),
        id: "",
        approved: &[],
        now: state.clock.now(),
        // what counts is known when it begins; until then such rules are open
        past: Past::Later,
    };
    let judge = |view: &Snapshot| if stored { view.decide_stored(&action) } else { view.decide(&action) };
    let mut decision = judge(&view);
    if decision.reason == reasons::TOOL_NOT_FOUND && tool_appeared(state, request, call).await {
        // Its maker may have created it a moment ago.
        view = state.views.of_namespace(request.namespace())?;
        decision = judge(&view);
    }
    let note = attempt::of_decision(&view, request, call, &action, &decision);
    Ok((decision, Box::new(note)))
}

async fn tool_appeared(state: &State, request: &Request<'_>, call: &ToolCall) -> bool {
    let tool = &call.spec.tool;
    let namespace = match &tool.org {
        None => request.namespace().to_owned(),
        Some(org) => match state.views.world().orgs.get(org) {
            Some(org) => org.wanted_namespace().to_owned(),
            None => return false,
        },
    };
    state.cluster.tool_appeared(&namespace, &tool.name).await
}

async fn task_of(state: &State, request: &Request<'_>, call: &ToolCall) -> Result<Option<TaskFacts>, Refusal> {
    let Some(reference) = &call.spec.task_ref else { return Ok(None) };
    let found = state.cluster.task(request.namespace(), &reference.name).await?;
    let Some(task) = found else {
        return Err(Refusal::forbidden(
            reasons::TASK_NOT_FOUND,
            format!("there is no Task {:?} in namespace {:?}", reference.name, request.namespace()),
        ));
    };
    if call.spec.job_space.is_some() && call.spec.job_space != task.job_space {
        let message = format!("spec.jobSpace is not that of Task {:?} ({})", task.name, task.job_space.as_deref().unwrap_or("none"));
        return Err(Refusal::invalid(message).hint("leave jobSpace out when the call is for a Task"));
    }
    Ok(Some(task))
}

/// Accepted for now: warnings tell what was rewritten, what Policies in mode Warn think, and who will be asked.
fn accepted(call: &ToolCall, decision: &Decision, view: &Snapshot, now: jiff::Timestamp) -> Accepted {
    let mut accepted = Accepted::default();
    for rewritten in &call.spec.rewrites {
        accepted.warnings.push(&format!("rule {} rewrote {} of the input", rewritten.rule, rewritten.paths.join(", ")));
    }
    for text in advice(decision).into_list() {
        accepted.warnings.push(&text);
    }
    for rule in &decision.later {
        accepted.warnings.push(&format!("rule {rule} reads counters or the history: it is decided when the call is to begin"));
    }
    if decision.verdict == Verdict::RequireApproval {
        for requirement in &decision.requirements {
            accepted.warnings.push(&format!("{}{} (rule {})", names::WAITS_FOR, requirement.asked(), requirement.rule));
            let able = call.spec.caller.as_ref().and_then(|caller| view.able(caller, requirement, now));
            let asked = usize::try_from(requirement.count).unwrap_or_default();
            if let Some(able) = able.filter(|able| *able < asked) {
                accepted.warnings.push(&format!(
                    "only {able} of the {asked} approvers that rule {} asks for are there (who asks never counts)",
                    requirement.rule
                ));
            }
        }
        accepted.audit.insert("reason", reasons::APPROVAL_REQUIRED.to_owned());
    }
    accepted.audit.insert("verdict", decision.verdict.name().to_owned());
    accepted.audit.insert("snapshot", decision.snapshot.clone());
    accepted
}

fn advice(decision: &Decision) -> Warnings {
    let mut warnings = Warnings::default();
    for advisory in decision.advisory.iter().filter(|a| a.warn) {
        let named = advisory.message.contains(&advisory.rule);
        warnings.push(&if named { advisory.message.clone() } else { format!("rule {}: {}", advisory.rule, advisory.message) });
    }
    warnings
}

/// A denial as 403: the text names rule, code and hint; the causes carry the same for machines.
fn denial(decision: &Decision) -> Refusal {
    let unnamed: Vec<&str> = decision.rules.iter().map(String::as_str).filter(|rule| !decision.message.contains(rule)).collect();
    let mut message = decision.message.clone();
    if !unnamed.is_empty() {
        message.push_str(&format!(" (rule {})", unnamed.join(", ")));
    }
    let mut refusal = Refusal::forbidden(decision.reason, message).hint(decision.hint.clone());
    for rule in &decision.rules {
        refusal = refusal.cause(decision.reason, "", rule.clone());
    }
    if decision.rules.is_empty() {
        refusal = refusal.cause(decision.reason, "", decision.message.clone());
    }
    if !decision.hint.is_empty() {
        refusal = refusal.cause("Hint", "", decision.hint.clone());
    }
    refusal = refusal.cause("Snapshot", "", decision.snapshot.clone());
    refusal.warnings = advice(decision);
    refusal
}

pub(super) async fn update(state: &State, request: &Request<'_>) -> Outcome {
    let Some(new) = super::changed::<ToolCall, _>(request, |c| &c.spec)? else { return Ok(Accepted::default()) };
    let old: ToolCall = request.stored()?;
    if new.spec.caller != old.spec.caller || new.spec.trace != old.spec.trace || new.spec.rewrites != old.spec.rewrites {
        return Err(Refusal::forbidden(reasons::CALLER_NOT_STAMPED, "spec.caller, spec.trace and spec.rewrites never change"));
    }
    match (&new.spec.resolution, &old.spec.resolution) {
        (new, old) if new == old => Ok(Accepted::default()),
        (Some(resolution), None) => {
            if old.status.as_ref().and_then(|s| s.phase) != Some(polity_api::toolcall::Phase::Unknown) {
                return Err(Refusal::forbidden(reasons::RESOLUTION_REFUSED, "only a call of phase Unknown can be resolved"));
            }
            let own = resolution.by.as_deref() == Some(request.username());
            if !own || !resolution.at.as_ref().is_some_and(|at| near(at, state.clock.now(), SKEW)) {
                return Err(Refusal::forbidden(
                    reasons::CALLER_NOT_STAMPED,
                    "spec.resolution is not stamped with who asks and the present time",
                )
                .hint("leave by and at out; Polity stamps them"));
            }
            may_resolve(state, request).await
        }
        _ => Err(Refusal::forbidden(reasons::RESOLUTION_REFUSED, "a resolution is set once and never changes")),
    }
}

async fn may_resolve(state: &State, request: &Request<'_>) -> Outcome {
    let permission = Permission {
        verb: "resolve",
        group: polity_api::GROUP,
        resource: "toolcalls",
        namespace: request.namespace().to_owned(),
        name: request.name.clone(),
    };
    if state.cluster.may(&request.user_info, &permission).await? {
        return Ok(Accepted::default());
    }
    let message = format!("{:?} may not resolve ToolCalls in namespace {:?}", request.username(), request.namespace());
    Err(Refusal::forbidden(reasons::NOT_PERMITTED, message).hint("a member of role director of the Org has the verb resolve on toolcalls"))
}

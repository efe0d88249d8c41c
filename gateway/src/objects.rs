//! ToolCalls of the edge: made for a call that must wait for people, read for who asks about it, asked to be canceled.

use std::time::Duration;

use axum::http::StatusCode;
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
    core::ObjectMeta,
};
use polity_api::{Caller, ToolCall, ToolCallSpec, Trace, names, reasons, toolcall::Phase};
use sha2::{Digest as _, Sha256};

use crate::{
    answer::Answer,
    calls::Patience,
    decide::{Ask, Decided, VERB},
    problem::Problem,
    state::Gateway,
};

/// How often a call is looked at while somebody waits for it; reads come from the watch.
const LOOK: Duration = Duration::from_millis(100);
/// How long the name of the Approval is waited for.
const APPROVAL_WAIT: Duration = Duration::from_secs(5);

impl Gateway {
    fn api(&self, namespace: &str) -> Api<ToolCall> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Makes the ToolCall of a call that must wait, and waits a moment for its Approval.
    pub async fn store(&self, ask: &Ask, decided: &Decided, patience: Patience) -> Result<Answer, Problem> {
        let wait = patience.people;
        let namespace = decided.snapshot.namespace();
        let spec = ToolCallSpec {
            caller: Some(Caller { via: Some(self.username.clone()), ..ask.caller.clone() }),
            trace: Some(Trace { traceparent: ask.trace.clone() }),
            input: decided.decision.rewritten.as_ref().and_then(|v| v.as_object().cloned()).or_else(|| ask.spec.input.clone()),
            rewrites: decided.decision.rewrites.clone(),
            ..ask.spec.clone()
        };
        let name = ask.spec.idempotency_key.as_ref().map(|key| stored_name(decided.snapshot.org_uid(), &ask.caller.username, key));
        let generate = name.is_none().then(|| "call-".to_owned());
        let metadata =
            ObjectMeta { name: name.clone(), generate_name: generate, namespace: Some(namespace.to_owned()), ..ObjectMeta::default() };
        let call = ToolCall { metadata, spec, status: None };
        let stored = match (self.api(namespace).create(&PostParams::default(), &call).await, name) {
            (Ok(stored), _) => stored,
            (Err(kube::Error::Api(status)), Some(name)) if status.reason == "AlreadyExists" => self.same(namespace, &name, &call).await?,
            (Err(error), _) => return Err(refused(error)),
        };
        let name = stored.name_any();
        // The name of the Approval is worth a moment, whatever the caller says; the end only as long as asked for.
        let known = |call: &ToolCall| {
            call.status.as_ref().is_some_and(|s| s.approval.is_some()) || phase(call).is_some_and(|p| p != Phase::Pending)
        };
        let call = self.until(namespace, &name, stored, APPROVAL_WAIT.max(wait), |call, waited| {
            if waited < APPROVAL_WAIT && wait < APPROVAL_WAIT { known(call) } else { over(call) || (waited >= wait && known(call)) }
        });
        let mut call = call.await;
        if phase(&call) == Some(Phase::Running) && patience.run > wait {
            // People have decided before: what is left is its run.
            call = self.until_over(call, patience.run).await;
        }
        let mut answer = Answer::of_call(&call);
        if answer.phase == Phase::Pending {
            answer.phase = Phase::WaitingApproval;
        }
        answer.decision = answer.decision.or_else(|| Some(crate::answer::shown(&decided.decision, None, names::EDGE, self.clock.now())));
        Ok(answer)
    }

    /// The ToolCall that stands under an idempotency key, if it is for the same request.
    async fn same(&self, namespace: &str, name: &str, asked: &ToolCall) -> Result<ToolCall, Problem> {
        let found = self.api(namespace).get(name).await.map_err(refused)?;
        let (old, new) = (&found.spec, &asked.spec);
        let same = old.tool == new.tool
            && old.input.clone().unwrap_or_default() == new.input.clone().unwrap_or_default()
            && old.task_ref == new.task_ref
            && old.job_space == new.job_space
            && old.context == new.context
            && username(&found) == username(asked);
        if same { Ok(found) } else { Err(polity_ledger::Refused::IdempotencyKeyReused.into()) }
    }

    /// A caller's own ToolCall, by name or uid; None for another's.
    pub async fn own_call(&self, namespace: &str, id: &str, caller: &Caller) -> Result<Option<ToolCall>, Problem> {
        if namespace.is_empty()
            || id.is_empty()
            || id.len() > 253
            || !id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        {
            return Ok(None);
        }
        let cached = self
            .calls
            .in_namespace(namespace)
            .into_iter()
            .find(|c| c.metadata.uid.as_deref() == Some(id) || c.metadata.name.as_deref() == Some(id));
        let found = match cached {
            Some(call) => Some(call.as_ref().clone()),
            None => self.live(namespace, id).await?,
        };
        Ok(found.filter(|call| username(call) == Some(caller.username.as_str())))
    }

    /// Looked for live: it may have been made a moment ago through another replica.
    async fn live(&self, namespace: &str, id: &str) -> Result<Option<ToolCall>, Problem> {
        if let Some(call) = self.api(namespace).get_opt(id).await.map_err(refused)? {
            return Ok(Some(call));
        }
        if uuid::Uuid::parse_str(id).is_err() {
            return Ok(None);
        }
        let list = self.api(namespace).list(&ListParams::default()).await.map_err(refused)?;
        Ok(list.items.into_iter().find(|c| c.metadata.uid.as_deref() == Some(id)))
    }

    /// Waits until a call is over, or the time is.
    pub async fn until_over(&self, call: ToolCall, wait: Duration) -> ToolCall {
        let (namespace, name) = (call.namespace().unwrap_or_default(), call.name_any());
        self.until(&namespace, &name, call, wait, |call, _| over(call)).await
    }

    async fn until(
        &self,
        namespace: &str,
        name: &str,
        first: ToolCall,
        wait: Duration,
        done: impl Fn(&ToolCall, Duration) -> bool,
    ) -> ToolCall {
        let started = tokio::time::Instant::now();
        let mut call = first;
        let mut pause = LOOK;
        while !done(&call, started.elapsed()) && started.elapsed() < wait {
            tokio::time::sleep(pause.min(wait.saturating_sub(started.elapsed()))).await;
            let seen = match self.calls.get(namespace, name) {
                Some(seen) if seen.metadata.uid == call.metadata.uid => Some(seen.as_ref().clone()),
                // Not in the watch yet: asked live, ever more slowly.
                _ => {
                    pause = (pause * 2).min(Duration::from_secs(2));
                    self.api(namespace).get_opt(name).await.ok().flatten()
                }
            };
            if let Some(seen) = seen.filter(|seen| seen.metadata.uid == call.metadata.uid) {
                call = seen;
            }
        }
        call
    }

    /// Asks core to cancel a call.
    pub async fn cancel_call(&self, call: &ToolCall) -> Result<Answer, Problem> {
        let namespace = call.namespace().unwrap_or_default();
        let patch = serde_json::json!({"metadata": {"uid": call.metadata.uid}, "spec": {"cancel": true}});
        let call = self.api(&namespace).patch(&call.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map_err(refused)?;
        Ok(Answer::of_call(&call))
    }
}

/// Whether a call is over, or waits for a person's word on its outcome.
fn over(call: &ToolCall) -> bool {
    phase(call).is_some_and(|p| p.ended() || p == Phase::Unknown)
}

fn phase(call: &ToolCall) -> Option<Phase> {
    call.status.as_ref().and_then(|s| s.phase)
}

fn username(call: &ToolCall) -> Option<&str> {
    call.spec.caller.as_ref().map(|c| c.username.as_str())
}

/// Name of the ToolCall under an idempotency key: the same for the same caller and key, on every replica.
fn stored_name(org_uid: &str, username: &str, key: &str) -> String {
    let mut hash = Sha256::new();
    for part in [org_uid, username, VERB, key] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    format!("call-{}", &hex::encode(hash.finalize())[..40])
}

/// What the API server's refusal means: admission's own reason and hint when it said so.
fn refused(error: kube::Error) -> Problem {
    let kube::Error::Api(status) = error else {
        tracing::warn!(%error, "the API server cannot be reached");
        return Problem::unavailable(reasons::UNAVAILABLE, "the API server cannot be reached");
    };
    let causes = status.details.as_ref().map(|d| d.causes.as_slice()).unwrap_or_default();
    let known = causes.iter().find(|c| reasons::ALL.iter().any(|(code, _)| *code == c.reason));
    let hint = causes.iter().find(|c| c.reason == "Hint").map(|c| c.message.clone()).unwrap_or_default();
    let reason = known.map_or(reasons::NOT_PERMITTED, |c| c.reason.as_str());
    let problem = match status.code {
        404 => Problem::not_found(status.message.clone()),
        // The API server's quota admission: not counted yet, or used up. Both pass.
        403 if status.message.contains("status unknown for quota") => Problem::unavailable(reasons::UNAVAILABLE, status.message.clone()),
        403 if status.message.contains("exceeded quota") => {
            Problem::new(StatusCode::TOO_MANY_REQUESTS, reasons::TOO_MANY_REQUESTS, status.message.clone())
        }
        409 => Problem::new(StatusCode::CONFLICT, reasons::UNAVAILABLE, status.message.clone()),
        400 | 422 => Problem::invalid(status.message.clone()),
        403 => Problem::new(StatusCode::FORBIDDEN, reason, status.message.clone()),
        429 => Problem::unavailable(reasons::UNAVAILABLE, "the API server is overloaded"),
        _ => Problem::unavailable(reasons::UNAVAILABLE, format!("the API server answered {}: {}", status.code, status.message)),
    };
    problem.hint(hint)
}

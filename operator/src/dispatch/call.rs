//! One pass over a ToolCall: decide on the stored object, then deny, wait, start, or bring its end into the status.
//!
//! Each pass reads the ledger first: what it says wins over the object's status, which is only its picture. An allowed call
//! with runtime `http` is left to the edge.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use polity_api::{
    Approval, Task, ToolCall, ToolCallStatus,
    approval::ApprovalPhase,
    reasons,
    toolcall::{Phase, PodRef},
};
use polity_ledger::{Begin, Idempotency, Note, OrgId, Refused, Release, State};
use polity_policy::{Decision, Past, Request, Snapshot, TaskFacts, Verdict};
use polity_runtime::{internal::CallFacts, subject};
use serde_json::Value;

use super::{
    controller::{CallContext, Error, SOON},
    ends::plain,
    outcome::Run,
    runner::{EXECUTOR, StartError},
    status,
};
use crate::{approval, requeue::Outcome as Next};

/// How soon to look again at a call that runs, for a Pod that is lost or late; its end wakes it by itself.
pub(super) const WHILE_RUNNING: Duration = Duration::from_secs(10);
/// How soon to look again at a call that waits for people: its Org may close and its Policies change.
const WHILE_WAITING: Duration = Duration::from_secs(30);
/// How soon to look again at a call that has ended, for the time at which it is deleted.
pub(super) const ENDED: Duration = Duration::from_secs(1);

/// How long what the webhook saw may take to reach core.
const NEWS: jiff::SignedDuration = jiff::SignedDuration::from_secs(3);
/// How soon to look again at a call that waits for that.
const CATCH_UP: Duration = Duration::from_millis(400);

/// One call with what a pass knows of it.
pub(super) struct Pass<'a> {
    pub(super) ctx: &'a CallContext,
    pub(super) call: &'a ToolCall,
    pub(super) id: String,
    pub(super) namespace: String,
    pub(super) org: OrgId,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) now: Timestamp,
}

impl Pass<'_> {
    pub(super) async fn go(&self) -> Result<Next, Error> {
        let ledger = &self.ctx.runner.gate.ledger;
        let attempt = ledger.attempt(&self.org, &self.id).await?;
        match &attempt {
            Some(attempt) if attempt.state == State::Settled => return self.settled(attempt).await,
            Some(attempt) if attempt.state == State::Begun => return self.begun(attempt).await,
            None if matches!(self.status().phase, Some(Phase::Running | Phase::Unknown)) => return self.forgotten().await,
            _ => {}
        }
        let held = attempt.is_some_and(|a| a.state == State::Held);
        let task = match self.task().await? {
            Ok(task) => task,
            Err(missing) => return self.deny(plain(reasons::TASK_NOT_FOUND, missing, &self.snapshot), Phase::Denied, held).await,
        };
        if self.call.spec.cancel {
            let canceled = plain(reasons::CANCELED, "canceled before it began".to_owned(), &self.snapshot);
            return self.deny(canceled, Phase::Canceled, held).await;
        }
        if task.as_ref().is_some_and(|t| t.cancel) {
            let canceled = plain(reasons::TASK_CANCELED, "its Task was canceled before it began".to_owned(), &self.snapshot);
            return self.deny(canceled, Phase::Canceled, held).await;
        }
        Box::pin(self.decide(task, held)).await
    }

    /// Decides on the stored object and acts on the verdict.
    async fn decide(&self, task: Option<TaskFacts>, held: bool) -> Result<Next, Error> {
        let Some(caller) = &self.call.spec.caller else {
            let message = "spec.caller is missing: the call was stored while Polity's webhook was away".to_owned();
            return self.deny(plain(reasons::CALLER_NOT_STAMPED, message, &self.snapshot), Phase::Denied, held).await;
        };
        let guards = &self.ctx.runner.gate.guards;
        if guards.known().is_err() {
            // As with a view that is not fresh: nothing starts, look again.
            return Ok(Next::At(CATCH_UP));
        }
        if let Err(what) = guards.enforced() {
            return self.deny(plain(reasons::ADMISSION_NOT_ENFORCED, what, &self.snapshot), Phase::Denied, held).await;
        }
        let approval = approval::find(&self.ctx.client, &self.namespace, self.call, &self.id).await?;
        let standing = approval.as_ref().and_then(|a| a.status.as_ref()).and_then(|s| s.phase);
        let refusal = match standing {
            Some(ApprovalPhase::Denied) => Some(reasons::APPROVAL_DENIED),
            Some(ApprovalPhase::Expired) => Some(reasons::APPROVAL_EXPIRED),
            Some(ApprovalPhase::Withdrawn) => Some(reasons::APPROVAL_MISMATCH),
            _ => None,
        };
        if let (Some(reason), Some(approval)) = (refusal, &approval) {
            let message = approval::message(approval);
            return self.deny(plain(reason, message, &self.snapshot), Phase::Denied, held).await;
        }
        let approved: Vec<String> = match (&approval, standing) {
            (Some(a), Some(ApprovalPhase::Approved)) => a.spec.requirements.iter().map(|r| r.rule.clone()).collect(),
            _ => Vec::new(),
        };
        let args = Value::Object(self.call.spec.input.clone().unwrap_or_default());
        let request = Request {
            verb: "tool.call",
            tool: &self.call.spec.tool.name,
            tool_org: self.call.spec.tool.org.as_deref(),
            args: &args,
            caller,
            task: task.as_ref(),
            job_space: self.call.spec.job_space.as_deref(),
            context: self.call.spec.context.as_deref(),
            id: &self.id,
            approved: &approved,
            now: self.now,
            past: Past::Unknown,
        };
        let mut decision = self.snapshot.decide_stored(&request);
        if decision.needs_past() {
            let (gate, subject) = (&self.ctx.runner.gate, self.subject(&request, &decision));
            if let Some(id) = gate.replayed(&subject, self.idempotency(&args).as_ref()).await? {
                return self.replay(&id).await;
            }
            let known = gate.past_of(&subject, &decision.counting).await?;
            decision = self.snapshot.decide_stored(&Request { past: Past::Known(&known), ..request });
        }
        if decision.verdict == Verdict::Deny && self.may_be_news(decision.reason) {
            return Ok(Next::At(CATCH_UP));
        }
        match decision.verdict {
            Verdict::Deny => self.deny(decision, Phase::Denied, held).await,
            Verdict::RequireApproval => Box::pin(self.wait(&request, decision, approval)).await,
            Verdict::Allow => Box::pin(self.start(&request, decision, approval.filter(|_| !approved.is_empty()), held)).await,
        }
    }

    /// Whether a denial may only mean that core's view lacks what the webhook saw a moment ago. Such a call is looked at again for
    /// a few seconds before it is denied for good; nothing runs meanwhile.
    fn may_be_news(&self, reason: &str) -> bool {
        let age = self.call.creation_timestamp().map(|t| self.now.duration_since(t.0));
        let of_view =
            [reasons::TOOL_NOT_FOUND, reasons::TOOL_NOT_READY, reasons::UNKNOWN_CALLER, reasons::NOT_GRANTED, reasons::POLICY_NOT_TYPED];
        of_view.contains(&reason) && age.is_some_and(|age| age < NEWS)
    }

    /// Looks the Task up; a Task that is not there denies.
    pub(super) async fn task(&self) -> Result<Result<Option<TaskFacts>, String>, Error> {
        let Some(reference) = &self.call.spec.task_ref else { return Ok(Ok(None)) };
        let api: Api<Task> = Api::namespaced(self.ctx.client.clone(), &self.namespace);
        let task = api.get_opt(&reference.name).await?;
        Ok(task.map_or_else(
            || Err(format!("there is no Task {} in namespace {}", reference.name, self.namespace)),
            |task| {
                let (name, uid) = (task.name_any(), task.uid().unwrap_or_default());
                Ok(Some(TaskFacts { name, uid, job_space: task.spec.job_space, cancel: task.spec.cancel }))
            },
        ))
    }

    fn request_with<'a>(&'a self, args: &'a Value, caller: &'a polity_api::caller::Caller) -> Request<'a> {
        Request {
            verb: "tool.call",
            tool: &self.call.spec.tool.name,
            tool_org: self.call.spec.tool.org.as_deref(),
            args,
            caller,
            task: None,
            job_space: self.call.spec.job_space.as_deref(),
            context: self.call.spec.context.as_deref(),
            id: &self.id,
            approved: &[],
            now: self.now,
            past: Past::Unknown,
        }
    }

    fn trace(&self) -> &str {
        self.call.spec.trace.as_ref().map(|t| t.traceparent.as_str()).unwrap_or_default()
    }

    fn subject(&self, request: &Request<'_>, decision: &Decision) -> polity_ledger::Subject {
        let mut subject = subject::subject(self.org.clone(), &self.namespace, request, decision, self.trace(), self.snapshot.keep_input());
        subject.verdict.rewrites = self.call.spec.rewrites.iter().map(|r| r.rule.clone()).collect();
        subject
    }

    /// Records the denial durably, gives a hold back, and ends the call.
    async fn deny(&self, decision: Decision, phase: Phase, held: bool) -> Result<Next, Error> {
        let gate = &self.ctx.runner.gate;
        let args = Value::Object(self.call.spec.input.clone().unwrap_or_default());
        let nobody = polity_api::caller::Caller::default();
        let request = self.request_with(&args, self.call.spec.caller.as_ref().unwrap_or(&nobody));
        let record = gate
            .note(Note {
                kind: "decision".to_owned(),
                org: self.org.clone(),
                once: Some(format!("decision/{}", self.id)),
                subject: Some(self.subject(&request, &decision)),
                actor: None,
                target: None,
                reason: decision.reason.to_owned(),
                facts: std::collections::BTreeMap::new(),
            })
            .await?;
        if self.call.status.as_ref().is_some_and(|s| s.approval.is_some()) {
            approval::withdraw(&self.ctx.client, &self.namespace, self.call, &self.id, &decision.message, self.now).await?;
        }
        if held {
            gate.release(Release {
                org: self.org.clone(),
                id: self.id.clone(),
                reason: decision.reason.to_owned(),
                by: EXECUTOR.to_owned(),
            })
            .await?;
        }
        crate::killpoint::reached("call-denied");
        // Made before `begin` was refused, never allowed to start.
        self.ctx.runner.delete(&self.namespace, &self.id, None).await;
        let shown = status::shown(&decision, None, Some(record), self.now);
        let status = status::refused(self.status(), phase, shown, self.generation(), self.now);
        self.write(status).await?;
        Ok(Next::At(ENDED))
    }

    /// Holds the reservation, makes the Approval, and says so.
    async fn wait(&self, request: &Request<'_>, decision: Decision, approval: Option<Approval>) -> Result<Next, Error> {
        if let Some(approval) = &approval {
            let asked: Vec<&str> = approval.spec.requirements.iter().map(|r| r.rule.as_str()).collect();
            if let Some(new) = decision.requirements.iter().find(|r| !asked.contains(&r.rule.as_str())) {
                let message = format!("rule {} asks for approval since Approval {} was made; ask again", new.rule, approval.name_any());
                return self.deny(plain(reasons::APPROVAL_MISMATCH, message, &self.snapshot), Phase::Denied, true).await;
            }
        }
        let Some(tool) = decision.tool.clone() else { return Ok(Next::At(SOON)) };
        let subject = self.subject(request, &decision);
        let expires = approval::expiry(approval.as_ref(), &decision, self.call, self.now);
        let held = self
            .ctx
            .runner
            .gate
            .hold(
                polity_ledger::Hold {
                    subject: subject.clone(),
                    reserve: subject::reserve(&tool),
                    charges: Vec::new(),
                    expires: expires + jiff::SignedDuration::from_secs(60),
                    idempotency: self.idempotency(request.args),
                },
                Some(&CallFacts::of(request)),
            )
            .await;
        let held = match held {
            Ok(held) => held,
            Err(refused) => return self.refused(refused, decision).await,
        };
        crate::killpoint::reached("call-held");
        let approval = match approval {
            Some(approval) => approval,
            None => {
                let text = subject::approval_text(
                    &subject.verb,
                    &subject.target,
                    &subject.input,
                    request.caller,
                    request.task.map(|t| t.name.as_str()),
                );
                let digest = self.ctx.runner.gate.digest(&self.org, &text).await?;
                approval::make(&self.ctx.client, &self.namespace, self.call, &self.id, &subject, &decision, digest, expires).await?
            }
        };
        crate::killpoint::reached("call-approval-made");
        let before = self.status();
        if before.phase == Some(Phase::WaitingApproval) && before.approval.as_deref() == Some(&approval.name_any()) {
            return Ok(Next::At(WHILE_WAITING));
        }
        let shown = status::shown(&decision, Some(held.input), Some(held.seq), self.now);
        self.write(status::waiting(self.status(), shown, &approval.name_any(), self.generation(), self.now)).await?;
        // Its Org may close and its Policies change while it waits.
        Ok(Next::At(WHILE_WAITING))
    }

    /// Begins an allowed call; an `http` call is the edge's.
    async fn start(&self, request: &Request<'_>, decision: Decision, approval: Option<Approval>, held: bool) -> Result<Next, Error> {
        let Some(tool) = decision.tool.clone() else { return Ok(Next::At(SOON)) };
        let Some(container) = &tool.spec.runtime.container else { return Ok(Next::At(WHILE_RUNNING)) };
        let mut subject = self.subject(request, &decision);
        subject.verdict.approvals = approval.iter().filter_map(ResourceExt::uid).collect();
        let reserve = subject::reserve(&tool);
        let run = Run {
            id: self.id.clone(),
            org: self.org.clone(),
            namespace: self.namespace.clone(),
            tool: (tool.namespace.clone(), tool.name.clone()),
            container: container.clone(),
            output_schema: tool.spec.output_schema.clone(),
            timeout_seconds: tool.spec.timeout_seconds,
            idempotent: tool.spec.idempotent,
            input: request.args.clone(),
            reserve: reserve.clone(),
            call: Some((self.call.name_any(), self.id.clone())),
            trace: self.trace().to_owned(),
            obligations: decision.obligations.as_deref().cloned(),
        };
        let begin = Begin {
            subject,
            reserve,
            charges: Vec::new(),
            read: Vec::new(),
            consume: Vec::new(),
            executor: String::new(),
            deadline: self.now,
            idempotency: if held { None } else { self.idempotency(request.args) },
            resume: Value::Null,
        };
        match self.ctx.runner.start(&run, begin, Some(&CallFacts::of(request)), self.now).await {
            Ok((begun, pod)) => {
                let shown = status::shown(&decision, Some(begun.input), Some(begun.seq), self.now);
                let pod = PodRef { name: pod.name_any(), uid: pod.uid().unwrap_or_default() };
                self.write(status::running(self.status(), shown, pod, self.generation(), self.now)).await?;
                Ok(Next::At(WHILE_RUNNING))
            }
            Err(StartError::Refused(refused)) => self.refused(refused, decision).await,
            Err(StartError::NoPodRuntime) => {
                let message = "no node here can run Pods, so container tools cannot run".to_owned();
                let denied = Decision { verdict: Verdict::Deny, reason: reasons::NO_POD_RUNTIME, message, hint: String::new(), ..decision };
                self.deny(denied, Phase::Denied, held).await
            }
            Err(StartError::PodRefused(why)) => {
                self.write(status::held_up(self.status(), reasons::POD_REFUSED, &why, self.generation(), self.now)).await?;
                Ok(Next::At(Duration::from_secs(5)))
            }
            Err(StartError::Api(error)) => Err(error.into()),
        }
    }

    /// What the gate's or ledger's refusal means for the call: a denial, another call's outcome, or try again.
    async fn refused(&self, refused: Refused, decision: Decision) -> Result<Next, Error> {
        let reason = match &refused {
            Refused::AdmissionNotEnforced { .. } if self.ctx.runner.gate.guards.known().is_err() => return Err(refused.into()),
            Refused::LedgerUnavailable { .. } | Refused::StaleSnapshot { .. } | Refused::Contended | Refused::Fenced { .. } => {
                return Err(refused.into());
            }
            Refused::IdempotencyReplay { id } => return self.replay(id).await,
            Refused::BudgetExceeded { .. } => reasons::BUDGET_EXCEEDED,
            Refused::IdempotencyKeyReused => reasons::IDEMPOTENCY_KEY_REUSED,
            Refused::AlreadyUsed { .. } => reasons::ALREADY_USED,
            Refused::AdmissionNotEnforced { .. } => reasons::ADMISSION_NOT_ENFORCED,
            Refused::ApprovalMismatch { .. } => reasons::APPROVAL_MISMATCH,
            Refused::NoPodRuntime => reasons::NO_POD_RUNTIME,
            Refused::PodRefused { .. } => reasons::POD_REFUSED,
            Refused::Invalid { .. } => reasons::INVALID_REQUEST,
            Refused::AlreadyExecuted { .. } | Refused::NotFound { .. } => reasons::ALREADY_EXECUTED,
        };
        let held = self.ctx.runner.gate.ledger.attempt(&self.org, &self.id).await?.is_some_and(|a| a.state == State::Held);
        let denied = Decision { verdict: Verdict::Deny, reason, message: refused.to_string(), hint: String::new(), ..decision };
        self.deny(denied, Phase::Denied, held).await
    }

    fn idempotency(&self, args: &Value) -> Option<Idempotency> {
        self.call
            .spec
            .idempotency_key
            .as_ref()
            .map(|key| Idempotency { key: key.clone(), body: subject::body_digest(&self.call.spec, args) })
    }

    pub(super) fn generation(&self) -> i64 {
        self.call.metadata.generation.unwrap_or_default()
    }

    pub(super) fn status(&self) -> ToolCallStatus {
        self.call.status.clone().unwrap_or_default()
    }

    /// Writes the status if it differs, fenced by resourceVersion: a conflict means that somebody knows more.
    pub(super) async fn write(&self, status: ToolCallStatus) -> Result<(), Error> {
        if self.call.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api: Api<ToolCall> = Api::namespaced(self.ctx.client.clone(), &self.namespace);
        let patch = serde_json::json!({"metadata": {"resourceVersion": self.call.resource_version(), "uid": self.id}, "status": status});
        self.ctx.store.learn(api.patch_status(&self.call.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?);
        crate::killpoint::reached("call-status-written");
        Ok(())
    }
}

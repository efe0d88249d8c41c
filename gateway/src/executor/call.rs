//! One stored ToolCall of an `http` or `mcp` Tool: begin, claim, run, settle, end; and what an earlier process of this replica left in the middle.
//!
//! Order: `begin` in the ledger, then one status write (claim, decision, phase Running) fenced by resourceVersion, then the request, then
//! `settle`, then one status write. Without the claim written nothing is sent, so a begun call without a claim never ran.

use std::{sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use polity_api::{
    ToolCall, ToolCallStatus,
    approval::ApprovalPhase,
    reasons,
    toolcall::{Claim, Decision as Shown, Phase},
};
use polity_ledger::{Attempt, OrgId, Outcome, Refused, Release, State};
use polity_policy::ToolFacts;

use super::status;
use crate::{
    answer,
    decide::{Ask, Decided},
    execute::{Basis, Started, Step, deliverable, runs_here},
    http_tool::Ran,
    problem::Problem,
    state::Gateway,
};

/// How long a status write is tried while the API server does not answer.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// How often a running call is looked at for a wish to cancel it.
const CANCEL_LOOK: Duration = Duration::from_millis(250);

/// What is to be done with a stored call.
pub(super) struct Task {
    call: Arc<ToolCall>,
    namespace: String,
    uid: String,
    what: What,
}

enum What {
    /// It may begin.
    Begin(Basis),
    /// An earlier process of this replica ran it.
    Interrupted,
}

/// Work that came to nothing for now.
pub(super) struct Failed {
    pub call: String,
    pub problem: Problem,
}

/// Whether, and how, this replica is to work on the call.
pub(super) fn eligible(gateway: &Gateway, call: &Arc<ToolCall>) -> Option<Task> {
    let (namespace, uid) = (call.namespace()?, call.uid()?);
    if call.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let status = call.status.as_ref();
    let what = match status.and_then(|s| s.phase) {
        None | Some(Phase::Pending) if !call.spec.cancel => What::Begin(Basis::default()),
        Some(Phase::WaitingApproval) if !call.spec.cancel => What::Begin(approved(gateway, call, &namespace, &uid)?),
        Some(Phase::Running) => {
            let claim = status.and_then(|s| s.claim.as_ref())?;
            gateway.replica.was_me(&claim.by).then_some(What::Interrupted)?
        }
        _ => return None,
    };
    // A first look at the Tool; the decision looks again.
    let org = gateway.cache.snapshots().by_namespace(&namespace)?;
    let view = gateway.cache.snapshots().get(&org).ok()?;
    let tool = view.tool(&call.spec.tool.name, call.spec.tool.org.as_deref())?;
    runs_here(&tool).then(|| Task { call: call.clone(), namespace, uid, what })
}

/// The basis of a call whose Approval is complete. Core checks it again, live and by digest, before it lets the call begin.
fn approved(gateway: &Gateway, call: &ToolCall, namespace: &str, uid: &str) -> Option<Basis> {
    let name = call.status.as_ref()?.approval.as_ref()?;
    let approval = gateway.approvals.get(namespace, name)?;
    let good = approval.status.as_ref()?.phase == Some(ApprovalPhase::Approved)
        && approval.spec.action.call_uid == uid
        && approval.spec.expires_at.0 > gateway.clock.now();
    good.then(|| Basis {
        approvals: approval.uid().into_iter().collect(),
        approved: approval.spec.requirements.iter().map(|r| r.rule.clone()).collect(),
        // The hold has the key.
        ..Basis::default()
    })
}

impl Task {
    /// Does it.
    pub(super) async fn work(self, gateway: &Arc<Gateway>) -> Result<(), Failed> {
        let name = format!("{}/{}", self.namespace, self.call.name_any());
        self.go(gateway).await.map_err(|problem| Failed { call: name, problem })
    }

    async fn go(mut self, gateway: &Arc<Gateway>) -> Result<(), Problem> {
        let Some(org) = gateway.cache.snapshots().by_namespace(&self.namespace) else { return Ok(()) };
        let Some(caller) = self.call.spec.caller.clone() else { return Ok(()) };
        let trace = self.call.spec.trace.as_ref().map(|t| t.traceparent.clone()).unwrap_or_default();
        let ask = Ask { stored: true, ..Ask::new(&org, caller, self.call.spec.clone(), self.uid.clone(), trace) };
        let basis = match std::mem::replace(&mut self.what, What::Interrupted) {
            What::Interrupted => return self.interrupted(gateway, &ask).await,
            What::Begin(basis) if basis.approvals.is_empty() => Basis { own_only: true, ..Basis::of(&ask) },
            What::Begin(basis) => Basis { own_only: true, ..basis },
        };
        match gateway.decide_and_begin(&ask, &basis).await? {
            // What the rules deny or ask people for is core's, which decides on the same call.
            Step::Ask(_) | Step::Denied(_) | Step::NotOurs => Ok(()),
            Step::Refused(decided) => self.deny(gateway, *decided).await,
            Step::Replay(id) => self.replay(gateway, &ask, &id).await,
            Step::Elsewhere => self.elsewhere(gateway, &ask).await,
            Step::Started(started) => self.claim_and_run(gateway, &ask, *started).await,
        }
    }

    /// Claims, runs, settles, ends.
    async fn claim_and_run(&self, gateway: &Arc<Gateway>, ask: &Ask, mut started: Started) -> Result<(), Problem> {
        let shown = answer::shown(&started.decided.decision, Some(&started.begun), gateway.replica.process(), gateway.clock.now());
        let org = started.decided.org();
        if let Err(why) = self.claim(gateway, &shown, started.deadline).await {
            let ran = Ran { outcome: Outcome::NotDone, reason: why.0, message: why.1, output: None, status: None };
            gateway.settle(gateway.settlement(org.clone(), &self.uid, &started.tool, &ran)).await?;
            return self.end(gateway, &org, None).await;
        }
        let (_, settled) = gateway.run_and_settle(&mut started, &ask.trace, self.canceled(gateway)).await;
        settled?;
        self.end(gateway, &org, None).await
    }

    /// Writes the claim, unless the call was canceled or is gone. The reason says why it must not run.
    async fn claim(&self, gateway: &Gateway, shown: &Shown, deadline: jiff::Timestamp) -> Result<(), (&'static str, String)> {
        let now = gateway.clock.now();
        let claim = Claim { by: gateway.replica.process().to_owned(), at: Time(now), deadline: Time(deadline) };
        let canceled = || (reasons::CANCELED, "canceled before it ran".to_owned());
        let written = self
            .write(gateway, |call| {
                let status = call.status.clone().unwrap_or_default();
                let phase = status.phase;
                if call.spec.cancel
                    || phase.is_some_and(Phase::ended)
                    || (phase == Some(Phase::Running) && status.claim.as_ref().is_some_and(|c| c.by != claim.by))
                {
                    return None;
                }
                Some(status::running(status, shown.clone(), claim.clone(), None, call.metadata.generation.unwrap_or_default(), now))
            })
            .await;
        match written {
            Ok(true) => Ok(()),
            Ok(false) => Err(canceled()),
            Err(problem) => {
                Err((reasons::UNAVAILABLE, format!("the claim could not be written, so it did not run: {}", problem.message())))
            }
        }
    }

    /// Completes when the call, or its Task, is canceled.
    async fn canceled(&self, gateway: &Gateway) {
        let task = self.call.spec.task_ref.as_ref().map(|t| t.name.as_str());
        loop {
            let call = gateway.calls.get(&self.namespace, &self.call.name_any());
            let asked = call.is_some_and(|c| c.uid().as_deref() == Some(&self.uid) && c.spec.cancel);
            if asked || task.and_then(|t| gateway.cache.task(&self.namespace, t)).is_some_and(|t| t.cancel) {
                return;
            }
            tokio::time::sleep(CANCEL_LOOK).await;
        }
    }

    /// Brings the end that the ledger has into the status.
    async fn end(&self, gateway: &Gateway, org: &OrgId, replay: Option<&str>) -> Result<(), Problem> {
        let id = replay.unwrap_or(&self.uid);
        let Some(attempt) = gateway.core.attempt(&org.uid, id, Duration::ZERO).await? else { return Ok(()) };
        if !matches!(attempt.state, State::Settled | State::Released) {
            return Ok(());
        }
        self.write(gateway, |call| {
            let status = call.status.clone().unwrap_or_default();
            let over = status.phase.is_some_and(Phase::ended)
                || (status.phase == Some(Phase::Unknown) && attempt.outcome == Some(Outcome::Unknown));
            (!over).then(|| status::ended(status, &attempt, replay, call.metadata.generation.unwrap_or_default(), gateway.clock.now()))
        })
        .await
        .map(drop)
    }

    /// Another call with the same key and body has run, or runs.
    async fn replay(&self, gateway: &Gateway, ask: &Ask, id: &str) -> Result<(), Problem> {
        let org = OrgId { name: ask.org.clone(), uid: gateway.view(&ask.org)?.org_uid().to_owned() };
        self.end(gateway, &org, Some(id)).await
    }

    /// Records the denial durably, gives a hold back, and ends the call.
    async fn deny(&self, gateway: &Gateway, decided: Decided) -> Result<(), Problem> {
        let record = gateway.core.note(&decided.note()).await?;
        let release = Release {
            org: decided.org(),
            id: self.uid.clone(),
            reason: decided.decision.reason.to_owned(),
            by: gateway.replica.process().to_owned(),
        };
        match gateway.core.release(&release).await {
            Ok(()) | Err(Refused::NotFound { .. } | Refused::AlreadyExecuted { .. }) => {}
            Err(refused) => return Err(refused.into()),
        }
        let now = gateway.clock.now();
        let shown = Shown { record, ..answer::shown(&decided.decision, None, gateway.replica.process(), now) };
        self.write(gateway, |call| {
            let status = call.status.clone().unwrap_or_default();
            let mine = !status.phase.is_some_and(|p| p.ended() || p == Phase::Running);
            mine.then(|| status::denied(status, shown.clone(), call.metadata.generation.unwrap_or_default(), now))
        })
        .await
        .map(drop)
    }

    /// Begun by somebody else: another replica, or an earlier process of this one that died before it wrote its claim.
    async fn elsewhere(&self, gateway: &Arc<Gateway>, ask: &Ask) -> Result<(), Problem> {
        let org = OrgId { name: ask.org.clone(), uid: gateway.view(&ask.org)?.org_uid().to_owned() };
        let Some(attempt) = gateway.core.attempt(&org.uid, &self.uid, Duration::ZERO).await? else { return Ok(()) };
        match attempt.state {
            State::Settled | State::Released => self.end(gateway, &org, None).await,
            State::Begun if gateway.replica.was_me(&attempt.executor) => self.left_behind(gateway, ask, &org, &attempt).await,
            _ => Ok(()),
        }
    }

    /// Begun by an earlier process of this replica. Without its claim on the object it never ran: it is taken back. With it, see `interrupted`.
    async fn left_behind(&self, gateway: &Arc<Gateway>, ask: &Ask, org: &OrgId, attempt: &Attempt) -> Result<(), Problem> {
        let api: Api<ToolCall> = Api::namespaced(gateway.client.clone(), &self.namespace);
        let live = api.get_opt(&self.call.name_any()).await.map_err(|e| unreachable(&e))?;
        let claimed = live.as_ref().and_then(|c| c.status.as_ref()?.claim.as_ref()).is_some_and(|c| c.by == attempt.executor);
        if claimed {
            return self.interrupted(gateway, ask).await;
        }
        let tool = self.tool(gateway, ask)?;
        let message = "the edge ended before the call was sent; it did not run".to_owned();
        let ran = Ran { outcome: Outcome::NotDone, reason: reasons::UNAVAILABLE, message, output: None, status: None };
        gateway.settle(gateway.settlement(org.clone(), &self.uid, &tool, &ran)).await?;
        self.end(gateway, org, None).await
    }

    /// Claimed and perhaps sent by an earlier process: an idempotent Tool is called again, for any other nobody knows.
    async fn interrupted(&self, gateway: &Arc<Gateway>, ask: &Ask) -> Result<(), Problem> {
        let org = OrgId { name: ask.org.clone(), uid: gateway.view(&ask.org)?.org_uid().to_owned() };
        let attempt = gateway.core.attempt(&org.uid, &self.uid, Duration::ZERO).await?;
        if !attempt.is_some_and(|a| a.state == State::Begun) {
            return self.end(gateway, &org, None).await;
        }
        let tool = self.tool(gateway, ask)?;
        // What is demanded of the result is decided anew; what would be denied now is not called again.
        let decided = gateway.decide(ask, &[]).await?;
        let denied = decided.decision.verdict == polity_policy::Verdict::Deny;
        let ran = if denied && tool.spec.idempotent {
            let message = format!("the edge that ran it ended in the middle, and it is not called again: {}", decided.decision.message);
            Ran { outcome: Outcome::NotDone, reason: decided.decision.reason, message, output: None, status: None }
        } else if tool.spec.idempotent && !self.call.spec.cancel {
            let call = crate::http_tool::Call { tool: &tool, input: &ask.input, trace: &ask.trace };
            match gateway.admit(&tool).await {
                Ok(leave) => tokio::select! {
                    ran = gateway.run_tool(call, leave) => ran,
                    () = self.canceled(gateway) => crate::execute::stopped(&tool),
                },
                Err(not) => {
                    let message = format!("the edge that ran it ended in the middle, and it is not called again: {}", not.message);
                    Ran::not_done(not.reason, message)
                }
            }
        } else {
            let message = "the edge that ran it ended in the middle".to_owned();
            Ran { outcome: Outcome::Unknown, reason: reasons::OUTCOME_UNKNOWN, message, output: None, status: None }
        };
        let (ran, facts) = deliverable(decided.decision.obligations.as_deref(), &ask.input, ran);
        let mut settle = gateway.settlement(org.clone(), &self.uid, &tool, &ran);
        settle.facts.extend(facts);
        gateway.settle(settle).await?;
        self.end(gateway, &org, None).await
    }

    fn tool(&self, gateway: &Gateway, ask: &Ask) -> Result<Arc<ToolFacts>, Problem> {
        let found = gateway.view(&ask.org)?.tool(&ask.spec.tool.name, ask.spec.tool.org.as_deref());
        found.ok_or_else(|| Problem::unavailable(reasons::TOOL_NOT_FOUND, "the Tool is gone; core settles the call at its deadline"))
    }

    /// Writes a status made from the present object, fenced by its resourceVersion; after a conflict made again from the newer one. False when
    /// there is nothing to write, or no object any more.
    async fn write(&self, gateway: &Gateway, make: impl Fn(&ToolCall) -> Option<ToolCallStatus>) -> Result<bool, Problem> {
        let api: Api<ToolCall> = Api::namespaced(gateway.client.clone(), &self.namespace);
        let name = self.call.name_any();
        let cached = gateway.calls.get(&self.namespace, &name).filter(|c| c.uid().as_deref() == Some(&self.uid));
        let mut call: ToolCall = cached.unwrap_or_else(|| self.call.clone()).as_ref().clone();
        let started = tokio::time::Instant::now();
        loop {
            let Some(status) = make(&call) else { return Ok(false) };
            let patch = serde_json::json!({"metadata": {"resourceVersion": call.resource_version(), "uid": self.uid}, "status": status});
            let error = match api.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => return Ok(true),
                Err(error) => error,
            };
            match &error {
                kube::Error::Api(status) if status.code == 404 => return Ok(false),
                kube::Error::Api(status) if status.code < 500 && status.code != 409 && status.code != 429 => {
                    return Err(unreachable(&error));
                }
                _ if started.elapsed() > WRITE_PATIENCE => return Err(unreachable(&error)),
                kube::Error::Api(status) if status.code == 409 => {}
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
            match api.get_opt(&name).await {
                Ok(Some(fresh)) if fresh.uid().as_deref() == Some(&self.uid) => call = fresh,
                Ok(_) => return Ok(false),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }
}

fn unreachable(error: &kube::Error) -> Problem {
    Problem::unavailable(reasons::UNAVAILABLE, format!("the API server: {error}"))
}

//! From an allowed call to its recorded end: `begin`, run, `settle`. The same for an agent's request and for a stored ToolCall.
//!
//! Nothing runs before `begin` is committed; what has run is settled until core takes it. This part never decides.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::SignedDuration;
use polity_api::reasons;
use polity_ledger::{Amounts, Begin, Begun, Idempotency, OrgId, Outcome, Refused, Settle, Settled};
use polity_policy::{Obligations, ToolFacts, Verdict};
use polity_runtime::{
    CancellationToken,
    deliver::{End, deliver},
    internal::{CallFacts, CountedBegin, RunRequest, RunTool, ToolDrifted},
    subject,
};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    calls::canceled,
    decide::{Ask, Decided},
    http_tool::{Call, Ran, room::AT_ONCE},
    mcp_tool::{NotNow, Pass},
    problem::Problem,
    state::Gateway,
};

/// Decisions on a call before its view counts as moving too fast.
const DECISIONS: u32 = 3;
/// Seconds that a run may take beyond the Tool's own time, to be settled.
const GRACE_SECONDS: i64 = 60;
/// How long a settlement is tried; then core has given the run up by itself.
const SETTLE_PATIENCE: Duration = Duration::from_secs(600);
/// How long core is told of a drift.
const TELL: Duration = Duration::from_secs(3);
/// How long a start is tried while core does not answer.
const BEGIN_TRIES: u32 = 3;

/// A call that has begun.
#[derive(Debug)]
pub struct Started {
    /// As decided.
    pub decided: Decided,
    /// The Tool.
    pub tool: Arc<ToolFacts>,
    /// As begun.
    pub begun: Begun,
    /// After this the outcome is unknown.
    pub deadline: jiff::Timestamp,
    /// Leave to go to its endpoint, where this edge runs it.
    pub leave: Option<Leave>,
}

/// Leave for one call to go to its endpoint.
#[derive(Debug)]
pub enum Leave {
    /// Runtime `http`: there is room for it.
    Http(OwnedSemaphorePermit),
    /// Runtime `mcp`: its server lets it begin.
    Mcp(Pass),
}

/// How far a call came.
#[derive(Debug)]
pub enum Step {
    /// It has begun, here (`http`, `mcp`) or in core's care (`container`).
    Started(Box<Started>),
    /// People are to be asked first.
    Ask(Box<Decided>),
    /// Denied by the rules, and not recorded yet.
    Denied(Box<Decided>),
    /// Allowed by the rules and refused by the ledger, for good; not recorded yet.
    Refused(Box<Decided>),
    /// Not a call that this edge runs, when only such were asked for.
    NotOurs,
    /// The same request was made before, under this id.
    Replay(String),
    /// This very call has begun already.
    Elsewhere,
}

/// What of a call the ledger must know besides the decision.
#[derive(Clone, Debug, Default)]
pub struct Basis {
    /// Uids of the Approvals that it rests on.
    pub approvals: Vec<String>,
    /// Rules that these satisfy.
    pub approved: Vec<String>,
    /// Key against running twice; absent when a hold has it.
    pub idempotency: Option<Idempotency>,
    /// Begin calls that run here only: a stored call of a container is core's to begin.
    pub own_only: bool,
    /// Once canceled, nothing begins any more.
    pub cancel: CancellationToken,
}

impl Basis {
    /// A call without Approvals.
    pub fn of(ask: &Ask) -> Self {
        let idempotency = ask
            .spec
            .idempotency_key
            .as_ref()
            .map(|key| Idempotency { key: key.clone(), body: subject::body_digest(&ask.spec, &ask.input) });
        Self { idempotency, ..Self::default() }
    }
}

/// Whether a Tool's calls are run by this edge.
pub fn runs_here(tool: &ToolFacts) -> bool {
    tool.spec.runtime.endpoint().is_some()
}

impl Gateway {
    /// Decides and, when allowed, begins; decides again when the view or a counter moved in between.
    pub async fn decide_and_begin(&self, ask: &Ask, basis: &Basis) -> Result<Step, Problem> {
        let mut last = Refused::Contended;
        for n in 0..DECISIONS {
            if n > 0 {
                // Core or this edge is a moment behind the other.
                tokio::time::sleep(Duration::from_millis(50) * n).await;
            }
            let mut decided = self.decide(ask, &basis.approved).await?;
            if let Some(id) = decided.replay.take() {
                return Ok(Step::Replay(id));
            }
            match decided.decision.verdict {
                Verdict::Deny => return Ok(Step::Denied(Box::new(decided))),
                Verdict::RequireApproval => return Ok(Step::Ask(Box::new(decided))),
                Verdict::Allow => {}
            }
            let Some(tool) = decided.decision.tool.clone() else {
                return Ok(Step::Denied(Box::new(decided.denied(reasons::TOOL_NOT_FOUND, "the Tool is not known".to_owned()))));
            };
            if basis.own_only && !runs_here(&tool) {
                return Ok(Step::NotOurs);
            }
            let leave = match self.admit(&tool).await {
                Ok(leave) => leave,
                Err(NotNow { reason, message, hint, .. }) => {
                    return Ok(Step::Refused(Box::new(decided.denied(reason, message).hinted(hint))));
                }
            };
            decided.subject.verdict.approvals.clone_from(&basis.approvals);
            let deadline = self.clock.now() + SignedDuration::from_secs(i64::from(tool.spec.timeout_seconds) + GRACE_SECONDS);
            let begin = Begin {
                subject: decided.subject.clone(),
                reserve: subject::reserve(&tool),
                charges: Vec::new(),
                read: Vec::new(),
                consume: Vec::new(),
                executor: self.replica.process().to_owned(),
                deadline,
                // of the input as it runs, as a stored call has it
                idempotency: basis
                    .idempotency
                    .clone()
                    .map(|key| Idempotency { body: subject::body_digest(&ask.spec, &decided.subject.input), ..key }),
                resume: Value::Null,
            };
            if basis.cancel.is_cancelled() {
                return Err(canceled());
            }
            match self.begin(begin, &tool, decided.decision.obligations.as_deref().cloned(), decided.facts.clone()).await {
                Ok(begun) => return Ok(Step::Started(Box::new(Started { decided, tool, begun, deadline, leave }))),
                Err(refused @ (Refused::StaleSnapshot { .. } | Refused::Contended)) => last = refused,
                Err(Refused::IdempotencyReplay { id }) => return Ok(Step::Replay(id)),
                Err(Refused::AlreadyExecuted { .. }) => return Ok(Step::Elsewhere),
                Err(refused) => match denial(&refused) {
                    Some(reason) => return Ok(Step::Refused(Box::new(decided.denied(reason, refused.to_string())))),
                    None => return Err(refused.into()),
                },
            }
        }
        Err(last.into())
    }

    /// Begins. When core does not answer it may have committed all the same: the same start is sent again, and what came of it learned.
    async fn begin(
        &self,
        begin: Begin,
        tool: &ToolFacts,
        obligations: Option<Obligations>,
        facts: Option<CallFacts>,
    ) -> Result<Begun, Refused> {
        let run = (!runs_here(tool)).then(|| RunRequest {
            begin: begin.clone(),
            tool: RunTool {
                namespace: tool.namespace.clone(),
                name: tool.name.clone(),
                uid: tool.uid.clone(),
                digest: tool.digest.clone(),
            },
            timeout_seconds: i64::from(tool.spec.timeout_seconds),
            obligations,
            facts: facts.clone(),
        });
        let counted = facts.filter(|_| run.is_none()).map(|facts| CountedBegin { begin: begin.clone(), facts });
        let send = || match (&run, &counted) {
            (Some(run), _) => self.core.run(run),
            (None, Some(counted)) => self.core.begin_counted(counted),
            (None, None) => self.core.begin(&begin),
        };
        let mut pause = Duration::from_millis(100);
        for _ in 1..BEGIN_TRIES {
            match send().await {
                Err(Refused::LedgerUnavailable { .. }) => tokio::time::sleep(pause).await,
                answer => return answer,
            }
            pause *= 4;
        }
        send().await
    }

    /// A start of which nobody knows whether it was committed: if it was, it is taken back, since nothing has run and nothing will.
    pub fn abandon(self: &Arc<Self>, org: OrgId, id: String) {
        let gateway = self.clone();
        self.work.spawn(async move {
            let settle = Settle {
                org,
                id,
                used: Amounts::new(),
                last: true,
                outcome: Some(Outcome::NotDone),
                reason: reasons::LEDGER_UNAVAILABLE.to_owned(),
                message: "core did not answer when the call was to begin, so it did not run".to_owned(),
                result: None,
                facts: BTreeMap::new(),
                by: gateway.replica.process().to_owned(),
                resolution: false,
            };
            // `NotFound` means that it never began, which is as good.
            let _ = gateway.settle(settle).await;
        });
    }

    /// Whether the endpoint of a Tool lets a call begin; None for a runtime that has none. Core is told when an MCP server lists what is not pinned.
    pub async fn admit(&self, tool: &ToolFacts) -> Result<Option<Leave>, NotNow> {
        if tool.spec.runtime.http.is_some() {
            return self.rooms.take(tool).map(|room| Some(Leave::Http(room))).ok_or_else(|| NotNow {
                reason: reasons::UPSTREAM_UNAVAILABLE,
                message: format!("this replica has {AT_ONCE} calls to the endpoint under way"),
                hint: "nothing has run; try again a little later".to_owned(),
                drifted: None,
            });
        }
        if tool.spec.runtime.mcp.is_none() {
            return Ok(None);
        }
        let not = match self.mcp.admit(&self.http, tool).await {
            Ok(pass) => return Ok(Some(Leave::Mcp(pass))),
            Err(not) => not,
        };
        if let Some(drifted) = &not.drifted {
            let told = ToolDrifted {
                tool: RunTool {
                    namespace: tool.namespace.clone(),
                    name: tool.name.clone(),
                    uid: tool.uid.clone(),
                    digest: tool.digest.clone(),
                },
                pinned: drifted.pinned.clone(),
                observed: drifted.observed.clone(),
                changed: drifted.changed.iter().map(|part| (*part).to_owned()).collect(),
            };
            // Denied in any case; untold, it is found again with the next call.
            match tokio::time::timeout(TELL, self.core.drifted(&told)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(tool = tool.name, %error, "core could not be told of a Tool whose server changed it"),
                Err(_) => tracing::warn!(tool = tool.name, "core was not told in time of a Tool whose server changed it"),
            }
        }
        Err(not)
    }

    /// Runs a call that has begun, whichever of its own runtimes it has.
    pub async fn run_tool(&self, call: Call<'_>, leave: Option<Leave>) -> Ran {
        match leave {
            Some(Leave::Mcp(pass)) => self.mcp.run(&self.http, call, pass).await,
            // Kept until the call has ended.
            Some(Leave::Http(_room)) => self.http.run(call).await,
            None => self.http.run(call).await,
        }
    }

    /// Runs a begun call of this edge and settles it. The settlement stands as answered: core may have ended the call before.
    pub async fn run_and_settle(
        &self,
        started: &mut Started,
        trace: &str,
        stop: impl Future<Output = ()>,
    ) -> (Ran, Result<Settled, Refused>) {
        let leave = started.leave.take();
        let call = Call { tool: &started.tool, input: &started.decided.subject.input, trace };
        let ran = tokio::select! {
            ran = self.run_tool(call, leave) => ran,
            () = stop => stopped(&started.tool),
        };
        let obligations = started.decided.decision.obligations.as_deref();
        let (ran, facts) = deliverable(obligations, &started.decided.subject.input, ran);
        let mut settle = self.settlement(started.decided.org(), &started.decided.subject.id, &started.tool, &ran);
        settle.facts.extend(facts);
        let settled = self.settle(settle).await;
        (ran, settled)
    }

    /// How a run is settled.
    pub fn settlement(&self, org: OrgId, id: &str, tool: &ToolFacts, ran: &Ran) -> Settle {
        let used = if ran.outcome == Outcome::NotDone { Amounts::new() } else { subject::reserve(tool) };
        Settle {
            org,
            id: id.to_owned(),
            used,
            last: true,
            outcome: Some(ran.outcome),
            reason: ran.reason.to_owned(),
            message: ran.message.clone(),
            result: ran.output.clone(),
            facts: ran.status.map(|status| ("httpStatus".to_owned(), json!(status))).into_iter().collect(),
            by: self.replica.process().to_owned(),
            resolution: false,
        }
    }

    /// Settles, trying until core takes it or has long given the run up.
    pub async fn settle(&self, settle: Settle) -> Result<Settled, Refused> {
        let started = tokio::time::Instant::now();
        let mut pause = Duration::from_millis(100);
        loop {
            match self.core.settle(&settle).await {
                Err(Refused::LedgerUnavailable { what }) if started.elapsed() + pause < SETTLE_PATIENCE => {
                    tracing::warn!(id = settle.id, what, "a call has ended and core does not take its end; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                answer => return answer,
            }
        }
    }
}

/// A run as far as it may be delivered, and facts of that for the record.
pub fn deliverable(obligations: Option<&Obligations>, input: &Value, ran: Ran) -> (Ran, BTreeMap<String, Value>) {
    let end = End { message: ran.message, result: ran.output, facts: BTreeMap::new() };
    let (reason, end) = deliver(obligations, input, ran.reason, end);
    (Ran { reason: reason.unwrap_or(ran.reason), message: end.message, output: end.result, ..ran }, end.facts)
}

/// What a run that was stopped in the middle means.
pub fn stopped(tool: &ToolFacts) -> Ran {
    let outcome = if tool.spec.idempotent { Outcome::NotDone } else { Outcome::Unknown };
    Ran { outcome, reason: reasons::CANCELED, message: "canceled while it ran".to_owned(), output: None, status: None }
}

/// The reason of a refusal that denies the call, rather than asking for another try.
pub fn denial(refused: &Refused) -> Option<&'static str> {
    match refused {
        Refused::BudgetExceeded { .. } => Some(reasons::BUDGET_EXCEEDED),
        Refused::ApprovalMismatch { .. } => Some(reasons::APPROVAL_MISMATCH),
        Refused::AlreadyUsed { .. } => Some(reasons::ALREADY_USED),
        Refused::IdempotencyKeyReused => Some(reasons::IDEMPOTENCY_KEY_REUSED),
        Refused::NoPodRuntime => Some(reasons::NO_POD_RUNTIME),
        Refused::Invalid { .. } => Some(reasons::INVALID_ARGUMENTS),
        _ => None,
    }
}

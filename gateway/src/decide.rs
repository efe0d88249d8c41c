//! Decides one call on the present view of its Org, whoever brought it: an agent's request or a stored ToolCall.

use std::sync::Arc;

use axum::http::StatusCode;
use polity_api::{Caller, ToolCallSpec, reasons};
use polity_ledger::{Idempotency, Note, OrgId, Refused, Subject};
use polity_policy::{Decision, Past, Request, Snapshot, TaskFacts, Verdict};
use polity_runtime::{
    internal::{CallFacts, PastRequest},
    subject,
};
use serde_json::Value;

use crate::{problem::Problem, state::Gateway};

/// The verb of every call.
pub const VERB: &str = "tool.call";

/// How often counters are asked for before the view counts as moving too fast.
const PAST_TRIES: u32 = 3;

/// A call to decide.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Org.
    pub org: String,
    /// Who asks.
    pub caller: Caller,
    /// What is asked.
    pub spec: ToolCallSpec,
    /// The input.
    pub input: Value,
    /// Id of the call.
    pub id: String,
    /// W3C traceparent.
    pub trace: String,
    /// The call is a stored ToolCall: its input was rewritten before, and is not any more.
    pub stored: bool,
}

impl Ask {
    /// A call with its input as a value.
    pub fn new(org: &str, caller: Caller, spec: ToolCallSpec, id: String, trace: String) -> Self {
        let input = Value::Object(spec.input.clone().unwrap_or_default());
        Self { org: org.to_owned(), caller, spec, input, id, trace, stored: false }
    }
}

/// A decided call.
#[derive(Debug)]
pub struct Decided {
    /// View that decided.
    pub snapshot: Arc<Snapshot>,
    /// The decision.
    pub decision: Decision,
    /// What the ledger is told.
    pub subject: Subject,
    /// What it takes to count it; None: it counts nowhere.
    pub facts: Option<CallFacts>,
    /// The same request was made before, under this id: what came of it stands.
    pub replay: Option<String>,
}

impl Decided {
    /// The Org as the ledger knows it.
    pub fn org(&self) -> OrgId {
        self.subject.org.clone()
    }

    /// The same, denied for a reason that came up afterwards.
    #[must_use]
    pub fn denied(mut self, reason: &'static str, message: String) -> Self {
        self.decision = Decision { verdict: Verdict::Deny, reason, message, hint: String::new(), ..self.decision };
        self.subject.verdict.effect = Verdict::Deny.name().to_owned();
        self.subject.verdict.reason = reason.to_owned();
        self.subject.verdict.message.clone_from(&self.decision.message);
        self
    }

    /// The same with what to do.
    #[must_use]
    pub fn hinted(mut self, hint: String) -> Self {
        self.decision.hint = hint;
        self
    }

    /// The durable record of a denial.
    pub fn note(&self) -> Note {
        Note {
            kind: "decision".to_owned(),
            org: self.org(),
            once: Some(format!("decision/{}", self.subject.id)),
            subject: Some(self.subject.clone()),
            actor: None,
            target: None,
            reason: self.decision.reason.to_owned(),
            facts: std::collections::BTreeMap::new(),
        }
    }
}

impl Gateway {
    /// The fresh view of an Org.
    pub fn view(&self, org: &str) -> Result<Arc<Snapshot>, Problem> {
        let snapshots = self.cache.snapshots();
        snapshots
            .get(org)
            .map_err(|e| Problem::unavailable(e.reason(), e.to_string()).hint("try again; if it lasts, check the name of the Org"))
    }

    /// Decides. `approved` are the rules that an Approval satisfies.
    pub async fn decide(&self, ask: &Ask, approved: &[String]) -> Result<Decided, Problem> {
        let mut snapshot = self.view(&ask.org)?;
        let task = self.task(ask, &snapshot).await?;
        let mut decided = self.decide_on(ask, approved, task.as_ref(), &snapshot, Past::Unknown);
        if decided.decision.reason == reasons::TOOL_NOT_FOUND && self.fetch_tool(ask, &snapshot).await {
            snapshot = self.view(&ask.org)?;
            decided = self.decide_on(ask, approved, task.as_ref(), &snapshot, Past::Unknown);
        }
        for n in 1.. {
            let Some(facts) = decided.facts.clone().filter(|_| decided.decision.needs_past()) else { break };
            let key = ask.spec.idempotency_key.clone();
            let idempotency = key.map(|key| Idempotency { key, body: subject::body_digest(&ask.spec, &decided.subject.input) });
            let request = PastRequest { subject: decided.subject.clone(), facts, idempotency };
            match self.core.past(&request).await {
                Ok(known) => {
                    decided = self.decide_on(ask, approved, task.as_ref(), &snapshot, Past::Known(&known));
                    break;
                }
                Err(Refused::IdempotencyReplay { id }) => {
                    decided.replay = Some(id);
                    break;
                }
                // Core or this edge is a moment behind the other.
                Err(Refused::StaleSnapshot { .. }) if n < PAST_TRIES => {
                    tokio::time::sleep(std::time::Duration::from_millis(50) * n).await;
                    snapshot = self.view(&ask.org)?;
                    decided = self.decide_on(ask, approved, task.as_ref(), &snapshot, Past::Unknown);
                }
                Err(refused) => return Err(refused.into()),
            }
        }
        if task.is_none()
            && let Some(reference) = &ask.spec.task_ref
        {
            let message = format!("there is no Task {} in namespace {}", reference.name, snapshot.namespace());
            decided = decided.denied(reasons::TASK_NOT_FOUND, message);
        }
        Ok(decided)
    }

    fn decide_on(&self, ask: &Ask, approved: &[String], task: Option<&TaskFacts>, snapshot: &Arc<Snapshot>, past: Past<'_>) -> Decided {
        let request = Request {
            verb: VERB,
            tool: &ask.spec.tool.name,
            tool_org: ask.spec.tool.org.as_deref(),
            args: &ask.input,
            caller: &ask.caller,
            task,
            job_space: ask.spec.job_space.as_deref(),
            context: ask.spec.context.as_deref(),
            id: &ask.id,
            approved,
            now: self.clock.now(),
            past,
        };
        let decision = if ask.stored { snapshot.decide_stored(&request) } else { snapshot.decide(&request) };
        let org = OrgId { name: ask.org.clone(), uid: snapshot.org_uid().to_owned() };
        let mut subject = subject::subject(org, snapshot.namespace(), &request, &decision, &ask.trace, snapshot.keep_input());
        if ask.stored {
            subject.verdict.rewrites = ask.spec.rewrites.iter().map(|r| r.rule.clone()).collect();
        }
        let counts = decision.tool.as_ref().is_some_and(|tool| snapshot.may_count(&tool.namespace, &tool.name));
        let facts = counts.then(|| CallFacts::of(&request));
        Decided { snapshot: snapshot.clone(), decision, subject, facts, replay: None }
    }

    /// The Task that the call names; None when it names none, or there is none.
    async fn task(&self, ask: &Ask, snapshot: &Snapshot) -> Result<Option<TaskFacts>, Problem> {
        let Some(reference) = &ask.spec.task_ref else { return Ok(None) };
        let task = self.cache.fetch_missing_task(snapshot.namespace(), &reference.name).await;
        if let Some(task) = &task
            && ask.spec.job_space.is_some()
            && ask.spec.job_space != task.job_space
        {
            let message = format!("jobSpace is not that of Task {}", reference.name);
            return Err(Problem::invalid(message).hint("leave jobSpace out when the call is for a Task"));
        }
        Ok(task)
    }

    /// Looks live for a Tool that the view lacks; it may have been made a moment ago.
    async fn fetch_tool(&self, ask: &Ask, snapshot: &Snapshot) -> bool {
        let namespace = match &ask.spec.tool.org {
            None => snapshot.namespace().to_owned(),
            Some(org) => {
                let world = self.cache.world();
                let found = world.orgs.get(org).and_then(|o| o.status.as_ref()?.namespace.as_ref()).map(|n| n.name.clone());
                let Some(namespace) = found else { return false };
                namespace
            }
        };
        !namespace.is_empty() && self.cache.fetch_missing_tool(&namespace, &ask.spec.tool.name).await
    }

    /// Records a denial durably, if core can be reached in good time; it is a denial in any case.
    pub async fn record(&self, decided: &Decided) {
        if decided.subject.org.uid.is_empty() {
            return;
        }
        let note = decided.note();
        match tokio::time::timeout(std::time::Duration::from_secs(3), self.core.note(&note)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(id = decided.subject.id, %error, "a denial could not be recorded"),
            Err(_) => tracing::warn!(id = decided.subject.id, "a denial could not be recorded in time"),
        }
    }

    /// Records and answers a denial.
    pub async fn refuse(&self, decided: &Decided) -> Problem {
        self.record(decided).await;
        Problem::denied(&decided.decision, &decided.subject.id)
    }
}

/// Too much under way.
pub fn busy() -> Problem {
    Problem::new(StatusCode::TOO_MANY_REQUESTS, reasons::TOO_MANY_REQUESTS, "this replica has as many calls under way as it takes")
}

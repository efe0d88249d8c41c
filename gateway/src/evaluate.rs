//! `evaluate`: what would be decided, for frameworks that gate tools which they run themselves. Decides as `calls` does, on the same view, and leaves
//! nothing behind: no record, no reservation, no Approval. Budgets and keys are the ledger's, so an allow here can still be refused by a call.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::HeaderMap,
};
use polity_api::{Caller, ToolCallSpec, approval::Requirement, reasons, toolcall::Decision as Shown};
use polity_policy::Verdict;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    answer,
    body::{self, CallBody, unreadable},
    calls::org_of,
    decide::{Ask, busy},
    id,
    metrics::Door,
    problem::Problem,
    state::Gateway,
    trace,
};

/// Most questions of one request.
pub const MAX_ITEMS: usize = 64;
/// Fields of a call that mean something to a question about it.
pub const ITEM_FIELDS: &[&str] = &["tool", "toolOrg", "input", "taskRef", "jobSpace", "context"];

/// One question, or a list of them.
#[derive(Debug, Deserialize)]
struct Asked {
    /// Org; only where the path does not name it.
    #[serde(default)]
    org: Option<String>,
    #[serde(default)]
    items: Option<Vec<Value>>,
    #[serde(flatten)]
    one: Map<String, Value>,
}

/// What would be decided.
#[derive(Debug, Serialize)]
pub struct Evaluation {
    /// Verdict, reason, message, hint, rules, digest of the view.
    #[serde(flatten)]
    pub decision: Shown,
    /// The input as rules have rewritten it: what is decided is a call with this input. Absent: as it was asked.
    #[serde(rename = "rewrittenInput", skip_serializing_if = "Option::is_none")]
    pub rewritten: Option<Value>,
    /// Who would have to approve.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requirements: Vec<Requirement>,
}

/// `POST /v1/orgs/{org}/evaluate`.
pub async fn of_org(
    State(gateway): State<Arc<Gateway>>,
    org: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let caller = gateway.caller(&headers).await?;
    let org = org_of(org)?;
    let asked: Asked = body::read(&headers, body, body::MAX_BODY).await?;
    if asked.org.as_ref().is_some_and(|named| *named != org) {
        return Err(Problem::invalid("org is not that of the path").hint("leave org out where the path names it"));
    }
    gateway.evaluate(&org, &caller, asked, &headers).await
}

/// `POST /v1/evaluate`.
pub async fn any_org(State(gateway): State<Arc<Gateway>>, headers: HeaderMap, body: Body) -> Result<Json<Value>, Problem> {
    let caller = gateway.caller(&headers).await?;
    let mut asked: Asked = body::read(&headers, body, body::MAX_BODY).await?;
    let org = asked.org.take().ok_or_else(|| Problem::invalid("org is missing: the Org whose rules are asked"))?;
    gateway.evaluate(&org, &caller, asked, &headers).await
}

impl Gateway {
    async fn evaluate(&self, org: &str, caller: &Caller, asked: Asked, headers: &HeaderMap) -> Result<Json<Value>, Problem> {
        let _slot = self.call_slots.try_acquire().map_err(|_| busy())?;
        let trace = trace::of(headers, rand::random());
        let Some(items) = asked.items else {
            return json(self.evaluate_one(org, caller, Value::Object(asked.one), &trace).await?);
        };
        if let Some(field) = asked.one.keys().next() {
            return Err(Problem::invalid(format!("{field:?} beside items; each item has its own fields")));
        }
        if items.is_empty() || items.len() > MAX_ITEMS {
            return Err(Problem::invalid(format!("items must have 1 to {MAX_ITEMS} entries")));
        }
        let mut answers = Vec::with_capacity(items.len());
        for item in items {
            // A question that cannot be answered is a no, and says nothing about the others.
            let answer = match self.evaluate_one(org, caller, item, &trace).await {
                Ok(answer) => serde_json::to_value(answer),
                Err(problem) => serde_json::to_value(problem.body()).map(|mut told| {
                    told["verdict"] = Verdict::Deny.name().into();
                    told
                }),
            };
            answers.push(answer.map_err(|e| unwritable(&e))?);
            // Each decision may take its full time.
            tokio::task::yield_now().await;
        }
        json(serde_json::json!({ "items": answers }))
    }

    async fn evaluate_one(&self, org: &str, caller: &Caller, item: Value, trace: &str) -> Result<Evaluation, Problem> {
        let asked = self.evaluate_item(org, caller, item, trace).await;
        match &asked {
            Ok(evaluation) => self.metrics.counted(Door::Evaluate, &evaluation.decision.verdict, &evaluation.decision.reason),
            Err(problem) => self.metrics.counted(Door::Evaluate, "Error", problem.reason()),
        }
        asked
    }

    async fn evaluate_item(&self, org: &str, caller: &Caller, item: Value, trace: &str) -> Result<Evaluation, Problem> {
        let spec = spec(item)?;
        let id = id::new(self.view(org)?.org_uid(), &caller.username, rand::random());
        let ask = Ask::new(org, caller.clone(), spec, id, trace.to_owned());
        let decision = self.decide(&ask, &[]).await?.decision;
        let shown = answer::shown(&decision, None, self.replica.process(), self.clock.now());
        Ok(Evaluation { decision: shown, rewritten: decision.rewritten, requirements: decision.requirements })
    }
}

/// The call that is asked about.
fn spec(item: Value) -> Result<ToolCallSpec, Problem> {
    if let Some(field) = item.as_object().and_then(|fields| fields.keys().find(|f| !ITEM_FIELDS.contains(&f.as_str()))) {
        return Err(Problem::invalid(format!("unknown field {field:?}; known are {}", ITEM_FIELDS.join(", "))));
    }
    let body: CallBody = serde_path_to_error::deserialize(item).map_err(|e| unreadable("the question", &e))?;
    body.into_spec()
}

fn json(value: impl Serialize) -> Result<Json<Value>, Problem> {
    serde_json::to_value(value).map(Json).map_err(|e| unwritable(&e))
}

fn unwritable(error: &serde_json::Error) -> Problem {
    tracing::error!(%error, "an answer cannot be written");
    Problem::unavailable(reasons::UNAVAILABLE, "a fault of Polity: the answer cannot be written")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_means_nothing_to_a_question_is_refused() {
        let refused = |item| spec(item).unwrap_err().message().to_owned();
        assert!(refused(json!({"tool": "t", "idempotencyKey": "k"})).contains("idempotencyKey"));
        assert!(refused(json!({"tool": "t", "imput": {}})).contains("imput"));
        assert!(refused(json!({})).contains("tool"));
        assert!(refused(json!(1)).contains("cannot be read"));
        assert!(refused(json!({"tool": "t", "input": []})).contains("cannot be read: input: invalid type"));
        assert_eq!(spec(json!({"tool": "t", "input": {"a": 1}})).unwrap().tool.name, "t");
    }
}

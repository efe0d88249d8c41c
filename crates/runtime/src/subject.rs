//! From a decision to what the ledger is told of it: the same words whether core or the edge runs the action.

use std::collections::BTreeMap;

use polity_api::{ToolCallSpec, caller::Caller, names};
use polity_ledger::{Actor, Advised, Amounts, CounterRead, OrgId, Past, Subject, Target, Verdict, unit};
use polity_policy::{Asked, Counting, Decision, Known, Request, ToolFacts, What};
use sha2::{Digest as _, Sha256};

/// Most rules in Warn or Observe that a record names.
const MAX_ADVISED: usize = 64;
/// Most values of counters and of the history that a record has.
const MAX_READ: usize = 256;

/// Builds the ledger's subject of a decided action. `keep_input` is the Org's `record.input: Full`.
#[must_use]
pub fn subject(org: OrgId, namespace: &str, request: &Request<'_>, decision: &Decision, trace: &str, keep_input: bool) -> Subject {
    let tool = decision.tool.as_deref();
    let mut dims = BTreeMap::from([("org".to_owned(), org.uid.clone()), ("verb".to_owned(), request.verb.to_owned())]);
    let mut dim = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            dims.insert(key.to_owned(), value);
        }
    };
    dim("tool", tool.map(|t| format!("{}/{}", t.namespace, t.name)));
    dim("agent", decision.agent.as_ref().map(|a| format!("{}/{}", a.namespace, a.name)));
    dim("task", request.task.map(|t| t.name.clone()));
    dim("jobSpace", request.task.and_then(|t| t.job_space.clone()).or_else(|| request.job_space.map(str::to_owned)));
    dim("context", request.context.map(str::to_owned));
    Subject {
        id: request.id.to_owned(),
        org,
        verb: request.verb.to_owned(),
        target: target(tool, namespace, request.tool),
        actor: actor(request.caller, decision),
        input: decision.rewritten.as_ref().unwrap_or(request.args).clone(),
        snapshot: decision.snapshot.clone(),
        verdict: Verdict {
            effect: decision.verdict.name().to_owned(),
            reason: decision.reason.to_owned(),
            message: decision.message.clone(),
            rules: decision.rules.clone(),
            approvals: Vec::new(),
            rewrites: decision.rewrites.iter().map(|r| r.rule.clone()).collect(),
            advisory: decision.advisory.iter().take(MAX_ADVISED).map(advised).collect(),
        },
        dims,
        trace: trace.to_owned(),
        keep_input,
        past: if let polity_policy::Past::Known(known) = request.past { past(&decision.counting, known) } else { None },
    }
}

fn advised(advisory: &polity_policy::Advisory) -> Advised {
    Advised { rule: advisory.rule.clone(), effect: format!("{:?}", advisory.effect), policy: advisory.policy.to_string() }
}

/// What rules were told of earlier actions, as recorded; None: they asked nothing.
#[must_use]
pub fn past(counting: &Counting, known: &Known) -> Option<Past> {
    let mut past = Past::default();
    for Asked { place, what } in counting.asked.iter().take(MAX_READ) {
        match what {
            What::Counter(policy, name) => {
                let Some(value) = known.counter(policy, name) else { continue };
                let mut by: Vec<String> = place.dims.keys().cloned().collect();
                by.extend(place.by_input.then(|| "input".to_owned()));
                past.counters.push(CounterRead { policy: policy.clone(), name: name.clone(), window: place.window, by, value });
            }
            What::Calls => past.calls = known.calls(),
            What::Tool(tool) => past.tools.extend(known.tool(tool).map(|calls| (tool.clone(), calls))),
            What::Label(label) => past.labels.extend(known.label(label).map(|there| (label.clone(), there))),
        }
    }
    Some(past).filter(|p| *p != Past::default())
}

/// The target, also when the Tool was not found.
fn target(tool: Option<&ToolFacts>, namespace: &str, name: &str) -> Target {
    Target {
        kind: "Tool".to_owned(),
        namespace: tool.map_or(namespace, |t| &t.namespace).to_owned(),
        name: tool.map_or(name, |t| &t.name).to_owned(),
        digest: tool.map(|t| t.digest.clone()).unwrap_or_default(),
    }
}

/// The caller as recorded.
fn actor(caller: &Caller, decision: &Decision) -> Actor {
    let agent = decision.agent.as_ref();
    Actor {
        kind: agent.map_or_else(|| "Unknown".to_owned(), |a| a.kind.clone()),
        agent: agent.map(|a| format!("{}/{}", a.namespace, a.name)).unwrap_or_default(),
        username: caller.username.clone(),
        roles: decision.roles.clone(),
        via: caller.via.clone(),
        chain: caller.chain.clone(),
        pod_uid: caller.pod_uid.clone(),
    }
}

/// What a call reserves: one call and the Tool's price.
#[must_use]
pub fn reserve(tool: &ToolFacts) -> Amounts {
    let mut amounts = Amounts::from([(unit::CALLS.to_owned(), 1)]);
    if tool.micro_usd > 0 {
        amounts.insert(unit::MICRO_USD.to_owned(), tool.micro_usd);
    }
    amounts
}

/// Name of the Pod of a container call.
#[must_use]
pub fn pod_name(id: &str) -> String {
    format!("call-{id}")
}

/// What an Approval is bound to: everything that must not change between asking and running.
#[must_use]
pub fn approval_text(verb: &str, target: &Target, input: &serde_json::Value, caller: &Caller, task: Option<&str>) -> serde_json::Value {
    serde_json::json!({
        "verb": verb,
        "target": {"kind": target.kind, "namespace": target.namespace, "name": target.name, "digest": target.digest},
        "input": input,
        "caller": caller.username,
        "task": task,
    })
}

/// SHA-256 (hex) of what an idempotency key stands for: everything that a caller asks for, however it was asked (API object or edge).
#[must_use]
pub fn body_digest(spec: &ToolCallSpec, input: &serde_json::Value) -> String {
    let body = serde_json::json!({
        "tool": spec.tool.name,
        "toolOrg": spec.tool.org,
        "input": input,
        "taskRef": spec.task_ref.as_ref().map(|t| &t.name),
        "jobSpace": spec.job_space,
        "context": spec.context,
    });
    // A body without a canonical form is refused by the ledger anyway; until then its own text tells it apart.
    let text = polity_ledger::canonical(&body).unwrap_or_else(|_| body.to_string());
    hex::encode(Sha256::digest(text))
}

/// Label values that core puts on the Pod of a call.
#[must_use]
pub fn pod_labels(org: &str, id: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (names::LABEL_MANAGED_BY.to_owned(), names::MANAGED_BY.to_owned()),
        (names::LABEL_ORG.to_owned(), org.to_owned()),
        (names::LABEL_KIND.to_owned(), "ToolCall".to_owned()),
        (names::LABEL_NAME.to_owned(), id.to_owned()),
    ])
}

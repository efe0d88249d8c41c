//! Controller of Agents: the worker Pods and account of an AI Agent, the usernames of people and systems.
//!
//! It starts and stops Pods that it made and nothing else; what a worker may do is decided elsewhere, call by call.

mod build;
mod refusal;
mod status;
#[cfg(test)]
mod tests;
mod usernames;
mod workers;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::{Api, ResourceExt, api::PostParams};
use polity_api::{
    Agent, AgentType, Org,
    conditions::{ANCESTRY, NAMESPACE, NETWORK, is_true},
    names,
};
use polity_plan::workers::{Plan, Wanted, Worker, plan};

use crate::{
    apply::{ApplyError, apply, delete, prune},
    cluster::{NotRunning, controller_uid},
    context::{Context, Refusal},
    engine::{Key, workers::Failure},
    killpoint,
    requeue::{Category, Outcome},
    status::{StatusError, undecodable, write},
};
use status::Observed;
pub use usernames::claimed;

/// How long after a refusal workers are tried again, when no change of quota comes before.
const REFUSED: Duration = Duration::from_secs(60);

/// Why a reconcile of an Agent failed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A child was not written.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The status was not written.
    #[error(transparent)]
    Status(#[from] StatusError),
}

impl Failure for AgentError {
    fn category(&self) -> Category {
        match self {
            Self::Apply(error) => error.category(),
            Self::Status(error) => error.category(),
        }
    }
}

/// What an Agent refers to.
struct Facts {
    agent: Arc<Agent>,
    /// The Org of its namespace, once its namespace is isolated.
    org: Option<Arc<Org>>,
    running: Result<(), NotRunning>,
    now: Timestamp,
}

/// Brings one Agent to what its spec says.
///
/// # Errors
/// A step failed; it is tried again.
pub async fn reconcile(ctx: Arc<Context>, key: Key) -> Result<Outcome, AgentError> {
    let Some(agent) = ctx.cluster.agents.get(&key.0, &key.1) else {
        refusal::forget(&ctx, &key);
        return Ok(undecodable(&ctx.client, &ctx.cluster.agents, &key, ctx.now()).await?);
    };
    if agent.metadata.deletion_timestamp.is_some() {
        // Its Pods and account are owned by it: the garbage collector takes them.
        return Ok(Outcome::Settled);
    }
    let facts = dereference(&ctx, agent);
    let usernames = usernames::usernames(&ctx.cluster, &facts.agent);
    let observed = match facts.agent.spec.type_ {
        AgentType::AI => work(&ctx, &facts).await?,
        AgentType::Human | AgentType::System => Observed::default(),
    };
    let status = status::status(&facts, usernames, &observed);
    write(&Api::namespaced(ctx.client.clone(), &key.0), &ctx.cluster.agents, facts.agent.as_ref(), &status).await?;
    ctx.events.stalled(facts.agent.as_ref(), &status.conditions);
    Ok(next(&facts, &observed))
}

fn dereference(ctx: &Context, agent: Arc<Agent>) -> Facts {
    let namespace = agent.namespace().unwrap_or_default();
    // Nothing runs in a namespace that is not isolated yet, or no longer.
    let isolated =
        |o: &Arc<Org>| o.status.as_ref().is_some_and(|s| [ANCESTRY, NAMESPACE, NETWORK].iter().all(|c| is_true(&s.conditions, c)));
    let org = ctx.cluster.org_of(&namespace).filter(isolated);
    let now = ctx.now();
    let running = org.as_ref().map_or(Ok(()), |o| ctx.cluster.running(&o.name_any(), now));
    Facts { agent, org, running, now }
}

/// Account and workers of an AI Agent.
async fn work(ctx: &Context, facts: &Facts) -> Result<Observed, AgentError> {
    let agent = &facts.agent;
    let (namespace, uid) = (agent.namespace().unwrap_or_default(), agent.uid().unwrap_or_default());
    let mut observed = Observed::default();
    let template = facts.org.as_ref().map(|org| build::template(agent, org, &ctx.edge_url));
    let closing = matches!(facts.running, Err(NotRunning::Deleting(_)));
    match &facts.org {
        Some(org) if !closing => {
            // Any Org's namespace may hold objects of others: look before the first write.
            apply(ctx, &build::account(agent, org), true).await?;
        }
        _ => prune::<ServiceAccount>(ctx, &namespace, &uid, &BTreeSet::new()).await?,
    }
    let pods: Vec<_> = ctx.cluster.pods.in_namespace(&namespace).into_iter().filter(|p| controller_uid(p.as_ref()) == Some(&uid)).collect();
    let list: Vec<Worker> = pods.iter().map(|p| workers::worker(p, facts.now)).collect();
    let replicas = match (&template, &facts.running) {
        (Some(_), Ok(()) | Err(NotRunning::NotCounted(_))) => usize::try_from(agent.spec.replicas.unwrap_or_default()).unwrap_or_default(),
        _ => 0,
    };
    let digest = template.as_ref().map(build::Template::digest).unwrap_or_default();
    let mut todo = plan(&Wanted { replicas, template: &digest, now: facts.now }, &list);
    observed.wanted = replicas;
    observed.crash = todo
        .crashing
        .as_ref()
        .map(|(n, name)| (*n, name.clone(), pods.iter().find(|p| p.name_any() == *name).and_then(|p| workers::last_words(p))));
    observed.again = todo.again;
    if matches!(facts.running, Err(NotRunning::NotCounted(_))) && !todo.create.is_empty() {
        // None starts yet, and those that run go on: a quota that was made anew is counted in a moment.
        todo.create.clear();
        todo.delete.clear();
    }
    let state = refusal::state(&ctx.cluster, &namespace, &digest, replicas);
    if !todo.create.is_empty()
        && let Some(refusal) = refusal::standing(ctx, agent, &state, facts.now)
    {
        todo.create.clear();
        observed.again = Some(observed.again.map_or(refusal.until, |again| again.min(refusal.until)));
        observed.refused = Some(refusal.message);
    }
    let missing = !todo.create.is_empty();
    carry_out(ctx, agent, template.as_ref(), &todo, &pods, &mut observed).await?;
    if missing {
        let until = facts.now.saturating_add(REFUSED).unwrap_or(facts.now);
        refusal::remember(ctx, agent, observed.refused.clone().map(|message| Refusal { state, until, message }));
        observed.again = observed.refused.as_ref().map_or(observed.again, |_| Some(observed.again.map_or(until, |again| again.min(until))));
    }
    let after: Vec<_> =
        ctx.cluster.pods.in_namespace(&namespace).into_iter().filter(|p| controller_uid(p.as_ref()) == Some(&uid)).collect();
    observed.count(&after, &digest, facts.now);
    Ok(observed)
}

/// Deletes first, then makes.
async fn carry_out(
    ctx: &Context,
    agent: &Agent,
    template: Option<&build::Template>,
    todo: &Plan,
    pods: &[Arc<Pod>],
    observed: &mut Observed,
) -> Result<(), AgentError> {
    for pod in pods.iter().filter(|p| todo.delete.contains(&p.name_any())) {
        delete(ctx, pod.as_ref(), None).await?;
        killpoint::reached("agent-pod-deleted");
    }
    let Some(template) = template else { return Ok(()) };
    let namespace = agent.namespace().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &namespace);
    let params = PostParams { field_manager: Some(names::CORE.to_owned()), ..PostParams::default() };
    for attempt in &todo.create {
        let random = uuid::Uuid::new_v4().simple().to_string();
        let pod = template.pod(&random[..6], *attempt);
        match api.create(&params, &pod).await {
            Ok(made) => ctx.cluster.pods.learn(made),
            // Quota, limits, Pod security: people change them, so it is said and tried again, but not in a loop.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 422) => {
                observed.refused = Some(refusal::words(&status.message, &pod.name_any()));
                return Ok(());
            }
            Err(source) => {
                return Err(
                    ApplyError::Kube { what: "creating", kind: "Pod", namespace, name: pod.name_any(), source: Box::new(source) }.into()
                );
            }
        }
        killpoint::reached("agent-pod-created");
    }
    Ok(())
}

/// When to come back.
fn next(facts: &Facts, observed: &Observed) -> Outcome {
    let until = |at: Timestamp| Duration::try_from(at.duration_since(facts.now)).unwrap_or_default() + Duration::from_millis(1);
    let starts = match &facts.running {
        Err(NotRunning::NotStarted(_, at)) => Some(until(*at)),
        _ => None,
    };
    let otherwise = if matches!(facts.running, Err(NotRunning::NotCounted(_))) { Outcome::Waiting } else { Outcome::Settled };
    [observed.again.map(until), starts].into_iter().flatten().min().map_or(otherwise, Outcome::At)
}

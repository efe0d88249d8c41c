//! Workers that the API server refused: remembered, so that a refusal is not asked for again and again. A change of quota, of its use, or
//! of what is wanted lifts it at once; else time does.

use std::sync::PoisonError;

use jiff::Timestamp;
use polity_api::Agent;

use crate::{
    cluster::Cluster,
    context::{Context, Refusal},
    engine::{Key, key_of},
};

/// What a refusal may depend on.
pub fn state(cluster: &Cluster, namespace: &str, template: &str, replicas: usize) -> String {
    let quotas: Vec<_> = cluster.quotas.in_namespace(namespace).iter().map(|q| serde_json::json!([q.spec, q.status])).collect();
    let limits: Vec<_> = cluster.limits.in_namespace(namespace).iter().map(|l| serde_json::json!(l.spec)).collect();
    serde_json::json!([quotas, limits, template, replicas]).to_string()
}

/// The refusal that still stands.
pub fn standing(ctx: &Context, agent: &Agent, state: &str, now: Timestamp) -> Option<Refusal> {
    let refusals = ctx.refusals.lock().unwrap_or_else(PoisonError::into_inner);
    refusals.get(&key_of(&agent.metadata)).filter(|r| r.state == state && r.until > now).cloned()
}

/// Remembers a refusal, or that there is none any more.
pub fn remember(ctx: &Context, agent: &Agent, refusal: Option<Refusal>) {
    let mut refusals = ctx.refusals.lock().unwrap_or_else(PoisonError::into_inner);
    match refusal {
        Some(refusal) => drop(refusals.insert(key_of(&agent.metadata), refusal)),
        None => drop(refusals.remove(&key_of(&agent.metadata))),
    }
}

/// Forgets an Agent that is gone.
pub fn forget(ctx: &Context, key: &Key) {
    ctx.refusals.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
}

/// The API server's words without the Pod's name, which is another one each time: what is said must not change while nothing does.
pub fn words(message: &str, pod: &str) -> String {
    let why = message.split_once("is forbidden: ").map_or(message, |(_, why)| why);
    format!("A worker is refused: {}.", why.replace(pod, "the Pod").trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_same_refusal_has_the_same_words() {
        let message =
            |pod: &str| format!("pods \"{pod}\" is forbidden: exceeded quota: polity, requested: pods=1, used: pods=1, limited: pods=1");
        let words = |pod: &str| super::words(&message(pod), pod);
        assert_eq!(words("agent-bot-1"), words("agent-bot-2"));
        assert_eq!(words("agent-bot-1"), "A worker is refused: exceeded quota: polity, requested: pods=1, used: pods=1, limited: pods=1.");
        assert_eq!(super::words("Pod \"p-1\" is invalid", "p-1"), "A worker is refused: Pod \"the Pod\" is invalid.");
    }
}

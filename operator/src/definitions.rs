//! Records what was in force: each version of an Org's definitions goes into its chain once, with the time it came and went.
//! Writes nothing when nothing changed. Never judges a definition.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube::ResourceExt;
use polity_ledger::{Definition, OrgId, Refused};
use polity_policy::World;
use polity_runtime::{CancellationToken, cache::Cache};
use serde_json::{Value, json};

use crate::dispatch::Gate;

/// Kind, namespace and name of a definition.
type Id = (&'static str, String, String);
/// What of an object is in force.
type Bodies = BTreeMap<Id, Value>;

/// Follows every Org's view and records changes of its definitions, until cancelled.
pub async fn record(gate: Arc<Gate>, cache: Arc<Cache>, stop: CancellationToken) {
    let mut changes = cache.snapshots().changes();
    let mut known: BTreeMap<String, Bodies> = BTreeMap::new();
    loop {
        let org = tokio::select! {
            () = stop.cancelled() => return,
            org = changes.next() => org,
        };
        let world = cache.world();
        let Some(uid) = world.orgs.get(&org).and_then(|o| o.uid()) else { continue };
        let now = bodies(&world, &org);
        let before = known.entry(uid.clone()).or_default();
        let id = OrgId { name: org, uid };
        if let Err(error) = write(&gate, &id, before, now).await {
            // What is not known as written is written at the next change; the ledger drops what it has already.
            tracing::warn!(org = id.name, %error, "recording definitions failed");
        }
    }
}

/// Writes what differs and remembers it one by one, so that a failure repeats nothing but itself.
async fn write(gate: &Gate, org: &OrgId, before: &mut Bodies, now: Bodies) -> Result<(), Refused> {
    let gone: Vec<Id> = before.keys().filter(|id| !now.contains_key(id)).cloned().collect();
    for id in gone {
        define(gate, org, &id, None).await?;
        before.remove(&id);
    }
    for (id, body) in now {
        if before.get(&id) != Some(&body) {
            define(gate, org, &id, Some(body.clone())).await?;
            before.insert(id, body);
        }
    }
    Ok(())
}

async fn define(gate: &Gate, org: &OrgId, (kind, namespace, name): &Id, body: Option<Value>) -> Result<(), Refused> {
    let definition =
        Definition { org: org.clone(), kind: (*kind).to_owned(), namespace: namespace.clone(), name: name.clone(), body, actor: None };
    gate.ledger.definition(gate.epoch(), definition).await.map(drop)
}

/// The definitions of an Org: itself and what lives in its namespace. What it inherits is in the chains above.
fn bodies(world: &World, org: &str) -> Bodies {
    let mut all = Bodies::new();
    let Some(object) = world.orgs.get(org) else { return all };
    all.insert(("Org", String::new(), org.to_owned()), json!({"uid": object.uid(), "spec": object.spec}));
    let Some(namespace) = object.status.as_ref().and_then(|s| s.namespace.as_ref()).map(|n| n.name.clone()) else { return all };
    let mut add = |kind: &'static str, name: &str, body: Value| all.insert((kind, namespace.clone(), name.to_owned()), body);
    for ((_, name), role) in world.roles.iter().filter(|((ns, _), _)| *ns == namespace) {
        let holders: BTreeSet<&str> = role.status.iter().flat_map(|s| &s.holders).map(|h| h.agent.as_str()).collect();
        add("Role", name, json!({"uid": role.uid(), "spec": role.spec, "holders": holders}));
    }
    for ((_, name), policy) in world.policies.iter().filter(|((ns, _), _)| *ns == namespace) {
        add("Policy", name, json!({"uid": policy.uid(), "spec": policy.spec}));
    }
    for ((_, name), agent) in world.agents.iter().filter(|((ns, _), _)| *ns == namespace) {
        let mut spec = agent.spec.clone();
        // How many workers there are decides nothing, and autoscalers change it all the time.
        spec.replicas = None;
        add("Agent", name, json!({"uid": agent.uid(), "spec": spec}));
    }
    for ((_, name), tool) in world.tools.iter().filter(|((ns, _), _)| *ns == namespace) {
        add("Tool", name, json!({"uid": tool.uid(), "spec": tool.spec}));
    }
    all
}

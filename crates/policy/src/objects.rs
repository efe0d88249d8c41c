//! A `World` from manifests alone, for offline tests: what core would have put in force is filled in (namespaces, uids, holders by assignment). It reads no
//! file; what cannot be decoded is kept as such and denies as it would on a cluster.

use std::sync::Arc;

use polity_api::{GROUP, names::LABEL_ORG};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{Key, NamespaceFacts, World};

/// When offline holders began to hold their Roles.
const SINCE: &str = "1970-01-01T00:00:00Z";

impl World {
    /// Builds a World from decoded manifests (also `kind: List`). Objects of other groups are left out, Namespaces aside. Where a `status` is given it is
    /// kept, so that an export of a cluster works too.
    #[must_use]
    pub fn from_objects(objects: Vec<Value>) -> Self {
        let mut objects = flatten(objects);
        let mut world = Self::default();
        for object in objects.iter().filter(|o| text(o, "/kind") == "Namespace" && text(o, "/apiVersion") == "v1") {
            let name = text(object, "/metadata/name");
            let consent = object.pointer("/metadata/labels").and_then(|l| l.get(LABEL_ORG)).and_then(Value::as_str).map(str::to_owned);
            let terminating = object.pointer("/metadata/deletionTimestamp").is_some_and(|t| !t.is_null());
            let uid =
                Some(text(object, "/metadata/uid")).filter(|u| !u.is_empty()).map_or_else(|| format!("namespace-{name}"), str::to_owned);
            world.namespaces.insert(name.to_owned(), NamespaceFacts { uid, consent, terminating });
        }
        objects.retain(|o| text(o, "/apiVersion").split('/').next() == Some(GROUP));
        for object in &mut objects {
            complete(object, &mut world);
        }
        let agents: Vec<Key> = objects.iter().filter(|o| text(o, "/kind") == "Agent").map(key).collect();
        for object in &mut objects {
            if text(object, "/kind") == "Role" && object.pointer("/status/holders").is_none() {
                assign(object, &agents);
            }
        }
        for object in objects {
            world.take(object);
        }
        world
    }

    fn take(&mut self, object: Value) {
        let (namespace, name) = key(&object);
        let kind = text(&object, "/kind").to_owned();
        let at = (namespace.clone(), name.clone());
        let result = match kind.as_str() {
            "Org" => decode(object).map(|o| drop(self.orgs.insert(name.clone(), o))),
            "Role" => decode(object).map(|o| drop(self.roles.insert(at, o))),
            "Policy" => decode(object).map(|o| drop(self.policies.insert(at, o))),
            "Agent" => decode(object).map(|o| drop(self.agents.insert(at, o))),
            "Tool" => decode(object).map(|o| drop(self.tools.insert(at, o))),
            // ToolCalls, Approvals and Tasks are no part of what is in force
            _ => return,
        };
        if let Err(error) = result {
            let namespace = if kind == "Org" { String::new() } else { namespace };
            self.undecodable.insert((kind, namespace, name), error);
        }
    }
}

fn flatten(objects: Vec<Value>) -> Vec<Value> {
    let mut out = Vec::new();
    for mut object in objects {
        match object.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) if text(&object, "/kind").ends_with("List") => out.extend(items),
            _ => out.push(object),
        }
    }
    out
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn key(object: &Value) -> Key {
    (text(object, "/metadata/namespace").to_owned(), text(object, "/metadata/name").to_owned())
}

fn decode<T: DeserializeOwned>(object: Value) -> Result<Arc<T>, String> {
    serde_json::from_value(object).map(Arc::new).map_err(|e| e.to_string())
}

/// Gives an object its namespace and uid, and an Org its namespace in force.
fn complete(object: &mut Value, world: &mut World) {
    let (kind, name) = (text(object, "/kind").to_owned(), text(object, "/metadata/name").to_owned());
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if kind != "Org" {
        metadata.entry("namespace").or_insert_with(|| json!("default"));
    }
    let namespace = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default().to_owned();
    metadata.entry("uid").or_insert_with(|| json!(format!("{}-{namespace}-{name}", kind.to_lowercase())));
    if kind != "Org" {
        return;
    }
    let wanted = Some(text(object, "/spec/namespace")).filter(|n| !n.is_empty()).unwrap_or(&name).to_owned();
    let given = (text(object, "/status/namespace/name").to_owned(), text(object, "/status/namespace/uid").to_owned());
    if !given.0.is_empty() {
        world.namespaces.entry(given.0).or_insert_with(|| NamespaceFacts { uid: given.1, consent: Some(name), terminating: false });
        return;
    }
    let created = !world.namespaces.contains_key(&wanted);
    let facts = world
        .namespaces
        .entry(wanted.clone())
        .or_insert_with(|| NamespaceFacts { uid: format!("namespace-{wanted}"), ..NamespaceFacts::default() });
    let namespace = json!({"name": wanted, "uid": facts.uid, "created": created});
    if let Some(object) = object.as_object_mut() {
        let status = object.entry("status").or_insert_with(|| json!({}));
        if let Some(status) = status.as_object_mut() {
            status.insert("namespace".to_owned(), namespace);
        }
    }
}

/// Gives a Role the holders that its assignment names, as far as these Agents are there.
fn assign(role: &mut Value, agents: &[Key]) {
    let (namespace, _) = key(role);
    let named = role.pointer("/spec/assignment/agents").and_then(Value::as_array).cloned().unwrap_or_default();
    let most = match text(role, "/spec/assignment/mode") {
        "Fixed" | "Single" => 1,
        _ => role.pointer("/spec/assignment/max").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX),
    };
    let there = named.iter().filter_map(Value::as_str).filter(|name| agents.iter().any(|(ns, n)| *ns == namespace && n == name));
    let holders: Vec<Value> = there.take(most).map(|agent| json!({"agent": agent, "source": "Assignment", "since": SINCE})).collect();
    if let Some(role) = role.as_object_mut() {
        let status = role.entry("status").or_insert_with(|| json!({}));
        if let Some(status) = status.as_object_mut() {
            status.insert("holders".to_owned(), Value::Array(holders));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fills_in_what_core_would() {
        let world = World::from_objects(vec![
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "adopted", "labels": {"polity.dev/org": "b"}}}),
            json!({"kind": "List", "items": [
                {"apiVersion": "polity.dev/v1alpha1", "kind": "Org", "metadata": {"name": "a"}, "spec": {}},
                {"apiVersion": "polity.dev/v1alpha1", "kind": "Org", "metadata": {"name": "b"}, "spec": {"namespace": "adopted"}},
            ]}),
            json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "x", "namespace": "a"}, "spec": {"type": "Human", "usernames": ["x"]}}),
            json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Role", "metadata": {"name": "r", "namespace": "a"}, "spec": {"assignment": {"agents": ["gone", "x"]}}}),
            json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Policy", "metadata": {"name": "p", "namespace": "a"}, "spec": {"rules": 5}}),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "other"}}),
        ]);
        let namespace = |org: &str| world.orgs[org].status.as_ref().unwrap().namespace.clone().unwrap();
        assert!(namespace("a").created && !namespace("b").created);
        assert_eq!(namespace("b").uid, world.namespaces["adopted"].uid);
        let role = &world.roles[&("a".to_owned(), "r".to_owned())];
        assert_eq!(role.status.as_ref().unwrap().holders.iter().map(|h| h.agent.as_str()).collect::<Vec<_>>(), ["x"]);
        assert!(world.undecodable.contains_key(&("Policy".to_owned(), "a".to_owned(), "p".to_owned())));
    }
}

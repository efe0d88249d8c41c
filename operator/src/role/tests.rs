//! Roles, Agents and Orgs as manifests in, status out.
#![allow(clippy::needless_pass_by_value, reason = "manifests are literals")]

use polity_runtime::guarded::Guarded;
use serde_json::{Value, json};

use super::*;

fn put<K: kube::Resource + serde::de::DeserializeOwned>(store: &crate::engine::store::Store<K>, value: Value) {
    store.put(serde_json::from_value::<Guarded<K>>(value).unwrap());
}

fn world() -> Cluster {
    let cluster = Cluster::default();
    for (name, parent) in [("acme", None), ("fin", Some("acme"))] {
        put(&cluster.namespaces, json!({"metadata": {"name": name, "uid": format!("ns-{name}"), "labels": {"polity.dev/org": name}}}));
        put(
            &cluster.orgs,
            json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Org", "metadata": {"name": name}, "spec": {"parentRef": parent.map(|p| json!({"name": p}))},
                "status": {"namespace": {"name": name, "uid": format!("ns-{name}"), "created": true}}}),
        );
    }
    for name in ["a", "b"] {
        put(&cluster.agents, json!({"metadata": {"name": name, "namespace": "fin"}, "spec": {"type": "Human", "usernames": [name]}}));
    }
    cluster
}

fn role(cluster: &Cluster, namespace: &str, name: &str, spec: Value) -> Arc<Role> {
    put(
        &cluster.roles,
        json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Role", "metadata": {"namespace": namespace, "name": name, "generation": 1}, "spec": spec}),
    );
    cluster.roles.get(namespace, name).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn ready(status: &RoleStatus) -> (String, String, bool) {
    let condition = status.conditions.iter().find(|c| c.type_ == READY).unwrap();
    let stalled = polity_api::conditions::is_true(&status.conditions, polity_api::conditions::STALLED);
    (condition.reason.clone(), condition.message.clone(), stalled)
}

#[test]
fn who_stays_keeps_his_time_and_at_rest_nothing_changes() {
    let cluster = world();
    let first = role(&cluster, "fin", "clerk", json!({"assignment": {"agents": ["a"]}}));
    let one = status(&dereference(&cluster, first.clone(), at(1)));
    assert_eq!(one.holders.iter().map(|h| (h.agent.as_str(), h.since.0)).collect::<Vec<_>>(), [("a", at(1))]);
    let mut more = (*first).clone();
    more.spec.assignment.agents.push("b".to_owned());
    more.status = Some(one);
    let two = status(&dereference(&cluster, Arc::new(more.clone()), at(9)));
    assert_eq!(two.holders.iter().map(|h| (h.agent.as_str(), h.since.0)).collect::<Vec<_>>(), [("a", at(1)), ("b", at(9))]);
    more.status = Some(two.clone());
    assert_eq!(status(&dereference(&cluster, Arc::new(more), at(99))), two);
}

#[test]
fn a_missing_agent_is_named_and_holds_nothing() {
    let cluster = world();
    let clerk = role(&cluster, "fin", "clerk", json!({"assignment": {"agents": ["a", "ghost"]}}));
    let status = status(&dereference(&cluster, clerk, at(1)));
    assert_eq!(status.holders.len(), 1);
    let (reason, message, stalled) = ready(&status);
    assert_eq!((reason.as_str(), stalled), (reasons::AGENT_NOT_FOUND, false));
    assert!(message.contains("ghost"), "{message}");
}

#[test]
fn every_role_of_a_cycle_stalls_and_names_it() {
    let cluster = world();
    for (name, to) in [("x", "y"), ("y", "z"), ("z", "x"), ("outside", "x")] {
        role(&cluster, "fin", name, json!({"reportsTo": {"name": to}}));
    }
    for (name, line) in [("x", "x → y → z → x"), ("y", "y → z → x → y"), ("z", "z → x → y → z")] {
        let (reason, message, stalled) = ready(&status(&dereference(&cluster, cluster.roles.get("fin", name).unwrap(), at(1))));
        assert_eq!((reason.as_str(), stalled), (reasons::REPORTING_CYCLE, true));
        assert!(message.contains(line), "{message}");
    }
    assert_eq!(ready(&status(&dereference(&cluster, cluster.roles.get("fin", "outside").unwrap(), at(1)))).0, "Assigned");
}

#[test]
fn a_superior_above_must_be_exported_and_above() {
    let cluster = world();
    role(&cluster, "acme", "ceo", json!({"export": "Descendants"}));
    role(&cluster, "acme", "secret", json!({}));
    role(&cluster, "fin", "cfo", json!({}));
    for (namespace, to, expected) in [
        ("fin", json!({"name": "ceo", "org": "acme"}), "Assigned"),
        ("fin", json!({"name": "secret", "org": "acme"}), reasons::SUPERIOR_NOT_FOUND),
        ("fin", json!({"name": "ceo"}), reasons::SUPERIOR_NOT_FOUND),
        ("acme", json!({"name": "cfo", "org": "fin"}), reasons::SUPERIOR_NOT_FOUND),
    ] {
        let role = role(&cluster, namespace, "subject", json!({"reportsTo": to}));
        assert_eq!(ready(&status(&dereference(&cluster, role.clone(), at(1)))).0, expected, "{:?}", role.spec.reports_to);
        cluster.roles.forget(&role);
    }
}

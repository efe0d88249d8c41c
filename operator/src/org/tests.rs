//! Manifests in, objects and status out; no mocks.
#![allow(clippy::needless_pass_by_value, reason = "manifests are literals")]

use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use polity_api::{Org, OrgStatus, conditions, org::NamespaceRef, reasons};
use polity_plan::quota::allocate;
use polity_runtime::guarded::Guarded;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    apply::Applied,
    build::{self, Bundle},
    dereference::{Facts, dereference, units},
    status::status,
    validate::{Checked, Plan, validate},
};
use crate::{cluster::Cluster, compare::difference, engine::store::Store};

fn put<K: Resource + DeserializeOwned>(store: &Store<K>, value: Value) {
    store.put(serde_json::from_value::<Guarded<K>>(value).unwrap());
}

fn org(cluster: &Cluster, name: &str, second: i64, spec: Value) {
    let created = Timestamp::from_second(second).unwrap();
    put(
        &cluster.orgs,
        json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Org", "metadata": {"name": name, "uid": format!("uid-{name}"), "generation": 1, "creationTimestamp": created}, "spec": spec}),
    );
}

fn namespace(cluster: &Cluster, name: &str, labels: &Value, owner: Option<&str>) {
    let owners = owner
        .map(|o| json!([{"apiVersion": "polity.dev/v1alpha1", "kind": "Org", "name": o, "uid": format!("uid-{o}"), "controller": true}]));
    put(&cluster.namespaces, json!({"metadata": {"name": name, "uid": format!("ns-{name}"), "labels": labels, "ownerReferences": owners}}));
}

fn facts(cluster: &Cluster, name: &str) -> Facts {
    dereference(
        cluster,
        cluster.orgs.get("", name).unwrap(),
        Some("PEM".to_owned()),
        "polity-system",
        Timestamp::from_second(1000).unwrap(),
    )
}

fn plan(cluster: &Cluster, name: &str) -> Result<Plan, String> {
    validate(&facts(cluster, name)).namespace.map_err(|stop| format!("{}: {}", stop.reason, stop.message))
}

/// As if everything that may be applied had been.
fn applied(cluster: &Cluster, facts: &Facts, checked: &Checked) -> Applied {
    if checked.ancestry.is_err() || checked.namespace.is_err() {
        return Applied::default();
    }
    let name = facts.org.name_any();
    let share = allocate(&units(cluster, &name)).remove(&name).unwrap();
    let namespace = NamespaceRef { name: facts.org.wanted_namespace().to_owned(), uid: "n".to_owned(), created: true };
    Applied {
        namespace: Some(namespace),
        hard: Some(share.hard.clone()),
        share: Some(share),
        uncounted: Vec::new(),
        taken: None,
        done: true,
    }
}

fn status_of(cluster: &Cluster, name: &str) -> OrgStatus {
    let facts = facts(cluster, name);
    let checked = validate(&facts);
    status(&facts, &checked, &applied(cluster, &facts, &checked))
}

fn condition(status: &OrgStatus, type_: &str) -> (String, String) {
    status.conditions.iter().find(|c| c.type_ == type_).map(|c| (c.status.clone(), c.reason.clone())).unwrap_or_default()
}

#[test]
fn consent_has_two_sides() {
    let cluster = Cluster::default();
    org(&cluster, "acme", 1, json!({"namespace": "mine"}));
    assert_eq!(plan(&cluster, "acme"), Ok(Plan::Create));
    namespace(&cluster, "mine", &json!({}), None);
    assert!(plan(&cluster, "acme").unwrap_err().contains("kubectl label namespace mine polity.dev/org=acme"));
    namespace(&cluster, "other", &json!({"polity.dev/org": "acme"}), None);
    assert!(plan(&cluster, "acme").is_err(), "a label on a namespace that the Org does not name gives nothing");
    let cluster = Cluster::default();
    org(&cluster, "acme", 1, json!({"namespace": "mine"}));
    namespace(&cluster, "mine", &json!({"polity.dev/org": "acme"}), None);
    assert_eq!(plan(&cluster, "acme"), Ok(Plan::Adopted("ns-mine".to_owned())));
}

#[test]
fn a_namespace_that_core_made_stays_ours_without_its_label_but_not_with_anothers() {
    for (labels, expected) in [(json!({"polity.dev/org": "acme"}), true), (json!({}), true), (json!({"polity.dev/org": "evil"}), false)] {
        let cluster = Cluster::default();
        org(&cluster, "acme", 1, json!({}));
        namespace(&cluster, "acme", &labels, Some("acme"));
        assert_eq!(plan(&cluster, "acme") == Ok(Plan::Own("ns-acme".to_owned())), expected, "{labels}");
    }
}

#[test]
fn reserved_and_used_namespaces_are_refused() {
    for name in ["kube-system", "kube-x", "default", "polity-system"] {
        let cluster = Cluster::default();
        org(&cluster, "acme", 1, json!({"namespace": name}));
        namespace(&cluster, name, &json!({"polity.dev/org": "acme"}), None);
        assert!(plan(&cluster, "acme").unwrap_err().starts_with(reasons::NAMESPACE_NOT_CONSENTING), "{name}");
    }
    let cluster = Cluster::default();
    org(&cluster, "first", 1, json!({"namespace": "shared"}));
    org(&cluster, "second", 2, json!({"namespace": "shared"}));
    assert_eq!(plan(&cluster, "first"), Ok(Plan::Create));
    assert!(plan(&cluster, "second").unwrap_err().contains("used by Org first"));
}

#[test]
fn broken_ancestry_provisions_nothing_and_says_why() {
    let cluster = Cluster::default();
    org(&cluster, "orphan", 1, json!({"parentRef": {"name": "late"}}));
    org(&cluster, "x", 1, json!({"parentRef": {"name": "y"}}));
    org(&cluster, "y", 1, json!({"parentRef": {"name": "x"}}));
    let orphan = status_of(&cluster, "orphan");
    assert_eq!(condition(&orphan, conditions::READY), ("False".to_owned(), reasons::ANCESTRY_BROKEN.to_owned()));
    assert!(conditions::is_true(&orphan.conditions, conditions::RECONCILING), "a parent may come yet");
    assert!(conditions::is_true(&status_of(&cluster, "x").conditions, conditions::STALLED), "a cycle does not go by itself");
    assert_eq!(orphan.namespace, None);
}

#[test]
fn every_object_of_an_org() {
    let cluster = Cluster::default();
    let members = json!([
        {"kind": "User", "name": "bob", "role": "admin"}, {"kind": "Group", "name": "devs", "role": "admin"}, {"kind": "User", "name": "alice", "role": "admin"},
        {"kind": "User", "name": "alice", "role": "admin"}, {"kind": "User", "name": "system:admin", "role": "admin"}, {"kind": "Group", "name": "board", "role": "director"},
    ]);
    org(
        &cluster,
        "acme",
        1,
        json!({"members": members, "quota": {"hard": {"requests.cpu": "4000m"}, "containerLimits": {"memory": "1024Mi"}}}),
    );
    let facts = facts(&cluster, "acme");
    let checked = validate(&facts);
    assert_eq!(checked.refused.as_ref().map(|s| (s.reason, s.stalled)), Some((reasons::MEMBER_REFUSED, true)));
    let Bundle { limits, network, ca, account, bindings } = build::bundle(&facts, &checked.members);
    let hard = allocate(&units(&cluster, "acme"))["acme"].hard.clone();
    let quota = serde_json::to_value(build::resource_quota(&facts.org, &hard)).unwrap();
    assert_eq!(
        quota["spec"]["hard"],
        json!({"requests.cpu": "4", "count/toolcalls.polity.dev": "1k", "count/approvals.polity.dev": "1k", "count/tasks.polity.dev": "1k"})
    );
    assert_eq!(quota["metadata"]["ownerReferences"][0]["uid"], "uid-acme");
    let limits = serde_json::to_value(&limits).unwrap();
    assert_eq!(
        limits["spec"]["limits"],
        json!([{"type": "Container", "default": {"cpu": "500m", "memory": "1Gi"}, "defaultRequest": {"cpu": "50m", "memory": "64Mi"}}])
    );
    let names: Vec<_> = network.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["polity-default-deny", "polity-dns", "polity-edge"]);
    let deny = serde_json::to_value(&network[0]).unwrap();
    assert_eq!(deny["spec"], json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
    let edge = serde_json::to_value(&network[2]).unwrap();
    assert_eq!(edge["spec"]["egress"][0]["ports"], json!([{"protocol": "TCP", "port": 8443}]));
    assert_eq!(edge["spec"]["egress"][0]["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], "polity-system");
    assert_eq!(ca.unwrap().data.unwrap()["ca.crt"], "PEM");
    assert_eq!(account.automount_service_account_token, Some(false));
    let bound: Vec<_> = bindings
        .iter()
        .map(|b| (b.name_any(), b.role_ref.name.clone(), b.subjects.iter().flatten().map(|s| s.name.clone()).collect::<Vec<_>>()))
        .collect();
    assert_eq!(
        bound,
        [
            (
                "polity-member-admin".to_owned(),
                "polity-org-admin".to_owned(),
                vec!["alice".to_owned(), "bob".to_owned(), "devs".to_owned()]
            ),
            ("polity-member-director".to_owned(), "polity-org-director".to_owned(), vec!["board".to_owned()]),
        ]
    );
    let namespace = build::namespace(&facts.org);
    assert_eq!(namespace.labels()["pod-security.kubernetes.io/enforce"], "restricted");
    assert_eq!(namespace.labels()["polity.dev/org"], "acme");
}

#[test]
fn the_edge_may_read_secrets_only_where_a_tool_needs_it() {
    let cluster = Cluster::default();
    org(&cluster, "acme", 1, json!({}));
    let bindings = |cluster: &Cluster| {
        let facts = facts(cluster, "acme");
        build::bundle(&facts, &validate(&facts).members).bindings
    };
    let tool = |runtime: Value| json!({"metadata": {"namespace": "acme", "name": "t"}, "spec": {"runtime": runtime}});
    put(&cluster.tools, tool(json!({"http": {"url": "https://x.example/"}})));
    assert!(bindings(&cluster).is_empty());
    cluster.tools.forget(&cluster.tools.get("acme", "t").unwrap());
    put(
        &cluster.tools,
        tool(json!({"http": {"url": "https://x.example/", "secretHeaders": [{"name": "Authorization", "secret": "s", "key": "k"}]}})),
    );
    let binding = bindings(&cluster).remove(0);
    let subject = binding.subjects.unwrap().remove(0);
    assert_eq!(
        (binding.role_ref.name.as_str(), subject.name.as_str(), subject.namespace.as_deref()),
        ("polity-edge-secrets", "polity-edge", Some("polity-system"))
    );
}

#[test]
fn what_was_built_compares_as_the_same_after_a_round_trip() {
    let cluster = Cluster::default();
    org(&cluster, "acme", 1, json!({"members": [{"kind": "User", "name": "a", "role": "viewer"}]}));
    let facts = facts(&cluster, "acme");
    let bundle = build::bundle(&facts, &validate(&facts).members);
    for desired in
        bundle.network.iter().map(|n| serde_json::to_value(n).unwrap()).chain([serde_json::to_value(&bundle.bindings[0]).unwrap()])
    {
        let mut live = desired.clone();
        live["metadata"]["uid"] = json!("x");
        live["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(difference(&desired, &live, &["spec", "subjects"]).is_none());
    }
}

#[test]
fn suspension_and_start_come_down_the_tree() {
    let cluster = Cluster::default();
    org(&cluster, "root", 1, json!({"suspend": true}));
    org(&cluster, "mid", 2, json!({"parentRef": {"name": "root"}}));
    org(&cluster, "later", 3, json!({"startAt": "1970-01-01T00:16:41Z"}));
    let mid = status_of(&cluster, "mid");
    assert_eq!(condition(&mid, conditions::STARTED), ("False".to_owned(), reasons::ORG_SUSPENDED.to_owned()));
    assert_eq!(condition(&mid, conditions::READY).0, "True", "provisioned all the same");
    assert_eq!(mid.path, ["root", "mid"]);
    assert_eq!(condition(&status_of(&cluster, "later"), conditions::STARTED), ("False".to_owned(), "NotYetStarted".to_owned()));
    let facts = facts(&cluster, "later");
    let next = super::next(&facts, &Applied::default(), &OrgStatus::default());
    assert_eq!(next, crate::requeue::Outcome::At(std::time::Duration::from_millis(1001)), "one second away, and not before");
}

#[test]
fn quota_that_cannot_be_had_is_said_and_at_rest_the_status_stays() {
    let cluster = Cluster::default();
    org(&cluster, "root", 1, json!({"quota": {"hard": {"pods": "10"}}}));
    org(&cluster, "child", 2, json!({"parentRef": {"name": "root"}, "quota": {"hard": {"pods": "11"}}}));
    org(&cluster, "huge", 3, json!({"quota": {"hard": {"pods": "9999999999999999999999999999999999999999"}}}));
    let child = status_of(&cluster, "child");
    assert_eq!(condition(&child, conditions::QUOTA), ("False".to_owned(), reasons::QUOTA_UNAVAILABLE.to_owned()));
    assert_eq!(child.quota["pods"].0, "0");
    assert_eq!(condition(&status_of(&cluster, "huge"), conditions::QUOTA).1, reasons::QUOTA_INVALID);
    let mut again: Org = (*cluster.orgs.get("", "child").unwrap()).clone();
    again.status = Some(child.clone());
    again.metadata.resource_version = Some("2".to_owned());
    cluster.orgs.learn(again);
    assert_eq!(status_of(&cluster, "child"), child);
}

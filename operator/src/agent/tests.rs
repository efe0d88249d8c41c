//! Manifests in, Pods and status out; no mocks.
#![allow(clippy::needless_pass_by_value, reason = "manifests are literals")]

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use polity_api::{Agent, AgentStatus, Org, conditions, reasons};
use polity_runtime::guarded::Guarded;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    Facts, build,
    status::{Observed, status},
    usernames::{Refused, usernames},
    workers::{last_words, worker},
};
use crate::{
    cluster::{Cluster, NotRunning},
    engine::store::Store,
};

fn put<K: Resource + DeserializeOwned>(store: &Store<K>, value: Value) {
    store.put(serde_json::from_value::<Guarded<K>>(value).unwrap());
}
fn from<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}
fn acme() -> Org {
    from(json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Org", "metadata": {"name": "acme"}, "spec": {}}))
}
fn bot() -> Agent {
    from(
        json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "bot", "namespace": "acme-ns", "uid": "u", "generation": 3},
        "spec": {"type": "AI", "image": "x:1", "command": ["/run"], "replicas": 2, "env": [{"name": "A", "value": "b"}], "resources": {"limits": {"memory": "64Mi"}}}}),
    )
}

#[test]
fn a_worker_is_restricted_and_has_one_token() {
    let template = build::template(&bot(), &acme(), "https://polity-edge.polity-system.svc");
    let pod = serde_json::to_value(template.pod("abc123", 0)).unwrap();
    assert_eq!(pod["metadata"]["name"], "agent-bot-abc123");
    assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "Agent");
    let spec = &pod["spec"];
    assert_eq!(spec["serviceAccountName"], "polity-agent-bot");
    assert_eq!(
        (&spec["automountServiceAccountToken"], &spec["enableServiceLinks"], &spec["restartPolicy"]),
        (&json!(false), &json!(false), &json!("Never"))
    );
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
    assert_eq!(spec["securityContext"]["runAsUser"], 65532);
    assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &spec["containers"][0];
    assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
    assert_eq!(container["resources"], json!({"limits": {"memory": "64Mi"}}));
    let tokens: Vec<_> =
        spec["volumes"].as_array().unwrap().iter().filter_map(|v| v["projected"]["sources"].as_array()).flatten().collect();
    assert_eq!(tokens, [&json!({"serviceAccountToken": {"audience": "polity", "expirationSeconds": 3600, "path": "token"}})]);
    let env: std::collections::BTreeMap<_, _> =
        container["env"].as_array().unwrap().iter().map(|e| (e["name"].as_str().unwrap(), e["value"].as_str().unwrap_or("from"))).collect();
    assert_eq!(env["POLITY_URL"], "https://polity-edge.polity-system.svc/v1/orgs/acme");
    assert_eq!((env["POLITY_ORG"], env["POLITY_AGENT"], env["A"]), ("acme", "bot", "b"));
    let mounts: Vec<_> = container["volumeMounts"].as_array().unwrap().iter().map(|m| m["mountPath"].as_str().unwrap()).collect();
    assert!(["/tmp", "/var/run/polity/token", "/var/run/polity/ca"].iter().all(|p| mounts.contains(p)));
    assert!(env["POLITY_TOKEN_FILE"].starts_with("/var/run/polity/token/") && env["POLITY_CA_FILE"].starts_with("/var/run/polity/ca/"));
}

#[test]
fn the_digest_changes_with_the_worker_and_with_nothing_else() {
    let digest = |agent: &Agent| build::template(agent, &acme(), "https://polity-edge.polity-system.svc").digest();
    let one = bot();
    let mut scaled = bot();
    scaled.spec.replicas = Some(9);
    scaled.spec.description = Some("other".to_owned());
    assert_eq!(digest(&one), digest(&scaled));
    for change in [json!({"image": "x:2"}), json!({"command": ["/other"]}), json!({"env": []})] {
        let mut spec = serde_json::to_value(&one.spec).unwrap();
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let other = Agent { spec: from(spec), ..one.clone() };
        assert_ne!(digest(&one), digest(&other), "{change}");
    }
    let pod = build::template(&one, &acme(), "https://polity-edge.polity-system.svc").pod("x", 4);
    let seen = worker(&pod, Timestamp::UNIX_EPOCH);
    assert_eq!((seen.template, seen.attempt), (digest(&one), 4));
}

#[test]
fn how_a_pod_ended_is_read_also_when_it_was_evicted() {
    let crashed: Pod = from(json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"phase": "Failed", "containerStatuses": [{"name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 3, "reason": "Error", "finishedAt": "2026-01-01T00:00:05Z"}}}]}}));
    assert_eq!(worker(&crashed, Timestamp::UNIX_EPOCH).ended, Some("2026-01-01T00:00:05Z".parse().unwrap()));
    assert_eq!(last_words(&crashed).as_deref(), Some("exit code 3 (Error)"));
    let evicted: Pod = from(json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"phase": "Failed", "reason": "Evicted", "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:09Z"}]}}));
    assert_eq!(worker(&evicted, Timestamp::UNIX_EPOCH).ended, Some("2026-01-01T00:00:09Z".parse().unwrap()));
    assert_eq!(last_words(&evicted).as_deref(), Some("Evicted"));
}

fn tree() -> Cluster {
    let cluster = Cluster::default();
    for (name, parent) in [("acme", None), ("fin", Some("acme")), ("other", None)] {
        put(&cluster.namespaces, json!({"metadata": {"name": name, "uid": format!("ns-{name}"), "labels": {"polity.dev/org": name}}}));
        put(
            &cluster.orgs,
            json!({"metadata": {"name": name}, "spec": {"parentRef": parent.map(|p| json!({"name": p}))}, "status": {"namespace": {"name": name, "uid": format!("ns-{name}"), "created": true}}}),
        );
    }
    cluster
}
fn person(cluster: &Cluster, namespace: &str, name: &str, second: i64, spec: Value) -> Result<Vec<String>, Refused> {
    let created = Timestamp::from_second(second).unwrap();
    put(
        &cluster.agents,
        json!({"metadata": {"name": name, "namespace": namespace, "uid": format!("{namespace}-{name}"), "creationTimestamp": created}, "spec": spec}),
    );
    usernames(cluster, &cluster.agents.get(namespace, name).unwrap())
}

#[test]
fn a_username_is_in_one_agent_of_a_tree() {
    let cluster = tree();
    let human = |names: &[&str]| json!({"type": "Human", "usernames": names});
    assert_eq!(person(&cluster, "acme", "anna", 1, human(&["anna@x", "anna"])).unwrap(), ["anna", "anna@x"]);
    let taken = person(&cluster, "fin", "thief", 2, human(&["bob", "anna@x"])).unwrap_err();
    assert_eq!(taken.reason, reasons::USERNAME_TAKEN);
    assert!(taken.message.contains("acme/anna"), "{}", taken.message);
    assert!(person(&cluster, "other", "anna", 3, human(&["anna@x"])).is_ok(), "another tree is another world");
    assert!(usernames(&cluster, &cluster.agents.get("acme", "anna").unwrap()).is_ok(), "the elder keeps it");
}

#[test]
fn an_account_is_no_person_and_belongs_to_its_agent() {
    let cluster = tree();
    let account = "system:serviceaccount:fin:polity-agent-bot";
    let human = person(&cluster, "acme", "fake", 1, json!({"type": "Human", "usernames": [account]})).unwrap_err();
    assert_eq!(human.reason, reasons::NOT_HUMAN);
    assert!(
        person(&cluster, "acme", "ci", 1, json!({"type": "System", "usernames": [account]})).is_ok(),
        "as long as no such Agent is there"
    );
    assert_eq!(person(&cluster, "fin", "bot", 9, json!({"type": "AI", "image": "x", "command": ["x"]})).unwrap(), [account]);
    assert_eq!(
        usernames(&cluster, &cluster.agents.get("acme", "ci").unwrap()).unwrap_err().reason,
        reasons::USERNAME_TAKEN,
        "an AI's account is its own, however young"
    );
}

fn facts(running: Result<(), NotRunning>) -> Facts {
    Facts { agent: Arc::new(bot()), org: Some(Arc::new(acme())), running, now: Timestamp::UNIX_EPOCH }
}
fn ready(status: &AgentStatus) -> (&str, &str) {
    status.conditions.iter().find(|c| c.type_ == conditions::READY).map(|c| (c.status.as_str(), c.reason.as_str())).unwrap()
}

#[test]
fn status_says_what_keeps_workers_away() {
    let seen = |observed: Observed| status(&facts(Ok(())), Ok(vec!["u".to_owned()]), &observed);
    let running = seen(Observed { wanted: 2, replicas: 2, ready: 2, current: 2, ..Observed::default() });
    assert_eq!((ready(&running), running.replicas, running.ready_replicas), (("True", "Running"), 2, 2));
    assert_eq!(running.selector.as_deref(), Some("polity.dev/kind=Agent,polity.dev/name=bot"));
    assert_eq!(
        ready(&seen(Observed { wanted: 2, replicas: 2, ready: 2, current: 1, ..Observed::default() })),
        ("False", "Starting"),
        "a roll-out under way"
    );
    let limited = seen(Observed { wanted: 2, refused: Some("exceeded quota".to_owned()), ..Observed::default() });
    assert!(conditions::is_true(&limited.conditions, reasons::SCALING_LIMITED));
    assert_eq!(ready(&limited), ("False", reasons::SCALING_LIMITED));
    let crash =
        seen(Observed { wanted: 2, replicas: 1, crash: Some((3, "p".to_owned(), Some("exit code 1".to_owned()))), ..Observed::default() });
    assert!(conditions::is_true(&crash.conditions, reasons::CRASH_LOOPING));
    // Both go when they no longer hold.
    let mut agent = bot();
    agent.status = Some(crash);
    let after = status(
        &Facts { agent: Arc::new(agent), ..facts(Ok(())) },
        Ok(vec![]),
        &Observed { wanted: 2, replicas: 2, ready: 2, current: 2, ..Observed::default() },
    );
    assert_eq!(after.conditions.len(), 1, "{:?}", after.conditions);
    let stopped = status(&facts(Err(NotRunning::Suspended("acme".to_owned()))), Ok(vec![]), &Observed::default());
    assert_eq!(ready(&stopped), ("True", reasons::ORG_SUSPENDED));
}

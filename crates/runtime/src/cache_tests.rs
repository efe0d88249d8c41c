use std::{sync::Arc, time::Duration};

use polity_api::reasons;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::*;
use crate::{
    snapshots::{MAX_AGE, NotFresh},
    testing::{FakeApi, Fault, eventually},
};

const V1: &str = "/apis/polity.dev/v1alpha1";

fn object(kind: &str, name: &str, spec: impl Into<Value>) -> Value {
    let spec = spec.into();
    json!({"apiVersion": "polity.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "uid": format!("uid-{name}"), "generation": 1}, "spec": spec})
}

fn policy(expression: &str) -> Value {
    object("Policy", "p", json!({"rules": [{"name": "r", "expression": expression, "effect": "Deny"}]}))
}

/// An Org that lives in a namespace of its name.
fn put_org(api: &FakeApi, name: &str, parent: Option<&str>) {
    let spec = parent.map_or(json!({}), |parent| json!({"parentRef": {"name": parent}}));
    let mut org = object("Org", name, spec);
    org["status"] =
        json!({"observedGeneration": 1, "conditions": [], "namespace": {"name": name, "uid": format!("ns-{name}"), "created": true}});
    api.put("/api/v1/namespaces", json!({"metadata": {"name": name, "uid": format!("ns-{name}"), "labels": {"polity.dev/org": name}}}));
    api.put(&format!("{V1}/orgs"), org);
}

/// `root` with `child`, and `other` beside.
fn acme() -> FakeApi {
    let api = FakeApi::new();
    put_org(&api, "root", None);
    put_org(&api, "child", Some("root"));
    put_org(&api, "other", None);
    api
}

async fn start(api: &FakeApi) -> (Arc<Cache>, CancellationToken) {
    let cancel = CancellationToken::new();
    let cache = Cache::start(api.client(), &cancel);
    eventually("fresh", || cache.snapshots().fresh().ok()).await;
    (cache, cancel)
}

#[tokio::test]
async fn refuses_until_every_kind_was_listed() {
    let api = acme();
    let cancel = CancellationToken::new();
    let cache = Cache::start(api.client(), &cancel);
    let refused = cache.snapshots().get("root").unwrap_err();
    assert!(matches!(refused, NotFresh::NotSynced(_)), "{refused}");
    assert_eq!(refused.reason(), reasons::POLICY_STALE);
    eventually("fresh", || cache.snapshots().fresh().ok()).await;
    for org in ["root", "child", "other"] {
        assert_eq!(cache.snapshots().get(org).unwrap().org_uid(), format!("uid-{org}"));
    }
    assert_eq!(cache.snapshots().get("nobody").unwrap_err().reason(), reasons::ORG_NOT_READY);
}

#[tokio::test]
async fn a_change_costs_its_org_and_those_below_only() {
    let api = acme();
    let (cache, _cancel) = start(&api).await;
    let view = |org: &str| cache.snapshots().get(org).unwrap();
    let (root, child, other) = (view("root"), view("child"), view("other"));
    api.put(&format!("{V1}/namespaces/child/policies"), policy("args.a == 1"));
    eventually("child rebuilt", || (!Arc::ptr_eq(&view("child"), &child)).then_some(())).await;
    assert!(Arc::ptr_eq(&view("root"), &root));
    let child = view("child");
    api.put(&format!("{V1}/namespaces/root/policies"), policy("args.a == 2"));
    eventually("root rebuilt", || (!Arc::ptr_eq(&view("root"), &root)).then_some(())).await;
    assert!(!Arc::ptr_eq(&view("child"), &child), "in the same turn as its parent");
    assert!(Arc::ptr_eq(&view("other"), &other));
}

#[tokio::test]
async fn bookkeeping_rebuilds_nothing() {
    let api = acme();
    api.put(&format!("{V1}/namespaces/root/policies"), policy("true"));
    let (cache, _cancel) = start(&api).await;
    let root = cache.snapshots().get("root").unwrap();
    let mut reported = policy("true");
    reported["status"] = json!({"observedGeneration": 1, "conditions": [], "rules": 1});
    reported["metadata"]["labels"] = json!({"a": "b"});
    api.put(&format!("{V1}/namespaces/root/policies"), reported);
    let seen = || cache.world().policies[&("root".to_owned(), "p".to_owned())].status.clone();
    eventually("seen", seen).await;
    // A change of another Org comes after it: once that is through, so would be this one.
    api.put(&format!("{V1}/namespaces/other/policies"), policy("false"));
    let other = cache.snapshots().get("other").unwrap();
    eventually("other rebuilt", || (!Arc::ptr_eq(&cache.snapshots().get("other").unwrap(), &other)).then_some(())).await;
    assert!(Arc::ptr_eq(&cache.snapshots().get("root").unwrap(), &root));
}

#[tokio::test]
async fn a_namespace_belongs_by_uid_never_by_label() {
    let api = acme();
    let (cache, _cancel) = start(&api).await;
    let home = |ns: &str| cache.snapshots().by_namespace(ns);
    assert_eq!(home("root").as_deref(), Some("root"));
    api.put("/api/v1/namespaces", json!({"metadata": {"name": "elsewhere", "uid": "x", "labels": {"polity.dev/org": "root"}}}));
    api.put("/api/v1/namespaces", json!({"metadata": {"name": "root", "uid": "another", "labels": {"polity.dev/org": "root"}}}));
    eventually("re-created namespace let go", || home("root").is_none().then_some(())).await;
    assert_eq!(home("elsewhere"), None);
}

#[tokio::test]
async fn an_org_that_goes_takes_its_view_along() {
    let api = acme();
    let (cache, _cancel) = start(&api).await;
    let digest = cache.snapshots().get("other").unwrap().digest().to_owned();
    assert!(cache.snapshots().accepts("uid-other", &digest));
    let mut changes = cache.snapshots().changes();
    while changes.try_next().is_some() {}
    api.delete(&format!("{V1}/orgs/other"));
    assert_eq!(changes.next().await, "other");
    assert!(cache.snapshots().get("other").is_err());
    assert!(!cache.snapshots().accepts("uid-other", &digest), "not even for 30 s");
}

#[tokio::test(start_paused = true)]
async fn a_superseded_view_is_taken_for_30_seconds() {
    let api = acme();
    let (cache, _cancel) = start(&api).await;
    let views = cache.snapshots();
    let old = views.get("root").unwrap();
    api.put(&format!("{V1}/namespaces/root/policies"), policy("false"));
    let new = eventually("another digest", || views.get("root").ok().filter(|v| v.digest() != old.digest())).await;
    assert!(views.accepts("uid-root", old.digest()) && views.accepts("uid-root", new.digest()));
    assert!(!views.accepts("uid-other", old.digest()) && !views.accepts("uid-root", "made-up") && !views.accepts("uid-root", ""));
    sleep(MAX_AGE + Duration::from_secs(1)).await;
    assert!(!views.accepts("uid-root", old.digest()));
    assert!(views.accepts("uid-root", new.digest()));
}

#[tokio::test(start_paused = true)]
async fn a_sender_who_is_ahead_is_waited_for() {
    let api = acme();
    let (cache, _cancel) = start(&api).await;
    let ahead = {
        let mut world = (*cache.world()).clone();
        let policy = serde_json::from_value(policy("false")).map(|mut p: Policy| {
            p.metadata.namespace = Some("root".into());
            Arc::new(p)
        });
        world.policies.insert(("root".into(), "p".into()), policy.unwrap());
        Cache::fixed(world).snapshots().get("root").unwrap().digest().to_owned()
    };
    assert!(!cache.snapshots().accepts("uid-root", &ahead));
    // Polled second, so the wait has begun.
    let later = async { api.put(&format!("{V1}/namespaces/root/policies"), policy("false")) };
    let (found, ()) = tokio::join!(cache.snapshots().find_within("uid-root", &ahead, Duration::from_secs(1)), later);
    assert_eq!(found.unwrap().digest(), ahead);
    assert!(cache.snapshots().find_within("uid-root", "made-up", Duration::from_millis(100)).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn silence_of_one_kind_refuses_every_view_until_it_speaks_again() {
    let api = acme();
    let (cache, _cancel) = start(&api).await;
    let policies = format!("{V1}/policies");
    api.fault(&policies, [Fault::Hang, Fault::Silence]);
    let refused = eventually("refused", || cache.snapshots().get("root").err()).await;
    assert!(matches!(&refused, NotFresh::Silent { kind: "Policy", .. }), "{refused}");
    assert_eq!(refused.reason(), reasons::POLICY_STALE);
    assert!(cache.snapshots().age().unwrap() > MAX_AGE);
    eventually("fresh again", || cache.snapshots().get("root").ok()).await;
}

#[tokio::test]
async fn a_broken_policy_is_known_as_such() {
    let api = acme();
    let mut broken = policy("true");
    broken["spec"]["rules"] = json!(3);
    api.put(&format!("{V1}/namespaces/root/policies"), broken);
    let (cache, _cancel) = start(&api).await;
    let key = ("Policy".to_owned(), "root".to_owned(), "p".to_owned());
    assert!(cache.world().undecodable.contains_key(&key));
    let root = cache.snapshots().get("root").unwrap();
    api.put(&format!("{V1}/namespaces/root/policies"), policy("true"));
    eventually("mended", || (!cache.world().undecodable.contains_key(&key)).then_some(())).await;
    eventually("rebuilt", || (!Arc::ptr_eq(&cache.snapshots().get("root").unwrap(), &root)).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_or_tool_made_a_moment_ago_is_fetched_once() {
    let api = acme();
    let (cache, _cancel) = start(&api).await;
    // The watches hang: what is made now is not seen by them.
    let hang = [Fault::Hang; 2];
    let (tasks, tools) = (format!("{V1}/namespaces/root/tasks"), format!("{V1}/namespaces/root/tools"));
    api.fault(&format!("{V1}/tasks"), hang);
    api.fault(&format!("{V1}/tools"), hang);
    let watches = |kind: &str| api.requests(&format!("GET {V1}/{kind}?&watch")).len();
    eventually("both watch anew", || (watches("tasks") > 1 && watches("tools") > 1).then_some(())).await;
    api.put(&tasks, object("Task", "t", json!({"jobSpace": "web"})));
    let tool = json!({"runtime": {"http": {"url": "https://x.example"}}});
    api.put(&tools, object("Tool", "u", tool));
    assert_eq!((cache.task("root", "t"), cache.world().tools.len()), (None, 0));
    let many = futures::future::join_all((0..20).map(|_| cache.fetch_missing_task("root", "t"))).await;
    assert!(many.iter().all(|task| task.as_ref().is_some_and(|t| t.job_space.as_deref() == Some("web"))));
    assert_eq!(api.requests(&format!("GET {tasks}/t")).len(), 1, "one request for all who ask at the same time");
    assert!(cache.fetch_missing_tool("root", "u").await);
    assert!(cache.snapshots().get("root").unwrap().tool("u", None).is_some(), "in the view from now on");
    assert!(cache.fetch_missing_tool("root", "u").await);
    assert_eq!(api.requests(&format!("GET {tools}/u")).len(), 1, "what is cached is not fetched");
    assert_eq!(cache.fetch_missing_task("root", "none").await, None);
    assert!(!cache.fetch_missing_tool("root", "none").await);
}

use std::{sync::Mutex, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use polity_api::Policy;
use serde_json::json;

use super::*;
use crate::{
    testing::{FakeApi, Fault, eventually},
    watched::Watched,
};

const ALL: &str = "/apis/polity.dev/v1alpha1/policies";
const ACME: &str = "/apis/polity.dev/v1alpha1/namespaces/acme/policies";

fn policy(name: &str) -> Value {
    json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Policy", "metadata": {"name": name, "managedFields": [{"manager": "kubectl"}]},
        "spec": {"rules": [{"name": "r", "expression": "true", "effect": "Deny"}]}})
}

fn start(api: &FakeApi) -> (Arc<Watched<Policy>>, CancellationToken) {
    let cancel = CancellationToken::new();
    (Watched::start(api.client(), Target::all(), cancel.clone()), cancel)
}

#[tokio::test(start_paused = true)]
async fn lists_in_pages_then_follows() {
    let api = FakeApi::new();
    (0..1203).for_each(|n| api.put(ACME, policy(&format!("p{n:04}"))));
    let (store, cancel) = start(&api);
    store.pulse().until_synced().await;
    assert_eq!(store.list().len(), 1203);
    assert_eq!(api.requests(&format!("GET {ALL}?&limit")).len(), 3);
    assert!(store.get("acme", "p0000").unwrap().metadata.managed_fields.is_none());
    let mut changes = store.subscribe();
    while changes.try_next().is_some() {}
    api.put(ACME, policy("new"));
    api.delete(&format!("{ACME}/p0000"));
    assert_eq!(changes.next().await, ("acme".to_owned(), "new".to_owned()));
    assert_eq!(changes.next().await, ("acme".to_owned(), "p0000".to_owned()));
    assert!(store.get("acme", "p0000").is_none());
    cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_undecodable_object_is_told_and_stalls_nothing() {
    let api = FakeApi::new();
    let mut broken = policy("broken");
    broken["spec"]["rules"] = json!("none");
    api.put(ACME, broken.clone());
    let (store, _cancel) = start(&api);
    store.pulse().until_synced().await;
    assert!(store.undecodable()[&("acme".to_owned(), "broken".to_owned())].contains("none"));
    api.put(ACME, policy("good"));
    broken["metadata"]["name"] = json!("broken-too");
    api.put(ACME, broken);
    api.put(ACME, policy("broken"));
    eventually("both decoded", || (store.list().len() == 2).then_some(())).await;
    assert_eq!(store.undecodable().into_keys().collect::<Vec<_>>(), [("acme".to_owned(), "broken-too".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_version_lists_anew() {
    for fault in [Fault::Gone, Fault::GoneEvent] {
        let api = FakeApi::new();
        api.put(ACME, policy("stays"));
        api.put(ACME, policy("goes"));
        api.fault(ALL, [fault]);
        let (store, _cancel) = start(&api);
        store.pulse().until_synced().await;
        assert_eq!(store.list().len(), 2);
        api.vanish(&format!("{ACME}/goes"));
        eventually("gone after the second list", || store.get("acme", "goes").is_none().then_some(())).await;
        assert!(store.get("acme", "stays").is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_connection_is_noticed_and_nothing_is_missed() {
    for fault in [Fault::Hang, Fault::Silence] {
        let api = FakeApi::new();
        api.fault(ALL, [fault]);
        let (store, _cancel) = start(&api);
        store.pulse().until_synced().await;
        eventually("the watch hangs", || (api.requests(&format!("GET {ALL}?&watch")).len() == 1).then_some(())).await;
        let began = Instant::now();
        api.put(ACME, policy("meanwhile"));
        eventually("seen", || store.get("acme", "meanwhile")).await;
        assert!(began.elapsed() <= Duration::from_secs(26), "{fault:?} took {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_kind_still_proves_its_life() {
    let api = FakeApi::new();
    let (store, _cancel) = start(&api);
    store.pulse().until_synced().await;
    for _ in 0..300 {
        // The paused clock of the test: five minutes pass, looked at each second.
        sleep(Duration::from_secs(1)).await;
        assert!(store.pulse().age().unwrap() <= Duration::from_secs(21));
    }
    assert_eq!(api.requests(&format!("GET {ALL}?&limit")).len(), 1, "listed once only");
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_and_list_anew_after_three() {
    for fault in [Fault::Error, Fault::End] {
        let api = FakeApi::new();
        api.fault(ALL, [fault; 7]);
        let (store, _cancel) = start(&api);
        eventually("over it", || (api.requests(&format!("GET {ALL}?&watch")).len() == 8).then_some(())).await;
        assert_eq!(api.requests(&format!("GET {ALL}?&limit")).len(), 3, "{fault:?}: at first, and after each three failures");
        api.put(ACME, policy("after"));
        eventually("seen", || store.get("acme", "after")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn built_in_kinds_and_one_name_alone() {
    let api = FakeApi::new();
    let path = "/api/v1/namespaces/acme/configmaps";
    for name in ["wanted", "other"] {
        api.put(path, json!({"metadata": {"name": name}, "data": {"k": "v"}}));
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (told, cancel) = (seen.clone(), CancellationToken::new());
    let target = Target::<ConfigMap>::within("acme").fields("metadata.name=wanted");
    let sink = move |event: Event<ConfigMap>| told.lock().unwrap().push(event);
    tokio::spawn(run(api.client(), target, Arc::default(), sink, cancel.clone()));
    eventually("listed", || (!seen.lock().unwrap().is_empty()).then_some(())).await;
    api.put(path, json!({"metadata": {"name": "other"}, "data": {}}));
    api.put(path, json!({"metadata": {"name": "wanted"}, "data": {}}));
    eventually("changed", || (seen.lock().unwrap().len() == 2).then_some(())).await;
    let seen = seen.lock().unwrap();
    assert!(matches!(&seen[0], Event::Listed(items) if items.len() == 1 && items[0].object.is_ok()));
    assert!(matches!(&seen[1], Event::Applied(item) if item.name == "wanted" && item.object.is_ok()));
}

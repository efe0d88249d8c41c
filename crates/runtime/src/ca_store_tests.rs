use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::{
    clock::{Clock, ManualClock},
    testing::FakeApi,
    x509,
};

const SECRETS: &str = "/api/v1/namespaces/sys/secrets";
const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

struct Rig {
    api: FakeApi,
    clock: Arc<ManualClock>,
    store: Arc<CaStore>,
}

fn rig() -> Rig {
    let api = FakeApi::new();
    let hooks = |name: &str| {
        json!({"metadata": {"name": "polity"}, "webhooks": [{"name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": "Fail", "clientConfig": {"service": {"name": "polity-webhook", "namespace": "sys"}}}]})
    };
    api.put(MUTATING, hooks("mutate.polity.dev"));
    api.put(VALIDATING, hooks("validate.polity.dev"));
    let clock = ManualClock::at(Timestamp::now());
    let config = CaConfig { edge_names: vec!["127.0.0.1".into()], ..CaConfig::new("sys") };
    let store = CaStore::new(api.client(), config, clock.clone());
    Rig { api, clock, store }
}

impl Rig {
    fn secret(&self, name: &str) -> Secret {
        serde_json::from_value(self.api.get(&format!("{SECRETS}/{name}")).unwrap()).unwrap()
    }

    fn part(&self, name: &str, key: &str) -> String {
        text(&self.secret(name), key).unwrap()
    }

    fn webhook_ca(&self) -> String {
        let config: MutatingWebhookConfiguration = serde_json::from_value(self.api.get(&format!("{MUTATING}/polity")).unwrap()).unwrap();
        let hook = config.webhooks.unwrap().remove(0);
        assert_eq!(hook.failure_policy.as_deref(), Some("Fail"), "the rest stays");
        String::from_utf8(hook.client_config.ca_bundle.unwrap_or_default().0).unwrap()
    }

    /// Writes since `count`, without host and query.
    fn writes_after(&self, count: usize) -> Vec<String> {
        self.api.writes().into_iter().skip(count).map(|w| w.split('?').next().unwrap().rsplit('/').next().unwrap().to_owned()).collect()
    }
}

#[tokio::test]
async fn makes_everything_once_and_writes_nothing_at_rest() {
    let rig = rig();
    assert_eq!(rig.store.bundle_pem(), None);
    rig.store.ensure().await.unwrap();
    let bundle = rig.store.bundle_pem().unwrap();
    assert_eq!(*bundle, *rig.part("polity-ca", "ca.crt"));
    assert_eq!(*bundle, *rig.part("polity-edge-tls", "ca.crt"));
    assert_eq!(*bundle, *rig.webhook_ca());
    assert!(x509::signed_by(&rig.part("polity-edge-tls", "tls.crt"), &bundle));
    let names = x509::Facts::of_pem(&rig.part("polity-edge-tls", "tls.crt")).unwrap().names;
    for name in ["127.0.0.1", "polity-edge", "polity-edge.sys.svc", "polity-webhook.sys.svc"] {
        assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
    }
    assert_eq!(rig.store.certs().valid(rig.clock.now()), Ok(()));
    let writes = rig.api.writes().len();
    assert_eq!(writes, 4);
    rig.store.ensure().await.unwrap();
    assert_eq!(rig.api.writes().len(), writes);
    // A new process finds what the last one made.
    let again = CaStore::new(rig.api.client(), rig.store.config.clone(), rig.clock.clone());
    again.ensure().await.unwrap();
    assert_eq!(rig.api.writes().len(), writes);
    assert_eq!(again.bundle_pem(), rig.store.bundle_pem());
}

#[tokio::test]
async fn a_leaf_is_renewed_at_two_thirds_and_also_when_it_has_expired() {
    let rig = rig();
    rig.store.ensure().await.unwrap();
    let first = rig.part("polity-edge-tls", "tls.crt");
    let own = rig.store.certs().not_after().unwrap();
    for days in [21, 45] {
        let before = rig.part("polity-edge-tls", "tls.crt");
        rig.clock.advance(SignedDuration::from_hours(24 * days));
        rig.store.ensure().await.unwrap();
        assert_ne!(rig.part("polity-edge-tls", "tls.crt"), before, "after {days} days");
        assert_eq!(rig.store.certs().valid(rig.clock.now()), Ok(()));
    }
    assert!(rig.store.certs().not_after().unwrap() > own);
    assert_ne!(rig.part("polity-edge-tls", "tls.crt"), first);
    assert!(x509::signed_by(&rig.part("polity-edge-tls", "tls.crt"), &rig.part("polity-ca", "ca.crt")), "the CA stays");
}

#[tokio::test]
async fn a_rotation_spreads_trust_before_it_serves_and_forgets_last() {
    let rig = rig();
    rig.store.ensure().await.unwrap();
    let old = rig.part("polity-ca", "ca.crt");
    rig.clock.advance(SignedDuration::from_hours(24 * 244));
    rig.store.ensure().await.unwrap();
    // The leaf was expired as well: it comes from the new CA at once, its trust written first.
    let new = rig.part("polity-ca", "ca.crt");
    assert_ne!(old, new);
    assert_eq!(rig.part("polity-ca", "previous.crt"), old);
    assert_eq!(rig.webhook_ca(), format!("{new}{old}"));
    let order = rig.writes_after(4);
    assert_eq!(order, ["polity-ca", "polity", "polity", "polity-edge-tls"], "trust first, leaf last");
    rig.clock.advance(SignedDuration::from_mins(31));
    rig.store.ensure().await.unwrap();
    rig.store.ensure().await.unwrap();
    assert!(text(&rig.secret("polity-ca"), "previous.crt").is_none());
    assert_eq!(rig.webhook_ca(), new);
    assert_eq!(rig.part("polity-edge-tls", "ca.crt"), new);
    assert_eq!(rig.store.certs().ca_pem().as_deref(), Some(new.as_str()));
}

#[tokio::test]
async fn a_living_leaf_waits_until_the_new_ca_is_spread() {
    let rig = rig();
    rig.store.ensure().await.unwrap();
    // Every 15 days: the leaf is renewed on day 240, the CA on day 255.
    for _ in 0..17 {
        assert!(text(&rig.secret("polity-ca"), "previous.crt").is_none());
        rig.clock.advance(SignedDuration::from_hours(24 * 15));
        rig.store.ensure().await.unwrap();
    }
    let before = rig.part("polity-edge-tls", "tls.crt");
    let (new, old) = (rig.part("polity-ca", "ca.crt"), rig.part("polity-ca", "previous.crt"));
    assert!(x509::signed_by(&before, &old));
    rig.clock.advance(SignedDuration::from_mins(14));
    rig.store.ensure().await.unwrap();
    assert_eq!(rig.part("polity-edge-tls", "tls.crt"), before);
    rig.clock.advance(SignedDuration::from_mins(2));
    rig.store.ensure().await.unwrap();
    assert!(x509::signed_by(&rig.part("polity-edge-tls", "tls.crt"), &new));
}

#[tokio::test]
async fn somebody_elses_secret_is_left_alone_and_said_so() {
    for name in ["polity-ca", "polity-edge-tls"] {
        let rig = rig();
        let foreign = json!({"metadata": {"name": name}, "data": {"mine": "eA=="}});
        rig.api.put(SECRETS, foreign);
        let error = rig.store.ensure().await.unwrap_err();
        assert!(matches!(&error, CaError::Foreign(found) if found == name), "{error}");
        assert_eq!(rig.api.get(&format!("{SECRETS}/{name}")).unwrap()["data"]["mine"], "eA==");
    }
}

#[tokio::test]
async fn an_empty_secret_is_filled_and_a_broken_one_of_ours_replaced() {
    let rig = rig();
    rig.api.put(SECRETS, json!({"metadata": {"name": "polity-ca", "labels": {"keep": "me"}}}));
    rig.store.ensure().await.unwrap();
    assert_eq!(rig.secret("polity-ca").metadata.labels.unwrap()["keep"], "me");
    let mut broken = rig.api.get(&format!("{SECRETS}/polity-ca")).unwrap();
    broken["data"]["ca.key"] = json!("cnViYmlzaA==");
    rig.api.put(SECRETS, broken);
    rig.store.ensure().await.unwrap();
    let (ca, leaf) = (rig.part("polity-ca", "ca.crt"), rig.part("polity-edge-tls", "tls.crt"));
    assert!(x509::signed_by(&leaf, &ca), "a leaf of a CA that is gone is replaced at once");
}

#[tokio::test]
async fn without_webhook_configurations_there_is_nothing_to_fill() {
    let api = FakeApi::new();
    let store = CaStore::new(api.client(), CaConfig::new("sys"), ManualClock::at(Timestamp::now()));
    store.ensure().await.unwrap();
    assert_eq!(api.writes().len(), 2);
}

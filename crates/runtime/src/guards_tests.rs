use std::fmt::Debug;

use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{MutatingWebhook, ServiceReference, ValidatingWebhook},
};
use kube::{Resource, ResourceExt};

use super::*;
use crate::watch::{Event, Item};

/// Everything as it should be.
struct Installed {
    guards: Guards,
    sound: [Guard; 3],
}

fn item<K: Resource + ResourceExt>(object: K) -> Item<K> {
    Item { namespace: String::new(), name: object.name_any(), object: Ok(Arc::new(object)) }
}

fn put<K: Resource + Clone + Debug + Send + Sync + 'static>(store: &Watched<K>, objects: impl IntoIterator<Item = K>) {
    store.take(Event::Listed(objects.into_iter().map(item).collect()));
    store.pulse().beat();
    store.pulse().set_synced();
}

fn client(path: &str) -> WebhookClientConfig {
    WebhookClientConfig {
        ca_bundle: Some(ByteString(b"ca".to_vec())),
        service: Some(ServiceReference {
            name: "polity-webhook".into(),
            namespace: "sys".into(),
            path: Some(path.into()),
            port: Some(443),
        }),
        url: None,
    }
}

fn condition() -> Option<Vec<MatchCondition>> {
    Some(vec![MatchCondition { name: "spec-changed".into(), expression: guards::WEBHOOK_CONDITION.into() }])
}

fn mutating() -> MutatingWebhookConfiguration {
    let mut config = MutatingWebhookConfiguration::default();
    config.metadata.name = Some("polity".into());
    config.webhooks = Some(vec![MutatingWebhook {
        name: guards::MUTATE.into(),
        client_config: client("/mutate"),
        failure_policy: Some("Fail".into()),
        match_conditions: condition(),
        namespace_selector: Some(LabelSelector::default()),
        rules: Some(vec![guards::mutate_rule()]),
        ..MutatingWebhook::default()
    }]);
    config
}

fn validating() -> ValidatingWebhookConfiguration {
    let mut config = ValidatingWebhookConfiguration::default();
    config.metadata.name = Some("polity".into());
    config.webhooks = Some(vec![ValidatingWebhook {
        name: guards::VALIDATE.into(),
        client_config: client("/validate"),
        failure_policy: Some("Fail".into()),
        match_conditions: condition(),
        rules: Some(vec![guards::validate_rule()]),
        ..ValidatingWebhook::default()
    }]);
    config
}

fn sound() -> Installed {
    let guards = Guards::over("sys", Watched::empty(), Watched::empty(), Watched::empty(), Watched::empty());
    let sound = polity_api::guards::guards("sys");
    put(&guards.policies, sound.iter().map(|g| g.policy.clone()));
    put(&guards.bindings, sound.iter().map(|g| g.binding.clone()));
    put(&guards.mutating, [mutating()]);
    put(&guards.validating, [validating()]);
    Installed { guards, sound }
}

#[tokio::test(start_paused = true)]
async fn what_the_chart_installs_is_enforced_until_the_api_server_falls_silent() {
    let Installed { guards, .. } = sound();
    assert_eq!((guards.known(), guards.enforced()), (Ok(()), Ok(())));
    tokio::time::advance(MAX_AGE + std::time::Duration::from_secs(1)).await;
    assert!(guards.enforced().unwrap_err().contains("no word from the API server"));
    assert!(guards.known().is_err(), "what is not known is told apart from what is wrong");
}

#[tokio::test]
async fn each_guard_that_is_missing_or_changed_is_noticed() {
    for at in 0..3 {
        let Installed { guards, sound } = sound();
        let others = |skip: usize| sound.iter().enumerate().filter(move |(i, _)| *i != skip).map(|(_, g)| g);
        put(&guards.policies, others(at).map(|g| g.policy.clone()));
        assert!(guards.enforced().unwrap_err().ends_with("is missing"));
        assert_eq!(guards.known(), Ok(()));
        let mut weak = sound.clone();
        weak[at].policy.spec.as_mut().unwrap().validations.as_mut().unwrap()[0].expression = "true".into();
        put(&guards.policies, weak.map(|g| g.policy));
        assert!(guards.enforced().unwrap_err().contains("validations"));
        let mut weak = sound.clone();
        weak[at].policy.spec.as_mut().unwrap().match_conditions =
            Some(vec![MatchCondition { name: "never".into(), expression: "false".into() }]);
        put(&guards.policies, weak.map(|g| g.policy));
        assert!(guards.enforced().unwrap_err().contains("spec is not"));
        put(&guards.policies, sound.iter().map(|g| g.policy.clone()));
        assert_eq!(guards.enforced(), Ok(()), "mended");
        let mut weak = sound.clone();
        weak[at].binding.spec.as_mut().unwrap().validation_actions = Some(vec!["Warn".into()]);
        put(&guards.bindings, weak.map(|g| g.binding));
        assert!(guards.enforced().unwrap_err().contains("action Deny"));
    }
}

#[tokio::test]
async fn a_webhook_that_is_missing_or_leaves_something_out_is_noticed() {
    type Weaken = fn(&mut MutatingWebhook);
    let cases: [(&str, Weaken); 8] = [
        ("failurePolicy", |h| h.failure_policy = Some("Ignore".into())),
        ("rules", |h| h.rules.as_mut().unwrap()[0].operations = Some(vec!["UPDATE".into()])),
        ("rules", |h| h.rules = None),
        ("matchConditions", |h| h.match_conditions.as_mut().unwrap()[0].expression = "false".into()),
        ("selector", |h| {
            h.object_selector = Some(LabelSelector { match_labels: Some([("a".into(), "b".into())].into()), ..Default::default() });
        }),
        ("somebody else", |h| h.client_config.service.as_mut().unwrap().namespace = "elsewhere".into()),
        ("caBundle", |h| h.client_config.ca_bundle = None),
        ("is missing", |h| h.name = "other.polity.dev".into()),
    ];
    for (what, weaken) in cases {
        let Installed { guards, .. } = sound();
        let mut config = mutating();
        weaken(&mut config.webhooks.as_mut().unwrap()[0]);
        put(&guards.mutating, [config]);
        let error = guards.enforced().unwrap_err();
        assert!(error.contains(what), "{what}: {error}");
    }
    let Installed { guards, .. } = sound();
    put(&guards.validating, []);
    assert!(guards.enforced().unwrap_err().contains("ValidatingWebhookConfiguration polity is missing"));
}

//! What the chart ships equals what the code says: CRDs, member ClusterRoles, webhook rules; and no right without a reason.

#![allow(clippy::unwrap_used, clippy::panic)] // a test file: what is not as expected fails the test

use std::{collections::BTreeSet, fs, path::PathBuf};

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use polity_api::{
    crds,
    generated::{self, Content},
    guards,
    org::MemberRole,
};
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn rbac() -> Value {
    serde_saphyr::from_str(&read("charts/polity/files/rbac.yaml")).unwrap()
}

/// Name of the role and each of its rules.
fn rules(part: &str) -> Vec<(String, Value)> {
    let rbac = rbac();
    let mut out = Vec::new();
    for role in rbac[part].as_array().unwrap() {
        for rule in role["rules"].as_array().unwrap() {
            out.push((role["name"].as_str().unwrap().to_owned(), rule.clone()));
        }
    }
    out
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().map(|v| v.as_str().unwrap()).collect()
}

/// Files printed from the code hold what the code says, whatever wrote the YAML.
#[test]
fn generated_yaml_is_what_the_code_says() {
    fn typed<T: serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(path: &str, written: &Value, wanted: &Value) {
        let read = |value: &Value| serde_json::from_value::<T>(value.clone()).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert!(read(written) == read(wanted), "{path} is not what the code says: run cargo xtask gen");
    }
    for (path, content) in generated::files().unwrap() {
        let Content::Yaml(wanted) = content else { continue };
        let text = read(&path);
        assert!(text.starts_with(generated::HEADER), "{path}");
        let written: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        assert_eq!(written.len(), wanted.len(), "{path}");
        for (written, wanted) in written.iter().zip(&wanted) {
            assert_eq!(written["kind"], wanted["kind"], "{path}");
            match wanted["kind"].as_str().unwrap() {
                "CustomResourceDefinition" => typed::<CustomResourceDefinition>(&path, written, wanted),
                "ValidatingAdmissionPolicy" => typed::<ValidatingAdmissionPolicy>(&path, written, wanted),
                "ValidatingAdmissionPolicyBinding" => typed::<ValidatingAdmissionPolicyBinding>(&path, written, wanted),
                other => panic!("{path}: {other}"),
            }
        }
    }
}

#[test]
fn the_chart_has_the_same_bytes_and_nothing_left_over() {
    let files: BTreeSet<String> = generated::files().unwrap().into_iter().map(|(path, _)| path).collect();
    for folder in ["crds", "charts/polity/files/crds", "charts/polity/files/guards"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(files.contains(&format!("{folder}/{name}")), "{folder}/{name} is printed by nothing");
        }
    }
    for name in files.iter().filter_map(|f| f.strip_prefix("crds/")) {
        assert!(read(&format!("crds/{name}")) == read(&format!("charts/polity/files/crds/{name}")), "{name} differs in the chart");
    }
}

#[test]
fn every_right_has_a_reason_and_none_is_too_wide() {
    let everywhere = rules("clusterRoles");
    for (role, rule) in everywhere.iter().chain(&rules("roles")) {
        for (verb, reason) in rule["verbs"].as_object().unwrap() {
            assert!(reason.as_str().is_some_and(|r| r.len() >= 5), "{role}: {verb} on {} has no reason", rule["resources"]);
            assert!(!["*", "escalate", "impersonate", "approve", "sign"].contains(&verb.as_str()), "{role}: {verb}");
            assert!(verb != "bind" || rule["resourceNames"].is_array(), "{role}: bind names its ClusterRoles");
        }
        for word in words(&rule["apiGroups"]).into_iter().chain(words(&rule["resources"])) {
            assert_ne!(word, "*", "{role}");
        }
        for resource in words(&rule["resources"]) {
            assert!(
                ![
                    "pods/exec",
                    "pods/attach",
                    "pods/portforward",
                    "pods/log",
                    "pods/ephemeralcontainers",
                    "nodes/proxy",
                    "serviceaccounts/token"
                ]
                .contains(&resource),
                "{role}: {resource}"
            );
        }
    }
    for (role, rule) in &everywhere {
        assert!(
            !words(&rule["resources"]).contains(&"secrets") || role == "polity-edge-secrets",
            "{role} reads Secrets of the whole cluster"
        );
        if words(&rule["resources"]).contains(&"configmaps") {
            assert_eq!(rule["resourceNames"], serde_json::json!([polity_api::names::CA_CONFIGMAP]), "{role}");
        }
    }
    for (role, rule) in rules("roles") {
        if words(&rule["resources"]).contains(&"secrets") {
            let verbs: Vec<&String> = rule["verbs"].as_object().unwrap().keys().collect();
            assert!(rule["resourceNames"].is_array() || verbs == ["create"], "{role}: Secrets by name");
        }
    }
}

#[test]
fn no_right_is_given_beside_the_list() {
    for entry in fs::read_dir(root().join("charts/polity/templates")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.file_name().unwrap() != "rbac.yaml" {
            let text = fs::read_to_string(&path).unwrap();
            for kind in ["kind: Role", "kind: ClusterRole"] {
                assert!(!text.contains(kind), "{} gives rights", path.display());
            }
        }
    }
}

#[test]
fn members_get_rights_on_our_kinds_and_read_events_only_and_core_may_bind_exactly_those() {
    let mut wanted: BTreeSet<String> = MemberRole::ALL.iter().map(|r| format!("polity-org-{}", r.name())).collect();
    let all = rules("clusterRoles");
    let named: BTreeSet<String> = all.iter().map(|(role, _)| role.clone()).filter(|r| r.starts_with("polity-org-")).collect();
    assert_eq!(named, wanted);
    for (role, rule) in all.iter().filter(|(role, _)| role.starts_with("polity-org-")) {
        // Beside our kinds, Events are read, and nothing is written.
        if rule["resources"] == serde_json::json!(["events"]) {
            let verbs: Vec<&String> = rule["verbs"].as_object().unwrap().keys().collect();
            assert!(verbs.iter().all(|verb| ["get", "list", "watch"].contains(&verb.as_str())), "{role}: {verbs:?} of Events");
            continue;
        }
        assert_eq!(rule["apiGroups"], serde_json::json!(["polity.dev"]), "{role}");
        assert!(words(&rule["resources"]).iter().all(|r| !r.ends_with("/status")), "{role} writes status");
        let verbs = rule["verbs"].as_object().unwrap();
        let approvals = words(&rule["resources"]).contains(&"approvals");
        assert!(!(approvals && (verbs.contains_key("create") || verbs.contains_key("delete"))), "{role}: only Polity makes Approvals");
        for (verb, only) in [("govern", "polity-org-director"), ("resolve", "polity-org-director")] {
            assert!(!verbs.contains_key(verb) || role == only, "{role}: {verb}");
        }
    }
    wanted.insert("polity-edge-secrets".to_owned());
    let bind = all.iter().find(|(role, rule)| role == "polity-core" && rule["verbs"]["bind"].is_string()).unwrap();
    assert_eq!(words(&bind.1["resourceNames"]).into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), wanted);
}

#[test]
fn the_webhook_sees_what_dispatch_insists_on() {
    let text = read("charts/polity/templates/webhooks.yaml");
    let lists: Vec<Vec<String>> = text
        .lines()
        .filter_map(|l| l.trim().strip_prefix("resources: [")?.strip_suffix(']'))
        .map(|l| l.split(", ").map(str::to_owned).collect())
        .collect();
    assert_eq!(lists, [guards::mutate_rule().resources.unwrap(), guards::validate_rule().resources.unwrap()]);
    let kinds: Vec<String> = crds().into_iter().map(|c| c.spec.names.plural).collect();
    assert_eq!(lists[1].iter().collect::<BTreeSet<_>>(), kinds.iter().collect::<BTreeSet<_>>(), "every kind");
    for line in ["failurePolicy: Fail", "operations: [CREATE, UPDATE]", &format!("expression: {}", guards::WEBHOOK_CONDITION)] {
        assert_eq!(text.matches(line).count(), 2, "{line}");
    }
    for name in [guards::MUTATE, guards::VALIDATE, guards::WEBHOOK_SERVICE] {
        assert!(text.contains(&format!("name: {name}")), "{name}");
    }
    assert!(!text.contains("caBundle:"), "core fills it in");
}

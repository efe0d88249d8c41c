//! What the chart ships equals what the code says: CRDs, member ClusterRoles, webhook rules; and no right without a reason.

#![allow(clippy::unwrap_used, clippy::panic)] // a test file: what is not as expected fails the test

use std::{collections::BTreeSet, fs, path::PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use polity_api::{crds, org::MemberRole};
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

#[test]
fn crds_are_those_of_the_types_twice() {
    for crd in crds() {
        let file = format!("{}.yaml", crd.spec.names.plural);
        let text = read(&format!("crds/{file}"));
        let printed: CustomResourceDefinition = serde_saphyr::from_str(&text).unwrap();
        assert!(printed == crd, "crds/{file} is not what the types say: run cargo xtask gen");
        assert!(text == read(&format!("charts/polity/files/crds/{file}")), "the chart's {file} differs from crds/: run cargo xtask gen");
    }
    let plurals: BTreeSet<String> = crds().iter().map(|c| format!("{}.yaml", c.spec.names.plural)).collect();
    for folder in ["crds", "charts/polity/files/crds"] {
        let files: BTreeSet<String> = fs::read_dir(root().join(folder))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|f| f.ends_with(".yaml"))
            .collect();
        assert_eq!(files, plurals, "{folder} holds a file that is none of a kind");
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
fn members_get_rights_on_our_kinds_only_and_core_may_bind_exactly_those() {
    let mut wanted: BTreeSet<String> = MemberRole::ALL.iter().map(|r| format!("polity-org-{}", r.name())).collect();
    let all = rules("clusterRoles");
    let named: BTreeSet<String> = all.iter().map(|(role, _)| role.clone()).filter(|r| r.starts_with("polity-org-")).collect();
    assert_eq!(named, wanted);
    for (role, rule) in all.iter().filter(|(role, _)| role.starts_with("polity-org-")) {
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
fn the_webhook_sees_every_kind_and_never_a_delete() {
    let text = read("charts/polity/templates/webhooks.yaml");
    let lists: Vec<BTreeSet<&str>> =
        text.lines().filter_map(|l| l.trim().strip_prefix("resources: [")?.strip_suffix(']')).map(|l| l.split(", ").collect()).collect();
    let kinds = crds();
    let kinds: BTreeSet<&str> = kinds.iter().map(|c| c.spec.names.plural.as_str()).collect();
    assert_eq!(lists, [BTreeSet::from(["toolcalls", "approvals", "tasks"]), kinds], "mutating, then validating");
    assert_eq!(text.matches("failurePolicy: Fail").count(), 2);
    assert_eq!(text.matches("operations: [CREATE, UPDATE]").count(), 2);
    assert!(!text.contains("caBundle:"), "core fills it in");
}

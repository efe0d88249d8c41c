//! The CustomResourceDefinitions as they are installed: printed into `crds/` and templated into the chart.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON, JSONSchemaProps};
use kube::CustomResourceExt;

use crate::{Agent, Approval, Org, Policy, Role, Task, Tool, ToolCall, conditions};

/// Every CRD, in the order of the docs.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    let runs = ["ToolCall", "Approval"];
    [Org::crd(), Role::crd(), Policy::crd(), Agent::crd(), Tool::crd(), ToolCall::crd(), Approval::crd(), Task::crd()]
        .into_iter()
        .map(|mut crd| {
            let kind = crd.spec.names.kind.clone();
            let annotations = crd.metadata.annotations.get_or_insert_default();
            annotations.insert("helm.sh/resource-policy".to_owned(), "keep".to_owned());
            if kind != "Task" {
                birth_state(&mut crd, runs.contains(&kind.as_str()));
            }
            crd
        })
        .collect()
}

/// Gives `status` a default, so that an object not yet seen by core says so without a write:
/// kstatus reads it as in progress.
fn birth_state(crd: &mut CustomResourceDefinition, run: bool) {
    let unseen = |type_: &str, status: &str| {
        serde_json::json!({
            "type": type_, "status": status, "reason": crate::reasons::NOT_SEEN, "message": "Polity has not seen this object yet.",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        })
    };
    let settled = if run { conditions::SUCCEEDED } else { conditions::READY };
    let default = serde_json::json!({
        "observedGeneration": -1,
        "conditions": [unseen(settled, "Unknown"), unseen(conditions::RECONCILING, "True")],
    });
    for version in &mut crd.spec.versions {
        let status: Option<&mut JSONSchemaProps> = version
            .schema
            .as_mut()
            .and_then(|s| s.open_api_v3_schema.as_mut())
            .and_then(|s| s.properties.as_mut())
            .and_then(|p| p.get_mut("status"));
        if let Some(status) = status {
            status.default = Some(JSON(default.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(path: &str, value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(map) => {
                if map.get("format").and_then(|f| f.as_str()).is_some_and(|f| f.starts_with("uint") || f == "double" || f == "float") {
                    found.push(path.to_owned());
                }
                for (key, inner) in map {
                    walk(&format!("{path}.{key}"), inner, found);
                }
            }
            serde_json::Value::Array(list) => list.iter().for_each(|inner| walk(path, inner, found)),
            _ => {}
        }
    }

    #[test]
    fn no_unsigned_or_floating_numbers_and_small() {
        for crd in crds() {
            let value = serde_json::to_value(&crd).unwrap();
            let mut found = Vec::new();
            walk(&crd.spec.names.kind, &value, &mut found);
            assert!(found.is_empty(), "{found:?}");
            assert!(value.to_string().len() < 250 * 1024, "{}", crd.spec.names.kind);
        }
    }

    #[test]
    fn every_field_is_documented() {
        fn undocumented(path: &str, schema: &serde_json::Value, found: &mut Vec<String>) {
            for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
                let path = format!("{path}.{name}");
                if inner["description"].as_str().is_none_or(str::is_empty) {
                    found.push(path.clone());
                }
                undocumented(&path, inner, found);
                undocumented(&path, &inner["items"], found);
            }
        }
        let mut found = Vec::new();
        for crd in crds() {
            let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
            for half in ["spec", "status"] {
                undocumented(&format!("{}.{half}", crd.spec.names.kind), &schema["openAPIV3Schema"]["properties"][half], &mut found);
            }
        }
        assert!(found.is_empty(), "{found:#?}");
    }
}

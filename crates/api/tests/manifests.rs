//! Every manifest that users are shown (examples, docs, snippets of the reference) fits its schema and loses nothing on its way through
//! its type; every example starts with its namespaces, which consent.

#![allow(clippy::unwrap_used, clippy::panic)] // a test file: what is not as expected fails the test

use std::{collections::BTreeMap, fs, path::PathBuf};

use polity_api::{Agent, Approval, Org, Policy, Role, Task, Tool, ToolCall, crds};
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// File → its documents, for every YAML file of a folder (not of folders in it).
fn documents(folder: &str) -> BTreeMap<String, Vec<Value>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "yaml") {
            let text = fs::read_to_string(&path).unwrap();
            files.insert(path.display().to_string(), serde_saphyr::from_multiple(&text).unwrap());
        }
    }
    assert!(!files.is_empty(), "{folder}");
    files
}

/// The object after a way through its Rust type.
fn typed(object: &Value) -> Value {
    fn through<T: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> Value {
        serde_json::to_value(serde_json::from_value::<T>(object.clone()).unwrap()).unwrap()
    }
    match object["kind"].as_str().unwrap() {
        "Org" => through::<Org>(object),
        "Role" => through::<Role>(object),
        "Policy" => through::<Policy>(object),
        "Agent" => through::<Agent>(object),
        "Tool" => through::<Tool>(object),
        "ToolCall" => through::<ToolCall>(object),
        "Approval" => through::<Approval>(object),
        "Task" => through::<Task>(object),
        other => panic!("no kind of ours: {other}"),
    }
}

/// Everything in `part` is in `whole` too.
fn within(path: &str, part: &Value, whole: &Value) {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            for (key, inner) in part {
                within(&format!("{path}.{key}"), inner, whole.get(key).unwrap_or_else(|| panic!("{path} has no field {key}")));
            }
        }
        (Value::Array(part), Value::Array(whole)) => part.iter().zip(whole).for_each(|(p, w)| within(path, p, w)),
        _ => assert_eq!(part, whole, "{path}"),
    }
}

fn check(file: &str, object: &Value) {
    assert_eq!(object["apiVersion"], "polity.dev/v1alpha1", "{file}");
    let crd = crds().into_iter().find(|c| object["kind"] == c.spec.names.kind.as_str()).unwrap();
    assert_eq!(crd.spec.scope == "Namespaced", object["metadata"]["namespace"].is_string(), "{file}: namespace of {}", object["kind"]);
    let schema = serde_json::to_value(crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref()).unwrap();
    let errors: Vec<String> =
        jsonschema::validator_for(&schema).unwrap().iter_errors(object).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{file}: {} {errors:#?}", object["metadata"]["name"]);
    within(&format!("{file}: {}", object["metadata"]["name"]), object, &typed(object));
}

#[test]
fn reference_snippets_fit_their_schema() {
    for (file, objects) in documents("crates/api/src/reference") {
        objects.iter().for_each(|object| check(&file, object));
    }
}

#[test]
fn examples_fit_their_schema_and_start_with_consenting_namespaces() {
    for example in ["hello", "acme"] {
        let files = documents(&format!("examples/{example}"));
        let mut consent = BTreeMap::new();
        let mut orgs = BTreeMap::new();
        for (file, objects) in &files {
            let first = file.ends_with("/00-namespace.yaml");
            for object in objects {
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                if first {
                    assert_eq!(object["kind"], "Namespace", "{file}");
                    consent.insert(name, object["metadata"]["labels"]["polity.dev/org"].clone());
                    continue;
                }
                if object["apiVersion"].as_str().is_some_and(|v| v.starts_with("polity.dev/")) {
                    check(file, object);
                }
                if object["kind"] == "Org" {
                    let namespace = object["spec"]["namespace"].as_str().unwrap_or(&name).to_owned();
                    orgs.insert(namespace, Value::String(name));
                } else {
                    assert!(
                        consent.contains_key(object["metadata"]["namespace"].as_str().unwrap()),
                        "{file}: {name} lives in a namespace of the example"
                    );
                }
            }
        }
        assert_eq!(consent, orgs, "each namespace of {example} consents to its Org");
    }
}

#[test]
fn hello_stays_small() {
    let text = fs::read_to_string(root().join("examples/hello/hello.yaml")).unwrap();
    assert!(text.lines().count() <= 60);
}

#[test]
fn agents_of_the_examples_are_scripted_and_say_so() {
    for example in ["hello", "acme"] {
        for object in documents(&format!("examples/{example}")).into_values().flatten() {
            if object["kind"] == "Agent" && object["spec"]["type"] == "AI" {
                let name = object["metadata"]["name"].as_str().unwrap();
                assert!(name.starts_with("scripted-"), "{name}");
                assert_eq!(object["spec"]["command"][1], "scripted", "{name}");
            }
        }
    }
}

/// README.md, CONTRIBUTING.md and the pages of docs/ that people write, with their text.
fn pages() -> Vec<(PathBuf, String)> {
    let mut paths = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    paths
        .extend(fs::read_dir(root().join("docs")).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "md")));
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn manifests_in_the_docs_fit_their_schema() {
    let mut seen = 0;
    for (path, text) in pages() {
        for block in text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            let objects: Vec<Value> = serde_saphyr::from_multiple(block).unwrap_or_else(|e| panic!("{}: {e}\n{block}", path.display()));
            for object in objects.iter().filter(|o| o["apiVersion"].as_str().is_some_and(|v| v.starts_with("polity.dev/"))) {
                check(&path.display().to_string(), object);
                seen += 1;
            }
        }
    }
    assert!(seen >= 8, "{seen} manifests found");
}

#[test]
fn links_in_the_docs_lead_somewhere() {
    for (path, text) in pages() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            if !file.is_empty() && !file.contains("://") {
                assert!(path.parent().unwrap().join(file).exists(), "{}: {target}", path.display());
            }
        }
    }
}

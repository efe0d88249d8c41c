//! Manifests as an organisation: every object of ours is held against its CRD's schema first, since the API server would.
//!
//! It checks shapes, and names that no field has; rules over several fields and everything else are the cluster's to refuse.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Result, bail};
use polity_api::{GROUP, crds};
use polity_policy::{World, compile_schema, nearest};
use serde::Serialize;
use serde_json::Value;

use crate::yaml::{Document, documents};

/// Something that the API server would refuse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Misshapen {
    /// File.
    pub file: String,
    /// Kind and name.
    pub object: String,
    /// What is wrong, with the field.
    pub problem: String,
}

/// Reads manifests; what is misshapen is listed, and is in the World as a cluster would treat it.
pub fn read(paths: &[PathBuf]) -> Result<(World, Vec<Misshapen>)> {
    let documents = documents(paths)?;
    let schemas = schemas()?;
    let mut problems = Vec::new();
    for document in &documents {
        let items =
            document.value["items"].as_array().filter(|_| document.value["kind"].as_str().is_some_and(|kind| kind.ends_with("List")));
        match items {
            Some(items) => items.iter().for_each(|object| check(document, object, &schemas, &mut problems)),
            None => check(document, &document.value, &schemas, &mut problems),
        }
    }
    let world = World::from_objects(documents.into_iter().map(|d| d.value).collect());
    if world.orgs.is_empty() {
        bail!("there is no Org among the manifests; rules are decided in an Org");
    }
    Ok((world, problems))
}

/// What is misshapen in one document.
pub fn problems(document: &Document) -> Result<Vec<Misshapen>> {
    let mut problems = Vec::new();
    check(document, &document.value, &schemas()?, &mut problems);
    Ok(problems)
}

/// Schema of each kind.
fn schemas() -> Result<BTreeMap<String, Value>> {
    let mut all = BTreeMap::new();
    for crd in crds() {
        let schema = crd.spec.versions.first().and_then(|v| v.schema.as_ref()).and_then(|s| s.open_api_v3_schema.as_ref());
        all.insert(crd.spec.names.kind.clone(), serde_json::to_value(schema)?);
    }
    Ok(all)
}

fn check(document: &Document, object: &Value, schemas: &BTreeMap<String, Value>, problems: &mut Vec<Misshapen>) {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("/apiVersion"), text("/kind"));
    let mut add = |problem: String| {
        let object = format!("{kind} {}", [text("/metadata/namespace"), text("/metadata/name")].join("/").trim_start_matches('/'));
        problems.push(Misshapen { file: document.file.display().to_string(), object: object.trim().to_owned(), problem });
    };
    if version.is_empty() || kind.is_empty() {
        return add("is no manifest: apiVersion and kind are missing".to_owned());
    }
    let Some(version) = version.strip_prefix(GROUP).and_then(|v| v.strip_prefix('/')) else { return };
    let Some(schema) = schemas.get(kind).filter(|_| version == polity_api::VERSION) else {
        return add(format!("there is no kind {kind} in {GROUP}/{version}"));
    };
    match object.pointer("/metadata/name") {
        Some(Value::String(name)) if !name.is_empty() => {}
        Some(other) if !other.is_null() && !other.is_string() => add(format!("metadata.name: {}", no_text(other))),
        _ => add("metadata.name is missing".to_owned()),
    }
    let spec = object.get("spec").cloned().unwrap_or(Value::Null);
    let schema = &schema["properties"]["spec"];
    match compile_schema(schema) {
        Ok(validator) => validator.iter_errors(&spec).for_each(|e| {
            let said = plainly(e.kind().keyword(), e.instance(), e.to_string());
            add(format!("spec{}: {said}", dotted(&e.instance_path().to_string())));
        }),
        Err(e) => add(format!("cannot be checked: {e}")),
    }
    let mut unknown = Vec::new();
    fields("spec", &spec, schema, &mut unknown);
    unknown.into_iter().for_each(add);
}

/// Path of a field as messages of the API server have it: `.rules[0].name`.
fn dotted(pointer: &str) -> String {
    let part = |part: &str| match part.bytes().all(|b| b.is_ascii_digit()) {
        true => format!("[{part}]"),
        false => format!(".{part}"),
    };
    pointer.split('/').filter(|p| !p.is_empty()).map(part).collect()
}

/// What is wrong with a value, and what to write, in place of what a validator of schemas says.
fn plainly(keyword: &str, value: &Value, said: String) -> String {
    let wanted = said.rsplit_once("is not of type ").map(|(_, wanted)| wanted.trim_matches('"').to_owned());
    match (keyword, wanted.as_deref()) {
        ("type", Some("string")) if value.is_boolean() || value.is_number() => no_text(value),
        ("type", Some("array")) if !value.is_object() && !value.is_null() => format!("a list is expected: write [{}]", inline(value)),
        ("type", Some("integer" | "number")) if value.is_string() => {
            format!("a number is expected, and {value} is a text: write it without quotes")
        }
        ("type", Some("boolean")) if value.is_string() => format!("true or false is expected, without quotes, not {value}"),
        ("required", _) => said.replace(" is a required property", " is missing"),
        _ => said,
    }
}

/// A value that is to be a text and is none. YAML knows more words for true and false than one expects.
fn no_text(value: &Value) -> String {
    match value {
        Value::Bool(true) => "a text is expected; without quotes YAML reads y, yes, on and true as the boolean true: write \"yes\", or what it was, in quotes".to_owned(),
        Value::Bool(false) => "a text is expected; without quotes YAML reads n, no, off and false as the boolean false: write \"n\", or what it was, in quotes".to_owned(),
        other => format!("a text is expected, and YAML reads {other} as a number: write \"{other}\", in quotes"),
    }
}

fn inline(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Rules of the schema on a text, of the form `self.matches('…')`; others need all of CEL and are the API server's.
fn broken_rules(path: &str, value: &Value, schema: &Value, problems: &mut Vec<String>) {
    let Value::String(text) = value else { return };
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let pattern = rule["rule"].as_str().and_then(|r| r.strip_prefix("self.matches('")?.strip_suffix("')"));
        if pattern.and_then(|p| regex::Regex::new(p).ok()).is_some_and(|p| !p.is_match(text)) {
            problems.push(format!("{path}: {value}: {}", rule["message"].as_str().unwrap_or_default()));
        }
    }
}

/// Fields that the schema does not have: the API server would drop them.
fn fields(path: &str, value: &Value, schema: &Value, unknown: &mut Vec<String>) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    broken_rules(path, value, schema, unknown);
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let at = format!("{path}.{name}");
                let inner = &schema["properties"][name];
                if !inner.is_null() {
                    fields(&at, member, inner, unknown);
                } else if !schema["additionalProperties"].is_null() {
                    fields(&at, member, &schema["additionalProperties"], unknown);
                } else if let Some(known) = schema["properties"].as_object() {
                    let near =
                        nearest(name, known.keys().map(String::as_str)).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                    let known = known.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                    unknown.push(format!("{at}: there is no such field{near}; there are {known}"));
                }
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| fields(&format!("{path}[{i}]"), item, &schema["items"], unknown));
        }
        _ => {}
    }
}

//! What a client may say about a call beside its arguments: keys of `_meta` that start with `polity.dev/`. A misspelt one is refused.

use std::time::Duration;

use polity_api::ToolCallSpec;
use rmcp::{ErrorData, model::RequestMetaObject};
use serde_json::{Map, Value, json};

use crate::{
    body::{self, CallBody},
    problem::Problem,
};

/// Prefix of all keys.
const PREFIX: &str = "polity.dev/";
/// The keys, and the fields of `POST calls` that they mean.
const KEYS: [&str; 5] = ["idempotencyKey", "taskRef", "jobSpace", "context", "waitSeconds"];

/// What was told.
#[derive(Debug, Default)]
pub struct Told {
    fields: Map<String, Value>,
    /// How long the client waits.
    pub wait: Option<Duration>,
}

impl Told {
    /// Reads the keys.
    ///
    /// # Errors
    /// There is one that nobody knows, or its value is not of its kind.
    pub fn of(meta: &RequestMetaObject) -> Result<Self, ErrorData> {
        let mut told = Self::default();
        for (key, value) in meta.iter() {
            let Some(key) = key.strip_prefix(PREFIX) else { continue };
            match (KEYS.contains(&key), key, value) {
                (true, "waitSeconds", Value::Number(n)) => {
                    let wait = n.as_u64().ok_or_else(|| invalid("polity.dev/waitSeconds is a whole number".to_owned()))?;
                    told.wait = Some(body::wait_of(Some(wait)).map_err(|p| invalid(p.message().to_owned()))?);
                }
                (true, key, Value::String(text)) if key != "waitSeconds" => {
                    told.fields.insert(key.to_owned(), json!(text));
                }
                (true, key, _) => return Err(invalid(format!("_meta {PREFIX}{key} is not of its type"))),
                (false, key, _) => return Err(invalid(format!("unknown _meta key {PREFIX}{key}; known are {}", KEYS.join(", ")))),
            }
        }
        Ok(told)
    }

    /// The call, as `POST calls` would have it.
    ///
    /// # Errors
    /// A name is too long or empty.
    pub fn spec(&self, tool: &str, tool_org: Option<&str>, input: Map<String, Value>) -> Result<ToolCallSpec, Problem> {
        let mut fields = self.fields.clone();
        fields.insert("tool".to_owned(), json!(tool));
        if let Some(org) = tool_org {
            fields.insert("toolOrg".to_owned(), json!(org));
        }
        fields.insert("input".to_owned(), Value::Object(input));
        let body: CallBody = serde_json::from_value(Value::Object(fields)).map_err(|e| Problem::invalid(e.to_string()))?;
        body.into_spec()
    }
}

fn invalid(message: String) -> ErrorData {
    ErrorData::invalid_params(message, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(meta: &Value) -> Result<Told, ErrorData> {
        Told::of(&serde_json::from_value(meta.clone()).unwrap())
    }

    #[test]
    fn known_keys_become_fields_of_the_call() {
        let told = of(&json!({"polity.dev/idempotencyKey": "k", "polity.dev/taskRef": "t", "polity.dev/waitSeconds": 5, "other/x": 1, "progressToken": 1}))
            .unwrap();
        assert_eq!(told.wait, Some(Duration::from_secs(5)));
        let spec = told.spec("pay", Some("acme"), Map::new()).unwrap();
        assert_eq!((spec.tool.name.as_str(), spec.tool.org.as_deref()), ("pay", Some("acme")));
        assert_eq!((spec.idempotency_key.as_deref(), spec.task_ref.unwrap().name.as_str()), (Some("k"), "t"));
    }

    #[test]
    fn what_nobody_knows_is_refused() {
        for (meta, named) in [
            (json!({"polity.dev/idempotencykey": "k"}), "idempotencykey"),
            (json!({"polity.dev/idempotencyKey": 1}), "idempotencyKey"),
            (json!({"polity.dev/waitSeconds": "1"}), "waitSeconds"),
            (json!({"polity.dev/waitSeconds": 1.5}), "waitSeconds"),
            (json!({"polity.dev/waitSeconds": 121}), "waitSeconds"),
        ] {
            assert!(of(&meta).unwrap_err().message.contains(named), "{meta}");
        }
        let long = of(&json!({"polity.dev/idempotencyKey": "k".repeat(129)})).unwrap();
        assert!(long.spec("pay", None, Map::new()).is_err());
    }
}

//! The definition of a tool as its server lists it, and its digest. Pure.

use polity_ledger::canonical;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::flags::hidden;

/// Largest definition, in bytes of its canonical text.
pub const MAX_DEFINITION: usize = 32 * 1024;
/// Members of a listed tool that a definition has, each with its name for people.
const PARTS: [(&str, &str); 6] = [
    ("name", "name"),
    ("title", "title"),
    ("description", "description"),
    ("inputSchema", "input schema"),
    ("outputSchema", "output schema"),
    ("annotations", "annotations"),
];

/// What a server lists of a tool: name, title, description, inputSchema, outputSchema and annotations; whatever else it lists is left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    parts: Map<String, Value>,
    digest: String,
}

/// Why something is no definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionError {
    /// Not JSON, or no object.
    #[error("a definition is a JSON object: {0}")]
    NotAnObject(String),
    /// It has no name.
    #[error("the definition has no name")]
    NoName,
    /// It cannot be written canonically.
    #[error("the definition has no canonical form: {0}")]
    NotCanonical(String),
    /// It is too large.
    #[error("the definition has {0} bytes; at most {MAX_DEFINITION} are taken")]
    TooLarge(usize),
}

impl Definition {
    /// Of an element of `tools/list`. Members that are null count as absent.
    ///
    /// # Errors
    /// It is no object with a name, or too large.
    pub fn of(listed: &Value) -> Result<Self, DefinitionError> {
        let object = listed.as_object().ok_or_else(|| DefinitionError::NotAnObject("it is something else".to_owned()))?;
        if object.get("name").and_then(Value::as_str).is_none_or(str::is_empty) {
            return Err(DefinitionError::NoName);
        }
        let present = |key: &str| object.get(key).filter(|v| !v.is_null()).map(|v| (key.to_owned(), v.clone()));
        let parts: Map<String, Value> = PARTS.iter().filter_map(|(key, _)| present(key)).collect();
        let text = canonical(&Value::Object(parts.clone())).map_err(|e| DefinitionError::NotCanonical(e.to_string()))?;
        if text.len() > MAX_DEFINITION {
            return Err(DefinitionError::TooLarge(text.len()));
        }
        Ok(Self { parts, digest: hex::encode(Sha256::digest(text)) })
    }

    /// From JSON text, as `Tool.spec.runtime.mcp.definition` has it.
    ///
    /// # Errors
    /// As `of`; or it is not JSON.
    pub fn parse(text: &str) -> Result<Self, DefinitionError> {
        let value: Value = serde_json::from_str(text).map_err(|e| DefinitionError::NotAnObject(e.to_string()))?;
        Self::of(&value)
    }

    /// SHA-256 (hex) of its canonical JSON (RFC 8785).
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The tool's name at its server.
    #[must_use]
    pub fn name(&self) -> &str {
        self.parts.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    /// One of its members.
    #[must_use]
    pub fn part(&self, key: &str) -> Option<&Value> {
        self.parts.get(key)
    }

    /// Members with their values.
    pub fn parts(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.parts.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Names, for people, of the parts that are not as in `pinned`.
    #[must_use]
    pub fn changed(&self, pinned: &Self) -> Vec<&'static str> {
        let differs = |key: &str| match (self.parts.get(key), pinned.parts.get(key)) {
            (Some(a), Some(b)) => canonical(a).ok() != canonical(b).ok(),
            (a, b) => a.is_some() != b.is_some(),
        };
        PARTS.iter().filter(|(key, _)| differs(key)).map(|(_, named)| *named).collect()
    }

    /// JSON text for people and for the manifest, one member a line; characters that cannot be seen are escaped, so that they can.
    #[must_use]
    pub fn text(&self) -> String {
        let plain = serde_json::to_string_pretty(&sorted(&Value::Object(self.parts.clone()))).unwrap_or_default();
        let mut out = String::with_capacity(plain.len());
        for c in plain.chars() {
            if hidden(c) {
                let mut units = [0; 2];
                c.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
            } else {
                out.push(c);
            }
        }
        out
    }
}

/// With members in order, whatever map the JSON library is built with.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Object(members) => {
            let mut list: Vec<_> = members.iter().collect();
            list.sort_by(|a, b| a.0.cmp(b.0));
            Value::Object(list.into_iter().map(|(k, v)| (k.clone(), sorted(v))).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(value: &Value) -> Definition {
        Definition::of(value).unwrap()
    }

    #[test]
    fn the_digest_is_of_the_six_parts_in_canonical_form() {
        let one = of(&json!({"name": "send", "description": "Sends.", "inputSchema": {"type": "object", "maxProperties": 2}}));
        // what `printf '%s' '{"description":"Sends.","inputSchema":{"maxProperties":2,"type":"object"},"name":"send"}' | sha256sum` says
        assert_eq!(one.digest(), "718d9c29bd76ffb3856fac12e2082023da137d9aba018fa1bc030324c6637cd1");
        let other = json!({"title": null, "inputSchema": {"maxProperties": 2.0, "type": "object"}, "name": "send", "description": "Sends.", "_meta": {"x": 1}, "icons": []});
        assert_eq!(of(&other).digest(), one.digest());
        assert_ne!(of(&json!({"name": "send", "description": "Sends. "})).digest(), one.digest());
    }

    #[test]
    fn what_changed_is_named() {
        let pinned = of(&json!({"name": "send", "description": "a", "inputSchema": {"type": "object"}}));
        let now =
            of(&json!({"name": "send", "description": "b", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": true}}));
        assert_eq!(now.changed(&pinned), ["description", "annotations"]);
        assert!(pinned.changed(&pinned).is_empty());
    }

    #[test]
    fn text_shows_what_cannot_be_seen_and_means_the_same() {
        let definition = of(&json!({"name": "send", "description": "a\u{200b}b\u{e0041}é"}));
        let text = definition.text();
        assert!(text.contains(r"a\u200bb\udb40\udc41é"), "{text}");
        assert_eq!(Definition::parse(&text).unwrap(), definition);
    }

    #[test]
    fn what_is_no_definition() {
        for bad in [json!(1), json!({}), json!({"name": ""}), json!({"name": 3})] {
            assert!(Definition::of(&bad).is_err(), "{bad}");
        }
        let large = json!({"name": "x", "description": "y".repeat(MAX_DEFINITION)});
        assert!(matches!(Definition::of(&large), Err(DefinitionError::TooLarge(_))));
        assert!(Definition::parse("{").is_err());
    }
}

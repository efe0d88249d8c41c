//! Where the schema by which a Tool checks its arguments and the one that its server lists disagree. Pure. Looks at the first level only: names,
//! which are required, and types.

use serde_json::{Map, Value};

/// Most differences told.
const MOST: usize = 8;

/// Each difference, for people: `own` is the Tool's schema, `listed` the server's.
#[must_use]
pub fn differences(own: Option<&Map<String, Value>>, listed: Option<&Value>) -> Vec<String> {
    let Some(listed) = listed.and_then(Value::as_object) else { return Vec::new() };
    let Some(own) = own else {
        return vec!["the Tool has no inputSchema, so any object is sent; the server's could be taken".to_owned()];
    };
    let (ours, theirs) = (properties(own), properties(listed));
    let (need_ours, need_theirs) = (required(own), required(listed));
    let mut found = Vec::new();
    for name in &need_theirs {
        if !ours.is_some_and(|p| p.contains_key(*name)) {
            found.push(format!("the server requires {name:?}, which inputSchema does not have"));
        } else if !need_ours.contains(name) {
            found.push(format!("the server requires {name:?}, which inputSchema does not require"));
        }
    }
    let closed = listed.get("additionalProperties") == Some(&Value::Bool(false));
    for (name, schema) in ours.into_iter().flatten() {
        match theirs.and_then(|p| p.get(name)) {
            None if closed => found.push(format!("the server does not take {name:?}, which inputSchema has")),
            None => {}
            Some(other) => {
                if let (Some(a), Some(b)) = (schema.get("type"), other.get("type"))
                    && a != b
                    && !(a == "integer" && b == "number")
                {
                    found.push(format!("{name:?} is {a} in inputSchema and {b} at the server"));
                }
            }
        }
    }
    found.truncate(MOST);
    found
}

fn properties(schema: &Map<String, Value>) -> Option<&Map<String, Value>> {
    schema.get("properties").and_then(Value::as_object)
}

fn required(schema: &Map<String, Value>) -> Vec<&str> {
    schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(own: &Value, listed: &Value) -> Vec<String> {
        differences(own.as_object(), Some(listed))
    }

    #[test]
    fn a_narrower_schema_is_no_difference() {
        let listed = json!({"type": "object", "required": ["to"], "properties": {"to": {"type": "string"}, "n": {"type": "number"}, "cc": {"type": "string"}}});
        let own = json!({"type": "object", "required": ["to", "n"], "properties": {"to": {"type": "string", "maxLength": 9}, "n": {"type": "integer"}}});
        assert_eq!(told(&own, &listed), Vec::<String>::new());
    }

    #[test]
    fn each_difference_is_named() {
        let listed = json!({"required": ["to", "subject"], "additionalProperties": false, "properties": {"to": {"type": "string"}, "subject": {"type": "string"}}});
        let own = json!({"properties": {"to": {"type": "integer"}, "extra": {}}});
        let found = told(&own, &listed);
        for part in [
            "requires \"to\", which inputSchema does not require",
            "requires \"subject\", which inputSchema does not have",
            "does not take \"extra\"",
            "\"to\" is \"integer\" in inputSchema and \"string\"",
        ] {
            assert!(found.iter().any(|f| f.contains(part)), "{part}: {found:?}");
        }
        assert_eq!(found.len(), 4);
        assert_eq!(differences(None, Some(&listed)).len(), 1);
        assert!(differences(None, None).is_empty());
    }
}

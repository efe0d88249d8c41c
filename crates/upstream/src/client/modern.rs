//! What revision 2026-07-28 wants of a request: there is no handshake, so each one says its revision, and repeats in headers what it is for, so that
//! whoever stands between can route it without reading it (SEP-2243).

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

/// The revision.
pub const REVISION: &str = "2026-07-28";
/// Before the names of members of `_meta` that the protocol defines.
const META: &str = "io.modelcontextprotocol";
/// Most arguments that a server may want in headers, and deepest nesting at which they are looked for.
const MOST: usize = 32;
/// See `MOST`.
const DEEPEST: usize = 16;

/// Adds to parameters what each request says of itself.
pub fn mark(params: &mut Value) {
    if !params["_meta"].is_object() {
        params["_meta"] = json!({});
    }
    params["_meta"][format!("{META}/protocolVersion")] = json!(REVISION);
    params["_meta"][format!("{META}/clientCapabilities")] = json!({});
    params["_meta"][format!("{META}/clientInfo")] = json!({"name": "polity", "version": env!("CARGO_PKG_VERSION")});
}

/// Headers that repeat what a request is for. `schema` is the input schema of the tool that is called: it says which arguments the server wants there.
pub fn headers(method: &str, params: &Value, schema: Option<&Value>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&encoded(value))) {
            headers.insert(name, value);
        }
    };
    add("mcp-method", method);
    if method != "tools/call" {
        return headers;
    }
    if let Some(name) = params["name"].as_str() {
        add("mcp-name", name);
    }
    let mut wanted = Vec::new();
    find(schema.unwrap_or(&Value::Null), &params["arguments"], 0, &mut wanted);
    for (name, value) in wanted {
        add(&format!("mcp-param-{name}"), &value);
    }
    headers
}

/// Arguments at properties that the schema marks, with the names that it gives them.
fn find(schema: &Value, arguments: &Value, depth: usize, wanted: &mut Vec<(String, String)>) {
    let Some(properties) = schema["properties"].as_object().filter(|_| depth < DEEPEST) else { return };
    for (name, property) in properties {
        let Some(argument) = arguments.get(name) else { continue };
        let text = match argument {
            Value::String(text) => Some(text.clone()),
            Value::Bool(_) | Value::Number(_) => Some(argument.to_string()),
            _ => None,
        };
        if let (Some(header), Some(text)) = (property["x-mcp-header"].as_str().filter(|h| !h.is_empty()), text)
            && wanted.len() < MOST
        {
            wanted.push((header.to_owned(), text));
        }
        find(property, argument, depth + 1, wanted);
    }
}

/// A value as a header carries it: what would not come through unchanged, or looks as if it had been changed, goes as Base64.
fn encoded(value: &str) -> String {
    let plain = value.bytes().all(|b| (0x20..=0x7e).contains(&b)) && !value.starts_with(' ') && !value.ends_with(' ');
    if plain && !(value.starts_with("=?base64?") && value.ends_with("?=")) {
        return value.to_owned();
    }
    format!("=?base64?{}?=", BASE64_STANDARD.encode(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_through_unchanged() {
        for (value, carried) in [
            ("send", "send"),
            ("two words", "two words"),
            ("", ""),
            (" x", "=?base64?IHg=?="),
            ("x\n", "=?base64?eAo=?="),
            ("ü", "=?base64?w7w=?="),
            ("=?base64?eA==?=", "=?base64?PT9iYXNlNjQ/ZUE9PT89?="),
        ] {
            assert_eq!(encoded(value), carried, "{value:?}");
        }
    }

    #[test]
    fn arguments_go_into_headers_where_the_schema_says_so() {
        let schema = json!({"properties": {
            "region": {"type": "string", "x-mcp-header": "Region"}, "dry": {"type": "boolean", "x-mcp-header": "Dry"},
            "deep": {"properties": {"n": {"type": "integer", "x-mcp-header": "N"}}}, "absent": {"x-mcp-header": "Absent"},
            "list": {"x-mcp-header": "List"}, "bad": {"x-mcp-header": "no token\r\n"}, "plain": {},
        }});
        let arguments = json!({"region": "eu", "dry": true, "deep": {"n": 7}, "list": [1], "bad": "x", "plain": "y"});
        let found = headers("tools/call", &json!({"name": "send", "arguments": arguments}), Some(&schema));
        let mut found: Vec<(&str, &str)> = found.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        found.sort_unstable();
        let expected = [
            ("mcp-method", "tools/call"),
            ("mcp-name", "send"),
            ("mcp-param-dry", "true"),
            ("mcp-param-n", "7"),
            ("mcp-param-region", "eu"),
        ];
        assert_eq!(found, expected);
        assert_eq!(headers("tools/list", &json!({"name": "x"}), Some(&schema)).len(), 1);
    }

    #[test]
    fn a_request_says_its_revision_and_keeps_what_it_says() {
        let mut params = json!({"_meta": {"traceparent": "t"}});
        mark(&mut params);
        assert_eq!(
            (&params["_meta"]["traceparent"], &params["_meta"]["io.modelcontextprotocol/protocolVersion"]),
            (&json!("t"), &json!(REVISION))
        );
    }
}

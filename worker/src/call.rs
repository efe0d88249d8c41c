//! A call as written on the command line: `TOOL {json}`.

use serde_json::{Map, Value};

/// One call of the script.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Name of the Tool.
    pub tool: String,
    /// Org above that has the Tool (`ORG/TOOL` on the command line).
    pub tool_org: Option<String>,
    /// Its input.
    pub input: Map<String, Value>,
}

impl std::str::FromStr for Call {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (name, input) = text.split_once(char::is_whitespace).unwrap_or((text, "{}"));
        let (tool_org, tool) = match name.split_once('/') {
            Some((org, tool)) => (Some(org.to_owned()), tool),
            None => (None, name),
        };
        if tool.is_empty() {
            return Err("a call is `TOOL {json}`".to_owned());
        }
        let input = serde_json::from_str(input.trim()).map_err(|e| format!("the input of {name} is not a JSON object: {e}"))?;
        Ok(Self { tool: tool.to_owned(), tool_org, input })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_a_manifest_says() {
        let call: Call = r#"payments-transfer {"amount": 20, "to": "ACME"}"#.parse().unwrap();
        assert_eq!((call.tool.as_str(), call.tool_org), ("payments-transfer", None));
        assert_eq!(Value::Object(call.input), serde_json::json!({"amount": 20, "to": "ACME"}));
        let call: Call = "acme/ping".parse().unwrap();
        assert_eq!((call.tool.as_str(), call.tool_org.as_deref()), ("ping", Some("acme")));
        for bad in ["", "tool [1]", "tool {", "acme/ {}"] {
            assert!(bad.parse::<Call>().is_err(), "{bad}");
        }
    }
}

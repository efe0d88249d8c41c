//! The lines of the log: one an outcome, for people to read.

use serde_json::Value;

/// `tool key=value …`, at most so long that a log line stays one.
pub fn call(tool: &str, input: &serde_json::Map<String, Value>) -> String {
    input.iter().fold(tool.to_owned(), |text, (key, value)| format!("{text} {key}={}", short(value, 60)))
}

/// What became of a call.
pub fn outcome(answer: &Value) -> String {
    let phase = text(answer, "phase").unwrap_or("Unknown");
    let reason = pair("reason", text(answer, "reason"));
    match phase {
        "Succeeded" => format!("Succeeded {}", short(&answer["result"]["output"], 400)),
        "WaitingApproval" => format!("WaitingApproval{}", pair("approval", text(answer, "approval"))),
        "Running" => "Running, not ended yet".to_owned(),
        other => format!("{other}{reason}{}{}", quoted("message", text(answer, "message")), quoted("hint", text(answer, "hint"))),
    }
}

/// A refusal, in the one shape that the edge gives errors.
pub fn denied(answer: &Value) -> String {
    let rules: Vec<&str> = answer["rules"].as_array().map(|r| r.iter().filter_map(Value::as_str).collect()).unwrap_or_default();
    let rules = if rules.is_empty() { String::new() } else { format!(" rule={}", rules.join(",")) };
    format!("Denied{rules} {}", problem(answer))
}

/// Reason, message and hint of an error.
pub fn problem(answer: &Value) -> String {
    if let Value::String(text) = answer {
        return text.chars().take(200).collect();
    }
    let reason = format!("reason={}", text(answer, "reason").unwrap_or("none"));
    format!("{reason}{}{}", quoted("message", text(answer, "message")), quoted("hint", text(answer, "hint")))
}

fn text<'a>(answer: &'a Value, key: &str) -> Option<&'a str> {
    answer[key].as_str().filter(|s| !s.is_empty())
}

fn pair(key: &str, value: Option<&str>) -> String {
    value.map(|v| format!(" {key}={v}")).unwrap_or_default()
}

fn quoted(key: &str, value: Option<&str>) -> String {
    value.map(|v| format!(" {key}={v:?}")).unwrap_or_default()
}

fn short(value: &Value, most: usize) -> String {
    let text = match value {
        Value::String(text) if !text.contains(char::is_whitespace) && !text.is_empty() => text.clone(),
        other => other.to_string(),
    };
    if text.chars().count() <= most { text } else { text.chars().take(most).chain("…".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_read_as_promised() {
        let input = json!({"amount": 20, "to": "ACME Ltd"});
        assert_eq!(call("payments-transfer", input.as_object().unwrap()), r#"payments-transfer amount=20 to="ACME Ltd""#);
        let ok = json!({"phase": "Succeeded", "result": {"output": {"ok": true}}});
        assert_eq!(outcome(&ok), r#"Succeeded {"ok":true}"#);
        assert_eq!(outcome(&json!({"phase": "WaitingApproval", "approval": "a-1"})), "WaitingApproval approval=a-1");
        let failed = json!({"phase": "Failed", "reason": "ToolFailed", "message": "exit 3"});
        assert_eq!(outcome(&failed), r#"Failed reason=ToolFailed message="exit 3""#);
        let no = json!({"reason": "PolicyDenied", "message": "too much", "hint": "ask for less", "rules": ["acme/limits/small"]});
        assert_eq!(denied(&no), r#"Denied rule=acme/limits/small reason=PolicyDenied message="too much" hint="ask for less""#);
        assert_eq!(problem(&Value::String("bad gateway".into())), "bad gateway");
    }
}

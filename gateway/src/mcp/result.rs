//! What became of a call, as MCP says it. Everything that is not a success comes in-band with `isError`, so that the agent reads why and what would
//! pass; only what the client itself got wrong (an unknown tool, a bad parameter) is a protocol error.

use polity_api::{reasons, toolcall::Phase};
use rmcp::{
    ErrorData,
    model::{CallToolResult, ContentBlock, MetaObject},
};
use serde_json::{Map, Value, json};

use crate::{answer::Answer, problem::Problem};

/// Key of what stands in `_meta` of a result of a call.
const CALL: &str = "polity.dev/call";
/// Key of a refusal.
const PROBLEM: &str = "polity.dev/problem";

/// A call that was answered. `key` is its idempotency key.
pub fn of_answer(answer: &Answer, org: &str, tool: &str, key: Option<&str>) -> CallToolResult {
    let output = answer.result.as_ref().and_then(|r| r.output.clone());
    let mut result = if answer.phase == Phase::Succeeded {
        let output = output.unwrap_or(Value::Null);
        let mut result = CallToolResult::success(vec![ContentBlock::text(text_of(&output))]);
        result.structured_content = output.is_object().then_some(output);
        result
    } else {
        let mut content = vec![ContentBlock::text(said(answer, org, tool, key))];
        content.extend(output.map(|output| ContentBlock::text(text_of(&output))));
        content.extend(answer.result.as_ref().and_then(|r| r.stderr_tail.clone()).map(ContentBlock::text));
        CallToolResult::error(content)
    };
    let mut about = serde_json::to_value(answer).unwrap_or_default();
    if let Some(about) = about.as_object_mut() {
        // It is the result's own content.
        about.remove("result");
    }
    result.meta = Some(MetaObject(Map::from_iter([(CALL.to_owned(), about)])));
    result
}

/// A call that was refused.
pub fn of_problem(problem: &Problem) -> CallToolResult {
    let mut text = match problem.is_denial() {
        true => format!("Denied ({}): {}", problem.reason(), problem.message()),
        false => {
            format!("Not possible now ({}): {}; nothing has run unless the ledger says otherwise", problem.reason(), problem.message())
        }
    };
    if !problem.rules().is_empty() {
        text += &format!("\nRules: {}", problem.rules().join(", "));
    }
    if !problem.told_hint().is_empty() {
        text += &format!("\nHint: {}", problem.told_hint());
    }
    let mut result = CallToolResult::error(vec![ContentBlock::text(text)]);
    result.meta = Some(MetaObject(Map::from_iter([(PROBLEM.to_owned(), told(problem))])));
    result
}

/// Whether the client asked for something that is no Tool.
pub fn is_unknown_tool(problem: &Problem) -> bool {
    problem.reason() == reasons::TOOL_NOT_FOUND
}

/// A refusal as a protocol error.
pub fn refusal(problem: &Problem) -> ErrorData {
    let message = if is_unknown_tool(problem) { format!("Unknown tool: {}", problem.message()) } else { problem.message().to_owned() };
    let client = matches!(problem.status().as_u16(), 400 | 403 | 404);
    let data = Some(told(problem));
    if client { ErrorData::invalid_params(message, data) } else { ErrorData::internal_error(message, data) }
}

/// A refusal of everything that a caller may ask.
pub fn refused(reason: &str, message: &str) -> ErrorData {
    ErrorData::invalid_request(message.to_owned(), Some(json!({"reason": reason, "message": message})))
}

fn told(problem: &Problem) -> Value {
    serde_json::to_value(problem.body()).unwrap_or_default()
}

/// Text as text, anything else as JSON.
fn text_of(output: &Value) -> String {
    match output {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// What an agent should know of a call that has not succeeded.
fn said(answer: &Answer, org: &str, tool: &str, key: Option<&str>) -> String {
    let resume = match key {
        Some(key) => {
            format!("Call {tool} again with the same arguments and the same _meta \"polity.dev/idempotencyKey\" ({key:?}) for its outcome.")
        }
        None => format!(
            "Its outcome is at GET /v1/orgs/{org}/calls/{}. A call with _meta \"polity.dev/idempotencyKey\" can be made again for its outcome; another call without it asks anew.",
            answer.id
        ),
    };
    let why = match (answer.reason.as_str(), answer.message.as_str()) {
        ("", "") => String::new(),
        (reason, "") => format!(" ({reason})"),
        (reason, message) => format!(" ({reason}): {message}"),
    };
    match answer.phase {
        Phase::WaitingApproval | Phase::Pending => {
            let approval = answer.approval.as_ref().map_or_else(String::new, |name| format!(" It waits for Approval {name}."));
            let asks = answer.decision.as_ref().map(|d| d.message.as_str()).filter(|m| !m.is_empty());
            let asks = asks.map_or_else(String::new, |m| format!(" {m}."));
            format!("Nothing has run yet: a person must allow this call first ({}).{approval}{asks} {resume}", reasons::APPROVAL_REQUIRED)
        }
        Phase::Running => format!("The call {} still runs. {resume}", answer.id),
        Phase::Unknown => format!("Nobody knows whether the call took effect{why}. Do not repeat it; a person settles it."),
        Phase::Denied => {
            let hint = answer.decision.as_ref().map(|d| d.hint.as_str()).filter(|h| !h.is_empty());
            let hint = hint.map_or_else(String::new, |h| format!("\nHint: {h}"));
            format!("Denied{why}{hint}")
        }
        phase => format!("{phase:?}{why}"),
    }
}

#[cfg(test)]
mod tests {
    use polity_api::toolcall::CallResult;

    use super::*;

    fn answer(phase: Phase, output: Option<Value>) -> Answer {
        let result = output.map(|output| CallResult { output: Some(output), ..CallResult::default() });
        Answer { result, ..Answer::new("id-1", phase) }
    }

    fn shown(result: &CallToolResult) -> Value {
        serde_json::to_value(result).unwrap()
    }

    #[test]
    fn a_success_is_text_and_structure() {
        let told = shown(&of_answer(&answer(Phase::Succeeded, Some(json!({"a": 1}))), "o", "t", None));
        assert_eq!(told["content"], json!([{"type": "text", "text": "{\"a\":1}"}]));
        assert_eq!((&told["structuredContent"], &told["isError"]), (&json!({"a": 1}), &json!(false)));
        assert_eq!(told["_meta"]["polity.dev/call"], json!({"id": "id-1", "phase": "Succeeded"}));
        let text = shown(&of_answer(&answer(Phase::Succeeded, Some(json!("plain"))), "o", "t", None));
        assert_eq!(text["content"][0]["text"], "plain");
        assert_eq!(text["structuredContent"], Value::Null);
    }

    #[test]
    fn what_is_no_success_says_so_and_what_to_do() {
        let mut waits = answer(Phase::WaitingApproval, None);
        waits.approval = Some("appr-7".into());
        let told = shown(&of_answer(&waits, "o", "pay", Some("k-1")));
        let text = told["content"][0]["text"].as_str().unwrap();
        assert_eq!(told["isError"], true);
        for part in ["appr-7", "k-1", "pay", "ApprovalRequired", "Nothing has run"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let without = shown(&of_answer(&waits, "o", "pay", None));
        assert!(without["content"][0]["text"].as_str().unwrap().contains("/v1/orgs/o/calls/id-1"));
        for phase in [Phase::Running, Phase::Unknown, Phase::Denied, Phase::Canceled, Phase::Failed] {
            let told = shown(&of_answer(&answer(phase, None), "o", "pay", None));
            assert_eq!((&told["isError"], &told["structuredContent"]), (&json!(true), &Value::Null), "{phase:?}");
        }
        let mut failed = answer(Phase::Failed, Some(json!({"error": "no"})));
        (failed.reason, failed.message) = ("ToolFailed".into(), "it answered 500".into());
        let told = shown(&of_answer(&failed, "o", "pay", None));
        assert_eq!(told["content"][0]["text"], "Failed (ToolFailed): it answered 500");
        assert_eq!(told["content"][1]["text"], "{\"error\":\"no\"}");
    }

    #[test]
    fn a_refusal_is_in_band_and_an_unknown_tool_is_not() {
        let denied = Problem::new(axum::http::StatusCode::FORBIDDEN, reasons::POLICY_DENIED, "too much").hint("ask for less");
        let told = shown(&of_problem(&denied));
        assert_eq!(told["content"][0]["text"], "Denied (PolicyDenied): too much\nHint: ask for less");
        assert_eq!(told["_meta"]["polity.dev/problem"]["reason"], "PolicyDenied");
        let unknown = Problem::new(axum::http::StatusCode::FORBIDDEN, reasons::TOOL_NOT_FOUND, "no pai");
        assert!(is_unknown_tool(&unknown) && !is_unknown_tool(&denied));
        assert_eq!(refusal(&unknown).code, rmcp::model::ErrorCode::INVALID_PARAMS);
        assert_eq!(refusal(&Problem::unavailable(reasons::LEDGER_UNAVAILABLE, "x")).code, rmcp::model::ErrorCode::INTERNAL_ERROR);
    }
}

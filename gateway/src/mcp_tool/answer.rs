//! What the end of the tries means: whether the call took effect, its output or its failure. Pure.

use std::time::Duration;

use polity_api::{names, reasons};
use polity_ledger::Outcome;
use polity_policy::ToolFacts;
use polity_upstream::{
    Definition,
    client::{Failure, excerpt},
};
use serde_json::{Value, json};

use super::run::Last;
use crate::http_tool::{
    Ran,
    answer::{Failure as Bad, fit, too_large},
};

/// Judges the last try. `mask` hides the Tool's own secrets in the server's words.
pub(super) fn judge(last: Last, tool: &ToolFacts, listed: &Definition, timeout: Duration, mask: &dyn Fn(String) -> String) -> Ran {
    let late = || format!("no answer within {} s", timeout.as_secs());
    let told = |failure: Failure| format!("the server {}", failure.worded(mask));
    match last {
        Last::NotCalled(None) => Ran::not_done(reasons::TIMED_OUT, format!("the server was not ready to be called: {}", late())),
        Last::NotCalled(Some(failure)) | Last::Failed(Some(failure @ Failure::NotSent { .. })) => {
            let timed_out = matches!(failure, Failure::NotSent { timed_out: true, .. } | Failure::Broken { timed_out: true, .. });
            Ran::not_done(if timed_out { reasons::TIMED_OUT } else { reasons::TOOL_FAILED }, told(failure))
        }
        Last::Failed(None) => unknown(tool, true, late()),
        // Whatever it says, it does not say what became of the call.
        Last::Failed(Some(failure @ Failure::Broken { timed_out, .. })) => unknown(tool, timed_out, told(failure)),
        Last::Failed(Some(failure @ Failure::Protocol(_))) => unknown(tool, false, told(failure)),
        Last::Failed(Some(Failure::TooLarge)) => {
            let (reason, message) = too_large(&format!("more than {}", names::MAX_RESULT), names::MAX_INLINE_RESULT);
            done(reason, message, None)
        }
        Last::Failed(Some(failure @ Failure::Status { status, .. })) => {
            Ran { status: Some(status), ..done(reasons::TOOL_FAILED, told(failure), None) }
        }
        Last::Failed(Some(failure @ Failure::Refused { .. })) => done(reasons::TOOL_FAILED, told(failure), None),
        Last::Result(result) => match output(result, tool, listed, mask) {
            Ok(output) => done("", String::new(), Some(output)),
            Err((reason, message)) => done(reason, message, None),
        },
    }
}

fn done(reason: &'static str, message: String, output: Option<Value>) -> Ran {
    Ran { outcome: Outcome::Done, reason, message, output, status: None }
}

/// Sent, and nobody knows. Calling an idempotent Tool once more does no harm, so nobody has to find out.
fn unknown(tool: &ToolFacts, timed_out: bool, message: String) -> Ran {
    let (outcome, otherwise) =
        if tool.spec.idempotent { (Outcome::NotDone, reasons::TOOL_FAILED) } else { (Outcome::Unknown, reasons::OUTCOME_UNKNOWN) };
    let reason = if timed_out { reasons::TIMED_OUT } else { otherwise };
    Ran { outcome, reason, message, output: None, status: None }
}

/// `structuredContent` where there is one, else `{"content": [...]}` as the server gave it. A result with `isError` is a failure in the server's words.
fn output(mut result: Value, tool: &ToolFacts, listed: &Definition, mask: &dyn Fn(String) -> String) -> Result<Value, Bad> {
    let invalid = |what: &str| Err((reasons::INVALID_RESULT, what.to_owned()));
    match result.get("isError") {
        None | Some(Value::Bool(false) | Value::Null) => {}
        Some(Value::Bool(true)) => {
            let text = excerpt(&mask(texts(&result)));
            let message =
                if text.is_empty() { "the tool failed and does not say why".to_owned() } else { format!("the tool failed: {text}") };
            return Err((reasons::TOOL_FAILED, message));
        }
        Some(_) => return invalid("isError is no boolean"),
    }
    match result.get_mut("structuredContent").map(Value::take) {
        Some(structured @ Value::Object(_)) => return fit(structured, tool),
        None | Some(Value::Null) => {}
        Some(_) => return invalid("structuredContent is no object"),
    }
    if listed.part("outputSchema").is_some() {
        return invalid("the server lists an output schema for the tool and gave no structuredContent");
    }
    match result.get_mut("content").map(Value::take) {
        Some(content @ Value::Array(_)) => fit(json!({"content": content}), tool),
        _ => invalid("the result has no list of content"),
    }
}

fn texts(result: &Value) -> String {
    let blocks = result.get("content").and_then(Value::as_array).into_iter().flatten();
    blocks.filter_map(|b| b.get("text").and_then(Value::as_str)).collect::<Vec<_>>().join(" ")
}

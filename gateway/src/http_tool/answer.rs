//! What the end of the tries means: whether the call took effect, its output or its failure. Pure.

use std::time::Duration;

use polity_api::{names, reasons};
use polity_ledger::Outcome;
use polity_policy::ToolFacts;
use serde_json::Value;

use super::{Ran, send::Try};

/// Characters of a failed answer's body that are shown.
const EXCERPT: usize = 200;

/// Judges the last try.
pub(super) fn judge(last: Try, tool: &ToolFacts, timeout: Duration, secrets: &[String]) -> Ran {
    let in_time = |timed_out: bool| if timed_out { format!(" within {} s", timeout.as_secs()) } else { String::new() };
    match last {
        Try::NotSent { timed_out, why } => {
            let reason = if timed_out { reasons::TIMED_OUT } else { reasons::TOOL_FAILED };
            Ran::not_done(reason, format!("the endpoint cannot be reached{}: {why}", in_time(timed_out)))
        }
        Try::Broken { timed_out, why } => {
            let message = format!("the endpoint gave no full answer{}: {why}", in_time(timed_out));
            // Calling an idempotent Tool once more does no harm, so nobody has to find out.
            let (outcome, reason) = match (tool.spec.idempotent, timed_out) {
                (true, true) => (Outcome::NotDone, reasons::TIMED_OUT),
                (true, false) => (Outcome::NotDone, reasons::TOOL_FAILED),
                (false, true) => (Outcome::Unknown, reasons::TIMED_OUT),
                (false, false) => (Outcome::Unknown, reasons::OUTCOME_UNKNOWN),
            };
            Ran { outcome, reason, message, output: None, status: None }
        }
        Try::Answered { status, location, body } => {
            let (reason, message, output) = match answered(status, location, body, tool, secrets) {
                Ok(output) => ("", String::new(), Some(output)),
                Err((reason, message)) => (reason, message, None),
            };
            Ran { outcome: Outcome::Done, reason, message, output, status: Some(status) }
        }
    }
}

pub(crate) type Failure = (&'static str, String);

fn answered(status: u16, location: Option<String>, body: Option<Vec<u8>>, tool: &ToolFacts, secrets: &[String]) -> Result<Value, Failure> {
    if (300..400).contains(&status) {
        let to = location.map(|l| format!(" to {}", without_query(&l))).unwrap_or_default();
        return Err((
            reasons::TOOL_FAILED,
            format!("the endpoint answered {status}, a redirect{to}; redirects are not followed, name the final address"),
        ));
    }
    if !(200..300).contains(&status) {
        let text = excerpt(&body.unwrap_or_default(), secrets);
        return Err((
            reasons::TOOL_FAILED,
            if text.is_empty() { format!("the endpoint answered {status}") } else { format!("the endpoint answered {status}: {text}") },
        ));
    }
    let body = body.ok_or_else(|| too_large(&format!("more than {}", names::MAX_RESULT), names::MAX_INLINE_RESULT))?;
    let value = if status == 204 && body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&body).map_err(|e| (reasons::INVALID_RESULT, format!("the answer is not one JSON value: {e}")))?
    };
    fit(value, tool)
}

/// A result as far as it may be kept: of a size that is kept, and what the Tool's schema says.
pub(crate) fn fit(value: Value, tool: &ToolFacts) -> Result<Value, Failure> {
    let size =
        polity_ledger::canonical(&value).map_err(|e| (reasons::INVALID_RESULT, format!("the answer has no canonical form: {e}")))?.len();
    if size > names::MAX_INLINE_RESULT {
        return Err(too_large(&size.to_string(), names::MAX_INLINE_RESULT));
    }
    check(&value, tool)?;
    Ok(value)
}

pub(crate) fn too_large(size: &str, most: usize) -> Failure {
    (reasons::RESULT_TOO_LARGE, format!("the result has {size} bytes; at most {most} are kept"))
}

/// The output must be what the Tool's schema says.
fn check(value: &Value, tool: &ToolFacts) -> Result<(), Failure> {
    let Some(schema) = &tool.spec.output_schema else { return Ok(()) };
    let schema = Value::Object(schema.clone());
    let validator = jsonschema::validator_for(&schema).map_err(|e| (reasons::TOOL_NOT_READY, format!("the Tool's outputSchema: {e}")))?;
    validator.validate(value).map_err(|e| {
        let at = e.instance_path().to_string();
        (reasons::INVALID_RESULT, format!("the answer is not what outputSchema says, at {at:?}: {e}"))
    })
}

fn without_query(location: &str) -> &str {
    location.split(['?', '#']).next().unwrap_or_default()
}

/// The beginning of a failed answer, on one line, without the Tool's own secrets.
fn excerpt(body: &[u8], secrets: &[String]) -> String {
    let text = masked(String::from_utf8_lossy(body).into_owned(), secrets);
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(EXCERPT).collect()
}

/// Without the Tool's own secrets.
pub(crate) fn masked(text: String, secrets: &[String]) -> String {
    secrets.iter().filter(|s| s.len() >= 4).fold(text, |text, secret| text.replace(secret.as_str(), "***"))
}

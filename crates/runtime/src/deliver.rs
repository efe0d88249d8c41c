//! What of a tool's end is delivered and kept: what Policies demand of results is applied here, once, for core and edge alike, before the ledger or
//! anybody else sees it. Never decides whether a call took effect.

use std::collections::BTreeMap;

use polity_api::{names, reasons};
use polity_policy::Obligations;
use serde_json::{Value, json};

/// Fact under which the result as the tool returned it goes to core's gate, which keeps only its keyed digest.
pub const RETURNED: &str = "returned";
/// Fact with the number of redactions by class.
const REDACTIONS: &str = "redactions";
/// Fact with what obligations in Warn or Observe would have done.
const ADVISORY: &str = "advisory";
/// Fact with the end of a failed container's stderr.
const STDERR: &str = "stderrTail";

/// The end of a tool that has run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct End {
    /// For people.
    pub message: String,
    /// What came out.
    pub result: Option<Value>,
    /// Facts for the record.
    pub facts: BTreeMap<String, Value>,
}

/// Applies what Policies demand to the end of a call, which has this reason code (empty: all is well). Answers the reason that takes its place, if one does.
#[must_use]
pub fn deliver(obligations: Option<&Obligations>, input: &Value, reason: &str, mut end: End) -> (Option<&'static str>, End) {
    let Some(obligations) = obligations else { return (None, end) };
    let Some(result) = end.result.take() else {
        if obligations.redacts() {
            // words of the tool may hold what nobody may see
            end.facts.remove(STDERR);
        }
        if obligations.redacts() && [reasons::TOOL_FAILED, reasons::INVALID_RESULT].contains(&reason) {
            end.message = "the tool's own words are withheld, since Policies redact results of this call".to_owned();
        }
        return (None, end);
    };
    let mut instead = None;
    let returned = result.clone();
    match obligations.apply(input, result) {
        Ok(delivered) => {
            if !delivered.redactions.is_empty() {
                end.facts.insert(REDACTIONS.to_owned(), json!(delivered.redactions));
                end.facts.insert(RETURNED.to_owned(), returned);
            }
            if !delivered.advisory.is_empty() {
                end.facts.insert(ADVISORY.to_owned(), json!(delivered.advisory));
            }
            let size = polity_ledger::canonical(&delivered.value).map_or(usize::MAX, |text| text.len());
            if size > names::MAX_INLINE_RESULT {
                instead = Some(reasons::RESULT_TOO_LARGE);
                end.message = format!("the result has {size} bytes as redacted; at most {} are kept", names::MAX_INLINE_RESULT);
            } else {
                end.result = Some(delivered.value);
            }
        }
        Err(withheld) => {
            instead = Some(withheld.reason);
            end.message = withheld.message;
            end.facts.remove(STDERR);
            end.facts.insert(RETURNED.to_owned(), returned);
        }
    }
    (instead, end)
}

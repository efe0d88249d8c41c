//! What a review comes to: accepted with patches and warnings, or refused with a stable reason code.
//!
//! Texts for people are made here once: the message of a refusal says code, what is wrong and what would pass, since
//! kubectl prints nothing else. It never decides.

use std::collections::BTreeMap;

use polity_api::reasons;
use serde::Serialize;
use serde_json::Value;

/// Accepted or refused.
pub type Outcome = Result<Accepted, Refusal>;

/// Accepted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Accepted {
    /// Shown to the user.
    pub warnings: Warnings,
    /// Changes; only `/mutate` has any.
    pub patch: Vec<Op>,
    /// For the API server's audit log.
    pub audit: BTreeMap<&'static str, String>,
}

impl Accepted {
    /// Accepted with warnings only.
    #[must_use]
    pub fn warned(warnings: Warnings) -> Self {
        Self { warnings, ..Self::default() }
    }
}

/// One step of a JSON Patch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Op {
    /// `add` (which also replaces a member of an object).
    pub op: &'static str,
    /// Where.
    pub path: String,
    /// What.
    pub value: Value,
}

impl Op {
    /// Sets a member of an object, whether it is there or not.
    #[must_use]
    pub fn set(path: impl Into<String>, value: Value) -> Self {
        Self { op: "add", path: path.into(), value }
    }
}

/// Warnings within what the API server hands on: 256 characters each, 4 KiB in all, no control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings(Vec<String>);

const MAX_WARNING: usize = 256;
const MAX_ALL: usize = 4096;
const MORE: &str = "(more warnings left out)";

impl Warnings {
    /// Adds one; one that is there already is not repeated.
    pub fn push(&mut self, text: &str) {
        let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let cut = cut(&clean, MAX_WARNING);
        if !self.0.contains(&cut) {
            self.0.push(cut);
        }
    }

    /// None at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Cut to the whole size; the last one says so.
    #[must_use]
    pub fn into_list(self) -> Vec<String> {
        let mut left = MAX_ALL - MORE.len();
        let all = self.0.len();
        let mut list = Vec::new();
        for text in self.0 {
            if text.len() > left {
                break;
            }
            left -= text.len();
            list.push(text);
        }
        if list.len() < all {
            list.push(MORE.to_owned());
        }
        list
    }
}

/// At most so many bytes, cut at a character, with an ellipsis when cut.
fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let mut end = max - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// Refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// HTTP status: 403 for what this user may not do, 422 for what nobody may write, 500 and 503 for faults of ours.
    pub code: u16,
    /// Stable reason code.
    pub reason: &'static str,
    /// What is wrong.
    pub message: String,
    /// What would pass; may be empty.
    pub hint: String,
    /// Single points for machines: reason, field, text.
    pub causes: Vec<(&'static str, String, String)>,
    /// Warnings that apply besides.
    pub warnings: Warnings,
}

impl Refusal {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), hint: String::new(), causes: Vec::new(), warnings: Warnings::default() }
    }

    /// This user may not.
    #[must_use]
    pub fn forbidden(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(403, reason, message)
    }

    /// Nobody may write this.
    #[must_use]
    pub fn unprocessable(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(422, reason, message)
    }

    /// It can never be right as it is written.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::unprocessable(reasons::INVALID_DEFINITION, message)
    }

    /// A fault of ours, or something we need cannot be reached.
    #[must_use]
    pub fn failed(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(503, reason, message)
    }

    /// With what would pass.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// With a point for machines.
    #[must_use]
    pub fn cause(mut self, reason: &'static str, field: impl Into<String>, message: impl Into<String>) -> Self {
        self.causes.push((reason, field.into(), message.into()));
        self
    }

    /// The text that kubectl prints.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}: {}", self.reason, self.message);
        if !self.hint.is_empty() {
            text.push_str(" Hint: ");
            text.push_str(&self.hint);
        }
        text
    }
}

/// Collects what is wrong with a definition, so that the user sees all of it at once.
#[derive(Debug, Default)]
pub struct Problems {
    found: Vec<(&'static str, String, String)>,
}

impl Problems {
    /// One more that makes the object wrong whatever happens.
    pub fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.because(reasons::INVALID_DEFINITION, field, message);
    }

    /// One more, with its own reason code.
    pub fn because(&mut self, reason: &'static str, field: impl Into<String>, message: impl Into<String>) {
        self.found.push((reason, field.into(), message.into()));
    }

    /// Refused with all of them under the reason of the first, or accepted.
    ///
    /// # Errors
    /// There are any.
    pub fn outcome(self, warnings: Warnings) -> Outcome {
        let Some((reason, _, _)) = self.found.first() else {
            return Ok(Accepted::warned(warnings));
        };
        let line =
            |(_, field, text): &(&'static str, String, String)| if field.is_empty() { text.clone() } else { format!("{field}: {text}") };
        let text = self.found.iter().map(line).collect::<Vec<_>>().join("; ");
        let mut refusal = Refusal::unprocessable(reason, text);
        refusal.causes = self.found;
        refusal.warnings = warnings;
        Err(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_fit() {
        let mut warnings = Warnings::default();
        warnings.push(&format!("{}é", "x".repeat(254)));
        warnings.push("two\nlines");
        warnings.push("two\nlines");
        for n in 0..40 {
            warnings.push(&format!("{n:03} {}", "y".repeat(300)));
        }
        let list = warnings.into_list();
        assert!(list.iter().all(|w| w.len() <= MAX_WARNING), "{list:?}");
        assert!(list.iter().map(String::len).sum::<usize>() <= MAX_ALL);
        assert_eq!(list[0].chars().last(), Some('é'), "256 bytes exactly stay whole");
        assert_eq!(list[1], "two lines");
        assert!(list[2].ends_with('…') && list[2].starts_with("000"));
        assert_eq!(list.last().map(String::as_str), Some(MORE));
    }

    #[test]
    fn a_refusal_says_code_message_and_hint() {
        let refusal = Refusal::forbidden("PolicyDenied", "rule a/b/c: too much.").hint("ask for at most 50");
        assert_eq!(refusal.text(), "PolicyDenied: rule a/b/c: too much. Hint: ask for at most 50");
    }
}

//! A Tool as decided on: its facts, its input schema compiled once, and the types that rules see of its arguments.

use std::panic::{AssertUnwindSafe, catch_unwind};

use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use polity_api::{Org, Tool, money};
use serde_json::Value;

use crate::{
    ToolFacts, canon,
    cel::{schema, ty::Ty},
    obligations,
};

/// Largest compiled pattern of a schema, in bytes.
const PATTERN_SIZE: usize = 256 * 1024;

/// A Tool that was compiled, or why it could not be.
#[derive(Debug)]
pub struct CompiledTool {
    /// The input schema; None: any object.
    validator: Option<Validator>,
    /// Type of `args` for rules; None: rules may not name `args`.
    pub args: Option<Ty>,
    /// Type of what it returns, for obligations.
    pub result: Ty,
    /// Why the Tool is not usable.
    pub broken: Option<String>,
}

/// Facts of a stored Tool.
#[must_use]
pub fn facts(org: &Org, tool: &Tool) -> ToolFacts {
    facts_with(org, tool, canon::digest(&tool.spec))
}

/// `facts` with the digest of its spec already known.
pub(crate) fn facts_with(org: &Org, tool: &Tool, digest: String) -> ToolFacts {
    let price = tool.spec.price.as_ref().and_then(|p| money::parse_usd(&p.usd).ok());
    ToolFacts {
        org: org.metadata.name.clone().unwrap_or_default(),
        namespace: tool.metadata.namespace.clone().unwrap_or_default(),
        name: tool.metadata.name.clone().unwrap_or_default(),
        uid: tool.metadata.uid.clone().unwrap_or_default(),
        digest,
        micro_usd: price.unwrap_or_default(),
        spec: tool.spec.clone(),
        quarantined: tool.quarantine().map(|drift| {
            format!(
                "its server lists another definition ({}) than the one pinned ({}); changed: {}",
                drift.observed,
                drift.pinned,
                drift.changed.join(", ")
            )
        }),
    }
}

/// Compiles a schema alone: draft 2020-12 unless it says otherwise, nothing fetched, patterns in linear time.
///
/// # Errors
/// The schema is not valid, refers to something outside itself, or has a pattern that is too large or not regular.
pub fn compile_schema(schema: &Value) -> Result<Validator, String> {
    schema::guard(schema)?;
    let options = || {
        jsonschema::options()
            .with_draft(Draft::Draft202012)
            .offline()
            .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_SIZE).dfa_size_limit(PATTERN_SIZE))
    };
    // somebody's schema must not take the view of a whole Org with it
    match catch_unwind(AssertUnwindSafe(|| options().build(schema).map_err(|e| misplaced(schema, &e)))) {
        Ok(built) => built,
        Err(_) => Err("the schema cannot be compiled".to_owned()),
    }
}

/// Why a schema cannot be compiled. What is not a schema is said with its place in it, not with the place in the schema of schemas.
fn misplaced(schema: &Value, error: &ValidationError<'_>) -> String {
    match jsonschema::meta::validate(schema) {
        Err(e) => format!("at {}: {e}", place(&e.instance_path().to_string())),
        Ok(()) => format!("at {}: {error}", place(&error.schema_path().to_string())),
    }
}

impl CompiledTool {
    /// Compiles a Tool's input schema. Never fails: a broken one becomes a denial.
    #[must_use]
    pub fn new(tool: &ToolFacts) -> Self {
        let mut out = Self { validator: None, args: None, result: obligations::result_type(tool), broken: None };
        if let Some(price) = &tool.spec.price
            && let Err(e) = money::parse_usd(&price.usd)
        {
            out.broken = Some(format!("price: {e}"));
        }
        if let Some((field, e)) = obligations::output_label_problems(tool).into_iter().next() {
            out.broken = Some(format!("{field}: {e}"));
        }
        if tool.spec.runtime.mcp.as_ref().is_some_and(|mcp| mcp.digest.is_none()) {
            out.broken = Some("its definition is not pinned: read and write it with `kubectl polity tool pin`".to_owned());
        }
        let Some(schema) = &tool.spec.input_schema else { return out };
        let schema = Value::Object(schema.clone());
        match compile_schema(&schema) {
            Ok(validator) => {
                out.validator = Some(validator);
                out.args = Some(schema::args(&schema, &tool.name));
            }
            Err(e) => out.broken = Some(format!("input schema: {e}")),
        }
        out
    }

    /// Checks arguments against the schema: the first few problems, each with its place and what was expected.
    ///
    /// # Errors
    /// They do not fit.
    pub fn validate(&self, args: &Value) -> Result<(), String> {
        let Some(validator) = &self.validator else { return Ok(()) };
        let check = || {
            if validator.is_valid(args) {
                None
            } else {
                Some(validator.iter_errors(args).take(3).map(|e| describe(&e)).collect::<Vec<_>>())
            }
        };
        let Ok(problems) = catch_unwind(AssertUnwindSafe(check)) else {
            return Err("args cannot be checked against the Tool's input schema".to_owned());
        };
        let Some(problems) = problems else { return Ok(()) };
        Err(if problems.is_empty() { "args do not fit the Tool's input schema".to_owned() } else { problems.join("; ") })
    }
}

/// One problem, cut to a length that fits into an API message.
fn describe(e: &ValidationError<'_>) -> String {
    let mut text: String = e.masked_with("the value").to_string();
    if text.chars().count() > 300 {
        text = text.chars().take(300).chain(['…']).collect();
    }
    format!("args{}: {text}", e.instance_path())
}

fn place(path: &str) -> &str {
    if path.is_empty() { "its root" } else { path }
}

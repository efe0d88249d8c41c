//! What Policies demand of results: parts that nobody may see, and conditions on what a tool returned. Found with the decision, carried with the call as
//! data, and applied to its result before anything of it is delivered or kept. An error delivers nothing. Never changes whether a call took effect.

use std::{collections::BTreeMap, sync::Arc};

use polity_api::{
    policy::{Mode, Obligation, PolicySpec},
    reasons,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Problem, ToolFacts,
    cel::{
        check, eval,
        eval::Outcome,
        meter::{Limits, Meter},
        program::{self, Parsed},
        schema,
        ty::Ty,
        value,
    },
    path::{Change, Path},
    snapshot::PolicyInForce,
};

/// What stands in place of a value that is not delivered.
pub const REDACTED: &str = "[redacted]";
/// Class of a redaction by path.
const BY_PATH: &str = "path";

/// An obligation of a Policy, compiled.
#[derive(Debug)]
pub struct CompiledObligation {
    /// Its name.
    pub name: String,
    paths: Vec<Path>,
    labels: Vec<String>,
    /// The expression, for the check against a Tool.
    parsed: Option<Parsed>,
}

impl CompiledObligation {
    /// Reads an obligation.
    ///
    /// # Errors
    /// What is wrong with it whatever Tools there are.
    pub fn new(obligation: &Obligation) -> Result<Self, Vec<Problem>> {
        let whole = |message: &str| vec![Problem::obligation(&obligation.name, message)];
        let (paths, labels) = match (&obligation.redact, &obligation.expression) {
            (Some(redact), None) if redact.paths.is_empty() && redact.labels.is_empty() => {
                return Err(whole("redact names neither paths nor labels"));
            }
            (Some(redact), None) => {
                let paths: Result<Vec<_>, String> = redact.paths.iter().map(|p| Path::parse(p)).collect();
                (paths.map_err(|e| whole(&e))?, redact.labels.clone())
            }
            (None, Some(_)) => (Vec::new(), Vec::new()),
            _ => return Err(whole("give exactly one of redact and expression")),
        };
        let parsed = match &obligation.expression {
            Some(text) => {
                let parsed = program::parse(text).map_err(|f| vec![Problem::fault(&obligation.name, f)])?;
                let faults = check::check_result(&parsed, &Ty::Dyn, &Ty::Dyn);
                if !faults.is_empty() {
                    return Err(faults.into_iter().map(|f| Problem::fault(&obligation.name, f)).collect());
                }
                Some(parsed)
            }
            None => None,
        };
        Ok(Self { name: obligation.name.clone(), paths, labels, parsed })
    }

    /// What does not go with a Tool: names and types of its schemas. Without a schema nothing is known, and nothing is wrong.
    pub fn problems(&self, args: Option<&Ty>, result: &Ty) -> Vec<Problem> {
        let paths = self.paths.iter().filter_map(|p| p.typed(result).err()).map(|e| Problem::obligation(&self.name, &e));
        let faults = self.parsed.iter().flat_map(|parsed| check::check_result(parsed, args.unwrap_or(&Ty::Dyn), result));
        paths.chain(faults.map(|f| Problem::fault(&self.name, f))).collect()
    }
}

/// Compiles the obligations of a Policy.
///
/// # Errors
/// What is wrong with them.
pub fn compile(spec: &PolicySpec) -> Result<Vec<CompiledObligation>, Vec<Problem>> {
    let mut out = Vec::new();
    let mut problems = Vec::new();
    for (at, obligation) in spec.obligations.iter().enumerate() {
        let taken =
            spec.rules.iter().any(|r| r.name == obligation.name) || spec.obligations.iter().take(at).any(|o| o.name == obligation.name);
        if taken {
            problems.push(Problem::obligation(&obligation.name, "another rule or obligation of the Policy has this name"));
        }
        match CompiledObligation::new(obligation) {
            Ok(compiled) => out.push(compiled),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(out) } else { Err(problems) }
}

/// What is wrong with the labels of a Tool's output: field and message.
#[must_use]
pub fn output_label_problems(tool: &ToolFacts) -> Vec<(String, String)> {
    let result = result_type(tool);
    let mut out = Vec::new();
    for (i, label) in tool.spec.output_labels.iter().enumerate() {
        for (j, path) in label.paths.iter().enumerate() {
            if let Err(e) = Path::parse(path).and_then(|p| p.typed(&result).map(|_| ())) {
                out.push((format!("spec.outputLabels[{i}].paths[{j}]"), e));
            }
        }
    }
    out
}

/// Type of what a Tool returns.
#[must_use]
pub fn result_type(tool: &ToolFacts) -> Ty {
    tool.spec.output_schema.as_ref().map_or(Ty::Dyn, |s| schema::result(&Value::Object(s.clone()), &tool.name))
}

/// What is demanded of the result of one call, as data that outlives the decision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Obligations {
    /// In the order in which they are applied: conditions see what the tool returned, before anything is redacted.
    demands: Vec<Demand>,
    /// Schemas of the Tool as decided on, for the types that conditions see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    input_schema: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output_schema: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Demand {
    /// `namespace/policy/obligation`.
    rule: String,
    /// Applied, or only noted.
    enforce: bool,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum What {
    /// Places with their class; an empty path is the whole result.
    Redact(Vec<(String, String)>),
    /// Must hold.
    Holds { expression: String, message: String },
}

/// The demands of the Policies that select a call of a Tool. None: there are none.
pub(crate) fn demanded<'a>(tool: &ToolFacts, selecting: impl Iterator<Item = &'a PolicyInForce>) -> Option<Arc<Obligations>> {
    let mut out = Obligations::default();
    for policy in selecting {
        let spec = &policy.policy.spec;
        let enforce = spec.mode == Mode::Enforce;
        for (obligation, compiled) in spec.obligations.iter().zip(&policy.compiled.obligations) {
            let rule = format!("{}/{}/{}", policy.namespace, policy.name, obligation.name);
            let what = if let Some(expression) = &obligation.expression {
                let message = obligation.message.clone().unwrap_or_else(|| format!("`{expression}` does not hold of the result"));
                What::Holds { expression: expression.clone(), message }
            } else {
                let by_label = tool.spec.output_labels.iter().filter(|l| compiled.labels.contains(&l.label));
                let labelled = by_label.flat_map(|l| {
                    let whole = l.paths.is_empty().then(String::new);
                    l.paths.iter().cloned().chain(whole).map(|path| (path, l.label.clone()))
                });
                What::Redact(compiled.paths.iter().map(|p| (p.to_string(), BY_PATH.to_owned())).chain(labelled).collect())
            };
            if what != What::Redact(Vec::new()) {
                out.demands.push(Demand { rule, enforce, what });
            }
        }
    }
    if out.demands.is_empty() {
        return None;
    }
    if out.demands.iter().any(|d| matches!(d.what, What::Holds { .. })) {
        out.input_schema = tool.spec.input_schema.clone().map(Value::Object);
        out.output_schema = tool.spec.output_schema.clone().map(Value::Object);
        // conditions first
        out.demands.sort_by_key(|d| matches!(d.what, What::Redact(_)));
    }
    Some(Arc::new(out))
}

/// A result as it may be delivered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delivered {
    /// What is delivered.
    pub value: Value,
    /// How many values were redacted, by class: the label, or `path`.
    pub redactions: BTreeMap<String, i64>,
    /// What obligations in Warn or Observe would have done.
    pub advisory: Vec<String>,
}

/// Why nothing is delivered, though the tool has run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withheld {
    /// Stable reason code.
    pub reason: &'static str,
    /// For people; names the obligation, holds nothing of the result.
    pub message: String,
}

impl Obligations {
    /// Whether some part of a result must not be seen. Then words of the tool, such as the end of its stderr, are not shown either.
    #[must_use]
    pub fn redacts(&self) -> bool {
        self.demands.iter().any(|d| d.enforce && matches!(d.what, What::Redact(_)))
    }

    /// Applies everything that is demanded to a result.
    ///
    /// # Errors
    /// A condition does not hold, or a demand cannot be applied: nothing is delivered.
    pub fn apply(&self, args: &Value, result: Value) -> Result<Delivered, Withheld> {
        self.apply_with(args, result, Limits::default())
    }

    fn apply_with(&self, args: &Value, result: Value, limits: Limits) -> Result<Delivered, Withheld> {
        let meter = Arc::new(Meter::new(limits));
        let mut out = Delivered { value: result, ..Delivered::default() };
        // what enforces goes first: what only watches can use up nothing but what is left
        for demand in self.demands.iter().filter(|d| d.enforce) {
            match &demand.what {
                What::Holds { expression, message } => self.hold(demand, expression, message, args, &out.value, &meter)?,
                What::Redact(places) => {
                    for (class, count) in redact(&mut out.value, places).map_err(|e| failed(demand, &e))? {
                        *out.redactions.entry(class).or_default() += count;
                    }
                }
            }
        }
        for demand in self.demands.iter().filter(|d| !d.enforce) {
            let note = match &demand.what {
                What::Holds { expression, message } => self
                    .hold(demand, expression, message, args, &out.value, &meter)
                    .err()
                    .map(|w| format!("would withhold the result ({}): {}", w.reason, w.message)),
                What::Redact(places) => match redact(&mut out.value.clone(), places) {
                    Ok(counts) => {
                        let total: i64 = counts.iter().map(|(_, n)| n).sum();
                        (total > 0).then(|| format!("would redact {total} values ({})", demand.rule))
                    }
                    Err(e) => Some(format!("would withhold the result ({}): {}", reasons::OBLIGATION_FAILED, failed(demand, &e).message)),
                },
            };
            out.advisory.extend(note);
        }
        Ok(out)
    }

    fn hold(
        &self,
        demand: &Demand,
        expression: &str,
        message: &str,
        args: &Value,
        result: &Value,
        meter: &Arc<Meter>,
    ) -> Result<(), Withheld> {
        let ty = |schema: &Option<Value>, of: fn(&Value, &str) -> Ty| schema.as_ref().map_or(Ty::Dyn, |s| of(s, ""));
        let (args_type, result_type) = (ty(&self.input_schema, schema::args), ty(&self.output_schema, schema::result));
        let program = program::parse(expression).map_err(|f| f.message).and_then(program::finish).map_err(|e| failed(demand, &e))?;
        let variables = [("args", value::value(args, &args_type)), ("result", value::value(result, &result_type))];
        match eval::alone(&program, variables, meter) {
            Outcome::Holds => Ok(()),
            Outcome::Fails => Err(Withheld { reason: reasons::POSTCONDITION_FAILED, message: format!("{}: {message}", demand.rule) }),
            Outcome::Error(e) => Err(failed(demand, &e)),
            Outcome::Spent => Err(failed(demand, "the time and steps of one evaluation are spent")),
            Outcome::Panicked => Err(failed(demand, "the expression has panicked")),
        }
    }
}

fn failed(demand: &Demand, why: &str) -> Withheld {
    Withheld { reason: reasons::OBLIGATION_FAILED, message: format!("{}: {why}; nothing of the result is delivered", demand.rule) }
}

/// Puts [`REDACTED`] in place of every value at these places; answers how many by class.
fn redact(result: &mut Value, places: &[(String, String)]) -> Result<Vec<(String, i64)>, String> {
    let mut counts = Vec::new();
    for (place, class) in places {
        let count = if place.is_empty() {
            i64::from(Hide.change(result)?)
        } else {
            let path = Path::parse(place)?;
            i64::try_from(path.apply(result, &Hide)?.count).unwrap_or(i64::MAX)
        };
        if count > 0 {
            counts.push((class.clone(), count));
        }
    }
    Ok(counts)
}

/// Hides what is there.
struct Hide;

impl Change for Hide {
    fn creates(&self) -> bool {
        false
    }

    fn removes(&self) -> bool {
        false
    }

    fn passes(&self, value: &Value) -> bool {
        // what is hidden as a whole has no parts any more
        value.is_null() || value == REDACTED
    }

    fn change(&self, value: &mut Value) -> Result<bool, String> {
        if self.passes(value) {
            return Ok(false);
        }
        *value = Value::String(REDACTED.to_owned());
        Ok(true)
    }
}

#[cfg(test)]
#[path = "obligations_tests.rs"]
mod tests;

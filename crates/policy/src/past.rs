//! What rules may know of calls before this one: sums that the Policy's counters keep, and the history of the Task. Says which of it an expression reads,
//! which places of the ledger that are for a call, and what the call itself adds there. Holds values that somebody else has read; reads nothing itself.

use std::collections::{BTreeMap, BTreeSet};

use cel::{
    IdedExpr,
    common::ast::{Expr, LiteralValue, operators},
};
use polity_api::policy::CountBy;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    Request,
    cel::{program::children, ty::Ty},
    compile::CompiledCounter,
    decide::Granted,
    snapshot::PolicyInForce,
};

/// What rules are told of calls before this one.
#[derive(Clone, Copy, Debug, Default)]
pub enum Past<'a> {
    /// Nothing is known: rules that read it deny with `CountersUnknown`.
    #[default]
    Unknown,
    /// Rules that read it are left out, and named in `Decision::later`. For answers that are no permission: whoever lets the call begin decides again.
    Later,
    /// What is known; rules that read something else deny with `CountersUnknown`.
    Known(&'a Known),
}

/// Counters and history as somebody has read them, for one call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Known {
    /// Policy as `namespace/name` → an object of its counters.
    #[serde(default)]
    counters: BTreeMap<String, Value>,
    /// An object with `calls`, `labels` and `tools`.
    #[serde(default)]
    history: Option<Value>,
    /// What of the history is known; None: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partly: Option<Partly>,
}

/// A part of the history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Partly {
    /// `history.calls`.
    calls: bool,
    /// Labels of which it is known whether they are there.
    labels: BTreeSet<String>,
}

impl Known {
    /// What a counter of a Policy (`namespace/name`) stands at, without this call.
    pub fn set_counter(&mut self, policy: &str, name: &str, value: i64) {
        self.counters.entry(policy.to_owned()).or_insert_with(|| json!({}))[name] = json!(value);
    }

    /// How many calls there were before this one, and which labels their results carried. No Tool is known to have been called.
    pub fn set_history(&mut self, calls: i64, labels: &BTreeSet<String>) {
        self.history = Some(json!({"calls": calls, "labels": labels, "tools": {}}));
        self.partly = None;
    }

    /// What is known of the history where that is not all of it: the number of calls, if it is known, and for each label whether it is there. Rules that
    /// read something else of it deny with `CountersUnknown`.
    pub fn set_part_of_history(&mut self, calls: Option<i64>, labels: &BTreeMap<String, bool>) {
        let there: BTreeSet<String> = labels.iter().filter(|(_, there)| **there).map(|(label, _)| label.clone()).collect();
        self.set_history(calls.unwrap_or_default(), &there);
        self.partly = Some(Partly { calls: calls.is_some(), labels: labels.keys().cloned().collect() });
    }

    /// How many calls of a Tool there were, once the history is set.
    pub fn set_tool(&mut self, tool: &str, calls: i64) {
        if let Some(tools) = self.history.as_mut().and_then(|h| h.get_mut("tools")).and_then(Value::as_object_mut) {
            tools.insert(tool.to_owned(), json!(calls));
        }
    }

    /// `history.tools['NAME']`.
    #[must_use]
    pub fn tool(&self, tool: &str) -> Option<i64> {
        self.history.as_ref()?.get("tools")?.get(tool)?.as_i64()
    }

    /// What a counter of a Policy (`namespace/name`) stands at.
    #[must_use]
    pub fn counter(&self, policy: &str, name: &str) -> Option<i64> {
        self.counters.get(policy)?.get(name)?.as_i64()
    }

    /// `history.calls`.
    #[must_use]
    pub fn calls(&self) -> Option<i64> {
        self.history.as_ref().filter(|_| self.partly.as_ref().is_none_or(|p| p.calls))?.get("calls")?.as_i64()
    }

    /// Whether a label is in `history.labels`.
    #[must_use]
    pub fn label(&self, label: &str) -> Option<bool> {
        let labels = self.history.as_ref().filter(|_| self.partly.as_ref().is_none_or(|p| p.labels.contains(label)))?.get("labels")?;
        Some(labels.as_array()?.iter().any(|l| l == label))
    }

    /// The counters of a Policy, as its rules see them.
    pub(crate) fn counters(&self, policy: &str) -> Option<&Value> {
        self.counters.get(policy)
    }

    /// The history, as rules see it.
    pub(crate) fn history(&self) -> Option<&Value> {
        self.history.as_ref()
    }
}

impl<'a> Past<'a> {
    /// What is known, if anything is.
    pub(crate) fn known(self) -> Option<&'a Known> {
        if let Self::Known(known) = self { Some(known) } else { None }
    }

    /// What a rule of a Policy (`namespace/name`) reads and is not known.
    pub(crate) fn lacks(self, policy: &str, reads: &Reads) -> Option<String> {
        let known = self.known();
        let counters = known.and_then(|k| k.counters(policy));
        let missing = reads.counters.iter().find(|name| counters.is_none_or(|c| c.get(name.as_str()).is_none()));
        if let Some(name) = missing {
            return Some(format!("what counter {policy}/{name} stands at is not known here"));
        }
        if !reads.history() {
            return None;
        }
        let Some(known) = known.filter(|k| k.history().is_some()) else {
            return Some("the history of the call's Task is not known here".to_owned());
        };
        if reads.calls && known.calls().is_none() {
            return Some("how many calls its Task had is not known here".to_owned());
        }
        if let Some(tool) = reads.tools.iter().find(|tool| known.tool(tool).is_none()) {
            return Some(format!("how often Tool {tool:?} was called in its Task is not known here"));
        }
        let label = reads.labels.iter().find(|label| known.label(label).is_none())?;
        Some(format!("whether {label:?} is in the history of its Task is not known here"))
    }
}

/// What an expression reads of calls before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Counters of its Policy.
    pub counters: Vec<String>,
    /// `history.calls`.
    pub calls: bool,
    /// Labels that it asks `history.labels` for.
    pub labels: Vec<String>,
    /// Tools of which it asks `history.tools` how often they were called.
    pub tools: Vec<String>,
}

impl Reads {
    /// Whether it reads anything of them.
    #[must_use]
    pub fn any(&self) -> bool {
        self.history() || !self.counters.is_empty()
    }

    /// Whether it reads the history.
    #[must_use]
    pub fn history(&self) -> bool {
        self.calls || !self.labels.is_empty() || !self.tools.is_empty()
    }

    /// Finds it in an expression. Whatever else could be read would have to be searched for in the ledger, so it is refused: each thing that is asked for
    /// is one place there.
    ///
    /// # Errors
    /// The variables are used as a whole, or `history.labels` other than by `'LABEL' in history.labels`, or `history.tools` other than by
    /// `history.tools['NAME']`.
    pub fn of(expr: &IdedExpr) -> Result<Self, String> {
        let mut reads = Self::default();
        reads.walk(expr)?;
        Ok(reads)
    }

    fn walk(&mut self, expr: &IdedExpr) -> Result<(), String> {
        match &expr.expr {
            Expr::Ident(name) if name == COUNTERS => return Err("counters are read by name: counters.NAME".to_owned()),
            Expr::Ident(name) if name == HISTORY => {
                return Err("the history is read as history.calls, history.tools['NAME'] and 'LABEL' in history.labels".to_owned());
            }
            Expr::Select(select) => match &select.operand.expr {
                Expr::Ident(name) if name == COUNTERS => {
                    self.counters.push(select.field.clone());
                    return Ok(());
                }
                Expr::Ident(name) if name == HISTORY && select.field == "calls" => {
                    self.calls = true;
                    return Ok(());
                }
                Expr::Ident(name) if name == HISTORY && select.field == "tools" => {
                    return Err("history.tools can be asked for one Tool only, a constant: history.tools['NAME'] > 0".to_owned());
                }
                Expr::Ident(name) if name == HISTORY => {
                    return Err("history.labels can be asked for one label only, a constant: 'LABEL' in history.labels".to_owned());
                }
                _ => {}
            },
            Expr::Call(call) if call.func_name == operators::IN => {
                if let [IdedExpr { expr: Expr::Literal(LiteralValue::String(label)), .. }, of] = call.args.as_slice()
                    && is_history(of, "labels")
                {
                    self.labels.push(label.inner().to_owned());
                    return Ok(());
                }
            }
            Expr::Call(call) if call.func_name == operators::INDEX => {
                if let [of, IdedExpr { expr: Expr::Literal(LiteralValue::String(tool)), .. }] = call.args.as_slice()
                    && is_history(of, "tools")
                {
                    self.tools.push(tool.inner().to_owned());
                    return Ok(());
                }
            }
            _ => {}
        }
        children(expr).into_iter().try_for_each(|child| self.walk(child))
    }
}

/// Whether an expression is a field of `history`.
fn is_history(expr: &IdedExpr, field: &str) -> bool {
    let Expr::Select(select) = &expr.expr else { return false };
    !select.test && select.field == field && matches!(&select.operand.expr, Expr::Ident(name) if name == HISTORY)
}

/// Name of the variable with a Policy's counters.
pub const COUNTERS: &str = "counters";
/// Name of the variable with the history.
pub const HISTORY: &str = "history";

/// Type of the variable `counters` for the rules of a Policy.
#[must_use]
pub fn counters_type<'a>(names: impl Iterator<Item = &'a str>) -> Ty {
    let field = |name: &str| (name.to_owned(), crate::cel::ty::Field { ty: Ty::Int, required: true });
    Ty::Object(std::sync::Arc::new(crate::cel::ty::Obj { what: "counters of this Policy".to_owned(), fields: names.map(field).collect() }))
}

/// Type of the variable `history`.
#[must_use]
pub fn history_type() -> Ty {
    let tools = Ty::Map(std::sync::Arc::new(Ty::Int));
    Ty::object(HISTORY, [("calls", Ty::Int, true), ("labels", Ty::list(Ty::STRING), true), ("tools", tools, true)])
}

/// Unit of the number of calls of a Task or an Agent.
const CALLS: &str = "count/calls";

/// A place of the ledger where calls are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its unit, of its own for each counter of a Policy and for each label. One that begins with `count/` follows the outcome of a call alone.
    pub unit: String,
    /// Uid of the Org whose counter it is.
    pub org_uid: String,
    /// Length of its window in seconds; 0: it never resets.
    pub window: i64,
    /// What calls count apart by: dimension → value.
    pub dims: BTreeMap<String, String>,
    /// They count apart by Tool and input, too: a digest of both belongs into the dimensions. Only the ledger has the key for it.
    pub by_input: bool,
}

/// What the call adds to a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Where.
    pub place: Place,
    /// How much, never negative.
    pub amount: i64,
}

/// What rules ask of a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Where.
    pub place: Place,
    /// What the answer means.
    pub what: What,
}

/// What a place stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A counter: Policy as `namespace/name`, and its name.
    Counter(String, String),
    /// `history.calls`.
    Calls,
    /// A Tool of `history.tools`.
    Tool(String),
    /// A label of `history.labels`, which is there when its place is above zero.
    Label(String),
}

/// Where a call counts, and what must be known to decide it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counting {
    /// What it adds.
    pub tallies: Vec<Tally>,
    /// What the rules of the Policies that select it read.
    pub asked: Vec<Asked>,
}

impl Counting {
    /// Whether the call counts anywhere, or rules read what others have counted.
    #[must_use]
    pub fn any(&self) -> bool {
        !self.tallies.is_empty() || !self.asked.is_empty()
    }

    /// What rules are told when the places that they ask for stand at these values, in the same order.
    #[must_use]
    pub fn known(&self, values: &[i64]) -> Known {
        let mut known = Known::default();
        let (mut calls, mut labels, mut tools, mut history) = (0, BTreeSet::new(), Vec::new(), false);
        for (asked, value) in self.asked.iter().zip(values) {
            match &asked.what {
                What::Counter(policy, name) => known.set_counter(policy, name, *value),
                What::Calls => (calls, history) = (*value, true),
                What::Tool(tool) => {
                    history = true;
                    tools.push((tool, *value));
                }
                What::Label(label) => {
                    history = true;
                    labels.extend((*value > 0).then(|| label.clone()));
                }
            }
        }
        if history {
            known.set_history(calls, &labels);
            tools.into_iter().for_each(|(tool, calls)| known.set_tool(tool, calls));
        }
        known
    }

    /// Adds what a Policy's rules read, and a counter of it with what the call adds.
    pub(crate) fn add(&mut self, policy: &PolicyInForce, counter: &CompiledCounter, amount: i64, call: &Call<'_>) {
        let place = call.place(policy, counter);
        let read = policy.compiled.rules.iter().any(|r| r.program.reads.counters.contains(&counter.name));
        if read {
            let what = What::Counter(format!("{}/{}", policy.namespace, policy.name), counter.name.clone());
            self.asked.push(Asked { place: place.clone(), what });
        }
        self.tallies.push(Tally { place, amount });
    }

    /// Adds what rules read of the history, and what the call adds to it: labels whenever its Tool has any, the number of calls, and of those of its Tool,
    /// where a rule in force reads it.
    pub(crate) fn add_history(&mut self, reads: &HistoryReads, read: &HistoryRead, call: &Call<'_>) {
        let scope = call.history();
        let place = |unit: String, dims: &BTreeMap<String, String>| Place {
            unit,
            org_uid: call.org_uid.to_owned(),
            window: 0,
            dims: dims.clone(),
            by_input: false,
        };
        if let Some(own) = scope.first() {
            if reads.calls {
                self.asked.push(Asked { place: place(CALLS.to_owned(), own), what: What::Calls });
            }
            for tool in &reads.tools {
                self.asked.push(Asked { place: place(tool_unit(tool), own), what: What::Tool((*tool).to_owned()) });
            }
            for label in &reads.labels {
                self.asked.push(Asked { place: place(label_unit(label), own), what: What::Label((*label).to_owned()) });
            }
        }
        let name = &call.granted.tool.facts.name;
        let own = read.tools.contains(name).then(|| tool_unit(name));
        let carried: BTreeSet<&str> = call.granted.tool.facts.spec.output_labels.iter().map(|l| l.label.as_str()).collect();
        let units = read.calls.then(|| CALLS.to_owned()).into_iter().chain(own).chain(carried.into_iter().map(label_unit));
        for unit in units {
            self.tallies.extend(scope.iter().map(|dims| Tally { place: place(unit.clone(), dims), amount: 1 }));
        }
    }
}

/// Tools count by name, as `match.tools` selects them, whichever Org of the tree has them.
fn tool_unit(tool: &str) -> String {
    format!("count/tool/{tool}")
}

fn label_unit(label: &str) -> String {
    format!("count/label/{label}")
}

/// What the rules of several Policies read of the history.
#[derive(Debug, Default)]
pub(crate) struct HistoryReads<'a> {
    pub calls: bool,
    pub labels: BTreeSet<&'a str>,
    pub tools: BTreeSet<&'a str>,
}

/// What any rule in force for an Org reads of the history; it is counted for this alone, labels aside.
#[derive(Debug, Default)]
pub(crate) struct HistoryRead {
    pub calls: bool,
    pub tools: BTreeSet<String>,
}

impl HistoryRead {
    pub fn add(&mut self, reads: &Reads) {
        self.calls |= reads.calls;
        self.tools.extend(reads.tools.iter().cloned());
    }
}

impl<'a> HistoryReads<'a> {
    pub fn add(&mut self, reads: &'a Reads) {
        self.calls |= reads.calls;
        self.labels.extend(reads.labels.iter().map(String::as_str));
        self.tools.extend(reads.tools.iter().map(String::as_str));
    }
}

/// A call as counters tell calls apart.
pub(crate) struct Call<'a> {
    pub request: &'a Request<'a>,
    pub granted: &'a Granted<'a>,
    /// Name and uid of the Org of the call.
    pub org: &'a str,
    pub org_uid: &'a str,
}

impl Call<'_> {
    /// Where a counter counts this call. A counter is known by the Org and name of its Policy, its own name, what it counts by, and its window.
    fn place(&self, policy: &PolicyInForce, counter: &CompiledCounter) -> Place {
        let dim = |by: &CountBy| {
            let (name, value) = match by {
                CountBy::Org => ("unit", self.org.to_owned()),
                CountBy::Agent => ("agent", self.agent()),
                CountBy::Task => ("task", self.task().unwrap_or_default()),
                CountBy::JobSpace => ("jobSpace", self.granted.job_space.unwrap_or_default().to_owned()),
                CountBy::Context => ("context", self.request.context.unwrap_or_default().to_owned()),
                CountBy::Tool => ("tool", format!("{}/{}", self.granted.tool.facts.namespace, self.granted.tool.facts.name)),
                CountBy::Input => return None,
            };
            Some((name.to_owned(), value))
        };
        Place {
            unit: format!("count/rule/{}/{}/{}", policy.namespace, policy.name, counter.name),
            org_uid: policy.org_uid.clone(),
            window: counter.window,
            dims: counter.by.iter().filter_map(dim).collect(),
            by_input: counter.by.contains(&CountBy::Input),
        }
    }

    /// Whose history the call belongs to; the first is what rules see. A call without a Task sees all that its Agent ever did, in Tasks and outside of
    /// them, so that leaving the Task out hides nothing.
    fn history(&self) -> Vec<BTreeMap<String, String>> {
        let agent = BTreeMap::from([("agent".to_owned(), self.agent())]);
        match self.task() {
            Some(task) => vec![BTreeMap::from([("task".to_owned(), task)]), agent],
            None => vec![agent],
        }
    }

    fn agent(&self) -> String {
        format!("{}/{}", self.granted.agent.namespace, self.granted.agent.name)
    }

    /// A Task of the same name that is made again is another one.
    fn task(&self) -> Option<String> {
        let task = self.request.task?;
        Some(format!("{}/{}", task.name, task.uid))
    }
}

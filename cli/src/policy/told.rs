//! What a record tells of calls before: counters and history as rules were told of them then, as far as a Policy of today means the same by their names.
//! It never guesses: what a record does not tell is named, and why.

use std::collections::{BTreeMap, BTreeSet};

use polity_api::{
    duration,
    policy::{CountBy, Counter, PolicySpec},
};
use polity_ledger::{CounterRead, Past};
use polity_policy::{Counting, Known, What, World};

/// What a record tells.
#[derive(Default)]
pub struct Told {
    /// What rules may be told again.
    pub known: Known,
    /// Counters that the record tells of and that mean something else now: Policy and name → why.
    other: BTreeMap<(String, String), &'static str>,
    /// The record tells something.
    any: bool,
}

impl Told {
    /// What a record tells to the rules of an organisation. `was` is the organisation that the record is from, as far as the record does not say itself
    /// what it counted.
    pub fn of(past: Option<&Past>, was: &World, now: &World) -> Self {
        let Some(past) = past else { return Self::default() };
        let mut told = Self { any: true, ..Self::default() };
        for read in &past.counters {
            match differs(read, spec(was, &read.policy), spec(now, &read.policy)) {
                None => told.known.set_counter(&read.policy, &read.name, read.value),
                Some(why) => drop(told.other.insert((read.policy.clone(), read.name.clone()), why)),
            }
        }
        told.known.set_part_of_history(past.calls, &past.labels);
        past.tools.iter().for_each(|(tool, calls)| told.known.set_tool(tool, *calls));
        told
    }

    /// Why a decision cannot be made again: the first thing that its rules read and the record does not tell.
    pub fn lacks(&self, counting: &Counting) -> String {
        let lacking = counting.asked.iter().find_map(|asked| match &asked.what {
            What::Counter(policy, name) => self.known.counter(policy, name).is_none().then(|| {
                let why = self.other.get(&(policy.clone(), name.clone())).copied().unwrap_or("the record does not tell what it stood at");
                format!("counter {policy}/{name}: {why}")
            }),
            What::Calls => self.known.calls().is_none().then(|| "history.calls: no rule read it then".to_owned()),
            What::Tool(tool) => self.known.tool(tool).is_none().then(|| format!("history.tools['{tool}']: no rule read it then")),
            What::Label(label) => {
                self.known.label(label).is_none().then(|| format!("{label:?} in history.labels: no rule asked for it then"))
            }
        });
        match lacking {
            Some(lacking) if self.any => lacking,
            Some(lacking) => format!("{lacking} (the record tells nothing of calls before: no rule read them, or it was denied without)"),
            None => "its rules read counters or the history of the Task, and the record does not tell what these stood at".to_owned(),
        }
    }
}

/// Spec of a Policy given as `namespace/name`.
fn spec<'a>(world: &'a World, policy: &str) -> Option<&'a PolicySpec> {
    let (namespace, name) = policy.split_once('/')?;
    world.policies.get(&(namespace.to_owned(), name.to_owned())).map(|policy| &policy.spec)
}

/// Why a counter of today is another than the one that was read; None: it is the same.
fn differs(read: &CounterRead, was: Option<&PolicySpec>, now: Option<&PolicySpec>) -> Option<&'static str> {
    let counter = |spec: &PolicySpec| spec.counters.iter().find(|c| c.name == read.name).cloned();
    let Some(today) = now.and_then(counter) else { return Some("there is no such counter any more") };
    let window = today.window.as_deref().map_or(Some(0), duration::seconds);
    if window != Some(read.window) {
        return Some("it counted over another window then");
    }
    if dims(&today) != read.by.iter().map(String::as_str).collect() {
        return Some("calls counted apart by something else then");
    }
    let (Some(was), Some(now)) = (was, now) else { return Some("its Policy is not among the manifests") };
    if was.matches != now.matches {
        return Some("its Policy selects other calls now, so that it would have counted others");
    }
    if counter(was).map(|c| c.amount) != Some(today.amount) {
        return Some("calls would have added another amount");
    }
    None
}

/// What a counter counts apart by, as records name it.
fn dims(counter: &Counter) -> BTreeSet<&'static str> {
    let name = |by: &CountBy| match by {
        CountBy::Org => "unit",
        CountBy::Agent => "agent",
        CountBy::Task => "task",
        CountBy::JobSpace => "jobSpace",
        CountBy::Context => "context",
        CountBy::Tool => "tool",
        CountBy::Input => "input",
    };
    counter.by.iter().map(name).collect()
}

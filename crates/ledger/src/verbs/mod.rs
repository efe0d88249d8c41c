//! The verbs, each run by the writer inside a savepoint.
//!
//! A verb first checks everything and then writes, so that a refusal leaves nothing to undo. Canonical texts and
//! digests come ready from the caller's side. No verb runs anything or knows what an action is.

pub(crate) mod begin;
pub(crate) mod definition;
pub(crate) mod erase;
pub(crate) mod expire;
pub(crate) mod hold;
pub(crate) mod note;
pub(crate) mod release;
pub(crate) mod retain;
pub(crate) mod seal;
pub(crate) mod settle;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::attempts::{self, AttemptRow};
use crate::canonical::canonical;
use crate::chain::Tx;
use crate::fault::{Fault, Outcome, invalid};
use crate::record::Entry;
use crate::types::{Amounts, Idempotency, KeyedDigest, Refused, State, Subject};

/// Longest id, key or name.
const MAX_NAME: usize = 512;
/// Most entries of a list.
const MAX_LIST: usize = 256;
/// Longest canonical text of an input, a result, facts or resume data.
pub(crate) const MAX_BODY: usize = 1 << 20;

/// An id, a key or another name.
pub(crate) fn check_name(what: &str, name: &str) -> Outcome<()> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(invalid(format!("{what} must have 1 to {MAX_NAME} bytes")));
    }
    Ok(())
}

/// Amounts are never negative.
pub(crate) fn check_amounts(amounts: &Amounts) -> Outcome<()> {
    if amounts.len() > MAX_LIST {
        return Err(invalid("too many units"));
    }
    for (unit, amount) in amounts {
        check_name("a unit", unit)?;
        if *amount < 0 {
            return Err(invalid(format!("the amount of {unit} is negative")));
        }
    }
    Ok(())
}

/// What every start and hold must have.
pub(crate) fn check_subject(subject: &Subject, charges: usize) -> Outcome<()> {
    check_name("the id", &subject.id)?;
    check_name("the verb", &subject.verb)?;
    if charges > MAX_LIST {
        return Err(invalid("too many charges"));
    }
    Ok(())
}

/// Canonical text of a body that has a bound.
pub(crate) fn body(what: &str, value: &Value) -> Outcome<String> {
    let text = canonical(value)?;
    if text.len() > MAX_BODY {
        return Err(invalid(format!("{what} is larger than 1 MiB")));
    }
    Ok(text)
}

/// Word for a state in a refusal.
pub(crate) fn already(id: &str, state: &str) -> Fault {
    Refused::AlreadyExecuted { id: id.to_owned(), state: state.to_owned() }.into()
}

/// Name of a state.
pub(crate) fn state_name(state: State) -> &'static str {
    match state {
        State::Held => "Held",
        State::Released => "Released",
        State::Begun => "Begun",
        State::Settled => "Settled",
    }
}

/// The same id must be the same action: another verb or input under it is an error of the caller.
pub(crate) fn same_action(row: &AttemptRow, subject: &Subject, input: &KeyedDigest) -> Outcome<()> {
    if row.verb != subject.verb || row.input != *input {
        return Err(invalid(format!("{} is held or begun with another verb or input", row.id)));
    }
    Ok(())
}

impl Tx<'_> {
    /// Refuse a caller's key that stands for another action or another body.
    pub(crate) fn check_key(&self, org: i64, subject: &Subject, key: Option<&Idempotency>) -> Outcome<()> {
        let Some(key) = key else { return Ok(()) };
        check_name("the idempotency key", &key.key)?;
        let caller = &subject.actor.username;
        match attempts::find_key(self.db, org, caller, &subject.verb, &key.key)? {
            Some((body, _)) if body != key.body => Err(Refused::IdempotencyKeyReused.into()),
            Some((_, id)) if id != subject.id => Err(Refused::IdempotencyReplay { id }.into()),
            _ => Ok(()),
        }
    }
}

/// The part of a record that comes from the subject.
pub(crate) fn entry(kind: &str, subject: Subject, input: Option<KeyedDigest>) -> Entry {
    let mut entry = Entry {
        kind: kind.to_owned(),
        action: subject.id,
        verb: subject.verb,
        actor: Some(subject.actor),
        input,
        input_text: subject.keep_input.then_some(subject.input),
        snapshot: subject.snapshot,
        reason: subject.verdict.reason.clone(),
        message: subject.verdict.message.clone(),
        verdict: Some(subject.verdict),
        past: subject.past,
        trace: subject.trace,
        dims: subject.dims,
        ..Entry::default()
    };
    lift_dims(&mut entry);
    if entry.tool_digest.is_empty() && subject.target.kind == "Tool" {
        entry.tool_digest.clone_from(&subject.target.digest);
    }
    entry.target = Some(subject.target);
    entry
}

/// Dimensions that a record has a field for.
fn lift_dims(entry: &mut Entry) {
    let mut dims = std::mem::take(&mut entry.dims);
    for (name, field) in [
        ("task", &mut entry.task),
        ("jobSpace", &mut entry.job_space),
        ("context", &mut entry.context),
        ("contract", &mut entry.contract),
        ("workflowRun", &mut entry.workflow_run),
        ("workflowNode", &mut entry.workflow_node),
        ("toolDigest", &mut entry.tool_digest),
        ("agentDigest", &mut entry.agent_digest),
        ("provider", &mut entry.provider),
        ("model", &mut entry.model),
        ("priceVersion", &mut entry.price_version),
    ] {
        if let Some(value) = dims.remove(name) {
            *field = value;
        }
    }
    entry.dims = dims;
}

/// Facts, those that a record has a field for put there.
pub(crate) fn lift_facts(entry: &mut Entry, mut facts: BTreeMap<String, Value>) {
    for (name, field) in [("provider", &mut entry.provider), ("model", &mut entry.model), ("priceVersion", &mut entry.price_version)] {
        if let Some(Value::String(value)) = facts.get(name) {
            field.clone_from(value);
            facts.remove(name);
        }
    }
    if let Some(value) = facts.get("redactions")
        && let Ok(redactions) = serde_json::from_value(value.clone())
    {
        entry.redactions = redactions;
        facts.remove("redactions");
    }
    entry.facts = facts;
}

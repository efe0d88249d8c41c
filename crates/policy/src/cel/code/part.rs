//! Which part of a rule decided that it does not hold, in words that hold no value of a call: only names, types and the rule's own constants. Runs on demand.

use super::{
    Code, Fail, Machine,
    build::{Node, Where},
    ops,
    show::text,
    val::Val,
};

/// The part of a rule that is false or has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The part as an expression. Constants are shown as computed: `usd('0.5')` is `500000`.
    pub expression: String,
    /// What it reads of the call, with the type that is there, or `absent`.
    pub reads: Vec<(String, &'static str)>,
    /// What would pass, all else being as it is: every part that is false, with those true now that read the same.
    pub would_pass: Option<String>,
}

impl Code {
    /// The whole expression as text.
    #[cfg(test)]
    pub fn text(&self) -> String {
        text(&self.node)
    }

    /// The part that decided, for an expression that is not true for the machine's variables.
    pub fn part<'a>(&'a self, machine: &mut Machine<'a, '_>) -> Part {
        let node = decisive(&self.node, machine);
        Part { expression: text(node), reads: reads(node, machine), would_pass: would_pass(&self.node, machine) }
    }
}

/// The smallest part for which the whole is not true.
fn decisive<'a>(node: &'a Node, machine: &mut Machine<'a, '_>) -> &'a Node {
    match node {
        Node::And(a, b) => match machine.truth(a) {
            Ok(true) => decisive(b, machine),
            Ok(false) => decisive(a, machine),
            // a part that is false makes up for one that has no value; of two without, the last one speaks
            Err(_) => match machine.truth(b) {
                Ok(true) => decisive(a, machine),
                Ok(false) | Err(_) => decisive(b, machine),
            },
        },
        Node::Or(a, b) => match (machine.truth(a), machine.truth(b)) {
            (_, Err(_)) => decisive(b, machine),
            (Err(_), _) => decisive(a, machine),
            _ => node,
        },
        Node::Not(a) if machine.truth(a).is_err() => decisive(a, machine),
        Node::Cond(cond, a, b) => match machine.truth(cond) {
            Ok(true) => decisive(a, machine),
            Ok(false) => decisive(b, machine),
            Err(_) => decisive(cond, machine),
        },
        other => other,
    }
}

/// The parts that must all be true, each with its value.
fn conjuncts<'a>(node: &'a Node, machine: &mut Machine<'a, '_>, out: &mut Vec<(&'a Node, Result<bool, Fail<'a>>)>) {
    if let Node::And(a, b) = node {
        conjuncts(a, machine, out);
        conjuncts(b, machine, out);
    } else {
        let value = machine.truth(node);
        out.push((node, value));
    }
}

fn would_pass<'a>(node: &'a Node, machine: &mut Machine<'a, '_>) -> Option<String> {
    let mut all = Vec::new();
    conjuncts(node, machine, &mut all);
    let mut touched: Vec<String> = Vec::new();
    for (part, value) in &all {
        let names: Vec<String> = reads(part, machine).into_iter().map(|(name, _)| name).collect();
        match value {
            Ok(true) => {}
            // nothing of the call makes it true
            Ok(false) if names.is_empty() => return None,
            Ok(false) => touched.extend(names),
            Err(_) => return None,
        }
    }
    let mut wanted = Vec::new();
    for (part, value) in &all {
        if matches!(value, Ok(false)) || reads(part, machine).iter().any(|(name, _)| touched.iter().any(|t| overlap(name, t))) {
            wanted.push(if all.len() > 1 && matches!(part, Node::Or(..) | Node::Cond(..)) {
                format!("({})", text(part))
            } else {
                text(part)
            });
        }
    }
    (!wanted.is_empty()).then(|| wanted.join(" && "))
}

/// Whether two names are of the same place, or one is within the other.
fn overlap(a: &str, b: &str) -> bool {
    let within = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    within(a, b) || within(b, a)
}

/// What a node reads of the call, each with the type of its value.
fn reads<'a>(node: &'a Node, machine: &mut Machine<'a, '_>) -> Vec<(String, &'static str)> {
    let mut out = Vec::new();
    paths(node, machine, &mut out);
    out.sort_unstable();
    out.dedup();
    out
}

fn paths<'a>(node: &'a Node, machine: &mut Machine<'a, '_>, out: &mut Vec<(String, &'static str)>) {
    let read = match node {
        Node::SlotHas(slot) | Node::SlotOpt(slot) => Some((slot.name(), machine.slots.field(*slot).map_or("absent", kind))),
        Node::Has(of, name) | Node::FieldOpt(of, name) if rooted(of) => {
            let of_kind = machine.eval(of).and_then(|of| ops::field(&of, name).map(|v| kind(&v))).unwrap_or("absent");
            Some((format!("{}.{name}", text(of)), of_kind))
        }
        _ if rooted(node) => Some((text(node), machine.eval(node).map_or("absent", |v| kind(&v)))),
        _ => None,
    };
    match read {
        Some(read) => out.push(read),
        None => children(node).into_iter().for_each(|child| paths(child, machine, out)),
    }
}

/// Whether a node is a place of the call that does not depend on a loop around it.
fn rooted(node: &Node) -> bool {
    match node {
        Node::Slot(_) | Node::Args | Node::Roles | Node::Now | Node::Counters | Node::History => true,
        Node::Field(of, _) => rooted(of),
        Node::Index(of, key) => rooted(of) && (matches!(**key, Node::Const(_)) || rooted(key)),
        _ => false,
    }
}

fn kind(val: &Val<'_>) -> &'static str {
    match val {
        Val::Null => "null",
        Val::Bool(_) => "bool",
        Val::Int(_) => "int",
        Val::Double(_) => "double",
        Val::Str(_) | Val::Text(_) => "string",
        Val::Time(_) => "timestamp",
        Val::Span(_) => "duration",
        Val::Opt(_) => "optional",
        Val::Ext(ext) => ext.kind().word(),
        other if other.list_len().is_some() => "list",
        _ => "object",
    }
}

/// The nodes that a node is made of.
pub(super) fn children(node: &Node) -> Vec<&Node> {
    match node {
        Node::And(a, b) | Node::Or(a, b) | Node::Equal(_, a, b) | Node::Compare(_, a, b) | Node::In(a, b) => vec![a, b],
        Node::Arith(_, a, b) | Node::Text(_, a, b) | Node::OrValue(a, b) | Node::Or2(a, b) => vec![a, b],
        Node::Index(a, b) | Node::IndexOpt(a, b) => vec![a, b],
        Node::Not(a) | Node::Neg(a) | Node::Size(a) | Node::Convert(_, a) | Node::Clock(_, a) | Node::Matches(a, _) => vec![a],
        Node::HasValue(a) | Node::Unwrap(a) | Node::Has(a, _) | Node::Field(a, _) | Node::FieldOpt(a, _) => vec![a],
        Node::Cond(a, b, c) => vec![a, b, c],
        Node::ClockIn(_, a, zone) => match &**zone {
            Where::Known(_) => vec![a],
            Where::Computed(zone) => vec![a, zone],
        },
        Node::Call(call) => call.args.iter().collect(),
        Node::Shared(_, of) => vec![of],
        Node::List(items) => items.iter().collect(),
        Node::Map(entries) => entries.iter().flat_map(|(k, v)| [k, v]).collect(),
        Node::All(each) | Node::Exists(each) | Node::One(each) | Node::Collect(each) => {
            [&each.range].into_iter().chain(&each.guard).chain([&each.body]).collect()
        }
        Node::Const(_) | Node::Slot(_) | Node::SlotHas(_) | Node::SlotOpt(_) => Vec::new(),
        Node::Args | Node::Roles | Node::Now | Node::Counters | Node::History | Node::Local(_) => Vec::new(),
    }
}

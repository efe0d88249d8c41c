//! Bounds that a Tool's schema sets on a number: `minimum`, `maximum`, their exclusive forms, `enum`, `const`. Only what holds in every draft and whatever else
//! the schema says is read; the rest bounds nothing.

use std::fmt;

use cel::{Value, common::ast::operators};
use serde_json::{Map, Value as Json};

use super::foresee::May;

/// Up to here every whole number is a double.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Drafts in which the keywords that are read mean the same.
const DRAFTS: [&str; 4] = ["draft/2020-12/", "draft/2019-09/", "draft-07/", "draft-06/"];

/// Whether a schema is of a draft that is understood here.
#[must_use]
pub fn known(schema: &Map<String, Json>) -> bool {
    match schema.get("$schema") {
        None => true,
        Some(name) => name.as_str().is_some_and(|name| DRAFTS.iter().any(|d| name.contains(d))),
    }
}

/// The part of a schema that every value at a path below `args` fits.
#[must_use]
pub fn node<'a>(schema: &'a Map<String, Json>, path: &[&str]) -> Option<&'a Map<String, Json>> {
    let plain = |node: &Map<String, Json>| !node.contains_key("$ref");
    path.iter().try_fold(Some(schema).filter(|s| plain(s))?, |node, field| {
        let below = node.get("properties")?.as_object()?.get(*field)?.as_object()?;
        Some(below).filter(|b| plain(b) && !b.contains_key("$id") && !b.contains_key("$schema"))
    })
}

/// Whether what fits a node has this field for certain. `args` itself is an object in any case.
#[must_use]
pub fn requires(node: &Map<String, Json>, field: &str, root: bool) -> bool {
    let object = root || node.get("type").and_then(Json::as_str) == Some("object");
    object && node.get("required").and_then(Json::as_array).is_some_and(|names| names.iter().any(|n| n.as_str() == Some(field)))
}

/// An operator that compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
    /// `==`
    Equal,
    /// `!=`
    Unequal,
}

impl Op {
    /// By its name in the tree.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            operators::LESS => Self::Less,
            operators::LESS_EQUALS => Self::AtMost,
            operators::GREATER => Self::Greater,
            operators::GREATER_EQUALS => Self::AtLeast,
            operators::EQUALS => Self::Equal,
            operators::NOT_EQUALS => Self::Unequal,
            _ => return None,
        })
    }

    /// With its operands exchanged.
    #[must_use]
    pub const fn flipped(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::AtMost => Self::AtLeast,
            Self::Greater => Self::Less,
            Self::AtLeast => Self::AtMost,
            same => same,
        }
    }
}

/// A constant as a double; None: it is none exactly.
#[must_use]
pub fn exact(constant: &Value) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "what is not exact is left out")]
    let number = match constant {
        Value::Int(i) => *i as f64,
        Value::Float(f) => *f,
        _ => return None,
    };
    (number.abs() < EXACT).then_some(number)
}

/// One end of a range: where, and whether it is left out itself.
#[derive(Clone, Copy, Debug, PartialEq)]
struct End {
    at: f64,
    open: bool,
}

/// Where a number lies.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Range {
    low: Option<End>,
    high: Option<End>,
}

impl Range {
    /// The range of a node that is a number, and whether it is an integer.
    #[must_use]
    pub fn of(node: &Map<String, Json>) -> Option<(Self, bool)> {
        let integer = match node.get("type").and_then(Json::as_str) {
            Some("integer") => true,
            Some("number") => false,
            _ => return None,
        };
        let number = |n: &Json| n.as_f64().filter(|n| n.abs() < EXACT);
        let mut range = Self::default();
        for (key, open) in [("minimum", false), ("exclusiveMinimum", true)] {
            range.raise(node.get(key).and_then(number).map(|at| End { at, open }));
        }
        for (key, open) in [("maximum", false), ("exclusiveMaximum", true)] {
            range.lower(node.get(key).and_then(number).map(|at| End { at, open }));
        }
        for listed in [node.get("const").map(std::slice::from_ref), node.get("enum").and_then(Json::as_array).map(Vec::as_slice)] {
            let values: Option<Vec<f64>> = listed.and_then(|l| l.iter().map(number).collect());
            let values = values.unwrap_or_default();
            range.raise(values.iter().copied().reduce(f64::min).map(|at| End { at, open: false }));
            range.lower(values.iter().copied().reduce(f64::max).map(|at| End { at, open: false }));
        }
        let empty = matches!((range.low, range.high), (Some(l), Some(h)) if l.at > h.at || (l.at >= h.at && (l.open || h.open)));
        (range != Self::default() && !empty).then_some((range, integer))
    }

    fn raise(&mut self, end: Option<End>) {
        let Some(new) = end else { return };
        if self.low.is_none_or(|old| new.at > old.at || (new.at >= old.at && new.open)) {
            self.low = Some(new);
        }
    }

    fn lower(&mut self, end: Option<End>) {
        let Some(new) = end else { return };
        if self.high.is_none_or(|old| new.at < old.at || (new.at <= old.at && new.open)) {
            self.high = Some(new);
        }
    }

    /// What a comparison with a constant may come to; None: nothing is known of it.
    #[must_use]
    pub fn compare(&self, op: Op, constant: &Value, integer: bool) -> Option<May> {
        let at = exact(constant)?;
        let below = |or_at: bool| self.high.is_some_and(|h| h.at < at || (h.at <= at && (or_at || h.open)));
        let above = |or_at: bool| self.low.is_some_and(|l| l.at > at || (l.at >= at && (or_at || l.open)));
        let (always, never) = match op {
            Op::Less => (below(false), above(true)),
            Op::AtMost => (below(true), above(false)),
            Op::Greater => (above(false), below(true)),
            Op::AtLeast => (above(true), below(false)),
            // an int and a double are equal or not by rules of their own
            Op::Equal | Op::Unequal if !(integer && matches!(constant, Value::Int(_))) => return None,
            Op::Equal | Op::Unequal => {
                let (same, other) = (below(true) && above(true), below(false) || above(false));
                if op == Op::Equal { (same, other) } else { (other, same) }
            }
        };
        Some(if always {
            May::TRUE
        } else if never {
            May::FALSE
        } else {
            May::TRUE.or(May::FALSE)
        })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let low = self.low.map(|End { at, open }| format!("{} {at}", if open { "above" } else { "at least" }));
        let high = self.high.map(|End { at, open }| format!("{} {at}", if open { "below" } else { "at most" }));
        f.write_str(&[low, high].into_iter().flatten().collect::<Vec<_>>().join(" and "))
    }
}

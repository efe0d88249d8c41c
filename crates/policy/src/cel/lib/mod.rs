//! The functions that Kubernetes adds to CEL: quantities, addresses, URLs, patterns, sets, lists, texts. One implementation serves compiled rules and the
//! evaluator `cel`. Every function charges what it reads and what it builds before it does so; none keeps anything.

mod kinds;
mod lists;
mod quantity;
mod table;
#[cfg(test)]
mod tests;
mod texts;
mod url;
mod weight;

pub use kinds::{Ext, Kind};
pub use table::{Fun, Gives, On, SPACES, Sig, TABLE, Takes};

use regex::Regex;

use super::{
    code::{Fail, val::Val},
    meter::Meter,
};

/// Steps for each element of a list that a function builds.
const ELEMENT: u64 = 4;
/// Bytes of text that one step reads or writes.
pub const BYTES: u64 = 16;

/// What a function has beside its arguments.
pub struct With<'m> {
    /// The pattern, for functions that have one.
    pub pattern: Option<&'m Regex>,
    /// The budget.
    pub meter: &'m Meter,
}

impl With<'_> {
    /// Charges steps.
    fn charge<'a>(&self, steps: u64) -> Result<(), Fail<'a>> {
        if self.meter.charge(steps) { Ok(()) } else { Err(Fail::Spent) }
    }

    /// Charges reading or writing this many bytes.
    fn bytes<'a>(&self, bytes: usize) -> Result<(), Fail<'a>> {
        self.charge(1 + bytes as u64 / BYTES)
    }

    /// Charges a list of this many elements.
    fn elements<'a>(&self, elements: usize) -> Result<(), Fail<'a>> {
        self.charge((elements as u64).saturating_mul(ELEMENT))
    }
}

/// Calls a function. The receiver of a method comes first; a pattern is none of the arguments.
///
/// # Errors
/// It has no value for these arguments, or the budget is spent.
pub fn call<'a>(fun: Fun, args: &[Val<'a>], with: &With<'_>) -> Result<Val<'a>, Fail<'a>> {
    match fun.kind() {
        Some(kind) => kinds::call(fun, kind, args, with),
        None => match args {
            [of, ..] if of.str().is_some() => texts::call(fun, args, with),
            [of, ..] if of.list_len().is_some() => lists::call(fun, args, with),
            _ => Err(Fail::Type(fun.name())),
        },
    }
}

/// A literal that stands for a value of a kind, made when the rule is compiled.
///
/// # Errors
/// The text is none; the error says why.
pub fn literal(fun: Fun, at: usize, text: &str) -> Option<Result<Ext, String>> {
    fun.reads(at).map(|kind| Ext::read(kind, text).ok_or_else(|| format!("{text:?} is not {}", kind.example())))
}

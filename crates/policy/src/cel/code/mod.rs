//! Rules as a tree of slots, constants and operators that runs over borrowed values: nothing is built for a call that could be built with the snapshot.
//! It computes what the evaluator `cel` computes; what it does not know stays with `cel` (`Unsupported`), and says why.

mod build;
mod cover;
mod loops;
mod ops;
mod part;
mod run;
mod show;
mod slots;
pub mod val;

pub use cover::Branch;
pub use part::Part;
pub use run::{Machine, Memo};
#[cfg(test)]
pub use slots::FIELDS;
pub use slots::Slots;

use build::Node;

/// Whether a text is a time zone.
#[must_use]
pub fn is_zone(text: &str) -> bool {
    ops::zone(text).is_some()
}

/// A compiled expression.
#[derive(Debug)]
pub struct Code {
    node: Node,
    /// What may be shared with other rules, as text, by the number that its nodes have.
    shared: Vec<String>,
}

/// Why an expression stays with the evaluator `cel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported(pub &'static str);

impl Code {
    /// Compiles a checked expression.
    ///
    /// # Errors
    /// It has something that compiled rules do not know.
    pub fn new(expr: &cel::IdedExpr) -> Result<Self, Unsupported> {
        build::build(expr).map(|(node, shared)| Self { node, shared })
    }

    /// Parts that others may have as well, each as text. Two with the same text have the same value in one decision.
    #[must_use]
    pub fn shared(&self) -> &[String] {
        &self.shared
    }
}

/// Why an expression has no value for these arguments. Holds no argument's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fail<'a> {
    /// A field that is not there.
    Absent(&'a str),
    /// A key that is not there.
    NoKey,
    /// An operator or function does not go with these types.
    Type(&'static str),
    /// A function has no result for these values.
    Function(&'static str),
    /// Division by zero.
    DivisionByZero,
    /// Outside of what a type can hold.
    Overflow(&'static str),
    /// No such element.
    Bounds,
    /// Values that have no order.
    Unordered,
    /// A map with the same key twice.
    Duplicate,
    /// The budget is spent.
    Spent,
}

impl std::fmt::Display for Fail<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent(name) => write!(f, "`{name}` is absent; guard with has(…)"),
            Self::NoKey => f.write_str("a key is absent; guard with has(…) or in"),
            Self::Type(what) => write!(f, "{what} does not go with these types"),
            Self::Function(name) => write!(f, "{name}() cannot be computed for these arguments"),
            Self::DivisionByZero => f.write_str("division by zero"),
            Self::Overflow(op) => write!(f, "overflow in {op}"),
            Self::Bounds => f.write_str("index out of bounds"),
            Self::Unordered => f.write_str("values of different types cannot be ordered"),
            Self::Duplicate => f.write_str("a map has the same key twice"),
            Self::Spent => f.write_str("the budget of the decision is spent"),
        }
    }
}

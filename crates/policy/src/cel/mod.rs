//! CEL as rules use it: types from schemas, checker, compiled form, bounded evaluation. The crate `cel` parses, and evaluates what the compiled form does not
//! know; everything that decides what is accepted is here.

pub mod bounds;
pub mod check;
pub mod code;
#[cfg(test)]
mod conformance;
pub mod cost;
#[cfg(test)]
mod differential;
pub mod eval;
#[cfg(test)]
mod eval_tests;
pub mod foresee;
#[cfg(test)]
mod foresee_tests;
#[cfg(test)]
mod fuzz;
pub mod lib;
pub mod meter;
pub mod program;
pub mod schema;
mod syntax;
#[cfg(test)]
mod textproto;
pub mod ty;
pub mod value;

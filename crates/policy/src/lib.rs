//! The decision: checker, compiled rules, snapshot of an Org, `decide`. Pure: no client, no clock, no environment (a stopwatch limits evaluation).

mod approvers;
mod canon;
mod cel;
mod chain;
pub mod check;
mod compile;
mod coverage;
mod decide;
#[cfg(test)]
mod decide_tests;
mod explain;
pub mod fixtures;
#[cfg(test)]
mod fuzz;
mod glob;
mod grant;
mod honest;
mod index;
mod named;
mod objects;
mod obligations;
mod past;
#[cfg(test)]
mod past_tests;
mod path;
mod query;
mod rewrite;
mod rules;
mod snapshot;
mod suggest;
mod tool;
pub mod types;
mod vars;
pub mod world;

pub use approvers::Person;
pub use canon::digest;
pub use cel::code::{Branch, Part};
pub use check::{Of, PolicyCheck, Problem, Summary, check_policy};
pub use compile::CompileCache;
pub use coverage::{RuleCoverage, coverage};
pub use explain::{Explanation, Trial, TrialResult};
pub use fixtures::{Expect, Fixture, FixtureHistory, FixtureResult, FixtureTask, Prepared, prepare, run_fixtures, snapshots};
pub use named::unknown_names;
pub use obligations::{Delivered, Obligations, REDACTED, Withheld, output_label_problems};
pub use past::{Asked, Counting, Known, Past, Place, Tally, What};
pub use snapshot::Snapshot;
pub use suggest::nearest;
pub use tool::{CompiledTool, compile_schema, facts as tool_facts};
pub use types::*;
pub use world::{Key, NamespaceFacts, World};

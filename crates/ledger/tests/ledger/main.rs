//! The ledger as its users see it: one process, a directory, verbs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as in every test; clippy knows only those marked `#[test]`
#![allow(clippy::needless_pass_by_value)]

mod chain;
mod clocks;
mod common;
mod counted;
mod crash;
mod model;
mod published;
mod race;
mod segments;
mod spend;
mod store;
mod verbs;

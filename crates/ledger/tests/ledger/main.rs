//! The ledger as its users see it: one process, a place to keep it, verbs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as in every test; clippy knows only those marked `#[test]`
#![allow(clippy::needless_pass_by_value)]

mod chain;
mod clocks;
mod common;
mod counted;
mod crash;
mod file;
mod home;
mod model;
mod published;
mod race;
mod segments;
mod spend;
mod store;
mod verbs;

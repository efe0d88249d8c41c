//! The ledger as its users see it, kept by Postgres: the suite of `tests/ledger`, on a server that the tests start, and
//! what only a server can do to it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as in every test; clippy knows only those marked `#[test]`
#![allow(clippy::needless_pass_by_value)]

#[path = "../ledger/chain.rs"]
mod chain;
#[path = "../ledger/clocks.rs"]
mod clocks;
#[path = "../ledger/common.rs"]
mod common;
#[path = "../ledger/counted.rs"]
mod counted;
#[path = "../ledger/crash.rs"]
mod crash;
mod faults;
mod home;
#[path = "../ledger/model.rs"]
mod model;
mod proxy;
#[path = "../ledger/published.rs"]
mod published;
#[path = "../ledger/race.rs"]
mod race;
#[path = "../ledger/segments.rs"]
mod segments;
mod server;
#[path = "../ledger/spend.rs"]
mod spend;
#[path = "../ledger/store.rs"]
mod store;
mod tls;
#[path = "../ledger/verbs.rs"]
mod verbs;

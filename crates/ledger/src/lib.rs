//! The ledger: the only owner of money, counters, attempts and single-use keys.
pub mod types;
pub use types::*;

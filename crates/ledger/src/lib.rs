//! The ledger: the only owner of money, counters, attempts and single-use keys.
//!
//! An embedded library for the one process that decides: SQLite on a volume of its own or a database of Postgres, one
//! writer thread with group commit, one hash chain of records per Org. Its four verbs are `hold`, `begin`, `settle` and `release`;
//! what they answer is on disk. It never runs an action, opens a connection but to its own database, or reads a Kubernetes object, and
//! it never makes a decision: it is told the verdict and the limits, and holds the limits.

mod again;
mod attempts;
mod cache;
mod canonical;
mod chain;
mod clock;
mod counters;
mod entry;
mod fault;
mod flusher;
mod heads;
mod keys;
mod ledger;
mod open;
mod published;
mod query;
mod read;
pub mod record;
mod refused;
mod root;
pub mod signer;
mod spend;
mod store;
mod to_canonical;
pub mod types;
mod verbs;
mod verify;
mod writer;

pub use canonical::{CanonicalError, canonical};
pub use clock::{Clock, SystemClock};
pub use ledger::{Durability, Ledger};
pub use open::{Config, OpenError, Store};
pub use published::line_schema;
pub use query::{Filter, MAX_PAGE, Page};
pub use read::{ReadOnly, Standing, open_read_only};
pub use record::{Charged, Cost, Entry, Record, Unreadable, read_lines};
pub use root::{Endorsement, Line, Root, Statement, read_export};
pub use store::StoreError;
pub use store::postgres::Postgres;
pub use types::*;
pub use verbs::definition::{Defined, Definition};
pub use verbs::seal::Sealing;
pub use verify::{Broken, Expect, Flaw, Head, Verified, verify, verify_with};

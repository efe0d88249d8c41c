//! What can go wrong inside: a refusal meant for the caller, or a store that failed.

use crate::canonical::CanonicalError;
use crate::store::StoreError;
use crate::types::Refused;

/// Ends a verb; the writer undoes what the verb wrote.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The caller's to see.
    Refused(Refused),
    /// The store failed.
    Store(StoreError),
    /// A stored value is not what this crate writes.
    Stored(String),
}

/// What the verbs return.
pub(crate) type Outcome<T> = Result<T, Fault>;

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<CanonicalError> for Fault {
    fn from(error: CanonicalError) -> Self {
        invalid(error.to_string())
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Self::Stored(error.to_string())
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(refused) => refused,
            Fault::Store(error) => unavailable(&error),
            Fault::Stored(what) => Self::LedgerUnavailable { what: format!("stored value is damaged: {what}") },
        }
    }
}

/// The request is wrong.
pub(crate) fn invalid(what: impl Into<String>) -> Fault {
    Fault::Refused(Refused::Invalid { what: what.into() })
}

/// The store failed.
pub(crate) fn unavailable(error: &StoreError) -> Refused {
    Refused::LedgerUnavailable { what: error.to_string() }
}

/// An amount left the range of 64 bits.
pub(crate) fn overflow() -> Fault {
    invalid("an amount is too large")
}

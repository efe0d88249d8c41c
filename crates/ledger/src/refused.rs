//! The ledger's refusals. They travel as JSON like the rest of the wire types; none of them left anything written.

use serde::{Deserialize, Serialize};

/// Why the ledger refused. The names are stable reason codes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "PascalCase")]
pub enum Refused {
    /// A limit would be exceeded.
    #[error("{owner}: {limit} {unit} in the window, {used} used and reserved, {asked} more asked")]
    BudgetExceeded {
        /// Whose limit.
        owner: String,
        /// Its unit.
        unit: String,
        /// The limit.
        limit: i64,
        /// Used and reserved so far.
        used: i64,
        /// Asked now.
        asked: i64,
    },
    /// A counter that the decision read has moved: decide again.
    #[error("a counter moved since the decision read it: decide again")]
    Contended,
    /// Same idempotency key, another body.
    #[error("idempotency key was used for another request body")]
    IdempotencyKeyReused,
    /// Same idempotency key and body under another id: here is the one that stands.
    #[error("the same request was made before as {id}")]
    IdempotencyReplay {
        /// Id of the action that stands.
        id: String,
    },
    /// This id began already, by another executor, or is settled or released.
    #[error("action {id} has begun or ended already ({state})")]
    AlreadyExecuted {
        /// Id.
        id: String,
        /// Its state.
        state: String,
    },
    /// A single-use key was consumed by another action.
    #[error("{key} was used before")]
    AlreadyUsed {
        /// The key.
        key: String,
    },
    /// No hold or start of that id.
    #[error("no action {id}")]
    NotFound {
        /// Id.
        id: String,
    },
    /// The writer's epoch is older than the ledger's.
    #[error("epoch {epoch} is older than the ledger's {current}")]
    Fenced {
        /// The writer's.
        epoch: i64,
        /// The ledger's.
        current: i64,
    },
    /// The store failed; nothing was committed.
    #[error("the ledger cannot write: {what}")]
    LedgerUnavailable {
        /// What failed.
        what: String,
    },
    /// The view that decided is not one that core has built and knows as current: decide again.
    #[error("snapshot {digest} is not current: decide again")]
    StaleSnapshot {
        /// The digest sent.
        digest: String,
    },
    /// A guard or webhook configuration of Polity is missing or changed.
    #[error("admission is not enforced: {what}")]
    AdmissionNotEnforced {
        /// Which one.
        what: String,
    },
    /// The Approval does not fit what is about to run.
    #[error("the Approval does not fit: {what}")]
    ApprovalMismatch {
        /// How.
        what: String,
    },
    /// The API server refuses the tool's Pod (quota, admission); nothing has begun.
    #[error("the tool's Pod was refused: {what}")]
    PodRefused {
        /// In its words.
        what: String,
    },
    /// No node here can run Pods; nothing has begun.
    #[error("no node here can run Pods, so container tools cannot run")]
    NoPodRuntime,
    /// The request itself is wrong.
    #[error("invalid ledger request: {what}")]
    Invalid {
        /// What is wrong.
        what: String,
    },
}

impl Refused {
    /// The stable reason code.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BudgetExceeded { .. } => "BudgetExceeded",
            Self::Contended => "Contended",
            Self::IdempotencyKeyReused => "IdempotencyKeyReused",
            Self::IdempotencyReplay { .. } => "IdempotencyReplay",
            Self::AlreadyExecuted { .. } => "AlreadyExecuted",
            Self::AlreadyUsed { .. } => "AlreadyUsed",
            Self::NotFound { .. } => "NotFound",
            Self::Fenced { .. } => "Fenced",
            Self::LedgerUnavailable { .. } => "LedgerUnavailable",
            Self::StaleSnapshot { .. } => "StaleSnapshot",
            Self::AdmissionNotEnforced { .. } => "AdmissionNotEnforced",
            Self::ApprovalMismatch { .. } => "ApprovalMismatch",
            Self::PodRefused { .. } => "PodRefused",
            Self::NoPodRuntime => "NoPodRuntime",
            Self::Invalid { .. } => "Invalid",
        }
    }
}

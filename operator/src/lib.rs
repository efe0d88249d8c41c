//! Core and `main` of the one server binary: lease, controllers, dispatch, Approvals, the server around the ledger.

pub mod approval;
pub mod dispatch;
pub mod engine;
pub mod internal;
pub mod killpoint;
pub mod lease;
pub mod requeue;

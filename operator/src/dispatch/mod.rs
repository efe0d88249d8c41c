//! Dispatch: decides every stored ToolCall again, and is the only part of core that lets a tool start.
//!
//! `gate` stands before the ledger, `runner` looks after tools' Pods, `controller` takes ToolCalls from their queue and `call`
//! goes over one, `sweep` ends what was lost, `cancels` hands on wishes to cancel what edges run,
//! `count` says what an action counts and decides by it, `pod`, `outcome` and `status` are pure. Nothing here connects to a tool.

mod after;
mod call;
pub mod cancels;
mod controller;
pub mod count;
mod ends;
pub mod gate;
mod inputs;
pub mod outcome;
mod pod;
pub mod runner;
pub mod status;
mod sweep;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

pub use controller::{CallContext, Error, reconcile};
pub use gate::Gate;
pub use runner::{Runner, Settings};
pub use sweep::sweep;

/// Owner reference to a ToolCall.
#[must_use]
pub fn owner(name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: format!("{}/{}", polity_api::GROUP, polity_api::VERSION),
        kind: "ToolCall".to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

//! The kinds of `polity.dev/v1alpha1`, their conditions, reasons, names and money.
//!
//! Types only: this crate has no client, no clock and reads no environment. Field documentation is
//! written for users, since it becomes `kubectl explain`.

// `#[kube(printcolumn(...), printcolumn(...))]` is how the derive takes a list; the lint takes the repetition for a mistake.
#![allow(clippy::duplicated_attributes)]

pub mod agent;
pub mod approval;
pub mod caller;
pub mod conditions;
pub mod crds;
pub mod duration;
pub mod generated;
pub mod guards;
pub mod money;
pub mod names;
pub mod org;
pub mod policy;
pub mod quantity;
pub mod reasons;
pub mod reference;
pub mod role;
pub mod schema;
pub mod task;
pub mod tool;
pub mod toolcall;

pub use agent::{Agent, AgentSpec, AgentStatus, AgentType};
pub use approval::{Approval, ApprovalSpec, ApprovalStatus};
pub use caller::{Caller, Trace};
pub use crds::crds;
pub use org::{Org, OrgSpec, OrgStatus};
pub use policy::{Policy, PolicySpec, PolicyStatus};
pub use role::{Role, RoleSpec, RoleStatus};
pub use task::{Task, TaskSpec, TaskStatus};
pub use tool::{Tool, ToolSpec, ToolStatus};
pub use toolcall::{ToolCall, ToolCallSpec, ToolCallStatus};

/// API group of every kind.
pub const GROUP: &str = "polity.dev";
/// The one served version.
pub const VERSION: &str = "v1alpha1";

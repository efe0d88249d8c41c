//! Approval: a pending decision of people, bound to the digest of exactly what was asked.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{caller::Caller, role::RoleRef, schema, toolcall::Digest};

/// A pending decision of people about one action.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "polity.dev",
    version = "v1alpha1",
    kind = "Approval",
    namespaced,
    status = "ApprovalStatus",
    shortname = "pappr",
    derive = "PartialEq",
    doc = "A pending decision of people about one action, bound to the digest of exactly what was asked. Made by Polity; people add their own entry to spec.decisions, or use kubectl polity approve.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Requester", type_ = "string", json_path = ".spec.requester.username"),
    printcolumn(name = "Verb", type_ = "string", json_path = ".spec.action.verb"),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.action.target.name"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".spec.expiresAt"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    selectable = ".status.phase"
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.action == oldSelf.action && self.digest == oldSelf.digest && self.requester == oldSelf.requester && self.requirements == oldSelf.requirements && self.expiresAt == oldSelf.expiresAt && self.input == oldSelf.input", "only decisions may be added to an Approval"),
    validation = ("!has(oldSelf.decisions) || (has(self.decisions) && oldSelf.decisions.all(o, self.decisions.exists(n, n == o)))", "a decision cannot be changed or taken back")
)]
pub struct ApprovalSpec {
    /// What is asked.
    pub action: ActionRef,
    /// The input, as it will run.
    #[schemars(schema_with = "schema::free_object")]
    pub input: serde_json::Map<String, serde_json::Value>,
    /// Keyed digest over action, target's definition, input, caller and task; checked again before the run.
    pub digest: Digest,
    /// Who asks. Never counts as approver.
    pub requester: Caller,
    /// What must be met, each on its own.
    #[schemars(length(min = 1, max = 32))]
    pub requirements: Vec<Requirement>,
    /// Then it is denied.
    pub expires_at: Time,
    /// One entry a person. Add your own with `by` = your username; time and groups are stamped. One Deny denies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["by"]))]
    pub decisions: Vec<PersonDecision>,
}

/// Names an action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActionRef {
    /// Verb, e.g. `tool.call`.
    #[schemars(length(max = 64))]
    pub verb: String,
    /// What it acts on.
    pub target: TargetRef,
    /// Name of the ToolCall that waits.
    #[schemars(length(max = 253))]
    pub call: String,
    /// Uid of the ToolCall that waits.
    #[schemars(length(max = 64))]
    pub call_uid: String,
    /// Task that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub task: Option<String>,
}

/// Names what an action acts on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TargetRef {
    /// Kind, e.g. `Tool`.
    #[schemars(length(max = 63))]
    pub kind: String,
    /// Namespace.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Digest of its definition.
    #[schemars(length(max = 64))]
    pub digest: String,
}

/// One thing that must be met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Requirement {
    /// The rule that asks, as `namespace/policy/rule`.
    #[schemars(length(max = 600))]
    pub rule: String,
    /// Holders of this Role (`org` is always given).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleRef>,
    /// Members of this group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub group: Option<String>,
    /// Holders of the Roles that the requester reports to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub superior: bool,
    /// How many different Agents.
    pub count: i32,
    /// Only people count.
    pub humans_only: bool,
    /// Why the rule asks.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}

impl Requirement {
    /// Who is asked, in words.
    #[must_use]
    pub fn asked(&self) -> String {
        let who = if let Some(role) = &self.role {
            match &role.org {
                Some(org) => format!("holders of Role {} of Org {org}", role.name),
                None => format!("holders of Role {}", role.name),
            }
        } else if let Some(group) = &self.group {
            format!("members of group {group}")
        } else {
            "superiors of who asks".to_owned()
        };
        let people = if self.humans_only { "people who are " } else { "" };
        if self.count > 1 { format!("{} {people}{who}", self.count) } else { format!("{people}{who}") }
    }
}

/// One person's decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PersonDecision {
    /// Your exact username.
    #[schemars(length(min = 1, max = 512))]
    pub by: String,
    /// `Approve` or `Deny`.
    pub decision: Answer,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// When; stamped by Polity, leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// Groups at that time; stamped by Polity, leave it out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), inner(length(max = 512)))]
    pub groups: Vec<String>,
}

/// Answer of a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Answer {
    /// Yes.
    Approve,
    /// No; one No denies the Approval.
    Deny,
}

/// Where an Approval stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApprovalPhase {
    /// Waiting.
    Pending,
    /// Every requirement is met.
    Approved,
    /// Somebody said no.
    Denied,
    /// Nobody said enough in time; counts as denied.
    Expired,
    /// The call no longer waits.
    Withdrawn,
}

/// What core reports of an Approval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalStatus {
    /// The metadata.generation that this status is about; -1: not seen yet.
    #[serde(default)]
    pub observed_generation: i64,
    /// `Succeeded`, and why.
    #[serde(default)]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ApprovalPhase>,
    /// Progress of each requirement, in the order of the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub requirements: Vec<Progress>,
}

/// Progress of a requirement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// The rule that asks.
    #[schemars(length(max = 600))]
    pub rule: String,
    /// Agents that approved and count, as `namespace/name`.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(max = 600)))]
    pub approved_by: Vec<String>,
    /// Entries that do not count, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 1024)))]
    pub ignored: Vec<String>,
    /// Whether it is met.
    pub met: bool,
}

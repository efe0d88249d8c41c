//! ToolCall: one request to use a Tool through the Kubernetes API.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    caller::{Caller, Trace},
    schema,
};

/// One request to use a Tool.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "polity.dev",
    version = "v1alpha1",
    kind = "ToolCall",
    namespaced,
    status = "ToolCallStatus",
    shortname = "ptc",
    derive = "PartialEq",
    derive = "Default",
    doc = "One request to use a Tool through the Kubernetes API. Decided at create (403 with rule, reason and hint) and again before it runs; every run is recorded first. Does not belong into Git.",
    printcolumn(name = "Tool", type_ = "string", json_path = ".spec.tool.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Caller", type_ = "string", json_path = ".spec.caller.username"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Succeeded')].reason"),
    printcolumn(name = "Approval", type_ = "string", json_path = ".status.approval", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    selectable = ".spec.tool.name",
    selectable = ".status.phase"
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.tool == oldSelf.tool", "tool is immutable"),
    validation = ("has(self.input) == has(oldSelf.input) && (!has(self.input) || self.input == oldSelf.input)", "input is immutable"),
    validation = ("has(self.taskRef) == has(oldSelf.taskRef) && (!has(self.taskRef) || self.taskRef == oldSelf.taskRef)", "taskRef is immutable"),
    validation = ("has(self.jobSpace) == has(oldSelf.jobSpace) && (!has(self.jobSpace) || self.jobSpace == oldSelf.jobSpace)", "jobSpace is immutable"),
    validation = ("has(self.context) == has(oldSelf.context) && (!has(self.context) || self.context == oldSelf.context)", "context is immutable"),
    validation = ("has(self.idempotencyKey) == has(oldSelf.idempotencyKey) && (!has(self.idempotencyKey) || self.idempotencyKey == oldSelf.idempotencyKey)", "idempotencyKey is immutable"),
    validation = ("has(self.caller) == has(oldSelf.caller) && (!has(self.caller) || self.caller == oldSelf.caller)", "caller is immutable"),
    validation = ("has(self.trace) == has(oldSelf.trace) && (!has(self.trace) || self.trace == oldSelf.trace)", "trace is immutable"),
    validation = ("has(self.rewrites) == has(oldSelf.rewrites) && (!has(self.rewrites) || self.rewrites == oldSelf.rewrites)", "rewrites is immutable"),
    validation = ("!(has(oldSelf.cancel) && oldSelf.cancel) || (has(self.cancel) && self.cancel)", "cancel cannot be taken back"),
    validation = ("!has(oldSelf.resolution) || (has(self.resolution) && self.resolution == oldSelf.resolution)", "resolution is set once")
)]
pub struct ToolCallSpec {
    /// The Tool.
    pub tool: ToolRef,
    /// Its input, at most 32 KiB, as the Tool's input schema says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_object")]
    pub input: Option<serde_json::Map<String, serde_json::Value>>,
    /// The Task that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_ref: Option<TaskRef>,
    /// The job space that it is for; with `taskRef`, that Task's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub job_space: Option<String>,
    /// Opaque id of the conversation that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub context: Option<String>,
    /// The same key with the same request never runs twice, for at least 24 h; with another request it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub idempotency_key: Option<String>,
    /// Set to true to cancel: a call that has not begun never will; one that runs is stopped.
    #[serde(default)]
    pub cancel: bool,
    /// Settles a call of phase Unknown. Needs the verb `resolve` on toolcalls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
    /// How long to keep the object after it has ended; the ledger keeps its records. Default 3600.
    #[serde(default = "an_hour")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: i32,
    /// Who asks; stamped by Polity, leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Caller>,
    /// Trace context; stamped by Polity, leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// What Policies changed in the input when the call was made; stamped by Polity, leave it out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub rewrites: Vec<Rewritten>,
}

/// What one rule changed in an input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rewritten {
    /// The rule, as `namespace/policy/rule`.
    #[schemars(length(max = 600))]
    pub rule: String,
    /// Places that it changed, as JSON Pointers; the first 32.
    #[schemars(length(max = 32), inner(length(max = 1024)))]
    pub paths: Vec<String>,
}

fn an_hour() -> i32 {
    3600
}

/// Names a Tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolRef {
    /// Name of the Tool.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Org above that has the Tool and exports it; default: the own Org.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 50))]
    pub org: Option<String>,
}

/// Names a Task of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskRef {
    /// Name of the Task.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A person's word on an unknown outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resolution {
    /// What happened: `Done` (it took effect) or `NotDone`.
    pub outcome: ResolvedOutcome,
    /// How that is known.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// Who says so; stamped by Polity, leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub by: Option<String>,
    /// When; stamped by Polity, leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// What a resolution can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ResolvedOutcome {
    /// It took effect.
    Done,
    /// It did not take effect.
    NotDone,
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Not decided yet.
    Pending,
    /// Waiting for an Approval.
    WaitingApproval,
    /// Begun.
    Running,
    /// Ended well.
    Succeeded,
    /// Ran and failed.
    Failed,
    /// Refused before it began.
    Denied,
    /// Canceled before it began, or stopped.
    Canceled,
    /// Nobody knows whether it took effect.
    Unknown,
}

impl Phase {
    /// Whether nothing will happen any more by itself.
    #[must_use]
    pub fn ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Denied | Self::Canceled)
    }
}

/// What Polity reports of a call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolCallStatus {
    /// The metadata.generation that this status is about; -1: not seen yet.
    #[serde(default)]
    pub observed_generation: i64,
    /// `Succeeded`, and why.
    #[serde(default)]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Where the call stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The decision that had effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// Name of the Approval that it waits for or rests on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub approval: Option<String>,
    /// The edge replica that runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// The Pod that runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
    /// What came out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<CallResult>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
}

/// A decision as shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// `Allow`, `Deny` or `RequireApproval`.
    #[schemars(length(max = 32))]
    pub verdict: String,
    /// Stable reason code; empty for an allow.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub message: String,
    /// What would pass.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub hint: String,
    /// Rules that led to it, as `namespace/policy/rule`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 600)))]
    pub rules: Vec<String>,
    /// Rules in Warn or Observe that would have had an effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 600)))]
    pub advisory: Vec<String>,
    /// What rules changed in the input before it was decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub rewrites: Vec<Rewritten>,
    /// Digest of the view of the Org that decided.
    #[schemars(length(max = 64))]
    pub snapshot: String,
    /// Keyed digest of the input, and the key's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Digest>,
    /// Sequence of the ledger record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<i64>,
    /// When.
    pub at: Time,
    /// The part of Polity that decided.
    #[schemars(length(max = 253))]
    pub by: String,
}

/// A keyed digest (HMAC-SHA-256 under a key of the Org).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Digest {
    /// Lower-case hex.
    #[schemars(length(max = 64))]
    pub digest: String,
    /// Id of the key.
    #[schemars(length(max = 64))]
    pub key_id: String,
}

/// A claim of an edge replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Claim {
    /// Name of the replica.
    #[schemars(length(max = 253))]
    pub by: String,
    /// When.
    pub at: Time,
    /// After this the outcome is unknown.
    pub deadline: Time,
}

/// A Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PodRef {
    /// Name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Uid.
    #[schemars(length(max = 64))]
    pub uid: String,
}

/// What came out of a call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CallResult {
    /// The output, up to 16 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_value")]
    pub output: Option<serde_json::Value>,
    /// Keyed digest of the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Size of the output in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// Exit code of a container, HTTP status of an HTTP endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// Last lines of a failed container's stderr, secret values masked (at most 4 KiB here).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub stderr_tail: Option<String>,
}

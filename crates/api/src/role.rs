//! Role: a position in an Org, what it grants, and who holds it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// A position: what it grants, whom it reports to, and who holds it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "polity.dev",
    version = "v1alpha1",
    kind = "Role",
    plural = "roles",
    namespaced,
    status = "RoleStatus",
    shortname = "prole",
    category = "polity",
    derive = "PartialEq",
    derive = "Default",
    doc = "A position in an Org: which tools its holders may use, whom they report to, and who holds it. Write roles.polity.dev in kubectl, since other groups have roles too.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Assignment", type_ = "string", json_path = ".spec.assignment.mode"),
    printcolumn(name = "Reports to", type_ = "string", json_path = ".spec.reportsTo.name"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct RoleSpec {
    /// What the position is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// What its holders may do. Nothing is allowed that no grant allows; Policies narrow further.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub grants: Vec<Grant>,
    /// The Role that holders report to. A cycle stalls every Role in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reports_to: Option<RoleRef>,
    /// Who holds the Role.
    #[serde(default)]
    pub assignment: Assignment,
    /// Grant only to calls for a Task of this job space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub job_space: Option<String>,
    /// `Descendants`: Roles of Orgs below may report to this Role, their Policies may name it, and its holders have its grants there too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<Export>,
}

/// Who besides the own Org may use it. `Descendants`: every Org below: a Tool may be called there; a Role grants there to its holders, and Roles and rules there may name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Export {
    /// Every Org below.
    Descendants,
}

/// One thing that holders may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.tools) || has(self.risk)", "a grant names tools, risk labels, or both"))]
pub struct Grant {
    /// Verbs; the only one today is `tool.call`.
    #[serde(default = "default_verbs")]
    #[schemars(length(min = 1, max = 16), inner(length(max = 64)))]
    pub verbs: Vec<String>,
    /// Names of Tools; `*` and `?` match within a name: `payments-*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), inner(length(min = 1, max = 253)))]
    pub tools: Option<Vec<String>>,
    /// Only Tools whose risk labels are all in this list (a Tool without labels always is). With `tools`, both must hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)))]
    pub risk: Option<Vec<String>>,
}

fn default_verbs() -> Vec<String> {
    vec!["tool.call".to_owned()]
}

/// Names a Role, in the same Org unless `org` says an Org above.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoleRef {
    /// Org above that has the Role; it must export it. Default: the own Org.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 50))]
    pub org: Option<String>,
    /// Name of the Role.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// How a Role gets its holders.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = ("!has(self.max) || self.mode == 'Multi'", "max belongs to mode Multi"),
    validation = ("self.mode != 'Fixed' || !has(self.agents) || size(self.agents) <= 1", "mode Fixed names one Agent; use Single for a list of candidates or Multi for several holders")
)]
pub struct Assignment {
    /// `Fixed`: the one Agent named, nobody in its absence. `Single`: the first Agent of the list that is there and ready.
    /// `Multi` (default): every Agent of the list that is there, up to `max`.
    #[serde(default)]
    pub mode: AssignmentMode,
    /// Most holders in mode Multi; default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub max: Option<i32>,
    /// Names of Agents in the same namespace, in order of preference. Absent: vacant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    pub agents: Vec<String>,
}

/// Mode of assignment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AssignmentMode {
    /// One named Agent.
    Fixed,
    /// The first of several.
    Single,
    /// All, up to a limit.
    #[default]
    Multi,
}

/// What core reports of a Role.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoleStatus {
    /// The metadata.generation that this status is about; -1: not seen yet.
    #[serde(default)]
    pub observed_generation: i64,
    /// Ready, Reconciling, Stalled.
    #[serde(default)]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Who holds the Role; decisions read only this.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub holders: Vec<Holder>,
}

/// One holder of a Role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Holder {
    /// Name of the Agent.
    #[schemars(length(max = 253))]
    pub agent: String,
    /// Why: `Assignment`.
    #[schemars(length(max = 64))]
    pub source: String,
    /// Since when.
    pub since: Time,
    /// Until when; absent: open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
}

//! Org: an organisation, or a unit of one.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// An organisation of agents and people, or a unit of one. It owns one namespace, in which everything of it lives.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "polity.dev",
    version = "v1alpha1",
    kind = "Org",
    status = "OrgStatus",
    shortname = "porg",
    category = "polity",
    derive = "PartialEq",
    derive = "Default",
    doc = "An organisation of agents and people, or a unit of one (parentRef). It owns one namespace with quota, network isolation and member rights, and everything of it lives there.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Parent", type_ = "string", json_path = ".spec.parentRef.name"),
    printcolumn(name = "Namespace", type_ = "string", json_path = ".status.namespace.name"),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspend"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    selectable = ".spec.parentRef.name",
    validation = ("self.metadata.name.size() <= 50", "the name of an Org has at most 50 characters"),
    validation = ("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')", "the name of an Org is a DNS label (no dots), since its namespace is named after it")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.parentRef) == has(oldSelf.parentRef) && (!has(self.parentRef) || self.parentRef.name == oldSelf.parentRef.name)", "parentRef is immutable: an Org never moves"),
    validation = ("has(self.__namespace__) == has(oldSelf.__namespace__) && (!has(self.__namespace__) || self.__namespace__ == oldSelf.__namespace__)", "namespace is immutable")
)]
pub struct OrgSpec {
    /// What this organisation is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// The Org that this one is a unit of. Immutable; needs the verb `subdivide` on that Org. Its Policies bind here too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_ref: Option<OrgRef>,
    /// Namespace to live in; default: the Org's name. Immutable. Made if it does not exist (and then deleted with the Org); an existing one is
    /// adopted only if it carries the label `polity.dev/org: NAME` of this Org. `kube-*`, `default` and Polity's own are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
    /// Kubernetes rights of people and groups in the Org's namespace. No decision about a tool call reads this.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub members: Vec<Member>,
    /// What the namespace, and the Orgs below, may use. A child's quota is subtracted from its parent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<OrgQuota>,
    /// What the calls of this Org and of every Org below may cost. Enforced by the ledger before a tool runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub budget: Vec<Budget>,
    /// No call starts and no worker runs before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Time>,
    /// Stop: from the next second on no call starts here or below, and workers are stopped; calls in flight finish.
    #[serde(default)]
    pub suspend: bool,
    /// Refuse deletion of this Org until set to false.
    #[serde(default)]
    pub deletion_protection: bool,
    /// What the ledger keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Record>,
}

/// Names an Org.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrgRef {
    /// Name of the Org.
    #[schemars(length(min = 1, max = 50))]
    pub name: String,
}

/// One person or group with rights in the Org's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Member {
    /// `User` or `Group`.
    pub kind: MemberKind,
    /// Exact name of the user or group as the API server knows it. Names starting with `system:` are refused.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// What they may do.
    pub role: MemberRole,
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum MemberKind {
    /// One user.
    User,
    /// Every user of a group.
    Group,
}

/// Kubernetes rights in the Org's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    /// Everything but governance.
    Admin,
    /// Decides Approvals, reads all.
    Approver,
    /// Tasks, Tools and ToolCalls.
    Engineer,
    /// Tasks and ToolCalls.
    Growth,
    /// Reads.
    Viewer,
    /// Suspends, resolves unknown outcomes, governs protected Policies.
    Director,
    /// Reads all, exports the ledger.
    Auditor,
}

impl MemberRole {
    /// Every member role.
    pub const ALL: [Self; 7] = [Self::Admin, Self::Approver, Self::Engineer, Self::Growth, Self::Viewer, Self::Director, Self::Auditor];

    /// Its name as in manifests; the chart's ClusterRole is `polity-org-NAME`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Approver => "approver",
            Self::Engineer => "engineer",
            Self::Growth => "growth",
            Self::Viewer => "viewer",
            Self::Director => "director",
            Self::Auditor => "auditor",
        }
    }
}

/// Quota of an Org.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrgQuota {
    /// Hard limits, as in a ResourceQuota: `requests.cpu: "4"`, `limits.memory: 8Gi`, `pods: "20"`, `count/toolcalls.polity.dev: "500"`.
    /// What Orgs below are granted is subtracted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub hard: BTreeMap<String, Quantity>,
    /// Limits that a container gets when it states none (LimitRange `default`). Default: cpu 500m, memory 256Mi.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub container_limits: BTreeMap<String, Quantity>,
    /// Requests that a container gets when it states none (LimitRange `defaultRequest`). Default: cpu 50m, memory 64Mi.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub container_requests: BTreeMap<String, Quantity>,
}

/// A budget over a window. Windows are fixed and aligned to UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = ("has(self.calls) || has(self.usd)", "a budget limits calls, usd, or both"))]
pub struct Budget {
    /// Length of the window: `1h`, `24h`, `7d`.
    #[schemars(length(max = 32))]
    #[x_kube(validation = ("self.matches('^[1-9][0-9]{0,5}(s|m|h|d)$')", "a length of time is a whole number with s, m, h or d behind it, such as 90s, 15m, 24h or 7d"))]
    pub window: String,
    /// Most calls that may start in a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub calls: Option<i64>,
    /// Most money in a window, in US dollars as a decimal string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), regex(pattern = "^[0-9]{1,12}(\\.[0-9]{1,6})?$"))]
    pub usd: Option<String>,
}

/// What the ledger keeps of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// `Digest` (default): a keyed digest of the input. `Full`: the input's text as well.
    #[serde(default)]
    pub input: RecordInput,
    /// `Durable` (default): nothing runs before its record is flushed to disk. `Relaxed`: faster; a machine that loses power may lose the
    /// records of its last moment, and with them what calls of that moment spent. A process that dies loses nothing either way.
    #[serde(default)]
    pub durability: Durability,
    /// Name of a request to erase, e.g. `2026-11-21-request-17`. Each new name destroys the keys of the digests recorded so far, within two
    /// minutes: nobody can find out any more what was digested, and the chain stays whole. Calls that wait for an Approval then have to ask again.
    /// Inputs recorded in full go with `retentionDays` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub erase: Option<String>,
    /// Days that records are kept, at least 30; default 365. Older ones are dropped by whole segments; their signed roots stay, so that the
    /// chain still verifies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 30, max = 36500))]
    pub retention_days: Option<i64>,
}

/// When the ledger answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Durability {
    /// Once the record is flushed to disk.
    #[default]
    Durable,
    /// Once the record is written; the flush follows.
    Relaxed,
}

/// Days that records are kept where the Org says nothing.
pub const DEFAULT_RETENTION_DAYS: i64 = 365;

/// What the ledger keeps of an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RecordInput {
    /// A keyed digest.
    #[default]
    Digest,
    /// The text as well.
    Full,
}

/// What core reports of an Org.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrgStatus {
    /// The metadata.generation that this status is about; -1: not seen yet.
    #[serde(default)]
    pub observed_generation: i64,
    /// Ready, Reconciling, Stalled and the stages AncestryReady, NamespaceReady, QuotaReady, NetworkReady, MembersReady, Started.
    #[serde(default)]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The namespace in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<NamespaceRef>,
    /// Names from the root Org down to this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 50)))]
    pub path: Vec<String>,
    /// Quota in force in this Org's own namespace: what it has, less what Orgs below were granted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub quota: BTreeMap<String, Quantity>,
    /// Last root of the Org's chain of records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerHead>,
}

/// A namespace in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NamespaceRef {
    /// Name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Uid; a re-created namespace of the same name is another one.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// Whether Polity made it. An adopted one is never deleted.
    pub created: bool,
}

/// Head of a chain of records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LedgerHead {
    /// Sequence of the last record.
    pub seq: i64,
    /// Its hash.
    #[schemars(length(max = 64))]
    pub hash: String,
}

impl Org {
    /// The namespace that the spec asks for.
    #[must_use]
    pub fn wanted_namespace(&self) -> &str {
        self.spec.namespace.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }
}

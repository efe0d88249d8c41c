//! Agent: a subject that works.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// A subject that works: a pool of AI workers, a person, or a system.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "polity.dev",
    version = "v1alpha1",
    kind = "Agent",
    namespaced,
    status = "AgentStatus",
    shortname = "pagent",
    category = "polity",
    derive = "PartialEq",
    derive = "Default",
    doc = "A subject that works: a pool of AI workers (Pods that Polity runs), a person, or a system. What it may do comes from the Roles that it is assigned to.",
    scale(spec_replicas_path = ".spec.replicas", status_replicas_path = ".status.replicas", label_selector_path = ".status.selector"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Wanted", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Running", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    selectable = ".spec.type",
    validation = ("self.metadata.name.size() <= 50", "the name of an Agent has at most 50 characters")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.type == oldSelf.type", "type is immutable"),
    validation = ("self.type == 'AI' ? has(self.image) && has(self.command) : true", "an AI agent needs image and command"),
    validation = ("self.type == 'AI' ? !has(self.usernames) : has(self.usernames) && size(self.usernames) > 0", "people and systems name their usernames; an AI agent has the account that Polity makes"),
    validation = ("self.type == 'AI' || (!has(self.image) && !has(self.command) && !has(self.replicas) && !has(self.env) && !has(self.resources))", "image, command, env, resources and replicas belong to AI agents")
)]
pub struct AgentSpec {
    /// What it is: `AI`, `Human` or `System`.
    #[serde(rename = "type")]
    pub type_: AgentType,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// Exact usernames of a person or system, as the API server knows them; each in one Agent of an Org tree only.
    /// A ServiceAccount never counts as human.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 256)))]
    pub usernames: Option<Vec<String>>,
    /// Image of an AI worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Command of an AI worker with its arguments. It finds `POLITY_URL` (calls endpoint of its Org), `POLITY_TOKEN_FILE` and `POLITY_CA_FILE` in its environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 8192)))]
    pub command: Option<Vec<String>>,
    /// Environment of an AI worker. Names starting with `POLITY_` are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub env: Option<Vec<EnvVar>>,
    /// Requests and limits of an AI worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Number of AI workers; absent means none. `kubectl scale` and autoscalers may write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,
}

/// What an Agent is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AgentType {
    /// Workers that Polity runs.
    #[default]
    AI,
    /// A person.
    Human,
    /// A program outside of Polity, e.g. a CI system.
    System,
}

impl AgentType {
    /// Its name as in manifests and rules.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AI => "AI",
            Self::Human => "Human",
            Self::System => "System",
        }
    }
}

/// One environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct EnvVar {
    /// Name.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    #[x_kube(validation = ("!self.startsWith('POLITY_')", "names starting with POLITY_ are Polity's own"))]
    pub name: String,
    /// Value.
    #[serde(default)]
    #[schemars(length(max = 8192))]
    pub value: String,
}

/// Requests and limits of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// Requests, e.g. `cpu: 100m`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub requests: BTreeMap<String, Quantity>,
    /// Limits, e.g. `memory: 256Mi`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub limits: BTreeMap<String, Quantity>,
}

/// What core reports of an Agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// The metadata.generation that this status is about; -1: not seen yet.
    #[serde(default)]
    pub observed_generation: i64,
    /// Ready, Reconciling, Stalled.
    #[serde(default)]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Worker Pods that exist.
    #[serde(default)]
    pub replicas: i32,
    /// Worker Pods that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Label selector of the worker Pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub selector: Option<String>,
    /// Usernames by which decisions know this Agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 512)))]
    pub usernames: Vec<String>,
}

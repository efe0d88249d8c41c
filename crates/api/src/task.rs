//! Task: a unit of work, so far only what a call needs: its job space and whether it is canceled.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// A unit of work that calls belong to.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "polity.dev",
    version = "v1alpha1",
    kind = "Task",
    namespaced,
    status = "TaskStatus",
    shortname = "ptask",
    derive = "PartialEq",
    derive = "Default",
    doc = "A unit of work that calls belong to. So far it gives calls their job space and cancels them together.",
    printcolumn(name = "Job space", type_ = "string", json_path = ".spec.jobSpace"),
    printcolumn(name = "Canceled", type_ = "boolean", json_path = ".spec.cancel"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.jobSpace) == has(oldSelf.jobSpace) && (!has(self.jobSpace) || self.jobSpace == oldSelf.jobSpace)", "jobSpace is immutable"),
    validation = ("!(has(oldSelf.cancel) && oldSelf.cancel) || (has(self.cancel) && self.cancel)", "cancel cannot be taken back")
)]
pub struct TaskSpec {
    /// What is to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,
    /// Named scope inside the Org; Roles with a job space grant only to calls for Tasks of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub job_space: Option<String>,
    /// Set to true to cancel every call of this Task that has not begun, and to stop those that run.
    #[serde(default)]
    pub cancel: bool,
}

/// What core reports of a Task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskStatus {
    /// The metadata.generation that this status is about; -1: not seen yet.
    #[serde(default)]
    pub observed_generation: i64,
    /// Ready.
    #[serde(default)]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

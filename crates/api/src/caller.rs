//! Who asked: stamped by the webhook at CREATE, immutable afterwards.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who created the object, as the API server authenticated it. Stamped by Polity; what you write here is refused unless it is you.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Caller {
    /// Username, e.g. `alice@acme.example` or `system:serviceaccount:NAMESPACE:NAME`.
    #[schemars(length(max = 512))]
    pub username: String,
    /// Uid of the user, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub uid: Option<String>,
    /// Groups of the user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), inner(length(max = 512)))]
    pub groups: Vec<String>,
    /// Name of the worker Pod whose token asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pod_name: Option<String>,
    /// Uid of the worker Pod whose token asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub pod_uid: Option<String>,
    /// ServiceAccount of Polity that created the object for the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub via: Option<String>,
    /// Earlier callers of a delegated action, first one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 512)))]
    pub chain: Vec<String>,
}

/// W3C trace context, stamped at CREATE and handed on to Pods, records and Approvals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// `traceparent` header value.
    #[schemars(length(max = 55))]
    pub traceparent: String,
}

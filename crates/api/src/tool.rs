//! Tool: a callable with a schema, risk labels, a price and a runtime.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    agent::{EnvVar, Resources},
    role::Export,
    schema,
};

/// Something an agent can call.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "polity.dev",
    version = "v1alpha1",
    kind = "Tool",
    namespaced,
    status = "ToolStatus",
    shortname = "ptool",
    category = "polity",
    derive = "PartialEq",
    derive = "Default",
    doc = "Something an agent can call: a container that Polity runs per call, an HTTP endpoint, or a tool of an MCP server. Who may call it comes from Roles, under which conditions from Policies.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Runtime", type_ = "string", json_path = ".status.runtime"),
    printcolumn(name = "Risk", type_ = "string", json_path = ".spec.risk"),
    printcolumn(name = "USD", type_ = "string", json_path = ".spec.price.usd"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ToolSpec {
    /// What it does, for agents and people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,
    /// Name under which MCP clients see it, where agents expect one that no object can have: `create_issue`. As long as no other Tool that they see has it. The object's own name is understood too; Roles, Policies and records know only that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9_.-]+$"))]
    pub mcp_name: Option<String>,
    /// JSON Schema (draft 2020-12) of the input, an object. Calls outside of it are denied; rules see its types. Absent: any object, and rules may not name `args`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_object")]
    pub input_schema: Option<serde_json::Map<String, serde_json::Value>>,
    /// JSON Schema of the output. A result outside of it fails the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_object")]
    pub output_schema: Option<serde_json::Map<String, serde_json::Value>>,
    /// What kinds of data a result holds, for Policies that redact, and for rules on what was read before (`history.labels`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub output_labels: Vec<OutputLabel>,
    /// Risk labels that Roles and Policies can match, e.g. `money`, `external`, `customer-data`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)))]
    pub risk: Vec<String>,
    /// What a call costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// How long a call may run; then it is stopped. Default 60.
    #[serde(default = "a_minute")]
    #[schemars(range(min = 1, max = 86_400))]
    pub timeout_seconds: i32,
    /// Calling it twice with the same input does no harm. Only then is a call whose outcome is unknown tried again.
    #[serde(default)]
    pub idempotent: bool,
    /// `Descendants`: Orgs below may use it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<Export>,
    /// How it runs.
    pub runtime: Runtime,
}

fn a_minute() -> i32 {
    60
}

/// A kind of data in a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutputLabel {
    /// Its name, e.g. `customer-data`.
    #[schemars(length(min = 1, max = 63))]
    pub label: String,
    /// Where it is: `customers.*.iban`, or as JSON Pointer. Absent: all of the result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub paths: Vec<String>,
}

/// Price of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Price {
    /// US dollars per call as a decimal string, reserved from budgets before the call runs.
    #[schemars(length(max = 20), regex(pattern = "^[0-9]{1,12}(\\.[0-9]{1,6})?$"))]
    pub usd: String,
}

/// How a Tool runs: exactly one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = (
    "[has(self.container), has(self.http), has(self.mcp)].filter(x, x).size() == 1",
    "a Tool has exactly one runtime: container, http or mcp"
))]
pub struct Runtime {
    /// A Pod per call, without network and rights unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// An HTTP request per call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// A tool of somebody's MCP server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp: Option<Mcp>,
}

impl Runtime {
    /// Its name: `container`, `http` or `mcp`; None unless it is exactly one.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        match (&self.container, &self.http, &self.mcp) {
            (Some(_), None, None) => Some("container"),
            (None, Some(_), None) => Some("http"),
            (None, None, Some(_)) => Some("mcp"),
            _ => None,
        }
    }

    /// Where it connects to, for a runtime that the edge runs: with the name of its field.
    #[must_use]
    pub fn endpoint(&self) -> Option<(&'static str, Endpoint<'_>)> {
        match (&self.http, &self.mcp) {
            (Some(http), None) => Some(("http", http.endpoint())),
            (None, Some(mcp)) => Some(("mcp", mcp.endpoint())),
            _ => None,
        }
    }
}

/// What the runtimes `http` and `mcp` have in common: where to, with which headers, trusting whom.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint<'a> {
    /// URL outside of the cluster.
    pub url: Option<&'a str>,
    /// Service of the own namespace.
    pub service: Option<&'a ServiceRef>,
    /// Headers sent with each request.
    pub headers: &'a [Header],
    /// Headers from Secrets.
    pub secret_headers: &'a [SecretHeader],
    /// PEM certificates to trust.
    pub ca_bundle: Option<&'a str>,
}

/// A container that runs once a call: gets the input as JSON on stdin, writes its result as JSON to stdout (at most 1 MiB), exits 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// Image.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// Command with arguments; the image's entrypoint is not used.
    #[schemars(length(min = 1, max = 64), inner(length(max = 8192)))]
    pub command: Vec<String>,
    /// Environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub env: Vec<EnvVar>,
    /// Secrets, mounted as files under `/run/polity/secrets/NAME/KEY`. The author of the Tool must be allowed to read each; values are masked in what is kept of stderr.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub secrets: Vec<SecretRef>,
    /// Requests and limits; the Org's defaults otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Where it may connect to. Nothing else is reachable where the cluster enforces NetworkPolicy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub egress: Vec<Egress>,
}

/// A Secret of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Addresses and ports that a container may connect to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Egress {
    /// Addresses, e.g. `203.0.113.0/24`.
    #[schemars(length(min = 3, max = 43))]
    pub cidr: String,
    /// TCP ports.
    #[schemars(length(min = 1, max = 16), inner(range(min = 1, max = 65_535)))]
    pub ports: Vec<i32>,
}

/// An HTTP endpoint. The input goes as JSON body (or as query with method GET); the answer must be JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.url) != has(self.service)", "name exactly one of url and service"))]
pub struct Http {
    /// URL of a host outside the cluster: https, or http for a host that offers nothing else. Loopback, link-local, cluster and node addresses are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = "^https?://[^/@?#]+(/[^@#]*)?$"))]
    pub url: Option<String>,
    /// A Service of the Tool's own namespace, reached by its cluster address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,
    /// HTTP method; default POST.
    #[serde(default)]
    pub method: Method,
    /// Headers sent with every call. `Authorization` and cookies belong into `secretHeaders`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub headers: Vec<Header>,
    /// Headers whose value comes from a Secret that the author of the Tool may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub secret_headers: Vec<SecretHeader>,
    /// PEM certificates to trust for this endpoint; default: the edge's own roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65_536))]
    pub ca_bundle: Option<String>,
}

impl Http {
    /// Where it connects to.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint<'_> {
        Endpoint {
            url: self.url.as_deref(),
            service: self.service.as_ref(),
            headers: &self.headers,
            secret_headers: &self.secret_headers,
            ca_bundle: self.ca_bundle.as_deref(),
        }
    }
}

/// A tool of an MCP server (streamable HTTP). It is called only as long as the server lists exactly the definition that is pinned here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.url) != has(self.service)", "name exactly one of url and service"),
    validation = ("has(self.digest) == has(self.definition)", "digest and definition are pinned together: kubectl polity tool pin")
)]
pub struct Mcp {
    /// URL of an MCP endpoint outside the cluster: https, or http for a host that offers nothing else. Loopback, link-local, cluster and node addresses are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = "^https?://[^/@?#]+(/[^@#]*)?$"))]
    pub url: Option<String>,
    /// A Service of the Tool's own namespace, reached by its cluster address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,
    /// Name of the tool at the server.
    #[schemars(length(min = 1, max = 256))]
    pub tool: String,
    /// SHA-256 (hex) of the canonical JSON (RFC 8785) of `definition`. Without it every call is denied; `kubectl polity tool pin` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(equal = 64), regex(pattern = "^[0-9a-f]{64}$"))]
    pub digest: Option<String>,
    /// What the server lists of the tool, as JSON text: name, title, description, inputSchema, outputSchema, annotations. When the server lists something else, calls are denied until the pin is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 65_536))]
    pub definition: Option<String>,
    /// Headers sent with every request. `Authorization` and cookies belong into `secretHeaders`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub headers: Vec<Header>,
    /// Headers whose value comes from a Secret that the author of the Tool may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub secret_headers: Vec<SecretHeader>,
    /// PEM certificates to trust for this endpoint; default: the edge's own roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65_536))]
    pub ca_bundle: Option<String>,
}

impl Mcp {
    /// Where it connects to.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint<'_> {
        Endpoint {
            url: self.url.as_deref(),
            service: self.service.as_ref(),
            headers: &self.headers,
            secret_headers: &self.secret_headers,
            ca_bundle: self.ca_bundle.as_deref(),
        }
    }
}

/// HTTP method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// GET, input as query.
    Get,
    /// POST, input as JSON body.
    #[default]
    Post,
    /// PUT, input as JSON body.
    Put,
    /// PATCH, input as JSON body.
    Patch,
    /// DELETE, input as query.
    Delete,
}

/// A Service of the Tool's own namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceRef {
    /// Name of the Service.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Port of the Service.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,
    /// `http` (default) or `https`.
    #[serde(default)]
    pub scheme: Scheme,
    /// Path, default `/`.
    #[serde(default = "slash")]
    #[schemars(length(min = 1, max = 2048), regex(pattern = "^/"))]
    pub path: String,
}

fn slash() -> String {
    "/".to_owned()
}

/// Scheme of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Without TLS, inside the cluster.
    #[default]
    Http,
    /// With TLS; the certificate must name `SERVICE.NAMESPACE.svc`.
    Https,
}

/// A header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Header {
    /// Name.
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[A-Za-z0-9-]+$"))]
    pub name: String,
    /// Value.
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// A header from a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretHeader {
    /// Name of the header.
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[A-Za-z0-9-]+$"))]
    pub name: String,
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub secret: String,
    /// Key in the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// What core reports of a Tool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolStatus {
    /// The metadata.generation that this status is about; -1: not seen yet.
    #[serde(default)]
    pub observed_generation: i64,
    /// Ready, Reconciling, Stalled.
    #[serde(default)]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// `container`, `http` or `mcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub runtime: Option<String>,
    /// Digest of the spec in force; Approvals and records name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub digest: Option<String>,
    /// Runtime `mcp`: the server lists another definition than the one pinned. Calls are denied as long as `pinned` is the Tool's digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
}

/// A definition that is not the one pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// Digest that the Tool had pinned.
    #[schemars(length(max = 64))]
    pub pinned: String,
    /// Digest of what the server listed.
    #[schemars(length(max = 64))]
    pub observed: String,
    /// Parts that differ, e.g. `description`, `input schema`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 32)))]
    pub changed: Vec<String>,
    /// When an edge saw it first.
    pub at: Time,
}

impl Tool {
    /// What keeps it from being called: its server has changed the definition since it was pinned, and nobody has changed the pin since.
    #[must_use]
    pub fn quarantine(&self) -> Option<&Drift> {
        let pinned = self.spec.runtime.mcp.as_ref()?.digest.as_ref()?;
        self.status.as_ref()?.drift.as_ref().filter(|drift| drift.pinned == *pinned)
    }
}

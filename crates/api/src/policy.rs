//! Policy: CEL rules over an action, inherited down the Org tree.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{role::RoleRef, schema};

/// CEL rules over an action: deny it, ask people first, or rewrite its input; and demands on its result. Binds its Org and every Org below.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "polity.dev",
    version = "v1alpha1",
    kind = "Policy",
    plural = "policies",
    namespaced,
    status = "PolicyStatus",
    shortname = "ppol",
    category = "polity",
    derive = "PartialEq",
    derive = "Default",
    doc = "CEL rules over an action: deny it, ask people first, or rewrite its input; and demands on its result. Binds the Org in whose namespace it lives and every Org below: rules that admins of an Org must not touch live in its parent. Write policies.polity.dev in kubectl.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Rules", type_ = "integer", json_path = ".status.rules"),
    printcolumn(name = "Cost", type_ = "integer", json_path = ".status.cost"),
    printcolumn(name = "Would-Change", type_ = "integer", json_path = ".status.rollout.calls"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    selectable = ".spec.mode"
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.rules) || has(self.obligations)", "a Policy has rules, obligations, or both"))]
pub struct PolicySpec {
    /// What the rules are for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// `Enforce` (default): a rule's effect applies. `Warn`: the caller is warned. `Observe`: it is recorded only.
    #[serde(default)]
    pub mode: Mode,
    /// Which actions the rules look at; absent: every one. Every field given must match; within a field any entry.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<Match>,
    /// The rules; each is checked on its own, in any order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64))]
    pub rules: Vec<PolicyRule>,
    /// What is counted of the calls that the Policy selects. Its own rules read it as `counters.NAME`: what calls before this one have reserved and used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    pub counters: Vec<Counter>,
    /// What is demanded of results before anything of them is delivered or kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32))]
    pub obligations: Vec<Obligation>,
    /// Only holders of the verb `govern` on the Org may change or delete this Policy.
    #[serde(default)]
    pub protected: bool,
}

/// What a Policy's verdict does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Record only.
    Observe,
    /// Record and warn the caller.
    Warn,
    /// Apply.
    #[default]
    Enforce,
}

/// Which actions a Policy looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Match {
    /// Exactly these Orgs (of the own one and those below).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 50)))]
    pub orgs: Vec<String>,
    /// These Orgs and everything below each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 50)))]
    pub units: Vec<String>,
    /// Callers that hold one of these Roles of the Policy's own Org.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub roles: Vec<String>,
    /// Callers in one of these groups, as the API server knows them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub groups: Vec<String>,
    /// Callers that are one of these Agents, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub agents: Vec<String>,
    /// Tools by name; `*` and `?` match within a name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), inner(length(min = 1, max = 253)))]
    pub tools: Vec<String>,
    /// Tools that carry one of these risk labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)))]
    pub risk: Vec<String>,
    /// Verbs, e.g. `tool.call`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 64)))]
    pub verbs: Vec<String>,
    /// Job spaces of the call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)))]
    pub job_spaces: Vec<String>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.approval) == (self.effect == 'RequireApproval')", "approval belongs to effect RequireApproval, which needs it"),
    validation = ("has(self.rewrite) == (self.effect == 'Rewrite')", "rewrite belongs to effect Rewrite, which needs it")
)]
pub struct PolicyRule {
    /// Name, unique in the Policy; denials and records name it.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = ("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')", "a name has lower-case letters, digits and '-', with a letter or digit at both ends, such as max-amount"))]
    pub name: String,
    /// CEL expression of type bool that states what must hold: when it is false, the effect applies. Variables: `org`, `agent`, `caller`, `roles`,
    /// `tool`, `args`, `task`, `request`, `now`, `counters`, `history`. Example: `args.amount <= 500`.
    #[schemars(length(min = 1, max = 4096))]
    pub expression: String,
    /// What happens when the expression is false.
    pub effect: Effect,
    /// One sentence for the caller: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// One sentence for the caller: what would pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub hint: Option<String>,
    /// Who must approve, with effect RequireApproval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalRule>,
    /// What is changed in the input, in this order, with effect Rewrite. Rules of Orgs above go first; every other check sees the outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    pub rewrite: Vec<Patch>,
}

/// A sum over calls, kept in the ledger: reserved when a call begins or is held for approval, given back when it turns out not to have run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.by) || !('Input' in self.by) || has(self.window)", "by Input needs a window"))]
pub struct Counter {
    /// Name, unique in the Policy, as rules read it: `counters.spent`.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = ("self.matches('^[a-z][a-zA-Z0-9]*$')", "a name that rules can read has letters and digits only and begins with a small letter, such as spentToday"))]
    pub name: String,
    /// CEL expression of type int: what a call adds, never negative. Absent: 1. Example: `usd(args.amount)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub amount: Option<String>,
    /// Calls that differ in one of these count apart. Absent: all calls that the Policy selects count together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7))]
    pub by: Vec<CountBy>,
    /// Length of the window, aligned to 1970-01-01T00:00:00Z: `1m`, `24h`. The next one begins at zero. Absent: it never does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = ("self.matches('^[1-9][0-9]{0,5}(s|m|h|d)$')", "a length of time is a whole number with s, m, h or d behind it, such as 90s, 15m, 24h or 7d"))]
    pub window: Option<String>,
}

/// What calls count apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum CountBy {
    /// The Org of the call, for a Policy that binds several.
    Org,
    /// The Agent that calls.
    Agent,
    /// The Task of the call; those without one count together.
    Task,
    /// The job space of the call; those without one count together.
    JobSpace,
    /// The conversation of the call; those without one count together.
    Context,
    /// The Tool.
    Tool,
    /// The same Tool with the same input.
    Input,
}

/// One demand on results: exactly one of `redact` and `expression`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.redact) != has(self.expression)", "give exactly one of redact and expression"))]
pub struct Obligation {
    /// Name, unique in the Policy; refusals and records name it.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = ("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')", "a name has lower-case letters, digits and '-', with a letter or digit at both ends, such as max-amount"))]
    pub name: String,
    /// What is not delivered: each value there becomes `[redacted]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redact: Option<Redact>,
    /// CEL expression of type bool that must hold of what the tool returned, or nothing is delivered. Variables: `result`, `args`. Example:
    /// `result.amount == args.amount`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub expression: Option<String>,
    /// One sentence for the caller: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

/// Parts of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Redact {
    /// Places: `customers.*.iban`, or as JSON Pointer `/customers/*/iban`. `*` is every item of a list or member of a map.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub paths: Vec<String>,
    /// Whatever the Tool's `outputLabels` put under one of these labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)))]
    pub labels: Vec<String>,
}

/// Effect of a rule whose expression is false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Effect {
    /// Deny.
    Deny,
    /// Wait for people.
    RequireApproval,
    /// Change the input.
    Rewrite,
}

/// One change of the input: exactly one of `set`, `min` and/or `max`, `remove`, `mask`. Each does nothing when it is done again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Patch {
    /// Where in the input: `amount`, `customer.iban`, or as JSON Pointer `/customer/iban`. `*` is every item of a list or member of a map.
    #[schemars(length(min = 1, max = 256))]
    pub path: String,
    /// Sets this constant; objects on the way there are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_value")]
    pub set: Option<serde_json::Value>,
    /// A number below it becomes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_value")]
    pub min: Option<serde_json::Value>,
    /// A number above it becomes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_value")]
    pub max: Option<serde_json::Value>,
    /// Removes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remove: bool,
    /// Replaces each character of a string by `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Mask>,
}

/// How a string is masked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mask {
    /// How many characters at its end stay readable; default 0. A string that is not longer is masked whole.
    #[serde(default)]
    #[schemars(range(min = 0, max = 16))]
    pub keep_last: i32,
}

/// Who must approve. The requester never counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("(has(self.role) ? 1 : 0) + (has(self.group) ? 1 : 0) + (has(self.superior) && self.superior ? 1 : 0) == 1", "name exactly one of role, group, superior"))]
pub struct ApprovalRule {
    /// Holders of this Role. Without `org` it is looked up in the Org that wrote the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleRef>,
    /// Members of this group, as the API server knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub group: Option<String>,
    /// Holders of the Role that a Role of the requester reports to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub superior: bool,
    /// How many different Agents must approve; default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 16))]
    pub count: i32,
    /// Only people count (default), no AI agents or systems.
    #[serde(default = "yes")]
    pub humans_only: bool,
    /// How long the Approval waits; then it is denied. Default `24h`.
    #[serde(default = "a_day")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = ("self.matches('^[1-9][0-9]{0,5}(s|m|h|d)$')", "a length of time is a whole number with s, m, h or d behind it, such as 90s, 15m, 24h or 7d"))]
    pub expires_after: String,
}

fn one() -> i32 {
    1
}
fn yes() -> bool {
    true
}
fn a_day() -> String {
    "24h".to_owned()
}

/// What core reports of a Policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// The metadata.generation that this status is about; -1: not seen yet.
    #[serde(default)]
    pub observed_generation: i64,
    /// Ready, Reconciling, Stalled, and per Tool problems in the message.
    #[serde(default)]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Number of rules in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<i32>,
    /// Estimate of the steps that its rules take at most in one decision, of the 1,000,000 that a decision has; a list of which no schema says how long it
    /// may be counts as 100 elements. Absent: a rule does not compile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<i64>,
    /// Digest of the spec in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub digest: Option<String>,
    /// With mode Warn or Observe: what the rules would have done to calls that went on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

/// What a Policy in Warn or Observe would have done, had it been enforced: counted from the ledger over the calls that were allowed or sent to people for
/// other reasons. Written at most every 10 s, and only when there is something new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Since when it counts: when this version of the Policy was first seen, or 24 h before the latest call counted.
    pub since: Time,
    /// Calls that would have gone another way: `denied`, `asked` and `rewritten` together.
    pub calls: i64,
    /// Of these, how many would have been denied.
    pub denied: i64,
    /// How many would have been sent to people, or to more of them.
    pub asked: i64,
    /// How many would have run with another input.
    pub rewritten: i64,
    /// The latest calls, the latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub examples: Vec<RolloutExample>,
}

/// One call that would have gone another way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutExample {
    /// The rule, by name; the first of them. Empty: the Policy as a whole, which does not compile or does not fit the Tool.
    #[schemars(length(max = 63))]
    pub rule: String,
    /// What it would have done.
    pub effect: Effect,
    /// Agent that called, as `namespace/name`.
    #[schemars(length(max = 512))]
    pub agent: String,
    /// Tool that was called, as `namespace/name`.
    #[schemars(length(max = 512))]
    pub tool: String,
    /// When.
    pub at: Time,
    /// Org in whose chain the call is recorded.
    #[schemars(length(max = 63))]
    pub org: String,
    /// Sequence of the record there.
    pub record: i64,
}

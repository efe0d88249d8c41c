//! What the ledger is asked and what it answers: the four verbs and their amounts.
//!
//! These types travel between edge and core as JSON, so every one is `Serialize + Deserialize` and
//! none names a tool, a model or a Kubernetes object: an action is a verb, a target and dimensions.
//! This module never touches the database.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::refused::Refused;

/// A unit that can be reserved, used and limited. Open-ended: unknown units are carried along.
pub type Unit = String;

/// Names of the units known today.
pub mod unit {
    /// Number of actions begun.
    pub const CALLS: &str = "calls";
    /// Money in millionths of a US dollar.
    pub const MICRO_USD: &str = "microUSD";
    /// Tokens sent to a model.
    pub const TOKENS_IN: &str = "tokensIn";
    /// Tokens received from a model.
    pub const TOKENS_OUT: &str = "tokensOut";
    /// Tokens of those sent that the model had cached; counted by the caller beside `tokensIn`.
    pub const TOKENS_CACHED: &str = "tokensCached";
    /// Seconds of run time.
    pub const SECONDS: &str = "seconds";
    /// Bytes moved.
    pub const BYTES: &str = "bytes";
    /// Units that begin with this follow the outcome alone, whatever a settlement says of them: used as reserved, or nothing when the action was not done.
    pub const BY_OUTCOME: &str = "count/";
}

/// Amounts by unit; absent means zero. Never negative.
pub type Amounts = BTreeMap<Unit, i64>;

/// The Org whose chain a record belongs to. The uid tells a re-created Org of the same name apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrgId {
    /// `metadata.name` of the Org.
    pub name: String,
    /// `metadata.uid` of the Org.
    pub uid: String,
}

/// Who acts. `via` is the part of Polity that acted for the caller, `chain` the callers behind a delegation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Actor {
    /// `Human`, `AI`, `System`, or `Unknown` when no Agent matches the username.
    #[serde(rename = "type")]
    pub kind: String,
    /// Agent as `namespace/name`, empty when no Agent matches.
    pub agent: String,
    /// Username as the API server gave it.
    pub username: String,
    /// Roles held at the time of the decision, as `namespace/name`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// The ServiceAccount of ours that created the request for the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Earlier callers of a delegated action, first one first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
    /// Uid of the worker Pod that asked, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
}

/// What is acted upon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Target {
    /// Kind of the target, e.g. `Tool`.
    pub kind: String,
    /// Namespace of the target object.
    pub namespace: String,
    /// Name of the target object.
    pub name: String,
    /// Digest of the target's definition that was decided on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub digest: String,
}

/// Window of a counter. Fixed windows are aligned to the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Window {
    /// Never resets.
    Total,
    /// Resets every so many seconds.
    Seconds(i64),
}

/// Names a counter: a unit over a window, for the values of some dimensions
/// (`org`, `unit`, `jobSpace`, `role`, `agent`, `task`, `contract`, `verb`, `tool`, `model`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CounterKey {
    /// Unit counted.
    pub unit: Unit,
    /// Window counted over.
    pub window: Window,
    /// Dimension → value. An Org appears here by uid.
    pub dims: BTreeMap<String, String>,
}

/// A counter that an action is charged to, and the most it may reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Charge {
    /// Which counter.
    pub counter: CounterKey,
    /// Refuse when used + reserved + this reservation would exceed it. None: count only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
    /// Whose limit it is, for the refusal: e.g. `Org acme budget.perDay`.
    pub owner: String,
}

/// A counter as read, with the version for compare-and-set. The version changes with every write to the counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CounterValue {
    /// Which counter.
    pub counter: CounterKey,
    /// Start of the window read, in Unix seconds; 0 for one that never resets.
    #[serde(default)]
    pub start: i64,
    /// Amount used in that window.
    pub used: i64,
    /// Amount reserved and not yet settled or released.
    pub reserved: i64,
    /// Version read.
    pub version: i64,
}

/// A caller's key against running the same request twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Idempotency {
    /// The key, unique per Org, caller and verb; kept at least 24 h.
    pub key: String,
    /// SHA-256 (hex) of the canonical request body; another body under the same key is refused.
    pub body: String,
}

/// What was decided, as recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Verdict {
    /// `Allow`, `Deny` or `RequireApproval`.
    pub effect: String,
    /// Stable reason code, e.g. `PolicyDenied`; empty for an allow.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
    /// Rules that led to it, as `namespace/policy/rule`.
    pub rules: Vec<String>,
    /// Approvals that it rests on, as uid.
    pub approvals: Vec<String>,
    /// Rules that changed the input before it was decided; the input is the changed one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rewrites: Vec<String>,
    /// What rules that are not enforced (`mode` Warn or Observe) would have done; the first 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub advisory: Vec<Advised>,
}

/// What a rule in Warn or Observe would have done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Advised {
    /// The rule, as `namespace/policy/rule`; the Policy, where it does not compile.
    pub rule: String,
    /// `Deny`, `RequireApproval` or `Rewrite`.
    pub effect: String,
    /// Digest of the Policy's spec.
    pub policy: String,
}

/// What rules were told of earlier actions: what counters stood at and what was in the history, without the action itself. At most 256 values;
/// what is missing here was not read, or there were more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Past {
    /// Counters of Policies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub counters: Vec<CounterRead>,
    /// How many actions there were in the history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<i64>,
    /// Labels that rules asked the history for, and whether they were there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, bool>,
    /// Tools that rules asked the history for, and how often they were called.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tools: BTreeMap<String, i64>,
}

/// A counter as rules read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CounterRead {
    /// Its Policy, as `namespace/name`.
    pub policy: String,
    /// Its name.
    pub name: String,
    /// Length of its window in seconds; 0: it never resets.
    #[serde(skip_serializing_if = "is_zero")]
    pub window: i64,
    /// Dimensions that it counts apart by, in their order; `input` for tool and input.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<String>,
    /// What it stood at: used and reserved.
    pub value: i64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the shape that serde asks for
fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// The part that every verb and every durable decision shares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    /// Unique id of this action: uid of the ToolCall, or an id given by the edge. One action begins once.
    pub id: String,
    /// Org whose chain records it.
    pub org: OrgId,
    /// Verb, e.g. `tool.call`.
    pub verb: String,
    /// What is acted on.
    pub target: Target,
    /// Who acts.
    pub actor: Actor,
    /// Canonical input; the ledger keeps its keyed digest only, or the text too if the Org asks so (`record.input: Full`).
    pub input: serde_json::Value,
    /// Digest of the snapshot that decided.
    pub snapshot: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Dimensions of the action (`role`, `agent`, `task`, `jobSpace`, `tool`, `verb`, `context`, …).
    pub dims: BTreeMap<String, String>,
    /// W3C traceparent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trace: String,
    /// Keep the input's text in the record.
    #[serde(default)]
    pub keep_input: bool,
    /// What rules were told of earlier actions; None: they asked nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub past: Option<Past>,
}

/// Reserve without permission to run: what a call that waits for approval has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// The action.
    pub subject: Subject,
    /// Amounts to reserve.
    pub reserve: Amounts,
    /// Counters charged, with their limits.
    pub charges: Vec<Charge>,
    /// The hold lapses then, and the reservation is released by the ledger itself.
    pub expires: Timestamp,
    /// Idempotency of the request.
    pub idempotency: Option<Idempotency>,
}

/// A hold that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// Sequence of the record.
    pub seq: i64,
    /// Keyed digest of the input and the id of the key.
    pub input: KeyedDigest,
    /// It was held before: nothing was written.
    #[serde(default)]
    pub again: bool,
}

/// Turn a hold into a start, or reserve and start. Committed before anything runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Begin {
    /// The action. Its `id` finds the hold, if there is one.
    pub subject: Subject,
    /// Amounts to reserve (when there is a hold, its reservation is used; of units by outcome, those that it lacks are added).
    pub reserve: Amounts,
    /// Counters charged, with their limits.
    pub charges: Vec<Charge>,
    /// Counters that the decision read; refused `Contended` when one has moved, or its window is over.
    pub read: Vec<CounterValue>,
    /// Single-use keys that this start consumes, e.g. `approval/UID`.
    pub consume: Vec<String>,
    /// Part that runs it: pod name of the replica, or `core`.
    pub executor: String,
    /// After this time without `settle` the outcome is unknown.
    pub deadline: Timestamp,
    /// Idempotency of the request.
    pub idempotency: Option<Idempotency>,
    /// What the executor needs to find or finish the run after a crash (e.g. the Pod's name). Opaque to the ledger.
    #[serde(default)]
    pub resume: serde_json::Value,
}

/// A start that is committed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Begun {
    /// Sequence of the record.
    pub seq: i64,
    /// Keyed digest of the input.
    pub input: KeyedDigest,
    /// The same id had begun before, by the same executor: nothing was written. The executor goes on, it does not start again blindly.
    pub again: bool,
}

/// What became of an action that began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It ran and did what it says.
    Done,
    /// It did not take effect.
    NotDone,
    /// Nobody knows; counted as spent at its maximum until a person resolves it.
    Unknown,
}

/// The end, or a part of it, of an action that began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settle {
    /// Org of the action.
    pub org: OrgId,
    /// Id of the action.
    pub id: String,
    /// Amounts used; with `last`, what was reserved beyond it is returned.
    pub used: Amounts,
    /// Whether this is the last part.
    pub last: bool,
    /// The outcome; required with `last`.
    pub outcome: Option<Outcome>,
    /// Stable reason code for anything but a plain success.
    #[serde(default)]
    pub reason: String,
    /// One sentence for people.
    #[serde(default)]
    pub message: String,
    /// Result body to keep until collected (at most 1 MiB); recorded by digest and size.
    pub result: Option<serde_json::Value>,
    /// Other facts for the record, e.g. exit code. Never a secret.
    #[serde(default)]
    pub facts: BTreeMap<String, serde_json::Value>,
    /// Who settles: the executor, or the person's username for a resolution.
    pub by: String,
    /// Overrides an earlier `Unknown`: a person's resolution.
    #[serde(default)]
    pub resolution: bool,
}

/// A settlement that is committed, also given for the same settlement sent again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settled {
    /// Sequence of the record.
    pub seq: i64,
    /// Keyed digest of the result.
    pub result: Option<KeyedDigest>,
    /// The outcome that stands (an earlier last settlement wins over a later one).
    pub outcome: Option<Outcome>,
}

/// Give a hold back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Org of the action.
    pub org: OrgId,
    /// Id of the action.
    pub id: String,
    /// Stable reason code, e.g. `ApprovalExpired`.
    pub reason: String,
    /// Who released it.
    pub by: String,
}

/// HMAC-SHA-256 under a key of the Org, with the key's id; destroying the key erases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyedDigest {
    /// Lower-case hex.
    pub digest: String,
    /// Id of the key.
    pub key_id: String,
    /// Size of the digested canonical text in bytes.
    pub size: i64,
}

/// State of an action in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Reserved, waiting.
    Held,
    /// Hold given back or lapsed.
    Released,
    /// Begun, no last settlement yet.
    Begun,
    /// Settled.
    Settled,
}

/// An action as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// Id of the action.
    pub id: String,
    /// Its Org.
    pub org: OrgId,
    /// Its verb.
    pub verb: String,
    /// Its state.
    pub state: State,
    /// Executor of a begun action.
    pub executor: String,
    /// Deadline of a begun action, expiry of a held one.
    pub deadline: Timestamp,
    /// Executor's own data from `Begin::resume`.
    pub resume: serde_json::Value,
    /// Outcome once settled.
    pub outcome: Option<Outcome>,
    /// Reason code once settled or released.
    pub reason: String,
    /// Message once settled.
    pub message: String,
    /// Result once settled, while kept.
    pub result: Option<serde_json::Value>,
    /// Digest of the result once settled.
    pub result_digest: Option<KeyedDigest>,
    /// Facts of the last settlement.
    pub facts: BTreeMap<String, serde_json::Value>,
}

/// A record that reserves nothing: a durable denial (`decision`), `approval`, `transition`, `definition`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// Kind of the record: `attempt`, `decision`, `approval`, `transition`, `definition`, `resolution`.
    pub kind: String,
    /// Org whose chain records it.
    pub org: OrgId,
    /// Key against recording the same twice (e.g. `decision/UID/1`); the same key again writes nothing.
    pub once: Option<String>,
    /// The action it belongs to, when there is one.
    pub subject: Option<Subject>,
    /// Who acted, when there is no subject.
    pub actor: Option<Actor>,
    /// What it is about, when there is no subject.
    pub target: Option<Target>,
    /// Reason code.
    #[serde(default)]
    pub reason: String,
    /// Other facts.
    #[serde(default)]
    pub facts: BTreeMap<String, serde_json::Value>,
}

//! What a record says: one struct for every kind.
//!
//! Kinds and fields are open-ended; a field that this version does not know is carried along. A record never holds a
//! secret, nor an input or a result unless the Org asked for it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::types::{Actor, Amounts, KeyedDigest, OrgId, Past, Target, Verdict};

/// Version of the record format.
pub const FORMAT: i64 = 1;

/// `prev` of the first record of a chain.
pub const NO_PREVIOUS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Names of the kinds known today.
pub mod kind {
    /// First record of a chain: names the installation and the Org's uid.
    pub const GENESIS: &str = "genesis";
    /// A reservation without permission to run.
    pub const HOLD: &str = "hold";
    /// A start.
    pub const BEGIN: &str = "begin";
    /// An end, or a part of one.
    pub const SETTLE: &str = "settle";
    /// A hold given back or lapsed.
    pub const RELEASE: &str = "release";
    /// An outcome settled by a person.
    pub const RESOLUTION: &str = "resolution";
    /// A definition came into force, changed, or went.
    pub const DEFINITION: &str = "definition";
    /// A segment was dropped after its time; its root stays.
    pub const RETENTION: &str = "retention";
    /// The keys of the Org's digests were destroyed.
    pub const ERASURE: &str = "erasure";
}

/// A counter that a hold or begin charged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Charged {
    /// Unit counted.
    pub unit: String,
    /// Length of the window in seconds; 0 never resets.
    pub window: i64,
    /// Start of the window in Unix seconds; 0 where it never resets.
    pub start: i64,
    /// Dimension → value.
    pub dims: BTreeMap<String, String>,
    /// Amount reserved on it.
    pub amount: i64,
}

/// What an action cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Cost {
    /// Tokens sent to a model.
    pub tokens_in: i64,
    /// Tokens received from a model.
    pub tokens_out: i64,
    /// Tokens of those sent that the model had cached.
    pub tokens_cached: i64,
    /// Money in millionths of a US dollar.
    #[serde(rename = "microUSD")]
    pub micro_usd: i64,
}

/// What a record says. Empty and absent are the same, and are not written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Entry {
    /// Version of the format.
    pub format: i64,
    /// Id of the record: uid of the Org and sequence.
    pub id: String,
    /// Position in the chain, from 1.
    pub seq: i64,
    /// When it was written, to the microsecond.
    #[schemars(with = "String")]
    pub time: Timestamp,
    /// Whose chain it is.
    pub org: OrgId,
    /// Kind of the record, see [`kind`].
    pub kind: String,
    /// Hash of the record before it.
    pub prev: String,
    /// Epoch of the writer.
    pub epoch: i64,
    /// Who acted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
    /// Id of the action that it belongs to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub action: String,
    /// Verb of the action.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub verb: String,
    /// What is acted upon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Keyed digest of the canonical input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<KeyedDigest>,
    /// The input itself, where the Org records it in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_text: Option<Value>,
    /// Digest of the snapshot that decided.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub snapshot: String,
    /// The verdict with its rules and approvals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// What rules were told of earlier actions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub past: Option<Past>,
    /// Redactions by class.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub redactions: BTreeMap<String, i64>,
    /// What it cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// From begin to the end, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i64>,
    /// `Done`, `NotDone` or `Unknown`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub outcome: String,
    /// W3C traceparent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trace: String,
    /// Stable reason code.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// One sentence for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Task of the action.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task: String,
    /// Job space of the action.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub job_space: String,
    /// Conversation of the action.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub context: String,
    /// Contract of the action.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub contract: String,
    /// Run of a workflow.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workflow_run: String,
    /// Node of the workflow.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workflow_node: String,
    /// Digest of the tool's definition.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tool_digest: String,
    /// Digest of the agent's definition.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub agent_digest: String,
    /// Keyed digest and size of the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<KeyedDigest>,
    /// Provider of the model.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub provider: String,
    /// The model.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// Version of the price that was applied.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub price_version: String,
    /// Caller's key against running twice.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub idempotency_key: String,
    /// Part that runs the action.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub executor: String,
    /// Who settled or released.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// Deadline of a begin, expiry of a hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub deadline: Option<Timestamp>,
    /// Amounts reserved by this record.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reserved: Amounts,
    /// Amounts used, as stated by this record.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub used: Amounts,
    /// Of those used, what was more than reserved.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub excess: Amounts,
    /// What the action counts as used in all after this record; on the last settlement and a resolution.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub counted: Amounts,
    /// Counters that this record newly charged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub charged: Vec<Charged>,
    /// Single-use keys consumed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub consumed: Vec<String>,
    /// Dimensions of the action that have no field of their own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dims: BTreeMap<String, String>,
    /// Other facts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, Value>,
    /// The installation; on the first record of a chain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub installation: String,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

//! What a decision is asked and what it answers. Borrowed in, owned out; no client, no clock.

use std::sync::Arc;

use jiff::Timestamp;
use polity_api::{approval::Requirement, caller::Caller, policy::Effect, reasons, tool::ToolSpec, toolcall::Rewritten};

use serde::{Deserialize, Serialize};

use crate::{Counting, Obligations, Past};

/// One action to decide. Today the verb is always `tool.call`.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Verb, e.g. `tool.call`.
    pub verb: &'a str,
    /// Name of the Tool.
    pub tool: &'a str,
    /// Org above that has the Tool; None: the Org of the snapshot.
    pub tool_org: Option<&'a str>,
    /// The input, a JSON object.
    pub args: &'a serde_json::Value,
    /// Who asks, as stamped.
    pub caller: &'a Caller,
    /// The Task named by the call; None when it names none.
    pub task: Option<&'a TaskFacts>,
    /// Job space of the call when it names no Task.
    pub job_space: Option<&'a str>,
    /// Conversation.
    pub context: Option<&'a str>,
    /// Id of the action (uid of the ToolCall, or the edge's own), empty in admission.
    pub id: &'a str,
    /// Rules (as `namespace/policy/rule`) that an Approval satisfies, each checked by the caller of `decide` against digest and expiry.
    pub approved: &'a [String],
    /// Present time.
    pub now: Timestamp,
    /// What is known of calls before this one.
    pub past: Past<'a>,
}

/// What rules and grants may know of a Task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskFacts {
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Job space.
    pub job_space: Option<String>,
    /// Canceled.
    pub cancel: bool,
}

/// The verdict of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Run it.
    Allow,
    /// Refuse it.
    Deny,
    /// Ask people first.
    RequireApproval,
}

impl Verdict {
    /// Its name as recorded and shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "Allow",
            Self::Deny => "Deny",
            Self::RequireApproval => "RequireApproval",
        }
    }
}

/// A decision with its reasons. An allow names the Roles that granted it.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// Stable reason code (`polity_api::reasons`); empty for an allow.
    pub reason: &'static str,
    /// Why, one or two sentences for people; names the rule.
    pub message: String,
    /// What would pass; empty when nothing can be said.
    pub hint: String,
    /// Rules that led to it, as `namespace/policy/rule`, in a stable order.
    pub rules: Vec<String>,
    /// Rules in Warn or Observe that would have had an effect.
    pub advisory: Vec<Advisory>,
    /// What Approvals must be met, with RequireApproval.
    pub requirements: Vec<Requirement>,
    /// Shortest expiry of the requirements in seconds, with RequireApproval.
    pub expires_after: i64,
    /// Digest of the snapshot that decided.
    pub snapshot: String,
    /// The caller's Agent, when known.
    pub agent: Option<AgentFacts>,
    /// Roles of the caller in force, as `namespace/name`.
    pub roles: Vec<String>,
    /// The Tool, when found.
    pub tool: Option<Arc<ToolFacts>>,
    /// The input as rules have rewritten it; None: as it was asked. Everything else of the decision is about this input.
    pub rewritten: Option<serde_json::Value>,
    /// What each rule changed in the input.
    pub rewrites: Vec<Rewritten>,
    /// What Policies demand of the result; None: nothing.
    pub obligations: Option<Arc<Obligations>>,
    /// Where the call counts, and what rules read of what others have counted. Empty where it was denied before any rule was looked at.
    pub counting: Counting,
    /// Rules that were left out because they read what is known only when the call begins (`Past::Later`).
    pub later: Vec<String>,
}

impl Decision {
    /// Whether counters or history must be read to know what comes of a call that was decided with `Past::Unknown`. A denial for another reason stands
    /// whatever they say.
    #[must_use]
    pub fn needs_past(&self) -> bool {
        !self.counting.asked.is_empty() && (self.verdict != Verdict::Deny || self.reason == reasons::COUNTERS_UNKNOWN)
    }
}

/// A rule whose effect did not apply because of its Policy's mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advisory {
    /// The rule, as `namespace/policy/rule`.
    pub rule: String,
    /// Whether the caller is told (Warn) or it is recorded only (Observe).
    pub warn: bool,
    /// What would have happened, and why.
    pub message: String,
    /// What enforcing it would have done; a rule that has no value, or a Policy that does not compile, denies.
    pub effect: Effect,
    /// Digest of the Policy's spec (`status.digest` of the Policy).
    pub policy: Arc<str>,
}

/// The Agent behind a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentFacts {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `AI`, `Human` or `System`.
    pub kind: String,
}

/// A Tool as decided on.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolFacts {
    /// Org that has it.
    pub org: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Digest of its spec.
    pub digest: String,
    /// Its price per call in micro-USD.
    pub micro_usd: i64,
    /// Its definition.
    pub spec: ToolSpec,
    /// Runtime `mcp`: its server changed the definition since it was pinned, and this is how.
    pub quarantined: Option<String>,
}

/// A limit that calls of an Org are charged to: its own and every ancestor's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetLimit {
    /// Org whose budget it is.
    pub org: String,
    /// Its uid.
    pub org_uid: String,
    /// Window in seconds.
    pub window: i64,
    /// Unit: `calls` or `microUSD`.
    pub unit: &'static str,
    /// Most in a window.
    pub max: i64,
}

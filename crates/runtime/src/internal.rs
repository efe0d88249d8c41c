//! What edge and core say to each other, besides the ledger's own requests and answers. Types and paths only;
//! `core_client` is the edge's side, core's side is a router in the operator.

use jiff::Timestamp;
use polity_api::caller::Caller;
use polity_ledger::{Begin, Filter, Idempotency, Refused, Subject};
use polity_policy::{Request, TaskFacts};
use serde::{Deserialize, Serialize};

/// Header with the leader epoch that the sender believes in.
pub const EPOCH_HEADER: &str = "x-polity-epoch";
/// Prefix of every path.
pub const PREFIX: &str = "/internal/v1";
/// Longest that core lets a client wait for the end of an attempt, in seconds.
pub const MAX_WAIT_SECONDS: u64 = 30;

/// Answer to `GET hello`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Core's epoch.
    pub epoch: i64,
    /// Whether core holds the lease and its ledger is open.
    pub ready: bool,
}

/// What core must know of a call besides its subject, to count it and to decide again by what was counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallFacts {
    /// Who asks, as stamped or as the edge has found out.
    pub caller: Caller,
    /// The Task of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskFacts>,
    /// Job space of a call without Task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_space: Option<String>,
}

impl CallFacts {
    /// The facts of a request.
    #[must_use]
    pub fn of(request: &Request<'_>) -> Self {
        Self { caller: request.caller.clone(), task: request.task.cloned(), job_space: request.job_space.map(str::to_owned) }
    }
}

/// A start that counts: a Policy that may select the call has counters, or reads the history, or its Tool's results carry labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CountedBegin {
    /// The start to commit.
    pub begin: Begin,
    /// What it takes to count it.
    pub facts: CallFacts,
}

/// Asks what counters and history stand at for a call, without the call itself. Body of `POST past`, answered with `Known`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PastRequest {
    /// The call, as decided without them.
    pub subject: Subject,
    /// What it takes to find them.
    pub facts: CallFacts,
    /// Idempotency of the request: what it was answered before stands, whatever was counted since (`IdempotencyReplay`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<Idempotency>,
}

/// Begin a container call and start the tool's Pod. Answered with `Begun`; poll the attempt for the outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunRequest {
    /// The start to commit.
    pub begin: Begin,
    /// The Tool to run, as decided on.
    pub tool: RunTool,
    /// After this long the Pod is stopped.
    pub timeout_seconds: i64,
    /// What Policies demand of the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obligations: Option<polity_policy::Obligations>,
    /// What it takes to count the call, where it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<CallFacts>,
}

/// Asks for a page of an Org's chain. Body of `POST records/{orgUid}`, answered with `Page`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RecordsRequest {
    /// Only what comes after this sequence.
    pub after: i64,
    /// Most records to look at; core has a bound of its own.
    pub limit: i64,
    /// Which of them are wanted.
    pub filter: Filter,
    /// Also the signed roots of segments.
    pub roots: bool,
    /// The page ends early once its lines are longer than this, in bytes, but has one at least; 0: core's own bound.
    pub bytes: usize,
    /// When there is nothing after it yet, wait for it so many seconds (at most `MAX_WAIT_SECONDS`).
    pub wait: u64,
}

/// Names a Tool exactly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunTool {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Digest of its spec.
    pub digest: String,
}

/// The server of a Tool lists another definition than the one pinned. Body of `POST tools/drifted`; core notes it in the Tool's status, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolDrifted {
    /// The Tool, as decided on.
    pub tool: RunTool,
    /// Digest that it has pinned.
    pub pinned: String,
    /// Digest of what is listed.
    pub observed: String,
    /// Parts that differ, for people.
    pub changed: Vec<String>,
}

/// A wish to cancel a call that may be under way. Body of `POST cancel`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelRequest {
    /// Uid of the Org.
    pub org: String,
    /// Id of the call, or another key under which an edge has it under way.
    pub key: String,
}

/// Asks for wishes to cancel. Body of `POST cancels`, answered with `Cancels`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelsRequest {
    /// Epoch that `after` belongs to.
    pub epoch: i64,
    /// Only what comes after this position.
    pub after: i64,
    /// When there is nothing after it yet, wait for it so many seconds (at most `MAX_WAIT_SECONDS`).
    pub wait: u64,
}

/// Wishes to cancel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancels {
    /// Core's epoch.
    pub epoch: i64,
    /// Where to go on.
    pub next: i64,
    /// Keys of what is to be canceled, oldest first.
    pub keys: Vec<String>,
}

/// The Pod that asks, as TokenReview told the edge. Body of `POST runs/{id}/input`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShimPod {
    /// Name.
    pub pod_name: String,
    /// Uid.
    pub pod_uid: String,
    /// Namespace.
    pub namespace: String,
}

/// What a shim gives to its tool. Answer to `POST runs/{id}/input`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShimInput {
    /// The input of the call, for the tool's stdin.
    pub input: serde_json::Value,
    /// The tool is stopped then.
    pub deadline: Timestamp,
    /// W3C traceparent of the call; empty when there is none.
    #[serde(default)]
    pub trace: String,
}

/// What a tool's run left behind, as the shim posts it to the edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShimOutput {
    /// Exit code; 128 + signal when it was killed by one.
    pub exit_code: i32,
    /// Its stdout.
    pub stdout: String,
    /// The end of its stderr, secret values masked.
    #[serde(default)]
    pub stderr_tail: String,
    /// The shim stopped it at its time-out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub timed_out: bool,
    /// The shim stopped it because its stdout is larger than what is accepted; `stdout` is empty then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub too_large: bool,
}

/// Body of `POST runs/{id}/result`: the output and the Pod that it comes from, in one flat object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimResult {
    /// The Pod that posts.
    #[serde(flatten)]
    pub pod: ShimPod,
    /// What came out.
    #[serde(flatten)]
    pub output: ShimOutput,
}

/// Why a shim gets no input, or its result is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// No such run, or core does not know its Pod yet: the shim asks again.
    #[error("no run {id} is known yet")]
    NotKnown {
        /// Id of the run.
        id: String,
    },
    /// The run belongs to another Pod.
    #[error("run {id} belongs to another Pod")]
    AnotherPod {
        /// Id of the run.
        id: String,
    },
    /// Core refused, or cannot be reached.
    #[error(transparent)]
    Refused(#[from] Refused),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shims_result_is_one_flat_object() {
        let result = ShimResult {
            pod: ShimPod { pod_name: "call-1".into(), pod_uid: "u".into(), namespace: "acme".into() },
            output: ShimOutput { exit_code: 3, stdout: "{}".into(), stderr_tail: String::new(), timed_out: false, too_large: false },
        };
        let json = serde_json::to_value(&result).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"podName": "call-1", "podUid": "u", "namespace": "acme", "exitCode": 3, "stdout": "{}", "stderrTail": ""})
        );
        assert_eq!(serde_json::from_value::<ShimResult>(json).unwrap(), result);
    }
}

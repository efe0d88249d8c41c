//! Core as the edge sees it: the ledger's verbs and the runs of container Tools. A trait, so that what the edge makes of core's answers is
//! tested against a scripted one.

use std::time::Duration;

use futures::future::BoxFuture;
use polity_ledger::{Attempt, Begin, Begun, Note, Page, Refused, Release, Settle, Settled};
use polity_policy::Known;
use polity_runtime::{
    core_client::CoreClient,
    internal::{
        CancelRequest, Cancels, CancelsRequest, CountedBegin, PastRequest, RecordsRequest, RunError, RunRequest, ShimInput, ShimPod,
        ShimResult, ToolDrifted,
    },
};

/// What the edge asks of core. Each answer is committed; whatever is not an answer is `LedgerUnavailable`.
pub trait Core: Send + Sync {
    /// Start an action.
    fn begin<'a>(&'a self, begin: &'a Begin) -> BoxFuture<'a, Result<Begun, Refused>>;
    /// Start an action that counts.
    fn begin_counted<'a>(&'a self, begin: &'a CountedBegin) -> BoxFuture<'a, Result<Begun, Refused>>;
    /// What counters and history stand at for a call.
    fn past<'a>(&'a self, request: &'a PastRequest) -> BoxFuture<'a, Result<Known, Refused>>;
    /// End it.
    fn settle<'a>(&'a self, settle: &'a Settle) -> BoxFuture<'a, Result<Settled, Refused>>;
    /// Give a reservation back.
    fn release<'a>(&'a self, release: &'a Release) -> BoxFuture<'a, Result<(), Refused>>;
    /// Record a denial.
    fn note<'a>(&'a self, note: &'a Note) -> BoxFuture<'a, Result<Option<i64>, Refused>>;
    /// Start a container call.
    fn run<'a>(&'a self, run: &'a RunRequest) -> BoxFuture<'a, Result<Begun, Refused>>;
    /// Tell of a Tool whose server lists another definition than the one pinned.
    fn drifted<'a>(&'a self, told: &'a ToolDrifted) -> BoxFuture<'a, Result<(), Refused>>;
    /// Hand a wish to cancel on: core stops what it runs itself, and tells the other edges.
    fn cancel<'a>(&'a self, wish: &'a CancelRequest) -> BoxFuture<'a, Result<(), Refused>>;
    /// Wishes to cancel that other edges were told; waits for one.
    fn cancels<'a>(&'a self, request: &'a CancelsRequest) -> BoxFuture<'a, Result<Cancels, Refused>>;
    /// An action as the ledger has it; waits for its end up to `wait`.
    fn attempt<'a>(&'a self, org_uid: &'a str, id: &'a str, wait: Duration) -> BoxFuture<'a, Result<Option<Attempt>, Refused>>;
    /// A page of an Org's chain, for somebody who may see it.
    fn records<'a>(&'a self, org_uid: &'a str, request: &'a RecordsRequest) -> BoxFuture<'a, Result<Page, Refused>>;
    /// Input of a run, for its Pod.
    fn run_input<'a>(&'a self, id: &'a str, pod: &'a ShimPod) -> BoxFuture<'a, Result<ShimInput, RunError>>;
    /// Result of a run, from its Pod.
    fn run_result<'a>(&'a self, id: &'a str, result: &'a ShimResult) -> BoxFuture<'a, Result<(), RunError>>;
}

impl Core for CoreClient {
    fn begin<'a>(&'a self, begin: &'a Begin) -> BoxFuture<'a, Result<Begun, Refused>> {
        Box::pin(self.begin(begin))
    }
    fn begin_counted<'a>(&'a self, begin: &'a CountedBegin) -> BoxFuture<'a, Result<Begun, Refused>> {
        Box::pin(self.begin_counted(begin))
    }
    fn past<'a>(&'a self, request: &'a PastRequest) -> BoxFuture<'a, Result<Known, Refused>> {
        Box::pin(self.past(request))
    }
    fn settle<'a>(&'a self, settle: &'a Settle) -> BoxFuture<'a, Result<Settled, Refused>> {
        Box::pin(self.settle(settle))
    }
    fn release<'a>(&'a self, release: &'a Release) -> BoxFuture<'a, Result<(), Refused>> {
        Box::pin(self.release(release))
    }
    fn note<'a>(&'a self, note: &'a Note) -> BoxFuture<'a, Result<Option<i64>, Refused>> {
        Box::pin(self.note(note))
    }
    fn run<'a>(&'a self, run: &'a RunRequest) -> BoxFuture<'a, Result<Begun, Refused>> {
        Box::pin(self.run(run))
    }
    fn drifted<'a>(&'a self, told: &'a ToolDrifted) -> BoxFuture<'a, Result<(), Refused>> {
        Box::pin(self.drifted(told))
    }
    fn cancel<'a>(&'a self, wish: &'a CancelRequest) -> BoxFuture<'a, Result<(), Refused>> {
        Box::pin(self.cancel(wish))
    }
    fn cancels<'a>(&'a self, request: &'a CancelsRequest) -> BoxFuture<'a, Result<Cancels, Refused>> {
        Box::pin(self.cancels(request))
    }
    fn attempt<'a>(&'a self, org_uid: &'a str, id: &'a str, wait: Duration) -> BoxFuture<'a, Result<Option<Attempt>, Refused>> {
        Box::pin(self.attempt(org_uid, id, wait))
    }
    fn records<'a>(&'a self, org_uid: &'a str, request: &'a RecordsRequest) -> BoxFuture<'a, Result<Page, Refused>> {
        Box::pin(self.records(org_uid, request))
    }
    fn run_input<'a>(&'a self, id: &'a str, pod: &'a ShimPod) -> BoxFuture<'a, Result<ShimInput, RunError>> {
        Box::pin(self.run_input(id, pod))
    }
    fn run_result<'a>(&'a self, id: &'a str, result: &'a ShimResult) -> BoxFuture<'a, Result<(), RunError>> {
        Box::pin(self.run_result(id, result))
    }
}

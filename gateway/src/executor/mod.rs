//! Runs stored ToolCalls of `http` and `mcp` Tools: looks at each that changes, and at all of them now and then, and takes those that may begin.
//!
//! Every replica looks; the ledger's `begin` lets one have a call. A call that is denied or must wait is core's.

mod call;
mod status;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use polity_runtime::CancellationToken;
use tokio::sync::Semaphore;

use crate::state::Gateway;

/// Calls that one replica runs at once.
const AT_ONCE: usize = 64;
/// How often every call is looked at again: what could not begin for a passing reason may now.
const AGAIN: Duration = Duration::from_secs(5);

/// Namespace and name.
type Key = (String, String);

/// Keys being worked on; each at most once.
type Busy = Arc<Mutex<HashSet<Key>>>;

/// Runs stored calls until cancelled; those that have begun go on in `Gateway::work`.
pub async fn run(gateway: Arc<Gateway>, cancel: CancellationToken) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let busy = Busy::default();
    let mut calls = gateway.calls.subscribe();
    let mut approvals = gateway.approvals.subscribe();
    let mut again = tokio::time::interval(AGAIN);
    again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let keys = tokio::select! {
            () = cancel.cancelled() => return,
            key = calls.next() => vec![key],
            (namespace, name) = approvals.next() => {
                let approval = gateway.approvals.get(&namespace, &name);
                approval.map(|a| (namespace, a.spec.action.call.clone())).into_iter().collect()
            }
            _ = again.tick() => gateway.calls.list().iter().filter_map(|c| Some((c.metadata.namespace.clone()?, c.metadata.name.clone()?))).collect(),
        };
        for key in keys {
            look(&gateway, &slots, &busy, key, &cancel).await;
        }
    }
}

/// Starts work on a call, unless it is worked on or is not the edge's.
async fn look(gateway: &Arc<Gateway>, slots: &Arc<Semaphore>, busy: &Busy, key: Key, cancel: &CancellationToken) {
    let Some(stored) = gateway.calls.get(&key.0, &key.1) else { return };
    let Some(task) = call::eligible(gateway, &stored) else { return };
    if !busy.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone()) {
        return;
    }
    let slot = tokio::select! {
        () = cancel.cancelled() => return,
        slot = slots.clone().acquire_owned() => slot,
    };
    let (gateway, busy) = (gateway.clone(), busy.clone());
    let work = gateway.work.clone();
    work.spawn(async move {
        // Removed even if the work panics, or the call could never be looked at again.
        let _done = Done { busy, key };
        if let Err(error) = task.work(&gateway).await {
            tracing::warn!(
                call = error.call,
                reason = error.problem.reason(),
                message = error.problem.message(),
                "a ToolCall could not be run now; it is looked at again"
            );
        }
        drop(slot);
    });
}

struct Done {
    busy: Busy,
    key: Key,
}

impl Drop for Done {
    fn drop(&mut self) {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

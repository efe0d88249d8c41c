//! Ends what was lost: runs whose Pod is gone or late, holds that lapsed, calls of an edge that never came back.
//! Looks at open attempts only; writes nothing when there are none.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt, api::ListParams};
use polity_api::{ToolCall, names, reasons};
use polity_ledger::{Amounts, Attempt, Outcome, Release, Settle, State};
use polity_runtime::clock::Clock;
use tokio_util::sync::CancellationToken;

use super::runner::{EXECUTOR, Runner};

/// How often to look.
const EVERY: Duration = Duration::from_secs(2);
/// Every so many looks, also look for what has no attempt any more.
const DEEP: u64 = 15;
/// A Pod without an open attempt is left alone for so long, since its `begin` may be under way.
const YOUNG: i64 = 60;

/// Sweeps until told to stop.
pub async fn sweep(runner: Arc<Runner>, client: Client, clock: Arc<dyn Clock>, stop: CancellationToken) {
    let mut looks: u64 = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        looks += 1;
        let open = match runner.gate.ledger.open_attempts().await {
            Ok(open) => open,
            Err(error) => {
                tracing::warn!(%error, "the ledger's open attempts cannot be read");
                continue;
            }
        };
        for attempt in open.iter().filter(|a| a.state == State::Begun) {
            one(&runner, attempt, &clock).await;
        }
        if looks.is_multiple_of(DEEP) {
            deep(&runner, &client, &open, &clock).await;
        }
    }
}

async fn one(runner: &Runner, attempt: &Attempt, clock: &Arc<dyn Clock>) {
    let now = clock.now();
    if attempt.executor == EXECUTOR {
        if let Err(error) = runner.look_after(attempt, now).await {
            tracing::warn!(call = attempt.id, %error, "looking after a run failed");
        }
    } else if now >= attempt.deadline {
        let settle = Settle {
            org: attempt.org.clone(),
            id: attempt.id.clone(),
            used: Amounts::new(),
            last: true,
            outcome: Some(Outcome::Unknown),
            reason: reasons::OUTCOME_UNKNOWN.to_owned(),
            message: format!("{} began this call and did not say how it ended", attempt.executor),
            result: None,
            facts: std::collections::BTreeMap::new(),
            by: names::CORE.to_owned(),
            resolution: false,
        };
        match runner.gate.settle(settle).await {
            Ok(_) => runner.announce(&attempt.id),
            Err(error) => tracing::warn!(call = attempt.id, %error, "settling a lost call failed"),
        }
    }
}

/// Lapses holds, gives back holds whose ToolCall is gone, and removes Pods of calls without an object that will never begin or have ended.
async fn deep(runner: &Runner, client: &Client, open: &[Attempt], clock: &Arc<dyn Clock>) {
    if let Err(error) = runner.gate.ledger.expire(runner.gate.epoch()).await {
        tracing::warn!(%error, "lapsing holds failed");
    }
    let held: Vec<&Attempt> = open.iter().filter(|a| a.state == State::Held).collect();
    if !held.is_empty() {
        let calls: Api<kube::core::PartialObjectMeta<ToolCall>> = Api::all(client.clone());
        match calls.list(&ListParams::default()).await {
            Ok(list) => {
                let alive: BTreeSet<String> = list.iter().filter_map(ResourceExt::uid).collect();
                for attempt in held.into_iter().filter(|a| !alive.contains(&a.id)) {
                    let release = Release {
                        org: attempt.org.clone(),
                        id: attempt.id.clone(),
                        reason: polity_api::reasons::CALL_DELETED.to_owned(),
                        by: names::CORE.to_owned(),
                    };
                    if let Err(error) = runner.gate.release(release).await {
                        tracing::warn!(call = attempt.id, %error, "giving back the hold of a deleted call failed");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "listing ToolCalls failed"),
        }
    }
    let selector = format!("{}={},{}=ToolCall", names::LABEL_MANAGED_BY, names::MANAGED_BY, names::LABEL_KIND);
    let pods: Api<Pod> = Api::all(client.clone());
    let Ok(pods) = pods.list(&ListParams::default().labels(&selector)).await else { return };
    for pod in &pods {
        let Some(id) = pod.labels().get(names::LABEL_NAME) else { continue };
        let age = pod.creation_timestamp().map_or(0, |t| clock.now().duration_since(t.0).as_secs());
        if age > YOUNG && !open.iter().any(|a| &a.id == id) && pod.owner_references().is_empty() {
            runner.delete(&pod.namespace().unwrap_or_default(), id, pod.uid()).await;
        }
    }
}

//! Starts the caches and the controllers, in that order: no controller acts before every cache has its first full list.
//!
//! `wakes` says which change wakes whom. Nothing here writes.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::future::{BoxFuture, FutureExt, join_all};
use kube::{Api, Resource};
use polity_api::names;
use polity_runtime::guarded::Guarded;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::{
    agent, approval,
    context::Context,
    dispatch,
    engine::{
        store::{Change, Store},
        watch::follow,
        workers::run,
    },
    org, policy, role, task, tool, wakes,
};

/// Reconciles at a time, by controller. Orgs write most, the others a status each.
const ORGS: usize = 16;
/// A pass over a call may wait for the ledger or for a Pod to be made.
const CALLS: usize = 16;
const AGENTS: usize = 8;
const OTHERS: usize = 4;
/// How long reconciles in hand may take once the end was asked for.
const GRACE: Duration = Duration::from_secs(5);

/// A change of a kind as it wakes controllers.
type Wake<K> = fn(&Context, &Change<K>);

/// Runs every controller until `shutdown`. Returns when the reconciles in hand have ended.
///
/// # Errors
/// None so far; the caller must treat an end before `shutdown` as a fault.
pub async fn run_controllers(
    ctx: Arc<Context>,
    calls: Arc<dispatch::CallContext>,
    approvals: Arc<approval::ApprovalContext>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let watches = tokio::spawn(join_all(watches(&ctx, &shutdown)).map(drop));
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        () = ctx.cluster.wait_ready() => {}
    }
    tracing::info!(orgs = ctx.cluster.orgs.all().len(), "caches are filled; controllers start");
    let ca = tokio::spawn(follow_ca(ctx.clone(), shutdown.clone()));
    let mut all = controllers(&ctx, &shutdown);
    let queues = &ctx.queues;
    all.push(run("toolcall", queues.calls.clone(), CALLS, move |key| dispatch::reconcile(calls.clone(), key), shutdown.clone()).boxed());
    all.push(
        run("approval", queues.approvals.clone(), AGENTS, move |key| approval::reconcile(approvals.clone(), key), shutdown.clone()).boxed(),
    );
    let ended = join_all(all.into_iter().map(tokio::spawn));
    let stop = async {
        shutdown.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        results = ended => for result in results {
            result?;
        },
        () = stop => tracing::warn!("reconciles did not end in time"),
    }
    for task in [watches, ca] {
        task.abort();
    }
    Ok(())
}

fn controllers(ctx: &Arc<Context>, shutdown: &CancellationToken) -> Vec<BoxFuture<'static, ()>> {
    macro_rules! controller {
        ($name:literal, $queue:ident, $concurrency:expr, $reconcile:path) => {{
            let (ctx, queue) = (ctx.clone(), ctx.queues.$queue.clone());
            run($name, queue, $concurrency, move |key| $reconcile(ctx.clone(), key), shutdown.clone()).boxed()
        }};
    }
    vec![
        controller!("org", orgs, ORGS, org::reconcile),
        controller!("agent", agents, AGENTS, agent::reconcile),
        controller!("role", roles, OTHERS, role::reconcile),
        controller!("tool", tools, OTHERS, tool::reconcile),
        controller!("policy", policies, OTHERS, policy::reconcile),
        controller!("task", tasks, OTHERS, task::reconcile),
    ]
}

fn watches(ctx: &Arc<Context>, shutdown: &CancellationToken) -> Vec<BoxFuture<'static, ()>> {
    let ours = format!("{}={}", names::LABEL_MANAGED_BY, names::MANAGED_BY);
    let workers = format!("{ours},{}=Agent", names::LABEL_KIND);
    let ca = format!("metadata.name={}", names::CA_CONFIGMAP);
    let c = &ctx.cluster;
    let w = Watches { ctx, shutdown };
    vec![
        w.kind(&c.orgs, None, None, wakes::org),
        w.kind(&c.roles, None, None, wakes::role),
        w.kind(&c.policies, None, None, wakes::policy),
        w.kind(&c.agents, None, None, wakes::agent),
        w.kind(&c.tools, None, None, wakes::tool),
        w.kind(&c.tasks, None, None, wakes::task),
        w.kind(&c.calls, None, None, wakes::call),
        w.kind(&c.approvals, None, None, wakes::approval),
        w.kind(&c.namespaces, None, None, wakes::namespace),
        w.kind(&c.pods, Some(&workers), None, wakes::child),
        w.kind(&c.quotas, Some(&ours), None, wakes::quota),
        w.kind(&c.limits, Some(&ours), None, wakes::child),
        w.kind(&c.network, Some(&ours), None, wakes::child),
        w.kind(&c.accounts, Some(&ours), None, wakes::child),
        w.kind(&c.bindings, Some(&ours), None, wakes::child),
        // By name, since core may read no other ConfigMap.
        w.kind(&c.maps, None, Some(&ca), wakes::child),
    ]
}

struct Watches<'a> {
    ctx: &'a Arc<Context>,
    shutdown: &'a CancellationToken,
}

impl Watches<'_> {
    fn kind<K>(&self, store: &Arc<Store<K>>, labels: Option<&str>, fields: Option<&str>, wake: Wake<K>) -> BoxFuture<'static, ()>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
    {
        let api: Api<Guarded<K>> = Api::all(self.ctx.client.clone());
        let (ctx, store, shutdown) = (self.ctx.clone(), store.clone(), self.shutdown.clone());
        let (labels, fields) = (labels.map(str::to_owned), fields.map(str::to_owned));
        async move { follow(api, labels.as_deref(), fields.as_deref(), store, |change| wake(&ctx, &change), shutdown).await }.boxed()
    }
}

/// A new CA certificate goes to every Org.
async fn follow_ca(ctx: Arc<Context>, shutdown: CancellationToken) {
    let mut ca = ctx.ca.clone();
    loop {
        let changed = tokio::select! {
            () = shutdown.cancelled() => return,
            changed = ca.changed() => changed,
        };
        if changed.is_err() {
            // The sender is gone: there will be no new one.
            return;
        }
        for (_, name) in ctx.cluster.orgs.keys() {
            ctx.queues.org(&name);
        }
    }
}

//! `propagation`: from a Policy's change to the first decision by it, in the cache that every edge and core decide by, beside a bare watch client that is
//! shown the same object by the same stand-in for an API server. With 1, 100 and 1,000 Policies in the Org. Each change is decided on before it counts.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use kube::Api;
use kube::api::WatchParams;
use polity_api::Policy;
use polity_api::caller::Caller;
use polity_policy::{Past, Request, Snapshot, Verdict};
use polity_runtime::CancellationToken;
use polity_runtime::cache::Cache;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::admission::organisation;
use crate::report::{Better, Report};
use crate::samples::Samples;
use crate::standin::StandIn;

const REPEATS: usize = 5;
const CHANGES: u32 = 40;
/// Nothing takes so long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one size took, in milliseconds.
#[derive(Default)]
struct Took {
    mean: Samples,
    longest: Samples,
    bare: Samples,
}

/// Runs it.
///
/// # Errors
/// When a change does not arrive, or decides wrongly.
pub fn run() -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut report = Report::new("propagation");
    for policies in [1, 100, 1000] {
        let took = runtime.block_on(measure(policies)).with_context(|| format!("{policies} policies"))?;
        let of = |what: &str| format!("{what}, {policies} policies");
        report.bounded(&of("change to first decision by it: mean"), "ms", &took.mean, 10.0, Better::Lower);
        report.bounded(&of("change to first decision by it: longest"), "ms", &took.longest, 20.0, Better::Lower);
        report.figure(&of("change to a bare watch client: mean"), "ms", &took.bare, Better::Lower);
    }
    Ok(report)
}

async fn measure(policies: usize) -> Result<Took> {
    let server = StandIn::with(organisation::stored(policies));
    let cancel = CancellationToken::new();
    let _ended = cancel.clone().drop_guard();
    let cache = Cache::start(server.client(), &cancel);
    let mut changes = cache.snapshots().changes();
    let mut seen = watching(&server).await?;
    let mut took = Took::default();
    for round in 0..=REPEATS {
        let (mut sum, mut longest, mut bare) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        for n in 0..CHANGES {
            let allows = n % 2 == 0;
            let written = Instant::now();
            server.change(organisation::policy(0, if allows { 100 } else { 50 }));
            let decided = async {
                loop {
                    changes.next().await;
                    if let Ok(view) = cache.snapshots().get(organisation::NAMESPACE)
                        && decide(&view)? == allows
                    {
                        return anyhow::Ok(written.elapsed());
                    }
                }
            };
            let decided = timeout(PATIENCE, decided).await.context("the change does not bind")??;
            let shown = timeout(PATIENCE, seen.recv()).await.context("the change is not shown")?.context("the watch ended")?;
            sum += decided;
            longest = longest.max(decided);
            bare += shown.saturating_duration_since(written);
        }
        // The first round finds cold caches, and the first lists under way.
        if round > 0 {
            took.mean.push(millis(sum) / f64::from(CHANGES));
            took.longest.push(millis(longest));
            took.bare.push(millis(bare) / f64::from(CHANGES));
        }
    }
    Ok(took)
}

/// When the bare client was shown each change.
async fn watching(server: &StandIn) -> Result<mpsc::UnboundedReceiver<Instant>> {
    let api: Api<Policy> = Api::all(server.client());
    let version = api.list(&kube::api::ListParams::default()).await?.metadata.resource_version.context("version")?;
    let stream = api.watch(&WatchParams::default(), &version).await?;
    let (send, receive) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        while let Ok(Some(_event)) = stream.try_next().await {
            if send.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    Ok(receive)
}

/// Whether a call that one version allows and the other denies is allowed.
fn decide(view: &Snapshot) -> Result<bool> {
    let caller = Caller { username: organisation::AGENT.to_owned(), ..Caller::default() };
    let tool = organisation::tool(0);
    let args = json!({"to": "SUPPLIER-7", "amount": 75, "currency": "USD"});
    let request = Request {
        verb: "tool.call",
        tool: &tool,
        tool_org: None,
        args: &args,
        caller: &caller,
        task: None,
        job_space: None,
        context: None,
        id: "",
        approved: &[],
        now: jiff::Timestamp::now(),
        past: Past::Unknown,
    };
    let decision = view.decide(&request);
    match (decision.verdict, decision.reason) {
        (Verdict::Allow, _) => Ok(true),
        (Verdict::Deny, reason) if reason == polity_api::reasons::POLICY_DENIED => Ok(false),
        (_, reason) => bail!("{reason}: {}", decision.message),
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

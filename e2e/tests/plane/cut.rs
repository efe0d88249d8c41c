//! A slow way to the API server, and watches that are cut without a word while all else works: what was forbidden stays forbidden, a view that nobody
//! vouches for decides nothing, neither at an edge nor at core, and both recover by themselves.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use futures::future::try_join;
use polity_api::toolcall::Phase;
use polity_e2e::{
    apply,
    between::Between,
    chaos, ledger, org_name,
    parts::{Addresses, Part, Polity},
    shim::Shim,
    until,
};
use serde_json::{Value, json};

use crate::{
    calls::phase,
    fixtures::{self, SOON},
    help::{self, Robot},
};

/// More than the 30 seconds that a view may live on without a word of the API server, by what a busy machine may lose on the way.
const STALE: Duration = Duration::from_secs(60);

/// Core and one more edge reach the API server over ways that are made slow, then cut for watches alone, then whole again.
pub async fn watches_are_cut_silently(polity: &mut Polity) -> Result<()> {
    let (of_core, of_edge) = (Rc::new(Between::to(&polity.cluster).await?), Rc::new(Between::to(&polity.cluster).await?));
    let dir = polity.dir.join("edge-cut");
    std::fs::create_dir_all(&dir)?;
    let addresses = Addresses { internal: polity.addresses.internal, ..Addresses::choose()? };
    let mut second = Part::edge(&polity.cluster, &dir, &addresses).await?;
    second.set("POLITY_POD_NAME", "polity-edge-1");
    second.set("KUBECONFIG", &of_edge.kubeconfig(&dir.join("edge.kubeconfig"))?.display().to_string());
    second.start()?;
    let direct = polity.dir.join("core.kubeconfig");
    polity.core.set("KUBECONFIG", &of_core.kubeconfig(&direct)?.display().to_string());
    chaos::reborn(&polity.cluster, &mut polity.core, None).await?;
    let ways = (of_core.clone(), of_edge.clone());
    let result = async {
        polity.core.ready().await?;
        second.ready().await?;
        let base = format!("https://127.0.0.1:{}", addresses.gateway);
        chaos::mended(polity, |p| Box::pin(cut(p, base, of_core, of_edge))).await
    };
    let result = result.await;
    second.kill()?;
    polity.core.set("KUBECONFIG", &direct.display().to_string());
    chaos::reborn(&polity.cluster, &mut polity.core, None).await?;
    polity.core.ready().await?;
    drop(ways);
    result
}

async fn cut(polity: &mut Polity, base: String, of_core: Rc<Between>, of_edge: Rc<Between>) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let (closing, open) = (org_name("cut"), org_name("uncut"));
    fixtures::organisation(&admin, &closing).await?;
    fixtures::organisation(&admin, &open).await?;
    let near = help::robot(polity, &open).await?;
    let far = help::robot(polity, &closing).await?.at(base);
    let pay = |to: &str| json!({"tool": "pay", "input": {"amount": 20, "to": to}, "waitSeconds": 0});
    until(SOON, "the second edge begins a call", || async { says(&far, &closing, pay("ann"), 202, "").await }).await?;

    // Slow, and both still right; slower than anybody waits for who a token is: refused, whatever is asked.
    of_core.slow(Duration::from_millis(300));
    of_edge.slow(Duration::from_secs(1));
    until(SOON, "slow and allowed", || async { says(&far, &closing, pay("ann"), 202, "").await }).await?;
    until(SOON, "slow and denied", || async { says(&far, &closing, pay("mallory"), 403, "PolicyDenied").await }).await?;
    of_edge.slow(Duration::from_secs(7));
    let fresh = help::token(polity, &closing, "polity-agent-robot", &far.pod, "polity").await?;
    let (code, body) = far.call_with(&closing, pay("ann"), Some(&fresh)).await?;
    ensure!(code == 503 && body["reason"] == "Unavailable", "nobody knows who asks: {code} {body}");
    of_core.slow(Duration::ZERO);
    of_edge.slow(Duration::ZERO);
    until(SOON, "both views are fresh", || async {
        if polity.core.answers_ready().await { says(&far, &closing, pay("ann"), 202, "").await } else { Err("core is not".to_owned()) }
    })
    .await?;

    of_core.cut();
    of_edge.cut();
    let since = Instant::now();
    apply(&admin, &crate::admission::policy(&closing, "closed", "args.amount > 1000")).await?;
    // Neither has heard of the new Policy. The edge says so itself as soon as its own view is too old; an edge that hears everything is told by core.
    let allowed = Cell::new(Duration::ZERO);
    let edge = until(STALE * 2, "a view that nobody vouches for denies", || async {
        let asked = since.elapsed();
        let said = says(&far, &closing, pay("ann"), 503, "PolicyStale").await;
        if said.as_ref().is_err_and(|said| said.starts_with("202")) {
            allowed.set(asked);
        }
        said
    });
    let core =
        until(STALE * 2, "core begins nothing by such a view", || async { says(&near, &open, pay("ann"), 503, "StaleSnapshot").await });
    try_join(edge, core).await?;
    ensure!(allowed.get() < STALE, "allowed {:?} after the last word of the API server", allowed.get());
    ensure!(polity.core.running() && !polity.core.answers_ready().await, "core must live, and not be ready");

    of_core.restore();
    of_edge.restore();
    until(SOON, "the new Policy binds", || async {
        let said = says(&far, &closing, pay("ann"), 403, "PolicyDenied").await;
        // An old view that comes to life again would be seen here.
        match said {
            Err(said) if said.starts_with("202") => Ok(Err(said)),
            other => other.map(Ok),
        }
    })
    .await?
    .map_err(|said| anyhow::anyhow!("allowed by a view that was stale: {said}"))?;
    until(SOON, "core begins calls again", || async { says(&near, &open, pay("ann"), 202, "").await }).await?;
    polity.core.ready().await?;
    // Core's controllers hear again too.
    let (name, id) = help::made(&help::bot(polity, &open).await?, &help::small()).await?;
    Shim::new(polity, SOON).play(&open, &id, 0, "{}").await?;
    phase(&admin, &open, &name, Phase::Succeeded).await?;
    ledger::check(&polity.dir.join("data")).map(drop)
}

/// Whether a call is answered with this code and reason (none: any); the error begins with the code.
async fn says(robot: &Robot, org: &str, body: Value, code: u16, reason: &str) -> Result<(), String> {
    let (got, body) = robot.call(org, body).await.map_err(|e| format!("{e:#}"))?;
    if got == code && (reason.is_empty() || body["reason"] == reason) { Ok(()) } else { Err(format!("{got} {body}")) }
}

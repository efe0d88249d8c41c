//! Core with its ledger in Postgres: calls begin and settle there, nothing begins while the server is away, and all goes on by itself once
//! it is back.

use anyhow::{Result, ensure};
use kube::ResourceExt;
use kube::api::PostParams;
use polity_api::toolcall::Phase;
use polity_e2e::{chaos, org_name, parts::Polity, shim, until};
use serde_json::json;

use crate::{
    calls::phase,
    fixtures::{self, SOON},
    help, records,
};

#[path = "../../../crates/ledger/tests/postgres/server.rs"]
#[allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// shared with the ledger's tests, which use all of it
mod server;

const URL: &str = "POLITY_LEDGER_POSTGRES_URL";

/// Core on a server of its own, which is killed and comes back.
pub async fn keeps_the_ledger(polity: &mut Polity) -> Result<()> {
    let result = chaos::mended(polity, |p| Box::pin(on_a_server(p))).await;
    polity.core.kill()?;
    polity.core.unset(URL);
    chaos::reborn(&polity.cluster, &mut polity.core, None).await?;
    polity.core.ready().await?;
    result
}

async fn on_a_server(polity: &mut Polity) -> Result<()> {
    let mut server = tokio::task::spawn_blocking(server::Server::start).await?;
    let made = server.psql("CREATE SCHEMA polity")?;
    ensure!(made.status.success(), "{made:?}");
    polity.core.kill()?;
    polity.core.set(URL, &server.url("polity"));
    chaos::reborn(&polity.cluster, &mut polity.core, None).await?;
    polity.core.ready().await?;
    polity.edge.ready().await?;

    let admin = polity.cluster.admin().await?;
    let org = org_name("server");
    fixtures::organisation(&admin, &org).await?;
    let (calls, robot) = (help::bot(polity, &org).await?, help::robot(polity, &org).await?);
    help::takes(&calls, &help::small()).await?;
    let (first, id) = help::made(&calls, &help::small()).await?;
    shim::play(polity, &org, &id, 0, "{}").await?;
    phase(&admin, &org, &first, Phase::Succeeded).await?;

    server.kill();
    let ask = json!({"tool": "pay", "input": {"amount": 20, "to": "ann"}, "waitSeconds": 0});
    until(SOON, "nothing begins without the server", || async {
        let (code, body) = robot.call(&org, ask.clone()).await.map_err(|e| e.to_string())?;
        if code == 503 && body["reason"] == "LedgerUnavailable" { Ok(()) } else { Err(format!("{code} {body}")) }
    })
    .await?;
    ensure!(polity.core.running(), "core ended with its server:\n{}", polity.core.log_tail());
    let server = tokio::task::spawn_blocking(move || {
        server.up(&[]);
        server
    })
    .await?;
    until(SOON, "calls begin again", || async {
        let (code, body) = robot.call(&org, ask.clone()).await.map_err(|e| e.to_string())?;
        if code == 202 && body["phase"] == "Running" { Ok(()) } else { Err(format!("{code} {body}")) }
    })
    .await?;
    let second =
        until(SOON, "a call is taken", || async { calls.create(&PostParams::default(), &help::small()).await.map_err(|e| e.to_string()) })
            .await?;
    shim::play(polity, &org, &second.uid().unwrap_or_default(), 0, "{}").await?;
    phase(&admin, &org, &second.name_any(), Phase::Succeeded).await?;

    // Read through the edge, and offline from what was exported there.
    let token = records::auditor(polity, &org).await?;
    let (whole, said) = records::audit(polity, &org, &token, &["verify"])?;
    ensure!(whole, "{said}");
    let (exported, lines) = records::audit(polity, &org, &token, &["export"])?;
    ensure!(exported && lines.matches(r#""kind":"begin""#).count() >= 3, "{lines}");
    let kept = server.psql("SELECT count(*) FROM polity.records WHERE text LIKE '%\"kind\":\"begin\"%'")?;
    let kept: usize = String::from_utf8_lossy(&kept.stdout).trim().parse()?;
    ensure!(kept >= 3, "{kept} starts in Postgres");
    Ok(())
}

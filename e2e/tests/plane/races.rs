//! Two cores at once, and parts killed at any moment while callers ask: only one core acts, nothing forbidden runs, nothing runs twice,
//! nothing is spent beyond a budget, and every call ends as what happened.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::future::{join, try_join_all};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{ListParams, PostParams},
};
use polity_api::{ToolCall, toolcall::Phase};
use polity_e2e::{
    Cluster, chaos, ledger, org_name,
    parts::{Addresses, Part, Polity},
    shim::{self, Shim},
    until,
};
use serde_json::json;

use crate::{
    calls::{call, phase},
    fixtures, help,
};

/// A second core waits for the ledger's lock, one with a ledger of its own for the lease; the first killed, the second takes over, with a
/// higher epoch, in the time that the lease lasts.
pub async fn two_cores(polity: &mut Polity) -> Result<()> {
    chaos::mended(polity, |p| Box::pin(both(p))).await
}

async fn both(polity: &mut Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("twins");
    fixtures::organisation(&admin, &org).await?;
    let bot = help::bot(polity, &org).await?;
    let shim = Shim::new(polity, fixtures::SOON);
    let (holder, epoch) = chaos::lease(&polity.cluster).await?;

    let mut stranger = second(polity, "stranger", false).await?;
    let mut twin = second(polity, "twin", true).await?;
    stranger.start()?;
    twin.start()?;
    until(fixtures::SOON, "the twin waits for the lock", || async {
        if twin.log().contains("another core holds the ledger") { Ok(()) } else { Err(twin.log_tail()) }
    })
    .await?;
    // Longer than the lease lasts: meanwhile calls go through the first, and neither of the others gets ready.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(18) {
        let (name, id) = help::made(&bot, &help::small()).await?;
        shim.play(&org, &id, 0, "{}").await?;
        phase(&admin, &org, &name, Phase::Succeeded).await?;
        ensure!(chaos::lease(&polity.cluster).await? == (holder.clone(), epoch), "the lease changed hands");
    }
    for (name, part) in [("stranger", &mut stranger), ("twin", &mut twin)] {
        ensure!(part.running(), "{name} ended:\n{}", part.log_tail());
        ensure!(!part.log().contains("lease acquired") && !part.answers_ready().await, "{name} acts:\n{}", part.log_tail());
    }
    stranger.kill()?;

    let (name, id) = help::made(&bot, &help::small()).await?;
    polity.core.kill()?;
    let died = Instant::now();
    until(fixtures::SOON, "the second core acts", || async {
        if twin.answers_ready().await { Ok(()) } else { Err("not ready".to_owned()) }
    })
    .await?;
    // The lease lasts 15 s; the rest is for a busy machine to get ready in.
    ensure!(died.elapsed() < Duration::from_secs(40), "took over after {:?}", died.elapsed());
    let (now, higher) = chaos::lease(&polity.cluster).await?;
    ensure!(now != holder && higher > epoch, "epoch {epoch}, then {higher}");
    // What was asked of the first is done by the second, once.
    shim.play(&org, &id, 0, "{}").await?;
    phase(&admin, &org, &name, Phase::Succeeded).await?;
    twin.kill()?;
    ledger::check(&polity.dir.join("data")).map(drop)
}

/// Another core with ports of its own, and the first one's ledger or its own.
async fn second(polity: &Polity, name: &str, same_ledger: bool) -> Result<Part> {
    let dir = polity.dir.join(name);
    std::fs::create_dir_all(dir.join("data"))?;
    let (ours, mut addresses) = (&polity.addresses, Addresses::choose()?);
    addresses.gateway = ours.gateway;
    // Only who holds the lease listens here, where the edge looks for core.
    addresses.internal = ours.internal;
    let mut part = Part::core(&polity.cluster, &dir, &addresses).await?;
    if same_ledger {
        part.set("POLITY_DATA_DIR", &polity.dir.join("data").display().to_string());
    }
    Ok(part)
}

/// Calls that may start in one of the Orgs, and are asked for many times more.
const BUDGET: usize = 8;

/// Parts killed at random for a while.
pub async fn chaos(polity: &mut Polity) -> Result<()> {
    chaos::mended(polity, |p| Box::pin(storms(p))).await
}

/// Longest time in the same Orgs: a namespace's quota of calls must not end it.
const ROUND: u64 = 30;

async fn storms(polity: &mut Polity) -> Result<()> {
    let number = |name: &str| std::env::var(name).ok().map(|s| s.parse::<u64>()).transpose().with_context(|| name.to_owned());
    let mut left = number("POLITY_E2E_CHAOS_SECONDS")?.unwrap_or(15);
    let seed = number("POLITY_E2E_CHAOS_SEED")?.unwrap_or_else(|| u64::from(std::process::id()));
    println!("chaos for {left} s with POLITY_E2E_CHAOS_SEED={seed}");
    let mut dice = chaos::Dice::new(seed);
    while left > 0 {
        let seconds = left.min(ROUND);
        storm(polity, seconds, &mut dice).await?;
        left -= seconds;
    }
    Ok(())
}

/// One call that a caller asked for until it was stored.
struct Asked {
    org: usize,
    name: String,
    id: String,
    key: String,
}

async fn storm(polity: &mut Polity, seconds: u64, dice: &mut chaos::Dice) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let orgs: Vec<(String, String)> = try_join_all((0..3).map(|i| {
        let admin = admin.clone();
        async move {
            let name = org_name(&format!("storm{i}"));
            let uid = fixtures::organisation(&admin, &name).await?;
            anyhow::Ok((name, uid))
        }
    }))
    .await?;
    let limit = json!({"spec": {"budget": [{"window": "24h", "calls": BUDGET, "usd": "1000"}]}});
    help::patch(&admin, "Org", None, &orgs[2].0, limit).await??;
    for (name, _) in &orgs {
        help::takes(&help::bot(polity, name).await?, &help::small()).await?;
    }
    // The limit must be in force before the first call, or calls begun before it count on nothing.
    let orgs_api: Api<polity_api::Org> = Api::all(admin.clone());
    until(fixtures::SOON, "the budget is seen", || async {
        let org = orgs_api.get(&orgs[2].0).await.map_err(|e| e.to_string())?;
        let seen = org.status.as_ref().map_or(0, |s| s.observed_generation);
        if Some(seen) == org.metadata.generation { Ok(()) } else { Err(format!("generation {seen} seen")) }
    })
    .await?;

    let over = AtomicBool::new(false);
    let asked = Mutex::new(Vec::new());
    let posted = Mutex::new(BTreeMap::new());
    let cluster = polity.cluster.clone();
    let shim = Shim::new(polity, fixtures::SOON);
    let callers = try_join_all(orgs.iter().enumerate().map(|(i, (name, _))| caller(&cluster, i, name, &over, &asked)));
    let work = async {
        let asking = callers.await;
        over.store(true, Ordering::Relaxed);
        asking
    };
    let players = try_join_all(orgs.iter().map(|(name, _)| players(&cluster, &shim, name, &over, &posted)));
    let killer = async {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(seconds) {
            let pause = Duration::from_millis(300 + dice.roll(2500));
            tokio::time::sleep(pause).await;
            if dice.roll(3) == 0 {
                polity.edge.kill()?;
                tokio::time::sleep(Duration::from_millis(dice.roll(500))).await;
                polity.edge.start()?;
            } else {
                chaos::reborn(&polity.cluster, &mut polity.core, None).await?;
            }
        }
        polity.core.ready().await?;
        polity.edge.ready().await?;
        over.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    let (killed, (asking, playing)) = join(killer, join(work, players)).await;
    killed.context("killing")?;
    asking.context("asking")?;
    playing.context("playing shims")?;
    let asked = asked.into_inner().unwrap_or_else(PoisonError::into_inner);
    let posted = posted.into_inner().unwrap_or_else(PoisonError::into_inner);
    settled(polity, &orgs, &asked, &posted).await
}

/// Asks until told to stop: allowed calls with a key, each asked again with the same key when the answer was lost; and forbidden ones, which
/// are never taken.
async fn caller(cluster: &Cluster, org: usize, name: &str, over: &AtomicBool, asked: &Mutex<Vec<Asked>>) -> Result<()> {
    let bot: Api<ToolCall> = Api::namespaced(cluster.user(&format!("bot@{name}"), &[]).await?, name);
    while !over.load(Ordering::Relaxed) {
        let mut call = call(20, "ann");
        let key = uuid::Uuid::new_v4().to_string();
        call.spec.idempotency_key = Some(key.clone());
        // Twice the same on purpose: the second shows what the first did.
        for _ in 0..2 {
            let stored = until(fixtures::SOON, "the call is taken", || async {
                // Whatever the refusal says, a retry must mend it.
                bot.create(&PostParams::default(), &call).await.map_err(|e| e.to_string())
            })
            .await?;
            let (name, id) = (stored.name_any(), stored.uid().context("uid")?);
            asked.lock().unwrap_or_else(PoisonError::into_inner).push(Asked { org, name, id, key: key.clone() });
        }
        let mut forbidden = help::small();
        forbidden.spec.input = json!({"amount": 1, "to": "mallory"}).as_object().cloned();
        let answer = bot.create(&PostParams::default(), &forbidden).await;
        ensure!(answer.is_err(), "a forbidden call was taken: {answer:?}");
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    Ok(())
}

/// Plays every tool's Pod of an Org, until nothing is asked any more and nothing runs.
async fn players(cluster: &Cluster, shim: &Shim, org: &str, over: &AtomicBool, posted: &Mutex<BTreeMap<String, usize>>) -> Result<()> {
    let admin = cluster.admin().await?;
    let (pods, calls): (Api<Pod>, Api<ToolCall>) = (Api::namespaced(admin.clone(), org), Api::namespaced(admin, org));
    let mut done = BTreeSet::new();
    let mut since = None;
    loop {
        let found = pods.list(&ListParams::default()).await?;
        let ready = found.iter().filter(|p| {
            p.spec.as_ref().is_none_or(|s| s.scheduling_gates.as_ref().is_none_or(Vec::is_empty)) && p.metadata.deletion_timestamp.is_none()
        });
        let ids: Vec<String> =
            ready.filter_map(|p| p.name_any().strip_prefix("call-").map(str::to_owned)).filter(|id| !done.contains(id)).collect();
        try_join_all(ids.iter().map(|id| async move {
            let receipt = json!({"receipt": id}).to_string();
            shim.play(org, id, 0, &receipt).await?;
            *posted.lock().unwrap_or_else(PoisonError::into_inner).entry(id.clone()).or_default() += 1;
            anyhow::Ok(())
        }))
        .await?;
        done.extend(ids);
        if over.load(Ordering::Relaxed) {
            let open = calls
                .list(&ListParams::default())
                .await?
                .iter()
                .filter(|c| !c.status.as_ref().and_then(|s| s.phase).is_some_and(Phase::ended))
                .count();
            if open == 0 {
                return Ok(());
            }
            let since = since.get_or_insert_with(Instant::now);
            ensure!(since.elapsed() < fixtures::SOON, "{open} calls of {org} do not end");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What must be true after it.
async fn settled(polity: &Polity, orgs: &[(String, String)], asked: &[Asked], posted: &BTreeMap<String, usize>) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let data = polity.dir.join("data");
    ledger::check(&data)?;
    let mut tally: BTreeMap<String, usize> = BTreeMap::new();
    for (i, (name, uid)) in orgs.iter().enumerate() {
        let records = help::lines(polity, uid, None)?;
        let begun: Vec<&str> = records.iter().filter(|r| r["kind"] == "begin").filter_map(|r| r["action"].as_str()).collect();
        if i == 2 {
            ensure!(begun.len() <= BUDGET, "{} of {BUDGET} began in {name}", begun.len());
        }
        let calls = Api::<ToolCall>::namespaced(admin.clone(), name).list(&ListParams::default()).await?;
        let mut stored = BTreeMap::new();
        for call in &calls {
            let to = call.spec.input.as_ref().and_then(|i| i.get("to")).and_then(|v| v.as_str());
            ensure!(to != Some("mallory"), "a forbidden call is stored in {name}");
            stored.insert(call.uid().unwrap_or_default(), call);
        }
        let mine: Vec<&Asked> = asked.iter().filter(|a| a.org == i).collect();
        let mut keys: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (id, call) in &stored {
            // Also those whose create was answered with an error, and yet were stored.
            keys.entry(call.spec.idempotency_key.as_deref().unwrap_or_default()).or_default().push(id.as_str());
        }
        for made in &mine {
            let call = stored.get(&made.id).with_context(|| format!("{} is gone", made.name))?;
            ensure!(call.spec.idempotency_key.as_deref() == Some(&made.key), "{} has another key", made.name);
            let status = call.status.clone().unwrap_or_default();
            let ended = status.phase.context("phase")?;
            *tally.entry(format!("{ended:?}")).or_default() += 1;
            let receipt = status.result.as_ref().and_then(|r| r.output.as_ref()).and_then(|o| o["receipt"].as_str()).map(str::to_owned);
            let same = &keys[made.key.as_str()];
            match ended {
                Phase::Succeeded => {
                    let receipt = receipt.with_context(|| format!("{} succeeded without result", made.name))?;
                    ensure!(same.contains(&receipt.as_str()), "{} shows another call's result", made.name);
                    ensure!(posted.contains_key(&receipt) && begun.contains(&receipt.as_str()), "{} never ran", made.name);
                }
                Phase::Denied => {
                    ensure!(i == 2 && help::reason(call) == "BudgetExceeded", "{} in {name}: {:?}", made.name, status.decision);
                    ensure!(!begun.contains(&made.id.as_str()), "{} was denied and ran", made.name);
                }
                other => anyhow::bail!("{} in {name} ended {other:?}: {status:?}", made.name),
            }
        }
        for (key, ids) in &keys {
            let ran = ids.iter().filter(|id| begun.contains(id)).count();
            ensure!(ran <= 1, "key {key} ran {ran} times in {name}");
        }
        for id in posted.keys().filter(|id| stored.contains_key(*id)) {
            ensure!(begun.contains(&id.as_str()), "{id} ran without begin");
        }
    }
    println!("chaos: {} asked, {} ran, {tally:?}", asked.len(), posted.len());
    ensure!(tally.get("Succeeded").is_some_and(|n| *n > 0), "nothing ran: {tally:?}");
    // The edge answers as before.
    ensure!(shim::client()?.get(format!("{}/openapi.json", polity.gateway())).send().await.is_ok(), "the gateway is away");
    Ok(())
}

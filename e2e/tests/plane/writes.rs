//! What Polity writes to the API server, as the API server's own audit log has it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use polity_api::toolcall::Phase;
use polity_e2e::{
    apply,
    audit::{self, Write},
    org_name,
    parts::Polity,
    shim, until,
};

use crate::{
    calls::{call, phase},
    fixtures::{self, SOON},
    help,
};

fn mine(polity: &Polity, from: u64, org: &str) -> Result<Vec<Write>> {
    let writes = audit::of_polity(audit::writes(&polity.cluster, from)?);
    Ok(writes.into_iter().filter(|w| w.namespace == org || (w.namespace.is_empty() && w.name == org)).collect())
}

fn shown(writes: &[Write]) -> String {
    let mut tally: BTreeMap<String, usize> = BTreeMap::new();
    for write in writes {
        *tally.entry(format!("{} {} {} {}", write.verb, write.resource, write.name, write.code)).or_default() += 1;
    }
    format!("{tally:#?}")
}

/// Waits until the log has grown no writes for this Org for a while, since the log is written a little later than the answer is given.
async fn quiet(polity: &Polity, from: u64, org: &str) -> Result<Vec<Write>> {
    settled(|| mine(polity, from, org)).await
}

/// Waits until what `look` finds has not grown for a while.
async fn settled(look: impl Fn() -> Result<Vec<Write>>) -> Result<Vec<Write>> {
    let (mut since, mut count) = (Instant::now(), 0);
    until(SOON * 2, "no more writes", || {
        let now = look();
        if let Ok(now) = &now
            && now.len() != count
        {
            (since, count) = (Instant::now(), now.len());
        }
        let still = since.elapsed() > Duration::from_secs(3);
        async move { now.map_err(|e| e.to_string()).and_then(|now| if still { Ok(now) } else { Err(shown(&now)) }) }
    })
    .await
}

/// A new Org: a write for each object that is made for it, and two more.
pub async fn of_a_new_org(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("counted");
    let from = audit::position(&polity.cluster)?;
    let document = fixtures::manifests(&org);
    apply(&admin, document.split("---").next().unwrap_or_default()).await?;
    fixtures::ready(&admin, &org).await?;
    let writes = quiet(polity, from, &org).await?;
    let on_org = writes.iter().filter(|w| w.resource.starts_with("orgs")).count();
    ensure!(on_org <= 2, "{on_org} writes on the Org itself: {}", shown(&writes));
    let mut made: Vec<String> =
        writes.iter().filter(|w| !w.resource.starts_with("orgs")).map(|w| format!("{}/{}", w.resource, w.name)).collect();
    let all = made.len();
    made.sort();
    made.dedup();
    ensure!(all == made.len() && !made.is_empty(), "an object was written twice: {}", shown(&writes));
    ensure!(writes.iter().all(|w| w.code < 300), "a write failed: {}", shown(&writes));
    Ok(())
}

/// A container call: two status writes after its create, three when it waits for people; one Pod made, let start and deleted. A call that is allowed makes no
/// Event; an Approval that is asked for makes one.
pub async fn of_a_call(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("percall");
    fixtures::organisation(&admin, &org).await?;
    let calls = help::bot(polity, &org).await?;
    help::takes(&calls, &help::small()).await?;
    quiet(polity, audit::position(&polity.cluster)?, &org).await?;
    let from = audit::position(&polity.cluster)?;
    let (name, id) = help::made(&calls, &help::small()).await?;
    shim::play(polity, &org, &id, 0, "{}").await?;
    phase(&admin, &org, &name, Phase::Succeeded).await?;
    let writes = quiet(polity, from, &org).await?;
    let on_call = writes.iter().filter(|w| w.resource.starts_with("toolcalls")).count();
    let on_pods = writes.iter().filter(|w| w.resource.starts_with("pods")).count();
    ensure!(on_call <= 2 && on_pods <= 3 && writes.len() == on_call + on_pods, "{}", shown(&writes));

    let from = audit::position(&polity.cluster)?;
    let (name, id) = help::made(&calls, &call(200, "ann")).await?;
    let waiting = phase(&admin, &org, &name, Phase::WaitingApproval).await?;
    let approval = waiting.status.and_then(|s| s.approval).unwrap_or_default();
    help::decides(polity, &org, &approval, &format!("boss@{org}"), "Approve").await??;
    shim::play(polity, &org, &id, 0, "{}").await?;
    phase(&admin, &org, &name, Phase::Succeeded).await?;
    let writes = quiet(polity, from, &org).await?;
    let on_call = writes.iter().filter(|w| w.resource.starts_with("toolcalls")).count();
    let told = writes.iter().filter(|w| w.resource == "events").count();
    ensure!(on_call <= 3 && told == 1, "{}", shown(&writes));
    Ok(())
}

/// Calls and Pods of other tests may still end by their deadlines; definitions of any Org and everything of this one are at rest.
fn ends(write: &Write, org: &str) -> bool {
    write.namespace != org && ["toolcalls", "pods", "approvals", "events"].iter().any(|kind| write.resource.starts_with(kind))
}

/// At rest, with a call that waits and one that runs, nothing is written for ten seconds.
pub async fn none_at_rest(polity: &mut Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("rest");
    fixtures::organisation(&admin, &org).await?;
    help::robot(polity, &org).await?;
    let calls = help::bot(polity, &org).await?;
    help::takes(&calls, &help::small()).await?;
    let (waits, _) = help::made(&calls, &call(200, "ann")).await?;
    phase(&admin, &org, &waits, Phase::WaitingApproval).await?;
    let (runs, _) = help::made(&calls, &help::small()).await?;
    phase(&admin, &org, &runs, Phase::Running).await?;
    // What earlier tests have left may still be under way, such as an Org that is being deleted.
    let from = audit::position(&polity.cluster)?;
    settled(|| Ok(audit::of_polity(audit::writes(&polity.cluster, from)?).into_iter().filter(|w| !ends(w, &org)).collect())).await?;
    let (from, start) = (audit::position(&polity.cluster)?, Instant::now());
    until(Duration::from_secs(20), "ten seconds without a write", || async {
        let all = audit::of_polity(audit::writes(&polity.cluster, from).map_err(|e| e.to_string())?);
        let writes: Vec<Write> = all.into_iter().filter(|w| !ends(w, &org)).collect();
        if !writes.is_empty() {
            return Ok(Some(shown(&writes)));
        }
        if start.elapsed() > Duration::from_secs(10) { Ok(None) } else { Err("not ten seconds yet".to_owned()) }
    })
    .await?
    .map_or(Ok(()), |writes| Err(anyhow::anyhow!("written at rest: {writes}")))
}

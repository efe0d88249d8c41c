//! Budgets as the ledger enforces them, asked for through the API server and through the gateway.

use anyhow::{Context, Result, ensure};
use futures::future::{join_all, try_join_all};
use kube::{
    Api, ResourceExt,
    api::{ListParams, PostParams},
};
use polity_api::{ToolCall, toolcall::Phase};
use polity_e2e::{org_name, parts::Polity, until};
use serde_json::{Value, json};

use crate::{
    calls::{call, phase},
    fixtures::{self, SOON},
    help,
};

const DECIDED: [Phase; 2] = [Phase::Running, Phase::Denied];

async fn budget(polity: &Polity, org: &str, budget: Value) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    help::patch(&admin, "Org", None, org, json!({"spec": {"budget": [budget]}})).await??;
    // In force when the Org has been seen with it.
    let orgs: Api<polity_api::Org> = Api::all(admin);
    until(SOON, "the budget is seen", || async {
        let org = orgs.get(org).await.map_err(|e| e.to_string())?;
        let seen = org.status.as_ref().map(|s| s.observed_generation) == org.metadata.generation;
        if seen { Ok(()) } else { Err(format!("{:?}", org.status)) }
    })
    .await
}

/// Five calls fit; the sixth is denied, durably, and says whose budget it was.
pub async fn the_sixth_of_five_is_denied(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("five");
    let uid = fixtures::organisation(&admin, &org).await?;
    budget(polity, &org, json!({"window": "24h", "calls": 5})).await?;
    let calls = help::bot(polity, &org).await?;
    help::takes(&calls, &help::small()).await?;
    for n in 0..5 {
        let (name, _) = help::made(&calls, &call(20 + n, "ann")).await?;
        phase(&admin, &org, &name, Phase::Running).await?;
    }
    let (name, id) = help::made(&calls, &help::small()).await?;
    let denied = phase(&admin, &org, &name, Phase::Denied).await?;
    let decision = denied.status.and_then(|s| s.decision).context("decision")?;
    ensure!(decision.reason == "BudgetExceeded" && decision.message.contains(&org), "{decision:?}");
    let lines = help::lines(polity, &uid, Some(&id))?;
    ensure!(help::kinds(&lines) == ["decision"] && lines[0].to_string().contains("BudgetExceeded"), "{lines:?}");
    let pods = Api::<k8s_openapi::api::core::v1::Pod>::namespaced(admin, &org);
    until(SOON, "the denied call has no Pod", || async {
        pods.get_opt(&format!("call-{id}")).await.map_err(|e| e.to_string())?.map_or(Ok(()), |_| Err("there".to_owned()))
    })
    .await
}

/// Money: two calls of 0.10 fit into 0.25, a third does not; one that never began gives its reservation back.
pub async fn money_is_reserved_and_given_back(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("money");
    fixtures::organisation(&admin, &org).await?;
    budget(polity, &org, json!({"window": "24h", "usd": "0.25"})).await?;
    let calls = help::bot(polity, &org).await?;
    help::takes(&calls, &help::small()).await?;
    let (one, _) = help::made(&calls, &help::small()).await?;
    phase(&admin, &org, &one, Phase::Running).await?;
    // Waiting reserves too.
    let (waits, _) = help::made(&calls, &call(200, "ann")).await?;
    phase(&admin, &org, &waits, Phase::WaitingApproval).await?;
    let (third, _) = help::made(&calls, &help::small()).await?;
    ensure!(help::reason(&help::one_of(&admin, &org, &third, &DECIDED).await?) == "BudgetExceeded");
    help::patch(&admin, "ToolCall", Some(&org), &waits, json!({"spec": {"cancel": true}})).await??;
    phase(&admin, &org, &waits, Phase::Canceled).await?;
    let (fourth, _) = help::made(&calls, &help::small()).await?;
    phase(&admin, &org, &fourth, Phase::Running).await?;
    let (fifth, _) = help::made(&calls, &help::small()).await?;
    ensure!(help::reason(&help::one_of(&admin, &org, &fifth, &DECIDED).await?) == "BudgetExceeded");
    Ok(())
}

/// A parent's budget is spent by the child as well, whatever the child's own says.
pub async fn a_parents_budget_binds_its_child(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let parent = org_name("purse");
    let below = format!("{parent}-kid");
    fixtures::organisation(&admin, &parent).await?;
    fixtures::unit(&admin, &below, &parent).await?;
    budget(polity, &parent, json!({"window": "24h", "calls": 2})).await?;
    budget(polity, &below, json!({"window": "24h", "calls": 100})).await?;
    let (above, kid) = (help::bot(polity, &parent).await?, help::bot(polity, &below).await?);
    help::takes(&above, &help::small()).await?;
    help::takes(&kid, &help::small()).await?;
    let (one, _) = help::made(&above, &help::small()).await?;
    phase(&admin, &parent, &one, Phase::Running).await?;
    let (two, _) = help::made(&kid, &help::small()).await?;
    phase(&admin, &below, &two, Phase::Running).await?;
    for (api, org) in [(&kid, &below), (&above, &parent)] {
        let (name, _) = help::made(api, &help::small()).await?;
        let denied = phase(&admin, org, &name, Phase::Denied).await?;
        let decision = denied.status.and_then(|s| s.decision).context("decision")?;
        ensure!(decision.reason == "BudgetExceeded" && decision.message.contains(&parent), "{decision:?}");
    }
    Ok(())
}

/// Thirty racing calls on a budget of ten: exactly ten begin.
pub async fn racing_calls_begin_exactly_as_often(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("race");
    let uid = fixtures::organisation(&admin, &org).await?;
    budget(polity, &org, json!({"window": "24h", "calls": 10})).await?;
    let calls = help::bot(polity, &org).await?;
    help::takes(&calls, &help::small()).await?;
    let one = help::small();
    let made = try_join_all((0..30).map(|_| async { calls.create(&PostParams::default(), &one).await })).await?;
    ensure!(made.len() == 30, "{}", made.len());
    let all: Api<ToolCall> = Api::namespaced(admin, &org);
    let ended = until(SOON * 3, "every call is decided", || async {
        let list = all.list(&ListParams::default()).await.map_err(|e| e.to_string())?.items;
        let decided = list.iter().filter(|c| c.status.as_ref().and_then(|s| s.phase).is_some_and(|p| DECIDED.contains(&p))).count();
        if decided == 30 { Ok(list) } else { Err(format!("{:?}", help::tally(&list))) }
    })
    .await?;
    let running = ended.iter().filter(|c| c.status.as_ref().and_then(|s| s.phase) == Some(Phase::Running)).count();
    ensure!(running == 10, "{:?}", help::tally(&ended));
    let others: Vec<String> =
        ended.iter().filter(|c| c.status.as_ref().and_then(|s| s.phase) == Some(Phase::Denied)).map(help::reason).collect();
    ensure!(others.iter().all(|r| r == "BudgetExceeded"), "{others:?}");
    let begins = help::lines(polity, &uid, None)?.iter().filter(|l| l["kind"] == "begin").count();
    ensure!(begins == 10, "{begins} begins");
    ensure!(ended.iter().map(ResourceExt::name_any).count() == 30);
    Ok(())
}

/// The same through the gateway: ten answers say Running, twenty BudgetExceeded.
pub async fn racing_requests_begin_exactly_as_often(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("rush");
    let uid = fixtures::organisation(&admin, &org).await?;
    budget(polity, &org, json!({"window": "24h", "calls": 10})).await?;
    let robot = help::robot(polity, &org).await?;
    let body = json!({"tool": "pay", "input": {"amount": 20, "to": "ann"}, "waitSeconds": 0});
    let answers = join_all((0..30).map(|_| robot.call(&org, body.clone()))).await;
    let (mut running, mut denied) = (0, 0);
    for answer in answers {
        match answer? {
            (202, body) if body["phase"] == "Running" => running += 1,
            (403, body) if body["reason"] == "BudgetExceeded" => denied += 1,
            (code, body) => anyhow::bail!("{code} {body}"),
        }
    }
    ensure!((running, denied) == (10, 20), "{running} run, {denied} are denied");
    let begins = help::lines(polity, &uid, None)?.iter().filter(|l| l["kind"] == "begin").count();
    ensure!(begins == 10, "{begins} begins");
    Ok(())
}

//! Two edges at once, and the certificate authority changed under living clients: whichever edge is asked decides and counts alike, and
//! nobody is cut off on the way from one CA to the next.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use polity_api::toolcall::Phase;
use polity_e2e::{
    apply, chaos,
    cluster::SYSTEM,
    ledger, org_name,
    parts::{Addresses, Part, Polity},
    shim::{self, Shim},
    until,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};

use crate::{
    admission::policy,
    calls::phase,
    fixtures::{self, SOON},
    help,
};

/// What one edge begins the other knows; a key and a budget count over both; a rule reaches both; one dies and the other goes on.
pub async fn two_at_once(polity: &mut Polity) -> Result<()> {
    let dir = polity.dir.join("edge2");
    std::fs::create_dir_all(&dir)?;
    let mut addresses = Addresses::choose()?;
    addresses.internal = polity.addresses.internal;
    let mut second = Part::edge(&polity.cluster, &dir, &addresses).await?;
    second.set("POLITY_POD_NAME", "polity-edge-1");
    second.start()?;
    second.ready().await?;
    let result = chaos::mended(polity, |p| Box::pin(both(p, addresses.gateway))).await;
    second.kill()?;
    result
}

/// A client's notice of cancellation comes to the edge that does not run its call, and stops it all the same.
async fn told_elsewhere(polity: &Polity, gateway: u16) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("elsewhere");
    let uid = fixtures::organisation(&admin, &org).await?;
    let robot = help::robot(polity, &org).await?;
    let ask = |base: String, session: Option<String>, message: Value| {
        let token = robot.token.clone();
        let url = format!("{base}/v1/orgs/{org}/mcp");
        async move {
            let mut request = shim::client()?.post(url).bearer_auth(token).header("accept", "application/json, text/event-stream");
            if let Some(session) = session {
                request = request.header("mcp-protocol-version", "2025-11-25").header("mcp-session-id", session);
            }
            Ok::<_, anyhow::Error>(request.json(&message).send().await?)
        }
    };
    let (one, two) = (polity.gateway(), format!("https://127.0.0.1:{gateway}"));
    let client = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let begun = ask(one.clone(), None, json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client})).await?;
    let session = begun.headers().get("mcp-session-id").context("no session")?.to_str()?.to_owned();
    let call =
        json!({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "pay", "arguments": {"amount": 20, "to": "ann"}}});
    let asked = tokio::spawn(ask(one, Some(session.clone()), call));
    until(SOON, "the call has begun", || async {
        let lines = help::lines(polity, &uid, None).map_err(|e| format!("{e:#}"))?;
        if lines.iter().any(|l| l["kind"] == "begin") { Ok(()) } else { Err(format!("{} records", lines.len())) }
    })
    .await?;
    let notice = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}});
    until(SOON, "the other edge takes the notice", || async {
        let told = ask(two.clone(), Some(session.clone()), notice.clone()).await.map_err(|e| format!("{e:#}"))?;
        if told.status() == 202 { Ok(()) } else { Err(told.status().to_string()) }
    })
    .await?;
    let answer = tokio::time::timeout(SOON, asked).await.context("the call goes on")???;
    let told: Value = answer.json().await?;
    ensure!(told["result"]["isError"] == true && told.to_string().contains("Canceled"), "{told}");
    let lines = help::lines(polity, &uid, None)?;
    let settled = lines.iter().find(|l| l["kind"] == "settle").context("not settled")?;
    ensure!(settled["reason"] == "Canceled" && settled["outcome"] == "NotDone", "{settled}");
    Ok(())
}

async fn both(polity: &mut Polity, gateway: u16) -> Result<()> {
    told_elsewhere(polity, gateway).await?;
    let admin = polity.cluster.admin().await?;
    let org = org_name("pair");
    let uid = fixtures::organisation(&admin, &org).await?;
    help::patch(&admin, "Org", None, &org, json!({"spec": {"budget": [{"window": "24h", "calls": 11}]}})).await??;
    let one = help::robot(polity, &org).await?;
    let two = one.at(format!("https://127.0.0.1:{gateway}"));
    until(SOON, "the second edge knows the robot", || async {
        let (code, body) =
            two.call(&org, json!({"tool": "pay", "input": {"amount": 1, "to": "mallory"}})).await.map_err(|e| e.to_string())?;
        if body["reason"] == "PolicyDenied" { Ok(()) } else { Err(format!("{code} {body}")) }
    })
    .await?;
    let orgs: Api<polity_api::Org> = Api::all(admin.clone());
    until(SOON, "the budget is seen", || async {
        let org = orgs.get(&org).await.map_err(|e| e.to_string())?;
        let seen = org.status.as_ref().map(|s| s.observed_generation) == org.metadata.generation;
        if seen { Ok(()) } else { Err(format!("{:?}", org.status)) }
    })
    .await?;
    let edges = [&one, &two];

    let keyed = json!({"tool": "pay", "input": {"amount": 20, "to": "ann"}, "idempotencyKey": "pair-1", "waitSeconds": 0});
    let answers = join_all((0..20).map(|i| edges[i % 2].call(&org, keyed.clone()))).await;
    let mut ids = Vec::new();
    for answer in answers {
        let (code, body) = answer?;
        ensure!(code == 202 && body["phase"] == "Running", "{code} {body}");
        ids.push(body["id"].as_str().context("id")?.to_owned());
    }
    ids.sort();
    ids.dedup();
    ensure!(ids.len() == 1, "one key ran {} times", ids.len());

    let body = json!({"tool": "pay", "input": {"amount": 20, "to": "ann"}, "waitSeconds": 0});
    let answers = join_all((0..30).map(|i| edges[i % 2].call(&org, body.clone()))).await;
    let (mut running, mut denied) = (Vec::new(), 0);
    for (i, answer) in answers.into_iter().enumerate() {
        match answer? {
            (202, body) if body["phase"] == "Running" => running.push((i % 2, body["id"].as_str().context("id")?.to_owned())),
            (403, body) if body["reason"] == "BudgetExceeded" => denied += 1,
            (code, body) => anyhow::bail!("{code} {body}"),
        }
    }
    ensure!((running.len(), denied) == (10, 20), "{} run, {denied} are denied", running.len());
    let begins = help::lines(polity, &uid, None)?.iter().filter(|l| l["kind"] == "begin").count();
    ensure!(begins == 11, "{begins} begins");

    // Begun by one, fed by either, read through the other.
    let (by, id) = &running[0];
    shim::play(polity, &org, id, 0, r#"{"receipt": "r"}"#).await?;
    let other = edges[1 - by];
    until(SOON, "the other edge knows the end", || async {
        let (code, body) = other.read(&org, id, Duration::from_secs(5)).await.map_err(|e| e.to_string())?;
        if code == 200 && body["phase"] == "Succeeded" { Ok(()) } else { Err(format!("{code} {body}")) }
    })
    .await?;

    apply(&admin, &policy(&org, "none", "args.amount < 1")).await?;
    for edge in edges {
        until(SOON, "the new rule is in force", || async {
            let (code, answer) = edge.call(&org, body.clone()).await.map_err(|e| e.to_string())?;
            if answer["reason"] == "PolicyDenied" { Ok(()) } else { Err(format!("{code} {answer}")) }
        })
        .await?;
    }
    polity.edge.kill()?;
    let (code, answer) = two.call(&org, body.clone()).await?;
    ensure!(code == 403 && answer["reason"] == "PolicyDenied", "{code} {answer}");
    let (code, answer) = two.read(&org, id, Duration::ZERO).await?;
    ensure!(code == 200 && answer["phase"] == "Succeeded", "{code} {answer}");
    ledger::check(&polity.dir.join("data")).map(drop)
}

/// The CA grows old, another takes its place, the old one is forgotten. Time is turned by making the CA's certificate look older, with the
/// same key and name. At each step those who trust what their Org's ConfigMap says connect, and calls run the whole way.
pub async fn certificate_authority_rotates(polity: &mut Polity) -> Result<()> {
    chaos::mended(polity, |p| Box::pin(rotates(p))).await
}

async fn rotates(polity: &mut Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("rotated");
    fixtures::organisation(&admin, &org).await?;
    help::takes(&help::bot(polity, &org).await?, &help::small()).await?;
    let secrets: Api<Secret> = Api::namespaced(admin.clone(), SYSTEM);
    let first = text(&secrets.get("polity-ca").await?, "ca.crt")?;
    let trusted = bundle(polity, &org).await?;
    works(polity, &org, "before").await?;
    connects(polity, &trusted).await.context("before")?;

    // Nearly over: core makes another one, and everybody is told to trust both before anybody is served by the new.
    older(&secrets, 340 * DAY, 25 * DAY).await?;
    let both = until(SOON, "two CAs are to be trusted", || async {
        let now = bundle(polity, &org).await.map_err(|e| e.to_string())?;
        if now.matches("BEGIN CERTIFICATE").count() == 2 { Ok(now) } else { Err("one".to_owned()) }
    })
    .await?;
    connects(polity, &trusted).await.context("with the old bundle, the new CA made")?;
    connects(polity, &both).await.context("with both, the new CA made")?;
    works(polity, &org, "with two CAs").await?;
    let second = text(&secrets.get("polity-ca").await?, "ca.crt")?;
    ensure!(second != first, "the same CA");

    // Everybody has had the time to learn of it: served by the new one.
    older(&secrets, 25, 364 * DAY).await?;
    let renewed = until(SOON, "the bundle has the new CA as it is now", || async {
        let now = bundle(polity, &org).await.map_err(|e| e.to_string())?;
        if now != both && now.matches("BEGIN CERTIFICATE").count() == 2 { Ok(now) } else { Err("not yet".to_owned()) }
    })
    .await?;
    until(SOON, "the edge serves a certificate of the new CA", || async {
        let new = renewed.split_inclusive("-----END CERTIFICATE-----").next().unwrap_or_default().to_owned();
        connects(polity, &new).await.map_err(|e| format!("{e:#}"))
    })
    .await?;
    connects(polity, &renewed).await.context("with both, served by the new")?;
    works(polity, &org, "served by the new CA").await?;

    older(&secrets, 60, 364 * DAY).await?;
    let forgotten = until(SOON, "the old CA is forgotten", || async {
        let now = bundle(polity, &org).await.map_err(|e| e.to_string())?;
        if now.matches("BEGIN CERTIFICATE").count() == 1 { Ok(now) } else { Err("still two".to_owned()) }
    })
    .await?;
    connects(polity, &forgotten).await.context("with the new one alone")?;
    ensure!(connects(polity, &first).await.is_err(), "somebody who trusts the old CA alone is still served");
    works(polity, &org, "after").await?;
    ledger::check(&polity.dir.join("data")).map(drop)
}

/// In minutes.
const DAY: u32 = 24 * 60;

/// Makes the CA in force look as if it were made so many minutes ago and lasted so many more.
async fn older(secrets: &Api<Secret>, ago: u32, left: u32) -> Result<()> {
    let stored = secrets.get("polity-ca").await?;
    let pem = text(&stored, "ca.crt")?;
    let key = KeyPair::from_pem(&text(&stored, "ca.key")?)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name(&pem)?);
    let (minute, now) = (Duration::from_secs(60), std::time::SystemTime::now());
    (params.not_before, params.not_after) = ((now - minute * ago).into(), (now + minute * left).into());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let data = BTreeMap::from([("ca.crt", ByteString(params.self_signed(&key)?.pem().into_bytes()))]);
    secrets.patch("polity-ca", &PatchParams::default(), &Patch::Merge(json!({"data": data}))).await?;
    Ok(())
}

fn common_name(pem: &str) -> Result<String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes())?;
    let certificate = pem.parse_x509()?;
    let name = certificate.subject().iter_common_name().next().context("no common name")?;
    Ok(name.as_str()?.to_owned())
}

fn text(secret: &Secret, key: &str) -> Result<String> {
    let data = secret.data.as_ref().and_then(|d| d.get(key)).with_context(|| format!("{key} is missing"))?;
    Ok(String::from_utf8(data.0.clone())?)
}

/// What agents of an Org are told to trust.
async fn bundle(polity: &Polity, org: &str) -> Result<String> {
    let map = Api::<ConfigMap>::namespaced(polity.cluster.admin().await?, org).get("polity-ca").await?;
    map.data.and_then(|d| d.get("ca.crt").cloned()).context("ca.crt")
}

/// A client that trusts these and nothing else, with a connection of its own.
async fn connects(polity: &Polity, roots: &str) -> Result<()> {
    let roots = reqwest::Certificate::from_pem_bundle(roots.as_bytes())?;
    let http = reqwest::Client::builder().tls_certs_only(roots).timeout(Duration::from_secs(20)).build()?;
    http.get(format!("{}/openapi.json", polity.gateway())).send().await?.error_for_status()?;
    Ok(())
}

/// A call the whole way: webhook, core, Pod, the shim's endpoint, core's and the edge's connection to each other.
async fn works(polity: &Polity, org: &str, when: &str) -> Result<()> {
    let bot = help::bot(polity, org).await?;
    // At the first try: nobody is cut off.
    let (name, id) = help::made(&bot, &help::small()).await.with_context(|| format!("a call {when}"))?;
    Shim::new(polity, SOON).play(org, &id, 0, "{}").await?;
    phase(&polity.cluster.admin().await?, org, &name, Phase::Succeeded).await.with_context(|| when.to_owned())?;
    Ok(())
}

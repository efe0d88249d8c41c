//! Parts and the API server away for a while: what is forbidden stays forbidden, what was refused meanwhile is mended by a retry, and a view
//! that nobody vouches for decides nothing.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::future::{join, join3, try_join_all};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use polity_api::{ToolCall, toolcall::Phase};
use polity_e2e::{Cluster, apply, chaos, cluster::SYSTEM, ledger, org_name, parts::Polity, shim, shim::Shim, until};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, date_time_ymd};
use serde_json::{Value, json};

use crate::{calls::phase, fixtures, help};

/// The edge killed four times while callers ask through the API server and through the gateway.
pub async fn edge_under_load(polity: &mut Polity) -> Result<()> {
    chaos::mended(polity, |p| Box::pin(edge(p))).await
}

async fn edge(polity: &mut Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("load");
    fixtures::organisation(&admin, &org).await?;
    let robot = help::robot(polity, &org).await?;
    help::takes(&help::bot(polity, &org).await?, &help::small()).await?;
    let over = AtomicBool::new(false);
    let (taken, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let shim = Shim::new(polity, fixtures::SOON);
    let cluster = polity.cluster.clone();
    let callers = try_join_all((0..3).map(|_| allowed(&cluster, &org, &over, &taken, &refused)));
    let forbidden = forbidden(&cluster, &org, &over);
    let gateway = through_gateway(&robot, &org, &over);
    let restarts = async {
        for _ in 0..4 {
            polity.edge.kill()?;
            grows(&refused, "a call finds nobody").await?;
            polity.edge.start()?;
            polity.edge.ready().await?;
            grows(&taken, "a call is taken again").await?;
        }
        over.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    let (restarted, (made, tries, answers)) = join(restarts, join3(callers, forbidden, gateway)).await;
    restarted?;
    let (made, tries, answers) = (made?.concat(), tries?, answers?);
    println!(
        "edge restarted: {} allowed calls, {} refused for want of it, {tries} forbidden ones, gateway {answers:?}",
        made.len(),
        refused.load(Ordering::Relaxed)
    );
    ensure!(refused.load(Ordering::Relaxed) > 0, "no call met a restart: the test proves nothing");
    ensure!(answers.get("PolicyDenied").is_some_and(|n| *n > 0), "{answers:?}");
    try_join_all(made.iter().map(|(name, id)| {
        let (admin, shim, org) = (&admin, &shim, &org);
        async move {
            shim.play(org, id, 0, "{}").await?;
            phase(admin, org, name, Phase::Succeeded).await
        }
    }))
    .await?;
    for call in Api::<ToolCall>::namespaced(admin.clone(), &org).list(&kube::api::ListParams::default()).await? {
        let to = call.spec.input.as_ref().and_then(|i| i.get("to")).and_then(Value::as_str);
        ensure!(to == Some("ann"), "{} got through", call.name_any());
    }
    ledger::check(&polity.dir.join("data")).map(drop)
}

/// Makes calls until told to stop; one that is refused is asked again and must be taken soon.
async fn allowed(
    cluster: &Cluster,
    org: &str,
    over: &AtomicBool,
    taken: &AtomicUsize,
    refused: &AtomicUsize,
) -> Result<Vec<(String, String)>> {
    let bot: Api<ToolCall> = Api::namespaced(cluster.user(&format!("bot@{org}"), &[]).await?, org);
    let mut made = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let call = until(fixtures::SOON, "a retry is taken", || async {
            let answer = bot.create(&PostParams::default(), &help::small()).await;
            answer.inspect_err(|_| _ = refused.fetch_add(1, Ordering::Relaxed)).map_err(|e| e.to_string())
        })
        .await?;
        made.push((call.name_any(), call.uid().context("uid")?));
        taken.fetch_add(1, Ordering::Relaxed);
        // The pace of a caller, so that all of them fit into the Org's quota.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(made)
}

/// Waits until a count has grown.
async fn grows(count: &AtomicUsize, what: &str) -> Result<()> {
    let before = count.load(Ordering::Relaxed);
    until(fixtures::SOON, what, || async { if count.load(Ordering::Relaxed) > before { Ok(()) } else { Err("not yet".to_owned()) } }).await
}

/// Asks for what is forbidden until told to stop; nothing of it may be taken.
async fn forbidden(cluster: &Cluster, org: &str, over: &AtomicBool) -> Result<usize> {
    let bot: Api<ToolCall> = Api::namespaced(cluster.user(&format!("bot@{org}"), &[]).await?, org);
    let mut call = help::small();
    call.spec.input = json!({"amount": 1, "to": "mallory"}).as_object().cloned();
    let mut tries = 0;
    while !over.load(Ordering::Relaxed) {
        let answer = bot.create(&PostParams::default(), &call).await;
        ensure!(answer.is_err(), "a forbidden call was taken: {answer:?}");
        tries += 1;
    }
    Ok(tries)
}

/// The same through the gateway: denied, or nobody there; never anything else.
async fn through_gateway(robot: &help::Robot, org: &str, over: &AtomicBool) -> Result<BTreeMap<String, usize>> {
    let mut answers = BTreeMap::new();
    while !over.load(Ordering::Relaxed) {
        let said = match robot.call(org, json!({"tool": "pay", "input": {"amount": 1, "to": "mallory"}})).await {
            Ok((code, body)) => {
                ensure!(code >= 400, "{code} {body}");
                body["reason"].as_str().unwrap_or_default().to_owned()
            }
            Err(_) => "nobody".to_owned(),
        };
        *answers.entry(said).or_default() += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(answers)
}

/// The API server frozen until the edge's view is stale: the edge then denies what it allowed, core gives up its lease and starts nothing,
/// and both recover by themselves when it goes on.
pub async fn api_server_frozen(polity: &mut Polity) -> Result<()> {
    chaos::mended(polity, |p| Box::pin(frozen(p))).await
}

async fn frozen(polity: &mut Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("frozen");
    let uid = fixtures::organisation(&admin, &org).await?;
    let bot = help::bot(polity, &org).await?;
    help::takes(&bot, &help::small()).await?;
    // As the API server would send it, also while it cannot.
    let object = help::tried(&bot, &help::small()).await?;
    let review = review(&org, &object)?;
    let ask = || validate(polity.addresses.webhook, &review);
    let (taken, message) = ask().await?;
    ensure!(taken, "{message}");

    let server = chaos::Frozen::api_server(&polity.cluster)?;
    let since = Instant::now();
    // When it was last asked something that it still allowed; how long an answer took does not count.
    let allowed = std::cell::Cell::new(Duration::ZERO);
    until(fixtures::SOON, "a stale view denies", || async {
        let asked = since.elapsed();
        match ask().await {
            Ok((false, message)) if message.contains("PolicyStale") => Ok(()),
            other => {
                if matches!(other, Ok((true, _))) {
                    allowed.set(asked);
                }
                Err(format!("{other:?}"))
            }
        }
    })
    .await?;
    ensure!(allowed.get() <= Duration::from_secs(31), "decided {:?} after the last proof of life", allowed.get());
    // Core cannot renew, and leaves rather than act.
    polity.core.ended(fixtures::SOON).await?;
    ensure!(!polity.core.killed(), "core was killed");
    let begun = help::lines(polity, &uid, None)?.iter().filter(|l| l["kind"] == "begin").count();
    ensure!(begun == 0, "{begun} calls began");
    drop(server);

    // What the kubelet does with a core that has ended.
    polity.core.start()?;
    polity.core.ready().await?;
    let ask = || validate(polity.addresses.webhook, &review);
    until(fixtures::SOON * 2, "the view is fresh again", || async {
        match ask().await {
            Ok((true, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    let (name, id) =
        until(fixtures::SOON, "a call is taken", || async { help::made(&bot, &help::small()).await.map_err(|e| e.to_string()) }).await?;
    Shim::new(polity, fixtures::SOON).play(&org, &id, 0, "{}").await?;
    phase(&admin, &org, &name, Phase::Succeeded).await?;
    ledger::check(&polity.dir.join("data")).map(drop)
}

/// The API server killed with -9 and started again while one call runs and one waits for a person: what was forbidden never becomes allowed, both
/// calls go on to their end by themselves, and changes made afterwards are seen.
pub async fn api_server_restarted(polity: &mut Polity) -> Result<()> {
    chaos::mended(polity, |p| Box::pin(restarted(p))).await
}

async fn restarted(polity: &mut Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("rebooted");
    let uid = fixtures::organisation(&admin, &org).await?;
    let bot = help::bot(polity, &org).await?;
    let robot = help::robot(polity, &org).await?;
    help::takes(&bot, &help::small()).await?;
    let (running, id) = help::made(&bot, &help::small()).await?;
    phase(&admin, &org, &running, Phase::Running).await?;
    let (waiting, second) = help::made(&bot, &crate::calls::call(200, "ann")).await?;
    let approval = phase(&admin, &org, &waiting, Phase::WaitingApproval).await?.status.and_then(|s| s.approval).context("approval")?;

    let server = chaos::Killed::api_server(&polity.cluster).await?;
    let forbidden = json!({"tool": "pay", "input": {"amount": 20, "to": "mallory"}, "waitSeconds": 0});
    let (code, body) = robot.call(&org, forbidden.clone()).await?;
    ensure!([401, 403, 503].contains(&code), "with the API server away: {code} {body}");
    server.start(&polity.cluster).await?;

    // Core may have left rather than act without its lease; the kubelet would start it again.
    if !polity.core.running() {
        ensure!(!polity.core.killed(), "core was killed");
        polity.core.start()?;
    }
    polity.core.ready().await?;
    polity.edge.ready().await?;
    Shim::new(polity, fixtures::SOON).play(&org, &id, 0, "{}").await?;
    phase(&admin, &org, &running, Phase::Succeeded).await?;
    help::decides(polity, &org, &approval, &format!("boss@{org}"), "Approve").await??;
    Shim::new(polity, fixtures::SOON).play(&org, &second, 0, "{}").await?;
    phase(&admin, &org, &waiting, Phase::Succeeded).await?;
    let (code, body) = robot.call(&org, forbidden).await?;
    ensure!(code == 403 && body["reason"] == "PolicyDenied", "{code} {body}");
    // Watches have gone on: a new Policy binds.
    let closed = json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Policy", "metadata": {"name": "closed", "namespace": org},
        "spec": {"match": {"tools": ["pay"]}, "rules": [{"name": "never", "expression": "args.amount > 1000", "effect": "Deny", "message": "closed for today"}]}});
    apply(&admin, &closed.to_string()).await?;
    help::refuses(&bot, &help::small(), "closed for today").await?;
    for action in [&id, &second] {
        let lines = help::lines(polity, &uid, Some(action))?;
        let kinds = help::kinds(&lines);
        ensure!(kinds.iter().filter(|kind| **kind == "begin").count() == 1 && kinds.last() == Some(&"settle"), "{kinds:?}");
    }
    ledger::check(&polity.dir.join("data")).map(drop)
}

fn review(org: &str, object: &ToolCall) -> Result<Value> {
    let caller = object.spec.caller.clone().context("not stamped")?;
    let (kind, resource) = (
        json!({"group": "polity.dev", "version": "v1alpha1", "kind": "ToolCall"}),
        json!({"group": "polity.dev", "version": "v1alpha1", "resource": "toolcalls"}),
    );
    Ok(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "00000000-0000-0000-0000-000000000001", "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
        "name": object.name_any(), "namespace": org, "operation": "CREATE", "dryRun": true,
        "userInfo": {"username": caller.username, "groups": caller.groups},
        "object": object, "oldObject": null, "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
    }}))
}

/// Asks the webhook itself; whether it allows, and what it says.
async fn validate(port: u16, review: &Value) -> Result<(bool, String)> {
    let answer = shim::client()?.post(format!("https://127.0.0.1:{port}/validate?timeout=5s")).json(review).send().await?;
    let answer: Value = answer.error_for_status()?.json().await?;
    let response = &answer["response"];
    Ok((response["allowed"] == true, response.to_string()))
}

/// An expired certificate of the edge is replaced by core and served without a restart; nobody trusts it meanwhile.
pub async fn certificate_expired(polity: &mut Polity) -> Result<()> {
    chaos::mended(polity, |p| Box::pin(expired(p))).await
}

async fn expired(polity: &mut Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("expired");
    fixtures::organisation(&admin, &org).await?;
    let bot = help::bot(polity, &org).await?;
    help::takes(&bot, &help::small()).await?;
    let secrets: Api<Secret> = Api::namespaced(admin.clone(), SYSTEM);
    let ca = secrets.get("polity-ca").await?;
    let issuer = Issuer::from_ca_cert_pem(&text(&ca, "ca.crt")?, KeyPair::from_pem(&text(&ca, "ca.key")?)?)?;
    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(vec!["polity-edge".to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned()])?;
    leaf.not_before = date_time_ymd(2020, 1, 1);
    leaf.not_after = date_time_ymd(2020, 2, 1);
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = leaf.signed_by(&key, &issuer)?;
    let before = text(&secrets.get("polity-edge-tls").await?, "tls.crt")?;
    let data =
        BTreeMap::from([("tls.crt", ByteString(leaf.pem().into_bytes())), ("tls.key", ByteString(key.serialize_pem().into_bytes()))]);
    secrets.patch("polity-edge-tls", &PatchParams::default(), &Patch::Merge(json!({"data": data}))).await?;

    let fresh = until(fixtures::SOON, "core replaces it", || async {
        let now = text(&secrets.get("polity-edge-tls").await.map_err(|e| e.to_string())?, "tls.crt").map_err(|e| e.to_string())?;
        if now == leaf.pem() || now == before { Err("still the expired one".to_owned()) } else { Ok(now) }
    })
    .await?;
    // As an agent sees it: by the CA in its own namespace, with every check on.
    let bundle = Api::<ConfigMap>::namespaced(admin.clone(), &org)
        .get("polity-ca")
        .await?
        .data
        .and_then(|d| d.get("ca.crt").cloned())
        .context("ca.crt")?;
    let url = format!("https://127.0.0.1:{}/openapi.json", polity.addresses.gateway);
    until(fixtures::SOON, "the edge serves the new one", || async {
        let root = reqwest::Certificate::from_pem(bundle.as_bytes()).map_err(|e| e.to_string())?;
        let http = reqwest::Client::builder().tls_certs_only([root]).tls_info(true).build().map_err(|e| e.to_string())?;
        let answer = http.get(&url).send().await.map_err(|e| format!("{e:?}"))?;
        let served = answer.extensions().get::<reqwest::tls::TlsInfo>().and_then(|i| i.peer_certificate()).map(<[u8]>::to_vec);
        let wanted = rustls::pki_types::pem::PemObject::from_pem_slice(fresh.as_bytes())
            .map_err(|e: rustls::pki_types::pem::Error| e.to_string())?;
        let wanted: rustls::pki_types::CertificateDer<'_> = wanted;
        if served.as_deref() == Some(wanted.as_ref()) { Ok(()) } else { Err("another one".to_owned()) }
    })
    .await?;
    // The whole way: webhook, core's and the edge's connection to each other, shim.
    let (name, id) =
        until(fixtures::SOON, "a call is taken", || async { help::made(&bot, &help::small()).await.map_err(|e| e.to_string()) }).await?;
    Shim::new(polity, fixtures::SOON).play(&org, &id, 0, "{}").await?;
    phase(&admin, &org, &name, Phase::Succeeded).await?;
    ledger::check(&polity.dir.join("data")).map(drop)
}

fn text(secret: &Secret, key: &str) -> Result<String> {
    let data = secret.data.as_ref().and_then(|d| d.get(key)).with_context(|| format!("{key} is missing"))?;
    Ok(String::from_utf8(data.0.clone())?)
}

/// Core comes back with another, empty ledger while a call runs: the call never begins again, and is for a person to settle.
pub async fn another_ledger(polity: &mut Polity) -> Result<()> {
    let own = polity.dir.join("data").display().to_string();
    let result = chaos::mended(polity, |p| Box::pin(empty_ledger(p))).await;
    polity.core.kill()?;
    polity.core.set("POLITY_DATA_DIR", &own);
    chaos::reborn(&polity.cluster, &mut polity.core, None).await?;
    polity.core.ready().await?;
    result
}

async fn empty_ledger(polity: &mut Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("forgot");
    fixtures::organisation(&admin, &org).await?;
    let made = help::bot(polity, &org).await?.create(&PostParams::default(), &help::small()).await?;
    phase(&admin, &org, &made.name_any(), Phase::Running).await?;
    polity.core.kill()?;
    let other = polity.dir.join("other-data");
    std::fs::create_dir_all(&other)?;
    polity.core.set("POLITY_DATA_DIR", &other.display().to_string());
    chaos::reborn(&polity.cluster, &mut polity.core, None).await?;
    let ended = phase(&admin, &org, &made.name_any(), Phase::Unknown).await?;
    let said = serde_json::to_string(&ended.status)?;
    ensure!(said.contains("this ledger has no record of it"), "{said}");
    let uid = Api::<polity_api::Org>::all(admin).get(&org).await?.metadata.uid.context("uid")?;
    // This ledger may know nothing of the Org yet; what it knows has no begin.
    let begun = ledger::records(&other, &uid).is_ok_and(|list| list.iter().any(|r| r.to_line().contains(r#""kind":"begin""#)));
    ensure!(!begun, "the call began again");
    Ok(())
}

/// Core on an older copy of its ledger: nothing begins in an Org whose chain does not reach its anchor, until a person names the restore;
/// then the chain says so and goes on.
pub async fn restored_ledger(polity: &mut Polity) -> Result<()> {
    let own = polity.dir.join("data").display().to_string();
    polity.core.set("POLITY_ANCHOR_SECONDS", "1");
    let result = chaos::mended(polity, |p| Box::pin(older_copy(p))).await;
    polity.core.kill()?;
    polity.core.set("POLITY_DATA_DIR", &own);
    polity.core.unset("POLITY_RESTORE");
    polity.core.unset("POLITY_ANCHOR_SECONDS");
    chaos::reborn(&polity.cluster, &mut polity.core, None).await?;
    polity.core.ready().await?;
    result
}

async fn older_copy(polity: &mut Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("restored");
    let uid = fixtures::organisation(&admin, &org).await?;
    let calls = help::bot(polity, &org).await?;
    help::takes(&calls, &help::small()).await?;
    let (first, id) = help::made(&calls, &help::small()).await?;
    shim::play(polity, &org, &id, 0, "{}").await?;
    phase(&admin, &org, &first, Phase::Succeeded).await?;
    polity.core.kill()?;
    let copy = polity.dir.join("copy");
    std::fs::create_dir_all(&copy)?;
    for file in std::fs::read_dir(polity.dir.join("data"))? {
        let file = file?;
        std::fs::copy(file.path(), copy.join(file.file_name()))?;
    }
    chaos::reborn(&polity.cluster, &mut polity.core, None).await?;
    let (second, id) = help::made(&calls, &help::small()).await?;
    shim::play(polity, &org, &id, 0, "{}").await?;
    phase(&admin, &org, &second, Phase::Succeeded).await?;
    let head = ledger::records(&polity.dir.join("data"), &uid)?.len();
    let orgs: Api<polity_api::Org> = Api::all(admin.clone());
    until(fixtures::SOON, "the second call is anchored", || async {
        let anchor = orgs.get(&org).await.map_err(|e| e.to_string())?.status.and_then(|s| s.ledger).map(|l| l.seq);
        if anchor.is_some_and(|seq| usize::try_from(seq).is_ok_and(|seq| seq >= head)) {
            Ok(())
        } else {
            Err(format!("{anchor:?} of {head}"))
        }
    })
    .await?;

    polity.core.kill()?;
    polity.core.set("POLITY_DATA_DIR", &copy.display().to_string());
    chaos::reborn(&polity.cluster, &mut polity.core, None).await?;
    polity.core.ready().await?;
    let robot = help::robot(polity, &org).await?;
    let ask = json!({"tool": "pay", "input": {"amount": 20, "to": "ann"}, "waitSeconds": 0});
    let (code, body) = robot.call(&org, ask.clone()).await?;
    ensure!(code == 503 && body["reason"] == "LedgerUnavailable", "{code} {body}");
    ensure!(body.to_string().contains("restored from a backup"), "{body}");

    polity.core.kill()?;
    polity.core.set("POLITY_RESTORE", "volume-lost");
    chaos::reborn(&polity.cluster, &mut polity.core, None).await?;
    polity.core.ready().await?;
    until(fixtures::SOON, "calls begin again", || async {
        let (code, body) = robot.call(&org, ask.clone()).await.map_err(|e| e.to_string())?;
        if code == 202 && body["phase"] == "Running" { Ok(()) } else { Err(format!("{code} {body}")) }
    })
    .await?;
    let records = ledger::records(&copy, &uid)?;
    let restore = records.iter().map(|r| r.to_line()).filter(|line| line.contains(r#""kind":"restore""#)).count();
    ensure!(restore == 1, "{restore} records of the restore");
    // numbers, hashes and roots of every chain in the copy, the one that went on included
    ledger::check(&copy).map(drop)
}

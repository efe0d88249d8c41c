//! Live events: the Org's chain as a stream, whole and once over two edges, killed edges and a killed core, and only for who may read it, as long as
//! he may.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::{Api, api::DeleteParams};
use polity_e2e::{
    chaos, ledger, org_name,
    parts::{Addresses, Part, Polity},
    shim,
};
use polity_ledger::{Config, Ledger, OrgId, Sealing};
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::{fixtures, fixtures::SOON, help, records, tokens};

/// A stream as a reader has it.
struct Stream {
    answer: reqwest::Response,
    rest: String,
}

/// An event with its id, name and data.
type Event = (Option<i64>, String, String);

impl Stream {
    async fn open(base: &str, org: &str, token: &str, query: &str, last: Option<i64>) -> Result<Result<Self, (u16, Value)>> {
        let mut request = shim::client()?.get(format!("{base}/v1/orgs/{org}/events{query}")).bearer_auth(token);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = request.send().await?;
        if !answer.status().is_success() {
            return Ok(Err((answer.status().as_u16(), answer.json().await?)));
        }
        Ok(Ok(Self { answer, rest: String::new() }))
    }

    async fn opened(base: &str, org: &str, token: &str, query: &str, last: Option<i64>) -> Result<Self> {
        Self::open(base, org, token, query, last).await?.map_err(|(code, body)| anyhow::anyhow!("{code} {body}"))
    }

    /// The next event with data; None when the stream has ended or broken off.
    async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some((block, rest)) = self.rest.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.rest = rest;
                let field = |name: &str| block.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().to_owned();
                let data = field("data: ");
                if data.is_empty() {
                    continue;
                }
                return Ok(Some((field("id: ").parse().ok(), field("event: "), data)));
            }
            match tokio::time::timeout(SOON, self.answer.chunk()).await.context("nothing comes")? {
                Ok(Some(piece)) => self.rest += std::str::from_utf8(&piece)?,
                Ok(None) | Err(_) => return Ok(None),
            }
        }
    }

    /// Reads so many records into `seen`.
    async fn read(&mut self, n: usize, seen: &mut Seen) -> Result<()> {
        for _ in 0..n {
            let event = self.next().await?.context("the stream broke off")?;
            seen.take(event)?;
        }
        Ok(())
    }

    /// How it ends: the reason.
    async fn reason(mut self) -> Result<String> {
        while let Some((id, name, data)) = self.next().await? {
            if name == "polity-end" {
                ensure!(id.is_none(), "the end has an id");
                return Ok(serde_json::from_str::<Value>(&data)?["reason"].as_str().unwrap_or_default().to_owned());
            }
        }
        anyhow::bail!("it ended without a reason")
    }
}

/// What a reader has got, over all his streams.
#[derive(Default)]
struct Seen {
    lines: Vec<String>,
    last: i64,
}

impl Seen {
    fn take(&mut self, (id, name, data): Event) -> Result<()> {
        let record: Value = serde_json::from_str(&data)?;
        ensure!(record["seq"].as_i64() == id && record["kind"] == name.as_str(), "{id:?} {name}: {data}");
        self.last = id.context("id")?;
        self.lines.push(data);
        Ok(())
    }
}

/// What is read over two edges, of which one is killed, and over a kill of core, is the chain: nothing missing, nothing twice.
pub async fn whole_over_edges_and_restarts(polity: &mut Polity) -> Result<()> {
    let dir = polity.dir.join("events-edge");
    std::fs::create_dir_all(&dir)?;
    let mut addresses = Addresses::choose()?;
    addresses.internal = polity.addresses.internal;
    let mut second = Part::edge(&polity.cluster, &dir, &addresses).await?;
    second.set("POLITY_POD_NAME", "polity-edge-1");
    second.set("POLITY_EVENTS_HEARTBEAT_SECONDS", "1");
    second.start()?;
    second.ready().await?;
    let result = chaos::mended(polity, |p| Box::pin(whole(p, addresses.gateway))).await;
    second.kill()?;
    result
}

async fn whole(polity: &mut Polity, gateway: u16) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("streamed");
    let uid = fixtures::organisation(&admin, &org).await?;
    let auditor = records::auditor(polity, &org).await?;
    let (one, two) = (polity.gateway(), format!("https://127.0.0.1:{gateway}"));
    let robot = help::robot(polity, &org).await?;
    let (stop, busy) = (Arc::new(AtomicBool::new(false)), robot.at(two.clone()));
    let load = tokio::spawn({
        let (stop, org) = (stop.clone(), org.clone());
        async move {
            let denied = json!({"tool": "pay", "input": {"amount": 20, "to": "mallory"}});
            let mut pace = tokio::time::interval(Duration::from_millis(25));
            while !stop.load(Ordering::Acquire) {
                pace.tick().await;
                // While core is away it is refused, and nothing is recorded.
                let _ = busy.call(&org, denied.clone()).await;
            }
        }
    });

    let mut seen = Seen::default();
    let mut stream = Stream::opened(&one, &org, &auditor, "?after=0", None).await?;
    stream.read(15, &mut seen).await?;
    polity.edge.kill()?;
    while let Some(event) = stream.next().await? {
        seen.take(event)?;
    }
    let mut stream = Stream::opened(&two, &org, &auditor, "?after=0", Some(seen.last)).await?;
    stream.read(15, &mut seen).await?;
    polity.core.kill()?;
    chaos::reborn(&polity.cluster, &mut polity.core, None).await?;
    polity.core.ready().await?;
    stream.read(30, &mut seen).await.context("the same stream, after core was killed")?;
    polity.edge.start()?;
    polity.edge.ready().await?;
    let mut stream = Stream::opened(&one, &org, &auditor, "", Some(seen.last)).await?;
    stream.read(15, &mut seen).await?;

    let decisions = help::lines(polity, &uid, None)?.iter().filter(|l| l["kind"] == "decision").count();
    let most = (decisions + 5).to_string();
    let mut command = records::command(polity, &org, &auditor, &["query", "--follow", "--kind", "decision", "--limit", &most])?;
    // Beside this test's own work, which makes the records that it follows.
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && text.lines().count() == decisions + 5, "{}", String::from_utf8_lossy(&output.stderr));

    stop.store(true, Ordering::Release);
    load.await?;
    let stored: Vec<String> = ledger::records(&polity.dir.join("data"), &uid)?.iter().map(polity_ledger::Record::to_line).collect();
    stream.read(stored.len() - seen.lines.len(), &mut seen).await?;
    ensure!(seen.lines == stored, "{} records seen, {} stored", seen.lines.len(), stored.len());
    let (good, exported) = records::audit(polity, &org, &auditor, &["export"])?;
    let exported: Vec<&str> = exported.lines().filter(|l| l.contains("\"kind\":")).collect();
    ensure!(good && exported == seen.lines, "not what is exported");

    only_for_who_may(polity, &org, &two, &auditor).await
}

/// Retention has dropped the beginning of a chain: who wants to go on there is told so with 410, never given what is left as if it were all.
pub async fn what_retention_dropped_is_said(polity: &mut Polity) -> Result<()> {
    chaos::mended(polity, |p| Box::pin(dropped(p))).await
}

async fn dropped(polity: &mut Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("shortened");
    let uid = fixtures::organisation(&admin, &org).await?;
    let auditor = records::auditor(polity, &org).await?;
    // Denials, and nothing that has begun: retention keeps what may still be settled.
    let calls = help::bot(polity, &org).await?;
    help::refuses(&calls, &crate::calls::call(20, "mallory"), "mallory is never paid").await?;
    let robot = help::robot(polity, &org).await?;
    for _ in 0..6 {
        let (code, _) = robot.call(&org, json!({"tool": "pay", "input": {"amount": 20, "to": "mallory"}})).await?;
        ensure!(code == 403, "{code}");
    }
    // A stored chain of this age does not exist: the ledger's own retention is told that everything is old, while core is away.
    polity.core.kill()?;
    let last = shorten(polity, &OrgId { name: org.clone(), uid: uid.clone() }).await?;
    chaos::reborn(&polity.cluster, &mut polity.core, None).await?;
    polity.core.ready().await?;

    let edge = polity.gateway();
    let (code, body) = polity_e2e::until(SOON, "an answer of core", || async {
        let answer = Stream::open(&edge, &org, &auditor, "?after=0", None).await.map_err(|e| format!("{e:#}"))?;
        answer.err().filter(|(code, _)| *code != 503).ok_or_else(|| "a stream, or core is away".to_owned())
    })
    .await?;
    ensure!(code == 410 && body["reason"] == "RecordsDropped", "{code} {body}");
    ensure!(body["hint"].as_str().is_some_and(|hint| hint.contains(&format!("after={last}"))), "{body}");
    // Also for a reader that comes back with an id; and from where it is told to go on, the stream is whole.
    let (code, body) = Stream::open(&edge, &org, &auditor, "", Some(last - 1)).await?.err().context("a stream with a gap")?;
    ensure!(code == 410 && body["reason"] == "RecordsDropped", "{code} {body}");
    let mut stream = Stream::opened(&edge, &org, &auditor, &format!("?after={last}"), None).await?;
    let mut seen = Seen::default();
    stream.read(1, &mut seen).await?;
    ensure!(seen.last == last + 1, "{} after {last}", seen.last);
    Ok(())
}

/// Closes what there is of a chain but its end, and drops it. Gives the sequence of the last record that is gone.
async fn shorten(polity: &Polity, org: &OrgId) -> Result<i64> {
    let data = polity.dir.join("data");
    let stored = ledger::records(&data, &org.uid)?;
    let (first, last) = stored.first().zip(stored.last()).context("the chain is empty")?;
    let (first, last): (Value, Value) = (serde_json::from_str(&first.to_line())?, serde_json::from_str(&last.to_line())?);
    let installation = first["installation"].as_str().context("the first record names the installation")?;
    let (head, epoch) = last["seq"].as_i64().zip(last["epoch"].as_i64()).context("sequence and epoch")?;
    // The lock of a process that was killed goes with it, a moment later.
    let ledger = polity_e2e::until(SOON, "the ledger is free", || async {
        Ledger::open(Config::new(&data, installation), Arc::new(polity_ledger::SystemClock)).map_err(|e| e.to_string())
    })
    .await?;
    ledger.seal(epoch, Sealing { records: head - 1, ..Sealing::default() }).await?;
    let dropped = ledger.retain(epoch, org, jiff::Timestamp::now()).await?;
    // Core opens it next.
    ledger.close().await;
    Ok(dropped.context("nothing was dropped")?.1)
}

async fn only_for_who_may(polity: &Polity, org: &str, edge: &str, auditor: &str) -> Result<()> {
    let stranger = records::token(polity, org, "stranger").await?;
    let refused = |answer: Result<Stream, (u16, Value)>| answer.err().context("a stream for somebody who may not");
    let (code, body) = refused(Stream::open(edge, org, &stranger, "", None).await?)?;
    ensure!(code == 403 && body["reason"] == "NotPermitted", "{code} {body}");
    let (code, body) = refused(Stream::open(edge, org, auditor, "", Some(1_000_000)).await?)?;
    ensure!(code == 410 && body["reason"] == "AheadOfChain", "{code} {body}");

    // A token that expires while it is used.
    let claims: Value = serde_json::from_slice(&BASE64.decode(auditor.split('.').nth(1).context("claims")?)?)?;
    let mut claims = claims;
    claims["exp"] = json!(jiff::Timestamp::now().as_second() + 6);
    let key = KeyPair::from_pem(&std::fs::read_to_string(tokens::key_file(polity)?)?)?;
    let short = tokens::signed(&key, &claims)?;
    let stream = Stream::opened(edge, org, &short, "?after=0", None).await?;
    ensure!(stream.reason().await? == "Unauthenticated");

    // A right that is taken away.
    let stream = Stream::opened(edge, org, auditor, "?after=0", None).await?;
    let bindings: Api<RoleBinding> = Api::namespaced(polity.cluster.admin().await?, org);
    bindings.delete("auditor", &DeleteParams::default()).await?;
    ensure!(stream.reason().await? == "NotPermitted");
    Ok(())
}

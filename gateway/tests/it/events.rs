//! The chain as a live stream: whole and once over replicas and interruptions, only for who may read it, bounded.

use std::time::Duration;

use axum::{body::Body, http::StatusCode};
use futures::StreamExt as _;
use polity_gateway::StreamLimits;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::{
    harness::{Edge, until},
    ledger::Ledger,
};

const QUICK: StreamLimits =
    StreamLimits { heartbeat: Duration::from_millis(50), stall: Duration::from_millis(200), streams: 3, of_caller: 2 };

/// One block of the protocol: what stands before an empty line.
#[derive(Clone, Debug, Default, PartialEq)]
struct Block {
    id: Option<i64>,
    event: String,
    data: String,
    comment: String,
}

struct Reader {
    body: axum::body::BodyDataStream,
    text: String,
}

impl Reader {
    /// The next block; None at the end of the stream.
    async fn block(&mut self) -> Option<Block> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let mut read = Block::default();
                for line in block.lines() {
                    match line.split_once(": ").unwrap() {
                        ("id", id) => read.id = Some(id.parse().unwrap()),
                        ("event", name) => read.event = name.into(),
                        ("data", data) => read.data = data.into(),
                        ("", comment) => read.comment = comment.into(),
                        ("retry", _) => {}
                        other => panic!("{other:?}"),
                    }
                }
                return Some(read);
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.body.next()).await.expect("something comes")?;
            self.text += std::str::from_utf8(&chunk.unwrap()).unwrap();
        }
    }

    /// The next block that fits.
    async fn next(&mut self, fits: impl Fn(&Block) -> bool) -> Block {
        loop {
            let block = self.block().await.expect("the stream goes on");
            if fits(&block) {
                return block;
            }
        }
    }

    /// The next record, as id and data.
    async fn record(&mut self) -> (i64, String) {
        let block = self.next(|b| !b.data.is_empty()).await;
        let data: Value = serde_json::from_str(&block.data).unwrap();
        assert_eq!((data["seq"].as_i64(), data["kind"].as_str()), (block.id, Some(block.event.as_str())), "{block:?}");
        (block.id.unwrap(), block.data)
    }

    /// How it ends.
    async fn end(mut self) -> Value {
        let last = self.next(|b| b.event == "polity-end").await;
        assert_eq!(last.id, None, "whoever comes again goes on where he was");
        assert_eq!(self.block().await, None);
        serde_json::from_str(&last.data).unwrap()
    }
}

async fn ask(edge: &Edge, query: &str, token: &str, last: Option<i64>) -> axum::response::Response {
    let mut request = http::Request::get(format!("/v1/orgs/acme/events{query}")).header("authorization", format!("Bearer {token}"));
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    polity_gateway::router(edge.gateway.clone()).oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

async fn follow(edge: &Edge, query: &str, last: Option<i64>) -> Reader {
    let response = ask(edge, query, "auditor-token", last).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    Reader { body: response.into_body().into_data_stream(), text: String::new() }
}

async fn problem(response: axum::response::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

fn fill(ledger: &Ledger, n: usize) {
    for i in 0..n {
        ledger.record(["begin", "settle", "decision"][i % 3], "x");
    }
}

#[tokio::test]
async fn replays_and_goes_on_live() {
    let edge = Edge::streaming(QUICK).await;
    fill(&edge.ledger, 5);
    let mut reader = follow(&edge, "?after=2", None).await;
    for seq in 3..=5 {
        assert_eq!(reader.record().await.0, seq);
    }
    assert_eq!(reader.next(|b| !b.comment.is_empty()).await.comment, "heartbeat");
    fill(&edge.ledger, 1);
    assert_eq!(reader.record().await.0, 6);
    assert!(edge.metrics().contains("polity_gateway_event_streams 1"), "{}", edge.metrics());
    drop(reader);
    until("the stream has ended", || {
        let metrics = edge.metrics();
        let ended = metrics.contains("polity_gateway_event_streams 0") && metrics.contains(r#"streams_ended_total{why="reader"} 1"#);
        if ended { Ok(()) } else { Err(metrics) }
    })
    .await;
    assert!(edge.metrics().contains("polity_gateway_events_total 4"));
}

#[tokio::test]
async fn nothing_is_left_out_and_nothing_comes_twice() {
    let many = StreamLimits { streams: 100, of_caller: 100, ..QUICK };
    let one = Edge::streaming(many).await;
    let two = Edge::start_all("polity-edge-2", one.api.clone(), one.ledger.clone(), many).await;
    fill(&one.ledger, 3);
    // Without a place to begin at: what comes from now on.
    let mut reader = follow(&one, "", None).await;
    assert_eq!(reader.next(|b| b.id.is_some()).await.id, Some(3), "told where to go on before anything has come");
    let mut seen: Vec<(i64, String)> = Vec::new();
    let mut last = 3;
    for round in 0..12 {
        fill(&one.ledger, 3);
        if round == 4 {
            one.ledger.away(true);
            loop {
                let block = reader.next(|b| !b.data.is_empty() || b.comment.starts_with("core does not answer")).await;
                if block.data.is_empty() {
                    break;
                }
                last = block.id.unwrap();
                seen.push((last, block.data));
            }
            one.ledger.away(false);
        }
        let here = if round % 2 == 0 { &two } else { &one };
        for _ in 0..=round % 3 {
            if last == one.ledger.chain().len() as i64 {
                break;
            }
            let record = reader.record().await;
            last = record.0;
            seen.push(record);
        }
        reader = follow(here, "?after=0", Some(last)).await;
    }
    while last < 39 {
        let record = reader.record().await;
        last = record.0;
        seen.push(record);
    }
    let lines: Vec<String> = seen.iter().map(|(_, line)| line.clone()).collect();
    assert_eq!(lines, one.ledger.chain()[3..]);
}

#[tokio::test]
async fn a_filter_lets_little_through_and_tells_how_far_it_looked() {
    let edge = Edge::streaming(QUICK).await;
    fill(&edge.ledger, 7);
    let mut reader = follow(&edge, "?after=0&kind=settle", None).await;
    assert_eq!((reader.record().await.0, reader.record().await.0), (2, 5));
    let beat = reader.next(|b| b.id.is_some()).await;
    assert_eq!((beat.id, beat.data.as_str(), beat.comment.as_str()), (Some(7), "", "heartbeat"));
}

#[tokio::test]
async fn rights_and_tokens_end_with_their_stream() {
    let edge = Edge::streaming(QUICK).await;
    fill(&edge.ledger, 1);
    let mut reader = follow(&edge, "?after=0", None).await;
    reader.record().await;
    edge.api.bar("ann");
    assert_eq!(reader.end().await["reason"], "NotPermitted");

    let edge = Edge::streaming(QUICK).await;
    fill(&edge.ledger, 1);
    let mut reader = follow(&edge, "?after=0", None).await;
    reader.record().await;
    edge.api.revoke("auditor-token");
    assert_eq!(reader.end().await["reason"], "Unauthenticated");
    assert_eq!(ask(&edge, "", "auditor-token", None).await.status(), StatusCode::UNAUTHORIZED, "not remembered either");

    let edge = Edge::streaming(QUICK).await;
    fill(&edge.ledger, 1);
    let mut reader = follow(&edge, "?after=0", None).await;
    reader.record().await;
    edge.api.deaf();
    assert_eq!(reader.end().await["reason"], "Unavailable", "nobody can tell any more");
}

#[tokio::test]
async fn nobody_else_reads_them() {
    let edge = Edge::streaming(QUICK).await;
    fill(&edge.ledger, 1);
    let (code, told) = problem(ask(&edge, "", "payer-token", None).await).await;
    assert!(code == 403 && told["reason"] == "NotPermitted", "{told}");
    assert_eq!(problem(ask(&edge, "", "no-token", None).await).await.0, 401);
    assert_eq!(problem(ask(&edge, "?limit=3", "auditor-token", None).await).await.0, 400);
    assert_eq!(edge.ask("GET", "/v1/orgs/other/events", "auditor-token", None).await.0, StatusCode::NOT_FOUND);
    edge.ledger.away(true);
    assert_eq!(problem(ask(&edge, "", "auditor-token", None).await).await.0, 503);
}

#[tokio::test]
async fn what_retention_dropped_is_said() {
    let edge = Edge::streaming(QUICK).await;
    fill(&edge.ledger, 20);
    edge.ledger.drop_oldest(10);
    let response = ask(&edge, "?after=5", "auditor-token", None).await;
    assert_eq!(response.headers()["polity-oldest"], "11");
    let (code, told) = problem(response).await;
    assert!(code == 410 && told["reason"] == "RecordsDropped" && told["hint"].as_str().unwrap().contains("after=10"), "{told}");
    let (code, told) = problem(ask(&edge, "?after=10", "auditor-token", Some(99)).await).await;
    assert!(code == 410 && told["reason"] == "AheadOfChain", "{told}");
    let mut reader = follow(&edge, "?after=10", None).await;
    assert_eq!(reader.record().await.0, 11);
}

#[tokio::test]
async fn a_gap_under_a_living_stream_ends_it() {
    let edge = Edge::streaming(StreamLimits { stall: Duration::from_secs(20), ..QUICK }).await;
    let large = "x".repeat(60_000);
    for _ in 0..20 {
        edge.ledger.record("begin", &large);
    }
    // The reader stops after the first; a page and what is on its way are read, the rest is dropped.
    let mut reader = follow(&edge, "?after=0", None).await;
    assert_eq!(reader.record().await.0, 1);
    edge.ledger.drop_oldest(15);
    let mut last = 1;
    let told = loop {
        let block = reader.next(|b| !b.data.is_empty()).await;
        match block.id {
            Some(id) => assert_eq!(id, last + 1),
            None => break block,
        }
        last += 1;
    };
    assert!(told.event == "polity-end" && told.data.contains("RecordsDropped"), "{told:?}");
}

#[tokio::test]
async fn who_does_not_read_is_cut_and_can_come_again() {
    let edge = Edge::streaming(QUICK).await;
    let large = "x".repeat(60_000);
    for _ in 0..40 {
        edge.ledger.record("begin", &large);
    }
    let mut reader = follow(&edge, "?after=0", None).await;
    assert_eq!(reader.record().await.0, 1);
    until("the stream is cut", || {
        let metrics = edge.metrics();
        if metrics.contains(r#"streams_ended_total{why="stalled"} 1"#) { Ok(()) } else { Err(metrics) }
    })
    .await;
    let mut last = 1;
    while let Some(block) = reader.block().await {
        assert_eq!(block.id, Some(last + 1));
        last += 1;
    }
    assert!(last < 10, "{last} records were held for somebody who did not read");
    let mut reader = follow(&edge, "", Some(last)).await;
    while last < 40 {
        assert_eq!(reader.record().await.0, last + 1);
        last += 1;
    }
}

#[tokio::test]
async fn streams_are_bounded() {
    let edge = Edge::streaming(QUICK).await;
    fill(&edge.ledger, 1);
    let one = follow(&edge, "", None).await;
    let two = follow(&edge, "", None).await;
    let (code, told) = problem(ask(&edge, "", "auditor-token", None).await).await;
    assert!(code == 429 && told["reason"] == "TooManyRequests" && told["message"].as_str().unwrap().contains("ann"), "{told}");
    drop(one);
    until("a place is free", || if edge.metrics().contains("polity_gateway_event_streams 1") { Ok(()) } else { Err(edge.metrics()) }).await;
    // The place itself is given back a moment after the count.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while ask(&edge, "", "auditor-token", None).await.status() != StatusCode::OK {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(two);
}

#[tokio::test]
async fn a_replica_that_stops_ends_its_streams() {
    let edge = Edge::streaming(QUICK).await;
    fill(&edge.ledger, 1);
    let mut reader = follow(&edge, "?after=0", None).await;
    reader.record().await;
    edge.cancel.cancel();
    while reader.block().await.is_some() {}
}

//! `audit query --follow`: records as they come, from the edge's stream of events. When the stream breaks off it is taken up where it stopped, at
//! whichever replica answers: no record is left out and none comes twice.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use kube::{Client, client::Body};
use polity_ledger::Filter;

use super::source::{escaped, filters, refusal};

/// Longest silence of a stream: four times its longest pulse is short of it.
const SILENCE: Duration = Duration::from_secs(90);
/// Pause before the edge is asked again.
const RETRY: Duration = Duration::from_secs(2);
/// Event that says why a stream ends.
const END: &str = "polity-end";
/// Reasons that pass by themselves.
const PASSING: [&str; 3] = ["Unavailable", "LedgerUnavailable", "TooManyRequests"];

/// Gives each record after a sequence that the filter lets through, until `line` says that it is enough.
pub async fn follow(client: &Client, org: &str, mut after: i64, filter: &Filter, mut line: impl FnMut(&str) -> Result<bool>) -> Result<()> {
    loop {
        match once(client, org, &mut after, filter, &mut line).await? {
            Ended::Enough => return Ok(()),
            Ended::Broken(why) => eprintln!("the stream broke off after record {after}, it goes on there: {why}"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

enum Ended {
    Enough,
    /// What may pass by itself.
    Broken(String),
}

async fn once(client: &Client, org: &str, after: &mut i64, filter: &Filter, line: &mut impl FnMut(&str) -> Result<bool>) -> Result<Ended> {
    let mut query = filters(filter)?;
    query.push(("after", after.to_string()));
    let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    let request = Request::get(format!("/v1/orgs/{}/events?{}", escaped(org), query.join("&"))).body(Body::empty())?;
    let response = match client.send(request).await {
        Ok(response) => response,
        Err(error) => return Ok(Ended::Broken(format!("{error}"))),
    };
    let status = response.status();
    let mut body = response.into_body();
    if !status.is_success() {
        let text = String::from_utf8_lossy(&body.collect_bytes().await.unwrap_or_default()).into_owned();
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS | StatusCode::BAD_GATEWAY) {
            return Ok(Ended::Broken(refusal(&text)));
        }
        bail!("the edge answered {status}: {}", refusal(&text));
    }
    let mut events = Events::default();
    loop {
        let frame = match tokio::time::timeout(SILENCE, body.frame()).await {
            Err(_) => return Ok(Ended::Broken("nothing came for a long time".to_owned())),
            Ok(None) => return Ok(Ended::Broken("the edge ended it".to_owned())),
            Ok(Some(Err(error))) => return Ok(Ended::Broken(error.to_string())),
            Ok(Some(Ok(frame))) => frame,
        };
        let Some(data) = frame.data_ref() else { continue };
        for event in events.read(data)? {
            if event.name == END {
                let reason = serde_json::from_str::<serde_json::Value>(&event.data).unwrap_or_default();
                if reason["reason"].as_str().is_some_and(|reason| PASSING.contains(&reason)) {
                    return Ok(Ended::Broken(refusal(&event.data)));
                }
                bail!("the edge ended the stream: {}", refusal(&event.data));
            }
            if !event.data.is_empty() && !line(&event.data)? {
                return Ok(Ended::Enough);
            }
            if let Some(id) = event.id {
                *after = id;
            }
        }
    }
}

/// One event, or a block without data that only says how far the stream is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    id: Option<i64>,
    name: String,
    data: String,
}

/// Reads the protocol of server-sent events (WHATWG HTML, 9.2) as far as the edge speaks it.
#[derive(Default)]
struct Events {
    rest: Vec<u8>,
}

impl Events {
    /// Blocks that are whole with this piece.
    fn read(&mut self, piece: &[u8]) -> Result<Vec<Event>> {
        self.rest.extend_from_slice(piece);
        let mut found = Vec::new();
        while let Some(end) = self.rest.windows(2).position(|two| two == b"\n\n") {
            let block: Vec<u8> = self.rest.drain(..end + 2).collect();
            let text = std::str::from_utf8(&block).context("the stream is no text")?;
            let mut event = Event::default();
            for line in text.lines() {
                let (field, value) = line.split_once(':').unwrap_or((line, ""));
                let value = value.strip_prefix(' ').unwrap_or(value);
                match field {
                    "id" => event.id = Some(value.parse().context("the stream has an id that is no sequence")?),
                    "event" => value.clone_into(&mut event.name),
                    "data" => event.data.push_str(value),
                    _ => {}
                }
            }
            if event != Event::default() {
                found.push(event);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_events() {
        let text = "retry: 2000\n\nid: 3\n\n: heartbeat\n\nid: 4\nevent: begin\ndata: {\"ä\": 1}\n\n: heartbeat\nid: 9\n\nevent: polity-end\ndata: {}\n\nid: 10\nda";
        let event = |id, name: &str, data: &str| Event { id, name: name.to_owned(), data: data.to_owned() };
        let wanted =
            vec![event(Some(3), "", ""), event(Some(4), "begin", "{\"ä\": 1}"), event(Some(9), "", ""), event(None, "polity-end", "{}")];
        for size in [1, 2, 3, 7, 1000] {
            let mut events = Events::default();
            let found: Vec<Event> = text.as_bytes().chunks(size).flat_map(|piece| events.read(piece).unwrap()).collect();
            assert_eq!(found, wanted, "in pieces of {size}");
        }
        assert!(Events::default().read(b"id: x\n\n").is_err());
    }
}

//! `GET /v1/orgs/{org}/events`: an Org's chain of records as server-sent events, live. The id of an event is the sequence of its record in the
//! chain, so that any replica goes on where another one, or this one before, has stopped: no record is left out and none comes twice.
//!
//! Keeps nothing but who reads how far. Gives records only to those who may read them by `records`, and asks again while a stream lives.

mod feed;
mod slots;

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use polity_api::reasons;
use polity_ledger::{Filter, Page};
use polity_runtime::{identity, internal::RecordsRequest};
use serde::Deserialize;
use tokio::{sync::mpsc, time::Instant};

use self::feed::{Feed, Reader};
pub(crate) use self::slots::Slots;
use crate::{calls::org_of, problem::Problem, state::Gateway};

/// Header with the sequence after which to go on.
const LAST_EVENT_ID: &str = "last-event-id";
/// Header of a 410 with the oldest sequence that is left.
const OLDEST: &str = "polity-oldest";
/// Most records that one page looks at.
const LOOKED_AT: i64 = 2000;
/// A page ends beyond so many bytes: what one stream holds in memory is a few times that and one record.
const BYTES: usize = 64 * 1024;

/// Bounds of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time between two signs of life; as often the reader's token and rights are looked at again.
    pub heartbeat: Duration,
    /// A stream whose reader takes nothing for so long is cut.
    pub stall: Duration,
    /// Most streams of one replica.
    pub streams: usize,
    /// Most streams of one username on one replica.
    pub of_caller: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { heartbeat: Duration::from_secs(15), stall: Duration::from_secs(30), streams: 64, of_caller: 8 }
    }
}

/// From where on, and what of the chain is wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Wanted {
    after: Option<i64>,
    since: Option<jiff::Timestamp>,
    kind: String,
    agent: String,
    tool: String,
    task: String,
    verdict: String,
    trace: String,
    action: String,
}

/// Names of the parameters, for the OpenAPI document.
pub const PARAMETERS: [&str; 9] = ["after", "since", "kind", "agent", "tool", "task", "verdict", "trace", "action"];

impl Wanted {
    /// Where to begin, None for the chain's present head; and what is asked of core.
    fn request(self, headers: &HeaderMap) -> Result<(Option<i64>, RecordsRequest), Problem> {
        let Self { after, since, kind, agent, tool, task, verdict, trace, action } = self;
        let last = headers.get(LAST_EVENT_ID).map(|value| value.to_str().ok().and_then(|text| text.trim().parse::<i64>().ok()));
        let after = match last {
            Some(None) => return Err(Problem::invalid("Last-Event-ID is no sequence of a record")),
            // What a reader saw last wins: on a reconnect it asks by the URL that it began with.
            Some(last) => last,
            None => after,
        };
        if after.is_some_and(|after| after < 0) {
            return Err(Problem::invalid("a sequence is not negative"));
        }
        let filter = Filter { since, until: None, kind, agent, tool, task, verdict, trace, action };
        Ok((after, RecordsRequest { after: after.unwrap_or(i64::MAX), limit: LOOKED_AT, filter, roots: false, bytes: BYTES, wait: 0 }))
    }
}

/// `GET /v1/orgs/{org}/events`.
pub async fn follow(
    State(gateway): State<Arc<Gateway>>,
    org: Result<Path<String>, PathRejection>,
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let token = identity::bearer(headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()))?.to_owned();
    let caller = gateway.identities.caller(&token).await?;
    let org = org_of(org)?;
    let Query(wanted) = wanted.map_err(|e| Problem::invalid(e.body_text()))?;
    let (after, mut request) = wanted.request(&headers)?;
    let slot = gateway.streams.take(&caller.username)?;
    let (uid, namespace) = gateway.chain_of(&org)?;
    gateway.may_read(&caller, &namespace).await?;
    let page = gateway.core.records(&uid, &request).await?;
    request.after = after.unwrap_or(page.head);
    if let Some(lost) = lost(&page, request.after) {
        let mut response = lost.into_response();
        if page.first > 0 {
            response.headers_mut().insert(OLDEST, HeaderValue::from(page.first));
        }
        return Ok(response);
    }
    let page = Page { next: request.after.max(if after.is_some() { page.next } else { 0 }), ..page };
    let (out, mut events) = mpsc::channel(1);
    let reader = Reader { token, username: caller.username.clone(), org, uid, checked: Instant::now() };
    tokio::spawn(Feed { gateway, reader, request, out, told: None, slot }.run(page));
    let body =
        Body::from_stream(futures::stream::poll_fn(move |cx| events.poll_recv(cx).map(|e| e.map(Ok::<_, std::convert::Infallible>))));
    let headers = [
        (header::CONTENT_TYPE.as_str(), "text/event-stream"),
        (header::CACHE_CONTROL.as_str(), "no-store"),
        // Proxies must not collect what is to arrive now.
        ("x-accel-buffering", "no"),
    ];
    Ok((headers, body).into_response())
}

/// Why the chain cannot be told without a gap from after that sequence on.
fn lost(page: &Page, after: i64) -> Option<Problem> {
    if after > page.head {
        let message = format!("the chain ends with record {}, before {after}", page.head);
        return Some(
            Problem::new(StatusCode::GONE, reasons::AHEAD_OF_CHAIN, message)
                .hint("the ledger was restored from a backup, or the Org is another one of that name: start anew, without Last-Event-ID"),
        );
    }
    (page.first > after.saturating_add(1)).then(|| {
        let message =
            format!("records {} to {} were dropped by retention; the oldest one left is {}", after + 1, page.first - 1, page.first);
        let hint = format!("to read all that is left, ask with after={}", page.first - 1);
        Problem::new(StatusCode::GONE, reasons::RECORDS_DROPPED, message).hint(hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_those_that_are_read() {
        for name in PARAMETERS {
            let text = match name {
                "after" => "3",
                "since" => "2026-01-01T00:00:00Z",
                _ => "x",
            };
            let uri = format!("http://edge/?{name}={text}").parse().unwrap();
            Query::<Wanted>::try_from_uri(&uri).unwrap_or_else(|e| panic!("{name}: {}", e.body_text()));
        }
        assert!(Query::<Wanted>::try_from_uri(&"http://edge/?until=2026-01-01T00:00:00Z".parse().unwrap()).is_err());
    }

    #[test]
    fn what_was_seen_last_wins() {
        let from = |after: Option<i64>, header: Option<&str>| {
            let mut headers = HeaderMap::new();
            header.map(|h| headers.insert(LAST_EVENT_ID, h.parse().unwrap()));
            Wanted { after, ..Wanted::default() }.request(&headers).map(|(after, request)| (after, request.after))
        };
        assert_eq!(from(None, None).unwrap(), (None, i64::MAX));
        assert_eq!(from(Some(3), None).unwrap(), (Some(3), 3));
        assert_eq!(from(Some(3), Some("7")).unwrap(), (Some(7), 7));
        for bad in ["", "x", "7a", "-1", "99999999999999999999"] {
            assert_eq!(from(Some(3), Some(bad)).unwrap_err().status(), StatusCode::BAD_REQUEST, "{bad}");
        }
        assert!(from(Some(-1), None).is_err());
    }

    #[test]
    fn a_gap_is_told() {
        let page = Page { head: 40, first: 21, ..Page::default() };
        let told = |after| lost(&page, after).map(|p| (p.reason().to_owned(), p.message().to_owned()));
        assert_eq!(told(20), None);
        assert_eq!(told(40), None);
        assert_eq!(
            told(19).unwrap(),
            ("RecordsDropped".into(), "records 20 to 20 were dropped by retention; the oldest one left is 21".into())
        );
        assert_eq!(told(41).unwrap().0, "AheadOfChain");
        assert!(lost(&Page::default(), 0).is_none(), "a chain that has not begun");
        assert!(lost(&Page::default(), 1).is_some());
    }
}

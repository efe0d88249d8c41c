//! `GET /v1/orgs/{org}/records`: an Org's chain of records, page by page, for those whom Kubernetes lets `get` the resource
//! `records.polity.dev` in the Org's namespace (members auditor, viewer and others that read). The API server decides, for each request.
//!
//! Never answers a record to anybody else, and changes nothing.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use polity_api::{Caller, reasons};
use polity_ledger::Filter;
use polity_runtime::{
    access::{self, Access},
    internal::{MAX_WAIT_SECONDS, RecordsRequest},
};
use serde::Deserialize;

use crate::{calls::org_of, decide::busy, problem::Problem, state::Gateway};

/// Header with the sequence after which the next page comes.
pub const NEXT: &str = "polity-next";
/// Header with the sequence of the chain's last record.
pub const HEAD: &str = "polity-head";
/// Most records that one page looks at, unless fewer are asked for.
const LIMIT: i64 = 5000;

/// What of the chain is wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Wanted {
    after: i64,
    limit: Option<i64>,
    roots: bool,
    wait: u64,
    since: Option<jiff::Timestamp>,
    until: Option<jiff::Timestamp>,
    kind: String,
    agent: String,
    tool: String,
    task: String,
    verdict: String,
    trace: String,
    action: String,
}

/// Names of the parameters, for the OpenAPI document.
pub const PARAMETERS: [&str; 13] =
    ["after", "limit", "roots", "wait", "since", "until", "kind", "agent", "tool", "task", "verdict", "trace", "action"];

impl Wanted {
    fn request(self) -> RecordsRequest {
        let Self { after, limit, roots, wait, since, until, kind, agent, tool, task, verdict, trace, action } = self;
        let filter = Filter { since, until, kind, agent, tool, task, verdict, trace, action };
        RecordsRequest { after, limit: limit.unwrap_or(LIMIT).clamp(1, LIMIT), filter, roots, bytes: 0, wait: wait.min(MAX_WAIT_SECONDS) }
    }
}

/// `GET /v1/orgs/{org}/records`.
pub async fn read(
    State(gateway): State<Arc<Gateway>>,
    org: Result<Path<String>, PathRejection>,
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = gateway.caller(&headers).await?;
    let org = org_of(org)?;
    let Query(wanted) = wanted.map_err(|e| Problem::invalid(e.body_text()))?;
    let _slot = gateway.wait_slots.try_acquire().map_err(|_| busy())?;
    let (uid, namespace) = gateway.chain_of(&org)?;
    gateway.may_read(&caller, &namespace).await?;
    let page = gateway.core.records(&uid, &wanted.request()).await?;
    let mut text = page.lines.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    let headers = [
        (header::CONTENT_TYPE.as_str(), "application/x-ndjson".to_owned()),
        (header::CACHE_CONTROL.as_str(), "no-store".to_owned()),
        (NEXT, page.next.to_string()),
        (HEAD, page.head.to_string()),
    ];
    Ok((headers, Body::from(text)).into_response())
}

impl Gateway {
    /// Whether Kubernetes lets the caller read the records of the Org in that namespace.
    pub(crate) async fn may_read(&self, caller: &Caller, namespace: &str) -> Result<(), Problem> {
        let subject = access::Subject {
            username: caller.username.clone(),
            uid: caller.uid.clone(),
            groups: caller.groups.clone(),
            ..access::Subject::default()
        };
        let asked = Access { verb: "get", group: "polity.dev", resource: "records", namespace: Some(namespace), ..Access::default() };
        match access::allowed(&self.client, &subject, asked).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Problem::new(
                StatusCode::FORBIDDEN,
                reasons::NOT_PERMITTED,
                format!("{} may not get records.polity.dev in namespace {namespace}", caller.username),
            )
            .hint("an Org's members auditor and viewer may: Org.spec.members")),
            Err(error) => Err(Problem::unavailable(reasons::UNAVAILABLE, error.to_string())),
        }
    }

    /// Uid and namespace of an Org, whether or not it is open: its records are read in any state.
    pub(crate) fn chain_of(&self, org: &str) -> Result<(String, String), Problem> {
        let world = self.cache.world();
        let found = world.orgs.get(org).and_then(|o| Some((o.metadata.uid.clone()?, o.status.as_ref()?.namespace.as_ref()?.name.clone())));
        found.ok_or_else(|| Problem::not_found(format!("there is no Org {org}, or it has no namespace yet")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_those_that_are_read() {
        for name in PARAMETERS {
            let text = match name {
                "after" | "limit" | "wait" => "3",
                "roots" => "true",
                "since" | "until" => "2026-01-01T00:00:00Z",
                _ => "x",
            };
            let uri = format!("http://edge/?{name}={text}").parse().unwrap();
            Query::<Wanted>::try_from_uri(&uri).unwrap_or_else(|e| panic!("{name}: {}", e.body_text()));
        }
        assert!(Query::<Wanted>::try_from_uri(&"http://edge/?agnet=x".parse().unwrap()).is_err());
        assert_eq!(Wanted { limit: Some(i64::MAX), wait: 999, ..Wanted::default() }.request().limit, LIMIT);
    }
}

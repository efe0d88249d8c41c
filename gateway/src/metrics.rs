//! Metrics of the gateway: requests by route and status with their durations, calls by door and verdict. Labels come from closed sets; no name of an
//! Org, Tool or caller is one.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use polity_api::{reasons, toolcall::Phase};
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::{answer::Answer, problem::Problem, state::Gateway};

/// Way by which a call came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `POST calls`.
    Calls,
    /// MCP `tools/call`.
    Mcp,
    /// `evaluate`: decided only.
    Evaluate,
}

impl Door {
    fn label(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Mcp => "mcp",
            Self::Evaluate => "evaluate",
        }
    }
}

/// Counters and durations.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    calls: IntCounterVec,
    pub(crate) streams: IntGauge,
    pub(crate) streams_ended: IntCounterVec,
    pub(crate) events: IntCounter,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// They are registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let requests =
            IntCounterVec::new(Opts::new("polity_gateway_requests_total", "Requests answered by the gateway."), &["route", "status"])?;
        let buckets = vec![0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 300.0];
        let seconds = HistogramVec::new(
            HistogramOpts::new("polity_gateway_request_duration_seconds", "Time until the gateway's answer starts.").buckets(buckets),
            &["route"],
        )?;
        let calls = IntCounterVec::new(
            Opts::new("polity_gateway_calls_total", "Calls that agents asked for, by what was answered."),
            &["door", "verdict", "reason"],
        )?;
        let streams = IntGauge::new("polity_gateway_event_streams", "Streams of events under way.")?;
        let streams_ended =
            IntCounterVec::new(Opts::new("polity_gateway_event_streams_ended_total", "Streams of events that ended, by why."), &["why"])?;
        let events = IntCounter::new("polity_gateway_events_total", "Events handed to readers of streams.")?;
        registry.register(Box::new(streams.clone()))?;
        registry.register(Box::new(streams_ended.clone()))?;
        registry.register(Box::new(events.clone()))?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(calls.clone()))?;
        Ok(Self { requests, seconds, calls, streams, streams_ended, events })
    }

    /// One call answered: allowed (however it ended), waiting for people, denied, or not to be said.
    pub(crate) fn called(&self, door: Door, answer: &Result<Answer, Problem>) {
        match answer {
            Ok(answer) if matches!(answer.phase, Phase::WaitingApproval | Phase::Pending) => {
                self.counted(door, "RequireApproval", reasons::APPROVAL_REQUIRED);
            }
            Ok(answer) if answer.phase == Phase::Denied => self.counted(door, "Deny", &answer.reason),
            Ok(_) => self.counted(door, "Allow", ""),
            Err(problem) => self.counted(door, if problem.is_denial() { "Deny" } else { "Error" }, problem.reason()),
        }
    }

    /// One decision of this verdict.
    pub(crate) fn counted(&self, door: Door, verdict: &str, reason: &str) {
        let reason = if reason.is_empty() || reasons::ALL.iter().any(|(code, _)| *code == reason) { reason } else { "Other" };
        self.calls.with_label_values(&[door.label(), verdict, reason]).inc();
    }
}

/// Counts each request by the route that took it.
pub async fn count(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let started = Instant::now();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let metrics = &gateway.metrics;
    metrics.requests.with_label_values(&[route, response.status().as_str()]).inc();
    metrics.seconds.with_label_values(&[route]).observe(started.elapsed().as_secs_f64());
    response
}

//! Status of an Agent from what was found and done. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use polity_api::{AgentStatus, AgentType, conditions, names, reasons};

use super::{Facts, usernames::Refused, workers::worker};
use crate::{cluster::NotRunning, status::Writer};

/// What came of an AI Agent's workers.
#[derive(Debug, Default)]
pub struct Observed {
    /// Workers wanted now.
    pub wanted: usize,
    /// Workers that exist and have not ended.
    pub replicas: usize,
    /// Workers that are ready.
    pub ready: usize,
    /// Workers of the present template that are ready.
    pub current: usize,
    /// Why the API server refused a worker.
    pub refused: Option<String>,
    /// Ends in a row, the worker, and how it ended.
    pub crash: Option<(u32, String, Option<String>)>,
    /// When something changes by itself.
    pub again: Option<Timestamp>,
}

impl Observed {
    /// Counts Pods.
    pub fn count(&mut self, pods: &[Arc<Pod>], digest: &str, now: Timestamp) {
        let alive: Vec<_> = pods.iter().map(|p| worker(p, now)).filter(|w| !w.terminating && w.ended.is_none()).collect();
        self.replicas = alive.len();
        self.ready = alive.iter().filter(|w| w.ready).count();
        self.current = alive.iter().filter(|w| w.ready && w.template == digest).count();
    }
}

/// The status.
pub fn status(facts: &Facts, usernames: Result<Vec<String>, Refused>, observed: &Observed) -> AgentStatus {
    let mut status = facts.agent.status.clone().unwrap_or_default();
    let generation = facts.agent.metadata.generation.unwrap_or_default();
    status.observed_generation = generation;
    let refused = usernames.as_ref().err().cloned();
    status.usernames = usernames.unwrap_or_default();
    let mut writer = Writer { conditions: &mut status.conditions, generation, now: facts.now };
    if facts.agent.spec.type_ != AgentType::AI {
        match (refused, &facts.org) {
            (Some(refused), _) => writer.summary(false, true, refused.reason, &refused.message),
            (None, None) => writer.summary(false, false, reasons::ORG_NOT_READY, "This namespace belongs to no Org that is ready."),
            (None, Some(_)) => writer.summary(true, false, reasons::KNOWN, "Decisions know this Agent by its usernames."),
        }
        return status;
    }
    workers(&mut writer, facts, observed);
    let number = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    status.replicas = number(observed.replicas);
    status.ready_replicas = number(observed.ready);
    status.selector = Some(format!("{}=Agent,{}={}", names::LABEL_KIND, names::LABEL_NAME, facts.agent.name_any()));
    status
}

fn workers(writer: &mut Writer<'_>, facts: &Facts, observed: &Observed) {
    match &observed.refused {
        Some(why) => writer.set(reasons::SCALING_LIMITED, true, reasons::SCALING_LIMITED, why),
        None => conditions::clear(writer.conditions, reasons::SCALING_LIMITED),
    }
    let crash = observed.crash.as_ref().map(|(times, name, how)| {
        let how = how.as_ref().map(|h| format!(" with {h}")).unwrap_or_default();
        format!("A worker has ended {times} times in a row; {name}{how} is the last. It is started again, at most every 5 minutes; look at its log.")
    });
    match &crash {
        Some(message) => writer.set(reasons::CRASH_LOOPING, true, reasons::CRASH_LOOPING, message),
        None => conditions::clear(writer.conditions, reasons::CRASH_LOOPING),
    }
    let Observed { wanted, current, .. } = observed;
    match (&facts.org, &facts.running, &observed.refused, crash) {
        (None, ..) => {
            writer.summary(false, false, reasons::ORG_NOT_READY, "No worker runs: this namespace belongs to no Org that is ready.");
        }
        (_, Err(why @ NotRunning::NotCounted(_)), ..) => writer.summary(false, false, why.reason(), &format!("No worker starts: {why}.")),
        (_, Err(why), ..) => writer.summary(observed.replicas == 0, false, why.reason(), &format!("No worker runs: {why}.")),
        (_, _, Some(why), _) => writer.summary(false, false, reasons::SCALING_LIMITED, why),
        (_, _, _, Some(crash)) => writer.summary(false, false, reasons::CRASH_LOOPING, &crash),
        _ if current >= wanted && observed.replicas == *wanted => {
            writer.summary(true, false, reasons::RUNNING, &format!("{wanted} workers are ready."));
        }
        _ => writer.summary(false, false, reasons::STARTING, &format!("Waits for {wanted} workers to be ready.")),
    }
}

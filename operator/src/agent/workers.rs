//! Reads worker Pods for the planner. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use kube::ResourceExt;
use polity_api::names;
use polity_plan::workers::Worker;

use super::build::ATTEMPT;

/// One Pod as the planner sees it.
pub fn worker(pod: &Pod, now: Timestamp) -> Worker {
    let created = pod.creation_timestamp().map_or(now, |t| t.0);
    let status = pod.status.clone().unwrap_or_default();
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    // An evicted Pod has no container that ended; its conditions tell when.
    let ended = over.then(|| {
        let of_container = terminated(pod).and_then(|t| t.finished_at.as_ref()).map(|t| t.0);
        let of_pod = status.conditions.iter().flatten().filter_map(|c| c.last_transition_time.as_ref()).map(|t| t.0).max();
        of_container.or(of_pod).unwrap_or(created)
    });
    Worker {
        name: pod.name_any(),
        template: pod.labels().get(names::LABEL_TEMPLATE).cloned().unwrap_or_default(),
        attempt: pod.annotations().get(ATTEMPT).and_then(|a| a.parse().ok()).unwrap_or_default(),
        created,
        ready: status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True"),
        ended,
        terminating: pod.metadata.deletion_timestamp.is_some(),
    }
}

/// How the worker ended, in a few words.
pub fn last_words(pod: &Pod) -> Option<String> {
    if let Some(ended) = terminated(pod) {
        return Some(format!("exit code {}{}", ended.exit_code, ended.reason.as_ref().map(|r| format!(" ({r})")).unwrap_or_default()));
    }
    pod.status.as_ref()?.reason.clone()
}

fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find_map(|c| c.state.as_ref()?.terminated.as_ref())
}

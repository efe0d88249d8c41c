//! Waiting until the objects of an example are Ready, and saying what is not.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::wait::{Look, until};
use crate::{install, run};

/// All definition kinds.
const ALL: &str = "orgs.polity.dev,roles.polity.dev,policies.polity.dev,tools.polity.dev,agents.polity.dev";

/// Waits until every definition on the cluster is Ready.
pub fn wait(cluster: &Cluster, deadline: Duration) -> Result<()> {
    until(deadline, "everything Ready", || {
        let waiting = not_ready(cluster)?;
        Ok(if waiting.is_empty() { Look::Done(()) } else { Look::NotYet(format!("not Ready:\n  {}", waiting.join("\n  "))) })
    })
    .inspect_err(|_| {
        let mut logs = cluster.kubectl();
        logs.args(["logs", "--namespace", install::NAMESPACE, "--tail=20", "--selector=app.kubernetes.io/component=core"]);
        println!("--- log of core\n{}", run::attempt(&mut logs).unwrap_or_default());
    })
}

/// One line for each object that is not Ready: what it is, and the reason it gives.
fn not_ready(cluster: &Cluster) -> Result<Vec<String>> {
    let text = run::output(cluster.kubectl().args(["get", ALL, "--all-namespaces", "-o", "json"]))?;
    let list: Value = serde_json::from_str(&text).context("objects as JSON")?;
    let objects = list["items"].as_array().cloned().unwrap_or_default();
    Ok(objects.iter().filter_map(line).collect())
}

fn line(object: &Value) -> Option<String> {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready").cloned().unwrap_or_default();
    let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
    if ready["status"] == "True" && current {
        return None;
    }
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    Some(format!(
        "{} {}/{}: {} {}",
        text(&object["kind"]),
        object["metadata"]["namespace"].as_str().unwrap_or(""),
        text(&object["metadata"]["name"]),
        text(&ready["reason"]),
        text(&ready["message"]),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ready_counts_only_for_the_current_generation() {
        let object = |observed: i64, status: &str| {
            json!({"kind": "Org", "metadata": {"name": "acme", "generation": 2}, "status": {
                "observedGeneration": observed,
                "conditions": [{"type": "Ready", "status": status, "reason": "Provisioning", "message": "namespace"}],
            }})
        };
        assert_eq!(line(&object(2, "True")), None);
        assert_eq!(line(&object(1, "True")).as_deref(), Some("Org /acme: Provisioning namespace"));
        assert!(line(&object(2, "False")).is_some());
        assert!(line(&json!({"kind": "Org", "metadata": {"name": "acme", "generation": 1}})).is_some());
    }
}

//! `approvals`: what waits for somebody's word, with the input as it will run.

use std::io::Write;

use anyhow::Result;
use kube::{Api, ResourceExt, api::ListParams};
use polity_api::{
    Approval,
    approval::{ApprovalPhase, Requirement},
};
use serde_json::{Value, json};

use super::{Cluster, short, worded};
use crate::{
    Verdict,
    args::{ApprovalsArgs, Output},
    table,
};

pub async fn run(cluster: &Cluster, args: &ApprovalsArgs, out: &mut dyn Write) -> Result<Verdict> {
    let api: Api<Approval> =
        if args.all_namespaces { Api::all(cluster.client.clone()) } else { Api::namespaced(cluster.client.clone(), &cluster.namespace) };
    let list = api.list(&ListParams::default()).await.map_err(|e| worded(e, "cannot list Approvals"))?;
    let pending = |a: &Approval| a.status.as_ref().and_then(|s| s.phase).is_none_or(|phase| phase == ApprovalPhase::Pending);
    let mut waiting: Vec<Approval> = list.items.into_iter().filter(pending).collect();
    waiting.sort_by_key(|a| a.spec.expires_at.0);
    if args.output == Output::Json {
        writeln!(out, "{}", json!({"apiVersion": "v1", "kind": "List", "items": waiting}))?;
        return Ok(Verdict::Good);
    }
    if waiting.is_empty() {
        writeln!(out, "Nothing waits for approval.")?;
        return Ok(Verdict::Good);
    }
    let rows: Vec<Vec<String>> = waiting.iter().map(row).collect();
    table::print(out, &["NAMESPACE", "NAME", "REQUESTER", "TARGET", "NEEDS", "EXPIRES", "INPUT"], &rows)?;
    Ok(Verdict::Good)
}

fn row(approval: &Approval) -> Vec<String> {
    let spec = &approval.spec;
    let met = |rule: &str| approval.status.iter().flat_map(|s| &s.requirements).find(|p| p.rule == rule).map_or(0, |p| p.approved_by.len());
    let needs = spec.requirements.iter().map(|r| format!("{}/{} {}", met(&r.rule), r.count, who(r))).collect::<Vec<_>>().join(", ");
    vec![
        approval.namespace().unwrap_or_default(),
        approval.name_any(),
        spec.requester.username.clone(),
        format!("{} {}", spec.action.verb, spec.action.target.name),
        needs,
        spec.expires_at.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        short(&Value::Object(spec.input.clone()), 120),
    ]
}

fn who(requirement: &Requirement) -> String {
    if let Some(role) = &requirement.role {
        return format!("role {}{}", role.org.as_ref().map(|o| format!("{o}/")).unwrap_or_default(), role.name);
    }
    requirement.group.as_ref().map_or_else(|| "superior".to_owned(), |group| format!("group {group}"))
}

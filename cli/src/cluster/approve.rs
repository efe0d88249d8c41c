//! `approve`: adds the user's own entry to an Approval. The server decides whether it counts, and stamps it.

use std::io::Write;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use polity_api::Approval;
use serde_json::{Value, json};

use super::{Cluster, worded};
use crate::{Verdict, args::ApproveArgs};

/// How often somebody else may get in between.
const TRIES: usize = 5;

pub async fn run(cluster: &Cluster, args: &ApproveArgs, out: &mut dyn Write) -> Result<Verdict> {
    let username = whoami(&cluster.client).await?;
    // Raw objects: others' entries go back exactly as they came.
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &ApiResource::erase::<Approval>(&()));
    for _ in 0..TRIES {
        let approval = api.get(&args.name).await.map_err(|e| worded(e, "cannot read the Approval"))?;
        let patch = with_entry(&approval, &username, args)?;
        match api.patch(&args.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => {
                let did = if args.deny { "denied" } else { "approved" };
                writeln!(out, "approval.polity.dev/{} {did} by {username}", args.name)?;
                return Ok(Verdict::Good);
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(e) => return Err(worded(e, "not accepted")),
        }
    }
    bail!("the Approval changed {TRIES} times meanwhile; try again")
}

/// The user's name as the API server gives it.
async fn whoami(client: &Client) -> Result<String> {
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let review =
        api.create(&PostParams::default(), &SelfSubjectReview::default()).await.map_err(|e| worded(e, "cannot find out who you are"))?;
    review.status.and_then(|s| s.user_info).and_then(|u| u.username).context("the API server does not say who you are")
}

/// All decisions with the own one added, valid only for the version that was read.
fn with_entry(approval: &DynamicObject, username: &str, args: &ApproveArgs) -> Result<Value> {
    let phase = approval.data["status"]["phase"].as_str().unwrap_or("Pending");
    if phase != "Pending" {
        bail!("the Approval is {phase} already");
    }
    let mut decisions = approval.data["spec"]["decisions"].as_array().cloned().unwrap_or_default();
    if let Some(own) = decisions.iter().find(|d| d["by"] == username) {
        bail!("you ({username}) have decided already: {}", own["decision"].as_str().unwrap_or_default());
    }
    let mut entry = json!({"by": username, "decision": if args.deny { "Deny" } else { "Approve" }});
    if let Some(reason) = &args.reason {
        entry["reason"] = json!(reason);
    }
    decisions.push(entry);
    Ok(json!({"metadata": {"resourceVersion": approval.metadata.resource_version}, "spec": {"decisions": decisions}}))
}

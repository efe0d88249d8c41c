//! Records read through the edge: by whom Kubernetes lets, whole, verified, and by nobody else.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{authentication::v1::TokenRequestSpec, core::v1::ConfigMap};
use kube::{Api, api::PostParams};
use polity_api::{ToolCall, toolcall::Phase};
use polity_e2e::{apply, org_name, parts::Polity, until};

use crate::{
    fixtures::{self, SOON},
    help,
};

/// The command line's `audit`, ready to run against the edge.
pub fn command(polity: &Polity, org: &str, token: &str, args: &[&str]) -> Result<Command> {
    let cli = std::env::var_os("POLITY_E2E_CLI").context("POLITY_E2E_CLI is not set: run `cargo xtask test`")?;
    let file = polity.dir.join(format!("{org}.token"));
    std::fs::write(&file, token)?;
    let mut command = Command::new(cli);
    command
        .arg("audit")
        .args(args)
        .args(["--server", &polity.gateway(), "--org", org])
        .arg("--token-file")
        .arg(&file)
        .arg("--ca-file")
        .arg(polity.dir.join(format!("{org}.crt")));
    Ok(command)
}

/// What the command line said: whether it ended well, and its output with errors.
pub fn audit(polity: &Polity, org: &str, token: &str, args: &[&str]) -> Result<(bool, String)> {
    let output = command(polity, org, token, args)?.output()?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), text))
}

/// An account `auditor` of the Org with its right, and one `stranger` without; the token of the first. The CA is where `audit` looks for it.
pub async fn auditor(polity: &Polity, org: &str) -> Result<String> {
    let admin = polity.cluster.admin().await?;
    apply(
        &admin,
        &format!(
            "
apiVersion: v1
kind: ServiceAccount
metadata: {{name: auditor, namespace: {org}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: stranger, namespace: {org}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: auditor, namespace: {org}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: polity-org-auditor}}
subjects: [{{kind: ServiceAccount, name: auditor, namespace: {org}}}]
"
        ),
    )
    .await?;
    let ca: Api<ConfigMap> = Api::namespaced(admin.clone(), org);
    let ca = ca.get(polity_api::names::CA_CONFIGMAP).await?.data.unwrap_or_default();
    std::fs::write(polity.dir.join(format!("{org}.crt")), ca.get("ca.crt").context("ca.crt")?)?;
    help::may(&admin, &format!("system:serviceaccount:{org}:auditor"), org, "get", "records").await?;
    token(polity, org, "auditor").await
}

/// A token of audience `polity`.
pub async fn token(polity: &Polity, org: &str, account: &str) -> Result<String> {
    let spec = TokenRequestSpec { audiences: vec!["polity".to_owned()], expiration_seconds: Some(600), ..TokenRequestSpec::default() };
    polity.cluster.token(org, account, spec).await
}

/// An auditor queries, exports and verifies; an account without the right reads nothing.
pub async fn through_the_edge(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("audited");
    let uid = fixtures::organisation(&admin, &org).await?;
    let auditor = auditor(polity, &org).await?;

    let call = help::bot(polity, &org).await?.create(&PostParams::default(), &help::small()).await?;
    let calls: Api<ToolCall> = Api::namespaced(admin.clone(), &org);
    let name = call.metadata.name.context("name")?;
    until(SOON, "the call runs", || async {
        let call = calls.get(&name).await.map_err(|e| e.to_string())?;
        if call.status.as_ref().and_then(|s| s.phase) == Some(Phase::Running) { Ok(()) } else { Err(format!("{:?}", call.status)) }
    })
    .await?;

    let exported = until(SOON, "the auditor's right", || async {
        match audit(polity, &org, &auditor, &["export"]) {
            Ok((true, text)) => Ok(text),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    let stored: Vec<String> =
        polity_e2e::ledger::records(&polity.dir.join("data"), &uid)?.iter().map(polity_ledger::Record::to_line).collect();
    let seen: Vec<&str> = exported.lines().collect();
    ensure!(!seen.is_empty() && stored.iter().zip(&seen).all(|(stored, seen)| stored == seen), "not what is stored: {exported}");
    let (good, text) = audit(polity, &org, &auditor, &["verify", "--org-uid", &uid])?;
    ensure!(good && text.contains("whole:"), "{text}");
    let call_uid = call.metadata.uid.context("uid")?;
    let (good, text) = audit(polity, &org, &auditor, &["query", "--kind", "begin", "--action", &call_uid])?;
    ensure!(good && text.lines().count() == 1 && text.contains(&call_uid), "{text}");
    let (good, text) = audit(polity, &org, &auditor, &["query", "--kind", "begin", "--tool", "pay", "-o", "csv"])?;
    ensure!(good && text.lines().count() == 2 && text.starts_with("seq,time,kind,"), "{text}");

    let stranger = token(polity, &org, "stranger").await?;
    let (good, text) = audit(polity, &org, &stranger, &["query"])?;
    ensure!(!good && text.contains("403") && text.contains("records.polity.dev"), "{text}");
    let (good, text) = audit(polity, &org, "nonsense", &["query"])?;
    ensure!(!good && text.contains("401"), "{text}");
    Ok(())
}

//! A small organisation that tests vary: one tool, one agent, a manager, a rule that denies and one that asks.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::{Api, Client, api::ListParams};
use polity_api::{Org, Role, conditions};
use polity_e2e::{apply, until};

/// How long core may take to bring something about: a bound for a machine that is busy with other things, and no promise.
pub const SOON: Duration = Duration::from_secs(120);

/// Manifests of an Org `name`: `bot` may call `pay`; up to 50 freely, to 500 with a manager's approval, never to `mallory`.
pub fn manifests(name: &str) -> String {
    format!(
        "
apiVersion: polity.dev/v1alpha1
kind: Org
metadata: {{name: {name}}}
spec:
  members:
  - {{kind: User, name: bot@{name}, role: engineer}}
  - {{kind: User, name: boss@{name}, role: approver}}
  - {{kind: User, name: other@{name}, role: approver}}
---
apiVersion: polity.dev/v1alpha1
kind: Agent
metadata: {{name: bot, namespace: {name}}}
spec: {{type: System, usernames: [bot@{name}]}}
---
apiVersion: polity.dev/v1alpha1
kind: Agent
metadata: {{name: boss, namespace: {name}}}
spec: {{type: Human, usernames: [boss@{name}]}}
---
apiVersion: polity.dev/v1alpha1
kind: Agent
metadata: {{name: other, namespace: {name}}}
spec: {{type: Human, usernames: [other@{name}]}}
---
apiVersion: polity.dev/v1alpha1
kind: Role
metadata: {{name: manager, namespace: {name}}}
spec: {{assignment: {{agents: [boss]}}}}
---
apiVersion: polity.dev/v1alpha1
kind: Role
metadata: {{name: payer, namespace: {name}}}
spec:
  grants: [{{tools: [pay]}}]
  reportsTo: {{name: manager}}
  assignment: {{agents: [bot]}}
---
apiVersion: polity.dev/v1alpha1
kind: Tool
metadata: {{name: pay, namespace: {name}}}
spec:
  inputSchema:
    type: object
    required: [amount, to]
    additionalProperties: false
    properties:
      amount: {{type: integer, minimum: 1}}
      to: {{type: string, maxLength: 64}}
  price: {{usd: \"0.10\"}}
  runtime: {{container: {{image: docker.io/polity/polity:dev, command: [/pay]}}}}
---
apiVersion: polity.dev/v1alpha1
kind: Policy
metadata: {{name: limits, namespace: {name}}}
spec:
  match: {{tools: [pay]}}
  rules:
  - name: not-mallory
    expression: args.to != 'mallory'
    effect: Deny
    message: mallory is never paid
    hint: pay somebody else
  - name: small
    expression: args.amount <= 50
    effect: RequireApproval
    message: payments above 50 need a manager
    approval: {{role: {{name: manager}}}}
"
    )
}

/// Applies the organisation and waits until it takes calls.
pub async fn organisation(client: &Client, name: &str) -> Result<String> {
    of_manifests(client, name, &manifests(name)).await
}

/// The same organisation as a unit of another.
pub async fn unit(client: &Client, name: &str, parent: &str) -> Result<String> {
    let yaml = manifests(name).replacen("spec:", &format!("spec:\n  parentRef: {{name: {parent}}}"), 1);
    of_manifests(client, name, &yaml).await
}

async fn of_manifests(client: &Client, name: &str, yaml: &str) -> Result<String> {
    // The namespace is made by core: what lives in it is applied as soon as it is there.
    let (org, rest) = yaml.split_once("---").unwrap_or((yaml, ""));
    apply(client, org).await?;
    ready(client, name).await?;
    apply(client, rest).await?;
    counted(client, name).await?;
    let roles: Api<Role> = Api::namespaced(client.clone(), name);
    for role in ["manager", "payer"] {
        until(SOON, "the Role has its holder", || async {
            let role = roles.get(role).await.map_err(|e| e.to_string())?;
            if role.status.as_ref().is_some_and(|s| s.holders.len() == 1) { Ok(()) } else { Err(format!("{:?}", role.status)) }
        })
        .await?;
    }
    let orgs: Api<Org> = Api::all(client.clone());
    Ok(orgs.get(name).await?.metadata.uid.unwrap_or_default())
}

/// Waits until the cluster's quota controller counts: on a new cluster it learns of new kinds every 30 s, and refuses them till then.
async fn counted(client: &Client, name: &str) -> Result<()> {
    let quotas: Api<ResourceQuota> = Api::namespaced(client.clone(), name);
    until(SOON, "the quota is counted", || async {
        let list = quotas.list(&ListParams::default()).await.map_err(|e| e.to_string())?;
        let counted = |q: &ResourceQuota| {
            let hard = q.spec.as_ref().and_then(|s| s.hard.clone()).unwrap_or_default();
            q.status.as_ref().and_then(|s| s.used.clone()).is_some_and(|used| hard.keys().all(|k| used.contains_key(k)))
        };
        if list.items.iter().all(counted) { Ok(()) } else { Err(format!("{:?}", list.items.iter().map(|q| &q.status).collect::<Vec<_>>())) }
    })
    .await
}

/// Waits until the Org is Ready.
pub async fn ready(client: &Client, name: &str) -> Result<Org> {
    let orgs: Api<Org> = Api::all(client.clone());
    until(SOON, "the Org is Ready", || async {
        let org = orgs.get(name).await.map_err(|e| e.to_string())?;
        let list = org.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
        if conditions::is_true(&list, conditions::READY) { Ok(org) } else { Err(serde_json::to_string(&list).unwrap_or_default()) }
    })
    .await
}

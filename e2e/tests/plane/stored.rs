//! What was stored when the schema was another one: it stays updatable where it is not touched, as Kubernetes ratchets, and what is
//! written anew must be right.

use anyhow::{Context, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use polity_e2e::{apply, cluster::repo, manifests, org_name, parts::Polity, until};
use serde_json::{Value, json};

use crate::{
    fixtures::{self, SOON},
    help,
};

/// The definition that the chart ships, as text.
fn shipped() -> Result<String> {
    std::fs::read_to_string(repo().join("crds/roles.yaml")).context("crds/roles.yaml")
}

/// Takes every length and every rule of CEL out of a schema.
fn loosen(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.retain(|name, value| !(name == "maxLength" && value.is_number()) && name != "x-kubernetes-validations");
            fields.values_mut().for_each(loosen);
        }
        Value::Array(list) => list.iter_mut().for_each(loosen),
        _ => {}
    }
}

/// A Role from before two rules became tighter: a description that is too long now, a Fixed position with two agents.
pub async fn older_objects_stay_updatable(polity: &mut Polity) -> Result<()> {
    let result = ratcheted(polity).await;
    // Whatever happened: the other tests want the definition that is shipped.
    let crds: Api<CustomResourceDefinition> = Api::all(polity.cluster.admin().await?);
    let wanted: Value = manifests::documents(&shipped()?)?.remove(0);
    replace(&crds, wanted).await?;
    result
}

async fn replace(crds: &Api<CustomResourceDefinition>, mut wanted: Value) -> Result<()> {
    until(SOON, "the definition is written", || {
        let wanted = &mut wanted;
        let present = crds.get("roles.polity.dev");
        let wanted = wanted.clone();
        async move {
            let mut present = present.await.map_err(|e| e.to_string())?;
            present.spec = serde_json::from_value(wanted["spec"].clone()).map_err(|e| e.to_string())?;
            crds.replace("roles.polity.dev", &PostParams::default(), &present).await.map(drop).map_err(|e| e.to_string())
        }
    })
    .await
}

async fn ratcheted(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("older");
    fixtures::organisation(&admin, &org).await?;
    let crds: Api<CustomResourceDefinition> = Api::all(admin.clone());
    let tight: Value = manifests::documents(&shipped()?)?.remove(0);
    let mut loose = tight.clone();
    loosen(&mut loose["spec"]["versions"][0]["schema"]);
    ensure!(loose != tight, "nothing to loosen");
    replace(&crds, loose).await?;

    let long = "x".repeat(5000);
    let role = |name: &str, description: &str| {
        json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Role", "metadata": {"name": name, "namespace": org}, "spec": {
            "description": description, "grants": [{"tools": ["pay"]}], "assignment": {"mode": "Fixed", "agents": ["boss", "other"]}}})
    };
    let roles: Api<DynamicObject> = manifests::api_of(&admin, &role("old", ""))?;
    // The API server serves the looser schema a moment later.
    until(SOON, "the Role is stored under the looser schema", || async {
        apply(&admin, &role("old", &long).to_string()).await.map(drop).map_err(|e| format!("{e:#}"))
    })
    .await?;
    replace(&crds, tight).await?;
    let fresh: DynamicObject = serde_json::from_value(role("new", &long))?;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    until(SOON, "the tighter schema is in force", || async {
        match roles.create(&dry, &fresh).await {
            Err(kube::Error::Api(status)) if status.code == 422 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;

    let change = async |patch: Value| roles.patch("old", &PatchParams::default(), &Patch::Merge(patch)).await;
    change(json!({"metadata": {"labels": {"team": "finance"}}})).await.context("labels")?;
    change(json!({"spec": {"grants": [{"tools": ["pay", "other-*"]}]}})).await.context("a field that has nothing to do with it")?;
    let refused = change(json!({"spec": {"description": "y".repeat(5000)}})).await;
    help::refused(refused, 422, &["spec.description"]).context("another long description")?;
    let refused = change(json!({"spec": {"assignment": {"agents": ["boss", "other", "bot"]}}})).await;
    help::refused(refused, 422, &["Fixed"]).context("a third agent")?;
    change(json!({"spec": {"description": "short", "assignment": {"agents": ["boss"]}}})).await.context("put right")?;
    // Core has lived with it all the time.
    help::takes(&help::bot(polity, &org).await?, &help::small()).await
}

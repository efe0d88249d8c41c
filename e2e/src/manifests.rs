//! Manifests in YAML, applied as a user would, by server-side apply.

use anyhow::{Context, Result};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};

/// Field manager of the tests.
const MANAGER: &str = "polity-e2e";

/// A name for an Org that no other test uses.
#[must_use]
pub fn org_name(what: &str) -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("{what}-{}", &id[..8])
}

/// Applies every document of a YAML text, in order, as this client's user. The first refusal ends it.
///
/// # Errors
/// A document cannot be read, or the API server refuses it.
pub async fn apply(client: &Client, yaml: &str) -> Result<Vec<DynamicObject>> {
    let mut applied = Vec::new();
    for document in documents(yaml)? {
        applied.push(apply_one(client, document).await?);
    }
    Ok(applied)
}

/// As [`apply`], and the refusal as the API server said it.
///
/// # Errors
/// A document cannot be read.
pub async fn apply_as(client: &Client, yaml: &str) -> Result<Result<(), kube::Error>> {
    for document in documents(yaml)? {
        if let Err(error) = apply_one(client, document).await {
            return match error.downcast::<kube::Error>() {
                Ok(error) => Ok(Err(error)),
                Err(error) => Err(error),
            };
        }
    }
    Ok(Ok(()))
}

/// The documents of a YAML text.
///
/// # Errors
/// One cannot be read.
pub fn documents(yaml: &str) -> Result<Vec<serde_json::Value>> {
    let all: Vec<serde_json::Value> = serde_saphyr::from_multiple(yaml).context("reading YAML")?;
    Ok(all.into_iter().filter(|d| !d.is_null()).collect())
}

/// An API for any kind that a manifest may have.
///
/// # Errors
/// The manifest has no kind or version.
pub fn api_of(client: &Client, document: &serde_json::Value) -> Result<Api<DynamicObject>> {
    let kind = document["kind"].as_str().context("manifest without kind")?;
    let version = document["apiVersion"].as_str().context("manifest without apiVersion")?;
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    if kind == "NetworkPolicy" {
        resource.plural = "networkpolicies".to_owned();
    }
    Ok(match document["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    })
}

async fn apply_one(client: &Client, document: serde_json::Value) -> Result<DynamicObject> {
    let name = document["metadata"]["name"].as_str().context("manifest without name")?.to_owned();
    let api = api_of(client, &document)?;
    Ok(api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(document)).await?)
}

//! Writes a status, only when it says something new, and only what changed. Other writers' fields stay as they are.

use std::{fmt::Debug, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, Resource,
    api::{ObjectMeta, Patch},
    core::object::HasStatus,
};
use polity_api::conditions;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    apply::manager,
    compare::merge_patch,
    engine::{Key, key_of, store::Store, workers::Failure},
    requeue::{Category, Outcome, category},
};

/// Why a status was not written.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// It cannot be written as JSON.
    #[error("a status cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// The API server refused or failed.
    #[error("writing the status of {0} {1}/{2}")]
    Kube(String, String, String, #[source] Box<kube::Error>),
}

impl Failure for StatusError {
    fn category(&self) -> Category {
        match self {
            Self::Json(_) => Category::Invalid,
            // The object is gone: nothing is missing that would come.
            Self::Kube(.., source) => category(source),
        }
    }
}

/// Conditions of one object on their way to its status.
pub struct Writer<'a> {
    /// The conditions.
    pub conditions: &'a mut Vec<Condition>,
    /// `metadata.generation` that they are about.
    pub generation: i64,
    /// Present time.
    pub now: Timestamp,
}

impl Writer<'_> {
    /// Sets one.
    pub fn set(&mut self, type_: &str, status: bool, reason: &str, message: &str) {
        conditions::set(self.conditions, type_, status, reason, message, self.generation, self.now);
    }

    /// Sets Ready, Reconciling and Stalled.
    pub fn summary(&mut self, ready: bool, stalled: bool, reason: &str, message: &str) {
        conditions::summary(self.conditions, ready, stalled, reason, message, self.generation, self.now);
    }
}

/// Writes `new` when it differs from what `object` has.
///
/// # Errors
/// The API server refused.
pub async fn write<K>(api: &Api<K>, store: &Arc<Store<K>>, object: &K, new: &K::Status) -> Result<(), StatusError>
where
    K: Resource<DynamicType = ()> + HasStatus + Serialize + DeserializeOwned + Clone + Debug,
    K::Status: Serialize,
{
    let old = object.status().map_or(Ok(json!({})), serde_json::to_value)?;
    let Some(patch) = merge_patch(&old, &serde_json::to_value(new)?) else { return Ok(()) };
    let written = patch_status(api, object.meta(), patch).await?;
    store.learn(written);
    Ok(())
}

async fn patch_status<K>(api: &Api<K>, meta: &ObjectMeta, patch: Value) -> Result<K, StatusError>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let (namespace, name) = key_of(meta);
    // The uid: never the status of one object on another of the same name.
    let patch = json!({"metadata": {"uid": meta.uid}, "status": patch});
    api.patch_status(&name, &manager(), &Patch::Merge(patch))
        .await
        .map_err(|e| StatusError::Kube(K::kind(&()).into_owned(), namespace, name, Box::new(e)))
}

/// Says of a stored object that cannot be decoded that it cannot. Writes once per generation.
///
/// # Errors
/// The API server refused.
pub async fn undecodable<K>(client: &kube::Client, store: &Arc<Store<K>>, key: &Key, now: Timestamp) -> Result<Outcome, StatusError>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let Some(broken) = store.broken(&key.0, &key.1) else { return Ok(Outcome::Gone) };
    let generation = broken.metadata.generation.unwrap_or_default();
    if store.told(key, generation) {
        return Ok(Outcome::Settled);
    }
    let mut list = Vec::new();
    conditions::summary(
        &mut list,
        false,
        true,
        "Undecodable",
        &format!("Polity cannot read this object: {}", broken.error),
        generation,
        now,
    );
    let resource = kube::core::ApiResource::erase::<K>(&());
    let api: Api<kube::core::DynamicObject> =
        if key.0.is_empty() { Api::all_with(client.clone(), &resource) } else { Api::namespaced_with(client.clone(), &key.0, &resource) };
    let patch = json!({"metadata": {"uid": broken.metadata.uid}, "status": {"observedGeneration": generation, "conditions": list}});
    let result = api.patch_status(&key.1, &manager(), &Patch::Merge(patch)).await;
    result.map(|_| Outcome::Settled).map_err(|e| StatusError::Kube(K::kind(&()).into_owned(), key.0.clone(), key.1.clone(), Box::new(e)))
}

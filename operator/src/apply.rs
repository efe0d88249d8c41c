//! The only way in which controllers write children: compare, apply under one field manager, prune.
//!
//! Nothing is written that is already so, and nothing is touched that core did not make: an object is ours when its controlling owner
//! is the object we act for. What an answer says goes into the cache at once.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{ConfigMap, LimitRange, Pod, ResourceQuota, ServiceAccount},
        networking::v1::NetworkPolicy,
        rbac::v1::RoleBinding,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use polity_api::names;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    cluster::{Cluster, controller_uid},
    compare::difference,
    context::Context,
    engine::{key_of, store::Store, workers::Failure},
    killpoint,
    requeue::{Category, category},
};

/// A kind that controllers make in an Org's namespace.
pub trait Child:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
    /// Name of the kind.
    const NAME: &'static str;
    /// Top-level fields that hold nothing but ours.
    const EXACT: &'static [&'static str];
    /// Where it is cached.
    fn store(cluster: &Cluster) -> &Arc<Store<Self>>;
}

macro_rules! child {
    ($kind:ident, $field:ident, $exact:expr) => {
        impl Child for $kind {
            const NAME: &'static str = stringify!($kind);
            const EXACT: &'static [&'static str] = &$exact;
            fn store(cluster: &Cluster) -> &Arc<Store<Self>> {
                &cluster.$field
            }
        }
    };
}
child!(ResourceQuota, quotas, ["spec"]);
child!(LimitRange, limits, ["spec"]);
child!(NetworkPolicy, network, ["spec"]);
child!(RoleBinding, bindings, ["subjects"]);
child!(ConfigMap, maps, ["data", "binaryData"]);
child!(ServiceAccount, accounts, []);
child!(Pod, pods, []);

/// Why a child was not written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Somebody else's object has that name.
    #[error("{kind} {namespace}/{name} exists and belongs to somebody else; rename or delete it")]
    Taken {
        /// Kind.
        kind: &'static str,
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// It is being deleted; wait for its end.
    #[error("{kind} {namespace}/{name} is being deleted")]
    Terminating {
        /// Kind.
        kind: &'static str,
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// What we want cannot be written as JSON.
    #[error("{0} cannot be written as JSON")]
    Json(&'static str, #[source] serde_json::Error),
    /// The API server refused or failed.
    #[error("{what} {kind} {namespace}/{name}")]
    Kube {
        /// What was tried.
        what: &'static str,
        /// Kind.
        kind: &'static str,
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// Why it failed.
        #[source]
        source: Box<kube::Error>,
    },
}

impl Failure for ApplyError {
    fn category(&self) -> Category {
        match self {
            Self::Taken { .. } => Category::Missing,
            Self::Terminating { .. } => Category::Conflict,
            Self::Json(..) => Category::Invalid,
            Self::Kube { source, .. } => category(source),
        }
    }
}

fn failed<K: Child>(what: &'static str, object: &K, source: kube::Error) -> ApplyError {
    let (namespace, name) = key_of(object.meta());
    ApplyError::Kube { what, kind: K::NAME, namespace, name, source: Box::new(source) }
}

/// Makes a child what `desired` says, whose first owner reference is the object that it is made for. `foreign`: the namespace
/// was not made by core, so that a name may be taken by an object that the caches do not show.
///
/// # Errors
/// Not ours, being deleted, or the API server refused.
pub async fn apply<K: Child>(ctx: &Context, desired: &K, foreign: bool) -> Result<Arc<K>, ApplyError> {
    let (namespace, name) = key_of(desired.meta());
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &namespace);
    let want = serde_json::to_value(desired).map_err(|e| ApplyError::Json(K::NAME, e))?;
    let mut live = K::store(&ctx.cluster).get(&namespace, &name);
    if live.is_none() && foreign {
        live = api.get_opt(&name).await.map_err(|e| failed("reading", desired, e))?.map(Arc::new);
    }
    if let Some(live) = live {
        if controller_uid(live.as_ref()) != controller_uid(desired) {
            return Err(ApplyError::Taken { kind: K::NAME, namespace, name });
        }
        if live.meta().deletion_timestamp.is_some() {
            return Err(ApplyError::Terminating { kind: K::NAME, namespace, name });
        }
        let have = serde_json::to_value(live.as_ref()).map_err(|e| ApplyError::Json(K::NAME, e))?;
        let difference = difference(&want, &have, K::EXACT);
        if difference.is_none() {
            return Ok(live);
        }
        if let Some(mut remove) = difference.remove {
            remove["metadata"] = json!({"uid": live.meta().uid});
            let left = api.patch(&name, &manager(), &Patch::Merge(remove)).await.map_err(|e| failed("removing extras from", desired, e))?;
            K::store(&ctx.cluster).learn(left.clone());
            if !difference.apply {
                return Ok(Arc::new(left));
            }
        }
    }
    killpoint::reached(K::NAME);
    let written = api.patch(&name, &manager().force(), &Patch::Apply(want)).await.map_err(|e| failed("applying", desired, e))?;
    K::store(&ctx.cluster).learn(written.clone());
    Ok(Arc::new(written))
}

/// Deletes an object that core made.
///
/// # Errors
/// The API server refused; that it is already gone is none.
pub async fn delete<K: Child>(ctx: &Context, object: &K, grace_seconds: Option<u32>) -> Result<(), ApplyError> {
    let (namespace, name) = key_of(object.meta());
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &namespace);
    let preconditions = Some(Preconditions { uid: object.meta().uid.clone(), resource_version: None });
    let params = DeleteParams { preconditions, grace_period_seconds: grace_seconds, ..DeleteParams::background() };
    match api.delete(&name, &params).await {
        Ok(either) => {
            match either
                .left()
                .filter(|left| left.meta().deletion_timestamp.is_some() && left.meta().resource_version != object.meta().resource_version)
            {
                Some(left) => K::store(&ctx.cluster).learn(left),
                None => K::store(&ctx.cluster).forget(object),
            }
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 404 => {
            K::store(&ctx.cluster).forget(object);
            Ok(())
        }
        Err(error) => Err(failed("deleting", object, error)),
    }
}

/// Deletes what core made for `owner` in the namespace and no longer wants.
///
/// # Errors
/// The API server refused.
pub async fn prune<K: Child>(ctx: &Context, namespace: &str, owner: &str, keep: &BTreeSet<String>) -> Result<(), ApplyError> {
    for object in K::store(&ctx.cluster).in_namespace(namespace) {
        let ours = controller_uid(object.as_ref()) == Some(owner)
            && object.labels().get(names::LABEL_MANAGED_BY).is_some_and(|m| m == names::MANAGED_BY);
        if ours && !keep.contains(&object.name_any()) && object.meta().deletion_timestamp.is_none() {
            delete(ctx, object.as_ref(), None).await?;
        }
    }
    Ok(())
}

/// The one field manager.
#[must_use]
pub fn manager() -> PatchParams {
    PatchParams { field_manager: Some(names::CORE.to_owned()), ..PatchParams::default() }
}

/// Owner reference of the object that a child is made for.
#[must_use]
pub fn owner<K: Resource<DynamicType = ()>>(object: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: object.meta().name.clone().unwrap_or_default(),
        uid: object.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

/// Labels of a child.
#[must_use]
pub fn labels(org: &str, kind: &str, name: &str) -> std::collections::BTreeMap<String, String> {
    [(names::LABEL_MANAGED_BY, names::MANAGED_BY), (names::LABEL_ORG, org), (names::LABEL_KIND, kind), (names::LABEL_NAME, name)]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into()
}

//! An Org as it is on the cluster: its own definitions and those of the Orgs above, read in the user's own name. Reads only. What cannot be read is an
//! error: a decision from a part of the rules would be another one.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use polity_api::{GROUP, Org, VERSION, names::LABEL_ORG};
use polity_policy::World;
use serde_json::{Value, json};

use super::{Cluster, worded};

/// Kinds that a decision rests on, besides Org and Namespace.
const KINDS: [&str; 4] = ["Agent", "Role", "Policy", "Tool"];
/// Orgs above each other that are read; as deep as a tree may be, and more.
const DEEPEST: usize = 64;

/// The Org of that name, or of the namespace meant, with all that binds there.
///
/// # Errors
/// There is no such Org, or something of it cannot be read.
pub async fn of_org(cluster: &Cluster, org: Option<&str>) -> Result<(String, World)> {
    let name = match org {
        Some(org) => org.to_owned(),
        None => of_namespace(cluster).await?,
    };
    let orgs: Api<Org> = Api::all(cluster.client.clone());
    let (mut objects, mut next, mut seen) = (Vec::new(), Some(name.clone()), Vec::new());
    while let Some(current) = next {
        if seen.contains(&current) || seen.len() == DEEPEST {
            bail!("Orgs above {name} go in a circle: {}", seen.join(" < "));
        }
        let found = orgs.get_opt(&current).await.map_err(|e| worded(e, &format!("cannot read Org {current}")))?;
        let Some(found) = found else {
            if seen.is_empty() {
                bail!("there is no Org {current:?}");
            }
            // The decision itself says what follows from an ancestor that is missing.
            break;
        };
        next = found.spec.parent_ref.as_ref().map(|parent| parent.name.clone());
        let namespace = found.wanted_namespace().to_owned();
        seen.push(current);
        objects.push(typed(serde_json::to_value(&found)?, GROUP_VERSION, "Org"));
        of(cluster, &namespace, &mut objects).await?;
    }
    Ok((name, World::from_objects(objects)))
}

/// The apiVersion of our kinds.
const GROUP_VERSION: &str = "polity.dev/v1alpha1";

/// The Org whose namespace is meant.
async fn of_namespace(cluster: &Cluster) -> Result<String> {
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    let namespace = &cluster.namespace;
    let found = api.get_opt(namespace).await.map_err(|e| worded(e, &format!("cannot read Namespace {namespace}")))?;
    let found = found.with_context(|| format!("there is no Namespace {namespace}"))?;
    let org = found.labels().get(LABEL_ORG).cloned();
    org.with_context(|| format!("Namespace {namespace} is no Org's (it has no label {LABEL_ORG}); name one with --namespace or --org"))
}

/// What is in one namespace, and the Namespace.
async fn of(cluster: &Cluster, namespace: &str, objects: &mut Vec<Value>) -> Result<()> {
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    if let Some(found) = api.get_opt(namespace).await.map_err(|e| worded(e, &format!("cannot read Namespace {namespace}")))? {
        objects.push(typed(serde_json::to_value(&found)?, "v1", "Namespace"));
    }
    for kind in KINDS {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, kind));
        let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), namespace, &resource);
        let what = || format!("cannot list {} of namespace {namespace}", resource.plural);
        let list = api.list(&ListParams::default()).await.map_err(|e| worded(e, &what()))?;
        for object in list.items {
            objects.push(typed(serde_json::to_value(&object)?, GROUP_VERSION, kind));
        }
    }
    Ok(())
}

/// Lists leave out what their items are.
fn typed(mut object: Value, version: &str, kind: &str) -> Value {
    object["apiVersion"] = json!(version);
    object["kind"] = json!(kind);
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_our_kinds() {
        assert_eq!(GROUP_VERSION, format!("{GROUP}/{VERSION}"));
        assert_eq!(ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, "Policy")).plural, "policies");
    }
}

//! Turns what watches tell into changes of the `World`, and says which Orgs each change touches. Pure: no client, no clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Namespace;
use kube::{ResourceExt, core::PartialObjectMeta};
use polity_api::{Agent, Org, Policy, Role, Tool, names};
use polity_policy::{Key, NamespaceFacts, World};

use crate::watch::{Event, Item};

/// Longest line of parents that is followed; a longer one is a cycle or not ours to judge.
const MAX_DEPTH: usize = 64;

/// The Orgs that a change touches itself; those below are added at rebuild.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Touched {
    /// These, by name.
    Orgs(BTreeSet<String>),
    /// Every one.
    All,
}

/// A kind that the World holds.
pub(crate) trait Held: Sized + Send + Sync + 'static {
    /// Its kind, as in `World::undecodable`.
    const KIND: &'static str;
    /// Puts an object into its map, or takes it out; answers whether a decision can tell the difference.
    fn put(world: &mut World, key: &Key, object: Option<Arc<Self>>) -> bool;
    /// Keys present.
    fn keys(world: &World) -> Vec<Key>;
    /// Orgs that an object of this kind under `key` belongs to.
    fn orgs(world: &World, key: &Key) -> BTreeSet<String>;
}

/// Whether two versions of an object differ in anything but bookkeeping; `strip` takes out what no decision reads.
fn differs<K: Clone + PartialEq + ResourceExt>(old: Option<&Arc<K>>, new: Option<&Arc<K>>, strip: impl Fn(&mut K)) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return old.is_some() != new.is_some() };
    let plain = |object: &Arc<K>| {
        let mut object = K::clone(object);
        let meta = object.meta_mut();
        meta.resource_version = None;
        meta.managed_fields = None;
        meta.annotations = None;
        meta.labels = None;
        meta.finalizers = None;
        strip(&mut object);
        object
    };
    plain(old) != plain(new)
}

fn swap<K>(map: &mut BTreeMap<Key, Arc<K>>, key: &Key, object: Option<Arc<K>>) -> Option<Arc<K>> {
    match object {
        Some(object) => map.insert(key.clone(), object),
        None => map.remove(key),
    }
}

/// Orgs that live in a namespace, or ask to.
fn residents(world: &World, namespace: &str) -> BTreeSet<String> {
    let lives = |org: &Org| org.status.as_ref().and_then(|s| s.namespace.as_ref()).is_some_and(|n| n.name == namespace);
    world.orgs.iter().filter(|(_, org)| lives(org) || org.wanted_namespace() == namespace).map(|(name, _)| name.clone()).collect()
}

macro_rules! namespaced {
    ($kind:ident, $map:ident, $strip:expr) => {
        impl Held for $kind {
            const KIND: &'static str = stringify!($kind);
            fn put(world: &mut World, key: &Key, object: Option<Arc<Self>>) -> bool {
                let old = swap(&mut world.$map, key, object);
                differs(old.as_ref(), world.$map.get(key), $strip)
            }
            fn keys(world: &World) -> Vec<Key> {
                world.$map.keys().cloned().collect()
            }
            fn orgs(world: &World, key: &Key) -> BTreeSet<String> {
                residents(world, &key.0)
            }
        }
    };
}

namespaced!(Role, roles, |_| ());
namespaced!(Agent, agents, |_| ());
namespaced!(Tool, tools, |_| ());
// Core reports on a Policy in its status; no decision reads that.
namespaced!(Policy, policies, |policy: &mut Policy| policy.status = None);

impl Held for Org {
    const KIND: &'static str = "Org";

    fn put(world: &mut World, key: &Key, object: Option<Arc<Self>>) -> bool {
        let old = match object {
            Some(object) => world.orgs.insert(key.1.clone(), object),
            None => world.orgs.remove(&key.1),
        };
        differs(old.as_ref(), world.orgs.get(&key.1), |org| {
            // Moves with every record: the head of the chain is no part of a decision.
            if let Some(status) = &mut org.status {
                status.ledger = None;
            }
        })
    }

    fn keys(world: &World) -> Vec<Key> {
        world.orgs.keys().map(|name| (String::new(), name.clone())).collect()
    }

    fn orgs(_: &World, key: &Key) -> BTreeSet<String> {
        BTreeSet::from([key.1.clone()])
    }
}

/// A Namespace as watched: metadata alone.
pub(crate) type NamespaceMeta = PartialObjectMeta<Namespace>;

impl Held for NamespaceMeta {
    const KIND: &'static str = "Namespace";

    fn put(world: &mut World, key: &Key, object: Option<Arc<Self>>) -> bool {
        let facts = object.map(|ns| NamespaceFacts {
            uid: ns.metadata.uid.clone().unwrap_or_default(),
            consent: ns.metadata.labels.as_ref().and_then(|l| l.get(names::LABEL_ORG).cloned()),
            terminating: ns.metadata.deletion_timestamp.is_some(),
        });
        let old = match facts {
            Some(facts) => world.namespaces.insert(key.1.clone(), facts),
            None => world.namespaces.remove(&key.1),
        };
        old.as_ref() != world.namespaces.get(&key.1)
    }

    fn keys(world: &World) -> Vec<Key> {
        world.namespaces.keys().map(|name| (String::new(), name.clone())).collect()
    }

    fn orgs(world: &World, key: &Key) -> BTreeSet<String> {
        residents(world, &key.1)
    }
}

/// Applies an event. None: no decision can tell the difference.
pub(crate) fn apply<K: Held>(world: &mut World, event: Event<K>) -> Option<Touched> {
    match event {
        Event::Listed(items) => {
            let mut gone: BTreeSet<Key> = K::keys(world).into_iter().collect();
            gone.extend(world.undecodable.keys().filter(|(kind, ..)| kind == K::KIND).map(|(_, ns, name)| (ns.clone(), name.clone())));
            let mut touched = false;
            for item in items {
                let key = (item.namespace.clone(), item.name.clone());
                gone.remove(&key);
                touched |= set(world, &key, item);
            }
            for key in gone {
                touched |= remove::<K>(world, &key);
            }
            touched.then_some(Touched::All)
        }
        Event::Applied(item) => {
            let key = (item.namespace.clone(), item.name.clone());
            one::<K>(world, &key, |world| set(world, &key, item))
        }
        Event::Deleted { namespace, name } => {
            let key = (namespace, name);
            one::<K>(world, &key, |world| remove::<K>(world, &key))
        }
    }
}

/// Orgs are asked before and after: an Org may leave or enter a namespace by the very change.
fn one<K: Held>(world: &mut World, key: &Key, change: impl FnOnce(&mut World) -> bool) -> Option<Touched> {
    let mut orgs = K::orgs(world, key);
    if !change(world) {
        return None;
    }
    orgs.extend(K::orgs(world, key));
    Some(Touched::Orgs(orgs))
}

fn set<K: Held>(world: &mut World, key: &Key, item: Item<K>) -> bool {
    let broken = (K::KIND.to_owned(), item.namespace, item.name);
    match item.object {
        Ok(object) => {
            let mended = world.undecodable.remove(&broken).is_some();
            K::put(world, key, Some(object)) | mended
        }
        Err(error) => {
            let known = world.undecodable.insert(broken, error).is_some();
            K::put(world, key, None) | !known
        }
    }
}

fn remove<K: Held>(world: &mut World, key: &Key) -> bool {
    let broken = world.undecodable.remove(&(K::KIND.to_owned(), key.0.clone(), key.1.clone())).is_some();
    K::put(world, key, None) | broken
}

/// The touched Orgs and every Org below one of them, also below one that no longer exists.
pub(crate) fn with_descendants(world: &World, touched: &BTreeSet<String>) -> BTreeSet<String> {
    let parent = |name: &str| world.orgs.get(name).and_then(|org| org.spec.parent_ref.as_ref()).map(|p| p.name.as_str());
    let below = |name: &str| {
        let mut at = Some(name);
        for _ in 0..MAX_DEPTH {
            let Some(name) = at else { return false };
            if touched.contains(name) {
                return true;
            }
            at = parent(name);
        }
        // Too deep to follow: rebuild rather than miss.
        true
    };
    world.orgs.keys().filter(|name| below(name)).chain(touched).cloned().collect()
}

/// Namespace → Org, where the Org's status and the namespace's own uid agree. A namespace that two Orgs claim belongs to none.
pub(crate) fn homes(world: &World) -> BTreeMap<String, String> {
    let mut homes: BTreeMap<String, Option<String>> = BTreeMap::new();
    for (name, org) in &world.orgs {
        let Some(home) = org.status.as_ref().and_then(|s| s.namespace.as_ref()) else { continue };
        if !home.uid.is_empty() && world.namespaces.get(&home.name).is_some_and(|ns| ns.uid == home.uid) {
            homes.entry(home.name.clone()).and_modify(|org| *org = None).or_insert_with(|| Some(name.clone()));
        }
    }
    homes.into_iter().filter_map(|(namespace, org)| Some((namespace, org?))).collect()
}

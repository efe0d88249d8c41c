//! A store of one kind, fed by our watch loop: present objects, those that cannot be decoded, and a queue of keys that changed
//! for every subscriber. Read only; never fetches by itself.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use kube::Client;
use polity_policy::Key;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::{
    changes::{Announcer, Changes},
    pulse::Pulse,
    watch::{self, Event, Item, Target},
};

/// Objects of one kind.
#[derive(Debug)]
pub struct Watched<K> {
    state: RwLock<State<K>>,
    pulse: Arc<Pulse>,
    announcer: Announcer<Key>,
    turn: AtomicU64,
}

#[derive(Debug)]
struct State<K> {
    objects: BTreeMap<Key, Arc<K>>,
    undecodable: BTreeMap<Key, String>,
}

impl<K: Send + Sync + 'static> Watched<K> {
    /// An empty store, for what is not fed by a watch.
    pub(crate) fn empty() -> Arc<Self> {
        let state = RwLock::new(State { objects: BTreeMap::new(), undecodable: BTreeMap::new() });
        Arc::new(Self { state, pulse: Arc::default(), announcer: Announcer::default(), turn: AtomicU64::new(0) })
    }

    /// Starts to watch, until cancelled.
    pub fn start(client: Client, target: Target<K>, cancel: CancellationToken) -> Arc<Self>
    where
        K: DeserializeOwned,
    {
        let store = Self::empty();
        let fed = store.clone();
        tokio::spawn(watch::run(client, target, store.pulse.clone(), move |event| fed.take(event), cancel));
        store
    }

    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.read().objects.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Every object, by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.read().objects.values().cloned().collect()
    }

    /// Every object of a namespace.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let first = (namespace.to_owned(), String::new());
        self.read().objects.range(first..).take_while(|(key, _)| key.0 == namespace).map(|(_, object)| object.clone()).collect()
    }

    /// Stored objects that cannot be decoded, with the reason.
    pub fn undecodable(&self) -> BTreeMap<Key, String> {
        self.read().undecodable.clone()
    }

    /// Keys of objects that changed, were deleted or cannot be decoded, beginning with every present one.
    pub fn subscribe(&self) -> Changes<Key> {
        let state = self.read();
        self.announcer.subscribe(state.objects.keys().chain(state.undecodable.keys()).cloned())
    }

    /// Proof of life.
    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// Whether the first list is there and the API server spoke within `most`. For readiness.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn fresh(&self, most: Duration) -> Result<(), String> {
        if !self.pulse.synced() {
            return Err("first list pending".to_owned());
        }
        match self.pulse.age() {
            Some(age) if age <= most => Ok(()),
            Some(age) => Err(format!("no word from the API server for {} s", age.as_secs())),
            None => Err("no word from the API server".to_owned()),
        }
    }

    /// Counts events taken over: equal before and after means nothing changed.
    pub fn turn(&self) -> u64 {
        self.turn.load(Ordering::Acquire)
    }

    /// Takes over what a watch told.
    pub(crate) fn take(&self, event: Event<K>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let told: Vec<Key> = match event {
            Event::Listed(items) => {
                let mut told: Vec<Key> = state.objects.keys().chain(state.undecodable.keys()).cloned().collect();
                *state = State { objects: BTreeMap::new(), undecodable: BTreeMap::new() };
                told.extend(items.into_iter().map(|item| state.put(item)));
                told
            }
            Event::Applied(item) => vec![state.put(item)],
            Event::Deleted { namespace, name } => {
                let key = (namespace, name);
                state.objects.remove(&key);
                state.undecodable.remove(&key);
                vec![key]
            }
        };
        self.turn.fetch_add(1, Ordering::AcqRel);
        drop(state);
        self.announcer.tell(told);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State<K>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> State<K> {
    fn put(&mut self, item: Item<K>) -> Key {
        let key = (item.namespace, item.name);
        match item.object {
            Ok(object) => {
                self.undecodable.remove(&key);
                self.objects.insert(key.clone(), object);
            }
            Err(error) => {
                self.objects.remove(&key);
                self.undecodable.insert(key.clone(), error);
            }
        }
        key
    }
}

//! A cache of one kind that reads its own writes: answers to our writes go in beside watch events, and the newer one stays.
//!
//! Without that, a reconcile right after a write would see the old object and write again. Deleted objects leave a
//! tombstone with their version, so that an answer that arrives late does not bring them back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use kube::Resource;
use polity_runtime::guarded::Guarded;
use tokio::sync::watch;

use super::{Key, key_of};

/// Tombstones kept at most; beyond that the oldest knowledge of deletions is dropped.
const TOMBSTONES: usize = 4096;

/// One cached object.
#[derive(Debug)]
enum Entry<K> {
    Object(u64, Arc<K>),
    /// Stored, but not decodable: its metadata and why.
    Broken(u64, Arc<kube::core::error_boundary::InvalidObject>),
    Gone(u64),
}

impl<K> Entry<K> {
    fn version(&self) -> u64 {
        match self {
            Self::Object(version, _) | Self::Broken(version, _) | Self::Gone(version) => *version,
        }
    }
}

/// What a change did to one key.
#[derive(Debug)]
pub struct Change<K> {
    /// Namespace and name.
    pub key: Key,
    /// Before; None: not known, or not decodable.
    pub old: Option<Arc<K>>,
    /// After; None: gone, or not decodable.
    pub new: Option<Arc<K>>,
}

/// Cache of one kind.
#[derive(Debug)]
pub struct Store<K> {
    entries: RwLock<BTreeMap<Key, Entry<K>>>,
    /// Keys learned from our own writes since the list that is being read began: it may lack them.
    learned: Mutex<BTreeSet<Key>>,
    /// What was there before our own writes whose watch event has not come yet: others must hear of these changes too.
    untold: Mutex<BTreeMap<Key, Option<Arc<K>>>>,
    /// Generation of a broken object whose status already says so.
    told: Mutex<BTreeMap<Key, i64>>,
    ready: watch::Sender<bool>,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self {
            entries: RwLock::default(),
            learned: Mutex::default(),
            untold: Mutex::default(),
            told: Mutex::default(),
            ready: watch::Sender::new(false),
        }
    }
}

impl<K: Resource> Store<K> {
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Key, Entry<K>>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<Key, Entry<K>>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object of that key, if it is there and decodable.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        match self.read().get(&(namespace.to_owned(), name.to_owned())) {
            Some(Entry::Object(_, object)) => Some(object.clone()),
            _ => None,
        }
    }

    /// Metadata and error of an object that is stored but not decodable.
    #[must_use]
    pub fn broken(&self, namespace: &str, name: &str) -> Option<Arc<kube::core::error_boundary::InvalidObject>> {
        match self.read().get(&(namespace.to_owned(), name.to_owned())) {
            Some(Entry::Broken(_, invalid)) => Some(invalid.clone()),
            _ => None,
        }
    }

    /// Every object that is stored but not decodable.
    #[must_use]
    pub fn all_broken(&self) -> Vec<(Key, String)> {
        let broken = |(key, entry): (&Key, &Entry<K>)| match entry {
            Entry::Broken(_, invalid) => Some((key.clone(), invalid.error.clone())),
            _ => None,
        };
        self.read().iter().filter_map(broken).collect()
    }

    /// Every object, sorted by key.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<K>> {
        self.read().values().filter_map(object).collect()
    }

    /// Every object of a namespace, sorted by name.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let from = (namespace.to_owned(), String::new());
        self.read().range(from..).take_while(|((ns, _), _)| ns == namespace).filter_map(|(_, entry)| object(entry)).collect()
    }

    /// Keys of every object, broken ones too, so that each gets its reconcile.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.read().iter().filter(|(_, e)| !matches!(e, Entry::Gone(_))).map(|(k, _)| k.clone()).collect()
    }

    /// Keys of every object of a namespace.
    #[must_use]
    pub fn keys_in(&self, namespace: &str) -> Vec<Key> {
        let from = (namespace.to_owned(), String::new());
        let there = |(key, entry): (&Key, &Entry<K>)| (!matches!(entry, Entry::Gone(_))).then(|| key.clone());
        self.read().range(from..).take_while(|((ns, _), _)| ns == namespace).filter_map(there).collect()
    }

    /// Waits for the first full list.
    pub async fn wait_ready(&self) {
        // The sender lives in self: this cannot fail.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Whether the first full list has been taken in.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Takes in the answer to a write of ours.
    pub fn learn(&self, object: K) {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner).insert(key_of(object.meta()));
        if let Some(change) = self.take_in(Guarded(Ok(object))) {
            self.untold().entry(change.key).or_insert(change.old);
        }
    }

    fn untold(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Option<Arc<K>>>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in that we deleted this object; its version or an older one does not come back.
    pub fn forget(&self, object: &K) {
        let mut entries = self.write();
        let (key, version) = (key_of(object.meta()), version(object.meta()));
        if entries.get(&key).is_some_and(|old| old.version() <= version) {
            entries.insert(key, Entry::Gone(version));
        }
    }

    /// Remembers that the status of a broken object was written for this generation; whether it was before.
    pub fn told(&self, key: &Key, generation: i64) -> bool {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), generation) == Some(generation)
    }

    /// Takes in an object as it was watched. None: we know something newer, or nothing changed that anybody was not told of.
    pub fn put(&self, object: Guarded<K>) -> Option<Change<K>> {
        let (key, version) = (key_of(object.meta()), version(object.meta()));
        match self.take_in(object) {
            Some(change) => {
                let before = self.untold().remove(&key).unwrap_or_else(|| change.old.clone());
                Some(Change { old: before, ..change })
            }
            None => {
                let entries = self.read();
                let ours = entries.get(&key).filter(|e| e.version() == version)?;
                Some(Change { old: self.untold().remove(&key)?, new: self::object(ours), key })
            }
        }
    }

    /// Keeps the newer of what is there and this. None: what is there stays.
    fn take_in(&self, object: Guarded<K>) -> Option<Change<K>> {
        let (meta, entry) = match object.0 {
            Ok(object) => (key_of(object.meta()), Entry::Object(version(object.meta()), Arc::new(object))),
            Err(invalid) => (key_of(&invalid.metadata), Entry::Broken(version(&invalid.metadata), Arc::new(invalid))),
        };
        let mut entries = self.write();
        let old = entries.get(&meta);
        if old.is_some_and(|old| old.version() > entry.version() || (old.version() == entry.version() && !matches!(old, Entry::Gone(_)))) {
            return None;
        }
        let (old, new) = (old.and_then(self::object), self::object(&entry));
        entries.insert(meta.clone(), entry);
        Some(Change { key: meta, old, new })
    }

    /// Takes in a deletion.
    pub fn remove(&self, object: &Guarded<K>) -> Option<Change<K>> {
        let (key, version) = (key_of(object.meta()), version(object.meta()));
        let mut entries = self.write();
        if entries.get(&key).is_some_and(|old| old.version() > version) {
            return None;
        }
        if entries.values().filter(|e| matches!(e, Entry::Gone(_))).count() > TOMBSTONES {
            entries.retain(|_, e| !matches!(e, Entry::Gone(_)));
        }
        self.untold().remove(&key);
        let old = entries.insert(key.clone(), Entry::Gone(version));
        Some(Change { key, old: old.as_ref().and_then(self::object), new: None })
    }

    /// Begins a full list.
    pub fn begin_list(&self) {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Ends a full list: what was not in it is gone, unless we wrote it while the list was read.
    pub fn end_list(&self, listed: &BTreeSet<Key>) -> Vec<Change<K>> {
        let mut changes = Vec::new();
        let learned = std::mem::take(&mut *self.learned.lock().unwrap_or_else(PoisonError::into_inner));
        self.write().retain(|key, entry| {
            let keep = listed.contains(key) || learned.contains(key);
            if !keep && let Some(old) = object(entry) {
                changes.push(Change { key: key.clone(), old: Some(old), new: None });
            }
            keep
        });
        self.ready.send_replace(true);
        changes
    }
}

fn object<K>(entry: &Entry<K>) -> Option<Arc<K>> {
    match entry {
        Entry::Object(_, object) => Some(object.clone()),
        _ => None,
    }
}

/// Versions of one kind are ordered numbers.
fn version(meta: &kube::api::ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn map(name: &str, version: u64, data: &str) -> ConfigMap {
        serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "n", "name": name, "resourceVersion": version.to_string()}, "data": {"k": data},
        }))
        .unwrap()
    }
    fn value(store: &Store<ConfigMap>, name: &str) -> Option<String> {
        store.get("n", name).and_then(|m| m.data.as_ref().map(|d| d["k"].clone()))
    }
    fn ok(map: ConfigMap) -> Guarded<ConfigMap> {
        Guarded(Ok(map))
    }

    #[test]
    fn the_newer_of_watch_and_own_write_stays() {
        let store = Store::default();
        assert!(store.put(ok(map("a", 5, "watched"))).is_some());
        store.learn(map("a", 7, "written"));
        assert!(store.put(ok(map("a", 6, "late event"))).is_none());
        let told = store.put(ok(map("a", 7, "same"))).expect("others hear of our own write when its event comes");
        assert_eq!(told.old.and_then(|m| m.data.as_ref().map(|d| d["k"].clone())).as_deref(), Some("watched"));
        assert!(store.put(ok(map("a", 7, "same"))).is_none(), "once");
        assert_eq!(value(&store, "a").as_deref(), Some("written"));
    }

    #[test]
    fn a_late_answer_does_not_bring_back_the_deleted() {
        let store = Store::default();
        store.put(ok(map("a", 5, "x")));
        assert!(store.remove(&ok(map("a", 8, "x"))).is_some());
        store.learn(map("a", 7, "late"));
        assert_eq!(value(&store, "a"), None);
        store.learn(map("a", 9, "new"));
        assert_eq!(value(&store, "a").as_deref(), Some("new"));
        assert!(store.remove(&ok(map("a", 8, "x"))).is_none(), "an old deletion does not remove the new object");
    }

    #[test]
    fn a_list_drops_what_it_lacks_but_not_what_we_wrote_meanwhile() {
        let store = Store::default();
        for (name, version) in [("a", 5), ("b", 60)] {
            store.put(ok(map(name, version, "x")));
        }
        assert!(!store.is_ready());
        store.begin_list();
        store.learn(map("c", 20, "x"));
        let changes = store.end_list(&BTreeSet::from([("n".to_owned(), "a".to_owned())]));
        assert_eq!(changes.iter().map(|c| c.key.1.as_str()).collect::<Vec<_>>(), ["b"]);
        assert!(store.is_ready());
        assert_eq!(store.in_namespace("n").len(), 2);
    }

    #[test]
    fn a_broken_object_is_kept_apart() {
        let store = Store::<ConfigMap>::default();
        let guard: Guarded<ConfigMap> =
            serde_json::from_value(serde_json::json!({"metadata": {"namespace": "n", "name": "a", "resourceVersion": "3"}, "data": 5}))
                .unwrap();
        let change = store.put(guard).unwrap();
        assert!(change.new.is_none());
        assert!(store.get("n", "a").is_none());
        assert!(store.broken("n", "a").is_some());
        assert_eq!(store.all_broken().len(), 1);
    }
}

//! Keeps a `Store` current with one watch. Objects that cannot be decoded go in as broken ones and stop nobody else.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc, time::Duration};

use futures::{StreamExt, pin_mut};
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt, watcher},
};
use polity_runtime::{backoff::Backoff, guarded::Guarded};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::{
    key_of,
    store::{Change, Store},
};

/// How long one watch request lives: a half-open connection is noticed after this.
const WATCH_SECONDS: u32 = 60;
/// Waits after failures. Each watch has its own: that one kind fails keeps no other from being seen.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// So soon at most an API server that is back is seen, however long it was away.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

struct Pace(Backoff);

impl Iterator for Pace {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0.wait())
    }
}

impl kube::runtime::utils::Backoff for Pace {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// Follows `api` until `shutdown`. `labels` and `fields` select; `sink` is told of every change after it is in the store.
pub async fn follow<K>(
    api: Api<Guarded<K>>,
    labels: Option<&str>,
    fields: Option<&str>,
    store: Arc<Store<K>>,
    sink: impl Fn(Change<K>),
    shutdown: CancellationToken,
) where
    K: Resource + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
    K::DynamicType: Clone + Debug + Send + Sync,
{
    let mut config = watcher::Config::default().timeout(WATCH_SECONDS);
    if let Some(labels) = labels {
        config = config.labels(labels);
    }
    if let Some(fields) = fields {
        config = config.fields(fields);
    }
    let stream = watcher(api, config).backoff(Pace(Backoff::new(FIRST_WAIT, LONGEST_WAIT))).take_until(shutdown.cancelled_owned());
    pin_mut!(stream);
    let mut listed = BTreeSet::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Init) => {
                listed = BTreeSet::new();
                store.begin_list();
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.insert(key_of(object.meta()));
                store.put(slim(object)).into_iter().for_each(&sink);
            }
            Ok(watcher::Event::InitDone) => store.end_list(&std::mem::take(&mut listed)).into_iter().for_each(&sink),
            Ok(watcher::Event::Apply(object)) => store.put(slim(object)).into_iter().for_each(&sink),
            Ok(watcher::Event::Delete(object)) => store.remove(&object).into_iter().for_each(&sink),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, kind = std::any::type_name::<K>(), "watch interrupted"),
        }
    }
}

/// Drops what nobody reads.
fn slim<K: Resource>(mut object: Guarded<K>) -> Guarded<K> {
    match &mut object.0 {
        Ok(object) => object.meta_mut().managed_fields = None,
        Err(invalid) => invalid.metadata.managed_fields = None,
    }
    object
}

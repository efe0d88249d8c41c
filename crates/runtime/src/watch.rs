//! Our own watch loop for what decisions rest on: list in pages, then watch; every event, bookmark and successful connection is
//! proof of life, told to a `Pulse`. Objects are decoded one by one, so that a single undecodable one is reported and stalls nothing.
//!
//! Never stalls in silence: a connection without an end is cut 5 s after the server should have ended it, failures are logged
//! and tried again after 100 ms to 5 s, an expired version lists anew, and so does a version that failed three times.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use futures::StreamExt;
use kube::{
    Client, Resource, ResourceExt,
    api::{ListParams, WatchEvent, WatchParams},
    core::Request,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{backoff::Backoff, guarded::Bounded, pulse::Pulse};

/// The server ends each watch after so many seconds; the reconnection is proof of life.
const SERVER_TIMEOUT_SECONDS: u32 = 20;
/// A watch that outlives its end by so much hangs on a dead connection. Together less than the oldest proof of life that
/// decisions take, so that one dead connection denies nothing.
const OVERTIME: Duration = Duration::from_secs(5);
/// Longest wait for the head of an answer, or for one page of a list.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Objects in a page.
const PAGE: u32 = 500;
/// So many failures in a row at one version list anew.
const FAILURES_BEFORE_LIST: u32 = 3;
/// A watch that ends sooner without an event counts as a failure, or the loop would spin.
const SHORTEST: Duration = Duration::from_secs(1);

/// One object as stored: decoded, or why not.
#[derive(Clone, Debug)]
pub struct Item<K> {
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The object, without managedFields; or what is wrong with it.
    pub object: Result<Arc<K>, String>,
}

/// What a watch tells.
#[derive(Clone, Debug)]
pub enum Event<K> {
    /// All that there is: whatever is not in it is gone.
    Listed(Vec<Item<K>>),
    /// Added or changed.
    Applied(Item<K>),
    /// Deleted.
    Deleted {
        /// Namespace; empty for cluster-scoped kinds.
        namespace: String,
        /// Name.
        name: String,
    },
}

/// Which objects are watched.
#[derive(Clone, Debug)]
pub struct Target<K> {
    path: String,
    kind: String,
    api_version: String,
    metadata_only: bool,
    fields: Option<String>,
    labels: Option<String>,
    of: PhantomData<fn() -> K>,
}

impl<K: Resource<DynamicType = ()>> Target<K> {
    /// Objects in every namespace, or of a cluster-scoped kind.
    #[must_use]
    pub fn all() -> Self {
        Self::at(None)
    }

    /// Objects in one namespace.
    #[must_use]
    pub fn within(namespace: &str) -> Self {
        Self::at(Some(namespace))
    }

    fn at(namespace: Option<&str>) -> Self {
        Self {
            path: K::url_path(&(), namespace),
            kind: K::kind(&()).into_owned(),
            api_version: K::api_version(&()).into_owned(),
            metadata_only: false,
            fields: None,
            labels: None,
            of: PhantomData,
        }
    }

    /// Metadata alone travels; `K` is a `PartialObjectMeta` then.
    #[must_use]
    pub fn metadata_only(mut self) -> Self {
        self.metadata_only = true;
        self
    }

    /// Only what the field selector selects.
    #[must_use]
    pub fn fields(mut self, selector: &str) -> Self {
        self.fields = Some(selector.to_owned());
        self
    }

    /// Only what the label selector selects.
    #[must_use]
    pub fn labels(mut self, selector: &str) -> Self {
        self.labels = Some(selector.to_owned());
        self
    }
}

/// Why a step of the loop ended before its time.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error("cannot make the request")]
    Request(#[from] kube::core::request::Error),
    #[error("the API server refused or failed")]
    Api(#[source] Box<kube::Error>),
    #[error("no answer in time")]
    NoAnswer,
    #[error("the connection hangs")]
    Hangs,
    #[error("the version has expired")]
    Expired,
    #[error("the watch failed: {0}")]
    Status(String),
    #[error("an object without a name or version")]
    Nameless,
    #[error("the watch ended at once")]
    EndedAtOnce,
}

impl From<kube::Error> for WatchError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 410 => Self::Expired,
            error => Self::Api(Box::new(error)),
        }
    }
}

/// Lists and watches until cancelled. Events come in order, one after the other; `sink` must not block.
pub async fn run<K>(client: Client, target: Target<K>, pulse: Arc<Pulse>, sink: impl FnMut(Event<K>) + Send, cancel: CancellationToken)
where
    K: DeserializeOwned + Send + Sync + 'static,
{
    let mut watch = Watch { client, target, pulse, sink, version: None, progressed: false };
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut failures = 0;
    loop {
        let step = tokio::select! {
            () = cancel.cancelled() => return,
            step = watch.step() => step,
        };
        let Err(error) = step else {
            backoff.reset();
            failures = 0;
            continue;
        };
        if std::mem::take(&mut watch.progressed) {
            backoff.reset();
            failures = 0;
        }
        failures += 1;
        if matches!(error, WatchError::Expired) || failures >= FAILURES_BEFORE_LIST {
            watch.version = None;
            failures = 0;
        }
        let wait = backoff.wait();
        tracing::warn!(kind = watch.target.kind, error = %Chain(&error), wait_ms = wait.as_millis() as u64, "watch interrupted");
        tokio::select! {
            () = cancel.cancelled() => return,
            () = sleep(wait) => {}
        }
    }
}

/// An error with its causes on one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// A page of a list.
#[derive(serde::Deserialize)]
struct Page {
    metadata: Value,
    items: Option<Vec<Bounded>>,
}

struct Watch<K, S> {
    client: Client,
    target: Target<K>,
    pulse: Arc<Pulse>,
    sink: S,
    /// Version to go on from; None: list first.
    version: Option<String>,
    /// An event came since the last failure.
    progressed: bool,
}

impl<K: DeserializeOwned, S: FnMut(Event<K>) + Send> Watch<K, S> {
    /// Lists if need be, then one connection's worth of watching.
    async fn step(&mut self) -> Result<(), WatchError> {
        let version = match &self.version {
            Some(version) => version.clone(),
            None => self.list().await?,
        };
        self.watch(version).await
    }

    async fn list(&mut self) -> Result<String, WatchError> {
        let request = Request::new(&self.target.path);
        let mut params = ListParams::default().limit(PAGE);
        params.field_selector.clone_from(&self.target.fields);
        params.label_selector.clone_from(&self.target.labels);
        let mut items = Vec::new();
        loop {
            let page = if self.target.metadata_only { request.list_metadata(&params)? } else { request.list(&params)? };
            let answer = timeout(ANSWER_TIMEOUT, self.client.request::<Page>(page)).await.map_err(|_| WatchError::NoAnswer)?;
            let Page { metadata, items: found } = answer?;
            for raw in found.into_iter().flatten() {
                items.push(self.item(raw)?.0);
            }
            match metadata["continue"].as_str().filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token.to_owned()),
                None => {
                    let version = metadata["resourceVersion"].as_str().ok_or(WatchError::Nameless)?.to_owned();
                    self.pulse.beat();
                    (self.sink)(Event::Listed(items));
                    self.reached(&version);
                    self.pulse.set_synced();
                    return Ok(version);
                }
            }
        }
    }

    async fn watch(&mut self, version: String) -> Result<(), WatchError> {
        let began = Instant::now();
        let request = Request::new(&self.target.path);
        let mut params = WatchParams::default().timeout(SERVER_TIMEOUT_SECONDS);
        params.field_selector.clone_from(&self.target.fields);
        params.label_selector.clone_from(&self.target.labels);
        let request =
            if self.target.metadata_only { request.watch_metadata(&params, &version)? } else { request.watch(&params, &version)? };
        let answer = timeout(ANSWER_TIMEOUT, self.client.request_events::<Bounded>(request)).await.map_err(|_| WatchError::NoAnswer)?;
        let mut events = std::pin::pin!(answer?);
        self.pulse.beat();
        let end = began + Duration::from_secs(u64::from(SERVER_TIMEOUT_SECONDS)) + OVERTIME;
        let mut quiet = true;
        loop {
            let Some(event) = timeout_at(end, events.next()).await.map_err(|_| WatchError::Hangs)? else { break };
            self.event(event?)?;
            self.pulse.beat();
            quiet = false;
            self.progressed = true;
        }
        if quiet && began.elapsed() < SHORTEST { Err(WatchError::EndedAtOnce) } else { Ok(()) }
    }

    fn event(&mut self, event: WatchEvent<Bounded>) -> Result<(), WatchError> {
        match event {
            WatchEvent::Added(raw) | WatchEvent::Modified(raw) => {
                let (item, version) = self.item(raw)?;
                (self.sink)(Event::Applied(item));
                self.reached(&version);
            }
            WatchEvent::Deleted(raw) => {
                let (item, version) = self.item(raw)?;
                (self.sink)(Event::Deleted { namespace: item.namespace, name: item.name });
                self.reached(&version);
            }
            WatchEvent::Bookmark(mark) => self.reached(&mark.metadata.resource_version),
            WatchEvent::Error(status) if status.code == 410 => return Err(WatchError::Expired),
            WatchEvent::Error(status) => return Err(WatchError::Status(format!("{} {}", status.code, status.message))),
        }
        Ok(())
    }

    /// Told only after the sink has taken over what belongs to it.
    fn reached(&mut self, version: &str) {
        self.pulse.saw(version);
        self.version = Some(version.to_owned());
    }

    /// Takes an object apart: whose it is, its version, and the object if it can be decoded.
    fn item(&self, mut raw: Bounded) -> Result<(Item<K>, String), WatchError> {
        let metadata = raw.value.get_mut("metadata").and_then(Value::as_object_mut).ok_or(WatchError::Nameless)?;
        metadata.remove("managedFields");
        let text = |key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (namespace, name, version) = (text("namespace"), text("name"), text("resourceVersion"));
        if name.is_empty() || version.is_empty() {
            return Err(WatchError::Nameless);
        }
        if let Some(object) = raw.value.as_object_mut().filter(|_| !self.target.metadata_only) {
            // Items of a list of a built-in kind come without.
            object.entry("apiVersion").or_insert_with(|| self.target.api_version.clone().into());
            object.entry("kind").or_insert_with(|| self.target.kind.clone().into());
        }
        let object = raw.decode().map(Arc::new);
        if let Err(error) = &object {
            tracing::warn!(kind = self.target.kind, namespace, name, error, "a stored object cannot be decoded");
        }
        Ok((Item { namespace, name, object }, version))
    }
}

/// Namespace and name of an object.
pub fn key_of(object: &impl Resource) -> (String, String) {
    (ResourceExt::namespace(object).unwrap_or_default(), object.name_any())
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;

//! A stand-in for an API server, in this process and without a socket: what a bench puts into it is listed in pages and watched, as the API server would.
//! What it adds to a time is the same for all that are measured beside each other. It stores nothing that is sent to it, and takes every token for the
//! agent's of the bench's organisation.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use futures::stream;
use http::{StatusCode, Uri};
use kube::Client;
use polity_api::names;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::admission::organisation;

/// The stand-in.
#[derive(Clone)]
pub struct StandIn {
    inner: Arc<Mutex<Inner>>,
    turns: watch::Sender<usize>,
}

#[derive(Default)]
struct Inner {
    /// By plural name of the kind, then by namespace and name.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    version: u64,
    /// Changes since the start: kind and line of the watch.
    changes: Vec<(u64, String, String)>,
}

impl StandIn {
    /// One that has these objects, each with `kind` and `metadata`.
    pub fn with(objects: Vec<Value>) -> Self {
        let this = Self { inner: Arc::default(), turns: watch::Sender::new(0) };
        for object in objects {
            this.lock().put(object);
        }
        this
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::new(Router::new().fallback(answer).with_state(self.clone()), "default")
    }

    /// Stores a changed object and tells watches.
    pub fn change(&self, object: Value) {
        let mut inner = self.lock();
        let (plural, object) = inner.put(object);
        let version = inner.version;
        inner.changes.push((version, plural, format!("{}\n", json!({"type": "MODIFIED", "object": object}))));
        let turn = inner.changes.len();
        drop(inner);
        self.turns.send_replace(turn);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list(&self, plural: &str, query: &BTreeMap<String, String>) -> Response {
        let number = |key: &str| query.get(key).and_then(|text| text.parse::<usize>().ok());
        let (skip, limit) = (number("continue").unwrap_or(0), number("limit").unwrap_or(usize::MAX));
        let inner = self.lock();
        let all = inner.objects.get(plural);
        let page: Vec<&Value> = all.into_iter().flat_map(BTreeMap::values).skip(skip).take(limit).collect();
        let end = skip + page.len();
        let next = if end < all.map_or(0, BTreeMap::len) { end.to_string() } else { String::new() };
        Json(json!({"metadata": {"resourceVersion": inner.version.to_string(), "continue": next}, "items": page})).into_response()
    }

    /// A stream without an end: whoever watches gives it up in time.
    fn watch(self, plural: String, query: &BTreeMap<String, String>) -> Response {
        let Some(from) = query.get("resourceVersion").and_then(|text| text.parse::<u64>().ok()) else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        let lines = stream::unfold((from, self.turns.subscribe()), move |(from, mut turns)| {
            let (this, plural) = (self.clone(), plural.clone());
            async move {
                loop {
                    turns.borrow_and_update();
                    if let Some((version, line)) = this.lock().next(&plural, from) {
                        return Some((Ok::<_, io::Error>(line), (version, turns)));
                    }
                    turns.changed().await.ok()?;
                }
            }
        });
        Body::from_stream(lines).into_response()
    }
}

impl Inner {
    fn put(&mut self, mut object: Value) -> (String, Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let kind = text("/kind").to_lowercase();
        let plural = kind.strip_suffix('y').map_or_else(|| format!("{kind}s"), |stem| format!("{stem}ies"));
        let key = format!("{}/{}", text("/metadata/namespace"), text("/metadata/name"));
        self.objects.entry(plural.clone()).or_default().insert(key, object.clone());
        (plural, object)
    }

    /// The first change of a kind after a version.
    fn next(&self, plural: &str, from: u64) -> Option<(u64, String)> {
        let start = self.changes.partition_point(|(version, ..)| *version <= from);
        let found = self.changes.iter().skip(start).find(|(_, kind, _)| kind == plural);
        found.map(|(version, _, line)| (*version, line.clone()))
    }
}

async fn answer(State(this): State<StandIn>, uri: Uri, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let plural = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    if plural == "tokenreviews" {
        let status = json!({"authenticated": true, "audiences": [names::AUDIENCE], "user": {"username": organisation::AGENT}});
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {}, "status": status});
        return Json(review).into_response();
    }
    if query.contains_key("watch") { this.watch(plural, &query) } else { this.list(&plural, &query) }
}

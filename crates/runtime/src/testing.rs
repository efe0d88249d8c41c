//! A small API server in memory, for tests of this crate: objects by path, lists in pages, watches that stream, and faults.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Query, State},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use kube::Client;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

/// What happens to the next watch of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// 410 as answer.
    Gone,
    /// 410 as an event.
    GoneEvent,
    /// 500.
    Error,
    /// 200, and then nothing, without end.
    Hang,
    /// 200 and at once the end.
    End,
    /// The request is never answered.
    Silence,
}

#[derive(Default)]
struct Inner {
    /// (collection, namespace, name) → object.
    objects: BTreeMap<(String, String, String), Value>,
    log: Vec<(u64, String, Value)>,
    version: u64,
    faults: BTreeMap<String, VecDeque<Fault>>,
    requests: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct FakeApi {
    inner: Arc<Mutex<Inner>>,
    turns: watch::Sender<u64>,
}

impl FakeApi {
    pub(crate) fn new() -> Self {
        Self { inner: Arc::default(), turns: watch::Sender::new(0) }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(Router::new().fallback(answer).with_state(self.clone()), "default")
    }

    /// Stores an object at `path` (collection with namespace, without name).
    pub(crate) fn put(&self, path: &str, mut object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let (collection, namespace, _) = parse(path);
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = namespace.clone().into();
        }
        self.store(collection, namespace, name, object);
    }

    fn store(&self, collection: String, namespace: String, name: String, mut object: Value) -> Value {
        let mut inner = self.lock();
        inner.version += 1;
        let version = inner.version;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let old = inner.objects.insert((collection.clone(), namespace, name), object.clone());
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        inner.log.push((version, collection, json!({"type": kind, "object": object})));
        drop(inner);
        self.turns.send_modify(|t| *t += 1);
        object
    }

    pub(crate) fn delete(&self, path: &str) {
        let (collection, namespace, name) = parse(path);
        let mut inner = self.lock();
        let mut object = inner.objects.remove(&(collection.clone(), namespace, name)).unwrap();
        inner.version += 1;
        let version = inner.version;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        inner.log.push((version, collection, json!({"type": "DELETED", "object": object})));
        drop(inner);
        self.turns.send_modify(|t| *t += 1);
    }

    /// Takes an object away without telling any watch: what a watch misses while it is cut off.
    pub(crate) fn vanish(&self, path: &str) {
        self.lock().objects.remove(&parse(path)).unwrap();
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.lock().objects.get(&parse(path)).cloned()
    }

    pub(crate) fn fault(&self, collection: &str, faults: impl IntoIterator<Item = Fault>) {
        self.lock().faults.entry(collection.to_owned()).or_default().extend(faults);
    }

    /// Requests so far that begin with `prefix`, as `METHOD path?query`.
    pub(crate) fn requests(&self, prefix: &str) -> Vec<String> {
        self.lock().requests.iter().filter(|r| r.starts_with(prefix)).cloned().collect()
    }

    /// Requests so far that change something.
    pub(crate) fn writes(&self) -> Vec<String> {
        self.lock().requests.iter().filter(|r| !r.starts_with("GET")).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn watch(&self, collection: String, query: &BTreeMap<String, String>) -> Response {
        match self.lock().faults.get_mut(&collection).and_then(VecDeque::pop_front) {
            Some(Fault::Gone) => return status(StatusCode::GONE),
            Some(Fault::Error) => return status(StatusCode::INTERNAL_SERVER_ERROR),
            Some(Fault::GoneEvent) => {
                let event = json!({"type": "ERROR", "object": {"code": 410, "status": "Failure", "reason": "Expired", "message": "gone"}});
                return format!("{event}\n").into_response();
            }
            Some(Fault::Hang) => return Body::from_stream(futures::stream::pending::<Result<String, std::io::Error>>()).into_response(),
            Some(Fault::End) => return "".into_response(),
            Some(Fault::Silence) | None => {}
        }
        let end = Instant::now() + Duration::from_secs(query["timeoutSeconds"].parse().unwrap());
        let from: u64 = query["resourceVersion"].parse().unwrap();
        let (api, turns, only) = (self.clone(), self.turns.subscribe(), only(query));
        let lines = futures::stream::unfold((from, turns), move |(from, mut turns)| {
            let (api, collection, only) = (api.clone(), collection.clone(), only.clone());
            async move {
                loop {
                    turns.borrow_and_update();
                    let found: Vec<(u64, Value)> = {
                        let inner = api.lock();
                        inner.log.iter().filter(|(v, c, _)| *v > from && *c == collection).map(|(v, _, e)| (*v, e.clone())).collect()
                    };
                    let fits = |event: &Value| only.as_ref().is_none_or(|name| event["object"]["metadata"]["name"] == name.as_str());
                    if let Some(last) = found.last().map(|(v, _)| *v) {
                        let text: String = found.iter().filter(|(_, e)| fits(e)).map(|(_, e)| format!("{e}\n")).collect();
                        return Some((Ok::<_, std::io::Error>(text), (last, turns)));
                    }
                    timeout_at(end, turns.changed()).await.ok()?.ok()?;
                }
            }
        });
        Body::from_stream(lines.filter(|text| std::future::ready(text.as_ref().is_ok_and(|t| !t.is_empty())))).into_response()
    }

    fn list(&self, collection: &str, namespace: &str, query: &BTreeMap<String, String>) -> Response {
        let inner = self.lock();
        let only = only(query);
        let found: Vec<Value> = inner
            .objects
            .iter()
            .filter(|((c, ns, name), _)| {
                c == collection && (namespace.is_empty() || ns == namespace) && only.as_ref().is_none_or(|o| o == name)
            })
            .map(|(_, object)| object.clone())
            .collect();
        let skip: usize = query.get("continue").map_or(0, |c| c.parse().unwrap());
        let limit: usize = query.get("limit").map_or(usize::MAX, |l| l.parse().unwrap());
        let page: Vec<&Value> = found.iter().skip(skip).take(limit).collect();
        let next = if skip + page.len() < found.len() { (skip + page.len()).to_string() } else { String::new() };
        json_answer(&json!({"metadata": {"resourceVersion": inner.version.to_string(), "continue": next}, "items": page}))
    }

    fn write(&self, method: &Method, collection: String, namespace: String, name: String, body: Value) -> Response {
        let name = if name.is_empty() { body["metadata"]["name"].as_str().unwrap().to_owned() } else { name };
        let old = self.lock().objects.get(&(collection.clone(), namespace.clone(), name.clone())).cloned();
        let next = match (method.as_str(), old) {
            ("POST", None) => body,
            ("PUT", Some(old)) if body["metadata"]["resourceVersion"] == old["metadata"]["resourceVersion"] => body,
            ("PATCH", Some(old)) => merged(old, body),
            ("POST" | "PUT", Some(_)) => return status(StatusCode::CONFLICT),
            _ => return status(StatusCode::NOT_FOUND),
        };
        json_answer(&self.store(collection, namespace, name, next))
    }
}

/// Lists of named things are merged by name, as server-side apply does.
fn merged(old: Value, new: Value) -> Value {
    match (old, new) {
        (Value::Object(mut old), Value::Object(new)) => {
            for (key, value) in new {
                let before = old.remove(&key).unwrap_or(Value::Null);
                old.insert(key, merged(before, value));
            }
            old.into()
        }
        (Value::Array(old), Value::Array(new)) => {
            let of = |name: &Value| new.iter().find(|n| n["name"] == *name).cloned();
            old.into_iter().map(|o| if let Some(n) = of(&o["name"]) { merged(o, n) } else { o }).collect()
        }
        (_, new) => new,
    }
}

async fn answer(
    State(api): State<FakeApi>,
    method: Method,
    uri: Uri,
    Query(query): Query<BTreeMap<String, String>>,
    body: String,
) -> Response {
    api.lock().requests.push(format!("{method} {uri}"));
    let (collection, namespace, name) = parse(uri.path());
    if query.contains_key("watch") {
        let silent = api.lock().faults.get(&collection).and_then(VecDeque::front) == Some(&Fault::Silence);
        if silent {
            api.lock().faults.get_mut(&collection).unwrap().pop_front();
            // Injected: a server that takes the request and never answers.
            std::future::pending::<()>().await;
        }
        return api.watch(collection, &query);
    }
    if method != Method::GET {
        return api.write(&method, collection, namespace, name, serde_json::from_str(&body).unwrap());
    }
    if name.is_empty() {
        return api.list(&collection, &namespace, &query);
    }
    match api.get(uri.path()) {
        Some(object) => json_answer(&object),
        None => status(StatusCode::NOT_FOUND),
    }
}

fn only(query: &BTreeMap<String, String>) -> Option<String> {
    query.get("fieldSelector").map(|s| s.strip_prefix("metadata.name=").unwrap().to_owned())
}

fn json_answer(value: &Value) -> Response {
    axum::Json(value).into_response()
}

fn status(code: StatusCode) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(), "reason": code.canonical_reason().unwrap().replace(' ', ""), "message": "fault"});
    (code, axum::Json(body)).into_response()
}

/// Collection, namespace and name of a path.
fn parse(path: &str) -> (String, String, String) {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let head = if parts[0] == "api" { 2 } else { 3 };
    let (root, rest) = parts.split_at(head);
    let (namespace, rest) = match rest {
        ["namespaces", ns, rest @ ..] if !rest.is_empty() => (*ns, rest),
        rest => ("", rest),
    };
    let collection = format!("/{}/{}", root.join("/"), rest[0]);
    (collection, namespace.to_owned(), rest.get(1).copied().unwrap_or_default().to_owned())
}

/// Waits for a condition, at most a minute of the test's time.
pub(crate) async fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < end, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until nobody listens at an address any more, at most ten seconds.
pub(crate) async fn until_refused(address: std::net::SocketAddr) {
    let closed = async { while tokio::net::TcpStream::connect(address).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(10), closed).await.unwrap();
}

//! A scripted API server: TokenReviews by a table, and a store of ToolCalls and Approvals with versions, conflicts and watches, as much as the edge uses.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::body::Body as Answered;
use bytes::Bytes;
use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;

#[derive(Default)]
struct Store {
    version: u64,
    made: u64,
    objects: BTreeMap<(String, String, String), Value>,
    /// Resource, version, event.
    events: Vec<(String, u64, Value)>,
    writes: Vec<String>,
    refuse_create: Option<Value>,
    answer_create: Option<Value>,
    deaf: bool,
    /// Usernames that may not read records, tokens that are revoked.
    barred: Vec<String>,
    revoked: Vec<String>,
    conflicts: u32,
}

#[derive(Clone)]
pub struct Api {
    store: Arc<Mutex<Store>>,
    news: Arc<watch::Sender<u64>>,
}

const PREFIX: &str = "/apis/polity.dev/v1alpha1/";

impl Api {
    pub fn new() -> Self {
        Self { store: Arc::default(), news: Arc::new(watch::Sender::new(0)) }
    }

    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, std::convert::Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Status codes of writes, as `METHOD path`.
    pub fn writes(&self) -> Vec<String> {
        self.store.lock().unwrap().writes.clone()
    }

    pub fn refuse_create(&self, status: Value) {
        self.store.lock().unwrap().refuse_create = Some(status);
    }

    /// Every ToolCall gets this status as soon as it is made, as core would write it.
    pub fn answer_create(&self, status: Value) {
        self.store.lock().unwrap().answer_create = Some(status);
    }

    /// TokenReviews fail from now on.
    pub fn deaf(&self) {
        self.store.lock().unwrap().deaf = true;
    }

    /// From now on this user may not read records.
    pub fn bar(&self, username: &str) {
        self.store.lock().unwrap().barred.push(username.into());
    }

    /// From now on nobody is behind this token.
    pub fn revoke(&self, token: &str) {
        self.store.lock().unwrap().revoked.push(token.into());
    }

    /// So many status writes conflict from now on.
    pub fn conflicts(&self, n: u32) {
        self.store.lock().unwrap().conflicts = n;
    }

    pub fn get(&self, resource: &str, name: &str) -> Option<Value> {
        self.store.lock().unwrap().objects.get(&(resource.into(), "acme".into(), name.into())).cloned()
    }

    pub fn put(&self, resource: &str, mut object: Value) -> Value {
        let mut store = self.store.lock().unwrap();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        object["metadata"]["namespace"] = json!("acme");
        if object["metadata"]["uid"].is_null() {
            store.made += 1;
            object["metadata"]["uid"] = json!(format!("00000000-0000-4000-8000-{:012}", store.made));
        }
        let object = store.save(resource, "acme", &name, object);
        let version = store.version;
        drop(store);
        self.news.send_replace(version);
        object
    }

    async fn answer(&self, request: Request<Body>) -> Response<Answered> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap_or_default();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        if path.ends_with("/tokenreviews") {
            return self.review(&serde_json::from_slice(&body).unwrap());
        }
        if path.ends_with("/subjectaccessreviews") {
            let mut review: Value = serde_json::from_slice(&body).unwrap();
            let asked = json!({"verb": "get", "group": "polity.dev", "resource": "records", "namespace": "acme"});
            assert_eq!(review["spec"]["resourceAttributes"], asked);
            let barred = self.store.lock().unwrap().barred.iter().any(|user| review["spec"]["user"] == *user);
            review["status"] = json!({"allowed": review["spec"]["user"] == "ann" && !barred});
            return answer(201, &review);
        }
        let Some(rest) = path.strip_prefix(PREFIX) else { return failure(404, "NotFound", "not scripted") };
        let parts_of: Vec<&str> = rest.split('/').collect();
        match (&parts.method, &parts_of[..]) {
            (&Method::GET, [resource]) if query.contains("watch=") => self.watch(resource, &query),
            (&Method::GET, [resource] | ["namespaces", _, resource]) => self.list(resource),
            (&Method::POST, ["namespaces", namespace, resource]) => {
                self.create(resource, namespace, serde_json::from_slice(&body).unwrap())
            }
            (&Method::GET, ["namespaces", namespace, resource, name]) => {
                let found = self.store.lock().unwrap().objects.get(&((*resource).into(), (*namespace).into(), (*name).into())).cloned();
                found.map_or_else(|| failure(404, "NotFound", "no such object"), |o| answer(200, &o))
            }
            (&Method::PATCH, ["namespaces", namespace, resource, name, ..]) => {
                self.patch(resource, namespace, name, parts_of.get(4) == Some(&"status"), &serde_json::from_slice(&body).unwrap())
            }
            _ => failure(404, "NotFound", "not scripted"),
        }
    }

    fn review(&self, review: &Value) -> Response<Answered> {
        if self.store.lock().unwrap().deaf {
            return failure(500, "InternalError", "scripted");
        }
        assert_eq!(review["spec"]["audiences"], json!(["polity"]));
        let token = review["spec"]["token"].as_str().unwrap();
        let revoked = self.store.lock().unwrap().revoked.iter().any(|t| t == token);
        let (user, pod) = match if revoked { "revoked" } else { token } {
            "auditor-token" => ("ann", ""),
            "payer-token" => ("system:serviceaccount:acme:polity-agent-payer", "payer-1"),
            "clerk-token" => ("system:serviceaccount:acme:polity-agent-clerk", "clerk-1"),
            "tool-token" => ("system:serviceaccount:acme:polity-tool", "call-1"),
            "stranger-token" => ("system:serviceaccount:other:polity-agent-x", "x-1"),
            _ => {
                return answer(
                    201,
                    &json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "spec": {}, "status": {"authenticated": false}}),
                );
            }
        };
        let extra = json!({"authentication.kubernetes.io/pod-name": [pod], "authentication.kubernetes.io/pod-uid": [format!("uid-{pod}")]});
        let status = json!({"authenticated": true, "audiences": ["polity"], "user": {"username": user, "uid": "u", "groups": ["system:serviceaccounts"], "extra": extra}});
        answer(201, &json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "spec": {}, "status": status}))
    }

    fn create(&self, resource: &str, namespace: &str, mut object: Value) -> Response<Answered> {
        let mut store = self.store.lock().unwrap();
        store.writes.push(format!("POST {resource}"));
        if let Some(status) = &store.refuse_create {
            return answer(u16::try_from(status["code"].as_u64().unwrap()).unwrap(), status);
        }
        store.made += 1;
        let n = store.made;
        let name = object["metadata"]["name"]
            .as_str()
            .map_or_else(|| format!("{}{n}", object["metadata"]["generateName"].as_str().unwrap()), str::to_owned);
        if store.objects.contains_key(&(resource.into(), namespace.into(), name.clone())) {
            return failure(409, "AlreadyExists", "it exists");
        }
        object["metadata"]["name"] = json!(name);
        object["metadata"]["uid"] = json!(format!("00000000-0000-4000-8000-{n:012}"));
        object["metadata"]["generation"] = json!(1);
        object.as_object_mut().unwrap().remove("status");
        let stored = store.save(resource, namespace, &name, object.clone());
        if let Some(status) = store.answer_create.clone() {
            object["status"] = status;
            store.save(resource, namespace, &name, object);
        }
        let version = store.version;
        drop(store);
        self.news.send_replace(version);
        answer(201, &stored)
    }

    fn patch(&self, resource: &str, namespace: &str, name: &str, status: bool, patch: &Value) -> Response<Answered> {
        let mut store = self.store.lock().unwrap();
        store.writes.push(format!("PATCH {resource}{}", if status { "/status" } else { "" }));
        let Some(mut object) = store.objects.get(&(resource.into(), namespace.into(), name.into())).cloned() else {
            return failure(404, "NotFound", "no such object");
        };
        if status && store.conflicts > 0 {
            store.conflicts -= 1;
            // Somebody else wrote in between.
            let version = object.clone();
            store.save(resource, namespace, name, version);
            return failure(409, "Conflict", "the object has been modified");
        }
        let expected = &patch["metadata"]["resourceVersion"];
        if (!expected.is_null() && *expected != object["metadata"]["resourceVersion"])
            || (!patch["metadata"]["uid"].is_null() && patch["metadata"]["uid"] != object["metadata"]["uid"])
        {
            return failure(409, "Conflict", "the object has been modified");
        }
        let part = if status { "status" } else { "spec" };
        merge(&mut object[part], &patch[part]);
        let object = store.save(resource, namespace, name, object);
        let version = store.version;
        drop(store);
        self.news.send_replace(version);
        answer(200, &object)
    }

    fn list(&self, resource: &str) -> Response<Answered> {
        let store = self.store.lock().unwrap();
        let items: Vec<&Value> = store.objects.iter().filter(|(key, _)| key.0 == resource).map(|(_, o)| o).collect();
        answer(
            200,
            &json!({"kind": "List", "apiVersion": "polity.dev/v1alpha1", "metadata": {"resourceVersion": store.version.max(1).to_string()}, "items": items}),
        )
    }

    /// Events after the version asked for, then those to come.
    fn watch(&self, resource: &str, query: &str) -> Response<Answered> {
        let from: u64 = url::form_urlencoded::parse(query.as_bytes())
            .find(|(k, _)| k == "resourceVersion")
            .and_then(|(_, v)| v.parse().ok())
            .unwrap_or(0);
        let (store, news, resource) = (self.store.clone(), self.news.subscribe(), resource.to_owned());
        let stream = futures::stream::unfold((from, news), move |(seen, mut news)| {
            let (store, resource) = (store.clone(), resource.clone());
            async move {
                loop {
                    news.borrow_and_update();
                    let next = store.lock().unwrap().events.iter().find(|(r, version, _)| *r == resource && *version > seen).cloned();
                    if let Some((_, version, event)) = next {
                        return Some((Ok::<_, std::io::Error>(Bytes::from(format!("{event}\n"))), (version, news)));
                    }
                    news.changed().await.ok()?;
                }
            }
        });
        Response::builder().status(200).header("content-type", "application/json").body(Answered::from_stream(stream)).unwrap()
    }
}

impl Store {
    fn save(&mut self, resource: &str, namespace: &str, name: &str, mut object: Value) -> Value {
        // One ahead of the list of an empty store, whose version may not be 0.
        self.version += if self.version == 0 { 2 } else { 1 };
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert((resource.into(), namespace.into(), name.into()), object.clone());
        self.events.push((resource.into(), self.version, json!({"type": "MODIFIED", "object": object})));
        object
    }
}

fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => patch.iter().for_each(|(key, value)| {
            if value.is_null() {
                into.remove(key);
            } else {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }),
        (into, patch) => *into = patch.clone(),
    }
}

fn answer(status: u16, body: &Value) -> Response<Answered> {
    Response::builder().status(status).header("content-type", "application/json").body(Answered::from(body.to_string())).unwrap()
}

fn failure(code: u16, reason: &str, message: &str) -> Response<Answered> {
    answer(code, &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message}))
}

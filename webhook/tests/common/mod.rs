//! A small organisation, fakes of what the server needs, and reviews in and answers out as the API server sends and reads them.

#![allow(dead_code)] // each test file uses its part
#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value)] // a helper that fails fails its test; `json!` values read best by value

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::UserInfo;
use polity_api::reasons;
use polity_ledger::Note;
use polity_policy::{NamespaceFacts, Snapshot, TaskFacts, World};
use polity_webhook::{Attempts, Clock, Cluster, Metrics, Permission, State, Unavailable, Views, router};
use serde_json::{Value, json};
use tower::ServiceExt;

pub const ALICE: &str = "alice@acme.example";
pub const ALICE_TOO: &str = "alice@home.example";
pub const BOB: &str = "bob@acme.example";
pub const CAROL: &str = "carol@acme.example";
pub const DAVE: &str = "dave@acme.example";
pub const BOT: &str = "system:serviceaccount:finance:polity-agent-bot";
pub const CORE: &str = "system:serviceaccount:polity-system:polity-core";
pub const EDGE: &str = "system:serviceaccount:polity-system:polity-edge";
pub const NOW: &str = "2026-11-21T12:00:00Z";

/// Fakes and everything that a test may turn.
pub struct Fixture {
    pub world: Mutex<World>,
    pub late_tool: Mutex<Option<(String, String)>>,
    pub stale: bool,
    pub panics: bool,
    pub hangs: bool,
    pub may: Vec<(String, String, String)>,
    pub tasks: BTreeMap<String, TaskFacts>,
    pub asked: Mutex<Vec<Permission>>,
    pub notes: Mutex<Vec<Note>>,
    pub now: Timestamp,
    pub metrics: Metrics,
}

impl Default for Fixture {
    fn default() -> Self {
        Self {
            world: Mutex::new(world()),
            late_tool: Mutex::default(),
            stale: false,
            panics: false,
            hangs: false,
            may: Vec::new(),
            tasks: BTreeMap::new(),
            asked: Mutex::default(),
            notes: Mutex::default(),
            now: NOW.parse().unwrap(),
            metrics: Metrics::new(&prometheus::Registry::new()).unwrap(),
        }
    }
}

impl Views for Fixture {
    fn of_namespace(&self, namespace: &str) -> Result<Arc<Snapshot>, Unavailable> {
        assert!(!self.panics, "asked to panic");
        if self.stale {
            return Err(Unavailable { reason: reasons::POLICY_STALE, message: "the view of the Org is older than 30 s".to_owned() });
        }
        let world = self.world();
        let org = world.orgs.values().find(|o| o.wanted_namespace() == namespace);
        match org.and_then(|o| o.metadata.name.as_deref()) {
            Some(org) => Ok(Arc::new(Snapshot::build(&world, org))),
            None => Err(Unavailable { reason: reasons::ORG_NOT_READY, message: format!("namespace {namespace:?} belongs to no Org") }),
        }
    }

    fn world(&self) -> Arc<World> {
        Arc::new(self.world.lock().unwrap().clone())
    }
}

impl Cluster for Fixture {
    fn may<'a>(&'a self, user: &'a UserInfo, permission: &'a Permission) -> BoxFuture<'a, Result<bool, Unavailable>> {
        self.asked.lock().unwrap().push(permission.clone());
        let user = user.username.clone().unwrap_or_default();
        let allowed = self.may.iter().any(|(u, verb, name)| *u == user && verb == permission.verb && *name == permission.name);
        async move { Ok(allowed) }.boxed()
    }

    fn task<'a>(&'a self, _namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Option<TaskFacts>, Unavailable>> {
        let found = self.tasks.get(name).cloned();
        let hangs = self.hangs;
        async move {
            if hangs {
                futures::future::pending::<()>().await;
            }
            Ok(found)
        }
        .boxed()
    }

    fn tool_appeared<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, bool> {
        let tool = self.late_tool.lock().unwrap().take().filter(|t| t == &(namespace.to_owned(), name.to_owned()));
        if let Some(tool) = &tool {
            let like = self.world.lock().unwrap().tools.values().next().cloned().unwrap();
            let mut like = (*like).clone();
            like.metadata.name = Some(tool.1.clone());
            self.world.lock().unwrap().tools.insert(tool.clone(), Arc::new(like));
        }
        async move { tool.is_some() }.boxed()
    }
}

impl Attempts for Fixture {
    fn take(&self, note: Note) {
        self.notes.lock().unwrap().push(note);
    }
}

impl Clock for Fixture {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn trace_bytes(&self) -> [u8; 24] {
        [7; 24]
    }
}

/// The server around a fixture.
pub fn server(fixture: &Arc<Fixture>) -> Router {
    router(State {
        views: fixture.clone(),
        cluster: fixture.clone(),
        attempts: fixture.clone(),
        clock: fixture.clone(),
        system_namespace: "polity-system".to_owned(),
        metrics: fixture.metrics.clone(),
    })
}

/// One review, to be changed before it is sent.
pub struct Ask {
    pub body: Value,
}

impl Ask {
    pub fn create(user: &str, object: Value) -> Self {
        Self::new("CREATE", user, object, Value::Null)
    }

    pub fn update(user: &str, old: Value, new: Value) -> Self {
        Self::new("UPDATE", user, new, old)
    }

    fn new(operation: &str, user: &str, object: Value, old: Value) -> Self {
        let kind = object["kind"].clone();
        let request = json!({
            "uid": "review-1",
            "kind": {"group": "polity.dev", "version": "v1alpha1", "kind": kind},
            "resource": {"group": "polity.dev", "version": "v1alpha1", "resource": "whatever"},
            "name": object["metadata"]["name"].as_str().unwrap_or_default(),
            "namespace": object["metadata"]["namespace"],
            "operation": operation,
            "userInfo": {"username": user, "uid": "uid-1", "groups": ["system:authenticated"]},
            "object": object,
            "oldObject": old,
            "dryRun": false,
            "options": null,
        });
        Self { body: json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}) }
    }

    pub fn groups(mut self, groups: &[&str]) -> Self {
        self.body["request"]["userInfo"]["groups"] = json!(groups);
        self
    }

    pub fn dry_run(mut self) -> Self {
        self.body["request"]["dryRun"] = json!(true);
        self
    }

    /// Sends it to `/mutate` and applies the patch to the object: what the API server hands to `/validate`.
    pub async fn mutate(&self, fixture: &Arc<Fixture>) -> Result<Self, Value> {
        let answer = send(fixture, "/mutate", &self.body).await;
        let response = &answer["response"];
        if response["allowed"] != true {
            return Err(response.clone());
        }
        let mut body = self.body.clone();
        if let Some(patch) = patch_of(response) {
            json_patch::patch(&mut body["request"]["object"], &patch).unwrap();
        }
        Ok(Self { body })
    }

    /// Sends it to `/validate`.
    pub async fn validate(&self, fixture: &Arc<Fixture>) -> Value {
        send(fixture, "/validate", &self.body).await["response"].clone()
    }

    /// Both, as the API server does.
    pub async fn admit(&self, fixture: &Arc<Fixture>) -> Value {
        match self.mutate(fixture).await {
            Ok(stamped) => stamped.validate(fixture).await,
            Err(refused) => refused,
        }
    }

    pub fn object(&self) -> &Value {
        &self.body["request"]["object"]
    }
}

/// The JSON Patch in a response.
pub fn patch_of(response: &Value) -> Option<json_patch::Patch> {
    let text = response["patch"].as_str()?;
    assert_eq!(response["patchType"], "JSONPatch");
    let bytes: k8s_openapi::ByteString = serde_json::from_value(json!(text)).unwrap();
    Some(serde_json::from_slice(&bytes.0).unwrap())
}

pub async fn send(fixture: &Arc<Fixture>, path: &str, body: &Value) -> Value {
    let (status, text) = raw(fixture, path, "application/json", body.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&answer["apiVersion"], &answer["kind"]), (&json!("admission.k8s.io/v1"), &json!("AdmissionReview")));
    assert_eq!(answer["response"]["uid"], body["request"]["uid"]);
    answer
}

pub async fn raw(fixture: &Arc<Fixture>, path: &str, content: &str, body: impl Into<Body>) -> (StatusCode, String) {
    let request = Request::post(path).header("content-type", content).body(body.into()).unwrap();
    let response = server(fixture).oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

#[track_caller]
pub fn refused<'a>(response: &'a Value, code: u16, reason: &str) -> &'a str {
    assert_eq!(response["allowed"], false, "{response:#}");
    assert_eq!((&response["status"]["code"], &response["status"]["reason"]), (&json!(code), &json!(reason)), "{response:#}");
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.starts_with(reason), "kubectl prints the message only: {message}");
    message
}

#[track_caller]
pub fn accepted(response: &Value) -> Vec<String> {
    assert_eq!(response["allowed"], true, "{response:#}");
    response["warnings"].as_array().into_iter().flatten().map(|w| w.as_str().unwrap().to_owned()).collect()
}

pub fn object(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    let mut object = json!({"apiVersion": "polity.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "uid": format!("{kind}-{name}"), "generation": 1}, "spec": spec});
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = json!(namespace);
    }
    object
}

pub fn call(tool: &str, input: Value) -> Value {
    object("ToolCall", "finance", "c1", json!({"tool": {"name": tool}, "input": input}))
}

fn with_status(mut object: Value, status: Value) -> Value {
    object["status"] = status;
    object["status"]["observedGeneration"] = json!(1);
    let mut conditions = vec![
        json!({"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": NOW, "observedGeneration": 1}),
    ];
    if object["kind"] == "Org" {
        for stage in ["AncestryReady", "NamespaceReady", "QuotaReady", "NetworkReady", "MembersReady", "Started"] {
            conditions.push(json!({"type": stage, "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": NOW, "observedGeneration": 1}));
        }
    }
    object["status"]["conditions"] = json!(conditions);
    object
}

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

/// acme with its unit finance: alice (clerk), bob (no role), carol (cfo of acme), dave (auditor group), and bot, an AI clerk.
pub fn world() -> World {
    let mut world = World::default();
    for (name, parent) in [("acme", None), ("finance", Some("acme"))] {
        let spec = parent.map_or(json!({}), |p| json!({"parentRef": {"name": p}}));
        let uid = format!("ns-{name}");
        let path = parent.map_or(json!([name]), |p| json!([p, name]));
        let org =
            with_status(object("Org", "", name, spec), json!({"namespace": {"name": name, "uid": uid, "created": true}, "path": path}));
        world.orgs.insert(name.to_owned(), typed(org));
        world.namespaces.insert(name.to_owned(), NamespaceFacts { uid, consent: Some(name.to_owned()), terminating: false });
    }
    let mut agent = |namespace: &str, name: &str, kind: &str, usernames: &[&str]| {
        let spec = if kind == "AI" {
            json!({"type": "AI", "image": "x", "command": ["x"]})
        } else {
            json!({"type": kind, "usernames": usernames})
        };
        let agent = with_status(object("Agent", namespace, name, spec), json!({"usernames": usernames}));
        world.agents.insert((namespace.to_owned(), name.to_owned()), typed(agent));
    };
    agent("finance", "alice", "Human", &[ALICE, ALICE_TOO]);
    agent("finance", "bob", "Human", &[BOB]);
    agent("acme", "carol", "Human", &[CAROL]);
    agent("acme", "dave", "Human", &[DAVE]);
    agent("finance", "bot", "AI", &[BOT]);
    let holders = |names: &[&str]| names.iter().map(|n| json!({"agent": n, "source": "Assignment", "since": NOW})).collect::<Vec<_>>();
    let clerk = json!({"grants": [{"tools": ["payments-*"]}], "reportsTo": {"org": "acme", "name": "cfo"}, "assignment": {"agents": ["alice", "bot"]}});
    let clerk = with_status(object("Role", "finance", "clerk", clerk), json!({"holders": holders(&["alice", "bot"])}));
    world.roles.insert(("finance".to_owned(), "clerk".to_owned()), typed(clerk));
    let cfo = json!({"export": "Descendants", "assignment": {"agents": ["carol"]}});
    let cfo = with_status(object("Role", "acme", "cfo", cfo), json!({"holders": holders(&["carol"])}));
    world.roles.insert(("acme".to_owned(), "cfo".to_owned()), typed(cfo));
    let schema = json!({"type": "object", "properties": {"amount": {"type": "integer"}, "to": {"type": "string"}}, "required": ["amount"], "additionalProperties": false});
    let tool = json!({"inputSchema": schema, "runtime": {"container": {"image": "x", "command": ["x"]}}});
    let tool = with_status(object("Tool", "finance", "payments-send", tool), json!({"runtime": "container"}));
    world.tools.insert(("finance".to_owned(), "payments-send".to_owned()), typed(tool));
    policy(
        &mut world,
        "limits",
        "Enforce",
        json!([
            {"name": "max", "expression": "args.amount <= 500", "effect": "Deny", "message": "Payments above 500 are forbidden.", "hint": "Ask for at most 500."},
            {"name": "ask", "expression": "args.amount <= 50", "effect": "RequireApproval", "approval": {"role": {"org": "acme", "name": "cfo"}}},
        ]),
    );
    policy(
        &mut world,
        "advice",
        "Warn",
        json!([
            {"name": "small", "expression": "args.amount <= 20", "effect": "Deny", "message": format!("Small amounts are better. {}", "x".repeat(400))},
        ]),
    );
    world
}

pub fn policy(world: &mut World, name: &str, mode: &str, rules: Value) {
    let spec = json!({"mode": mode, "match": {"tools": ["payments-*"]}, "rules": rules});
    let policy = with_status(object("Policy", "finance", name, spec), json!({}));
    world.policies.insert(("finance".to_owned(), name.to_owned()), typed(policy));
}

//! An edge with a scripted API server, a scripted core and a scripted upstream on loopback, and one Org with three Tools.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use axum::{Json, Router, body::Body, extract::State, http::StatusCode};
use futures::future::BoxFuture;
use polity_gateway::{
    Gateway, Metrics, Settings, StreamLimits,
    egress::Egress,
    http_tool::{HttpTools, Lookup, Roots},
};
use polity_policy::World;
use polity_runtime::{CancellationToken, cache::Cache, clock::SystemClock};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::ServiceExt as _;

use crate::{api::Api, ledger::Ledger};

/// The upstream: counts requests; those to `/slow` end when told to.
#[derive(Default)]
pub struct Upstream {
    pub requests: AtomicUsize,
    pub go: Notify,
}

async fn upstream(State(upstream): State<Arc<Upstream>>, request: axum::extract::Request) -> (StatusCode, Json<Value>) {
    upstream.requests.fetch_add(1, Ordering::SeqCst);
    let path = request.uri().path().to_owned();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    match path.as_str() {
        "/slow" => {
            upstream.go.notified().await;
            (StatusCode::OK, Json(json!("late")))
        }
        "/broken" => (StatusCode::INTERNAL_SERVER_ERROR, Json(json!("broken"))),
        _ => (StatusCode::OK, Json(json!({"paid": serde_json::from_slice::<Value>(&body).unwrap_or(Value::Null)}))),
    }
}

struct Local;

impl Lookup for Local {
    fn addresses<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        Box::pin(std::future::ready(Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)])))
    }
    fn service<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<IpAddr, String>> {
        Box::pin(std::future::ready(Err("none".into())))
    }
    fn secret<'a>(&'a self, _: &'a str, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<String, String>> {
        Box::pin(std::future::ready(Err("none".into())))
    }
}

pub struct Edge {
    pub api: Api,
    pub ledger: Arc<Ledger>,
    pub upstream: Arc<Upstream>,
    pub gateway: Arc<Gateway>,
    pub cancel: CancellationToken,
    pub registry: prometheus::Registry,
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "polity.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": "acme"}, "spec": spec})
}

fn world(port: u16) -> World {
    let amount = json!({"type": "object", "properties": {"amount": {"type": "integer"}, "note": {}}});
    let http = |path: &str| json!({"http": {"url": format!("http://upstream.example:{port}{path}")}});
    let tool = |name: &str, path: &str, idempotent: bool| {
        object(
            "Tool",
            name,
            json!({"inputSchema": amount, "idempotent": idempotent, "timeoutSeconds": 30, "price": {"usd": "0.5"}, "runtime": http(path)}),
        )
    };
    let mut org = object("Org", "acme", json!({}));
    org["metadata"] = json!({"name": "acme", "uid": "org-acme"});
    org["status"] = json!({"namespace": {"name": "acme", "uid": "ns", "created": true}});
    let ai = json!({"type": "AI", "image": "i", "command": ["c"]});
    let rules = json!([
        {"name": "small", "expression": "args.amount <= 50", "effect": "RequireApproval", "message": "over 50", "approval": {"role": {"name": "boss"}}},
        {"name": "hard", "expression": "args.amount <= 500", "effect": "Deny", "message": "never over 500", "hint": "ask for at most 500"}
    ]);
    World::from_objects(vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "acme", "uid": "ns", "labels": {"polity.dev/org": "acme"}}}),
        org,
        object("Agent", "payer", ai.clone()),
        object("Agent", "clerk", ai),
        object("Role", "payers", json!({"grants": [{"tools": ["*"]}], "assignment": {"agents": ["payer"]}})),
        object("Role", "boss", json!({})),
        object("Policy", "limits", json!({"match": {"tools": ["pay"]}, "rules": rules})),
        tool("pay", "/pay", false),
        tool("slow", "/slow", false),
        tool("again", "/slow", true),
        tool("broken", "/broken", false),
        {
            let mut read = tool("read", "/pay", false);
            read["spec"]["mcpName"] = json!("read_it");
            read
        },
        tool("leaky", "/broken", false),
        object(
            "Policy",
            "demands",
            json!({
                "match": {"tools": ["read", "leaky"]},
                "rules": [{"name": "cap", "expression": "args.amount <= 70", "effect": "Rewrite", "rewrite": [{"path": "amount", "max": 70}]}],
                "obligations": [
                    {"name": "hide", "redact": {"paths": ["paid.note"]}},
                    {"name": "check", "expression": "result.paid.amount == args.amount && args.amount != 13", "message": "not what was asked"}
                ]
            }),
        ),
        tool("sum", "/pay", false),
        object(
            "Policy",
            "sums",
            json!({
                "match": {"tools": ["sum"]},
                "counters": [{"name": "spent", "amount": "args.amount", "by": ["Agent"], "window": "24h"}],
                "rules": [{"name": "day", "expression": "counters.spent + args.amount <= 50", "effect": "Deny"}]
            }),
        ),
        object("Tool", "box", json!({"timeoutSeconds": 30, "runtime": {"container": {"image": "i", "command": ["c"]}}})),
    ])
}

impl Edge {
    pub async fn start() -> Self {
        Self::start_with("polity-edge-1", Api::new(), Arc::default()).await
    }

    /// With these bounds of streams.
    pub async fn streaming(streams: StreamLimits) -> Self {
        Self::start_all("polity-edge-1", Api::new(), Arc::default(), streams).await
    }

    /// A replica beside the same API server and ledger as others.
    pub async fn start_with(replica: &str, api: Api, ledger: Arc<Ledger>) -> Self {
        Self::start_all(replica, api, ledger, StreamLimits::default()).await
    }

    pub async fn start_all(replica: &str, api: Api, ledger: Arc<Ledger>, streams: StreamLimits) -> Self {
        let heard = Arc::new(Upstream::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = Router::new().fallback(upstream).with_state(heard.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let cancel = CancellationToken::new();
        let egress = Arc::new(ArcSwapOption::from_pointee(Egress::new(Vec::new(), Vec::new())));
        let http = HttpTools { lookup: Arc::new(Local), egress, roots: Roots::of(rustls::RootCertStore::empty()) };
        let registry = prometheus::Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let names = vec!["polity-edge".into(), "::1".into()];
        let settings =
            Settings { replica: replica.into(), system_namespace: "polity-system".into(), names, metrics, oidc: Vec::new(), streams };
        let cache = Cache::fixed(world(port));
        let gateway = Gateway::new(&settings, api.client(), cache, ledger.clone(), http, Arc::new(SystemClock), &cancel);
        tokio::spawn(polity_gateway::hear_cancels(gateway.clone(), cancel.clone()));
        Self { api, ledger, upstream: heard, gateway, cancel, registry }
    }

    pub async fn ask(&self, method: &str, path: &str, token: &str, body: Option<Value>) -> (StatusCode, Value) {
        let (status, _, body) = self.full(method, path, token, body.map(|b| b.to_string()).unwrap_or_default()).await;
        (status, body)
    }

    pub async fn full(&self, method: &str, path: &str, token: &str, body: String) -> (StatusCode, axum::http::HeaderMap, Value) {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json");
        let response = polity_gateway::router(self.gateway.clone()).oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 22).await.unwrap();
        (status, headers, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    pub async fn call(&self, body: Value) -> (StatusCode, Value) {
        self.ask("POST", "/v1/orgs/acme/calls", "payer-token", Some(body)).await
    }

    /// What `/metrics` would say.
    pub fn metrics(&self) -> String {
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap()
    }

    pub fn sent(&self) -> usize {
        self.upstream.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// As `until`, for what is asked for.
pub async fn until_async<T, F: Future<Output = Result<T, String>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match look().await {
            Ok(value) => return value,
            Err(now) => assert!(Instant::now() < deadline, "{what}: still {now}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until it holds, or fails with what it was.
pub async fn until<T: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match look() {
            Ok(value) => return value,
            Err(now) => assert!(Instant::now() < deadline, "{what}: still {now}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

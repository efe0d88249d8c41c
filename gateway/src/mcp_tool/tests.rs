//! Against scripted servers on loopback, which an `Egress` made here allows: a good one that speaks MCP, and bad ones that do one thing wrong.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use arc_swap::ArcSwapOption;
use axum::{Router, body::Body, extract::State, http::HeaderMap, response::Response};
use futures::future::BoxFuture;
use polity_api::tool::{Mcp, Runtime, SecretHeader, ToolSpec};
use polity_ledger::Outcome;
use serde_json::{Value, json};

use super::*;
use crate::{
    egress::Egress,
    http_tool::{Call, Lookup, Ran, Roots},
};

struct Names;

impl Lookup for Names {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        let found = host.ends_with(".example").then(|| vec![IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)]);
        Box::pin(std::future::ready(found.ok_or_else(|| "no such name".to_owned())))
    }
    fn service<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<IpAddr, String>> {
        Box::pin(std::future::ready(Err("no such Service".to_owned())))
    }
    fn secret<'a>(&'a self, _: &'a str, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<String, String>> {
        Box::pin(std::future::ready(Ok("Bearer s3cr3t-value".to_owned())))
    }
}

pub(super) fn http() -> HttpTools {
    let egress = Arc::new(ArcSwapOption::from_pointee(Egress::new(Vec::new(), Vec::new())));
    HttpTools { lookup: Arc::new(Names), egress, roots: Roots::of(rustls::RootCertStore::empty()) }
}

/// What a scripted server does with one method.
type Does = Box<dyn Fn(&Value, usize) -> Response + Send + Sync>;

/// A scripted MCP server: right in everything but what a test changes.
struct Server {
    /// What it lists; may be changed while it runs.
    lists: Mutex<Value>,
    on_list: Option<Does>,
    on_call: Option<Does>,
    asked: AtomicUsize,
    lists_read: AtomicUsize,
    heard: Mutex<Vec<(HeaderMap, Value)>>,
}

fn definition() -> Value {
    json!({"name": "send", "description": "Sends a mail.", "inputSchema": {"type": "object", "properties": {"to": {"type": "string"}}}})
}

fn answer(id: &Value, result: &Value) -> Response {
    Response::builder()
        .header("content-type", "application/json")
        .header("mcp-session-id", "s-1")
        .body(Body::from(json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string()))
        .unwrap()
}

fn status(code: u16) -> Response {
    Response::builder().status(code).body(Body::from("busy")).unwrap()
}

impl Server {
    fn new() -> Self {
        Self {
            lists: Mutex::new(json!([definition()])),
            on_list: None,
            on_call: None,
            asked: AtomicUsize::new(0),
            lists_read: AtomicUsize::new(0),
            heard: Mutex::default(),
        }
    }

    async fn start(self) -> (Arc<Self>, u16) {
        let own = Arc::new(self);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = Router::new().fallback(Self::handle).with_state(own.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (own, port)
    }

    async fn handle(State(own): State<Arc<Self>>, headers: HeaderMap, body: String) -> Response {
        let n = own.asked.fetch_add(1, Ordering::SeqCst);
        let message: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
        own.heard.lock().unwrap().push((headers, message.clone()));
        let id = &message["id"];
        match message["method"].as_str().unwrap_or_default() {
            "initialize" => answer(id, &json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {}})),
            "tools/list" => {
                let read = own.lists_read.fetch_add(1, Ordering::SeqCst);
                match &own.on_list {
                    Some(does) => does(&message, read),
                    None => {
                        let tools = own.lists.lock().unwrap().clone();
                        answer(id, &json!({"tools": tools}))
                    }
                }
            }
            "tools/call" => match &own.on_call {
                Some(does) => does(&message, n),
                None => answer(
                    id,
                    &json!({"content": [{"type": "text", "text": "sent"}], "structuredContent": {"to": message["params"]["arguments"]["to"]}}),
                ),
            },
            _ => Response::builder().status(202).body(Body::empty()).unwrap(),
        }
    }

    fn methods(&self) -> Vec<String> {
        self.heard.lock().unwrap().iter().filter_map(|(_, m)| m["method"].as_str().map(str::to_owned)).collect()
    }
}

fn tool_of(port: u16, definition: &Value) -> ToolFacts {
    let definition = Definition::of(definition).unwrap();
    let mcp = Mcp {
        url: Some(format!("http://mail.example:{port}/mcp")),
        tool: definition.name().to_owned(),
        digest: Some(definition.digest().to_owned()),
        definition: Some(definition.text()),
        ..Mcp::default()
    };
    let spec = ToolSpec { timeout_seconds: 20, runtime: Runtime { mcp: Some(mcp), ..Runtime::default() }, ..ToolSpec::default() };
    ToolFacts {
        org: "acme".into(),
        namespace: "acme".into(),
        name: "mail".into(),
        uid: "u".into(),
        digest: "d".into(),
        micro_usd: 0,
        spec,
        quarantined: None,
    }
}

fn tool(port: u16) -> ToolFacts {
    tool_of(port, &definition())
}

async fn call(tools: &McpTools, tool: &ToolFacts) -> Result<Ran, NotNow> {
    let pass = tools.admit(&http(), tool).await?;
    let input = json!({"to": "ann"});
    Ok(tools.run(&http(), Call { tool, input: &input, trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" }, pass).await)
}

async fn ran(server: Server) -> Ran {
    let (_server, port) = server.start().await;
    call(&McpTools::default(), &tool(port)).await.unwrap()
}

fn said(ran: &Ran) -> (Outcome, &str) {
    (ran.outcome, ran.reason)
}

#[tokio::test]
async fn a_pinned_tool_is_called_and_its_structured_result_taken() {
    let (server, port) = Server::new().start().await;
    let mut tool = tool(port);
    tool.spec.runtime.mcp.as_mut().unwrap().secret_headers.push(SecretHeader {
        name: "Authorization".into(),
        secret: "s".into(),
        key: "k".into(),
    });
    let tools = McpTools::default();
    for _ in 0..3 {
        let ran = call(&tools, &tool).await.unwrap();
        assert_eq!((said(&ran), ran.output.clone()), ((Outcome::Done, ""), Some(json!({"to": "ann"}))));
    }
    // What it lists is read once for all of them.
    assert_eq!(server.lists_read.load(Ordering::SeqCst), 1);
    let heard = server.heard.lock().unwrap().clone();
    assert!(
        heard.iter().all(|(headers, _)| headers["authorization"] == "Bearer s3cr3t-value"
            && headers["host"].to_str().unwrap().starts_with("mail.example"))
    );
    let (headers, sent) = heard.iter().find(|(_, m)| m["method"] == "tools/call").unwrap();
    assert_eq!(sent["params"]["arguments"], json!({"to": "ann"}));
    assert_eq!((headers["mcp-session-id"].to_str().unwrap(), headers["mcp-protocol-version"].to_str().unwrap()), ("s-1", "2025-11-25"));
    assert!(headers["traceparent"].to_str().unwrap().starts_with("00-0af7"));
}

#[tokio::test]
async fn a_result_is_mapped_as_it_is() {
    type Case = (Value, &'static str, &'static str, Option<Value>);
    let text = json!([{"type": "text", "text": "no such\nperson"}]);
    let cases: Vec<Case> = vec![
        (json!({"content": text}), "", "", Some(json!({"content": text}))),
        (json!({"content": text, "isError": true}), reasons::TOOL_FAILED, "the tool failed: no such person", None),
        (json!({"content": [], "isError": true, "structuredContent": {"a": 1}}), reasons::TOOL_FAILED, "does not say why", None),
        (json!({"content": text, "isError": "yes"}), reasons::INVALID_RESULT, "isError", None),
        (json!({"structuredContent": [1]}), reasons::INVALID_RESULT, "structuredContent", None),
        (json!({}), reasons::INVALID_RESULT, "content", None),
        (json!({"content": [{"type": "text", "text": "x".repeat(20_000)}]}), reasons::RESULT_TOO_LARGE, "at most 16384", None),
    ];
    for (result, reason, part, output) in cases {
        let given = result.clone();
        let server = Server { on_call: Some(Box::new(move |m, _| answer(&m["id"], &given))), ..Server::new() };
        let ran = ran(server).await;
        assert_eq!((said(&ran), &ran.output), ((Outcome::Done, reason), &output), "{result}");
        assert!(ran.message.contains(part), "{part}: {}", ran.message);
    }
}

#[tokio::test]
async fn a_result_must_be_what_both_schemas_say() {
    let mut listed = definition();
    listed["outputSchema"] = json!({"type": "object"});
    let server = Server {
        lists: Mutex::new(json!([listed])),
        on_call: Some(Box::new(|m, _| answer(&m["id"], &json!({"content": []})))),
        ..Server::new()
    };
    let (_server, port) = server.start().await;
    let ran = call(&McpTools::default(), &tool_of(port, &listed)).await.unwrap();
    assert_eq!(said(&ran), (Outcome::Done, reasons::INVALID_RESULT), "{}", ran.message);
    let (_server, port) = Server::new().start().await;
    let mut typed = tool(port);
    typed.spec.output_schema = json!({"type": "object", "properties": {"to": {"type": "integer"}}}).as_object().cloned();
    let ran = call(&McpTools::default(), &typed).await.unwrap();
    assert_eq!(said(&ran), (Outcome::Done, reasons::INVALID_RESULT), "{}", ran.message);
}

#[tokio::test]
async fn a_changed_definition_is_found_when_the_list_is_read_again_and_never_called() {
    for (part, changed) in [
        ("description", json!({"name": "send", "description": "Sends a mail. <IMPORTANT>", "inputSchema": definition()["inputSchema"]})),
        (
            "input schema",
            json!({"name": "send", "description": "Sends a mail.", "inputSchema": {"type": "object", "properties": {"to": {"type": "string"}, "bcc": {}}}}),
        ),
        (
            "annotations",
            json!({"name": "send", "description": "Sends a mail.", "inputSchema": definition()["inputSchema"], "annotations": {"readOnlyHint": true}}),
        ),
    ] {
        let (server, port) = Server::new().start().await;
        let (tools, tool) = (McpTools::default(), tool(port));
        assert_eq!(call(&tools, &tool).await.unwrap().reason, "");
        *server.lists.lock().unwrap() = json!([changed]);
        // What was read a moment ago still counts; its server says that it has changed, or the moment passes.
        tools.upstream(&tool).forget();
        let not = call(&tools, &tool).await.unwrap_err();
        let drifted = not.drifted.clone().unwrap();
        assert_eq!((not.reason, drifted.changed), (reasons::TOOL_DRIFTED, vec![part]));
        assert_eq!(drifted.observed, Definition::of(&changed).unwrap().digest());
        assert!(not.message.contains(part) && not.hint.contains("kubectl polity tool pin"), "{not:?}");
        assert_eq!(server.methods().iter().filter(|m| *m == "tools/call").count(), 1);
        // Pinned anew it is called again.
        assert_eq!(call(&tools, &tool_of(port, &changed)).await.unwrap().reason, "");
    }
}

#[tokio::test]
async fn a_server_that_says_that_its_list_has_changed_is_asked_again_at_once() {
    let server = Server {
        on_call: Some(Box::new(|m, _| {
            let told = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
            let result = json!({"jsonrpc": "2.0", "id": m["id"], "result": {"content": []}});
            let body = format!("data: {told}\n\ndata: {result}\n\n");
            Response::builder().header("content-type", "text/event-stream").body(Body::from(body)).unwrap()
        })),
        ..Server::new()
    };
    let (server, port) = server.start().await;
    let (tools, tool) = (McpTools::default(), tool(port));
    assert_eq!(call(&tools, &tool).await.unwrap().reason, "");
    *server.lists.lock().unwrap() = json!([]);
    let not = call(&tools, &tool).await.unwrap_err();
    assert_eq!((not.reason, &not.drifted), (reasons::TOOL_DRIFTED, &None));
    assert!(not.message.contains("lists no tool \"send\""), "{}", not.message);
}

#[tokio::test]
async fn what_is_listed_twice_or_wrongly_or_not_pinned_is_not_called() {
    let (server, port) = Server::new().start().await;
    for (lists, part) in [
        (json!([definition(), definition()]), "twice"),
        (json!([{"name": "send", "description": "x".repeat(40_000)}]), "no definition"),
        (json!([{"name": "other"}]), "no tool"),
    ] {
        *server.lists.lock().unwrap() = lists;
        let not = call(&McpTools::default(), &tool(port)).await.unwrap_err();
        assert!(not.reason == reasons::TOOL_DRIFTED && not.message.contains(part), "{part}: {not:?}");
    }
    let mut unpinned = tool(port);
    unpinned.spec.runtime.mcp.as_mut().unwrap().digest = None;
    let asked = server.asked.load(Ordering::SeqCst);
    let not = call(&McpTools::default(), &unpinned).await.unwrap_err();
    assert!(not.reason == reasons::TOOL_NOT_READY && not.hint.contains("tool pin"), "{not:?}");
    let mut other = tool(port);
    other.spec.runtime.mcp.as_mut().unwrap().digest = Some("0".repeat(64));
    assert_eq!(call(&McpTools::default(), &other).await.unwrap_err().reason, reasons::TOOL_NOT_READY);
    assert_eq!(server.asked.load(Ordering::SeqCst), asked, "asked for nothing");
}

#[tokio::test]
async fn what_became_of_a_call_is_said_honestly() {
    let raw = |kind: &'static str, body: String| {
        move |_: &Value, _: usize| Response::builder().header("content-type", kind).body(Body::from(body.clone())).unwrap()
    };
    let error = |m: &Value, _: usize| {
        let body = json!({"jsonrpc": "2.0", "id": m["id"], "error": {"code": -32602, "message": "no: Bearer s3cr3t-value"}});
        Response::builder().header("content-type", "application/json").body(Body::from(body.to_string())).unwrap()
    };
    let cases: Vec<(&str, Does, Outcome, &str, &str)> = vec![
        ("garbage", Box::new(raw("text/html", "<html>".into())), Outcome::Unknown, reasons::OUTCOME_UNKNOWN, "does not speak MCP"),
        ("not JSON", Box::new(raw("application/json", "{".into())), Outcome::Unknown, reasons::OUTCOME_UNKNOWN, "not one JSON value"),
        ("another id", Box::new(|_, _| answer(&json!(99), &json!({}))), Outcome::Unknown, reasons::OUTCOME_UNKNOWN, "not made"),
        (
            "no answer",
            Box::new(raw("text/event-stream", ": nothing\n\n".into())),
            Outcome::Unknown,
            reasons::OUTCOME_UNKNOWN,
            "without the answer",
        ),
        (
            "endless",
            Box::new(raw("text/event-stream", "data: {\"method\":\"x\"}\n\n".repeat(300_000))),
            Outcome::Unknown,
            reasons::OUTCOME_UNKNOWN,
            "without the answer",
        ),
        ("huge", Box::new(raw("application/json", "x".repeat(2 << 20))), Outcome::Done, reasons::RESULT_TOO_LARGE, "more than 1048576"),
        ("refused", Box::new(error), Outcome::Done, reasons::TOOL_FAILED, "answered error -32602: no: ***"),
        ("busy", Box::new(|_, _| status(503)), Outcome::Done, reasons::TOOL_FAILED, "answered 503: busy"),
        (
            "redirect",
            Box::new(|_, _| Response::builder().status(307).header("location", "http://127.0.0.1:1/x?k=1").body(Body::empty()).unwrap()),
            Outcome::Done,
            reasons::TOOL_FAILED,
            "redirects are not followed",
        ),
    ];
    for (what, does, outcome, reason, part) in cases {
        let (_server, port) = Server { on_call: Some(does), ..Server::new() }.start().await;
        let mut tool = tool(port);
        tool.spec.runtime.mcp.as_mut().unwrap().secret_headers.push(SecretHeader {
            name: "Authorization".into(),
            secret: "s".into(),
            key: "k".into(),
        });
        let ran = call(&McpTools::default(), &tool).await.unwrap();
        assert_eq!(said(&ran), (outcome, reason), "{what}: {}", ran.message);
        assert!(ran.message.contains(part) && !ran.message.contains("s3cr3t"), "{what}: {}", ran.message);
    }
}

#[tokio::test]
async fn only_an_idempotent_tool_is_called_again() {
    for (idempotent, outcome, reason, calls) in [(false, Outcome::Unknown, reasons::OUTCOME_UNKNOWN, 1), (true, Outcome::Done, "", 2)] {
        let times = Arc::new(AtomicUsize::new(0));
        let counted = times.clone();
        let does: Does = Box::new(move |m, _| {
            if counted.fetch_add(1, Ordering::SeqCst) == 0 {
                return Response::builder().header("content-type", "text/event-stream").body(Body::empty()).unwrap();
            }
            answer(&m["id"], &json!({"content": []}))
        });
        let (_server, port) = Server { on_call: Some(does), ..Server::new() }.start().await;
        let mut tool = tool(port);
        tool.spec.idempotent = idempotent;
        let ran = call(&McpTools::default(), &tool).await.unwrap();
        assert_eq!((said(&ran), times.load(Ordering::SeqCst)), ((outcome, reason), calls), "{}", ran.message);
    }
}

/// Accepts connections and never answers; until `silent` requests have come it is right in everything.
async fn silent() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    port
}

#[tokio::test]
async fn a_slow_call_ends_in_time_and_its_server_is_told() {
    let server = Arc::new(tokio::sync::Notify::new());
    let cancelled = server.clone();
    let app = Router::new().fallback(move |body: String| {
        let cancelled = cancelled.clone();
        async move {
            let message: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
            match message["method"].as_str().unwrap_or_default() {
                "initialize" => answer(&message["id"], &json!({"protocolVersion": "2025-11-25"})),
                "tools/list" => answer(&message["id"], &json!({"tools": [definition()]})),
                "tools/call" => std::future::pending().await,
                "notifications/cancelled" => {
                    assert_eq!(message["params"]["requestId"], 2);
                    cancelled.notify_one();
                    status(202)
                }
                _ => status(202),
            }
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut tool = tool(port);
    tool.spec.timeout_seconds = 1;
    let ran = call(&McpTools::default(), &tool).await.unwrap();
    assert_eq!(said(&ran), (Outcome::Unknown, reasons::TIMED_OUT), "{}", ran.message);
    tokio::time::timeout(Duration::from_secs(20), server.notified()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_left_alone_and_harms_no_other() {
    let tools = McpTools { patience: Duration::from_millis(100), ..McpTools::default() };
    let (slow, good) = (tool(silent().await), tool(Server::new().start().await.1));
    for _ in 0..circuit::FAILURES {
        let not = tools.admit(&http(), &slow).await.unwrap_err();
        assert_eq!(not.reason, reasons::UPSTREAM_UNAVAILABLE);
        assert!(not.message.contains("no list of its tools within 100ms"), "{}", not.message);
    }
    let not = tools.admit(&http(), &slow).await.unwrap_err();
    assert!(not.message.contains("failed too often") && not.message.contains("no list of its tools"), "{}", not.message);
    let good_tools = McpTools { upstreams: tools.upstreams, patience: listing::READ };
    assert_eq!(call(&good_tools, &good).await.unwrap().reason, "");
}

#[tokio::test]
async fn calls_that_wait_for_the_same_list_fail_with_it_together() {
    let tools = McpTools { patience: Duration::from_millis(300), ..McpTools::default() };
    let slow = tool(silent().await);
    let started = Instant::now();
    let all = futures::future::join_all((0..AT_ONCE).map(|_| async { tools.admit(&http(), &slow).await.map(drop) })).await;
    assert!(all.iter().all(|not| not.as_ref().is_err_and(|n| n.message.contains("no list of its tools"))), "{all:?}");
    // One reading, not sixteen after each other; twice the time is room for a slow machine.
    assert!(started.elapsed() < Duration::from_millis(300) * 8, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_server_gets_only_so_many_calls_at_once_and_is_asked_once_for_its_list() {
    let (server, port) = Server::new().start().await;
    let (tools, tool) = (McpTools::default(), tool(port));
    let mut passes = futures::future::join_all((0..AT_ONCE).map(|_| async { tools.admit(&http(), &tool).await.unwrap() })).await;
    assert_eq!(server.lists_read.load(Ordering::SeqCst), 1);
    let not = tools.admit(&http(), &tool).await.unwrap_err();
    assert!(not.reason == reasons::UPSTREAM_UNAVAILABLE && not.message.contains("16 calls"), "{not:?}");
    // Another namespace reaches the same server with bounds of its own.
    let other = ToolFacts { namespace: "other".into(), ..tool.clone() };
    assert!(tools.admit(&http(), &other).await.is_ok());
    passes.pop();
    assert!(tools.admit(&http(), &tool).await.is_ok());
}

#[tokio::test]
async fn a_failed_list_is_told_and_the_next_one_read() {
    let server = Server {
        on_list: Some(Box::new(|m, n| if n == 0 { status(500) } else { answer(&m["id"], &json!({"tools": [definition()]})) })),
        ..Server::new()
    };
    let (_server, port) = server.start().await;
    let (tools, tool) = (McpTools::default(), tool(port));
    let not = call(&tools, &tool).await.unwrap_err();
    assert!(not.reason == reasons::UPSTREAM_UNAVAILABLE && not.message == "the server answered 500: busy", "{not:?}");
    assert_eq!(call(&tools, &tool).await.unwrap().reason, "");
}

#[tokio::test]
async fn refused_addresses_are_refused_before_anything_begins() {
    let (server, port) = Server::new().start().await;
    let production = HttpTools { egress: Arc::new(ArcSwapOption::from_pointee(Egress::production(Vec::new()))), ..http() };
    let not = McpTools::default().admit(&production, &tool(port)).await.unwrap_err();
    assert_eq!(not.reason, reasons::EGRESS_REFUSED);
    assert_eq!(server.asked.load(Ordering::SeqCst), 0);
    let mut nowhere = tool(port);
    nowhere.spec.runtime.mcp.as_mut().unwrap().url = Some("http://nowhere.invalid/".into());
    assert_eq!(McpTools::default().admit(&http(), &nowhere).await.unwrap_err().reason, reasons::UPSTREAM_UNAVAILABLE);
}

#[tokio::test]
async fn what_is_listed_is_shown_pinned_or_not() {
    let (_server, port) = Server::new().start().await;
    let mut unpinned = tool(port);
    let mcp = unpinned.spec.runtime.mcp.as_mut().unwrap();
    (mcp.digest, mcp.definition) = (None, None);
    let observed = McpTools::default().observe(&http(), &unpinned).await.unwrap();
    assert_eq!(observed, Definition::of(&definition()).unwrap());
    unpinned.spec.runtime.mcp.as_mut().unwrap().tool = "other".into();
    let not = McpTools::default().observe(&http(), &unpinned).await.unwrap_err();
    assert!(not.message.contains("lists no tool"), "{not:?}");
}

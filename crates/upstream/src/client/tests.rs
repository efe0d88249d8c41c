//! Against a scripted server on loopback that answers each request with given bytes.

use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

/// Scripted: gives the n-th request the n-th answer (the last one for all further ones) and keeps what it heard.
struct Scripted {
    endpoint: Endpoint,
    heard: Arc<Mutex<Vec<String>>>,
}

fn json_answer(body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nMcp-Session-Id: s-1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

fn stream_answer(events: &[Value]) -> Vec<u8> {
    let events: String = events.iter().map(|e| format!("data: {e}\n\n")).collect();
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n{events}").into_bytes()
}

fn answer(id: u64, result: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

fn initialized() -> Vec<Vec<u8>> {
    let result =
        json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "scripted", "version": "1"}});
    vec![json_answer(&answer(1, &result)), b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".to_vec()]
}

impl Scripted {
    async fn start(answers: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap()).parse().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let kept = heard.clone();
        tokio::spawn(async move {
            let mut n = 0;
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                let mut bytes = [0; 4096];
                while !complete(&request) {
                    match stream.read(&mut bytes).await {
                        Ok(got) if got > 0 => request.extend_from_slice(&bytes[..got]),
                        _ => break,
                    }
                }
                kept.lock().unwrap().push(String::from_utf8_lossy(&request).to_ascii_lowercase());
                let _ = stream.write_all(&answers[n.min(answers.len() - 1)]).await;
                n += 1;
            }
        });
        let _ = rustls_provider();
        let client =
            reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { endpoint: Endpoint { client, url, headers: HeaderMap::new() }, heard }
    }

    /// A conversation that is open, and answers these.
    async fn open(answers: Vec<Vec<u8>>) -> (Conversation, Self) {
        let own = Self::start([initialized(), answers].concat()).await;
        (Conversation::open(own.endpoint.clone()).await.unwrap(), own)
    }
}

fn rustls_provider() -> Result<(), ()> {
    rustls::crypto::ring::default_provider().install_default().map_err(|_| ())
}

fn complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ").and_then(|n| n.parse::<usize>().ok()));
    body.len() >= length.unwrap_or(0)
}

async fn called(answers: Vec<Vec<u8>>) -> (Result<Value, Failure>, Scripted, bool) {
    let (mut conversation, server) = Scripted::open(answers).await;
    let result = conversation.call("send", json!({"to": "ann"}).as_object().unwrap(), None, "00-1-2-01").await;
    (result, server, conversation.list_changed)
}

#[tokio::test]
async fn a_call_names_session_revision_and_arguments() {
    let (result, server, _) = called(vec![json_answer(&answer(2, &json!({"content": []})))]).await;
    assert_eq!(result, Ok(json!({"content": []})));
    let heard = server.heard.lock().unwrap().clone();
    assert!(heard[0].contains(r#""method":"initialize""#) && heard[1].contains("notifications/initialized"), "{heard:?}");
    for part in [
        "post /mcp ",
        "mcp-session-id: s-1",
        "mcp-protocol-version: 2025-06-18",
        r#""arguments":{"to":"ann"}"#,
        r#""traceparent":"00-1-2-01""#,
        "accept: application/json, text/event-stream",
    ] {
        assert!(heard[2].contains(part), "{part}: {}", heard[2]);
    }
}

#[tokio::test]
async fn a_stream_is_read_to_the_answer_and_what_the_server_asks_is_refused() {
    let events = [
        json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}}),
        json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}),
        json!({"jsonrpc": "2.0", "id": "s1", "method": "sampling/createMessage", "params": {}}),
        answer(2, &json!({"content": [], "isError": true})),
    ];
    let (result, server, list_changed) =
        called(vec![stream_answer(&events), b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".to_vec()]).await;
    assert_eq!(result, Ok(json!({"content": [], "isError": true})));
    assert!(list_changed);
    let heard = server.heard.lock().unwrap().clone();
    assert!(heard[3].contains(r#""id":"s1""#) && heard[3].contains("-32601"), "{heard:?}");
}

#[tokio::test]
async fn what_is_no_answer_is_told_apart() {
    let ok = |body: &str| {
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    let protocol = |part: &'static str| move |f: &Failure| matches!(f, Failure::Protocol(what) if what.contains(part));
    type Judge = Box<dyn Fn(&Failure) -> bool>;
    let cases: Vec<(Vec<u8>, Judge)> = vec![
        (json_answer(&answer(9, &json!({}))), Box::new(protocol("not made"))),
        (stream_answer(&[answer(9, &json!({}))]), Box::new(protocol("not made"))),
        (ok("<html>"), Box::new(protocol("not one JSON value"))),
        (ok("[]"), Box::new(protocol("JSON-RPC"))),
        (ok(r#"{"jsonrpc":"2.0","id":2}"#), Box::new(protocol("neither"))),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi".to_vec(), Box::new(protocol("text/html"))),
        (b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".to_vec(), Box::new(protocol("nothing"))),
        (stream_answer(&[]), Box::new(|f| matches!(f, Failure::Broken { timed_out: false, why } if why.contains("without the answer")))),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: nonsense\n\n".to_vec(), Box::new(protocol("not JSON"))),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{\"jsonrpc\"".to_vec(),
            Box::new(|f| matches!(f, Failure::Broken { .. })),
        ),
        (b"garbage\r\n\r\n".to_vec(), Box::new(|f| matches!(f, Failure::Broken { .. }))),
        (
            ok(r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32602,"message":"bad\n\u200bargs"}}"#),
            Box::new(|f| f.to_string() == "answered error -32602: bad \u{fffd}args"),
        ),
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/x?key=1\r\nContent-Length: 0\r\n\r\n".to_vec(),
            Box::new(|f| f.to_string().contains("not followed") && !f.to_string().contains("key=1")),
        ),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy".to_vec(), Box::new(|f| f.to_string() == "answered 503: busy")),
    ];
    for (bytes, judge) in cases {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let (result, ..) = called(vec![bytes]).await;
        assert!(result.as_ref().is_err_and(&judge), "{shown}: {result:?}");
    }
}

#[tokio::test]
async fn too_much_is_not_read() {
    let huge = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n\"{}\"", "x".repeat(2 << 20)).into_bytes();
    assert_eq!(called(vec![huge]).await.0, Err(Failure::TooLarge));
    let event = format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: \"{}\"\n\n", "x".repeat(2 << 20)).into_bytes();
    assert_eq!(called(vec![event]).await.0, Err(Failure::TooLarge));
    let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"message": "x".repeat(1000)}});
    let endless = stream_answer(&vec![progress; 6000]);
    let (result, ..) = called(vec![endless]).await;
    assert!(matches!(&result, Err(Failure::Broken { why, .. }) if why.contains("without the answer")), "{result:?}");
    let asks = stream_answer(&vec![json!({"jsonrpc": "2.0", "id": 7, "method": "roots/list"}); 20]);
    let (result, ..) = called(vec![asks, b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".to_vec()]).await;
    assert!(matches!(&result, Err(Failure::Broken { why, .. }) if why.contains("requests of its own")), "{result:?}");
}

#[tokio::test]
async fn a_list_has_all_pages_and_an_end() {
    let page = |id, names: &[&str], next: Option<&str>| {
        let tools: Vec<Value> = names.iter().map(|n| json!({"name": n})).collect();
        json_answer(&answer(id, &json!({"tools": tools, "nextCursor": next})))
    };
    let (mut conversation, _server) = Scripted::open(vec![page(2, &["a"], Some("x")), page(3, &["b"], None)]).await;
    assert_eq!(conversation.list().await, Ok(vec![json!({"name": "a"}), json!({"name": "b"})]));
    let (mut conversation, _server) = Scripted::open(vec![page(2, &["a"], Some("x")), page(3, &["b"], Some("x"))]).await;
    assert!(matches!(conversation.list().await, Err(Failure::Protocol(what)) if what.contains("circle")));
    // One that goes on for ever, and one that has more on a page than anybody reads.
    let endless: Vec<Vec<u8>> = (2..100).map(|id| page(id, &["a"], Some(&id.to_string()))).collect();
    let (mut conversation, server) = Scripted::open(endless).await;
    assert!(matches!(conversation.list().await, Err(Failure::Protocol(what)) if what.contains("more than 32 pages")));
    assert_eq!(server.heard.lock().unwrap().len(), 2 + MAX_PAGES);
    let many: Vec<String> = (0..=MAX_TOOLS).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let (mut conversation, _server) = Scripted::open(vec![page(2, &many, None)]).await;
    assert!(matches!(conversation.list().await, Err(Failure::Protocol(what)) if what.contains("more than 2000 tools")));
    // Nested deeper than anything is read.
    let deep = format!("{{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let deep = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{deep}", deep.len()).into_bytes();
    let (mut conversation, _server) = Scripted::open(vec![deep]).await;
    assert!(matches!(conversation.list().await, Err(Failure::Protocol(what)) if what.contains("not one JSON value")));
}

#[tokio::test]
async fn another_revision_is_not_spoken() {
    let server = Scripted::start(vec![json_answer(&answer(1, &json!({"protocolVersion": "2024-11-05"})))]).await;
    let failure = Conversation::open(server.endpoint).await.unwrap_err();
    assert!(failure.to_string().contains("2024-11-05") && failure.to_string().contains(REVISION), "{failure}");
}

#[tokio::test]
async fn nothing_listens() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let mut server = Scripted::start(vec![Vec::new()]).await;
    server.endpoint.url = format!("http://127.0.0.1:{port}/").parse().unwrap();
    assert!(matches!(Conversation::open(server.endpoint).await, Err(Failure::NotSent { timed_out: false, .. })));
}

fn refusal(status: &str, code: i64) -> Vec<u8> {
    let body = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": "not that one"}}).to_string();
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn discovered(versions: &[&str]) -> Vec<u8> {
    json_answer(&answer(1, &json!({"resultType": "complete", "supportedVersions": versions, "capabilities": {"tools": {}}})))
}

#[tokio::test]
async fn a_server_of_the_newest_revision_alone_is_asked_without_a_beginning() {
    let done = json!({"resultType": "complete", "content": []});
    for first in [refusal("400 Bad Request", -32022), refusal("200 OK", -32022), refusal("404 Not Found", -32601)] {
        let server = Scripted::start(vec![first, discovered(&["2026-07-28"]), json_answer(&answer(2, &done))]).await;
        let mut conversation = Conversation::open(server.endpoint.clone()).await.unwrap();
        let schema = json!({"properties": {"to": {"type": "string", "x-mcp-header": "To"}}});
        let result = conversation.call("send", json!({"to": "ännchen"}).as_object().unwrap(), Some(&schema), "00-1-2-01").await;
        assert_eq!(result, Ok(done.clone()));
        conversation.farewell().cancel().await;
        let heard = server.heard.lock().unwrap().clone();
        assert_eq!(heard.len(), 3, "nothing is said that this revision does not know: {heard:?}");
        assert!(heard[1].contains("mcp-method: server/discover"), "{}", heard[1]);
        for part in [
            "mcp-protocol-version: 2026-07-28",
            "mcp-method: tools/call",
            "mcp-name: send",
            "mcp-param-to: =?base64?",
            r#""io.modelcontextprotocol/protocolversion":"2026-07-28""#,
            r#""io.modelcontextprotocol/clientcapabilities":{}"#,
            r#""traceparent":"00-1-2-01""#,
        ] {
            assert!(heard[2].contains(part), "{part}: {}", heard[2]);
        }
        assert!(!heard[2].contains("mcp-session-id"), "{}", heard[2]);
    }
}

#[tokio::test]
async fn a_server_that_asks_instead_of_answering_has_failed() {
    let asks = json!({"resultType": "input_required", "inputRequests": {}});
    let server =
        Scripted::start(vec![refusal("400 Bad Request", -32022), discovered(&["2026-07-28"]), json_answer(&answer(2, &asks))]).await;
    let mut conversation = Conversation::open(server.endpoint.clone()).await.unwrap();
    let failure = conversation.call("send", &Map::new(), None, "").await.unwrap_err();
    assert!(matches!(&failure, Failure::Refused { message, .. } if message.contains("input_required")), "{failure}");
}

#[tokio::test]
async fn what_a_server_said_first_is_told_when_it_speaks_nothing_that_is_spoken() {
    for second in [refusal("400 Bad Request", -32601), discovered(&["2027-01-01"]), b"garbage\r\n\r\n".to_vec()] {
        let server = Scripted::start(vec![refusal("200 OK", -32022), second]).await;
        let failure = Conversation::open(server.endpoint).await.unwrap_err();
        assert_eq!(failure, Failure::Refused { code: -32022, message: "not that one".into() });
    }
    // No access, or no time: another question would be answered the same.
    for status in ["401 Unauthorized", "403 Forbidden", "429 Too Many Requests", "503 Service Unavailable"] {
        let server = Scripted::start(vec![refusal(status, 0)]).await;
        assert!(matches!(Conversation::open(server.endpoint).await, Err(Failure::Status { .. })), "{status}");
        assert_eq!(server.heard.lock().unwrap().len(), 1, "{status}");
    }
}

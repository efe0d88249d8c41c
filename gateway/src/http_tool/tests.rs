//! Against scripted upstreams on loopback, which an `Egress` made here allows; the production one is tested to refuse.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use polity_api::tool::{Header, Http, Method, Runtime, Scheme, SecretHeader, ServiceRef, ToolSpec};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

/// Scripted answers to lookups; counts the names asked.
#[derive(Default)]
struct Script {
    hosts: BTreeMap<String, Vec<IpAddr>>,
    services: BTreeMap<String, IpAddr>,
    asked: Mutex<Vec<String>>,
}

impl Lookup for Script {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        self.asked.lock().unwrap().push(host.to_owned());
        Box::pin(std::future::ready(self.hosts.get(host).cloned().ok_or_else(|| "no such name".to_owned())))
    }
    fn service<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<IpAddr, String>> {
        Box::pin(std::future::ready(self.services.get(&format!("{namespace}/{name}")).copied().ok_or_else(|| "no such Service".to_owned())))
    }
    fn secret<'a>(&'a self, _: &'a str, name: &'a str, key: &'a str) -> BoxFuture<'a, Result<String, String>> {
        let found = (name == "api" && key == "token").then(|| "Bearer s3cr3t-value\n".to_owned());
        Box::pin(std::future::ready(found.ok_or_else(|| "no such Secret".to_owned())))
    }
}

const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn tools_with(script: Arc<Script>, egress: Egress) -> HttpTools {
    let roots = Roots::of(rustls::RootCertStore::empty());
    HttpTools { lookup: script, egress: Arc::new(ArcSwapOption::from_pointee(egress)), roots }
}

fn tools() -> HttpTools {
    let script = Script { hosts: BTreeMap::from([("upstream.example".to_owned(), vec![LOCAL])]), ..Script::default() };
    tools_with(Arc::new(script), Egress::new(Vec::new(), Vec::new()))
}

fn tool(http: Http) -> ToolFacts {
    let spec = ToolSpec { timeout_seconds: 20, runtime: Runtime { http: Some(http), ..Runtime::default() }, ..ToolSpec::default() };
    ToolFacts {
        org: "acme".into(),
        namespace: "acme".into(),
        name: "t".into(),
        uid: "u".into(),
        digest: "d".into(),
        micro_usd: 0,
        spec,
        quarantined: None,
    }
}

fn at(port: u16) -> Http {
    Http { url: Some(format!("http://upstream.example:{port}/pay?v=1")), ..Http::default() }
}

/// A scripted upstream: gives each connection the same bytes, then closes (or, with `hang`, does not).
struct Upstream {
    port: u16,
    connections: Arc<AtomicUsize>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Upstream {
    async fn start(answer: impl Into<Vec<u8>>, hang: bool) -> Self {
        let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, heard) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (answer, count, kept) = (answer.into(), connections.clone(), heard.clone());
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let mut request = vec![0; 64 * 1024];
                let mut got = 0;
                while !complete(&request[..got]) {
                    match stream.read(&mut request[got..]).await {
                        Ok(n) if n > 0 => got += n,
                        _ => break,
                    }
                }
                kept.lock().unwrap().push(String::from_utf8_lossy(&request[..got]).into_owned());
                let _ = stream.write_all(&answer).await;
                if hang {
                    open.push(stream);
                }
            }
        });
        Self { port, connections, heard }
    }

    async fn json(body: &str) -> Self {
        Self::start(format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()), false)
            .await
    }

    fn count(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ").and_then(|n| n.parse::<usize>().ok()));
    body.len() >= length.unwrap_or(0)
}

async fn run(tools: &HttpTools, tool: &ToolFacts, input: Value) -> Ran {
    tools.run(Call { tool, input: &input, trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" }).await
}

fn said(ran: &Ran) -> (Outcome, &str) {
    (ran.outcome, ran.reason)
}

#[tokio::test]
async fn sends_the_input_and_takes_the_answer() {
    let upstream = Upstream::json(r#"{"ok":true}"#).await;
    let mut http = at(upstream.port);
    http.headers.push(Header { name: "X-Team".into(), value: "finance".into() });
    http.secret_headers.push(SecretHeader { name: "Authorization".into(), secret: "api".into(), key: "token".into() });
    let ran = run(&tools(), &tool(http), json!({"amount": 20})).await;
    assert_eq!(
        ran,
        Ran { outcome: Outcome::Done, reason: "", message: String::new(), output: Some(json!({"ok": true})), status: Some(200) }
    );
    let heard = upstream.heard.lock().unwrap()[0].to_ascii_lowercase();
    assert!(heard.starts_with("post /pay?v=1 http/1.1\r\n"), "{heard}");
    for line in [
        "host: upstream.example",
        "x-team: finance",
        "authorization: bearer s3cr3t-value\r\n",
        "traceparent: 00-0af7",
        "content-type: application/json",
    ] {
        assert!(heard.contains(line), "{line} in {heard}");
    }
    assert!(heard.ends_with(r#"{"amount":20}"#), "{heard}");
}

#[tokio::test]
async fn a_get_puts_the_input_into_the_query() {
    let upstream = Upstream::json("[1]").await;
    let http = Http { method: Method::Get, ..at(upstream.port) };
    let ran = run(&tools(), &tool(http), json!({"q": "a b&c", "n": 3, "tags": ["x", "y"], "o": {"k": 1}})).await;
    assert_eq!(ran.output, Some(json!([1])));
    let heard = upstream.heard.lock().unwrap()[0].clone();
    assert!(heard.starts_with("GET /pay?v=1&n=3&o=%7B%22k%22%3A1%7D&q=a+b%26c&tags=x&tags=y HTTP/1.1\r\n"), "{heard}");
}

#[tokio::test]
async fn a_name_is_asked_once_and_connected_to_as_answered() {
    let upstream = Upstream::json("1").await;
    let script = Arc::new(Script { hosts: BTreeMap::from([("upstream.example.".to_owned(), vec![LOCAL])]), ..Script::default() });
    let tools = tools_with(script.clone(), Egress::new(Vec::new(), Vec::new()));
    let http = Http { url: Some(format!("http://upstream.example.:{}/", upstream.port)), ..Http::default() };
    assert_eq!(run(&tools, &tool(http), json!({})).await.output, Some(json!(1)));
    assert_eq!(*script.asked.lock().unwrap(), ["upstream.example."]);
}

#[tokio::test]
async fn the_production_ranges_refuse_before_any_connection() {
    let upstream = Upstream::json("1").await;
    let bad = ["127.0.0.1", "::1", "169.254.169.254", "::ffff:127.0.0.1", "10.96.0.1", "0.0.0.0"];
    for address in bad {
        let address: IpAddr = address.parse().unwrap();
        // Also when a good address stands in front.
        let script = Script {
            hosts: BTreeMap::from([("upstream.example".to_owned(), vec!["203.0.113.9".parse().unwrap(), address])]),
            ..Script::default()
        };
        let tools = tools_with(Arc::new(script), Egress::production(vec!["10.96.0.0/12".parse().unwrap()]));
        let ran = run(&tools, &tool(at(upstream.port)), json!({})).await;
        assert_eq!(said(&ran), (Outcome::NotDone, reasons::EGRESS_REFUSED), "{address}: {}", ran.message);
    }
    for host in ["127.0.0.1", "[::1]", "0x7f.1", "2130706433", "[::ffff:7f00:1]", "127.1"] {
        let http = Http { url: Some(format!("http://{host}:{}/", upstream.port)), ..Http::default() };
        let ran = run(&tools_with(Arc::default(), Egress::production(Vec::new())), &tool(http), json!({})).await;
        assert_eq!(said(&ran), (Outcome::NotDone, reasons::EGRESS_REFUSED), "{host}: {}", ran.message);
    }
    let unknown = HttpTools { egress: Arc::default(), ..tools() };
    assert_eq!(said(&run(&unknown, &tool(at(upstream.port)), json!({})).await), (Outcome::NotDone, reasons::EGRESS_REFUSED));
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn a_service_of_the_own_namespace_is_reached_by_its_address() {
    let upstream = Upstream::json(r#""served""#).await;
    let script = || Arc::new(Script { services: BTreeMap::from([("acme/crm".to_owned(), LOCAL)]), ..Script::default() });
    let service = |name: &str| ServiceRef { name: name.into(), port: i32::from(upstream.port), scheme: Scheme::Http, path: "/v1".into() };
    let http = |name: &str| tool(Http { service: Some(service(name)), ..Http::default() });
    // The range of the Service is the cluster's own, refused to URLs.
    let inside = tools_with(script(), Egress::new(Vec::new(), vec!["127.0.0.0/8".parse().unwrap()]));
    assert_eq!(run(&inside, &http("crm"), json!({})).await.output, Some(json!("served")));
    assert!(upstream.heard.lock().unwrap()[0].to_ascii_lowercase().contains("host: crm.acme.svc"));
    assert_eq!(said(&run(&inside, &http("other"), json!({})).await), (Outcome::NotDone, reasons::TOOL_FAILED));
    let production = tools_with(script(), Egress::production(Vec::new()));
    assert_eq!(said(&run(&production, &http("crm"), json!({})).await), (Outcome::NotDone, reasons::EGRESS_REFUSED));
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_not_followed() {
    let trap = Upstream::json("1").await;
    let location = format!("http://127.0.0.1:{}/steal?key=1", trap.port);
    let upstream = Upstream::start(format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"), false).await;
    let ran = run(&tools(), &tool(at(upstream.port)), json!({})).await;
    assert_eq!((said(&ran), ran.status), ((Outcome::Done, reasons::TOOL_FAILED), Some(302)));
    assert!(ran.message.contains("redirects are not followed") && !ran.message.contains("key=1"), "{}", ran.message);
    assert_eq!(trap.count(), 0);
}

#[tokio::test]
async fn what_was_never_sent_is_not_done() {
    let closed = TcpListener::bind((LOCAL, 0)).await.unwrap().local_addr().unwrap().port();
    let ran = run(&tools(), &tool(at(closed)), json!({})).await;
    assert_eq!(said(&ran), (Outcome::NotDone, reasons::TOOL_FAILED), "{}", ran.message);
    let nowhere = Http { url: Some("http://no-such-name.example/".into()), ..Http::default() };
    assert_eq!(said(&run(&tools(), &tool(nowhere), json!({})).await), (Outcome::NotDone, reasons::TOOL_FAILED));
}

#[tokio::test]
async fn no_answer_in_time_is_unknown_unless_idempotent() {
    let upstream = Upstream::start("", true).await;
    let mut slow = tool(at(upstream.port));
    slow.spec.timeout_seconds = 1;
    let ran = run(&tools(), &slow, json!({})).await;
    assert_eq!(said(&ran), (Outcome::Unknown, reasons::TIMED_OUT));
    slow.spec.idempotent = true;
    assert_eq!(said(&run(&tools(), &slow, json!({})).await), (Outcome::NotDone, reasons::TIMED_OUT));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_unknown_and_tried_again_only_if_idempotent() {
    let upstream = Upstream::start("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"ok\":true}", false).await;
    let mut lying = tool(at(upstream.port));
    assert_eq!(said(&run(&tools(), &lying, json!({})).await), (Outcome::Unknown, reasons::OUTCOME_UNKNOWN));
    assert_eq!(upstream.count(), 1);
    lying.spec.idempotent = true;
    assert_eq!(said(&run(&tools(), &lying, json!({})).await), (Outcome::NotDone, reasons::TOOL_FAILED));
    assert_eq!(upstream.count(), 4);
}

#[tokio::test]
async fn not_now_is_tried_again_only_if_idempotent() {
    let upstream = Upstream::start("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy", false).await;
    let mut busy = tool(at(upstream.port));
    let ran = run(&tools(), &busy, json!({})).await;
    assert_eq!((said(&ran), ran.message.as_str()), ((Outcome::Done, reasons::TOOL_FAILED), "the endpoint answered 503: busy"));
    assert_eq!(upstream.count(), 1);
    busy.spec.idempotent = true;
    run(&tools(), &busy, json!({})).await;
    assert_eq!(upstream.count(), 4);
}

#[tokio::test]
async fn too_much_is_refused_with_both_limits() {
    let huge = Upstream::start(["HTTP/1.1 200 OK\r\n\r\n\"".to_owned(), "x".repeat(2 << 20), "\"".to_owned()].concat(), false).await;
    let ran = run(&tools(), &tool(at(huge.port)), json!({})).await;
    assert_eq!(said(&ran), (Outcome::Done, reasons::RESULT_TOO_LARGE));
    assert!(ran.message.contains("more than 1048576") && ran.output.is_none(), "{}", ran.message);
    let large = Upstream::json(&format!("\"{}\"", "x".repeat(16 * 1024 - 1))).await;
    let ran = run(&tools(), &tool(at(large.port)), json!({})).await;
    assert_eq!(said(&ran), (Outcome::Done, reasons::RESULT_TOO_LARGE));
    assert!(ran.message.contains("16385"), "{}", ran.message);
    let fits = Upstream::json(&format!("\"{}\"", "x".repeat(16 * 1024 - 2))).await;
    assert_eq!(said(&run(&tools(), &tool(at(fits.port)), json!({})).await), (Outcome::Done, ""));
}

#[tokio::test]
async fn an_answer_must_be_json_and_fit_the_schema() {
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    for body in ["<html>hello</html>", "", "{} {}", &deep] {
        let upstream = Upstream::json(body).await;
        assert_eq!(
            said(&run(&tools(), &tool(at(upstream.port)), json!({})).await),
            (Outcome::Done, reasons::INVALID_RESULT),
            "{}",
            body.len()
        );
    }
    let upstream = Upstream::json(r#"{"ref":"x"}"#).await;
    let mut typed = tool(at(upstream.port));
    typed.spec.output_schema = json!({"type": "object", "properties": {"ref": {"type": "integer"}}}).as_object().cloned();
    let ran = run(&tools(), &typed, json!({})).await;
    assert_eq!(said(&ran), (Outcome::Done, reasons::INVALID_RESULT));
    assert!(ran.message.contains("/ref"), "{}", ran.message);
    let nothing = Upstream::start("HTTP/1.1 204 No Content\r\n\r\n", false).await;
    assert_eq!(run(&tools(), &tool(at(nothing.port)), json!({})).await.output, Some(Value::Null));
}

#[tokio::test]
async fn a_failure_shows_what_was_said_but_no_secret() {
    let upstream = Upstream::start("HTTP/1.1 401 No\r\nContent-Length: 34\r\n\r\nbad header:\n Bearer s3cr3t-value !\n", false).await;
    let mut http = at(upstream.port);
    http.secret_headers.push(SecretHeader { name: "Authorization".into(), secret: "api".into(), key: "token".into() });
    let ran = run(&tools(), &tool(http.clone()), json!({})).await;
    assert_eq!((said(&ran), ran.message.as_str()), ((Outcome::Done, reasons::TOOL_FAILED), "the endpoint answered 401: bad header: *** !"));
    http.secret_headers[0].key = "absent".into();
    assert_eq!(said(&run(&tools(), &tool(http), json!({})).await), (Outcome::NotDone, reasons::TOOL_NOT_READY));
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn headers_of_the_connection_are_not_the_tools() {
    for name in ["Host", "Content-Length", "Transfer-Encoding", "Connection"] {
        let mut http = at(9);
        http.headers.push(Header { name: name.into(), value: "x".into() });
        assert_eq!(said(&run(&tools(), &tool(http), json!({})).await), (Outcome::NotDone, reasons::TOOL_NOT_READY), "{name}");
    }
}

#[tokio::test]
async fn tls_trusts_the_bundle_only_and_checks_the_name() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let made = rcgen::generate_simple_self_signed(vec!["upstream.example".to_owned()]).unwrap();
    let (cert, key) = (made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes());
    let tls = axum_server::tls_rustls::RustlsConfig::from_pem(cert, key).await.unwrap();
    let listener = std::net::TcpListener::bind((LOCAL, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = axum::Router::new().fallback(|| async { axum::Json(json!("secure")) });
    tokio::spawn(axum_server::from_tcp_rustls(listener, tls).unwrap().serve(app.into_make_service()));
    let script = || {
        let hosts = ["upstream.example", "other.example"].map(|h| (h.to_owned(), vec![LOCAL]));
        tools_with(Arc::new(Script { hosts: hosts.into(), ..Script::default() }), Egress::new(Vec::new(), Vec::new()))
    };
    let http = |host: &str, bundle: Option<String>| {
        tool(Http { url: Some(format!("https://{host}:{port}/")), ca_bundle: bundle, ..Http::default() })
    };
    let bundle = Some(made.cert.pem());
    assert_eq!(run(&script(), &http("upstream.example", bundle.clone()), json!({})).await.output, Some(json!("secure")));
    assert_eq!(said(&run(&script(), &http("upstream.example", None), json!({})).await), (Outcome::NotDone, reasons::TOOL_FAILED));
    assert_eq!(said(&run(&script(), &http("other.example", bundle), json!({})).await), (Outcome::NotDone, reasons::TOOL_FAILED));
    let broken = Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned());
    assert_eq!(said(&run(&script(), &http("upstream.example", broken), json!({})).await), (Outcome::NotDone, reasons::TOOL_NOT_READY));
}

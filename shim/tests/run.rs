//! The real binary against a scripted fake edge on HTTPS: what it fetches, runs, posts, and how it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is how a test fails")]

use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::PathBuf,
    process::Output,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use serde_json::Value;
use tokio::process::Command;

/// A scripted fake edge: answers with the given statuses first, then as it should; keeps what was said to it.
#[derive(Default)]
struct Script {
    before_input: VecDeque<u16>,
    before_result: VecDeque<u16>,
    tokens: Vec<String>,
    results: Vec<Value>,
}

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

type Shared = Arc<Mutex<Script>>;

fn token(headers: &HeaderMap) -> String {
    headers.get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
}

async fn input(
    State(script): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> (StatusCode, [(&'static str, &'static str); 1], String) {
    assert_eq!(id, "call-1");
    let mut script = script.lock().unwrap();
    script.tokens.push(token(&headers));
    let (status, body) = match script.before_input.pop_front() {
        Some(status) => (StatusCode::from_u16(status).unwrap(), "scripted"),
        None => (StatusCode::OK, r#"{"amount":20}"#),
    };
    (status, [("traceparent", TRACE)], body.to_owned())
}

async fn result(State(script): State<Shared>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mut script = script.lock().unwrap();
    script.tokens.push(token(&headers));
    match script.before_result.pop_front() {
        Some(status) => StatusCode::from_u16(status).unwrap(),
        None => {
            script.results.push(serde_json::from_slice(&body).unwrap());
            StatusCode::OK
        }
    }
}

struct FakeEdge {
    address: SocketAddr,
    script: Shared,
    dir: tempfile::TempDir,
}

impl FakeEdge {
    async fn start(script: Script) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.crt"), made.cert.pem()).unwrap();
        std::fs::write(dir.path().join("token"), "the-token\n").unwrap();
        std::fs::create_dir_all(dir.path().join("secrets/db")).unwrap();
        std::fs::write(dir.path().join("secrets/db/password"), "correct-horse").unwrap();
        let tls =
            axum_server::tls_rustls::RustlsConfig::from_pem(made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes())
                .await
                .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(script));
        let app = Router::new()
            .route("/shim/v1/runs/{id}/input", get(input))
            .route("/shim/v1/runs/{id}/result", post(result))
            .layer(DefaultBodyLimit::max(8 << 20))
            .with_state(script.clone());
        tokio::spawn(axum_server::from_tcp_rustls(listener, tls).unwrap().serve(app.into_make_service()));
        Self { address, script, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn shim(&self, timeout: u32, command: &[&str]) -> Command {
        let mut shim = Command::new(env!("CARGO_BIN_EXE_polity-shim"));
        shim.env("POLITY_URL", format!("https://localhost:{}", self.address.port()))
            .env("POLITY_CALL_ID", "call-1")
            .env("POLITY_TOKEN_FILE", self.path("token"))
            .env("POLITY_CA_FILE", self.path("ca.crt"))
            .env("POLITY_SECRETS_DIR", self.path("secrets"))
            .env("POLITY_TIMEOUT_SECONDS", timeout.to_string())
            .env("POLITY_INPUT_PATIENCE_SECONDS", "3")
            .env("POLITY_RESULT_PATIENCE_SECONDS", "3")
            .env("HTTPS_PROXY", "http://127.0.0.1:1")
            .arg("run")
            .arg("--")
            .args(command)
            .kill_on_drop(true);
        shim
    }

    async fn run(&self, timeout: u32, command: &[&str]) -> Output {
        tokio::time::timeout(Duration::from_secs(60), self.shim(timeout, command).output()).await.expect("the shim ends").unwrap()
    }

    fn only_result(&self) -> Value {
        let script = self.script.lock().unwrap();
        assert_eq!(script.results.len(), 1, "{:?}", script.results);
        script.results[0].clone()
    }
}

#[tokio::test]
async fn gives_the_input_on_stdin_and_posts_what_came_out() {
    let edge = FakeEdge::start(Script::default()).await;
    let out = edge.run(30, &["sh", "-c", "cat; echo noted $TRACEPARENT >&2; env | grep -c POLITY_ >&2"]).await;
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    let result = edge.only_result();
    assert_eq!(result["stdout"], r#"{"amount":20}"#);
    assert_eq!(result["exitCode"], 1, "grep finds no POLITY_ variable");
    assert_eq!(result["stderrTail"], format!("noted {TRACE}\n0\n"));
    assert_eq!((&result["timedOut"], &result["tooLarge"]), (&Value::Bool(false), &Value::Bool(false)));
    assert!(edge.script.lock().unwrap().tokens.iter().all(|t| t == "Bearer the-token"));
}

#[tokio::test]
async fn a_flaky_edge_and_a_run_not_known_yet_are_asked_again() {
    let script = Script { before_input: [404, 503, 500].into(), before_result: [503, 404, 401].into(), ..Script::default() };
    let edge = FakeEdge::start(script).await;
    let out = edge.run(30, &["sh", "-c", "echo '{}'"]).await;
    assert_eq!(out.status.code(), Some(0));
    assert_eq!(edge.only_result()["stdout"], "{}\n");
}

#[tokio::test]
async fn a_refused_input_starts_nothing() {
    let edge = FakeEdge::start(Script { before_input: [403].into(), ..Script::default() }).await;
    let marker = edge.path("ran");
    let out = edge.run(30, &["touch", marker.to_str().unwrap()]).await;
    assert_eq!(out.status.code(), Some(10));
    assert!(!marker.exists());
    assert!(edge.script.lock().unwrap().results.is_empty());
}

#[tokio::test]
async fn an_edge_with_another_certificate_gets_no_token() {
    let edge = FakeEdge::start(Script::default()).await;
    let other = FakeEdge::start(Script::default()).await;
    std::fs::copy(other.path("ca.crt"), edge.path("ca.crt")).unwrap();
    let out = edge.run(30, &["true"]).await;
    assert_eq!(out.status.code(), Some(10));
    assert!(edge.script.lock().unwrap().tokens.is_empty());
}

#[tokio::test]
async fn a_result_never_accepted_is_told_by_the_exit_code() {
    let edge = FakeEdge::start(Script { before_result: [503; 100].into(), ..Script::default() }).await;
    assert_eq!(edge.run(30, &["true"]).await.status.code(), Some(11));
    let edge = FakeEdge::start(Script { before_result: [409].into(), ..Script::default() }).await;
    assert_eq!(edge.run(30, &["true"]).await.status.code(), Some(11));
}

#[tokio::test]
async fn endless_output_is_stopped_and_said() {
    let edge = FakeEdge::start(Script::default()).await;
    let out = edge.run(60, &["sh", "-c", "cat >/dev/null; exec yes"]).await;
    assert_eq!(out.status.code(), Some(0));
    let result = edge.only_result();
    assert_eq!((&result["tooLarge"], &result["stdout"]), (&Value::Bool(true), &Value::String(String::new())));
}

#[tokio::test]
async fn exactly_the_most_is_accepted() {
    let edge = FakeEdge::start(Script::default()).await;
    edge.run(60, &["sh", "-c", "head -c 1048576 /dev/zero | tr '\\0' x"]).await;
    let result = edge.only_result();
    assert_eq!(result["tooLarge"], false);
    assert_eq!(result["stdout"].as_str().unwrap().len(), 1 << 20);
}

#[tokio::test]
async fn output_that_the_edge_finds_too_large_is_posted_without() {
    let edge = FakeEdge::start(Script { before_result: [413].into(), ..Script::default() }).await;
    assert_eq!(edge.run(30, &["echo", "hello"]).await.status.code(), Some(0));
    assert_eq!(edge.only_result()["tooLarge"], true);
}

#[tokio::test]
async fn the_time_out_kills_the_whole_group() {
    let edge = FakeEdge::start(Script::default()).await;
    let pid_file = edge.path("pid");
    let script = format!("sleep 600 & echo $! > {}; wait", pid_file.display());
    let out = edge.run(1, &["sh", "-c", &script]).await;
    assert_eq!(out.status.code(), Some(0));
    let result = edge.only_result();
    assert_eq!((&result["timedOut"], &result["exitCode"]), (&Value::Bool(true), &Value::from(137)));
    let pid = std::fs::read_to_string(pid_file).unwrap();
    let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "the background process lives: {state}");
}

#[tokio::test]
async fn a_process_that_left_the_group_does_not_hold_the_result_back() {
    let edge = FakeEdge::start(Script::default()).await;
    let out = edge.run(600, &["sh", "-c", "echo '{\"done\":true}'; setsid sleep 8 & exit 0"]).await;
    assert_eq!(out.status.code(), Some(0));
    assert_eq!(edge.only_result()["stdout"], "{\"done\":true}\n");
}

#[tokio::test]
async fn secret_values_do_not_leave_in_stderr() {
    let edge = FakeEdge::start(Script::default()).await;
    edge.run(30, &["sh", "-c", "echo login correct-horse failed >&2; printf u:correct-horse | base64 >&2; exit 3"]).await;
    let result = edge.only_result();
    assert_eq!(result["exitCode"], 3);
    let tail = result["stderrTail"].as_str().unwrap();
    assert!(tail.starts_with("login *** failed\n"), "{tail}");
    assert!(!tail.contains("Y29ycmVjdC1ob3JzZ"), "{tail}");
}

#[tokio::test]
async fn much_stderr_leaves_its_end() {
    let edge = FakeEdge::start(Script::default()).await;
    edge.run(60, &["sh", "-c", "yes noise | head -c 3000000 >&2; echo the end >&2"]).await;
    let tail = edge.only_result()["stderrTail"].as_str().unwrap().to_owned();
    assert!(tail.len() <= 64 * 1024 && tail.ends_with("the end\n"));
}

#[tokio::test]
async fn a_command_that_cannot_start_is_a_result() {
    let edge = FakeEdge::start(Script::default()).await;
    assert_eq!(edge.run(30, &["/no/such/program"]).await.status.code(), Some(0));
    let result = edge.only_result();
    assert_eq!(result["exitCode"], 127);
    assert!(result["stderrTail"].as_str().unwrap().contains("/no/such/program"));
}

#[tokio::test]
async fn asked_to_end_it_stops_the_command_and_still_reports() {
    let edge = FakeEdge::start(Script::default()).await;
    let started = edge.path("started");
    let script = format!("touch {}; exec sleep 600", started.display());
    let child = edge.shim(600, &["sh", "-c", &script]).spawn().unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !started.exists() {
        assert!(std::time::Instant::now() < deadline, "the command starts");
        tokio::task::yield_now().await;
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let out = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output()).await.expect("the shim ends").unwrap();
    assert_eq!(out.status.code(), Some(0));
    assert_eq!(edge.only_result()["exitCode"], 137);
}

#[test]
fn install_copies_an_executable_of_itself() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("bin");
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_polity-shim")).arg("install").arg(&to).status().unwrap();
    assert!(status.success());
    let out = std::process::Command::new(to.join("polity-shim")).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&out.stdout).starts_with("polity-shim "));
}

#[test]
fn plain_http_is_refused() {
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_polity-shim"))
        .args([
            "run",
            "--url",
            "http://edge",
            "--call-id",
            "a",
            "--token-file",
            "/none",
            "--ca-file",
            "/none",
            "--timeout-seconds",
            "1",
            "--",
            "true",
        ])
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(10));
    assert!(String::from_utf8_lossy(&out.stderr).contains("must be https"));
}

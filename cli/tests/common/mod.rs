//! The program as users run it, and a small API server for it to speak with.

#![allow(dead_code)] // each test file uses its part
#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value)] // a helper that fails fails its test; `json!` values read best by value

use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header::WARNING},
};
use serde_json::{Value, json};

/// What a run said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    #[track_caller]
    pub fn has(&self, parts: &[&str]) -> &Self {
        for part in parts {
            assert!(self.out.contains(part) || self.err.contains(part), "{part:?} is not in {self:#?}");
        }
        self
    }

    #[track_caller]
    pub fn ends(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }
}

/// Runs the program without a cluster.
pub fn run(args: &[&str]) -> Said {
    said(command(args).output().unwrap())
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-polity"));
    command.args(args).stdin(Stdio::null()).env("KUBECONFIG", "/nonexistent");
    command
}

fn said(output: Output) -> Said {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// What the server answers: method, path with query and body in, code and body out.
pub type Answer = dyn Fn(&Method, &str, &Value) -> (u16, Value) + Send + Sync;

/// A small API server. Remembers what it was asked.
pub struct Server {
    kubeconfig: PathBuf,
    _dir: tempfile::TempDir,
    pub asked: Arc<Mutex<Vec<(Method, String, Value)>>>,
}

struct Shared {
    answer: Box<Answer>,
    asked: Arc<Mutex<Vec<(Method, String, Value)>>>,
}

/// What an answer has under `warning` goes into the header.
async fn handle(State(shared): State<Arc<Shared>>, method: Method, uri: Uri, body: Bytes) -> (StatusCode, HeaderMap, Json<Value>) {
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let path = uri.path_and_query().map(|p| p.as_str().to_owned()).unwrap_or_default();
    let (code, answer) = (shared.answer)(&method, &path, &body);
    shared.asked.lock().unwrap().push((method, path, body));
    let warning = answer["warning"].as_str().map(|text| HeaderValue::from_str(&format!("299 - \"{text}\"")).unwrap());
    let headers = warning.map(|value| (WARNING, value)).into_iter().collect();
    (StatusCode::from_u16(code).unwrap(), headers, Json(answer))
}

impl Server {
    pub async fn start(answer: impl Fn(&Method, &str, &Value) -> (u16, Value) + Send + Sync + 'static) -> Self {
        let asked = Arc::new(Mutex::default());
        let shared = Arc::new(Shared { answer: Box::new(answer), asked: Arc::clone(&asked) });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handle).with_state(shared)).await });
        let dir = tempfile::tempdir().unwrap();
        let kubeconfig = dir.path().join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "finance"}}],
            "clusters": [{"name": "c", "cluster": {"server": url}}], "users": [{"name": "u", "user": {"token": "t"}}],
        });
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        Self { kubeconfig, _dir: dir, asked }
    }

    /// Runs the program against it.
    pub async fn run(&self, args: &[&str]) -> Said {
        let mut command = command(args);
        command.env("KUBECONFIG", &self.kubeconfig);
        said(tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap())
    }
}

pub fn status(code: u16, reason: &str, message: &str) -> (u16, Value) {
    (code, json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}))
}

pub fn list(items: &[Value]) -> (u16, Value) {
    (200, json!({"apiVersion": "polity.dev/v1alpha1", "kind": "List", "metadata": {"resourceVersion": "5"}, "items": items}))
}

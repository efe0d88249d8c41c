//! What the shim says to the edge: "my input, please" and "here is my result". HTTPS only, trusting Polity's CA only, no proxy, no redirects.
//! The token is read from its file for each request, since the kubelet rotates it; the command could read that file too (same user), and could
//! with it do no more than this shim does: fetch the input of its own call and post its result, once.

use std::{path::PathBuf, time::Duration};

use reqwest::{Client, Method, StatusCode};
use tokio::time::Instant;

use crate::{args::Settings, child::Report};

/// Inputs are far smaller; more than this is not an input.
const MAX_INPUT: usize = 2 * 1024 * 1024;
/// One request, answer included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// First pause between two tries; doubles up to `LONGEST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Why an exchange with the edge came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// The settings cannot work.
    #[error("{0}")]
    Settings(String),
    /// The edge said no, and will not say otherwise.
    #[error("{what}: the edge answered {status}: {body}")]
    Refused { what: &'static str, status: StatusCode, body: String },
    /// Nothing else came in time.
    #[error("{what}: gave up after {seconds} s; last: {last}")]
    GaveUp { what: &'static str, seconds: u64, last: String },
}

/// What the command gets.
pub struct Input {
    /// JSON, for its stdin.
    pub text: Vec<u8>,
    /// W3C trace context, for its environment (`TRACEPARENT`).
    pub traceparent: Option<String>,
}

/// One answer of the edge.
struct Answer {
    status: StatusCode,
    body: Vec<u8>,
    traceparent: Option<String>,
}

/// The edge, for one call.
pub struct Edge {
    client: Client,
    run: String,
    token_file: PathBuf,
}

impl Edge {
    /// Prepares the client.
    pub fn new(settings: &Settings) -> Result<Self, EdgeError> {
        if !settings.url.starts_with("https://") {
            return Err(EdgeError::Settings(format!("POLITY_URL must be https: {}", settings.url)));
        }
        if settings.call_id.is_empty() || !settings.call_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(EdgeError::Settings(format!("POLITY_CALL_ID is not an id: {}", settings.call_id)));
        }
        let wrong = |e: &dyn std::fmt::Display| EdgeError::Settings(format!("POLITY_CA_FILE {}: {e}", settings.ca_file.display()));
        let pem = std::fs::read(&settings.ca_file).map_err(|e| wrong(&e))?;
        let roots = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| wrong(&e))?;
        let client = Client::builder()
            .tls_certs_only(roots)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(REQUEST_TIMEOUT)
            .build()
            .map_err(|e| wrong(&e))?;
        let run = format!("{}/shim/v1/runs/{}", settings.url.trim_end_matches('/'), settings.call_id);
        Ok(Self { client, run, token_file: settings.token_file.clone() })
    }

    /// The input. Core may not know the run yet, so "not found" is asked again.
    pub async fn input(&self, patience: Duration) -> Result<Input, EdgeError> {
        let answer = self.exchange("fetching the input", Method::GET, "input", None, patience).await?;
        Ok(Input { text: answer.body, traceparent: answer.traceparent })
    }

    /// Posts the result until it is accepted. The same result again is accepted again.
    pub async fn result(&self, report: &Report, patience: Duration) -> Result<(), EdgeError> {
        let body = |report: &Report| serde_json::to_vec(report).map_err(|e| EdgeError::Settings(format!("encoding the result: {e}")));
        let what = "posting the result";
        match self.exchange(what, Method::POST, "result", Some(body(report)?), patience).await {
            // Text that JSON must escape can grow beyond what the edge takes.
            Err(EdgeError::Refused { status: StatusCode::PAYLOAD_TOO_LARGE, .. }) if !report.too_large => {
                let smaller = Report { stdout: String::new(), too_large: true, ..report.clone() };
                self.exchange(what, Method::POST, "result", Some(body(&smaller)?), patience).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    async fn exchange(
        &self,
        what: &'static str,
        method: Method,
        verb: &str,
        body: Option<Vec<u8>>,
        patience: Duration,
    ) -> Result<Answer, EdgeError> {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let last = match self.once(method.clone(), verb, body.clone()).await {
                Ok(answer) if answer.status.is_success() => return Ok(answer),
                Ok(Answer { status, body, .. }) => {
                    let body = String::from_utf8_lossy(body.get(..body.len().min(500)).unwrap_or_default()).into_owned();
                    if is_final(status) {
                        return Err(EdgeError::Refused { what, status, body });
                    }
                    format!("{status} {body}")
                }
                Err(e) => e,
            };
            if started.elapsed() + pause > patience {
                return Err(EdgeError::GaveUp { what, seconds: patience.as_secs(), last });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn once(&self, method: Method, verb: &str, body: Option<Vec<u8>>) -> Result<Answer, String> {
        let token = tokio::fs::read_to_string(&self.token_file).await.map_err(|e| format!("token {}: {e}", self.token_file.display()))?;
        let mut request = self.client.request(method, format!("{}/{verb}", self.run)).bearer_auth(token.trim());
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let mut answer = request.send().await.map_err(|e| chain(&e))?;
        let traceparent = answer.headers().get("traceparent").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| chain(&e))? {
            if bytes.len() + chunk.len() > MAX_INPUT {
                return Err(format!("the answer has more than {MAX_INPUT} bytes"));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Answer { status: answer.status(), body: bytes, traceparent })
    }
}

/// Answers that another try cannot change. 404 is not among them (the run may not be known yet), nor is 401 (the token rotates).
fn is_final(status: StatusCode) -> bool {
    status.is_redirection() || matches!(status.as_u16(), 400 | 403 | 405 | 409 | 410 | 413 | 415 | 422)
}

/// An error with its causes; the outermost alone says little.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

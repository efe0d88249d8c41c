//! Speaks with the edge: HTTPS, Polity's CA only, the token read from its file for each request. Waits and asks again while the edge is away
//! or says that it cannot answer now (503, 429), always with the same idempotency key, so that asking again never runs a call twice. Takes every
//! other answer, a denial above all, as it is.

use std::{path::PathBuf, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::Value;

/// Longest that the edge lets a call wait in one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(150);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Where the edge is and how to show who asks.
#[derive(clap::Args, Clone, Debug)]
pub struct Edge {
    /// The Org's endpoint, `https://polity-edge.NAMESPACE.svc/v1/orgs/ORG`.
    #[arg(long, env = "POLITY_URL")]
    pub url: String,
    /// File with the token.
    #[arg(long, env = "POLITY_TOKEN_FILE")]
    pub token_file: PathBuf,
    /// File with the certificate of Polity's CA.
    #[arg(long, env = "POLITY_CA_FILE")]
    pub ca_file: PathBuf,
}

/// A client of the edge. The CA file is read again after a failed connection, since the CA rotates too.
pub struct Client {
    edge: Edge,
    http: Option<reqwest::Client>,
}

impl Client {
    /// A client that connects when it is first used.
    pub fn new(edge: Edge) -> Self {
        Self { edge, http: None }
    }

    /// Asks until there is an answer: status and JSON body. `waiting` hears why it goes on asking, once per new reason.
    pub async fn ask(&mut self, method: Method, path: &str, body: Option<&Value>, mut waiting: impl FnMut(&str)) -> (StatusCode, Value) {
        let mut pause = FIRST_PAUSE;
        let mut said = String::new();
        loop {
            let why = match self.once(method.clone(), path, body).await {
                Ok((status, answer)) if !is_passing(status) => return (status, answer),
                Ok((status, answer)) => format!("{status} {}", crate::line::problem(&answer)),
                Err(error) => {
                    self.http = None;
                    format!("{error:#}")
                }
            };
            if why != said {
                waiting(&why);
                said = why;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn once(&mut self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<(StatusCode, Value)> {
        use anyhow::Context as _;
        let token =
            tokio::fs::read_to_string(&self.edge.token_file).await.with_context(|| format!("token {}", self.edge.token_file.display()))?;
        let url = format!("{}{path}", self.edge.url.trim_end_matches('/'));
        let mut request = self.http()?.request(method, url).bearer_auth(token.trim());
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.context("cannot reach the edge")?;
        let status = answer.status();
        let text = answer.bytes().await.context("the answer broke off")?;
        let value = serde_json::from_slice(&text).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&text).into_owned()));
        Ok((status, value))
    }

    fn http(&mut self) -> anyhow::Result<&reqwest::Client> {
        use anyhow::Context as _;
        if self.http.is_none() {
            let file = self.edge.ca_file.display();
            let pem = std::fs::read(&self.edge.ca_file).with_context(|| format!("CA {file}"))?;
            let roots = reqwest::Certificate::from_pem_bundle(&pem).with_context(|| format!("CA {file}"))?;
            let client = reqwest::Client::builder()
                .tls_certs_only(roots)
                .https_only(true)
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(Duration::from_secs(5))
                .timeout(REQUEST_TIMEOUT)
                .build()?;
            self.http = Some(client);
        }
        self.http.as_ref().context("no client")
    }
}

/// Answers that say "not now". A 401 is one of them only because a token can expire between two rotations of its file.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 429 | 500 | 502 | 503 | 504)
}

//! One HTTP request: made once, sent as often as allowed. Tells apart what was never sent, what was answered, and what broke off in between.

use std::{net::SocketAddr, time::Duration};

use polity_api::{
    names, reasons,
    tool::{Endpoint, Http, Method},
};
use polity_upstream::client::causes;
use reqwest::{
    Client,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Map, Value};

use super::{Call, HttpTools, Ran, target};

/// Longest time to a connection (and TLS session).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Headers that belong to the connection, not to a Tool.
const NOT_A_TOOLS: &[&str] =
    &["host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "expect", "proxy-connection", "keep-alive"];

/// A request that is ready.
pub(super) struct Request {
    client: Client,
    request: reqwest::Request,
    /// Values from Secrets, to be masked in what is shown.
    pub secrets: Vec<String>,
}

/// A way to an endpoint: its address judged, its headers complete. Each request has a connection of its own, to that very address.
pub(crate) struct Channel {
    pub client: Client,
    pub url: url::Url,
    pub headers: HeaderMap,
    /// Values from Secrets, to be masked in what is shown.
    pub secrets: Vec<String>,
}

impl Channel {
    /// Finds and judges the address, and reads Secrets now, at call time. Nothing is sent.
    pub async fn open(tools: &HttpTools, namespace: &str, endpoint: &Endpoint<'_>, trace: &str) -> Result<Self, Ran> {
        let not_ready = |message: String| Ran::not_done(reasons::TOOL_NOT_READY, message);
        let target = target::find(tools, namespace, endpoint).await?;
        let mut headers = HeaderMap::new();
        let mut secrets = Vec::new();
        if !trace.is_empty() {
            headers.insert("traceparent", HeaderValue::from_str(trace).map_err(|e| not_ready(format!("trace: {e}")))?);
        }
        for header in endpoint.headers {
            add(&mut headers, &header.name, &header.value, false).map_err(not_ready)?;
        }
        for header in endpoint.secret_headers {
            let value = tools.lookup.secret(namespace, &header.secret, &header.key).await.map_err(not_ready)?;
            add(&mut headers, &header.name, value.trim_end_matches(['\r', '\n']), true).map_err(not_ready)?;
            secrets.push(value.trim().to_owned());
        }
        let client = Client::builder()
            .tls_backend_preconfigured(target.tls)
            .dns_resolver(Fixed(target.address))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|e| not_ready(format!("no client: {e}")))?;
        Ok(Self { client, url: target.url, headers, secrets })
    }
}

/// Answers every name with the address that was judged.
struct Fixed(SocketAddr);

impl Resolve for Fixed {
    fn resolve(&self, _: Name) -> Resolving {
        let addresses: Addrs = Box::new(std::iter::once(self.0));
        Box::pin(std::future::ready(Ok(addresses)))
    }
}

/// What one try came to.
#[derive(Debug)]
pub(super) enum Try {
    /// Nothing was sent.
    NotSent { timed_out: bool, why: String },
    /// Sent, or perhaps sent, and not fully answered.
    Broken { timed_out: bool, why: String },
    /// Answered; no body when it is larger than 1 MiB.
    Answered { status: u16, location: Option<String>, body: Option<Vec<u8>> },
}

impl Try {
    /// Whether another try may fare better. An answer does not get better, but for those that say "not now".
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NotSent { .. } | Self::Broken { .. } => true,
            Self::Answered { status, .. } => matches!(status, 429 | 502 | 503 | 504),
        }
    }
}

impl Request {
    /// Makes the request.
    pub async fn build(tools: &HttpTools, call: Call<'_>, http: &Http) -> Result<Self, Ran> {
        let mut channel = Channel::open(tools, &call.tool.namespace, &http.endpoint(), call.trace).await?;
        let empty = Map::new();
        let input = call.input.as_object().unwrap_or(&empty);
        let (method, in_query) = match http.method {
            Method::Get => (reqwest::Method::GET, true),
            Method::Post => (reqwest::Method::POST, false),
            Method::Put => (reqwest::Method::PUT, false),
            Method::Patch => (reqwest::Method::PATCH, false),
            Method::Delete => (reqwest::Method::DELETE, true),
        };
        if in_query {
            query(&mut channel.url, input);
        }
        let Channel { client, url, mut headers, secrets } = channel;
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        let mut request = reqwest::Request::new(method, url);
        if !in_query {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Some(Value::Object(input.clone()).to_string().into());
        }
        *request.headers_mut() = headers;
        Ok(Self { client, request, secrets })
    }

    /// Sends it once.
    pub async fn send(&self, left: Duration) -> Try {
        let Some(request) = self.request.try_clone() else {
            return Try::NotSent { timed_out: false, why: "the request cannot be sent again".to_owned() };
        };
        match tokio::time::timeout(left, self.exchange(request)).await {
            Ok(result) => result,
            Err(_) => Try::Broken { timed_out: true, why: "no full answer in time".to_owned() },
        }
    }

    async fn exchange(&self, request: reqwest::Request) -> Try {
        let mut answer = match self.client.execute(request).await {
            Ok(answer) => answer,
            Err(e) if e.is_connect() || e.is_builder() => return Try::NotSent { timed_out: e.is_timeout(), why: causes(&e) },
            Err(e) => return Try::Broken { timed_out: e.is_timeout(), why: causes(&e) },
        };
        let status = answer.status().as_u16();
        let location = answer.headers().get("location").map(|v| String::from_utf8_lossy(v.as_bytes()).chars().take(200).collect());
        let mut body = Vec::new();
        loop {
            match answer.chunk().await {
                Ok(None) => return Try::Answered { status, location, body: Some(body) },
                Ok(Some(chunk)) if body.len() + chunk.len() > names::MAX_RESULT => return Try::Answered { status, location, body: None },
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                // The status is an answer when it tells of a failure; a success that breaks off may still have changed its mind.
                Err(_) if !(200..300).contains(&status) => return Try::Answered { status, location, body: Some(body) },
                Err(e) => return Try::Broken { timed_out: e.is_timeout(), why: causes(&e) },
            }
        }
    }
}

/// Adds a header of the Tool.
fn add(headers: &mut HeaderMap, name: &str, value: &str, secret: bool) -> Result<(), String> {
    let wrong = |what: &str| format!("header {name} cannot be sent: {what}");
    let name = HeaderName::try_from(name).map_err(|_| wrong("not a name"))?;
    if NOT_A_TOOLS.contains(&name.as_str()) {
        return Err(wrong("it belongs to the connection"));
    }
    let mut value = HeaderValue::try_from(value).map_err(|_| wrong("its value is not one line of text"))?;
    value.set_sensitive(secret);
    headers.insert(name, value);
    Ok(())
}

/// The input as query: texts as they are, lists once an element, everything else as JSON.
fn query(url: &mut url::Url, input: &Map<String, Value>) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if input.is_empty() {
        return;
    }
    let mut pairs = url.query_pairs_mut();
    for (name, value) in input {
        match value {
            Value::Array(list) => list.iter().for_each(|v| {
                pairs.append_pair(name, &text(v));
            }),
            value => {
                pairs.append_pair(name, &text(value));
            }
        }
    }
}

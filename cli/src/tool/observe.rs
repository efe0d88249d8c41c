//! What the server of a Tool lists now: asked by the edge, as it asks before a call, or from this machine, or read from a file.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use http::Request;
use kube::client::Body;
use polity_api::Tool;
use polity_upstream::{
    Definition,
    client::{Conversation, Endpoint},
};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::{
    args::PinArgs,
    audit::source::{connect, escaped, refusal},
};

/// Longest time for a server.
const PATIENCE: Duration = Duration::from_secs(20);

/// The definition as it is listed.
pub async fn observe(tool: &Tool, args: &PinArgs) -> Result<Definition> {
    let mcp = tool.spec.runtime.mcp.as_ref().context("the Tool has no mcp runtime; there is nothing to pin")?;
    match (&args.listing, &args.server) {
        (Some(file), _) => from_file(file, &mcp.tool),
        (None, Some(server)) => through_edge(tool, args, server).await,
        (None, None) => {
            let Some(url) = &mcp.url else {
                bail!("a Service is reached from inside the cluster: ask the edge with --server, --org, --token-file and --ca-file");
            };
            let wanted: Vec<&str> = mcp.secret_headers.iter().map(|h| h.name.as_str()).filter(|name| !given(args, name)).collect();
            if !wanted.is_empty() {
                bail!(
                    "the Tool sends {} from a Secret: give each as --header 'NAME: VALUE', or ask the edge with --server",
                    wanted.join(", ")
                );
            }
            let listed = tokio::time::timeout(PATIENCE, directly(tool, args, url)).await;
            pick(&listed.with_context(|| format!("{url} gave no list within {} s", PATIENCE.as_secs()))??, &mcp.tool)
        }
    }
}

fn given(args: &PinArgs, name: &str) -> bool {
    args.headers.iter().filter_map(|h| h.split_once(':')).any(|(n, _)| n.trim().eq_ignore_ascii_case(name))
}

async fn directly(tool: &Tool, args: &PinArgs, url: &str) -> Result<Vec<Value>> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mcp = tool.spec.runtime.mcp.as_ref().context("no mcp runtime")?;
    let mut headers = HeaderMap::new();
    let own = mcp.headers.iter().map(|h| (h.name.clone(), h.value.clone()));
    let more = args.headers.iter().map(|h| h.split_once(':').map(|(n, v)| (n.trim().to_owned(), v.trim().to_owned())));
    let more: Option<Vec<_>> = more.collect();
    for (name, value) in own.chain(more.context("--header takes 'NAME: VALUE'")?) {
        let wrong = || format!("header {name:?} cannot be sent");
        headers.insert(HeaderName::try_from(&name).with_context(wrong)?, HeaderValue::try_from(&value).with_context(wrong)?);
    }
    let mut client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).retry(reqwest::retry::never());
    if let Some(bundle) = &mcp.ca_bundle {
        client = client.tls_certs_only(reqwest::Certificate::from_pem_bundle(bundle.as_bytes()).context("the Tool's caBundle")?);
    }
    let client = client.build().context("no client")?;
    let endpoint = Endpoint { client, url: url.parse().with_context(|| format!("{url:?} is no URL"))?, headers };
    let mut conversation = Conversation::open(endpoint).await.with_context(|| format!("{url}: the server"))?;
    let listed = conversation.list().await.with_context(|| format!("{url}: the server"));
    conversation.farewell().end().await;
    listed
}

async fn through_edge(tool: &Tool, args: &PinArgs, server: &str) -> Result<Definition> {
    let (Some(org), Some(token), Some(ca)) = (&args.org, &args.token_file, &args.ca_file) else {
        bail!("--server needs --org, --token-file (kubectl create token NAME --audience polity) and --ca-file (ConfigMap polity-ca)");
    };
    let name = tool.metadata.name.as_deref().unwrap_or_default();
    let client = connect(server, token, ca)?;
    let path = format!("/v1/orgs/{}/tools/{}/definition", escaped(org), escaped(name));
    let response = client.send(Request::get(path).body(Body::empty())?).await.context("the edge does not answer")?;
    let status = response.status();
    let body = response.into_body().collect_bytes().await.context("the answer broke off")?;
    let text = std::str::from_utf8(&body).context("the answer is no text")?;
    if !status.is_success() {
        bail!("the edge answered {status}: {}", refusal(text));
    }
    let answer: Value = serde_json::from_str(text).context("the edge's answer is not JSON")?;
    let definition = Definition::parse(answer["definition"].as_str().unwrap_or_default()).context("the edge's answer")?;
    if answer["digest"].as_str() != Some(definition.digest()) {
        bail!("the edge's answer contradicts itself: another digest than that of its definition");
    }
    Ok(definition)
}

/// From a saved answer to `tools/list`, its result, its list, or one tool of it.
fn from_file(file: &PathBuf, name: &str) -> Result<Definition> {
    let about = || format!("{}", file.display());
    let value: Value = serde_json::from_str(&std::fs::read_to_string(file).with_context(about)?).with_context(about)?;
    let lists = ["/result/tools", "/tools", ""].into_iter().find_map(|at| value.pointer(at).and_then(Value::as_array));
    match lists {
        Some(list) => pick(list, name).with_context(about),
        None => pick(std::slice::from_ref(&value), name).with_context(about),
    }
}

fn pick(listed: &[Value], name: &str) -> Result<Definition> {
    let named = |v: &&Value| v.get("name").and_then(Value::as_str) == Some(name);
    let mut found = listed.iter().filter(named);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(Definition::of(one)?),
        (Some(_), Some(_)) => bail!("the server lists {name:?} twice; calls are denied as long as it does"),
        _ => {
            let there: Vec<&str> = listed.iter().filter_map(|v| v.get("name").and_then(Value::as_str)).take(30).collect();
            bail!("the server lists no tool {name:?}; it lists {there:?}")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_listing_in_a_file_may_be_whole_or_in_part() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("listing.json");
        let tool = json!({"name": "send", "description": "Sends."});
        for value in
            [json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": [tool]}}), json!({"tools": [tool]}), json!([tool]), tool.clone()]
        {
            std::fs::write(&file, value.to_string()).unwrap();
            assert_eq!(from_file(&file, "send").unwrap(), Definition::of(&tool).unwrap());
            assert!(format!("{:#}", from_file(&file, "other").unwrap_err()).contains("\"send\""));
        }
        std::fs::write(&file, json!([tool, tool]).to_string()).unwrap();
        assert!(format!("{:#}", from_file(&file, "send").unwrap_err()).contains("twice"));
    }
}

//! Where records come from: a ledger's directory, or the edge with a token of one's own. One way to walk a chain, page by page.
//!
//! Online nothing is read that the API server does not let the token's user read.

use std::path::Path;

use anyhow::{Context, Result, bail};
use http::Request;
use kube::{Client, Config, client::Body};
use polity_ledger::{Filter, MAX_PAGE, OrgId, Page, ReadOnly, open_read_only};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::follow::follow;
use crate::args::SourceArgs;

/// Longest error that is shown.
const SHOWN: usize = 500;

/// A chain that can be read.
pub enum Source {
    /// From a directory.
    Directory(Box<ReadOnly>, OrgId),
    /// From the edge.
    Edge(Box<Client>, tokio::runtime::Runtime, String),
}

impl Source {
    /// Opens what the arguments name.
    pub fn open(args: &SourceArgs) -> Result<Self> {
        match (&args.dir, &args.server) {
            (Some(dir), None) => {
                let ledger = open_read_only(dir).with_context(|| format!("cannot open the ledger in {}", dir.display()))?;
                let org = chain(&ledger, &args.org)?;
                Ok(Self::Directory(Box::new(ledger), org))
            }
            (None, Some(_)) if args.org.is_empty() => bail!("--server needs --org: the edge answers for one Org at a time"),
            (None, Some(server)) => {
                let (Some(token), Some(ca)) = (&args.token_file, &args.ca_file) else {
                    bail!("--server needs --token-file (kubectl create token NAME --audience polity) and --ca-file (ConfigMap polity-ca)");
                };
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
                let client = runtime.block_on(async { connect(server, token, ca) })?;
                Ok(Self::Edge(Box::new(client), runtime, args.org.clone()))
            }
            _ => bail!("give either --dir with a ledger's directory, or --server with the edge's URL"),
        }
    }

    /// Gives each line of the chain after a sequence, in order; roots too if asked. Ends early when `line` says so.
    /// Returns the sequence up to which it looked, None when `line` ended it.
    pub fn walk(&self, mut after: i64, filter: &Filter, roots: bool, mut line: impl FnMut(&str) -> Result<bool>) -> Result<Option<i64>> {
        loop {
            let page = match self {
                Self::Directory(ledger, org) => ledger.page(org, after, MAX_PAGE, filter, roots)?,
                Self::Edge(client, runtime, org) => runtime.block_on(ask(client, org, after, filter, roots))?,
            };
            for text in &page.lines {
                if !line(text)? {
                    return Ok(None);
                }
            }
            if page.next <= after || page.next >= page.head {
                return Ok(Some(page.next));
            }
            after = page.next;
        }
    }

    /// Gives each record that comes after a sequence, as it comes. Ends when `line` says so.
    pub fn follow(&self, after: i64, filter: &Filter, line: impl FnMut(&str) -> Result<bool>) -> Result<()> {
        match self {
            Self::Directory(..) => bail!("--follow needs --server: a directory shows one moment"),
            Self::Edge(client, runtime, org) => runtime.block_on(follow(client, org, after, filter, line)),
        }
    }
}

/// The one chain of that name or uid.
fn chain(ledger: &ReadOnly, org: &str) -> Result<OrgId> {
    let orgs = ledger.orgs()?;
    let known = || orgs.iter().map(|o| format!("{} (uid {})", o.name, o.uid)).collect::<Vec<_>>().join(", ");
    let found: Vec<&OrgId> = orgs.iter().filter(|o| o.uid == org || o.name == org).collect();
    match found[..] {
        [org] => Ok(org.clone()),
        // An Org made again under the same name has a chain of its own.
        [] => bail!("there is no chain of {org:?}; the ledger has {}", known()),
        _ => bail!("there is more than one chain of {org:?}; the ledger has {}", known()),
    }
}

/// A client of the edge that presents a token and trusts one CA.
pub fn connect(server: &str, token: &Path, ca: &Path) -> Result<Client> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    if !server.starts_with("https://") {
        bail!("--server must be an https URL: the token is not sent in the clear");
    }
    let mut config = Config::new(server.parse().with_context(|| format!("{server:?} is no URL"))?);
    let pem = std::fs::read(ca).with_context(|| format!("cannot read {}", ca.display()))?;
    let certificates: Result<Vec<Vec<u8>>, _> = CertificateDer::pem_slice_iter(&pem).map(|c| c.map(|c| c.to_vec())).collect();
    config.root_cert = Some(certificates.with_context(|| format!("{} holds no certificates", ca.display()))?);
    config.auth_info.token_file = Some(token.to_string_lossy().into_owned());
    Client::try_from(config).context("cannot connect")
}

async fn ask(client: &Client, org: &str, after: i64, filter: &Filter, roots: bool) -> Result<Page> {
    let mut query = filters(filter)?;
    query.extend([("after", after.to_string()), ("roots", roots.to_string())]);
    let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    let request = Request::get(format!("/v1/orgs/{}/records?{}", escaped(org), query.join("&"))).body(Body::empty())?;
    let response = client.send(request).await.context("the edge does not answer")?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.into_body().collect_bytes().await.context("the answer broke off")?;
    let text = std::str::from_utf8(&body).context("the answer is no text")?;
    if !status.is_success() {
        bail!("the edge answered {status}: {}", refusal(text));
    }
    let number = |name: &str| -> Result<i64> {
        let value = headers.get(name).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        value.with_context(|| format!("the answer has no header {name}: is {org} served by a Polity edge?"))
    };
    Ok(Page { lines: text.lines().map(str::to_owned).collect(), next: number("polity-next")?, head: number("polity-head")?, first: 0 })
}

/// What a filter wants, as parameters of a query.
pub fn filters(filter: &Filter) -> Result<Vec<(&'static str, String)>> {
    let given = serde_json::to_value(filter)?;
    let names = ["since", "until", "kind", "agent", "tool", "task", "verdict", "trace", "action"];
    Ok(names.into_iter().filter_map(|name| Some((name, given.get(name)?.as_str()?.to_owned()))).collect())
}

/// A value for a URL: whatever is not plainly safe is escaped.
pub fn escaped(value: &str) -> String {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    value.bytes().map(|byte| if safe(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Why, and what would help, out of a refusal of the edge; as it is when it is none.
pub fn refusal(body: &str) -> String {
    let problem: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let text = |name: &str| problem.get(name).and_then(serde_json::Value::as_str);
    let said = match (text("reason"), text("message"), text("hint")) {
        (Some(reason), Some(message), Some(hint)) => format!("{reason}: {message}\n  hint: {hint}"),
        (Some(reason), Some(message), None) => format!("{reason}: {message}"),
        _ if body.is_empty() => "nothing more is said: is this the address of Polity's edge (Service polity-edge, port 443)?".to_owned(),
        _ => body.to_owned(),
    };
    said.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_urls() {
        assert_eq!(escaped("acme/bot 1+&é"), "acme%2Fbot%201%2B%26%C3%A9");
    }

    #[test]
    fn refusals_are_told_in_words() {
        let body = r#"{"reason":"NotPermitted","message":"bob may not","hint":"auditors may"}"#;
        assert_eq!(refusal(body), "NotPermitted: bob may not\n  hint: auditors may");
        assert_eq!(refusal(r#"{"reason":"NotFound","message":"no Org x"}"#), "NotFound: no Org x");
        assert!(refusal("").contains("is this the address of Polity's edge"));
        assert_eq!(refusal("<html>"), "<html>");
    }
}

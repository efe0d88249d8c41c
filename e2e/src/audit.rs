//! The API server's own audit log: who wrote what.

use anyhow::Result;

use crate::cluster::Cluster;

/// Verbs that change something.
const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

/// One write.
#[derive(Clone, Debug)]
pub struct Write {
    /// Username.
    pub user: String,
    /// Verb.
    pub verb: String,
    /// Resource with its subresource.
    pub resource: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// HTTP status.
    pub code: i64,
    /// An anchor of a chain's head in its Org: at most one a minute while the chain grows.
    pub anchor: bool,
}

/// Writes logged since `from` bytes of the log; use [`position`] before.
///
/// # Errors
/// The log cannot be read.
pub fn writes(cluster: &Cluster, from: u64) -> Result<Vec<Write>> {
    let text = std::fs::read(cluster.dir()?.join("audit.log"))?;
    let from = usize::try_from(from)?.min(text.len());
    let text = String::from_utf8_lossy(&text[from..]).into_owned();
    let text_of = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let events = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    Ok(events
        .filter(|e| e["stage"] == "ResponseComplete" && e["verb"].as_str().is_some_and(|verb| WRITES.contains(&verb)))
        .map(|e| {
            let sub = text_of(&e["objectRef"]["subresource"]);
            let resource = text_of(&e["objectRef"]["resource"]);
            Write {
                user: text_of(&e["user"]["username"]),
                verb: text_of(&e["verb"]),
                resource: if sub.is_empty() { resource } else { format!("{resource}/{sub}") },
                namespace: text_of(&e["objectRef"]["namespace"]),
                name: text_of(&e["objectRef"]["name"]),
                code: e["responseStatus"]["code"].as_i64().unwrap_or_default(),
                anchor: text_of(&e["requestURI"]).contains("fieldManager=polity-anchor"),
            }
        })
        .collect())
}

/// Present end of the log.
///
/// # Errors
/// The log cannot be read.
pub fn position(cluster: &Cluster) -> Result<u64> {
    Ok(std::fs::metadata(cluster.dir()?.join("audit.log"))?.len())
}

/// Writes of Polity itself that took effect (a conflict writes nothing), without its Lease, the anchors of chains, and its questions (reviews, tokens).
#[must_use]
pub fn of_polity(writes: Vec<Write>) -> Vec<Write> {
    let asks = ["leases", "tokenreviews", "subjectaccessreviews"];
    writes
        .into_iter()
        .filter(|w| {
            w.user.starts_with("system:serviceaccount:polity-system:polity-")
                && !w.anchor
                && w.code < 400
                && !asks.contains(&w.resource.as_str())
        })
        .collect()
}

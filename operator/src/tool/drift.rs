//! Notes in a Tool's status that its server lists another definition than the one pinned, as an edge has seen. From then on the Tool is in quarantine,
//! at every edge, until its pin is changed: going back to what was pinned does not end it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, Client, api::Patch};
use polity_api::{Tool, tool::Drift};
use polity_runtime::internal::ToolDrifted;
use serde_json::{Value, json};

/// Writes it down, once for a pin. The controller says it in conditions.
///
/// # Errors
/// The API server failed.
pub async fn note(client: &Client, told: &ToolDrifted, now: Timestamp) -> Result<(), kube::Error> {
    let api: Api<Tool> = Api::namespaced(client.clone(), &told.tool.namespace);
    let Some(tool) = api.get_opt(&told.tool.name).await? else { return Ok(()) };
    let Some(patch) = patch(&tool, told, now) else { return Ok(()) };
    match api.patch_status(&told.tool.name, &crate::apply::manager(), &Patch::Merge(patch)).await {
        // Gone, or another by now.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}

/// What is to be written; None when it is no news, or about a pin that is changed already. Pure.
fn patch(tool: &Tool, told: &ToolDrifted, now: Timestamp) -> Option<Value> {
    let pinned = tool.spec.runtime.mcp.as_ref().and_then(|mcp| mcp.digest.as_ref());
    if tool.metadata.uid.as_deref() != Some(&told.tool.uid) || pinned != Some(&told.pinned) || told.observed == told.pinned {
        return None;
    }
    if tool.quarantine().is_some() {
        return None;
    }
    let drift = Drift {
        pinned: told.pinned.clone(),
        observed: told.observed.chars().take(64).collect(),
        changed: told.changed.iter().take(8).map(|part| part.chars().take(32).collect()).collect(),
        at: Time(now),
    };
    Some(json!({"metadata": {"uid": tool.metadata.uid}, "status": {"drift": drift}}))
}

#[cfg(test)]
mod tests {
    use polity_runtime::internal::RunTool;

    use super::*;

    fn tool(digest: &str, status: &Value) -> Tool {
        let mcp = json!({"url": "https://x.example/", "tool": "t", "digest": digest, "definition": "{}"});
        serde_json::from_value(json!({"metadata": {"name": "t", "uid": "u"}, "spec": {"runtime": {"mcp": mcp}}, "status": status})).unwrap()
    }

    #[test]
    fn only_news_about_the_present_pin_is_written() {
        let told = |uid: &str, pinned: &str| ToolDrifted {
            tool: RunTool { namespace: "acme".into(), name: "t".into(), uid: uid.into(), digest: "d".into() },
            pinned: pinned.into(),
            observed: "new".into(),
            changed: vec!["description".into()],
        };
        let now = Timestamp::UNIX_EPOCH;
        let written = patch(&tool("a", &json!({})), &told("u", "a"), now).unwrap();
        assert_eq!(written["status"]["drift"]["observed"], "new");
        assert_eq!(patch(&tool("a", &json!({})), &told("other", "a"), now), None);
        assert_eq!(patch(&tool("b", &json!({})), &told("u", "a"), now), None);
        let noted = json!({"drift": {"pinned": "a", "observed": "x", "at": "1970-01-01T00:00:00Z"}});
        assert_eq!(patch(&tool("a", &noted), &told("u", "a"), now), None);
        assert!(patch(&tool("b", &noted), &told("u", "b"), now).is_some());
    }
}

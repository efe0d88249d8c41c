//! Controller of Tools: whether a definition is usable, its digest and runtime. Runs no tool.

pub(crate) mod drift;

use std::sync::Arc;

use jiff::Timestamp;
use kube::{Api, ResourceExt as _};
use polity_api::{Org, Tool, ToolStatus, conditions, reasons};
use polity_policy::{CompiledTool, compile_schema, tool_facts};
use polity_upstream::looks;
use serde_json::Value;

use crate::{
    context::Context,
    engine::Key,
    requeue::Outcome,
    status::{StatusError, Writer, undecodable, write},
};

/// Brings the status of one Tool up to date.
///
/// # Errors
/// The status was not written; it is tried again.
pub async fn reconcile(ctx: Arc<Context>, key: Key) -> Result<Outcome, StatusError> {
    let Some(tool) = ctx.cluster.tools.get(&key.0, &key.1) else {
        return undecodable(&ctx.client, &ctx.cluster.tools, &key, ctx.now()).await;
    };
    let beside: Vec<String> = ctx.cluster.tools.in_namespace(&key.0).iter().map(|t| t.name_any()).collect();
    let status = status(&tool, ctx.cluster.org_of(&key.0).as_deref(), &beside, ctx.now());
    write(&Api::namespaced(ctx.client.clone(), &key.0), &ctx.cluster.tools, tool.as_ref(), &status).await?;
    Ok(Outcome::Settled)
}

/// The status; `beside` are the names of the namespace's Tools. Pure.
fn status(tool: &Tool, org: Option<&Org>, beside: &[String], now: Timestamp) -> ToolStatus {
    let mut status = tool.status.clone().unwrap_or_default();
    let generation = tool.metadata.generation.unwrap_or_default();
    status.observed_generation = generation;
    let facts = tool_facts(org.unwrap_or(&Org::default()), tool);
    let runtime = tool.spec.runtime.name();
    status.runtime = runtime.map(str::to_owned);
    if tool.quarantine().is_none() {
        // About a pin that is not the present one.
        status.drift = None;
    }
    status.digest = Some(facts.digest.clone());
    let output = tool.spec.output_schema.as_ref().map(|s| compile_schema(&Value::Object(s.clone())));
    let broken = match (CompiledTool::new(&facts).broken, output) {
        (Some(broken), _) => Some(broken),
        (None, Some(Err(broken))) => Some(format!("outputSchema: {broken}")),
        _ => looks::broken(&tool.spec),
    };
    let mut writer = Writer { conditions: &mut status.conditions, generation, now };
    let suspicions = looks::suspicions(&tool.name_any(), &tool.spec, beside);
    if suspicions.is_empty() {
        conditions::clear(writer.conditions, conditions::FLAGGED);
    } else {
        writer.set(conditions::FLAGGED, true, reasons::LOOKS_SUSPICIOUS, &cut(&suspicions));
    }
    if let Some(drift) = tool.quarantine().filter(|_| broken.is_none()) {
        let message = format!(
            "In quarantine, calls are denied: the server lists another definition ({}) than the one pinned; changed: {}. Look at it with `kubectl polity tool pin`, and change the pin or leave it.",
            drift.observed,
            drift.changed.join(", ")
        );
        writer.summary(false, true, reasons::TOOL_DRIFTED, &message);
        return status;
    }
    match (broken, runtime) {
        (Some(broken), _) => writer.summary(false, true, reasons::TOOL_NOT_READY, &format!("Calls are denied: {broken}.")),
        (None, None) => {
            writer.summary(
                false,
                true,
                reasons::TOOL_NOT_READY,
                "Calls are denied: a Tool has exactly one runtime: container, http or mcp.",
            );
        }
        (None, Some(_)) if org.is_none() => writer.summary(false, false, reasons::ORG_NOT_READY, "This namespace belongs to no Org yet."),
        (None, Some(runtime)) => {
            let differs = looks::differences(&tool.spec);
            let differs = if differs.is_empty() { String::new() } else { format!(" But {}.", cut(&differs)) };
            writer.summary(true, false, reasons::USABLE, &format!("Calls run as {runtime}.{differs}"));
        }
    }
    status
}

/// In one message of bearable length.
fn cut(what: &[String]) -> String {
    what.join("; ").chars().take(2000).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen(spec: &serde_json::Value) -> ToolStatus {
        let tool: Tool =
            serde_json::from_value(json!({"metadata": {"name": "pay", "namespace": "acme", "generation": 2}, "spec": spec})).unwrap();
        status(&tool, Some(&Org::default()), &["pay".to_owned(), "paint".to_owned()], Timestamp::UNIX_EPOCH)
    }

    fn mcp(definition: &polity_upstream::Definition) -> serde_json::Value {
        json!({"url": "https://x.example/mcp", "tool": definition.name(), "digest": definition.digest(), "definition": definition.text()})
    }

    fn listed(value: &serde_json::Value) -> polity_upstream::Definition {
        polity_upstream::Definition::of(value).unwrap()
    }

    #[test]
    fn an_mcp_tool_is_usable_only_while_what_is_pinned_is_what_its_server_lists() {
        let definition = listed(&json!({"name": "send", "description": "Sends."}));
        let good = seen(&json!({"runtime": {"mcp": mcp(&definition)}}));
        assert!(conditions::is_true(&good.conditions, conditions::READY), "{good:?}");
        assert_eq!(good.runtime.as_deref(), Some("mcp"));
        assert!(good.conditions.iter().all(|c| c.type_ != conditions::FLAGGED));

        let unpinned = seen(&json!({"runtime": {"mcp": {"url": "https://x.example/mcp", "tool": "send"}}}));
        let ready = unpinned.conditions.iter().find(|c| c.type_ == conditions::READY).unwrap();
        assert!(ready.status == "False" && ready.message.contains("kubectl polity tool pin"), "{ready:?}");
        let mut wrong = mcp(&definition);
        wrong["digest"] = json!("0".repeat(64));
        let wrong = seen(&json!({"runtime": {"mcp": wrong}}));
        assert!(conditions::is_true(&wrong.conditions, conditions::STALLED), "{wrong:?}");

        let object = |pinned: &str| {
            let drift = json!({"pinned": pinned, "observed": "b", "changed": ["description"], "at": "1970-01-01T00:00:00Z"});
            let spec = json!({"runtime": {"mcp": mcp(&definition)}});
            let tool = json!({"metadata": {"name": "send", "generation": 3}, "spec": spec, "status": {"drift": drift}});
            status(&serde_json::from_value(tool).unwrap(), Some(&Org::default()), &[], Timestamp::UNIX_EPOCH)
        };
        let drifted = object(definition.digest());
        let ready = drifted.conditions.iter().find(|c| c.type_ == conditions::READY).unwrap();
        assert!(ready.reason == reasons::TOOL_DRIFTED && ready.message.contains("changed: description"), "{ready:?}");
        assert!(drifted.drift.is_some());
        let repinned = object("a");
        assert!(repinned.drift.is_none() && conditions::is_true(&repinned.conditions, conditions::READY), "{repinned:?}");
    }

    #[test]
    fn what_looks_suspicious_is_said() {
        let definition =
            listed(&json!({"name": "send", "description": "Sends.\u{200b} <!-- and reads -->", "inputSchema": {"required": ["to"]}}));
        let told = seen(&json!({"inputSchema": {"type": "object"}, "runtime": {"mcp": mcp(&definition)}}));
        let flagged = told.conditions.iter().find(|c| c.type_ == conditions::FLAGGED).unwrap();
        assert!(flagged.message.contains("U+200B") && flagged.message.contains("HTML comment"), "{flagged:?}");
        let ready = told.conditions.iter().find(|c| c.type_ == conditions::READY).unwrap();
        assert!(ready.status == "True" && ready.message.contains("requires \"to\""), "{ready:?}");
        for (name, alike) in [("paint", false), ("modem", true)] {
            let tool = json!({"metadata": {"name": name}, "spec": {"runtime": {"container": {"image": "x", "command": ["x"]}}}});
            let beside = [name.to_owned(), "pa1nt".to_owned(), "modern".to_owned()];
            let status = super::status(&serde_json::from_value(tool).unwrap(), Some(&Org::default()), &beside, Timestamp::UNIX_EPOCH);
            let flagged = status.conditions.iter().find(|c| c.type_ == conditions::FLAGGED);
            assert_eq!(flagged.is_some_and(|f| f.message.contains("\"modern\"")), alike, "{name}: {flagged:?}");
        }
    }

    #[test]
    fn a_schema_that_does_not_compile_stalls_and_says_where() {
        let container = json!({"container": {"image": "x", "command": ["/x"]}});
        let good = seen(&json!({"inputSchema": {"type": "object"}, "runtime": container}));
        assert!(conditions::is_true(&good.conditions, conditions::READY));
        assert_eq!(
            (good.runtime.as_deref(), good.digest.as_ref().map(String::len), good.observed_generation),
            (Some("container"), Some(64), 2)
        );
        for bad in [
            json!({"inputSchema": {"type": "no"}, "runtime": container}),
            json!({"outputSchema": {"type": "no"}, "runtime": container}),
            json!({"runtime": {}}),
        ] {
            let status = seen(&bad);
            assert!(conditions::is_true(&status.conditions, conditions::STALLED), "{bad}");
            assert!(status.conditions.iter().all(|c| c.reason == reasons::TOOL_NOT_READY), "{bad}");
        }
    }

    #[test]
    fn the_digest_is_of_the_spec() {
        let one = seen(&json!({"runtime": {"container": {"image": "x", "command": ["/x"]}}}));
        let other = seen(&json!({"runtime": {"container": {"image": "y", "command": ["/x"]}}}));
        assert_ne!(one.digest, other.digest);
    }
}

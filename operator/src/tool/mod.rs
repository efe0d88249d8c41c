//! Controller of Tools: whether a definition is usable, its digest and runtime. Runs no tool.

use std::sync::Arc;

use jiff::Timestamp;
use kube::Api;
use polity_api::{Org, Tool, ToolStatus, reasons};
use polity_policy::{CompiledTool, compile_schema, tool_facts};
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
        undecodable(&ctx.client, &ctx.cluster.tools, &key, ctx.now()).await?;
        return Ok(Outcome::Settled);
    };
    let status = status(&tool, ctx.cluster.org_of(&key.0).as_deref(), ctx.now());
    write(&Api::namespaced(ctx.client.clone(), &key.0), &ctx.cluster.tools, tool.as_ref(), &status).await?;
    Ok(Outcome::Settled)
}

/// The status. Pure.
fn status(tool: &Tool, org: Option<&Org>, now: Timestamp) -> ToolStatus {
    let mut status = tool.status.clone().unwrap_or_default();
    let generation = tool.metadata.generation.unwrap_or_default();
    status.observed_generation = generation;
    let facts = tool_facts(org.unwrap_or(&Org::default()), tool);
    let runtime = match (&tool.spec.runtime.container, &tool.spec.runtime.http) {
        (Some(_), None) => Some("container"),
        (None, Some(_)) => Some("http"),
        _ => None,
    };
    status.runtime = runtime.map(str::to_owned);
    status.digest = Some(facts.digest.clone());
    let output = tool.spec.output_schema.as_ref().map(|s| compile_schema(&Value::Object(s.clone())));
    let broken = match (CompiledTool::new(&facts).broken, output) {
        (Some(broken), _) => Some(broken),
        (None, Some(Err(broken))) => Some(format!("outputSchema: {broken}")),
        _ => None,
    };
    let mut writer = Writer { conditions: &mut status.conditions, generation, now };
    match (broken, runtime) {
        (Some(broken), _) => writer.summary(false, true, reasons::TOOL_NOT_READY, &format!("Calls are denied: {broken}.")),
        (None, None) => {
            writer.summary(false, true, reasons::TOOL_NOT_READY, "Calls are denied: a Tool has exactly one runtime, container or http.");
        }
        (None, Some(_)) if org.is_none() => writer.summary(false, false, reasons::ORG_NOT_READY, "This namespace belongs to no Org yet."),
        (None, Some(runtime)) => writer.summary(true, false, reasons::USABLE, &format!("Calls run as {runtime}.")),
    }
    status
}

#[cfg(test)]
mod tests {
    use polity_api::conditions;
    use serde_json::json;

    use super::*;

    fn seen(spec: &serde_json::Value) -> ToolStatus {
        let tool: Tool =
            serde_json::from_value(json!({"metadata": {"name": "pay", "namespace": "acme", "generation": 2}, "spec": spec})).unwrap();
        status(&tool, Some(&Org::default()), Timestamp::UNIX_EPOCH)
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

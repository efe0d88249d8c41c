//! Against a server that others wrote: that of the official Rust SDK, with sessions and answers in streams, as it is by default.

use std::{borrow::Cow, sync::Arc};

use polity_api::tool::{Mcp, Runtime, ToolSpec};
use polity_ledger::Outcome;
use polity_policy::ToolFacts;
use polity_upstream::Definition;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ListToolsResult, PaginatedRequestParams, ProtocolVersion,
        ServerCapabilities, ServerConfig, Tool,
    },
    service::RequestContext,
    transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager},
};
use serde_json::{Value, json};

use super::{McpTools, tests::http};
use crate::http_tool::Call;

#[derive(Clone, Copy)]
struct Adds {
    /// It speaks revision 2026-07-28 and refuses to be initialized.
    only_newest: bool,
}

fn listed() -> Value {
    // The server refuses a call in the newest revision whose header is not the argument.
    let a = json!({"type": "integer", "x-mcp-header": "Left"});
    json!({
        "name": "add", "title": "Adder", "description": "Adds two numbers.",
        "inputSchema": {"type": "object", "required": ["a", "b"], "properties": {"a": a, "b": {"type": "integer"}}},
        "annotations": {"readOnlyHint": true},
    })
}

impl ServerHandler for Adds {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        if self.only_newest { vec![ProtocolVersion::V_2026_07_28].into() } else { ProtocolVersion::KNOWN_VERSIONS.into() }
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        (name == "add").then(|| serde_json::from_value(listed()).unwrap())
    }

    async fn list_tools(&self, _: Option<PaginatedRequestParams>, _: RequestContext<RoleServer>) -> Result<ListToolsResult, ErrorData> {
        let tool: Tool = serde_json::from_value(listed()).unwrap();
        Ok(serde_json::from_value(json!({"tools": [tool]})).unwrap())
    }

    async fn call_tool(&self, request: CallToolRequestParams, _: RequestContext<RoleServer>) -> Result<CallToolResponse, ErrorData> {
        let given = Value::Object(request.arguments.unwrap_or_default());
        let Some((a, b)) = given["a"].as_i64().zip(given["b"].as_i64()) else {
            return Err(ErrorData::invalid_params("a and b must be integers", None));
        };
        let result = if b == 13 {
            json!({"content": [{"type": "text", "text": "thirteen is not added"}], "isError": true})
        } else {
            json!({"content": [], "structuredContent": {"sum": a + b}})
        };
        let result: CallToolResult = serde_json::from_value(result).unwrap();
        Ok(result.into())
    }
}

#[tokio::test]
async fn the_server_of_the_official_sdk_is_pinned_and_called() {
    is_pinned_and_called(Adds { only_newest: false }).await;
}

/// One that is not initialized any more, with an argument that it wants in a header.
#[tokio::test]
async fn the_server_of_the_official_sdk_is_called_in_the_newest_revision_alone() {
    is_pinned_and_called(Adds { only_newest: true }).await;
}

async fn is_pinned_and_called(server: Adds) {
    let config = StreamableHttpServerConfig::default().with_allowed_hosts(["sums.example"]);
    let service = StreamableHttpService::new(move || Ok(server), Arc::new(LocalSessionManager::default()), config);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback_service(service)).await });

    let mcp = Mcp { url: Some(format!("http://sums.example:{port}/mcp")), tool: "add".into(), ..Mcp::default() };
    let spec = ToolSpec { timeout_seconds: 20, runtime: Runtime { mcp: Some(mcp), ..Runtime::default() }, ..ToolSpec::default() };
    let mut tool = ToolFacts {
        org: "acme".into(),
        namespace: "acme".into(),
        name: "add".into(),
        uid: "u".into(),
        digest: "d".into(),
        micro_usd: 0,
        spec,
        quarantined: None,
    };
    let (http, tools) = (http(), McpTools::default());
    let observed = tools.observe(&http, &tool).await.unwrap();
    assert_eq!(observed.digest(), Definition::of(&listed()).unwrap().digest());
    if let Some(mcp) = &mut tool.spec.runtime.mcp {
        (mcp.digest, mcp.definition) = (Some(observed.digest().to_owned()), Some(observed.text()));
    }
    for (input, outcome, reason, output) in [
        (json!({"a": 2, "b": 3}), Outcome::Done, "", Some(json!({"sum": 5}))),
        (json!({"a": 2, "b": 13}), Outcome::Done, "ToolFailed", None),
        (json!({"a": 2}), Outcome::Done, "ToolFailed", None),
    ] {
        let pass = tools.admit(&http, &tool).await.unwrap();
        let ran = tools.run(&http, Call { tool: &tool, input: &input, trace: "" }, pass).await;
        assert_eq!((ran.outcome, ran.reason, &ran.output), (outcome, reason, &output), "{input}: {}", ran.message);
    }
}

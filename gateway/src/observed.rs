//! `GET /v1/orgs/{org}/tools/{tool}/definition`: what the server of an `mcp` Tool lists now, for those whom Kubernetes lets `update` the Tool and who
//! can therefore pin it. The API server decides, for each request. Changes nothing, and calls no tool.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode},
};
use polity_api::reasons;
use polity_runtime::access::{self, Access};
use serde_json::{Value, json};

use crate::{decide::busy, problem::Problem, state::Gateway};

/// `GET /v1/orgs/{org}/tools/{tool}/definition`.
pub async fn read(
    State(gateway): State<Arc<Gateway>>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let caller = gateway.caller(&headers).await?;
    let Path((org, name)) = path.map_err(|e| Problem::invalid(e.to_string()))?;
    let _slot = gateway.wait_slots.try_acquire().map_err(|_| busy())?;
    let view = gateway.view(&org)?;
    let namespace = view.namespace().to_owned();
    let subject = access::Subject {
        username: caller.username.clone(),
        uid: caller.uid.clone(),
        groups: caller.groups.clone(),
        ..access::Subject::default()
    };
    let asked = Access {
        verb: "update",
        group: polity_api::GROUP,
        resource: "tools",
        namespace: Some(&namespace),
        name: Some(&name),
        ..Access::default()
    };
    match access::allowed(&gateway.client, &subject, asked).await {
        Ok(true) if !namespace.is_empty() => {}
        Ok(_) => {
            let message = format!("{} may not update Tool {name} in namespace {namespace:?}", caller.username);
            return Err(Problem::new(StatusCode::FORBIDDEN, reasons::NOT_PERMITTED, message)
                .hint("who may change a Tool may see what its server lists: Org.spec.members, role engineer"));
        }
        Err(error) => return Err(Problem::unavailable(reasons::UNAVAILABLE, error.to_string())),
    }
    let tool = view.tool(&name, None).ok_or_else(|| Problem::not_found(format!("Org {org} has no Tool {name} of its own")))?;
    let definition = gateway
        .mcp
        .observe(&gateway.http, &tool)
        .await
        .map_err(|not| Problem::new(StatusCode::BAD_GATEWAY, not.reason, not.message).hint(not.hint))?;
    Ok(Json(json!({"digest": definition.digest(), "definition": definition.text()})))
}

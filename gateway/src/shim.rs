//! `/shim/v1/runs/{id}`: hands a tool Pod its input and takes its result, both by core's word. The token says which Pod asks; core says whether
//! the run is that Pod's. Nothing is kept here.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{IntoResponse as _, Response},
};
use polity_api::{Caller, names, reasons};
use polity_runtime::internal::{RunError, ShimOutput, ShimPod, ShimResult};

use crate::{body, problem::Problem, state::Gateway};

/// Largest result as posted: its text of at most 1 MiB may grow when JSON escapes it, and stderr comes along.
pub const MAX_POSTED: usize = 3 * 1024 * 1024;

type Shared = State<Arc<Gateway>>;

/// `GET …/input`: the input itself, for the tool's stdin; the trace context as header.
pub async fn input(State(gateway): Shared, id: Result<Path<String>, PathRejection>, headers: HeaderMap) -> Result<Response, Problem> {
    let pod = pod(&*gateway.caller(&headers).await?)?;
    let id = id_of(id)?;
    let input = gateway.core.run_input(&id, &pod).await.map_err(told)?;
    let mut response = Json(input.input).into_response();
    if let Ok(trace) = HeaderValue::from_str(&input.trace)
        && !input.trace.is_empty()
    {
        response.headers_mut().insert("traceparent", trace);
    }
    Ok(response)
}

/// `POST …/result`.
pub async fn result(
    State(gateway): Shared,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let pod = pod(&*gateway.caller(&headers).await?)?;
    let id = id_of(id)?;
    let mut output: ShimOutput = body::read(&headers, body, MAX_POSTED).await?;
    if output.stdout.len() > names::MAX_RESULT {
        output.too_large = true;
        output.stdout.clear();
    }
    let from = output.stderr_tail.ceil_char_boundary(output.stderr_tail.len().saturating_sub(names::MAX_STDERR_TAIL));
    output.stderr_tail.drain(..from);
    gateway.core.run_result(&id, &ShimResult { pod, output }).await.map_err(told)?;
    Ok((StatusCode::OK, Json(serde_json::json!({}))).into_response())
}

/// The tool Pod behind a token: only the account that tool Pods run under, and only a token bound to a Pod.
fn pod(caller: &Caller) -> Result<ShimPod, Problem> {
    let no = || Problem::new(StatusCode::FORBIDDEN, reasons::NOT_PERMITTED, "only tool Pods of Polity may use this");
    let namespace = caller
        .username
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.strip_suffix(names::TOOL_ACCOUNT))
        .and_then(|rest| rest.strip_suffix(':'))
        .filter(|namespace| !namespace.is_empty() && !namespace.contains(':'))
        .ok_or_else(no)?;
    match (&caller.pod_name, &caller.pod_uid) {
        (Some(name), Some(uid)) => Ok(ShimPod { pod_name: name.clone(), pod_uid: uid.clone(), namespace: namespace.to_owned() }),
        _ => Err(no()),
    }
}

fn told(error: RunError) -> Problem {
    match error {
        RunError::NotKnown { .. } => Problem::not_found(error.to_string()),
        RunError::AnotherPod { .. } => Problem::new(StatusCode::FORBIDDEN, reasons::NOT_PERMITTED, error.to_string()),
        RunError::Refused(refused) => refused.into(),
    }
}

fn id_of(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    path.map(|Path(id)| id).map_err(|e| Problem::invalid(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(username: &str) -> Caller {
        Caller { username: username.into(), pod_name: Some("call-1".into()), pod_uid: Some("u".into()), ..Caller::default() }
    }

    #[test]
    fn only_tool_pods() {
        let pod_of = pod(&caller("system:serviceaccount:acme:polity-tool")).unwrap();
        assert_eq!((pod_of.namespace.as_str(), pod_of.pod_name.as_str(), pod_of.pod_uid.as_str()), ("acme", "call-1", "u"));
        for bad in [
            "system:serviceaccount:acme:polity-agent-x",
            "system:serviceaccount::polity-tool",
            "system:serviceaccount:a:b:polity-tool",
            "polity-tool",
            "system:serviceaccount:acme:not-polity-tool",
        ] {
            assert_eq!(pod(&caller(bad)).unwrap_err().status(), 403, "{bad}");
        }
        let unbound = Caller { pod_uid: None, ..caller("system:serviceaccount:acme:polity-tool") };
        assert_eq!(pod(&unbound).unwrap_err().status(), 403);
    }
}

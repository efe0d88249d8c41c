//! The same calls through MCP: both protocol revisions, what is listed, what is answered in-band, what is refused before.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, Request, StatusCode},
};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::harness::{Edge, until};

mod cancel;

const PATH: &str = "/v1/orgs/acme/mcp";
const NOW: &str = "2026-07-28";
const BEFORE: &str = "2025-11-25";

fn message(version: &str, method: &str, params: Value) -> Value {
    let mut params = params;
    if version == NOW {
        for (key, value) in [("protocolVersion", json!(NOW)), ("clientCapabilities", json!({}))] {
            params["_meta"][format!("io.modelcontextprotocol/{key}")] = value;
        }
    }
    json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params})
}

fn headers(version: &str, message: &Value, token: &str) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("host", "polity-edge".to_owned()),
        ("authorization", format!("Bearer {token}")),
        ("content-type", "application/json".to_owned()),
        ("accept", "application/json, text/event-stream".to_owned()),
    ];
    if message["method"] != "initialize" {
        headers.push(("mcp-protocol-version", version.to_owned()));
    }
    if version == NOW {
        headers.push(("mcp-method", message["method"].as_str().unwrap().to_owned()));
        if let Some(name) = message["params"]["name"].as_str().or_else(|| message["params"]["uri"].as_str()) {
            headers.push(("mcp-name", name.to_owned()));
        }
    }
    headers
}

fn request(headers: &[(&'static str, String)], body: impl Into<Body>) -> Request<Body> {
    let builder = headers.iter().fold(Request::post(PATH), |builder, (name, value)| builder.header(*name, value));
    builder.body(body.into()).unwrap()
}

async fn send(edge: &Edge, request: Request<Body>) -> (StatusCode, HeaderMap, String) {
    let response = polity_gateway::router(edge.gateway.clone()).oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 22).await.unwrap();
    (status, headers, String::from_utf8(bytes.to_vec()).unwrap())
}

async fn ask_as(edge: &Edge, token: &str, version: &str, method: &str, params: Value) -> Value {
    let message = message(version, method, params);
    let (status, _, text) = send(edge, request(&headers(version, &message, token), message.to_string())).await;
    let answer: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{status} {e}: {text}"));
    assert_eq!(answer["id"], 7, "{answer}");
    answer
}

async fn ask(edge: &Edge, version: &str, method: &str, params: Value) -> Value {
    ask_as(edge, "payer-token", version, method, params).await
}

async fn call(edge: &Edge, version: &str, params: Value) -> Value {
    let answer = ask(edge, version, "tools/call", params).await;
    assert!(answer["result"].is_object(), "{answer}");
    answer["result"].clone()
}

fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap()
}

#[tokio::test]
async fn says_what_it_is_in_both_revisions() {
    let edge = Edge::start().await;
    let client = json!({"protocolVersion": BEFORE, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let said = ask(&edge, BEFORE, "initialize", client).await;
    assert_eq!(said["result"]["protocolVersion"], BEFORE, "{said}");
    let offered = |capabilities: &Value| capabilities.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(offered(&said["result"]["capabilities"]), ["resources", "tools"], "nothing is offered that nothing stands behind");
    assert_eq!(said["result"]["capabilities"]["resources"], json!({}), "no subscriptions, no notices of changes");
    assert_eq!(ask(&edge, BEFORE, "ping", json!({})).await["result"], json!({}));
    let said = ask(&edge, NOW, "server/discover", json!({})).await;
    let versions = said["result"]["supportedVersions"].as_array().unwrap();
    assert!(versions.contains(&json!(NOW)) && versions.contains(&json!(BEFORE)), "{said}");
    assert_eq!(offered(&said["result"]["capabilities"]), ["resources", "tools"]);
}

#[tokio::test]
async fn lists_what_the_caller_could_call_and_nothing_else() {
    let edge = Edge::start().await;
    for version in [BEFORE, NOW] {
        let listed = ask(&edge, version, "tools/list", json!({})).await;
        let tools = listed["result"]["tools"].as_array().unwrap_or_else(|| panic!("{listed}"));
        let names: Vec<&str> = tools.iter().map(|t| t["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["again", "box", "broken", "leaky", "pay", "read_it", "slow", "sum"]);
        assert_eq!(tools[3]["inputSchema"]["properties"]["amount"], json!({"type": "integer"}));
        assert_eq!((&listed["result"]["cacheScope"], &listed["result"]["ttlMs"]), (&json!("private"), &json!(0)), "nobody else's");
        assert_eq!(tools[0]["annotations"], json!({"idempotentHint": true}));
        // Who holds no Role could call nothing, and who is no Agent is told so.
        let none = ask_as(&edge, "clerk-token", version, "tools/list", json!({})).await;
        assert_eq!(none["result"]["tools"], json!([]), "{none}");
        let stranger = ask_as(&edge, "stranger-token", version, "tools/list", json!({})).await;
        assert_eq!(stranger["error"]["data"]["reason"], "UnknownCaller", "{stranger}");
        let bad = ask(&edge, version, "tools/list", json!({"cursor": "?"})).await;
        assert_eq!(bad["error"]["code"], -32602, "{bad}");
    }
}

/// A Tool is called by its name for clients and by its own; rules and records know its own.
#[tokio::test]
async fn a_tool_may_have_a_name_for_clients() {
    let edge = Edge::start().await;
    let listed = ask(&edge, NOW, "tools/list", json!({})).await;
    let listed = listed["result"]["tools"].as_array().unwrap();
    let tool = listed.iter().find(|t| t["name"] == "read_it").unwrap_or_else(|| panic!("{listed:?}"));
    assert_eq!(tool["_meta"]["polity.dev/tool"], "read");
    for name in ["read_it", "read"] {
        let result = call(&edge, NOW, json!({"name": name, "arguments": {"amount": 1}})).await;
        assert_eq!(result["structuredContent"], json!({"paid": {"amount": 1}}), "{result}");
    }
    assert!(edge.ledger.begins().iter().all(|b| b.subject.target.name == "read"));
    // Who may not call it does not know it by that name either.
    let unknown = ask_as(&edge, "clerk-token", NOW, "tools/call", json!({"name": "read_it", "arguments": {"amount": 1}})).await;
    assert_eq!(unknown["error"]["data"]["reason"], "ToolNotFound", "{unknown}");
}

/// Whatever is listed is not refused for lack of a grant, and whatever is not listed is.
#[tokio::test]
async fn the_list_and_the_decisions_agree() {
    let edge = Edge::start().await;
    for token in ["payer-token", "clerk-token"] {
        let listed = ask_as(&edge, token, NOW, "tools/list", json!({})).await;
        let listed: Vec<&str> = listed["result"]["tools"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
        for tool in ["pay", "slow", "again", "broken", "box"] {
            let body = json!({"tool": tool, "input": {"amount": 1}});
            let (_, told) = edge.ask("POST", "/v1/orgs/acme/evaluate", token, Some(body)).await;
            assert_eq!(told["reason"] != "NotGranted", listed.contains(&tool), "{token} {tool}: {told}");
        }
    }
}

#[tokio::test]
async fn an_allowed_call_is_begun_run_settled_and_answered() {
    for version in [BEFORE, NOW] {
        let edge = Edge::start().await;
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let result = call(&edge, version, json!({"name": "pay", "arguments": {"amount": 20}, "_meta": {"traceparent": trace}})).await;
        assert_eq!((&result["isError"], &result["structuredContent"]), (&json!(false), &json!({"paid": {"amount": 20}})), "{result}");
        assert_eq!(text(&result), json!({"paid": {"amount": 20}}).to_string());
        let about = &result["_meta"]["polity.dev/call"];
        assert_eq!((&about["phase"], &about["decision"]["verdict"]), (&json!("Succeeded"), &json!("Allow")));
        assert_eq!(edge.ledger.log(), ["begin pay", "settle Done  used=1"]);
        let begin = &edge.ledger.begins()[0];
        assert_eq!((begin.subject.actor.agent.as_str(), begin.subject.id.as_str()), ("acme/payer", about["id"].as_str().unwrap()));
        assert_eq!(begin.subject.trace, trace);
    }
}

#[tokio::test]
async fn a_denial_is_told_in_band_and_recorded() {
    for version in [BEFORE, NOW] {
        let edge = Edge::start().await;
        let result = call(&edge, version, json!({"name": "pay", "arguments": {"amount": 9000}})).await;
        assert_eq!(result["isError"], true);
        for part in ["PolicyDenied", "acme/limits/hard", "never over 500", "ask for at most 500"] {
            assert!(text(&result).contains(part), "{part}: {}", text(&result));
        }
        let problem = &result["_meta"]["polity.dev/problem"];
        assert_eq!((&problem["reason"], &problem["rules"]), (&json!("PolicyDenied"), &json!(["acme/limits/hard"])));
        assert_eq!(edge.ledger.notes()[0].subject.as_ref().unwrap().id, problem["id"].as_str().unwrap());
        let wrong = call(&edge, version, json!({"name": "pay", "arguments": {"amount": "much"}})).await;
        assert!(wrong["isError"] == true && text(&wrong).contains("InvalidArguments") && text(&wrong).contains("amount"), "{wrong}");
        let unknown = ask(&edge, version, "tools/call", json!({"name": "pai", "arguments": {}})).await;
        assert_eq!((&unknown["error"]["code"], &unknown["error"]["data"]["reason"]), (&json!(-32602), &json!("ToolNotFound")), "{unknown}");
        assert_eq!(edge.sent(), 0);
    }
}

fn status(phase: &str) -> Value {
    json!({"phase": phase, "approval": "call-abc", "result": {"output": {"paid": 400}}, "conditions": []})
}

#[tokio::test]
async fn waiting_for_people_is_told_at_once_and_the_same_key_gets_the_outcome() {
    let edge = Edge::start().await;
    edge.api.answer_create(json!({"phase": "WaitingApproval", "approval": "call-abc", "conditions": []}));
    let asked = json!({"name": "pay", "arguments": {"amount": 400}, "_meta": {"polity.dev/idempotencyKey": "k-1"}});
    let started = std::time::Instant::now();
    let result = call(&edge, NOW, asked.clone()).await;
    assert!(started.elapsed() < Duration::from_secs(4), "not at once");
    assert_eq!(result["isError"], true);
    for part in ["call-abc", "ApprovalRequired", "k-1", "Nothing has run"] {
        assert!(text(&result).contains(part), "{part}: {}", text(&result));
    }
    assert_eq!(result["_meta"]["polity.dev/call"]["approval"], "call-abc");
    let name = result["_meta"]["polity.dev/call"]["call"].as_str().unwrap().to_owned();
    // Another replica, after a reconnect: still waiting, then running to its end.
    let other = Edge::start_with("polity-edge-2", edge.api.clone(), edge.ledger.clone()).await;
    assert!(text(&call(&other, BEFORE, asked.clone()).await).contains("call-abc"));
    let set = |phase: &str| {
        let mut object = edge.api.get("toolcalls", &name).unwrap();
        object["status"] = status(phase);
        edge.api.put("toolcalls", object);
    };
    set("Running");
    let (result, ()) = tokio::join!(call(&other, NOW, asked.clone()), async {
        let come = || Some(edge.api.writes().len()).filter(|n| *n == 3).ok_or_else(|| "the call has not come yet".to_owned());
        until("the call is under way", come).await;
        set("Succeeded");
    });
    assert_eq!((&result["isError"], &result["structuredContent"]), (&json!(false), &json!({"paid": 400})), "{result}");
    assert_eq!(edge.api.writes(), ["POST toolcalls"; 3], "one object, found again twice");
    assert_eq!(edge.sent() + other.sent(), 0);
}

#[tokio::test]
async fn a_key_runs_once() {
    let edge = Edge::start().await;
    let asked = json!({"name": "pay", "arguments": {"amount": 5}, "_meta": {"polity.dev/idempotencyKey": "order-1"}});
    let first = call(&edge, NOW, asked.clone()).await;
    let second = call(&edge, BEFORE, asked).await;
    assert_eq!(first["structuredContent"], second["structuredContent"]);
    assert_eq!(first["_meta"]["polity.dev/call"]["id"], second["_meta"]["polity.dev/call"]["id"]);
    let other =
        call(&edge, NOW, json!({"name": "pay", "arguments": {"amount": 6}, "_meta": {"polity.dev/idempotencyKey": "order-1"}})).await;
    assert!(text(&other).contains("IdempotencyKeyReused"), "{other}");
    let misspelt = ask(&edge, NOW, "tools/call", json!({"name": "pay", "_meta": {"polity.dev/idempotencykey": "x"}})).await;
    assert!(misspelt["error"]["message"].as_str().unwrap().contains("idempotencykey"), "{misspelt}");
    assert_eq!(edge.sent(), 1);
}

#[tokio::test]
async fn with_core_away_nothing_runs_and_the_agent_is_told() {
    let edge = Edge::start().await;
    edge.ledger.away(true);
    let result = call(&edge, NOW, json!({"name": "pay", "arguments": {"amount": 1}})).await;
    assert!(result["isError"] == true && text(&result).contains("LedgerUnavailable"), "{result}");
    assert_eq!(edge.sent(), 0);
}

#[tokio::test]
async fn progress_is_told_to_who_asks_for_it() {
    for version in [BEFORE, NOW] {
        let edge = Edge::start().await;
        let message = message(version, "tools/call", json!({"name": "slow", "arguments": {}, "_meta": {"progressToken": "p"}}));
        let sent = request(&headers(version, &message, "payer-token"), message.to_string());
        let response = polity_gateway::router(edge.gateway.clone()).oneshot(sent).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut stream = response.into_body().into_data_stream();
        let (mut heard, mut released) = (String::new(), false);
        while let Some(chunk) = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.unwrap() {
            heard += std::str::from_utf8(&chunk.unwrap()).unwrap();
            if heard.contains("notifications/progress") && !released {
                released = true;
                edge.upstream.go.notify_one();
            }
        }
        let data: Vec<Value> =
            heard.lines().filter_map(|l| l.strip_prefix("data:")).filter_map(|d| serde_json::from_str(d.trim()).ok()).collect();
        assert_eq!((&data[0]["params"]["progressToken"], &data[0]["method"]), (&json!("p"), &json!("notifications/progress")), "{heard}");
        assert_eq!(data.last().unwrap()["result"]["content"][0]["text"], "late", "{heard}");
    }
}

async fn resource(edge: &Edge, token: &str, version: &str, uri: &str) -> Result<Value, Value> {
    let answer = ask_as(edge, token, version, "resources/read", json!({"uri": uri})).await;
    let Some(content) = answer["result"]["contents"][0].as_object() else { return Err(answer["error"].clone()) };
    assert_eq!((&content["uri"], &content["mimeType"]), (&json!(uri), &json!("application/json")));
    if version == NOW {
        assert_eq!(answer["result"]["cacheScope"], "private", "{answer}");
    }
    Ok(serde_json::from_str(content["text"].as_str().unwrap()).unwrap())
}

#[tokio::test]
async fn resources_are_the_callers_own_calls_and_what_they_wait_for() {
    let edge = Edge::start().await;
    edge.api.answer_create(json!({"phase": "WaitingApproval", "approval": "call-abc", "conditions": []}));
    let waits = call(&edge, NOW, json!({"name": "pay", "arguments": {"amount": 400}})).await;
    let waits = &waits["_meta"]["polity.dev/call"];
    let ran = call(&edge, NOW, json!({"name": "pay", "arguments": {"amount": 5}})).await;
    let ran = ran["_meta"]["polity.dev/call"]["id"].as_str().unwrap().to_owned();
    for (name, requester) in [("call-abc", waits), ("call-other", &json!({}))].map(|(name, own)| {
        let username = if own["id"].is_string() { edge.ledger.begins()[0].subject.actor.username.clone() } else { "somebody".to_owned() };
        (name, json!({"username": username}))
    }) {
        edge.api.put(
            "approvals",
            json!({
                "apiVersion": "polity.dev/v1alpha1", "kind": "Approval", "metadata": {"name": name, "namespace": "acme", "uid": name},
                "spec": {
                    "action": {"verb": "tool.call", "call": "c", "callUid": "u", "target": {"kind": "Tool", "namespace": "acme", "name": "pay", "digest": ""}},
                    "input": {"amount": 400}, "digest": {"digest": "d", "keyId": "k"}, "requester": requester, "expiresAt": "2030-01-01T00:00:00Z",
                    "requirements": [{"rule": "acme/limits/small", "role": {"org": "acme", "name": "boss"}, "count": 1, "humansOnly": true, "message": "over 50"}],
                },
                "status": {"phase": "Pending", "requirements": [{"rule": "acme/limits/small", "approvedBy": [], "met": false}]},
            }),
        );
    }
    for version in [BEFORE, NOW] {
        let listed = ask(&edge, version, "resources/list", json!({})).await;
        let uris: Vec<&str> = listed["result"]["resources"].as_array().unwrap().iter().map(|r| r["uri"].as_str().unwrap()).collect();
        assert_eq!(uris, ["polity://acme/calls", "polity://acme/approvals"]);
        let templates = ask(&edge, version, "resources/templates/list", json!({})).await;
        assert_eq!(templates["result"]["resourceTemplates"][0]["uriTemplate"], "polity://acme/calls/{id}");

        let own = crate::harness::until_async("the call is in the list", || async {
            let told = resource(&edge, "payer-token", version, "polity://acme/calls").await.unwrap();
            if told["calls"].as_array().unwrap().len() == 1 { Ok(told["calls"][0].clone()) } else { Err(told.to_string()) }
        })
        .await;
        assert_eq!((&own["tool"], &own["phase"], &own["call"]), (&json!("pay"), &json!("WaitingApproval"), &waits["call"]), "{own}");
        let approvals = crate::harness::until_async("the Approval is in the list", || async {
            let told = resource(&edge, "payer-token", version, "polity://acme/approvals").await.unwrap();
            if told["approvals"].as_array().unwrap().is_empty() { Err(told.to_string()) } else { Ok(told) }
        })
        .await;
        assert_eq!(approvals["approvals"].as_array().unwrap().len(), 1, "another's is not shown: {approvals}");
        assert_eq!(
            approvals["approvals"][0]["requirements"],
            json!([{"rule": "acme/limits/small", "asks": "people who are holders of Role boss of Org acme", "message": "over 50", "met": false}])
        );
        let one = resource(&edge, "payer-token", version, &format!("polity://acme/calls/{ran}")).await.unwrap();
        assert_eq!((&one["phase"], &one["result"]["output"]), (&json!("Succeeded"), &json!({"paid": {"amount": 5}})));
        let one =
            resource(&edge, "payer-token", version, &format!("polity://acme/calls/{}", waits["call"].as_str().unwrap())).await.unwrap();
        assert_eq!(one["phase"], "WaitingApproval");

        // Another's are as if they were not there.
        let code = if version == NOW { -32602 } else { -32002 };
        for (token, uri) in [
            ("clerk-token", format!("polity://acme/calls/{ran}")),
            ("clerk-token", format!("polity://acme/calls/{}", waits["call"].as_str().unwrap())),
            ("payer-token", "polity://acme/calls/nope".to_owned()),
            ("payer-token", "polity://other/calls".to_owned()),
            ("payer-token", "file:///etc/passwd".to_owned()),
        ] {
            let error = resource(&edge, token, version, &uri).await.unwrap_err();
            assert_eq!(error["code"], code, "{uri}: {error}");
        }
        assert_eq!(resource(&edge, "clerk-token", version, "polity://acme/calls").await.unwrap()["calls"], json!([]));
        for method in ["resources/list", "resources/templates/list"] {
            let stranger = ask_as(&edge, "stranger-token", version, method, json!({})).await;
            assert_eq!(stranger["error"]["data"]["reason"], "UnknownCaller", "{stranger}");
            assert_eq!(ask(&edge, version, method, json!({"cursor": "x"})).await["error"]["code"], -32602);
        }
        assert_eq!(resource(&edge, "stranger-token", version, "polity://acme/calls").await.unwrap_err()["data"]["reason"], "UnknownCaller");
        assert_eq!(ask(&edge, version, "prompts/list", json!({})).await["result"]["prompts"], json!([]), "none are offered");
        assert_eq!(ask(&edge, version, "prompts/get", json!({"name": "x"})).await["error"]["code"], -32601);
    }
}

#[tokio::test]
async fn what_is_no_proper_request_is_refused_before_anything_is_read_of_it() {
    let edge = Edge::start().await;
    let list = message(BEFORE, "tools/list", json!({}));
    let good = headers(BEFORE, &list, "payer-token");
    let with = |name: &'static str, value: Option<&str>| -> Vec<(&'static str, String)> {
        let mut headers: Vec<_> = good.iter().filter(|(n, _)| *n != name).cloned().collect();
        headers.extend(value.map(|v| (name, v.to_owned())));
        headers
    };
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"pay","arguments":{}{}}}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let large = json!({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": "x".repeat(1 << 20)}}).to_string();
    for (headers, body, expected) in [
        (with("authorization", None), list.to_string(), 401),
        (with("authorization", Some("Bearer nonsense")), list.to_string(), 401),
        (with("host", Some("evil.example")), list.to_string(), 403),
        (with("host", Some("polity-edge.evil.example")), list.to_string(), 403),
        (with("origin", Some("https://evil.example")), list.to_string(), 403),
        (with("origin", Some("null")), list.to_string(), 403),
        (with("accept", Some("application/json")), list.to_string(), 406),
        (with("accept", None), list.to_string(), 406),
        (with("content-type", Some("text/plain")), list.to_string(), 415),
        (with("mcp-protocol-version", Some("1999-01-01")), list.to_string(), 400),
        (good.clone(), deep, 400),
        (good.clone(), large, 413),
    ] {
        let (status, _, text) = send(&edge, request(&headers, body)).await;
        assert_eq!(status.as_u16(), expected, "{headers:?} {text}");
    }
    for bad in ["{", "[]", "1", r#"{"jsonrpc":"2.0"}"#, r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#] {
        let (status, _, text) = send(&edge, request(&good, bad.to_owned())).await;
        assert!(status.is_client_error(), "{bad}: {status} {text}");
    }
    for (host, expected) in [("polity-edge:8443", 200), ("[::1]:8443", 200), ("POLITY-EDGE", 200)] {
        let (status, _, text) = send(&edge, request(&with("host", Some(host)), list.to_string())).await;
        assert_eq!(status.as_u16(), expected, "{host} {text}");
    }
    for method in ["GET", "DELETE"] {
        let mut request = request(&good, Body::empty());
        *request.method_mut() = method.parse().unwrap();
        assert_eq!(send(&edge, request).await.0.as_u16(), 405, "{method}: nothing is kept of a session");
    }
    assert!(edge.sent() == 0 && edge.ledger.begins().is_empty());
}

#[tokio::test]
async fn what_was_answered_is_counted() {
    let edge = Edge::start().await;
    call(&edge, NOW, json!({"name": "pay", "arguments": {"amount": 1}})).await;
    call(&edge, NOW, json!({"name": "pay", "arguments": {"amount": 9000}})).await;
    edge.call(json!({"tool": "pay", "input": {"amount": 9000}})).await;
    edge.ask("POST", "/v1/orgs/acme/evaluate", "payer-token", Some(json!({"tool": "pay", "input": {"amount": 100}}))).await;
    edge.ask("GET", "/nowhere", "payer-token", None).await;
    let metrics = edge.metrics();
    for line in [
        r#"polity_gateway_calls_total{door="mcp",reason="",verdict="Allow"} 1"#,
        r#"polity_gateway_calls_total{door="mcp",reason="PolicyDenied",verdict="Deny"} 1"#,
        r#"polity_gateway_calls_total{door="calls",reason="PolicyDenied",verdict="Deny"} 1"#,
        r#"polity_gateway_calls_total{door="evaluate",reason="ApprovalRequired",verdict="RequireApproval"} 1"#,
        r#"polity_gateway_requests_total{route="/v1/orgs/{org}/mcp",status="200"} 2"#,
        r#"polity_gateway_requests_total{route="/v1/orgs/{org}/calls",status="403"} 1"#,
        r#"polity_gateway_requests_total{route="none",status="404"} 1"#,
        r#"polity_gateway_request_duration_seconds_count{route="/v1/orgs/{org}/mcp"} 2"#,
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} in {metrics}");
    }
}

//! What an agent asks and is told.

use std::{sync::Arc, time::Duration};

use polity_ledger::{Outcome, Refused};
use serde_json::{Value, json};

use crate::{
    api::Api,
    harness::{Edge, until},
    ledger::{Ledger, unavailable},
};

#[tokio::test]
async fn an_allowed_call_is_begun_run_settled_and_answered() {
    let edge = Edge::start().await;
    let (status, answer) = edge.call(json!({"tool": "pay", "input": {"amount": 20}})).await;
    assert_eq!(status.as_u16(), 200, "{answer}");
    assert_eq!(answer["phase"], "Succeeded");
    assert_eq!(answer["result"]["output"], json!({"paid": {"amount": 20}}));
    assert_eq!(answer["result"]["code"], 200);
    assert_eq!(answer["result"]["digest"]["keyId"], "k1");
    assert_eq!((&answer["decision"]["verdict"], &answer["decision"]["record"]), (&json!("Allow"), &json!(1)));
    assert_eq!(edge.ledger.log(), ["begin pay", "settle Done  used=1"]);
    let begin = &edge.ledger.begins()[0];
    assert_eq!(begin.subject.actor.agent, "acme/payer");
    assert_eq!(begin.subject.actor.pod_uid.as_deref(), Some("uid-payer-1"));
    assert_eq!((begin.reserve["calls"], begin.reserve["microUSD"]), (1, 500_000));
    assert!(begin.charges.is_empty() && begin.executor.starts_with("polity-edge-1."), "{begin:?}");
    assert!(begin.subject.trace.starts_with("00-"));
    assert!(edge.api.writes().is_empty(), "no object");
    let id = answer["id"].as_str().unwrap();
    let (status, read) = edge.ask("GET", &format!("/v1/orgs/acme/calls/{id}"), "payer-token", None).await;
    assert_eq!((status.as_u16(), &read["phase"], &read["result"]["output"]), (200, &json!("Succeeded"), &answer["result"]["output"]));
    let (status, problem) = edge.ask("GET", &format!("/v1/orgs/acme/calls/{id}"), "clerk-token", None).await;
    assert_eq!((status.as_u16(), &problem["reason"]), (404, &json!("NotFound")));
}

#[tokio::test]
async fn a_denial_names_rule_reason_and_hint_and_is_recorded() {
    let edge = Edge::start().await;
    let (status, problem) = edge.call(json!({"tool": "pay", "input": {"amount": 9000}})).await;
    assert_eq!(status.as_u16(), 403);
    assert_eq!(problem["reason"], "PolicyDenied");
    assert_eq!(problem["rules"], json!(["acme/limits/hard"]));
    assert_eq!(problem["hint"], "ask for at most 500");
    assert!(problem["message"].as_str().unwrap().contains("never over 500"), "{problem}");
    let note = &edge.ledger.notes()[0];
    assert_eq!((note.kind.as_str(), note.reason.as_str()), ("decision", "PolicyDenied"));
    assert_eq!(note.subject.as_ref().unwrap().id, problem["id"].as_str().unwrap());
    assert_eq!(edge.sent(), 0);
}

#[tokio::test]
async fn with_core_away_a_denial_is_still_one_and_nothing_runs() {
    let edge = Edge::start().await;
    edge.ledger.away(true);
    let (status, _) = edge.call(json!({"tool": "pay", "input": {"amount": 9000}})).await;
    assert_eq!(status.as_u16(), 403);
    let (status, headers, problem) =
        edge.full("POST", "/v1/orgs/acme/calls", "payer-token", json!({"tool": "pay", "input": {"amount": 1}}).to_string()).await;
    assert_eq!((status.as_u16(), &problem["reason"]), (503, &json!("LedgerUnavailable")));
    assert!(headers.contains_key("retry-after"));
    assert_eq!(edge.sent(), 0);
}

#[tokio::test]
async fn who_is_nobody_gets_nothing() {
    let edge = Edge::start().await;
    let body = json!({"tool": "pay", "input": {"amount": 1}});
    let (status, headers, problem) = edge.full("POST", "/v1/orgs/acme/calls", "nonsense", body.to_string()).await;
    assert_eq!((status.as_u16(), &problem["reason"]), (401, &json!("Unauthenticated")));
    assert!(headers.contains_key("www-authenticate"));
    let (status, problem) = edge.ask("POST", "/v1/orgs/acme/calls", "stranger-token", Some(body.clone())).await;
    assert_eq!((status.as_u16(), &problem["reason"]), (403, &json!("UnknownCaller")));
    let (status, problem) = edge.ask("POST", "/v1/orgs/acme/calls", "clerk-token", Some(body.clone())).await;
    assert_eq!((status.as_u16(), &problem["reason"]), (403, &json!("NotGranted")));
    let (status, _) = edge.ask("POST", "/v1/orgs/nowhere/calls", "payer-token", Some(body.clone())).await;
    assert_eq!(status.as_u16(), 503);
    edge.api.deaf();
    let (status, problem) = edge.ask("POST", "/v1/orgs/acme/calls", "another-token", Some(body)).await;
    assert_eq!((status.as_u16(), &problem["reason"]), (503, &json!("Unavailable")));
    assert_eq!(edge.sent(), 0);
}

#[tokio::test]
async fn bad_requests_say_what_is_wrong_in_one_shape() {
    let edge = Edge::start().await;
    let deep = format!(r#"{{"tool":"pay","input":{{"note":{}{}}}}}"#, "[".repeat(100), "]".repeat(100));
    let cases: Vec<(String, u16, &str)> = vec![
        (r#"{"tool":"pay","imput":{}}"#.into(), 400, "imput"),
        ("{".into(), 400, "cannot be read"),
        (r#"{"tool":"pay","input":[]}"#.into(), 400, "cannot be read"),
        (deep, 400, "nested"),
        (json!({"tool": "pay", "input": {"note": "x".repeat(1 << 20)}}).to_string(), 413, "more than"),
        (json!({"tool": "pay", "input": {"amount": 1, "note": "x".repeat(40_000)}}).to_string(), 413, "at most 32768"),
        (json!({"tool": "pay", "input": {"amount": "much"}}).to_string(), 403, "amount"),
        (json!({"tool": "pay", "waitSeconds": 9999}).to_string(), 400, "waitSeconds"),
        (json!({"tool": "none"}).to_string(), 403, "none"),
        (json!({"tool": "pay", "input": {"amount": 1}, "taskRef": "t"}).to_string(), 403, "no Task t"),
    ];
    for (body, expected, text) in cases {
        let start: String = body.chars().take(60).collect();
        let (status, _, problem) = edge.full("POST", "/v1/orgs/acme/calls", "payer-token", body).await;
        assert_eq!(status.as_u16(), expected, "{start} {problem}");
        assert!(problem["reason"].is_string() && problem["message"].as_str().unwrap().contains(text), "{start} {problem}");
    }
    for (method, path, expected) in
        [("GET", "/v1/orgs/acme/calls", 405), ("GET", "/nowhere", 404), ("GET", "/v1/orgs/acme/calls/a?b=1", 400)]
    {
        let (status, problem) = edge.ask(method, path, "payer-token", None).await;
        assert_eq!(status.as_u16(), expected, "{path}");
        assert!(problem["reason"].is_string(), "{path} {problem}");
    }
    assert_eq!(edge.sent(), 0);
    assert!(edge.ledger.begins().is_empty());
}

#[tokio::test]
async fn a_view_that_moved_is_decided_again_three_times_at_most() {
    let edge = Edge::start().await;
    let stale = || Refused::StaleSnapshot { digest: "old".into() };
    edge.ledger.refuse_begin([stale(), Refused::Contended]);
    assert_eq!(edge.call(json!({"tool": "pay", "input": {"amount": 1}})).await.0.as_u16(), 200);
    edge.ledger.refuse_begin([stale(), stale(), stale()]);
    let (status, problem) = edge.call(json!({"tool": "pay", "input": {"amount": 1}})).await;
    assert_eq!((status.as_u16(), &problem["reason"]), (503, &json!("StaleSnapshot")));
    assert_eq!(edge.sent(), 1);
}

#[tokio::test]
async fn a_budget_that_is_spent_is_a_recorded_denial() {
    let edge = Edge::start().await;
    edge.ledger.refuse_begin([Refused::BudgetExceeded { owner: "Org acme".into(), unit: "calls".into(), limit: 5, used: 5, asked: 1 }]);
    let (status, problem) = edge.call(json!({"tool": "pay", "input": {"amount": 1}})).await;
    assert_eq!((status.as_u16(), &problem["reason"]), (403, &json!("BudgetExceeded")));
    assert_eq!(edge.ledger.log(), ["note decision BudgetExceeded"]);
    assert_eq!(edge.sent(), 0);
}

#[tokio::test]
async fn a_lost_answer_to_begin_does_not_run_twice_or_get_lost() {
    let edge = Edge::start().await;
    edge.ledger.lose_begin(1);
    assert_eq!(edge.call(json!({"tool": "pay", "input": {"amount": 1}})).await.0.as_u16(), 200);
    assert_eq!((edge.sent(), edge.ledger.begins().len()), (1, 1));
    // Committed, and never answered: it is taken back, since nothing ran and nothing will.
    edge.ledger.lose_begin(100);
    let (status, problem) = edge.call(json!({"tool": "pay", "input": {"amount": 2}})).await;
    assert_eq!((status.as_u16(), &problem["reason"]), (503, &json!("LedgerUnavailable")));
    until("it is taken back", || {
        let log = edge.ledger.log();
        if log.last().is_some_and(|l| l == "settle NotDone LedgerUnavailable used=0") { Ok(()) } else { Err(format!("{log:?}")) }
    })
    .await;
    assert_eq!((edge.sent(), edge.ledger.begins().len()), (1, 2));
}

#[tokio::test]
async fn a_settlement_is_tried_until_core_takes_it() {
    let edge = Edge::start().await;
    edge.ledger.refuse_settle([unavailable(), unavailable()]);
    let (status, answer) = edge.call(json!({"tool": "pay", "input": {"amount": 1}})).await;
    assert_eq!((status.as_u16(), &answer["phase"]), (200, &json!("Succeeded")));
    assert_eq!(edge.sent(), 1);
}

#[tokio::test]
async fn a_failed_tool_is_an_answer_with_its_reason() {
    let edge = Edge::start().await;
    let (status, answer) = edge.call(json!({"tool": "broken", "input": {}})).await;
    assert_eq!((status.as_u16(), &answer["phase"], &answer["reason"]), (200, &json!("Failed"), &json!("ToolFailed")));
    assert_eq!(answer["result"]["code"], 500);
    assert_eq!(edge.ledger.log(), ["begin broken", "settle Done ToolFailed used=1"]);
}

/// A slow endpoint has so many calls under way and no more; others do not notice.
#[tokio::test]
async fn a_slow_endpoint_takes_no_room_of_others() {
    let edge = Edge::start().await;
    let slow = || edge.call(json!({"tool": "slow", "input": {}, "waitSeconds": 0}));
    for (status, answer) in futures::future::join_all((0..polity_gateway::http_tool::room::AT_ONCE).map(|_| slow())).await {
        assert_eq!((status.as_u16(), &answer["phase"]), (202, &json!("Running")), "{answer}");
    }
    let begun = edge.ledger.begun();
    // The idempotent Tool has the same endpoint.
    for tool in ["slow", "again"] {
        let (status, denied) = edge.call(json!({"tool": tool, "input": {}, "waitSeconds": 0})).await;
        assert_eq!((status.as_u16(), &denied["reason"]), (403, &json!("UpstreamUnavailable")), "{denied}");
    }
    assert_eq!((edge.ledger.begun(), edge.ledger.notes().len()), (begun, 2), "nothing has begun, and that is recorded");
    let (status, answer) = edge.call(json!({"tool": "pay", "input": {"amount": 5}})).await;
    assert_eq!((status.as_u16(), &answer["phase"]), (200, &json!("Succeeded")), "{answer}");
    until("every call has come", || {
        if edge.sent() > polity_gateway::http_tool::room::AT_ONCE { Ok(()) } else { Err(edge.sent().to_string()) }
    })
    .await;
    // One that ends makes room for another.
    edge.upstream.go.notify_one();
    crate::harness::until_async("there is room", || async {
        let (status, answer) = slow().await;
        if status == 202 { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
}

/// Whichever replica is asked, whoever runs it.
#[tokio::test]
async fn a_running_call_is_stopped_for_its_caller() {
    for (tool, phase, away) in
        [("slow", "Unknown", false), ("slow", "Unknown", true), ("again", "Canceled", true), ("box", "Canceled", false)]
    {
        let edge = Edge::start().await;
        let other = Edge::start_with("polity-edge-2", edge.api.clone(), edge.ledger.clone()).await;
        let (status, answer) = edge.call(json!({"tool": tool, "input": {}, "waitSeconds": 0})).await;
        assert_eq!((status.as_u16(), &answer["phase"]), (202, &json!("Running")), "{tool}");
        let path = format!("/v1/orgs/acme/calls/{}", answer["id"].as_str().unwrap());
        let (status, _) = other.ask("POST", &format!("{path}/cancel"), "clerk-token", None).await;
        assert_eq!(status, 404, "a stranger's word counts for nothing");
        let asked = if away { &other } else { &edge };
        let (status, told) = asked.ask("POST", &format!("{path}/cancel"), "payer-token", None).await;
        assert_eq!((status.as_u16(), &told["phase"], &told["reason"]), (200, &json!(phase), &json!("Canceled")), "{tool}: {told}");
        // The same again is told the same.
        let (status, again) = asked.ask("POST", &format!("{path}/cancel"), "payer-token", None).await;
        assert_eq!((status.as_u16(), &again["phase"]), (200, &json!(phase)));
    }
}

#[tokio::test]
async fn a_call_outlives_its_callers_patience_and_connection() {
    let edge = Edge::start().await;
    let (status, answer) = edge.call(json!({"tool": "slow", "input": {}, "waitSeconds": 0})).await;
    assert_eq!((status.as_u16(), &answer["phase"], &answer["decision"]["verdict"]), (202, &json!("Running"), &json!("Allow")));
    let path = format!("/v1/orgs/acme/calls/{}", answer["id"].as_str().unwrap());
    let (status, read) = edge.ask("GET", &format!("{path}?waitSeconds=0"), "payer-token", None).await;
    assert_eq!((status.as_u16(), &read["phase"]), (202, &json!("Running")));
    let patient = format!("{path}?waitSeconds=20");
    let waiting = edge.ask("GET", &patient, "payer-token", None);
    let release = async {
        until("the request is sent", || (edge.sent() == 1).then_some(()).ok_or_else(|| "not sent".into())).await;
        edge.upstream.go.notify_one();
    };
    let ((status, read), ()) = tokio::join!(waiting, release);
    assert_eq!((status.as_u16(), &read["phase"], &read["result"]["output"]), (200, &json!("Succeeded"), &json!("late")));
    // A caller that hangs up.
    let hung_up =
        tokio::time::timeout(Duration::from_millis(1), edge.call(json!({"tool": "slow", "input": {}, "idempotencyKey": "k"}))).await;
    if hung_up.is_err() && edge.ledger.begins().len() == 2 {
        edge.upstream.go.notify_one();
    } else {
        let (status, _) = edge.call(json!({"tool": "slow", "input": {}, "idempotencyKey": "k", "waitSeconds": 0})).await;
        assert_eq!(status.as_u16(), 202);
        edge.upstream.go.notify_one();
    }
    until("the second call is settled", || {
        let settled = edge.ledger.log().iter().filter(|l| l.starts_with("settle Done")).count();
        (settled == 2).then_some(()).ok_or_else(|| format!("{:?}", edge.ledger.log()))
    })
    .await;
}

#[tokio::test]
async fn a_key_runs_once_and_stands_for_one_request() {
    let edge = Edge::start().await;
    let body = json!({"tool": "pay", "input": {"amount": 5}, "idempotencyKey": "order-1"});
    let (_, first) = edge.call(body.clone()).await;
    let (status, second) = edge.call(body).await;
    assert_eq!((status.as_u16(), &second["id"], &second["result"]["output"]), (200, &first["id"], &first["result"]["output"]));
    let (status, problem) = edge.call(json!({"tool": "pay", "input": {"amount": 6}, "idempotencyKey": "order-1"})).await;
    assert_eq!((status.as_u16(), &problem["reason"]), (409, &json!("IdempotencyKeyReused")));
    assert_eq!(edge.sent(), 1);
}

#[tokio::test]
async fn a_container_runs_in_cores_care_and_is_waited_for() {
    let edge = Edge::start().await;
    let ledger = edge.ledger.clone();
    let ends = async {
        let id =
            until("core is told to run", || ledger.begins().first().map(|b| b.subject.id.clone()).ok_or_else(|| "not told".into())).await;
        ledger.end(&id, Outcome::Done, "", Some(json!({"rows": 3})));
    };
    let ((status, answer), ()) = tokio::join!(edge.call(json!({"tool": "box", "input": {}})), ends);
    assert_eq!((status.as_u16(), &answer["phase"], &answer["result"]["output"]), (200, &json!("Succeeded"), &json!({"rows": 3})));
    assert_eq!(edge.ledger.log(), ["begin box", "run box 30s"]);
    let (status, answer) = edge.call(json!({"tool": "box", "input": {}, "waitSeconds": 0})).await;
    assert_eq!((status.as_u16(), &answer["phase"]), (202, &json!("Running")));
    edge.ledger.refuse_begin([Refused::NoPodRuntime]);
    let (status, problem) = edge.call(json!({"tool": "box", "input": {}})).await;
    assert_eq!((status.as_u16(), &problem["reason"]), (403, &json!("NoPodRuntime")));
}

fn waiting() -> Value {
    json!({"phase": "WaitingApproval", "approval": "call-abc", "conditions": [{"type": "Succeeded", "status": "Unknown", "reason": "ApprovalRequired", "message": "waits", "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
}

#[tokio::test]
async fn a_call_that_people_must_allow_becomes_an_object() {
    let edge = Edge::start().await;
    edge.api.answer_create(waiting());
    let body = json!({"tool": "pay", "input": {"amount": 400}, "context": "c", "idempotencyKey": "k", "waitSeconds": 0});
    let (status, answer) = edge.call(body.clone()).await;
    assert_eq!((status.as_u16(), &answer["phase"], &answer["approval"]), (202, &json!("WaitingApproval"), &json!("call-abc")), "{answer}");
    let name = answer["call"].as_str().unwrap();
    let stored = edge.api.get("toolcalls", name).unwrap();
    assert_eq!(stored["spec"]["caller"]["username"], "system:serviceaccount:acme:polity-agent-payer");
    assert_eq!(stored["spec"]["caller"]["via"], "system:serviceaccount:polity-system:polity-edge");
    assert_eq!(stored["spec"]["caller"]["podUid"], "uid-payer-1");
    assert_eq!(
        (&stored["spec"]["input"], &stored["spec"]["context"], &stored["spec"]["idempotencyKey"]),
        (&json!({"amount": 400}), &json!("c"), &json!("k"))
    );
    assert!(stored["spec"]["trace"]["traceparent"].as_str().unwrap().starts_with("00-"));
    // The same again is the same call; another under the key is refused.
    let (_, again) = edge.call(body).await;
    assert_eq!(again["id"], answer["id"]);
    let (status, problem) = edge.call(json!({"tool": "pay", "input": {"amount": 300}, "idempotencyKey": "k"})).await;
    assert_eq!((status.as_u16(), &problem["reason"]), (409, &json!("IdempotencyKeyReused")));
    assert!(edge.ledger.begins().is_empty());
    // Asked for by uid and by name, by its caller only.
    let id = answer["id"].as_str().unwrap();
    for path in [id, name] {
        let (status, read) = edge.ask("GET", &format!("/v1/orgs/acme/calls/{path}?waitSeconds=0"), "payer-token", None).await;
        assert_eq!((status.as_u16(), &read["approval"]), (202, &json!("call-abc")), "{path} {read}");
        let (status, _) = edge.ask("GET", &format!("/v1/orgs/acme/calls/{path}"), "clerk-token", None).await;
        assert_eq!(status.as_u16(), 404);
        let (status, _) = edge.ask("POST", &format!("/v1/orgs/acme/calls/{path}/cancel"), "clerk-token", None).await;
        assert_eq!(status.as_u16(), 404);
    }
    // Its end is waited for.
    let end = async {
        let mut done = edge.api.get("toolcalls", name).unwrap();
        done["status"]["phase"] = json!("Succeeded");
        done["status"]["result"] = json!({"output": {"ok": true}});
        edge.api.put("toolcalls", done);
    };
    let path = format!("/v1/orgs/acme/calls/{id}?waitSeconds=20");
    let ((status, read), ()) = tokio::join!(edge.ask("GET", &path, "payer-token", None), end);
    assert_eq!((status.as_u16(), &read["phase"], &read["result"]["output"]), (200, &json!("Succeeded"), &json!({"ok": true})));
}

#[tokio::test]
async fn a_waiting_call_can_be_canceled_by_its_caller() {
    let edge = Edge::start().await;
    edge.api.answer_create(waiting());
    let (_, answer) = edge.call(json!({"tool": "pay", "input": {"amount": 400}, "waitSeconds": 0})).await;
    let (status, _) =
        edge.ask("POST", &format!("/v1/orgs/acme/calls/{}/cancel", answer["id"].as_str().unwrap()), "payer-token", None).await;
    assert_eq!(status.as_u16(), 202);
    assert_eq!(edge.api.get("toolcalls", answer["call"].as_str().unwrap()).unwrap()["spec"]["cancel"], true);
}

#[tokio::test]
async fn what_admission_or_core_refuse_is_told_with_their_reason() {
    let edge = Edge::start().await;
    edge.api.answer_create(json!({"phase": "Denied", "conditions": [{"type": "Succeeded", "status": "False", "reason": "BudgetExceeded", "message": "spent", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}));
    let (status, problem) = edge.call(json!({"tool": "pay", "input": {"amount": 400}})).await;
    assert_eq!((status.as_u16(), &problem["reason"], &problem["message"]), (403, &json!("BudgetExceeded"), &json!("spent")));
    let causes = json!([{"reason": "PolicyDenied", "field": "a/b/c", "message": "m"}, {"reason": "Hint", "message": "less"}]);
    edge.api.refuse_create(json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "reason": "Forbidden", "message": "denied by webhook", "details": {"causes": causes}}));
    let (status, problem) = edge.call(json!({"tool": "pay", "input": {"amount": 400}})).await;
    assert_eq!((status.as_u16(), &problem["reason"], &problem["hint"]), (403, &json!("PolicyDenied"), &json!("less")));
}

#[tokio::test]
async fn an_old_view_decides_nothing() {
    let (api, ledger) = (Api::new(), Arc::<Ledger>::default());
    let edge = Edge::start_with("polity-edge-1", api.clone(), ledger.clone()).await;
    let cancel = polity_runtime::CancellationToken::new();
    let settings = polity_gateway::Settings {
        oidc: Vec::new(),
        streams: polity_gateway::StreamLimits::default(),
        replica: "r".into(),
        system_namespace: "polity-system".into(),
        names: Vec::new(),
        metrics: polity_gateway::Metrics::new(&prometheus::Registry::new()).unwrap(),
    };
    let http = polity_gateway::Gateway::http_tools(api.client(), Arc::default());
    let cache = polity_runtime::cache::Cache::start(api.client(), &cancel);
    let unsynced = polity_gateway::Gateway::new(
        &settings,
        api.client(),
        cache,
        ledger.clone(),
        http,
        Arc::new(polity_runtime::clock::SystemClock),
        &cancel,
    );
    let stale = Edge {
        api: api.clone(),
        ledger: ledger.clone(),
        upstream: edge.upstream.clone(),
        gateway: unsynced,
        cancel,
        registry: prometheus::Registry::new(),
    };
    let (status, headers, problem) =
        stale.full("POST", "/v1/orgs/acme/calls", "payer-token", json!({"tool": "pay", "input": {"amount": 1}}).to_string()).await;
    assert_eq!((status.as_u16(), &problem["reason"]), (503, &json!("PolicyStale")));
    assert!(headers.contains_key("retry-after") && ledger.begins().is_empty());
}

#[tokio::test]
async fn the_document_is_served_to_anybody() {
    let edge = Edge::start().await;
    let (status, document) = edge.ask("GET", "/openapi.json", "nonsense", None).await;
    assert_eq!((status.as_u16(), &document["openapi"]), (200, &json!("3.1.0")));
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys().filter(|k| *k != "parameters") {
            let path = path.replace("{org}", "acme").replace("{id}", "a");
            let (status, _) = edge.ask(&method.to_uppercase(), &path, "nonsense", None).await;
            let expected = if path == "/openapi.json" { 200 } else { 401 };
            assert_eq!(status.as_u16(), expected, "{method} {path}");
        }
    }
}

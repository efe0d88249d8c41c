//! What a client does not want any more: by leaving, and by a notice of its session.

use super::*;

/// Closing the stream cancels since 2026-07-28; before, the call only lost its listener.
#[tokio::test]
async fn a_client_that_leaves_cancels_what_can_be_canceled() {
    for (version, tool, ended) in [
        (NOW, "slow", "settle Unknown Canceled used=1"),
        (NOW, "again", "settle NotDone Canceled used=0"),
        (BEFORE, "slow", "settle Done  used=1"),
    ] {
        let edge = Edge::start().await;
        let message = message(version, "tools/call", json!({"name": tool, "arguments": {}}));
        let sent = request(&headers(version, &message, "payer-token"), message.to_string());
        let answer = tokio::spawn(polity_gateway::router(edge.gateway.clone()).oneshot(sent));
        until("it runs", || (edge.sent() == 1).then_some(()).ok_or_else(|| "not sent".into())).await;
        answer.abort();
        assert!(answer.await.is_err());
        if version == BEFORE {
            edge.upstream.go.notify_one();
        }
        until("it is settled", || {
            let log = edge.ledger.log();
            if log.last().is_some_and(|l| l == ended) { Ok(()) } else { Err(format!("{version} {tool}: {log:?}")) }
        })
        .await;
    }
}

/// A call by a client of a session; gives the status and the answer.
fn called_in(edge: &Edge, session: Option<&str>, id: Value, tool: &str) -> tokio::task::JoinHandle<(StatusCode, String)> {
    let mut message = message(BEFORE, "tools/call", json!({"name": tool, "arguments": {}}));
    message["id"] = id;
    let mut headers = headers(BEFORE, &message, "payer-token");
    headers.extend(session.map(|name| ("mcp-session-id", name.to_owned())));
    let (router, sent) = (polity_gateway::router(edge.gateway.clone()), request(&headers, message.to_string()));
    tokio::spawn(async move {
        let response = router.oneshot(sent).await.unwrap();
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 22).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    })
}

/// A notice of cancellation.
async fn cancel_in(edge: &Edge, token: &str, session: Option<&str>, id: Value) -> StatusCode {
    let notice = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id, "reason": "not wanted"}});
    let mut headers = headers(BEFORE, &notice, token);
    headers.extend(session.map(|name| ("mcp-session-id", name.to_owned())));
    send(edge, request(&headers, notice.to_string())).await.0
}

async fn session(edge: &Edge) -> String {
    let params = json!({"protocolVersion": BEFORE, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let message = message(BEFORE, "initialize", params);
    let (status, told, _) = send(edge, request(&headers(BEFORE, &message, "payer-token"), message.to_string())).await;
    assert_eq!(status, 200);
    told["mcp-session-id"].to_str().unwrap().to_owned()
}

/// Before 2026-07-28 a client cancels by a notice, to whichever replica.
#[tokio::test]
async fn a_notice_cancels_the_request_that_it_names() {
    for (tool, ended, away) in [
        ("slow", "settle Unknown Canceled used=1", false),
        ("again", "settle NotDone Canceled used=0", false),
        ("again", "settle NotDone Canceled used=0", true),
    ] {
        let edge = Edge::start().await;
        let other = Edge::start_with("polity-edge-2", edge.api.clone(), edge.ledger.clone()).await;
        let name = session(&edge).await;
        let answer = called_in(&edge, Some(&name), json!(3), tool);
        until("it runs", || (edge.sent() == 1).then_some(()).ok_or_else(|| "not sent".into())).await;
        let told = if away { &other } else { &edge };
        assert_eq!(cancel_in(told, "payer-token", Some(&name), json!(3)).await, 202);
        let (status, text) = answer.await.unwrap();
        assert!(status == 200 && text.contains("Canceled"), "{tool}: {status} {text}");
        assert_eq!(edge.ledger.log(), [format!("begin {tool}"), ended.to_owned()]);
    }
}

/// A notice means one request of one session of one caller, and nothing that looks like it.
#[tokio::test]
async fn a_notice_cancels_nothing_else() {
    let edge = Edge::start().await;
    let (mine, another) = (session(&edge).await, session(&edge).await);
    assert_ne!(mine, another);
    let answer = called_in(&edge, Some(&mine), json!(3), "slow");
    until("it runs", || (edge.sent() == 1).then_some(()).ok_or_else(|| "not sent".into())).await;
    for (token, session, id) in [
        ("payer-token", Some(another.as_str()), json!(3)),
        ("payer-token", Some(mine.as_str()), json!(4)),
        ("payer-token", Some(mine.as_str()), json!("3")),
        ("payer-token", None, json!(3)),
        ("clerk-token", Some(mine.as_str()), json!(3)),
    ] {
        assert_eq!(cancel_in(&edge, token, session, id.clone()).await, 202, "{session:?} {id}");
    }
    assert_eq!(cancel_in(&edge, "nonsense", Some(&mine), json!(3)).await, 401);
    edge.upstream.go.notify_one();
    let (_, text) = answer.await.unwrap();
    assert!(text.contains("late"), "{text}");
    assert_eq!(edge.ledger.log(), ["begin slow", "settle Done  used=1"]);
    // What has ended cannot be canceled any more.
    assert_eq!(cancel_in(&edge, "payer-token", Some(&mine), json!(3)).await, 202);
    assert_eq!(edge.ledger.log().len(), 2);
}

/// A client that is gone cancels its container too: core stops it.
#[tokio::test]
async fn a_container_is_stopped_for_who_does_not_want_it_any_more() {
    for version in [BEFORE, NOW] {
        let edge = Edge::start().await;
        let name = session(&edge).await;
        let begun = || edge.ledger.log().iter().any(|l| l.starts_with("run box")).then_some(()).ok_or_else(|| "not begun".to_owned());
        if version == BEFORE {
            let answer = called_in(&edge, Some(&name), json!("a"), "box");
            until("it runs", begun).await;
            assert_eq!(cancel_in(&edge, "payer-token", Some(&name), json!("a")).await, 202);
            let (_, text) = answer.await.unwrap();
            assert!(text.contains("Canceled"), "{text}");
        } else {
            let message = message(version, "tools/call", json!({"name": "box", "arguments": {}}));
            let sent = request(&headers(version, &message, "payer-token"), message.to_string());
            let answer = tokio::spawn(polity_gateway::router(edge.gateway.clone()).oneshot(sent));
            until("it runs", begun).await;
            answer.abort();
            assert!(answer.await.is_err());
        }
        until("core has stopped it", || {
            let log = edge.ledger.log();
            if log.last().is_some_and(|l| l == "core stopped it") { Ok(()) } else { Err(format!("{version}: {log:?}")) }
        })
        .await;
    }
}

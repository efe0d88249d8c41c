//! What tool Pods get and post.

use serde_json::json;

use crate::harness::Edge;

#[tokio::test]
async fn a_tool_pod_gets_its_input_and_nobody_else_does() {
    let edge = Edge::start().await;
    let (status, headers, body) = edge.full("GET", "/shim/v1/runs/1/input", "tool-token", String::new()).await;
    assert_eq!((status.as_u16(), &body), (200, &json!({"a": 1})));
    assert_eq!(headers["traceparent"], "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    for (id, token, expected) in
        [("1", "payer-token", 403), ("1", "nonsense", 401), ("2", "tool-token", 403), ("3", "tool-token", 503), ("4", "tool-token", 404)]
    {
        let (status, body) = edge.ask("GET", &format!("/shim/v1/runs/{id}/input"), token, None).await;
        assert_eq!(status.as_u16(), expected, "{id} {token} {body}");
        assert!(body["reason"].is_string() && body["message"].is_string(), "{body}");
    }
}

#[tokio::test]
async fn a_result_goes_to_core_with_the_pod_that_the_token_names() {
    let edge = Edge::start().await;
    let (status, _) =
        edge.ask("POST", "/shim/v1/runs/1/result", "tool-token", Some(json!({"exitCode": 3, "stdout": "{}", "stderrTail": "oh"}))).await;
    assert_eq!(status.as_u16(), 200);
    let kept = &edge.ledger.results()[0];
    assert_eq!(
        (kept.pod.pod_uid.as_str(), kept.pod.namespace.as_str(), kept.output.exit_code, kept.output.stderr_tail.as_str()),
        ("uid-call-1", "acme", 3, "oh")
    );
}

#[tokio::test]
async fn a_result_is_bounded() {
    let edge = Edge::start().await;
    let post = |body: serde_json::Value| edge.ask("POST", "/shim/v1/runs/1/result", "tool-token", Some(body));
    let fits = "\"".repeat(1 << 20);
    assert_eq!(post(json!({"exitCode": 0, "stdout": fits})).await.0.as_u16(), 200, "a whole MiB, twice as long in JSON");
    assert_eq!(post(json!({"exitCode": 0, "stdout": "x".repeat((1 << 20) + 1), "stderrTail": "y".repeat(100_000)})).await.0.as_u16(), 200);
    assert_eq!(post(json!({"exitCode": 0, "stdout": "x".repeat(4 << 20)})).await.0.as_u16(), 413);
    let kept = edge.ledger.results();
    assert_eq!((kept[0].output.too_large, kept[0].output.stdout.len()), (false, 1 << 20));
    assert_eq!((kept[1].output.too_large, kept[1].output.stdout.len(), kept[1].output.stderr_tail.len()), (true, 0, 64 * 1024));
}

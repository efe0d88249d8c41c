use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use serde_json::{Value, json};

use super::*;

const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// Answers each token by its own text.
async fn review(State(asked): State<Arc<AtomicUsize>>, Json(mut review): Json<Value>) -> Result<Json<Value>, StatusCode> {
    asked.fetch_add(1, Ordering::SeqCst);
    assert_eq!(review["spec"]["audiences"], json!(["polity"]));
    let user = json!({"username": "system:serviceaccount:acme:polity-agent-bo", "uid": "u1", "groups": ["system:serviceaccounts"],
        "extra": {"authentication.kubernetes.io/pod-name": ["bo-1"], "authentication.kubernetes.io/pod-uid": ["p1"]}});
    review["status"] = match review["spec"]["token"].as_str().unwrap() {
        "good" => json!({"authenticated": true, "audiences": ["polity"], "user": user}),
        "for-the-api-server" => json!({"authenticated": true, "audiences": ["https://kubernetes"], "user": user}),
        "no-audience" => json!({"authenticated": true, "user": user}),
        "nobody" => json!({"authenticated": true, "audiences": ["polity"], "user": {"username": ""}}),
        "refused" => json!({"authenticated": false, "error": "expired"}),
        _ => return Err(StatusCode::INTERNAL_SERVER_ERROR),
    };
    review["apiVersion"] = json!("authentication.k8s.io/v1");
    review["kind"] = json!("TokenReview");
    Ok(Json(review))
}

fn identities() -> (Identities, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let api = Router::new().route(PATH, post(review)).with_state(asked.clone());
    (Identities::new(Client::new(api, "default"), Vec::new()), asked)
}

#[tokio::test(start_paused = true)]
async fn a_token_is_a_caller_with_its_pod_for_30_seconds() {
    let (identities, asked) = identities();
    let caller = identities.of_header(Some("Bearer good")).await.unwrap();
    assert_eq!(caller.username, "system:serviceaccount:acme:polity-agent-bo");
    assert_eq!((caller.pod_name.as_deref(), caller.pod_uid.as_deref()), (Some("bo-1"), Some("p1")));
    assert_eq!((&caller.via, caller.chain.len()), (&None, 0));
    tokio::time::advance(Duration::from_secs(29)).await;
    identities.caller("good").await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    tokio::time::advance(Duration::from_secs(2)).await;
    identities.caller("good").await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn whatever_is_not_a_clear_yes_is_an_error_and_asked_again() {
    let (identities, asked) = identities();
    for token in ["for-the-api-server", "no-audience", "nobody", "refused"] {
        for _ in 0..2 {
            let error = identities.caller(token).await.unwrap_err();
            assert!(matches!(error, IdentityError::Refused(_)), "{token}: {error}");
        }
    }
    let error = identities.caller("breaks").await.unwrap_err();
    assert!(matches!(error, IdentityError::Unavailable(_)), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst), 9);
    let long = format!("Bearer {}", "x".repeat(MAX_TOKEN + 1));
    for header in
        [None, Some(""), Some("Bearer"), Some("Bearer "), Some("Basic good"), Some("Bearer a b"), Some("Bearer gööd"), Some(long.as_str())]
    {
        let error = identities.of_header(header).await.unwrap_err();
        assert!(matches!(error, IdentityError::NoToken), "{header:?}: {error}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 9, "none of these is worth a question");
}

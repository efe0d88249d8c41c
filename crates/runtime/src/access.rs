//! May somebody do something, as the API server's own authorization says (SubjectAccessReview). Never guesses: a failure is an
//! error, and who cannot be judged is not allowed.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::{Api, Client, api::PostParams};
use tokio::time::timeout;

/// Longest wait for the API server.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);

/// The question could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The API server refused or failed.
    #[error("cannot review access")]
    Review(#[source] Box<kube::Error>),
    /// It took too long.
    #[error("cannot review access: no answer in time")]
    TimedOut,
    /// It answered nothing.
    #[error("cannot review access: the review has no status")]
    NoStatus,
}

/// Who is judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Username.
    pub username: String,
    /// Uid, when known.
    pub uid: Option<String>,
    /// Groups.
    pub groups: Vec<String>,
    /// Extra attributes.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access<'a> {
    /// Verb, e.g. `get` or `resolve`.
    pub verb: &'a str,
    /// API group, empty for the core one.
    pub group: &'a str,
    /// Resource, plural.
    pub resource: &'a str,
    /// Subresource.
    pub subresource: Option<&'a str>,
    /// Namespace; None for cluster-scoped ones.
    pub namespace: Option<&'a str>,
    /// Name; None for any.
    pub name: Option<&'a str>,
}

/// Asks the API server whether `subject` may do `access`.
///
/// # Errors
/// When the API server cannot tell.
pub async fn allowed(client: &Client, subject: &Subject, access: Access<'_>) -> Result<bool, AccessError> {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(subject.username.clone()),
            uid: subject.uid.clone(),
            groups: Some(subject.groups.clone()),
            extra: Some(subject.extra.clone()),
            resource_attributes: Some(ResourceAttributes {
                verb: Some(access.verb.to_owned()),
                group: Some(access.group.to_owned()),
                resource: Some(access.resource.to_owned()),
                subresource: owned(access.subresource),
                namespace: owned(access.namespace),
                name: owned(access.name),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let answer = timeout(REVIEW_TIMEOUT, api.create(&PostParams::default(), &review)).await.map_err(|_| AccessError::TimedOut)?;
    let status = answer.map_err(|e| AccessError::Review(Box::new(e)))?.status.ok_or(AccessError::NoStatus)?;
    Ok(status.allowed && status.denied != Some(true))
}

#[cfg(test)]
mod tests {
    use axum::{Json, Router, http::StatusCode, routing::post};
    use serde_json::{Value, json};

    use super::*;

    /// Allows `get` alone, denies `watch` although it is allowed, forgets the status of `list`, and fails for the rest.
    async fn review(Json(mut review): Json<Value>) -> Result<Json<Value>, StatusCode> {
        let attributes = &review["spec"]["resourceAttributes"];
        assert_eq!(
            (&attributes["resource"], &attributes["namespace"], &review["spec"]["user"]),
            (&json!("secrets"), &json!("acme"), &json!("bo"))
        );
        let status = match attributes["verb"].as_str().unwrap() {
            "get" => json!({"allowed": true}),
            "create" => json!({"allowed": false}),
            "watch" => json!({"allowed": true, "denied": true}),
            "list" => Value::Null,
            _ => return Err(StatusCode::INTERNAL_SERVER_ERROR),
        };
        review["status"] = status;
        Ok(Json(review))
    }

    #[tokio::test]
    async fn only_a_clear_yes_allows() {
        let api = Router::new().route("/apis/authorization.k8s.io/v1/subjectaccessreviews", post(review));
        let client = Client::new(api, "default");
        let subject = Subject { username: "bo".into(), ..Subject::default() };
        let ask = async |verb| {
            allowed(&client, &subject, Access { verb, resource: "secrets", namespace: Some("acme"), ..Access::default() }).await
        };
        assert!(ask("get").await.unwrap());
        assert!(!ask("create").await.unwrap());
        assert!(!ask("watch").await.unwrap());
        assert!(matches!(ask("list").await, Err(AccessError::NoStatus)));
        assert!(matches!(ask("delete").await, Err(AccessError::Review(_))));
    }
}

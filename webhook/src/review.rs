//! The AdmissionReview as it travels: a borrowed request in, a small response out.
//!
//! Objects stay raw JSON until a rule needs them, and are then read into their own type. It judges nothing.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::authentication::v1::UserInfo};
use polity_api::reasons;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::outcome::{Accepted, Outcome, Refusal};

/// The only version spoken.
pub const API_VERSION: &str = "admission.k8s.io/v1";

/// What the API server sends.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Review<'a> {
    /// `admission.k8s.io/v1`.
    pub api_version: String,
    /// `AdmissionReview`.
    pub kind: String,
    /// The question.
    #[serde(borrow)]
    pub request: Option<Request<'a>>,
}

/// The question.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request<'a> {
    /// Id of this question; the answer repeats it.
    pub uid: String,
    /// Kind of the object.
    pub kind: Kind,
    /// Subresource, when it is one.
    #[serde(default)]
    pub sub_resource: Option<String>,
    /// Name; empty when the server will make one.
    #[serde(default)]
    pub name: String,
    /// Namespace of a namespaced object.
    #[serde(default)]
    pub namespace: Option<String>,
    /// What is done.
    pub operation: Operation,
    /// Who does it.
    pub user_info: UserInfo,
    /// The object as it would be stored.
    #[serde(default, borrow)]
    pub object: Option<&'a RawValue>,
    /// The object as it is stored.
    #[serde(default, borrow)]
    pub old_object: Option<&'a RawValue>,
    /// Nothing will be stored.
    #[serde(default)]
    pub dry_run: bool,
}

/// Group, version and kind.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Kind {
    /// API group.
    #[serde(default)]
    pub group: String,
    /// Version.
    #[serde(default)]
    pub version: String,
    /// Kind.
    #[serde(default)]
    pub kind: String,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Operation {
    /// Create.
    Create,
    /// Update or patch.
    Update,
    /// Delete.
    Delete,
    /// Connect.
    Connect,
}

impl Request<'_> {
    /// Namespace, empty for cluster-scoped objects.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    /// Username, empty when the API server names none.
    #[must_use]
    pub fn username(&self) -> &str {
        self.user_info.username.as_deref().unwrap_or_default()
    }

    /// The new object in its type.
    ///
    /// # Errors
    /// It is missing or does not have the shape of its kind.
    pub fn new_object<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        decode(self.object, "object")
    }

    /// The stored object in its type.
    ///
    /// # Errors
    /// It is missing or does not have the shape of its kind.
    pub fn stored<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        decode(self.old_object, "oldObject")
    }

    /// The stored object of an update, when it can be read; None for a create, and for one stored by an older version
    /// that no longer has its shape: then the new one is judged as if it were new.
    #[must_use]
    pub fn before<T: DeserializeOwned>(&self) -> Option<T> {
        if self.operation == Operation::Update { self.stored().ok() } else { None }
    }
}

fn decode<T: DeserializeOwned>(raw: Option<&RawValue>, what: &str) -> Result<T, Refusal> {
    let raw = raw.ok_or_else(|| Refusal::invalid(format!("the review has no {what}")))?;
    serde_json::from_str(raw.get()).map_err(|e| Refusal::invalid(format!("{what} cannot be read: {e}")))
}

/// What the API server gets.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    api_version: &'static str,
    kind: &'static str,
    response: Response,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<ByteString>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    audit_annotations: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Status {
    status: &'static str,
    code: u16,
    reason: &'static str,
    message: String,
    details: Details,
}

#[derive(Debug, Serialize)]
struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    group: String,
    kind: String,
    causes: Vec<Cause>,
}

#[derive(Debug, Serialize)]
struct Cause {
    reason: &'static str,
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    field: String,
}

/// Puts an outcome into the answer to a request.
#[must_use]
pub fn answer(request: &Request<'_>, outcome: Outcome) -> Answer {
    let mut response = Response {
        uid: request.uid.clone(),
        allowed: outcome.is_ok(),
        status: None,
        patch: None,
        patch_type: None,
        audit_annotations: BTreeMap::new(),
        warnings: Vec::new(),
    };
    match outcome {
        Ok(Accepted { warnings, patch, audit }) => {
            response.warnings = warnings.into_list();
            response.audit_annotations = audit;
            if !patch.is_empty() {
                match serde_json::to_vec(&patch) {
                    Ok(text) => (response.patch, response.patch_type) = (Some(ByteString(text)), Some("JSONPatch")),
                    Err(e) => {
                        return answer(
                            request,
                            Err(Refusal::failed(reasons::ADMISSION_FAILED, format!("the patch cannot be written: {e}"))),
                        );
                    }
                }
            }
        }
        Err(refusal) => {
            response.audit_annotations = BTreeMap::from([("reason", refusal.reason.to_owned())]);
            response.warnings = refusal.warnings.clone().into_list();
            let message = refusal.text();
            let causes = refusal.causes.into_iter().map(|(reason, field, message)| Cause { reason, message, field }).collect();
            response.status = Some(Status {
                status: "Failure",
                code: refusal.code,
                reason: refusal.reason,
                message,
                details: Details { name: request.name.clone(), group: request.kind.group.clone(), kind: request.kind.kind.clone(), causes },
            });
        }
    }
    Answer { api_version: API_VERSION, kind: "AdmissionReview", response }
}

//! Who a bearer token is. One that says that it is of a configured OpenID Connect issuer is judged by that issuer's keys alone; every other one by the API
//! server alone (TokenReview with our audience), whose answer is kept for at most 30 s.
//!
//! A failure is an error, never an identity, and is not kept: the next request asks again. Tokens are kept as SHA-256 only.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::{Api, Client, api::PostParams};
use polity_api::{caller::Caller, names};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};

use crate::oidc::{self, Oidc};

/// Longest that an identity is kept.
pub const MAX_AGE: Duration = Duration::from_secs(30);
/// Most identities kept; beyond it, the oldest ones go.
const MAX_KEPT: usize = 10_000;
/// Longest token looked at. A real one has about 1 KiB.
const MAX_TOKEN: usize = 16 * 1024;
/// Longest wait for the API server.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no identity.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IdentityError {
    /// No token, or one that nobody would issue.
    #[error("no usable bearer token")]
    NoToken,
    /// The API server does not accept it for audience `polity`, or it is not what its issuer's tokens must be.
    #[error("token refused: {0}")]
    Refused(String),
    /// The API server, or the issuer for its keys, cannot be asked.
    #[error("cannot review the token: {0}")]
    Unavailable(String),
}

/// SHA-256 of a token → when it was asked about, and who it is.
type Kept = HashMap<[u8; 32], (Instant, Arc<Caller>)>;

/// One way to find out who a token is.
pub trait Verifier: Send + Sync {
    /// The caller behind a token, by nothing but what this way asks.
    fn verify<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Caller, IdentityError>>;
}

/// Asks the API server.
struct Reviews(Api<TokenReview>);

/// Finds out who a token is.
pub struct Identities {
    reviews: Reviews,
    issuers: Vec<Arc<Oidc>>,
    kept: Mutex<Kept>,
}

impl Identities {
    /// Asks with this client, and knows the tokens of these issuers.
    #[must_use]
    pub fn new(client: Client, issuers: Vec<Arc<Oidc>>) -> Self {
        Self { reviews: Reviews(Api::all(client)), issuers, kept: Mutex::default() }
    }

    /// The issuer that a token says it is of, if that is a configured one.
    fn issuer(&self, token: &str) -> Option<&Oidc> {
        if self.issuers.is_empty() {
            return None;
        }
        let said = oidc::issuer_of(token)?;
        self.issuers.iter().map(Arc::as_ref).find(|issuer| issuer.issuer() == said)
    }

    /// The caller behind an `Authorization` header value (`Bearer …`).
    ///
    /// # Errors
    /// As `caller`.
    pub async fn of_header(&self, value: Option<&str>) -> Result<Arc<Caller>, IdentityError> {
        self.caller(bearer(value)?).await
    }

    /// The caller behind a token, with Pod name and uid when it is bound to one. `via` and `chain` are empty.
    ///
    /// # Errors
    /// When there is none, or nobody can tell.
    pub async fn caller(&self, token: &str) -> Result<Arc<Caller>, IdentityError> {
        if !usable(token) {
            return Err(IdentityError::NoToken);
        }
        match self.kept(&key_of(token)) {
            Some(caller) => Ok(caller),
            None => self.again(token).await,
        }
    }

    /// As `caller`, but nothing that was kept is believed: for whoever was let in a while ago.
    ///
    /// # Errors
    /// As `caller`. What was kept of the token is forgotten then.
    pub async fn again(&self, token: &str) -> Result<Arc<Caller>, IdentityError> {
        if !usable(token) {
            return Err(IdentityError::NoToken);
        }
        if let Some(issuer) = self.issuer(token) {
            // Its keys are at hand: nothing of it is kept, so it ends to the second.
            return issuer.verify(token).await.map(Arc::new);
        }
        let key = key_of(token);
        // The age counts from before the question: the answer is no younger.
        let asked = Instant::now();
        match self.reviews.verify(token).await {
            Ok(caller) => {
                let caller = Arc::new(caller);
                self.keep(key, asked, caller.clone());
                Ok(caller)
            }
            Err(error) => {
                self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                Err(error)
            }
        }
    }

    fn kept(&self, key: &[u8; 32]) -> Option<Arc<Caller>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(key).filter(|(since, _)| since.elapsed() < MAX_AGE).map(|(_, caller)| caller.clone())
    }

    fn keep(&self, key: [u8; 32], asked: Instant, caller: Arc<Caller>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, (since, _)| since.elapsed() < MAX_AGE);
        }
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(key, (asked, caller));
    }
}

fn usable(token: &str) -> bool {
    !token.is_empty() && token.len() <= MAX_TOKEN && token.bytes().all(|b| b.is_ascii_graphic())
}

fn key_of(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The token in an `Authorization` header value (`Bearer …`).
///
/// # Errors
/// There is none.
pub fn bearer(value: Option<&str>) -> Result<&str, IdentityError> {
    let (scheme, token) = value.and_then(|v| v.split_once(' ')).ok_or(IdentityError::NoToken)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(IdentityError::NoToken) }
}

impl Reviews {
    async fn review(&self, token: &str) -> Result<Caller, IdentityError> {
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![names::AUDIENCE.to_owned()]) },
            ..TokenReview::default()
        };
        let answer = timeout(REVIEW_TIMEOUT, self.0.create(&PostParams::default(), &review)).await;
        match answer {
            Ok(Ok(review)) => accepted(review),
            Ok(Err(error)) => Err(IdentityError::Unavailable(error.to_string())),
            Err(_) => Err(IdentityError::Unavailable("no answer in time".to_owned())),
        }
    }
}

impl Verifier for Reviews {
    fn verify<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Caller, IdentityError>> {
        Box::pin(self.review(token))
    }
}

/// The caller that a review tells, if it accepts the token for our audience.
fn accepted(review: TokenReview) -> Result<Caller, IdentityError> {
    let status = review.status.ok_or_else(|| IdentityError::Unavailable("the review has no status".to_owned()))?;
    if status.authenticated != Some(true) {
        return Err(IdentityError::Refused(status.error.unwrap_or_else(|| "not authenticated".to_owned())));
    }
    // An authenticator that knows no audiences leaves the list empty: such a token was issued for the API server, not for us.
    if !status.audiences.is_some_and(|list| list.iter().any(|a| a == names::AUDIENCE)) {
        return Err(IdentityError::Refused(format!("not issued for audience {}", names::AUDIENCE)));
    }
    let user = status.user.ok_or_else(|| IdentityError::Refused("the review names no user".to_owned()))?;
    caller_of(user).ok_or_else(|| IdentityError::Refused("the review names no user".to_owned()))
}

/// A caller from what the API server says of a user; None without a username.
#[must_use]
pub fn caller_of(user: UserInfo) -> Option<Caller> {
    let username = user.username.filter(|name| !name.is_empty())?;
    let mut extra = user.extra.unwrap_or_default();
    let mut one = |key: &str| extra.remove(key).filter(|values| values.len() == 1).and_then(|mut values| values.pop());
    Some(Caller {
        username,
        uid: user.uid.filter(|uid| !uid.is_empty()),
        groups: user.groups.unwrap_or_default(),
        pod_name: one("authentication.kubernetes.io/pod-name"),
        pod_uid: one("authentication.kubernetes.io/pod-uid"),
        via: None,
        chain: Vec::new(),
    })
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;

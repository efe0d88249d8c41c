//! Tokens of OpenID Connect issuers that the operator has configured: who they are, by the issuer's published keys, with the same username and groups
//! that the API server would give with the same flags (`--oidc-username-claim`, `--oidc-username-prefix`, `--oidc-groups-claim`,
//! `--oidc-groups-prefix`).
//!
//! Closed on any doubt: a key that is not known and cannot be fetched verifies nothing. A token never makes us ask an address that the configuration or
//! the issuer's own discovery document does not name.

mod jwk;
mod keys;
mod token;

use std::sync::Arc;

use futures::future::BoxFuture;
use polity_api::caller::Caller;
use serde::Deserialize;

use self::keys::Keys;
pub use self::token::issuer_of;
use crate::{
    clock::SharedClock,
    identity::{IdentityError, Verifier},
};

/// Group that the API server adds to everybody whom it knows.
const AUTHENTICATED: &str = "system:authenticated";
/// Prefix that only the API server itself gives.
const RESERVED: &str = "system:";

/// Why an issuer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// The configuration makes no sense.
    #[error("issuer {issuer:?}: {what}")]
    Config {
        /// Its URL.
        issuer: String,
        /// What is wrong.
        what: String,
    },
}

/// An issuer as configured. Names follow the API server's flags.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Issuer {
    /// `https` URL, exactly as tokens have it in `iss`.
    #[serde(rename = "issuerURL")]
    pub issuer_url: String,
    /// What must be in `aud`.
    pub audience: String,
    /// Claim that names the user.
    #[serde(default = "sub")]
    pub username_claim: String,
    /// What comes before it. Empty: the issuer's URL and `#`, unless the claim is `email`; `-`: nothing.
    #[serde(default)]
    pub username_prefix: String,
    /// Claim with the groups, a text or a list of them. Empty: none.
    #[serde(default)]
    pub groups_claim: String,
    /// What comes before each group.
    #[serde(default)]
    pub groups_prefix: String,
    /// Certificates (PEM) of those who sign the issuer's TLS certificate. Empty: the system's.
    #[serde(default)]
    pub ca: String,
}

fn sub() -> String {
    "sub".to_owned()
}

impl Issuer {
    /// The prefix in force.
    fn prefix(&self) -> String {
        match self.username_prefix.as_str() {
            "-" => String::new(),
            "" if self.username_claim == "email" => String::new(),
            "" => format!("{}#", self.issuer_url),
            prefix => prefix.to_owned(),
        }
    }

    fn check(&self) -> Result<(), OidcError> {
        let wrong = |what: &str| OidcError::Config { issuer: self.issuer_url.clone(), what: what.to_owned() };
        let url = reqwest::Url::parse(&self.issuer_url).map_err(|_| wrong("issuerURL is no URL"))?;
        if url.scheme() != "https" || url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
            return Err(wrong("issuerURL must be https, without user, query and fragment"));
        }
        if self.audience.is_empty() || self.username_claim.is_empty() {
            return Err(wrong("audience and usernameClaim must not be empty"));
        }
        if self.prefix().starts_with(RESERVED) || self.groups_prefix.starts_with(RESERVED) {
            return Err(wrong("a prefix must not begin with system:, which only Kubernetes itself gives"));
        }
        Ok(())
    }
}

/// Verifies the tokens of one issuer.
pub struct Oidc {
    issuer: Issuer,
    keys: Keys,
    clock: SharedClock,
}

impl std::fmt::Debug for Oidc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oidc").field("issuer", &self.issuer.issuer_url).finish_non_exhaustive()
    }
}

impl Oidc {
    /// A verifier; asks the issuer nothing before the first token comes.
    ///
    /// # Errors
    /// The configuration makes no sense.
    pub fn new(issuer: Issuer, clock: SharedClock) -> Result<Self, OidcError> {
        issuer.check()?;
        let keys =
            Keys::new(&issuer.issuer_url, &issuer.ca).map_err(|what| OidcError::Config { issuer: issuer.issuer_url.clone(), what })?;
        Ok(Self { issuer, keys, clock })
    }

    /// Verifiers of all issuers.
    ///
    /// # Errors
    /// A configuration makes no sense, or two have the same URL.
    pub fn all(issuers: Vec<Issuer>, clock: &SharedClock) -> Result<Vec<Arc<Self>>, OidcError> {
        let mut made: Vec<Arc<Self>> = Vec::new();
        for issuer in issuers {
            if made.iter().any(|m| m.issuer.issuer_url == issuer.issuer_url) {
                return Err(OidcError::Config { issuer: issuer.issuer_url, what: "it is given twice".to_owned() });
            }
            made.push(Arc::new(Self::new(issuer, clock.clone())?));
        }
        Ok(made)
    }

    /// What tokens of this issuer have in `iss`.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer.issuer_url
    }

    async fn caller(&self, text: &str) -> Result<Caller, IdentityError> {
        let refused = IdentityError::Refused;
        let token = token::read(text).map_err(refused)?;
        // Everything that costs nothing to see comes before a key is looked for.
        let now = self.clock.now().as_second();
        token.check(&self.issuer.issuer_url, &self.issuer.audience, now).map_err(refused)?;
        let keys = self.keys.of(token.kid(), token.algorithm()).await?;
        if !keys.iter().any(|key| key.verifies(token.algorithm(), token.signed(), token.signature())) {
            return Err(refused("the signature is not the issuer's".to_owned()));
        }
        self.user(&token).map_err(refused)
    }

    /// The user, as the API server's OIDC authenticator names him.
    fn user(&self, token: &token::Token<'_>) -> Result<Caller, String> {
        let username = token.text(&self.issuer.username_claim).ok_or_else(|| format!("claim {} is no text", self.issuer.username_claim))?;
        if username.is_empty() {
            return Err(format!("claim {} is empty", self.issuer.username_claim));
        }
        if self.issuer.username_claim == "email" && !token.email_may_be_used() {
            return Err("email_verified is not true".to_owned());
        }
        let username = format!("{}{username}", self.issuer.prefix());
        let mut groups = Vec::new();
        if !self.issuer.groups_claim.is_empty() {
            let named =
                token.texts(&self.issuer.groups_claim).ok_or_else(|| format!("claim {} is no list of texts", self.issuer.groups_claim))?;
            groups = named.iter().map(|group| format!("{}{group}", self.issuer.groups_prefix)).collect();
        }
        if username.starts_with(RESERVED) || groups.iter().any(|group| group.starts_with(RESERVED)) {
            return Err("a user or group that begins with system: is only Kubernetes' own to give".to_owned());
        }
        groups.push(AUTHENTICATED.to_owned());
        Ok(Caller { username, groups, ..Caller::default() })
    }
}

impl Verifier for Oidc {
    fn verify<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Caller, IdentityError>> {
        Box::pin(self.caller(token))
    }
}

#[cfg(test)]
mod tests;

//! An issuer's keys: found by its discovery document (OpenID Connect Discovery 1.0, section 4), kept, and fetched again when a token names one that is not
//! known, at most once in ten seconds, and when they are ten minutes old. Keys that could not be confirmed for an hour verify nothing any more.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use reqwest::{Client, Url};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    jwk::{self, Key},
    token::Algorithm,
};
use crate::identity::IdentityError;

/// When keys are fetched.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Least time between two attempts, whatever tokens say.
    pub pause: Duration,
    /// Keys of this age are fetched again, so that one that was withdrawn is forgotten.
    pub renew: Duration,
    /// Keys of this age are not believed.
    pub stale: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { pause: Duration::from_secs(10), renew: Duration::from_secs(600), stale: Duration::from_secs(3600) }
    }
}

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest document that is read, in bytes.
const LARGEST: usize = 256 * 1024;

/// Keys of one issuer.
pub struct Keys {
    issuer: String,
    http: Client,
    pub pace: Pace,
    known: Mutex<Known>,
    /// One fetches; the others wait for it.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Clone, Default)]
struct Known {
    keys: Vec<Key>,
    /// When they were fetched.
    at: Option<Instant>,
    /// When somebody tried, and what came of it.
    tried: Option<Instant>,
    error: String,
}

impl Known {
    fn age(&self) -> Option<Duration> {
        self.at.map(|at| at.elapsed())
    }

    fn fitting(&self, kid: Option<&str>, algorithm: Algorithm) -> Vec<Key> {
        let named = |key: &&Key| kid.is_none_or(|kid| kid == key.kid);
        self.keys.iter().filter(|key| key.fits(algorithm)).filter(named).cloned().collect()
    }
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Keys {
    /// None is known yet.
    pub fn new(issuer: &str, ca: &str) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        if ca.trim().is_empty() {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        } else {
            for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
                let certificate = certificate.map_err(|e| format!("ca is no PEM: {e}"))?;
                roots.add(certificate).map_err(|e| format!("ca holds no certificate: {e}"))?;
            }
        }
        if roots.is_empty() {
            return Err("nobody is trusted to sign its TLS certificate: give ca".to_owned());
        }
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
        let tls = tls.with_root_certificates(roots).with_no_client_auth();
        let http = Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build()
            .map_err(|e| e.to_string())?;
        Ok(Self {
            issuer: issuer.to_owned(),
            http,
            pace: Pace::default(),
            known: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        })
    }

    /// Keys that may have signed a token: the one that it names, or all that fit when it names none.
    ///
    /// # Errors
    /// `Refused` when the issuer has no such key, `Unavailable` when the issuer cannot be asked.
    pub async fn of(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Vec<Key>, IdentityError> {
        let known = self.known();
        let found = known.fitting(kid, algorithm);
        if !found.is_empty() && known.age().is_some_and(|age| age < self.pace.renew) {
            return Ok(found);
        }
        self.fetch(&known).await;
        let known = self.known();
        let found = known.fitting(kid, algorithm);
        if known.age().is_none_or(|age| age >= self.pace.stale) {
            return Err(IdentityError::Unavailable(format!("the keys of issuer {} are not known: {}", self.issuer, known.error)));
        }
        match found.is_empty() {
            false => Ok(found),
            // Somebody tried in vain a moment ago: nobody can tell whether there is such a key now.
            true if !known.error.is_empty() => {
                Err(IdentityError::Unavailable(format!("issuer {} cannot be asked for its new keys: {}", self.issuer, known.error)))
            }
            true => Err(IdentityError::Refused(format!("the issuer has no such key for {}", algorithm.name()))),
        }
    }

    fn known(&self) -> Known {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fetches unless somebody has tried since `seen`, or a moment ago.
    async fn fetch(&self, seen: &Known) {
        let _one = self.fetching.lock().await;
        let now = self.known();
        if now.tried != seen.tried || now.tried.is_some_and(|tried| tried.elapsed() < self.pace.pause) {
            return;
        }
        let tried = Some(Instant::now());
        let fetched = self.published().await;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.tried = tried;
        match fetched {
            Ok(keys) => *known = Known { keys, at: tried, tried, error: String::new() },
            Err(error) => {
                tracing::warn!(issuer = self.issuer, error, "cannot fetch the issuer's keys");
                known.error = error;
            }
        }
    }

    async fn published(&self) -> Result<Vec<Key>, String> {
        let discovery = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let found: Discovery = serde_json::from_slice(&self.get(&discovery).await?).map_err(|e| format!("{discovery}: {e}"))?;
        if found.issuer != self.issuer {
            return Err(format!("{discovery} is about another issuer"));
        }
        let uri = Url::parse(&found.jwks_uri).ok().filter(|uri| uri.scheme() == "https");
        let uri = uri.ok_or_else(|| format!("{discovery}: jwks_uri is no https URL"))?;
        jwk::read(&self.get(uri.as_str()).await?)
    }

    async fn get(&self, url: &str) -> Result<Vec<u8>, String> {
        let failed = |error: reqwest::Error| format!("{url}: {}", crate::core_client::whole(&error.without_url()));
        let mut answer = self.http.get(url).send().await.map_err(failed)?;
        if !answer.status().is_success() {
            return Err(format!("{url} answered {}", answer.status()));
        }
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(failed)? {
            body.extend_from_slice(&piece);
            if body.len() > LARGEST {
                return Err(format!("{url} has more than {LARGEST} bytes"));
            }
        }
        Ok(body)
    }
}

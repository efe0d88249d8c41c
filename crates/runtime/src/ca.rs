//! Our own certificate authority, the pure part: makes CAs and leaves (ECDSA P-256), and judges by a given time what is due.
//! Keeps nothing and asks nobody; `ca_store` keeps.

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use time::OffsetDateTime;

use crate::x509::{self, Facts, Life};

/// Certificates are valid from a little before they were made: clocks differ.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);

/// How long things live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lives {
    /// A CA. Renewed at two thirds.
    pub ca: SignedDuration,
    /// A leaf. Renewed at two thirds.
    pub leaf: SignedDuration,
    /// Time that a new CA gets to reach everybody who trusts us (mounted ConfigMaps take about a minute) before leaves of it
    /// are served; and again before the previous one is forgotten.
    pub spread: SignedDuration,
}

impl Default for Lives {
    fn default() -> Self {
        Self { ca: SignedDuration::from_hours(365 * 24), leaf: SignedDuration::from_hours(30 * 24), spread: SignedDuration::from_mins(15) }
    }
}

/// A certificate with its key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// Certificate.
    pub cert: String,
    /// Key.
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("cert", &self.cert).finish_non_exhaustive()
    }
}

/// A certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// rcgen refuses.
    #[error("cannot make a certificate")]
    Rcgen(#[from] rcgen::Error),
    /// The CA's certificate is unreadable.
    #[error("the CA is unreadable")]
    Ca(#[from] x509::X509Error),
    /// A time outside of what a certificate can say.
    #[error("impossible date {0}")]
    Date(Timestamp),
}

/// The CA that signs, and during a rotation the one before, which is still trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Signs.
    pub current: Pair,
    /// Trusted until every leaf is of the current one.
    pub previous: Option<String>,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// When rcgen refuses.
    pub fn create(now: Timestamp, lives: &Lives) -> Result<Self, MintError> {
        Ok(Self { current: mint_ca(now, lives.ca)?, previous: None })
    }

    /// A new CA; the present one stays trusted.
    ///
    /// # Errors
    /// When rcgen refuses.
    pub fn rotate(&self, now: Timestamp, lives: &Lives) -> Result<Self, MintError> {
        Ok(Self { current: mint_ca(now, lives.ca)?, previous: Some(self.current.cert.clone()) })
    }

    /// What to trust, PEM.
    #[must_use]
    pub fn bundle(&self) -> String {
        match &self.previous {
            Some(previous) => format!("{}{previous}", self.current.cert),
            None => self.current.cert.clone(),
        }
    }

    /// Whether it can sign: certificate and key are readable and belong together.
    #[must_use]
    pub fn usable(&self) -> bool {
        fits(&self.current)
    }

    /// Whether a new CA is due.
    #[must_use]
    pub fn due(&self, now: Timestamp) -> bool {
        Facts::of_pem(&self.current.cert).map_or(true, |facts| facts.life.due(now))
    }

    /// When everybody may be expected to trust the current CA.
    fn spread_at(&self, lives: &Lives, times: i32) -> Timestamp {
        let made = Facts::of_pem(&self.current.cert).map_or(Timestamp::MIN, |facts| facts.life.not_before);
        let wait = BACKDATE.saturating_add(lives.spread.saturating_mul(times));
        made.saturating_add(wait).unwrap_or(Timestamp::MAX)
    }

    /// Why a leaf is to be replaced now; None: it is good.
    #[must_use]
    pub fn leaf_due(&self, leaf: &Pair, names: &[String], now: Timestamp, lives: &Lives) -> Option<&'static str> {
        let Ok(facts) = Facts::of_pem(&leaf.cert) else { return Some("unreadable") };
        let mut wanted = names.to_vec();
        wanted.sort();
        wanted.dedup();
        if !fits(leaf) {
            return Some("key and certificate do not belong together");
        }
        if facts.names != wanted {
            return Some("other names are wanted");
        }
        if facts.life.due(now) {
            return Some("two thirds of its life are over");
        }
        if x509::signed_by(&leaf.cert, &self.current.cert) {
            return None;
        }
        match &self.previous {
            Some(previous) if x509::signed_by(&leaf.cert, previous) => (now >= self.spread_at(lives, 1)).then_some("the CA was rotated"),
            _ => Some("signed by a CA that is not ours any more"),
        }
    }

    /// Whether the previous CA can be forgotten: every leaf is of the current one, and has been served for a while.
    #[must_use]
    pub fn previous_done<'a>(&self, leaves: impl IntoIterator<Item = &'a Pair>, now: Timestamp, lives: &Lives) -> bool {
        self.previous.is_some()
            && now >= self.spread_at(lives, 2)
            && leaves.into_iter().all(|leaf| x509::signed_by(&leaf.cert, &self.current.cert))
    }

    /// A leaf for these DNS names and IP addresses, for servers and clients. It never outlives the CA.
    ///
    /// # Errors
    /// When rcgen refuses, for instance a name.
    pub fn issue(&self, names: &[String], now: Timestamp, lives: &Lives) -> Result<Pair, MintError> {
        let ca = Facts::of_pem(&self.current.cert)?;
        let issuer = Issuer::from_ca_cert_pem(&self.current.cert, KeyPair::from_pem(&self.current.key)?)?;
        let mut names = names.to_vec();
        names.sort();
        names.dedup();
        let common = names.first().cloned().unwrap_or_default();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = common_name(&common);
        let end = (now + lives.leaf).min(ca.life.not_after);
        (params.not_before, params.not_after) = (date(now - BACKDATE)?, date(end)?);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok(Pair { cert: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
    }
}

fn mint_ca(now: Timestamp, life: SignedDuration) -> Result<Pair, MintError> {
    let mut params = CertificateParams::default();
    // Each CA has a name of its own, so that a chain never fits two.
    params.distinguished_name = common_name(&format!("polity-ca {}", now.as_second()));
    (params.not_before, params.not_after) = (date(now - BACKDATE)?, date(now + life)?);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    Ok(Pair { cert: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

fn common_name(name: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, name);
    dn
}

fn date(at: Timestamp) -> Result<OffsetDateTime, MintError> {
    OffsetDateTime::from_unix_timestamp(at.as_second()).map_err(|_| MintError::Date(at))
}

/// Whether a key is the certificate's.
fn fits(pair: &Pair) -> bool {
    let (Ok(facts), Ok(key)) = (Facts::of_pem(&pair.cert), KeyPair::from_pem(&pair.key)) else { return false };
    facts.public_key == rcgen::PublicKeyData::subject_public_key_info(&key)
}

/// Life of a certificate in PEM, None when it is unreadable.
#[must_use]
pub fn life(pem: &str) -> Option<Life> {
    Facts::of_pem(pem).ok().map(|facts| facts.life)
}

#[cfg(test)]
#[path = "ca_tests.rs"]
mod tests;

//! The few facts of a certificate that we read: its life, its names, who signed it. Never verifies trust; rustls does that.

use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use x509_parser::{extensions::GeneralName, prelude::*};

/// A certificate that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum X509Error {
    /// No PEM of a certificate.
    #[error("no certificate in the PEM text")]
    Pem,
    /// No X.509.
    #[error("the certificate is unreadable: {0}")]
    Parse(String),
    /// A time outside of what can be represented.
    #[error("the certificate has an impossible date")]
    Date,
}

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// First moment.
    pub not_before: Timestamp,
    /// Last moment.
    pub not_after: Timestamp,
}

impl Life {
    /// The life of a certificate.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(der: &[u8]) -> Result<Self, X509Error> {
        Facts::of(der).map(|f| f.life)
    }

    /// Two thirds of it: when it is to be renewed.
    #[must_use]
    pub fn renew_at(&self) -> Timestamp {
        let span = self.not_after.duration_since(self.not_before);
        let two_thirds = SignedDuration::from_secs(span.as_secs() / 3 * 2);
        self.not_before.saturating_add(two_thirds).unwrap_or(self.not_after)
    }

    /// Whether it is due for renewal, over, or not begun (a clock was set back far).
    #[must_use]
    pub fn due(&self, now: Timestamp) -> bool {
        now >= self.renew_at() || now < self.not_before
    }
}

/// What we read of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its life.
    pub life: Life,
    /// DNS names and IP addresses, sorted.
    pub names: Vec<String>,
    /// The public key, DER.
    pub public_key: Vec<u8>,
}

impl Facts {
    /// Reads DER.
    ///
    /// # Errors
    /// When it is no certificate.
    pub fn of(der: &[u8]) -> Result<Self, X509Error> {
        let (_, cert) = X509Certificate::from_der(der).map_err(|e| X509Error::Parse(e.to_string()))?;
        let stamp = |t: ASN1Time| Timestamp::from_second(t.timestamp()).map_err(|_| X509Error::Date);
        let validity = cert.validity();
        let life = Life { not_before: stamp(validity.not_before)?, not_after: stamp(validity.not_after)? };
        let san = cert.subject_alternative_name().map_err(|e| X509Error::Parse(e.to_string()))?;
        let mut names: Vec<String> = san.into_iter().flat_map(|s| &s.value.general_names).filter_map(name).collect();
        names.sort();
        Ok(Self { life, names, public_key: cert.public_key().raw.to_vec() })
    }

    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    /// When there is none.
    pub fn of_pem(pem: &str) -> Result<Self, X509Error> {
        Self::of(&first(pem)?)
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(dns) => Some((*dns).to_owned()),
        GeneralName::IPAddress(bytes) => match *bytes {
            [a, b, c, d] => Some(std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|b| std::net::Ipv6Addr::from(b).to_string()),
        },
        _ => None,
    }
}

/// Whether the first certificate of `pem` carries a signature of the first one of `ca_pem`.
#[must_use]
pub fn signed_by(pem: &str, ca_pem: &str) -> bool {
    let (Ok(leaf), Ok(ca)) = (first(pem), first(ca_pem)) else { return false };
    let (Ok((_, leaf)), Ok((_, ca))) = (X509Certificate::from_der(&leaf), X509Certificate::from_der(&ca)) else { return false };
    leaf.issuer() == ca.subject() && authority(&leaf).is_some() && authority(&leaf) == subject_key(&ca)
}

fn authority(cert: &X509Certificate<'_>) -> Option<Vec<u8>> {
    cert.iter_extensions().find_map(|e| match e.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|k| k.0.to_vec()),
        _ => None,
    })
}

fn subject_key(cert: &X509Certificate<'_>) -> Option<Vec<u8>> {
    cert.iter_extensions().find_map(|e| match e.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

fn first(pem: &str) -> Result<CertificateDer<'static>, X509Error> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| X509Error::Pem)
}

/// Digest over several texts, their borders included.
#[must_use]
pub fn digest(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

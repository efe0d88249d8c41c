//! Published keys (RFC 7517, RFC 7518 section 6) and the signatures that they verify. Keys that sign nothing we accept are left out, not errors: issuers
//! publish others beside them.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;

use super::token::Algorithm;

/// Most keys of an issuer; more are left out.
const MOST: usize = 64;
/// Bytes of a coordinate of P-256.
const COORDINATE: usize = 32;

#[derive(Deserialize)]
struct Published {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    kid: String,
    #[serde(default, rename = "use")]
    purpose: String,
    #[serde(default)]
    alg: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
}

/// A key that verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its id; empty when it has none.
    pub kid: String,
    material: Material,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Uncompressed point (SEC 1, section 2.3.3).
    P256(Vec<u8>),
}

/// The keys of a published set that verify what we accept.
///
/// # Errors
/// It is no key set.
pub fn read(text: &[u8]) -> Result<Vec<Key>, String> {
    let published: Published = serde_json::from_slice(text).map_err(|e| format!("no key set: {e}"))?;
    let known = published.keys.into_iter().filter_map(|value| serde_json::from_value::<Jwk>(value).ok());
    Ok(known.filter_map(|jwk| key(&jwk)).take(MOST).collect())
}

fn key(jwk: &Jwk) -> Option<Key> {
    if !matches!(jwk.purpose.as_str(), "" | "sig") {
        return None;
    }
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).ok().filter(|b| !b.is_empty());
    let material = match (jwk.kty.as_str(), jwk.crv.as_str(), jwk.alg.as_str()) {
        ("RSA", _, "" | "RS256") => Material::Rsa { n: bytes(&jwk.n)?, e: bytes(&jwk.e)? },
        ("EC", "P-256", "" | "ES256") => {
            let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
            if x.len() != COORDINATE || y.len() != COORDINATE {
                return None;
            }
            Material::P256([vec![4], x, y].concat())
        }
        _ => return None,
    };
    Some(Key { kid: jwk.kid.clone(), material })
}

impl Key {
    /// Whether it is of the kind that signs so.
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        matches!((algorithm, &self.material), (Algorithm::RS256, Material::Rsa { .. }) | (Algorithm::ES256, Material::P256(_)))
    }

    /// Whether the signature is this key's. A key of another kind than the algorithm says verifies nothing; RSA below 2048 bits neither.
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match (algorithm, &self.material) {
            (Algorithm::RS256, Material::Rsa { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
            }
            (Algorithm::ES256, Material::P256(point)) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

//! Signing with Ed25519 (RFC 8032), for roots of chains and for whatever else must be told apart from a forgery.
//!
//! A key is named by its id, a digest of its public part, so that an id pins the key. What is signed carries the purpose
//! it was signed for, so that a signature for one cannot be shown for another. Keeps no key and reads no clock.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::record::hash_of;

/// Length of a key's seed in bytes.
pub const SEED: usize = 32;

/// A private key that signs.
pub struct Signer {
    pair: Ed25519KeyPair,
    id: String,
    public: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Signer {
    /// The key of a seed of [`SEED`] random bytes; none if it has another length.
    #[must_use]
    pub fn from_seed(seed: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        let public = hex::encode(pair.public_key().as_ref());
        Some(Self { id: key_id(&public), public, pair })
    }

    /// Id of the key.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its public part, lower-case hex.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.public
    }

    /// Signature of a text for a purpose, lower-case hex.
    #[must_use]
    pub fn sign(&self, purpose: &str, text: &str) -> String {
        hex::encode(self.pair.sign(message(purpose, text).as_bytes()))
    }
}

/// Id of a key: the first 16 hex digits of the SHA-256 of its public part in hex.
#[must_use]
pub fn key_id(public: &str) -> String {
    hash_of(public).chars().take(16).collect()
}

/// Whether a signature of a text for a purpose was made with the key of that public part. Anything unreadable was not.
#[must_use]
pub fn signed(public: &str, purpose: &str, text: &str, signature: &str) -> bool {
    let (Ok(public), Ok(signature)) = (hex::decode(public), hex::decode(signature)) else { return false };
    UnparsedPublicKey::new(&ED25519, public).verify(message(purpose, text).as_bytes(), &signature).is_ok()
}

fn message(purpose: &str, text: &str) -> String {
    format!("polity.dev/{purpose}\n{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_of_one_key_one_purpose_and_one_text() {
        let (one, two) = (Signer::from_seed(&[1; SEED]).unwrap(), Signer::from_seed(&[2; SEED]).unwrap());
        let signature = one.sign("root", "text");
        assert!(signed(one.public(), "root", "text", &signature));
        assert!(!signed(two.public(), "root", "text", &signature));
        assert!(!signed(one.public(), "key", "text", &signature));
        assert!(!signed(one.public(), "root", "texT", &signature));
        assert!(!signed(one.public(), "root", "text", &two.sign("root", "text")));
        for bad in ["", "zz", &signature[2..]] {
            assert!(!signed(one.public(), "root", "text", bad) && !signed(bad, "root", "text", &signature));
        }
        assert!(Signer::from_seed(&[1; 31]).is_none());
        assert_ne!(one.id(), two.id());
    }
}

//! Ids of calls that are no object: half random, half bound to Org and caller, so that any replica can tell whose call an id is without asking.
//! Nobody else can make an id that passes for one's own and also names a call that exists.

use sha2::{Digest as _, Sha256};

/// A new id for a call of this caller.
pub fn new(org_uid: &str, username: &str, random: [u8; 8]) -> String {
    let half = bound(org_uid, username, random);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&random);
    bytes[8..].copy_from_slice(&half);
    uuid::Uuid::from_bytes(bytes).to_string()
}

/// Whether the id was made for this caller.
pub fn belongs(id: &str, org_uid: &str, username: &str) -> bool {
    let Ok(parsed) = uuid::Uuid::parse_str(id) else { return false };
    let bytes = parsed.as_bytes();
    let mut random = [0; 8];
    random.copy_from_slice(&bytes[..8]);
    // Only the one spelling that was given out.
    parsed.to_string() == id && bytes[8..] == bound(org_uid, username, random)
}

fn bound(org_uid: &str, username: &str, random: [u8; 8]) -> [u8; 8] {
    let mut hash = Sha256::new();
    for part in [b"polity call".as_slice(), org_uid.as_bytes(), username.as_bytes(), &random] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let mut half = [0; 8];
    half.copy_from_slice(&digest[..8]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_belongs_to_one_caller_of_one_org() {
        let id = new("org", "alice", [7; 8]);
        assert_eq!(id.len(), 36);
        assert!(belongs(&id, "org", "alice"));
        assert!(!belongs(&id, "org", "bob") && !belongs(&id, "other", "alice") && !belongs(&id.to_uppercase(), "org", "alice"));
        assert!(!belongs(&id, "orga", "lice"));
        assert!(!belongs("2a2e1b5e-9a3c-4a51-8a39-0a8a6c0b6b52", "org", "alice") && !belongs("name-of-an-object", "org", "alice"));
        assert_ne!(id, new("org", "alice", [8; 8]));
    }
}

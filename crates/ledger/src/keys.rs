//! Keys of Orgs and the digests made with them.
//!
//! An Org's key is made on first use and kept in the database; whoever has a digest alone cannot guess what was
//! digested, and destroying the key erases. A key never leaves this module but into the database.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Mutex;

use hmac::{Hmac, KeyInit, Mac};
use rand::TryRngCore;
use sha2::Sha256;

use crate::chain::{Tx, micros};
use crate::fault::{Fault, Outcome};
use crate::store::{Db, values};
use crate::types::{KeyedDigest, OrgId, Refused};

/// A key of an Org.
#[derive(Clone)]
pub(crate) struct Key {
    id: String,
    secret: Vec<u8>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Key {
    /// HMAC-SHA-256 of a text.
    pub(crate) fn digest(&self, text: &str) -> Result<KeyedDigest, Refused> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).map_err(|e| Refused::LedgerUnavailable { what: e.to_string() })?;
        mac.update(text.as_bytes());
        Ok(KeyedDigest {
            digest: hex::encode(mac.finalize().into_bytes()),
            key_id: self.id.clone(),
            size: i64::try_from(text.len()).unwrap_or(i64::MAX),
        })
    }
}

/// Keys used before, by Org uid.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    keys: HashMap<String, Key>,
    /// Ids of keys that were destroyed: one that was read a moment before is not kept.
    destroyed: HashSet<String>,
}

impl Keys {
    pub(crate) fn get(&self, uid: &str) -> Option<Key> {
        self.known.lock().ok()?.keys.get(uid).cloned()
    }

    pub(crate) fn keep(&self, uid: &str, key: &Key) {
        if let Ok(mut known) = self.known.lock()
            && !known.destroyed.contains(&key.id)
        {
            known.keys.insert(uid.to_owned(), key.clone());
        }
    }

    /// Forget an Org's key, which is destroyed.
    pub(crate) fn destroy(&self, uid: &str, ids: Vec<String>) {
        if let Ok(mut known) = self.known.lock() {
            known.keys.remove(uid);
            known.destroyed.extend(ids);
        }
    }
}

/// The present key of an Org, if it has one.
pub(crate) fn find(db: &Db, uid: &str) -> Outcome<Option<Key>> {
    let sql = "SELECT k.id, k.key FROM keys k JOIN orgs o ON o.n = k.org
        WHERE o.uid = ?1 AND k.key IS NOT NULL ORDER BY k.made DESC, k.id LIMIT 1";
    db.row(sql, values![uid], |row| Ok(Key { id: row.get(0)?, secret: row.get(1)? }))
}

impl Tx<'_> {
    /// The present key of an Org, made if it has none; its chain is started with it.
    pub(crate) fn key(&mut self, org: &OrgId) -> Outcome<Key> {
        if let Some(key) = find(self.db, &org.uid)? {
            return Ok(key);
        }
        let row = self.org(org)?;
        let mut secret = vec![0; 32];
        let mut id = [0; 8];
        let mut random = rand::rngs::OsRng;
        random
            .try_fill_bytes(&mut secret)
            .and_then(|()| random.try_fill_bytes(&mut id))
            .map_err(|e| Fault::Refused(Refused::LedgerUnavailable { what: format!("no randomness: {e}") }))?;
        let key = Key { id: hex::encode(id), secret };
        let sql = "INSERT INTO keys (id, org, made, key) VALUES (?1, ?2, ?3, ?4)";
        self.db.execute(sql, values![&key.id, row.n, micros(self.now), key.secret.as_slice()])?;
        Ok(key)
    }
}

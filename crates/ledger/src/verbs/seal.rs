//! `seal`: close segments of chains with signed roots, and change the key in time.
//!
//! A key is made here, signs here, and never leaves the database; once another follows it, its private part is destroyed
//! and its public part stays.

use jiff::{SignedDuration, Timestamp};
use rand::TryRngCore;
use serde::Deserialize;

use crate::chain::{Tx, micros, position};
use crate::fault::{Fault, Outcome};
use crate::record::{FORMAT, NO_PREVIOUS, hash_of};
use crate::root::{Endorsement, KEY, KIND, ROOT, Statement};
use crate::signer::{SEED, Signer};
use crate::store::values;
use crate::to_canonical::to_canonical;
use crate::types::{OrgId, Refused};

/// Most segments closed in one call, so that others are not kept waiting.
const AT_ONCE: usize = 100;

/// When a segment is closed and a key is changed.
#[derive(Clone, Copy, Debug)]
pub struct Sealing {
    /// Records of a full segment.
    pub records: i64,
    /// A segment whose first record is older is closed though it is not full.
    pub age: SignedDuration,
    /// A key that is older is followed by another.
    pub key_age: SignedDuration,
}

impl Default for Sealing {
    /// 10,000 records, a day, 90 days.
    fn default() -> Self {
        Self { records: 10_000, age: SignedDuration::from_hours(24), key_age: SignedDuration::from_hours(24 * 90) }
    }
}

#[derive(Deserialize)]
struct Time {
    time: Timestamp,
}

/// A chain with what is not sealed of it.
struct Open {
    n: i64,
    id: OrgId,
    head: i64,
    segment: i64,
    sealed: i64,
    previous: String,
    key: String,
}

/// Close what is to be closed, at most 100 segments. Returns how many were.
pub(crate) fn seal(tx: &mut Tx<'_>, epoch: i64, when: &Sealing) -> Outcome<usize> {
    tx.fence(epoch)?;
    let signer = tx.signer(when.key_age)?;
    let mut closed = 0;
    for mut open in tx.open_segments()? {
        while closed < AT_ONCE
            && let Some(last) = tx.due(&open, when)?
        {
            tx.close(&mut open, last, &signer)?;
            closed += 1;
        }
    }
    Ok(closed)
}

impl Tx<'_> {
    fn open_segments(&self) -> Outcome<Vec<Open>> {
        let sql = "SELECT o.n, o.name, o.uid, o.seq, coalesce(r.segment, 0), coalesce(r.last, 0), r.text, coalesce(r.key_id, '')
            FROM orgs o LEFT JOIN roots r ON r.org = o.n AND r.segment = (SELECT max(segment) FROM roots WHERE org = o.n)";
        let mut found = self.db.rows(sql, &[], |row| {
            let id = OrgId { name: row.get(1)?, uid: row.get(2)? };
            let text: Option<String> = row.get(6)?;
            let stored: i64 = row.get(3)?;
            Ok(Open {
                n: row.get(0)?,
                // What this batch has appended is known to the cache only.
                head: self.cache.org(&id.uid).map_or(stored, |org| org.seq),
                id,
                segment: row.get(4)?,
                sealed: row.get(5)?,
                previous: text.map_or_else(|| NO_PREVIOUS.to_owned(), |text| hash_of(&text)),
                key: row.get(7)?,
            })
        })?;
        found.retain(|open| open.head > open.sealed);
        Ok(found)
    }

    fn written(&self, org: i64, seq: i64) -> Outcome<(String, Timestamp)> {
        let sql = "SELECT hash, text FROM records WHERE pos = ?1";
        let found: Option<(String, String)> = self.db.row(sql, values![position(org, seq)?], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (hash, text) = found.ok_or_else(|| Fault::Stored(format!("record {seq} is missing")))?;
        Ok((hash, serde_json::from_str::<Time>(&text)?.time))
    }

    /// Where the open segment ends, if it is to be closed.
    fn due(&self, open: &Open, when: &Sealing) -> Outcome<Option<i64>> {
        if open.head - open.sealed >= when.records.max(1) {
            return Ok(Some(open.sealed + when.records.max(1)));
        }
        if open.head == open.sealed {
            return Ok(None);
        }
        let (_, first) = self.written(open.n, open.sealed + 1)?;
        Ok((first.duration_until(self.now) >= when.age).then_some(open.head))
    }

    fn close(&self, open: &mut Open, last: i64, signer: &Signer) -> Outcome<()> {
        let (last_hash, last_time) = self.written(open.n, last)?;
        let installation = self.db.value("SELECT value FROM meta WHERE name = 'installation'", &[])?;
        let statement = Statement {
            kind: KIND.to_owned(),
            format: FORMAT,
            installation,
            org: open.id.clone(),
            segment: open.segment + 1,
            first: open.sealed + 1,
            last,
            last_hash,
            last_time,
            time: self.now,
            previous: open.previous.clone(),
            key_id: signer.id().to_owned(),
            public_key: signer.public().to_owned(),
            endorsements: if open.key == signer.id() { Vec::new() } else { self.endorsements(&open.key)? },
        };
        let text = to_canonical(&statement)?;
        let signature = signer.sign(ROOT, &text);
        self.db.execute(
            "INSERT INTO roots (org, segment, first, last, last_time, key_id, text, signature) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            values![open.n, statement.segment, statement.first, last, micros(last_time), signer.id(), &text, &signature],
        )?;
        open.segment += 1;
        open.sealed = last;
        open.previous = hash_of(&text);
        open.key = signer.id().to_owned();
        Ok(())
    }

    /// How the present key follows from another one; all endorsements if that is not known.
    fn endorsements(&self, since: &str) -> Outcome<Vec<Endorsement>> {
        let mut found = Vec::new();
        self.db.rows("SELECT id, public, by, signature FROM signers ORDER BY n", &[], |row| {
            let (id, by): (String, Option<String>) = (row.get(0)?, row.get(2)?);
            if let Some(by) = by {
                found.push(Endorsement { public_key: row.get(1)?, by, signature: row.get(3)? });
            }
            if id == since {
                found.clear();
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// The key in use; a new one when there is none, or when it is too old.
    fn signer(&mut self, longest: SignedDuration) -> Outcome<Signer> {
        let sql = "SELECT made, seed FROM signers WHERE seed IS NOT NULL ORDER BY n DESC LIMIT 1";
        let present: Option<(i64, Vec<u8>)> = self.db.row(sql, &[], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let unusable = || Fault::Stored("a signing key is unusable".to_owned());
        let present = match present {
            None => None,
            Some((made, seed)) => Some((made, Signer::from_seed(&seed).ok_or_else(unusable)?)),
        };
        if let Some((made, signer)) = present {
            let age = micros(self.now).saturating_sub(made);
            if i128::from(age) < longest.as_micros() {
                return Ok(signer);
            }
            return self.new_signer(Some(&signer));
        }
        self.new_signer(None)
    }

    fn new_signer(&mut self, before: Option<&Signer>) -> Outcome<Signer> {
        let mut seed = [0; SEED];
        rand::rngs::OsRng
            .try_fill_bytes(&mut seed)
            .map_err(|e| Fault::Refused(Refused::LedgerUnavailable { what: format!("no randomness: {e}") }))?;
        let signer = Signer::from_seed(&seed).ok_or_else(|| Fault::Stored("a signing key is unusable".to_owned()))?;
        let by = before.map(Signer::id);
        let signature = before.map(|old| old.sign(KEY, signer.public()));
        self.db.execute("UPDATE signers SET seed = NULL", &[])?;
        let sql = "INSERT INTO signers (id, public, seed, made, by, signature) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.db.execute(sql, values![signer.id(), signer.public(), seed.as_slice(), micros(self.now), by, signature.as_deref()])?;
        Ok(signer)
    }
}

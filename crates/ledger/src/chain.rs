//! Appending to a chain. The head of a chain is kept in the cache and written once a batch. Nothing here answers a caller.

use jiff::Timestamp;

use crate::cache::{Cache, OrgRow};
use crate::fault::{Fault, Outcome, invalid};
use crate::record::{Entry, FORMAT, NO_PREVIOUS, hash_of, kind};
use crate::store::{Db, values};
use crate::to_canonical::to_canonical;
use crate::types::{OrgId, Refused};

/// Longest text of a record.
const MAX_RECORD: usize = 2 << 20;
/// Bits of a position that hold the sequence.
const SEQ_BITS: u32 = 40;

/// A verb's view of the open transaction.
pub(crate) struct Tx<'a> {
    /// The writer's connection.
    pub(crate) db: &'a Db,
    /// What was read before.
    pub(crate) cache: &'a mut Cache,
    /// Time of the verb, to the microsecond.
    pub(crate) now: Timestamp,
}

/// Where a record stands in the table.
pub(crate) fn position(org: i64, seq: i64) -> Outcome<i64> {
    if !(0..1 << (62 - SEQ_BITS)).contains(&org) || !(0..1 << SEQ_BITS).contains(&seq) {
        return Err(invalid("too many Orgs or records"));
    }
    Ok(org << SEQ_BITS | seq)
}

impl Tx<'_> {
    /// Refuse a writer whose epoch is older; a newer one raises the epoch.
    pub(crate) fn fence(&mut self, epoch: i64) -> Outcome<()> {
        let current = match self.cache.epoch {
            Some(known) if known == epoch => return Ok(()),
            Some(known) => known,
            None => self.db.row("SELECT CAST(value AS BIGINT) FROM meta WHERE name = 'epoch'", &[], |row| row.get(0))?.unwrap_or(0),
        };
        if epoch < current {
            return Err(Refused::Fenced { epoch, current }.into());
        }
        if epoch > current {
            self.db.execute(
                "INSERT INTO meta VALUES ('epoch', CAST(?1 AS BIGINT)) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                values![epoch],
            )?;
        }
        self.cache.epoch = Some(epoch);
        Ok(())
    }

    /// The Org of that uid, if it has a chain.
    pub(crate) fn find_org(&mut self, uid: &str) -> Outcome<Option<OrgRow>> {
        if let Some(row) = self.cache.org(uid) {
            return Ok(Some(row.clone()));
        }
        let row = self.db.row("SELECT n, name, seq, hash FROM orgs WHERE uid = ?1", values![uid], |row| {
            Ok(OrgRow { n: row.get(0)?, id: OrgId { name: row.get(1)?, uid: uid.to_owned() }, seq: row.get(2)?, hash: row.get(3)? })
        })?;
        if let Some(row) = &row {
            self.cache.read_org(row.clone());
        }
        Ok(row)
    }

    /// The Org, with its chain started if it has none.
    pub(crate) fn org(&mut self, org: &OrgId) -> Outcome<OrgRow> {
        if let Some(row) = self.find_org(&org.uid)? {
            return Ok(row);
        }
        if org.uid.is_empty() || org.name.is_empty() {
            return Err(invalid("an Org needs a name and a uid"));
        }
        let sql = "INSERT INTO orgs (uid, name, seq, hash) VALUES (?1, ?2, 0, ?3) RETURNING n";
        let n = self.db.value(sql, values![&org.uid, &org.name, NO_PREVIOUS])?;
        let installation = self.db.value("SELECT value FROM meta WHERE name = 'installation'", &[])?;
        self.cache.new_org(OrgRow { n, id: org.clone(), seq: 0, hash: NO_PREVIOUS.to_owned() });
        self.append(&org.uid, Entry { kind: kind::GENESIS.to_owned(), installation, ..Entry::default() })?;
        self.cache.org(&org.uid).cloned().ok_or_else(|| Fault::Stored("an Org just made is gone".to_owned()))
    }

    /// Append a record to an Org's chain; format, id, sequence, time, Org, epoch and previous hash are set here.
    pub(crate) fn append(&mut self, uid: &str, mut entry: Entry) -> Outcome<i64> {
        let epoch = self.cache.epoch.unwrap_or(0);
        let Some(org) = self.cache.org(uid) else {
            return Err(Fault::Stored(format!("no chain of Org uid {uid}")));
        };
        let seq = org.seq + 1;
        let pos = position(org.n, seq)?;
        entry.format = FORMAT;
        entry.id = format!("{uid}/{seq}");
        entry.seq = seq;
        entry.time = self.now;
        entry.org = org.id.clone();
        entry.epoch = epoch;
        entry.prev.clone_from(&org.hash);
        let text = to_canonical(&entry)?;
        if text.len() > MAX_RECORD {
            return Err(invalid("the record is larger than 2 MiB"));
        }
        let hash = hash_of(&text);
        self.db.execute("INSERT INTO records (pos, hash, text) VALUES (?1, ?2, ?3)", values![pos, &hash, &text])?;
        self.cache.grow(uid, seq, hash);
        Ok(seq)
    }
}

/// A time as stored.
pub(crate) fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

/// A stored time.
pub(crate) fn from_micros(micros: i64) -> Outcome<Timestamp> {
    Timestamp::from_microsecond(micros).map_err(|e| Fault::Stored(e.to_string()))
}

/// A time without what is finer than a microsecond.
pub(crate) fn to_micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

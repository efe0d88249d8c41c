//! What the writer knows of the open transaction: the epoch, heads of chains, counters, and the actions begun lately.
//!
//! Heads and counters are changed here and written once a batch, by [`Cache::flush`]; all else is written at once and
//! only mirrored here. A verb that is undone has what it changed here put back. Nothing here outlives the process.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::attempts::AttemptRow;
use crate::counters::Counter;
use crate::fault::Outcome;
use crate::record::Entry;
use crate::store::{Db, values};
use crate::types::OrgId;

/// Most actions begun, and most counters, that are kept in mind.
const MOST: usize = 16_384;

/// An Org and the head of its chain.
#[derive(Clone, Debug)]
pub(crate) struct OrgRow {
    pub(crate) n: i64,
    pub(crate) id: OrgId,
    pub(crate) seq: i64,
    pub(crate) hash: String,
}

/// How a change of the present verb is put back.
#[derive(Debug)]
enum Undo {
    Head(String, i64, String),
    NewOrg(String),
    Counter(i64, Option<Counter>),
    Begun(i64, String),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    pub(crate) epoch: Option<i64>,
    pub(crate) version: Option<i64>,
    orgs: HashMap<String, OrgRow>,
    grown: BTreeSet<String>,
    /// By row.
    counters: HashMap<i64, Counter>,
    /// Base and start of a window → row.
    named: HashMap<(String, i64), i64>,
    moved: BTreeSet<i64>,
    begun: HashMap<(i64, String), (AttemptRow, Entry)>,
    undo: Vec<Undo>,
    before: (Option<i64>, Option<i64>),
}

impl Cache {
    /// A verb begins.
    pub(crate) fn mark(&mut self) {
        self.undo.clear();
        self.before = (self.epoch, self.version);
    }

    /// The verb is undone.
    pub(crate) fn back(&mut self) {
        (self.epoch, self.version) = self.before;
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Head(uid, seq, hash) => {
                    if let Some(org) = self.orgs.get_mut(&uid) {
                        (org.seq, org.hash) = (seq, hash);
                    }
                }
                Undo::NewOrg(uid) => {
                    self.orgs.remove(&uid);
                    self.grown.remove(&uid);
                }
                Undo::Counter(n, Some(counter)) => drop(self.counters.insert(n, counter)),
                Undo::Counter(n, None) => {
                    // The row's number is free again.
                    self.counters.remove(&n);
                    self.moved.remove(&n);
                    self.named.retain(|_, row| *row != n);
                }
                Undo::Begun(org, id) => drop(self.begun.remove(&(org, id))),
            }
        }
    }

    /// Forget everything, after the transaction was undone.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Write what was changed here. Returns the new heads.
    pub(crate) fn flush(&mut self, db: &Db) -> Outcome<Vec<(String, i64)>> {
        self.write_counters(db)?;
        self.moved.clear();
        let mut heads = Vec::with_capacity(self.grown.len());
        for uid in std::mem::take(&mut self.grown) {
            if let Some(org) = self.orgs.get(&uid) {
                db.execute("UPDATE orgs SET seq = ?2, hash = ?3 WHERE n = ?1", values![org.n, org.seq, &org.hash])?;
                heads.push((uid, org.seq));
            }
        }
        if self.counters.len() > MOST {
            self.counters.clear();
            self.named.clear();
        }
        self.undo.clear();
        Ok(heads)
    }

    /// Write the counters, for a verb that reads the table. They are written again with the batch, which is harmless.
    pub(crate) fn write_counters(&self, db: &Db) -> Outcome<()> {
        let sql = "UPDATE counters SET used = ?2, reserved = ?3, version = ?4 WHERE n = ?1";
        for counter in self.moved.iter().filter_map(|n| self.counters.get(n)) {
            db.execute(sql, values![counter.n, counter.used, counter.reserved, counter.version])?;
        }
        Ok(())
    }

    /// An Org read before.
    pub(crate) fn org(&self, uid: &str) -> Option<&OrgRow> {
        self.orgs.get(uid)
    }

    /// An Org as read.
    pub(crate) fn read_org(&mut self, row: OrgRow) {
        self.orgs.insert(row.id.uid.clone(), row);
    }

    /// An Org whose chain this verb starts.
    pub(crate) fn new_org(&mut self, row: OrgRow) {
        self.undo.push(Undo::NewOrg(row.id.uid.clone()));
        self.read_org(row);
    }

    /// A chain has one record more.
    pub(crate) fn grow(&mut self, uid: &str, seq: i64, hash: String) {
        if let Some(org) = self.orgs.get_mut(uid) {
            self.undo.push(Undo::Head(uid.to_owned(), org.seq, std::mem::replace(&mut org.hash, hash)));
            org.seq = seq;
            if !self.grown.contains(uid) {
                self.grown.insert(uid.to_owned());
            }
        }
    }

    /// The row of a counter read or changed before.
    pub(crate) fn named(&self, base: &str, start: i64) -> Option<Counter> {
        // The pair is looked up by value: one short copy, far cheaper than the query that it saves.
        self.counter(*self.named.get(&(base.to_owned(), start))?)
    }

    /// A counter read or changed before.
    pub(crate) fn counter(&self, n: i64) -> Option<Counter> {
        self.counters.get(&n).copied()
    }

    /// A counter as read.
    pub(crate) fn read_counter(&mut self, counter: Counter, name: Option<(&str, i64)>) {
        self.counters.insert(counter.n, counter);
        if let Some((base, start)) = name {
            self.named.insert((base.to_owned(), start), counter.n);
        }
    }

    /// A counter that this verb changes or makes.
    pub(crate) fn move_counter(&mut self, counter: Counter) {
        let before = self.counters.insert(counter.n, counter);
        self.undo.push(Undo::Counter(counter.n, before));
        self.moved.insert(counter.n);
    }

    /// Counters that are no longer kept.
    pub(crate) fn drop_counters(&mut self, gone: &HashSet<i64>) {
        for n in gone {
            if let Some(counter) = self.counters.remove(n) {
                self.undo.push(Undo::Counter(*n, Some(counter)));
            }
        }
        self.named.retain(|_, n| !gone.contains(n));
    }

    /// Keep in mind what began, with its record, for its settlement.
    pub(crate) fn begin(&mut self, row: AttemptRow, record: Entry) {
        if self.begun.len() >= MOST {
            self.begun.clear();
        }
        self.undo.push(Undo::Begun(row.org, row.id.clone()));
        self.begun.insert((row.org, row.id.clone()), (row, record));
    }

    /// Take out what began lately: whoever changes it writes it to the table.
    pub(crate) fn take_begun(&mut self, org: i64, id: &str) -> Option<(AttemptRow, Entry)> {
        self.begun.remove(&(org, id.to_owned()))
    }
}

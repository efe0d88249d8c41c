//! Proves that a chain is whole, from its records alone, and names the first one that is broken.
//!
//! It reads one Org's chain from its first record on, or from the roots of the segments that retention dropped. It
//! accepts kinds and fields that it does not know. It never opens a database; a dropped tail can be seen only against a
//! signed root or a head that was kept elsewhere.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::{Deserialize, Serialize};

use crate::record::{NO_PREVIOUS, Record, kind};
use crate::root::{Line, Root};

/// The end of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Sequence of the last record.
    pub seq: i64,
    /// Its hash.
    pub hash: String,
}

/// What the reader knows from elsewhere, to be held against the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    /// The installation that the first record must name.
    pub installation: Option<String>,
    /// The uid of the Org that the first record must name.
    pub org_uid: Option<String>,
    /// A record that the chain must contain, e.g. the head in `Org.status`.
    pub head: Option<Head>,
    /// Ids of keys that may have signed its roots, or have endorsed those that did. None: the first key met is taken.
    pub keys: Vec<String>,
}

/// A chain that is whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// Number of records, those dropped by retention included.
    pub records: i64,
    /// Of those, how many retention has dropped: only signed roots tell of them.
    pub dropped: i64,
    /// Number of signed roots.
    pub roots: i64,
    /// Last record that a signed root covers; 0 if none does.
    pub sealed: i64,
    /// Ids of the keys that signed.
    pub keys: Vec<String>,
    /// The end of the chain; none of an empty export.
    pub head: Option<Head>,
    /// Installation named by the first record.
    pub installation: String,
    /// Name of the Org.
    pub org: String,
    /// Uid of the Org.
    pub org_uid: String,
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Flaw {
    /// It cannot be read as a record.
    Unreadable,
    /// Its text does not have its hash.
    Hash,
    /// It is missing.
    Gap,
    /// It stands in another place.
    Order,
    /// There are two of it, or the next one follows another.
    Fork,
    /// The first record is missing, or is of another installation or Org.
    FirstRecord,
    /// It is of another Org than the first record.
    Foreign,
    /// The signed root that ends with it is forged, or does not follow the one before.
    Root,
}

/// The first broken record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("record {seq} is broken ({what:?}): {detail}")]
pub struct Broken {
    /// Its sequence, by its place in the chain.
    pub seq: i64,
    /// What is wrong.
    pub what: Flaw,
    /// One sentence for people.
    pub detail: String,
}

/// Verify a chain.
///
/// # Errors
/// The first broken record.
pub fn verify<L: Into<Line>, E: Display>(lines: impl IntoIterator<Item = Result<L, E>>) -> Result<Verified, Broken> {
    verify_with(lines, &Expect::default())
}

/// Verify a chain against what is known from elsewhere.
///
/// # Errors
/// The first broken record.
pub fn verify_with<L: Into<Line>, E: Display>(lines: impl IntoIterator<Item = Result<L, E>>, expect: &Expect) -> Result<Verified, Broken> {
    let mut lines = lines.into_iter().map(|line| line.map(Into::into));
    let mut chain = Chain::new(expect);
    while let Some(line) = lines.next() {
        match line.map_err(|e| broken(chain.done.records + 1, Flaw::Unreadable, e.to_string()))? {
            Line::Record(record) => chain.record(&record, &mut lines)?,
            Line::Root(root) => chain.root(&root)?,
        }
    }
    chain.end()
}

/// What has been read of a chain.
struct Chain<'a> {
    expect: &'a Expect,
    done: Verified,
    /// Hash of the last record, present or dropped.
    hash: String,
    /// Public parts of known keys, by id.
    known: BTreeMap<String, String>,
    /// Digest of the last root.
    root: String,
    /// Highest sequence that a record of retention says was dropped.
    retained: i64,
}

impl<'a> Chain<'a> {
    fn new(expect: &'a Expect) -> Self {
        let known = expect.keys.iter().map(|id| (id.clone(), String::new())).collect();
        let zero = || NO_PREVIOUS.to_owned();
        Self { expect, done: Verified::default(), hash: zero(), known, root: zero(), retained: 0 }
    }

    fn record(&mut self, record: &Record, rest: &mut impl Iterator<Item = Result<Line, impl Display>>) -> Result<(), Broken> {
        let place = self.done.records + 1;
        if record.computed_hash() != record.hash() {
            return Err(broken(place, Flaw::Hash, "its text does not have its hash"));
        }
        if place == 1 {
            self.first(record)?;
        } else {
            self.follows(record, place, rest)?;
        }
        self.known_head(place, record.hash())?;
        if record.kind == kind::RETENTION {
            let last = record.facts.get("last").and_then(serde_json::Value::as_i64).unwrap_or_default();
            self.retained = self.retained.max(last);
        }
        self.done.records = place;
        record.hash().clone_into(&mut self.hash);
        Ok(())
    }

    fn known_head(&self, place: i64, hash: &str) -> Result<(), Broken> {
        match &self.expect.head {
            Some(head) if head.seq == place && head.hash != hash => {
                Err(broken(place, Flaw::Fork, "the known head has another hash for it"))
            }
            _ => Ok(()),
        }
    }

    fn names(&mut self, installation: &str, org: &crate::types::OrgId) -> Result<(), Broken> {
        let wrong = |detail: String| Err(broken(1, Flaw::FirstRecord, detail));
        if let Some(expected) = &self.expect.installation
            && *expected != installation
        {
            return wrong(format!("it names installation {installation:?}, not {expected:?}"));
        }
        if let Some(uid) = &self.expect.org_uid
            && *uid != org.uid
        {
            return wrong(format!("it names Org uid {:?}, not {uid:?}", org.uid));
        }
        if installation.is_empty() || org.uid.is_empty() {
            return wrong("it does not name its installation and Org".to_owned());
        }
        installation.clone_into(&mut self.done.installation);
        self.done.org.clone_from(&org.name);
        self.done.org_uid.clone_from(&org.uid);
        Ok(())
    }

    fn first(&mut self, record: &Record) -> Result<(), Broken> {
        if record.kind != kind::GENESIS || record.seq != 1 || record.prev != NO_PREVIOUS {
            let detail = format!("the chain starts with record {} of kind {:?}", record.seq, record.kind);
            return Err(broken(1, Flaw::FirstRecord, detail));
        }
        self.names(&record.installation, &record.org)
    }

    fn follows(&self, record: &Record, place: i64, rest: &mut impl Iterator<Item = Result<Line, impl Display>>) -> Result<(), Broken> {
        let before = place - 1;
        if record.org.uid != self.done.org_uid {
            return Err(broken(place, Flaw::Foreign, format!("it is of Org uid {:?}", record.org.uid)));
        }
        if record.seq > place {
            // Missing, or further down?
            return Err(match rest.flatten().find(|later| matches!(later, Line::Record(later) if later.seq == place)) {
                Some(_) => broken(place, Flaw::Order, format!("record {} stands in its place", record.seq)),
                None => broken(place, Flaw::Gap, format!("missing: record {} follows", record.seq)),
            });
        }
        if record.seq < place {
            return Err(if record.seq == before && record.hash() != self.hash {
                broken(record.seq, Flaw::Fork, "there are two of it")
            } else {
                broken(place, Flaw::Order, format!("record {} stands in its place again", record.seq))
            });
        }
        if record.prev != self.hash {
            return Err(broken(place, Flaw::Fork, format!("it does not follow record {before}")));
        }
        Ok(())
    }

    fn root(&mut self, root: &Root) -> Result<(), Broken> {
        let said = root.statement();
        let wrong = |detail: String| Err(broken(said.last, Flaw::Root, format!("the root of segment {}: {detail}", said.segment)));
        if self.done.records == 0 {
            self.names(&said.installation, &said.org)?;
        }
        if said.installation != self.done.installation || said.org.uid != self.done.org_uid {
            return wrong("it is of another chain".to_owned());
        }
        if let Err(why) = root.check(&mut self.known) {
            return wrong(why);
        }
        if said.segment != self.done.roots + 1 || said.first != self.done.sealed + 1 || said.last < said.first {
            return wrong("it does not follow the root before".to_owned());
        }
        if said.previous != self.root {
            return wrong("it names another root before it".to_owned());
        }
        let here = self.done.records;
        if here == self.done.dropped && said.first == here + 1 {
            // Nothing of it is here: retention has dropped it, which a later record must say.
            self.done.dropped = said.last;
            self.done.records = said.last;
            self.hash.clone_from(&said.last_hash);
            self.known_head(said.last, &said.last_hash)?;
        } else if said.last > here {
            return Err(broken(
                here + 1,
                Flaw::Gap,
                format!("missing: the signed root of segment {} ends with record {}", said.segment, said.last),
            ));
        } else if said.last < here {
            return wrong(format!("it stands behind record {here}"));
        } else if said.last_hash != self.hash {
            return Err(broken(said.last, Flaw::Fork, format!("the signed root of segment {} has another hash for it", said.segment)));
        }
        self.root = root.digest();
        self.done.roots += 1;
        self.done.sealed = said.last;
        if !self.done.keys.contains(&said.key_id) {
            self.done.keys.push(said.key_id.clone());
        }
        Ok(())
    }

    fn end(mut self) -> Result<Verified, Broken> {
        let records = self.done.records;
        if let Some(head) = &self.expect.head
            && head.seq > records
        {
            let what = if records == 0 { Flaw::FirstRecord } else { Flaw::Gap };
            return Err(broken(records + 1, what, format!("missing: the known head is record {}", head.seq)));
        }
        if self.retained < self.done.dropped {
            let detail = format!("missing up to record {}, and no record says that retention dropped them", self.done.dropped);
            return Err(broken(self.retained + 1, Flaw::Gap, detail));
        }
        self.done.head = (records > 0).then_some(Head { seq: records, hash: self.hash });
        Ok(self.done)
    }
}

fn broken(seq: i64, what: Flaw, detail: impl Into<String>) -> Broken {
    Broken { seq, what, detail: detail.into() }
}

//! Proves that a chain is whole, from its records alone, and names the first one that is broken.
//!
//! It reads one Org's chain from its first record on. It accepts kinds and fields that it does not know. It
//! never opens a database; a dropped tail can be seen only against a head that was kept elsewhere.

use std::fmt::Display;

use serde::{Deserialize, Serialize};

use crate::record::{NO_PREVIOUS, Record, kind};

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
}

/// A chain that is whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// Number of records.
    pub records: i64,
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
pub fn verify<E: Display>(records: impl IntoIterator<Item = Result<Record, E>>) -> Result<Verified, Broken> {
    verify_with(records, &Expect::default())
}

/// Verify a chain against what is known from elsewhere.
///
/// # Errors
/// The first broken record.
pub fn verify_with<E: Display>(records: impl IntoIterator<Item = Result<Record, E>>, expect: &Expect) -> Result<Verified, Broken> {
    let mut records = records.into_iter();
    let mut done = Verified::default();
    let mut last: Option<Record> = None;
    while let Some(record) = records.next() {
        let place = done.records + 1;
        let record = record.map_err(|e| broken(place, Flaw::Unreadable, e.to_string()))?;
        if record.computed_hash() != record.hash() {
            return Err(broken(place, Flaw::Hash, "its text does not have its hash"));
        }
        match &last {
            None => first(&record, expect, &mut done)?,
            Some(before) => follows(before, &record, place, &mut records)?,
        }
        if let Some(head) = &expect.head
            && head.seq == place
            && head.hash != record.hash()
        {
            return Err(broken(place, Flaw::Fork, "the known head has another hash for it"));
        }
        done.records = place;
        last = Some(record);
    }
    if let Some(head) = &expect.head
        && head.seq > done.records
    {
        let what = if done.records == 0 { Flaw::FirstRecord } else { Flaw::Gap };
        return Err(broken(done.records + 1, what, format!("missing: the known head is record {}", head.seq)));
    }
    done.head = last.map(|record| Head { seq: record.seq, hash: record.hash().to_owned() });
    Ok(done)
}

fn first(record: &Record, expect: &Expect, done: &mut Verified) -> Result<(), Broken> {
    let wrong = |detail: String| Err(broken(1, Flaw::FirstRecord, detail));
    if record.kind != kind::GENESIS || record.seq != 1 || record.prev != NO_PREVIOUS {
        return wrong(format!("the chain starts with record {} of kind {:?}", record.seq, record.kind));
    }
    if let Some(installation) = &expect.installation
        && *installation != record.installation
    {
        return wrong(format!("it names installation {:?}, not {installation:?}", record.installation));
    }
    if let Some(uid) = &expect.org_uid
        && *uid != record.org.uid
    {
        return wrong(format!("it names Org uid {:?}, not {uid:?}", record.org.uid));
    }
    if record.installation.is_empty() || record.org.uid.is_empty() {
        return wrong("it does not name its installation and Org".to_owned());
    }
    done.installation.clone_from(&record.installation);
    done.org.clone_from(&record.org.name);
    done.org_uid.clone_from(&record.org.uid);
    Ok(())
}

fn follows<E: Display>(
    before: &Record,
    record: &Record,
    place: i64,
    rest: &mut impl Iterator<Item = Result<Record, E>>,
) -> Result<(), Broken> {
    if record.org.uid != before.org.uid {
        return Err(broken(place, Flaw::Foreign, format!("it is of Org uid {:?}", record.org.uid)));
    }
    if record.seq > place {
        // Missing, or further down?
        return Err(match rest.flatten().find(|later| later.seq == place) {
            Some(_) => broken(place, Flaw::Order, format!("record {} stands in its place", record.seq)),
            None => broken(place, Flaw::Gap, format!("missing: record {} follows", record.seq)),
        });
    }
    if record.seq < place {
        return Err(if record.seq == before.seq && record.hash() != before.hash() {
            broken(record.seq, Flaw::Fork, "there are two of it")
        } else {
            broken(place, Flaw::Order, format!("record {} stands in its place again", record.seq))
        });
    }
    if record.prev != before.hash() {
        return Err(broken(place, Flaw::Fork, format!("it does not follow record {}", before.seq)));
    }
    Ok(())
}

fn broken(seq: i64, what: Flaw, detail: impl Into<String>) -> Broken {
    Broken { seq, what, detail: detail.into() }
}

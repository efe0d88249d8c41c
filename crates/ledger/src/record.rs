//! The record: one entry of a chain, its exact text, and its hash.
//!
//! A record's hash is the SHA-256 of its canonical text without `hash`. That text is stored and exported as
//! it was hashed: an exported line is the text with `,"hash":"…"` put before its last brace, so cutting that
//! off and hashing the rest needs no JSON reader. What this version does not know stays in the text.

use std::ops::Deref;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::canonical::canonical;

pub use crate::entry::{Charged, Cost, Entry, FORMAT, NO_PREVIOUS, kind};

/// A record as stored: what it says, its exact text, and its hash.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    entry: Entry,
    text: String,
    hash: String,
}

/// Why a line is not a record.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The line is not JSON of a record.
    #[error("the line is not a record: {0}")]
    NotARecord(String),
    /// The line is a record, but not in the text that was hashed.
    #[error("the line is not in canonical form")]
    NotCanonical,
    /// The line could not be read at all.
    #[error("the line cannot be read")]
    Io(#[from] std::io::Error),
}

impl Record {
    /// A stored record. The hash is taken as stored; [`Record::computed_hash`] tells whether it is right.
    pub(crate) fn stored(text: String, hash: String) -> Result<Self, Unreadable> {
        let entry = serde_json::from_str(&text).map_err(not_a_record)?;
        Ok(Self { entry, text, hash })
    }

    /// Read one exported line; any difference from the exact text, even of one space, is an error.
    ///
    /// # Errors
    /// When the line is not a record in its exact text.
    pub fn from_line(line: &str) -> Result<Self, Unreadable> {
        let line = line.trim_end_matches(['\n', '\r']);
        let record: Self = serde_json::from_str(line).map_err(not_a_record)?;
        if record.to_line() == line { Ok(record) } else { Err(Unreadable::NotCanonical) }
    }

    /// The exported line, without line feed.
    #[must_use]
    pub fn to_line(&self) -> String {
        line_of(&self.text, &self.hash)
    }

    /// What the record says.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The exact text that is hashed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its hash as stored, lower-case hex.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The hash of its text, computed now.
    #[must_use]
    pub fn computed_hash(&self) -> String {
        hash_of(&self.text)
    }
}

impl Deref for Record {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl Serialize for Record {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut value: Value = serde_json::from_str(&self.text).map_err(serde::ser::Error::custom)?;
        value["hash"] = Value::String(self.hash.clone());
        value.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let mut members = serde_json::Map::deserialize(deserializer)?;
        let Some(Value::String(hash)) = members.remove("hash") else {
            return Err(D::Error::missing_field("hash"));
        };
        let value = Value::Object(members);
        let text = canonical(&value).map_err(D::Error::custom)?;
        let entry = serde_json::from_value(value).map_err(D::Error::custom)?;
        Ok(Self { entry, text, hash })
    }
}

/// Read exported lines; empty ones are skipped.
pub fn read_lines(reader: impl std::io::BufRead) -> impl Iterator<Item = Result<Record, Unreadable>> {
    reader.lines().filter_map(|line| match line {
        Ok(line) if line.trim().is_empty() => None,
        Ok(line) => Some(Record::from_line(&line)),
        Err(error) => Some(Err(error.into())),
    })
}

/// The exported line of a record's text and hash.
pub(crate) fn line_of(text: &str, hash: &str) -> String {
    let body = text.strip_suffix('}').unwrap_or(text);
    format!("{body},\"hash\":\"{hash}\"}}")
}

/// SHA-256 of a text, lower-case hex.
pub(crate) fn hash_of(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

#[allow(clippy::needless_pass_by_value)] // signature of map_err
fn not_a_record(error: serde_json::Error) -> Unreadable {
    Unreadable::NotARecord(error.to_string())
}

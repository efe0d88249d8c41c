//! The root of a segment: a signed statement of where a stretch of a chain begins and ends.
//!
//! Roots of one Org follow each other like records do: each names the digest of the one before. When retention drops a
//! segment its root stays, so that what is left still hangs on to the chain's first record. A key that follows another
//! is endorsed by it. An exported root is its text with `,"signature":"…"` put before its last brace.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::canonical::canonical;
use crate::record::{Record, Unreadable, hash_of};
use crate::signer::{key_id, signed};
use crate::types::OrgId;

/// What a root's signature is for.
pub(crate) const ROOT: &str = "ledger-root/v1";
/// What an endorsement's signature is for.
pub(crate) const KEY: &str = "ledger-key/v1";
/// Kind of a root, as a record has one.
pub(crate) const KIND: &str = "root";

/// What a root says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Statement {
    /// Always `root`.
    pub kind: String,
    /// Version of the format.
    pub format: i64,
    /// The installation.
    pub installation: String,
    /// Whose chain it is.
    pub org: OrgId,
    /// Number of the segment, from 1.
    pub segment: i64,
    /// Sequence of its first record.
    pub first: i64,
    /// Sequence of its last record.
    pub last: i64,
    /// Hash of its last record.
    pub last_hash: String,
    /// When the last record was written.
    #[schemars(with = "String")]
    pub last_time: Timestamp,
    /// When the segment was closed.
    #[schemars(with = "String")]
    pub time: Timestamp,
    /// SHA-256 of the text of the root before it; zeros for the first.
    pub previous: String,
    /// Id of the key that signed.
    pub key_id: String,
    /// Its public part, Ed25519, hex.
    pub public_key: String,
    /// How that key follows from the one of the root before; all of them up to it in the first root.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endorsements: Vec<Endorsement>,
}

/// A key's word for the one that follows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Endorsement {
    /// Public part of the new key.
    pub public_key: String,
    /// Id of the key that endorses it.
    pub by: String,
    /// Signature of the new public part.
    pub signature: String,
}

/// A signed root.
#[derive(Clone, Debug, PartialEq)]
pub struct Root {
    statement: Statement,
    text: String,
    signature: String,
}

/// One line of an export.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// A record.
    Record(Box<Record>),
    /// The root of the segment that ends with the record before, or of one that retention dropped.
    Root(Box<Root>),
}

impl From<Record> for Line {
    fn from(record: Record) -> Self {
        Self::Record(Box::new(record))
    }
}

impl Line {
    /// Read one exported line; any difference from the exact text, even of one space, is an error.
    ///
    /// # Errors
    /// When the line is neither a record nor a root in its exact text.
    pub fn read(line: &str) -> Result<Self, Unreadable> {
        let line = line.trim_end_matches(['\n', '\r']);
        if line.ends_with("\"}")
            && let Some((body, signature)) = line.rsplit_once(",\"signature\":\"")
            && !signature.contains(',')
        {
            let signature = signature.strip_suffix("\"}").unwrap_or_default().to_owned();
            return Root::stored(format!("{body}}}"), signature).map(|root| Self::Root(Box::new(root)));
        }
        Record::from_line(line).map(Self::from)
    }
}

impl Root {
    /// A root as stored or exported.
    pub(crate) fn stored(text: String, signature: String) -> Result<Self, Unreadable> {
        let not = |error: serde_json::Error| Unreadable::NotARecord(error.to_string());
        let value: serde_json::Value = serde_json::from_str(&text).map_err(not)?;
        if canonical(&value).ok().as_deref() != Some(&text) {
            return Err(Unreadable::NotCanonical);
        }
        let statement: Statement = serde_json::from_value(value).map_err(not)?;
        if statement.kind != KIND {
            return Err(Unreadable::NotARecord("signed, but not a root".to_owned()));
        }
        Ok(Self { statement, text, signature })
    }

    /// What it says.
    #[must_use]
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The exported line, without line feed.
    #[must_use]
    pub fn to_line(&self) -> String {
        let body = self.text.strip_suffix('}').unwrap_or(&self.text);
        format!("{body},\"signature\":\"{}\"}}", self.signature)
    }

    /// Digest that the next root names.
    #[must_use]
    pub fn digest(&self) -> String {
        hash_of(&self.text)
    }

    /// Checks the signature, and that its key is one of those known or follows from one; it is known afterwards.
    /// `known` has public parts by key id; with none known, the first key met is taken.
    ///
    /// # Errors
    /// What is wrong, as a sentence.
    pub(crate) fn check(&self, known: &mut BTreeMap<String, String>) -> Result<(), String> {
        let Statement { key_id: id, public_key, endorsements, .. } = &self.statement;
        if key_id(public_key) != *id {
            return Err(format!("its key is not {id}"));
        }
        if !signed(public_key, ROOT, &self.text, &self.signature) {
            return Err("its signature is not of its text and key".to_owned());
        }
        // A pinned key has an id only, until its public part is met.
        for (pinned, public) in known.iter_mut().filter(|(_, public)| public.is_empty()) {
            let met = std::iter::once(public_key).chain(endorsements.iter().map(|e| &e.public_key));
            if let Some(found) = met.into_iter().find(|public| key_id(public) == *pinned) {
                public.clone_from(found);
            }
        }
        let first = endorsements.first().map(|e| e.by.clone());
        for endorsement in endorsements {
            let Some(by) = known.get(&endorsement.by).filter(|public| !public.is_empty()) else { continue };
            if !signed(by, KEY, &endorsement.public_key, &endorsement.signature) {
                return Err(format!("key {} did not endorse {}", endorsement.by, key_id(&endorsement.public_key)));
            }
            known.insert(key_id(&endorsement.public_key), endorsement.public_key.clone());
        }
        if known.is_empty() {
            known.insert(id.clone(), public_key.clone());
        }
        if known.get(id) == Some(public_key) {
            return Ok(());
        }
        Err(match first {
            None => format!("key {id} is not known, and no known key endorsed it"),
            Some(by) => format!("key {id} follows from key {by}, which is not known"),
        })
    }
}

/// Read the lines of an export; empty ones are skipped.
pub fn read_export(reader: impl std::io::BufRead) -> impl Iterator<Item = Result<Line, Unreadable>> {
    reader.lines().filter_map(|line| match line {
        Ok(line) if line.trim().is_empty() => None,
        Ok(line) => Some(Line::read(&line)),
        Err(error) => Some(Err(error.into())),
    })
}

//! `note`: a record that reserves nothing.

use crate::chain::Tx;
use crate::fault::{Outcome, invalid};
use crate::record::{Entry, kind};
use crate::store::values;
use crate::types::{KeyedDigest, Note};
use crate::verbs::{check_name, entry, lift_facts};

/// Kinds that only their own verb may write.
const OWN: [&str; 8] = [kind::GENESIS, kind::HOLD, kind::BEGIN, kind::SETTLE, kind::RELEASE, kind::RETENTION, kind::ERASURE, "root"];

/// Record. The same `once` key again answers the sequence of the first and writes nothing.
pub(crate) fn note(tx: &mut Tx<'_>, epoch: i64, note: Note, input: Option<KeyedDigest>) -> Outcome<i64> {
    tx.fence(epoch)?;
    let Note { kind, org, once, subject, actor, target, reason, facts } = note;
    check_name("the kind", &kind)?;
    if OWN.contains(&kind.as_str()) {
        return Err(invalid(format!("a record of kind {kind} is written by its own verb")));
    }
    let org = tx.org(&org)?;
    if let Some(key) = &once {
        check_name("the key", key)?;
        if let Some(seq) = tx.db.row("SELECT seq FROM once WHERE org = ?1 AND key = ?2", values![org.n, key], |row| row.get(0))? {
            return Ok(seq);
        }
    }
    let mut record = match subject {
        Some(subject) if subject.org.uid != org.id.uid => return Err(invalid("the subject is of another Org")),
        Some(subject) => entry(&kind, subject, input),
        None => Entry { kind, actor, target, ..Entry::default() },
    };
    if !reason.is_empty() {
        record.reason = reason;
    }
    lift_facts(&mut record, facts);
    let seq = tx.append(&org.id.uid, record)?;
    if let Some(key) = &once {
        tx.db.execute("INSERT INTO once VALUES (?1, ?2, ?3)", values![org.n, key, seq])?;
    }
    Ok(seq)
}

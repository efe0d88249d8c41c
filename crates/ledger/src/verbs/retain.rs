//! `retain`: drop the oldest segment of a chain once it is older than it must be kept. Its root stays, and a record says
//! what was dropped, so that what is left still verifies.
//!
//! It never drops a segment that is not sealed, the one that holds the chain's end, or one that holds the start of an
//! action whose outcome may still be settled.

use jiff::Timestamp;
use serde_json::json;

use crate::chain::{Tx, micros, position};
use crate::fault::Outcome;
use crate::record::{Entry, kind};
use crate::store::values;
use crate::types::OrgId;

/// Drop the oldest segment of an Org's chain, if all of it was written before a time. Returns the sequences of its first
/// and last record if it was dropped.
pub(crate) fn retain(tx: &mut Tx<'_>, epoch: i64, org: &OrgId, before: Timestamp) -> Outcome<Option<(i64, i64)>> {
    tx.fence(epoch)?;
    let Some(org) = tx.find_org(&org.uid)? else { return Ok(None) };
    let sql = "SELECT segment, first, last FROM roots
        WHERE org = ?1 AND dropped IS NULL AND last_time < ?2 AND last < ?3 ORDER BY segment LIMIT 1";
    let oldest: Option<(i64, i64, i64)> =
        tx.db.row(sql, values![org.n, micros(before), org.seq], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let Some((segment, first, last)) = oldest else { return Ok(None) };
    let sql = "SELECT min(first_seq) FROM attempts WHERE org = ?1 AND (state < 2 OR (outcome = 2 AND resolved = 0)) AND first_seq <= ?2";
    let needed: Option<i64> = tx.db.value(sql, values![org.n, last])?;
    // The oldest segment that is left is looked at: whatever is needed of it, or of one before, keeps it.
    if needed.is_some() {
        return Ok(None);
    }
    let (from, to) = (position(org.n, first)?, position(org.n, last)?);
    tx.db.execute("DELETE FROM records WHERE pos >= ?1 AND pos <= ?2", values![from, to])?;
    tx.db.execute("UPDATE roots SET dropped = ?3 WHERE org = ?1 AND segment = ?2", values![org.n, segment, micros(tx.now)])?;
    let facts = [("segment", segment), ("first", first), ("last", last)];
    let record = Entry {
        kind: kind::RETENTION.to_owned(),
        by: "ledger".to_owned(),
        facts: facts.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect(),
        ..Entry::default()
    };
    tx.append(&org.id.uid, record)?;
    Ok(Some((first, last)))
}

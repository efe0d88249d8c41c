//! `erase`: destroy the keys of an Org's digests. What was digested can no longer be found out by trying, and the chain
//! stays whole, since it holds digests and not what they are of.
//!
//! Results that are kept for collection go too. Texts of inputs that the Org has recorded in full are part of the chain:
//! they go with their segment only.

use rusqlite::{OptionalExtension, params};
use serde_json::json;

use crate::chain::Tx;
use crate::fault::Outcome;
use crate::record::{Entry, kind};
use crate::types::OrgId;
use crate::verbs::check_name;

/// Destroy the keys and record it; once for each name. Returns the ids of the keys, none when the name was used before.
pub(crate) fn erase(tx: &mut Tx<'_>, epoch: i64, org: &OrgId, name: &str) -> Outcome<Option<Vec<String>>> {
    tx.fence(epoch)?;
    check_name("the erasure's name", name)?;
    let Some(org) = tx.find_org(&org.uid)? else { return Ok(None) };
    let once = format!("erasure/{name}");
    let before: Option<i64> = tx
        .conn
        .prepare_cached("SELECT seq FROM once WHERE org = ?1 AND key = ?2")?
        .query_row(params![org.n, once], |row| row.get(0))
        .optional()?;
    if before.is_some() {
        return Ok(None);
    }
    let keys = tx
        .conn
        .prepare_cached("SELECT id FROM keys WHERE org = ?1 AND key IS NOT NULL ORDER BY made, id")?
        .query_map([org.n], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    // What is deleted is overwritten with zeros, as `secure_delete` has it.
    tx.conn.execute("UPDATE keys SET key = NULL WHERE org = ?1", [org.n])?;
    tx.conn.execute("DELETE FROM results WHERE attempt IN (SELECT n FROM attempts WHERE org = ?1)", [org.n])?;
    let record = Entry {
        kind: kind::ERASURE.to_owned(),
        reason: "KeysDestroyed".to_owned(),
        facts: [("name".to_owned(), json!(name)), ("keys".to_owned(), json!(keys))].into(),
        ..Entry::default()
    };
    let seq = tx.append(&org.id.uid, record)?;
    tx.conn.prepare_cached("INSERT INTO once VALUES (?1, ?2, ?3)")?.execute(params![org.n, once, seq])?;
    Ok(Some(keys))
}

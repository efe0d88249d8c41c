//! `erase`: destroy the keys of an Org's digests. What was digested can no longer be found out by trying, and the chain
//! stays whole, since it holds digests and not what they are of.
//!
//! Results that are kept for collection go too. Texts of inputs that the Org has recorded in full are part of the chain:
//! they go with their segment only.

use serde_json::json;

use crate::chain::Tx;
use crate::fault::Outcome;
use crate::record::{Entry, kind};
use crate::store::values;
use crate::types::OrgId;
use crate::verbs::check_name;

/// Destroy the keys and record it; once for each name. Returns the ids of the keys, none when the name was used before.
pub(crate) fn erase(tx: &mut Tx<'_>, epoch: i64, org: &OrgId, name: &str) -> Outcome<Option<Vec<String>>> {
    tx.fence(epoch)?;
    check_name("the erasure's name", name)?;
    let Some(org) = tx.find_org(&org.uid)? else { return Ok(None) };
    let once = format!("erasure/{name}");
    let before: Option<i64> = tx.db.row("SELECT seq FROM once WHERE org = ?1 AND key = ?2", values![org.n, &once], |row| row.get(0))?;
    if before.is_some() {
        return Ok(None);
    }
    let sql = "SELECT id FROM keys WHERE org = ?1 AND key IS NOT NULL ORDER BY made, id";
    let keys: Vec<String> = tx.db.rows(sql, values![org.n], |row| row.get(0))?;
    // What is deleted is overwritten with zeros, as SQLite's `secure_delete` has it; a server is told to afterwards.
    tx.db.execute("UPDATE keys SET key = NULL WHERE org = ?1", values![org.n])?;
    tx.db.execute("DELETE FROM results WHERE attempt IN (SELECT n FROM attempts WHERE org = ?1)", values![org.n])?;
    let record = Entry {
        kind: kind::ERASURE.to_owned(),
        reason: "KeysDestroyed".to_owned(),
        facts: [("name".to_owned(), json!(name)), ("keys".to_owned(), json!(keys))].into(),
        ..Entry::default()
    };
    let seq = tx.append(&org.id.uid, record)?;
    tx.db.execute("INSERT INTO once VALUES (?1, ?2, ?3)", values![org.n, &once, seq])?;
    Ok(Some(keys))
}

//! Definitions: each version of an object once, when it was in force, and a record for each change.
//!
//! Together with the digests in the records this is what a past decision is replayed from.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::chain::{Tx, micros};
use crate::fault::Outcome;
use crate::record::{Entry, hash_of, kind};
use crate::store::values;
use crate::types::{Actor, OrgId, Target};
use crate::verbs::check_name;

/// A definition object as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    /// Org whose chain records it.
    pub org: OrgId,
    /// Its kind, e.g. `Policy`.
    pub kind: String,
    /// Its namespace; empty for a cluster-scoped kind.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What is in force, e.g. its uid and spec; none once it is gone.
    pub body: Option<Value>,
    /// Who changed it, where that is known.
    pub actor: Option<Actor>,
}

/// A definition as the ledger has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Defined {
    /// SHA-256 (hex) of the canonical body; empty once it is gone.
    pub digest: String,
    /// Sequence of the record, if this changed anything.
    pub seq: Option<i64>,
}

/// Bring a definition into force, or take it out. `text` is the canonical body.
pub(crate) fn define(tx: &mut Tx<'_>, epoch: i64, definition: Definition, text: Option<String>) -> Outcome<Defined> {
    tx.fence(epoch)?;
    let Definition { org, kind, namespace, name, actor, .. } = definition;
    check_name("the kind", &kind)?;
    check_name("the name", &name)?;
    let org = tx.org(&org)?;
    let sql = "SELECT n, digest FROM in_force WHERE org = ?1 AND kind = ?2 AND namespace = ?3 AND name = ?4 AND until IS NULL";
    let before: Option<(i64, String)> = tx.db.row(sql, values![org.n, &kind, &namespace, &name], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let digest = text.as_deref().map(hash_of).unwrap_or_default();
    let previous = before.as_ref().map(|(_, digest)| digest.clone()).unwrap_or_default();
    if digest == previous {
        return Ok(Defined { digest, seq: None });
    }
    let now = micros(tx.now);
    if let Some((n, _)) = before {
        tx.db.execute("UPDATE in_force SET until = ?2 WHERE n = ?1", values![n, now])?;
    }
    if let Some(text) = text {
        tx.db.execute("INSERT INTO definitions VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING", values![org.n, &digest, &text])?;
        let sql = "INSERT INTO in_force (org, kind, namespace, name, digest, since) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        tx.db.execute(sql, values![org.n, &kind, &namespace, &name, &digest, now])?;
    }
    let mut record = Entry {
        kind: kind::DEFINITION.to_owned(),
        actor,
        target: Some(Target { kind, namespace, name, digest: digest.clone() }),
        reason: if digest.is_empty() {
            "Removed"
        } else if previous.is_empty() {
            "Added"
        } else {
            "Changed"
        }
        .to_owned(),
        ..Entry::default()
    };
    if !previous.is_empty() {
        record.facts.insert("previous".to_owned(), Value::String(previous));
    }
    let seq = tx.append(&org.id.uid, record)?;
    Ok(Defined { digest, seq: Some(seq) })
}

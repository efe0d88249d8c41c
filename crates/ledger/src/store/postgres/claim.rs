//! Who may write: the advisory lock of one session, and a claim in the database that outlives it.
//!
//! The lock keeps a second writer out while the session lasts. The claim, the newest row of `writers`, keeps out a writer
//! whose session was lost without its knowing, also where a pooler stands between and a lock means little.

use std::sync::Arc;

use rand::TryRngCore;

use crate::fault::{Fault, Outcome};
use crate::open::OpenError;
use crate::store::postgres::session::Claim;
use crate::store::postgres::{Server, schema};
use crate::store::{Db, StoreError, values};
use crate::types::Refused;

/// First half of the lock's key; the second is the schema's number, so that each schema has a lock of its own.
const LOCK: &str = "SELECT CASE WHEN pg_try_advisory_lock(1886350452, (current_schema()::regnamespace::oid::bigint & 2147483647)::int)
    THEN 1 ELSE 0 END::bigint";
/// Claims kept for those who ask what became of their last batch.
const KEPT: i64 = 1000;

/// What a writer finds that has connected again.
pub(crate) enum Again {
    /// Its claim stands: so many batches were committed under it.
    Mine(Box<Db>, i64),
    /// Another has taken the ledger since; so many batches were committed under its own claim, if that is still known.
    Taken(Option<i64>),
}

/// Open for writing: connect, lock, migrate, claim.
pub(crate) fn open_writer(server: &Server) -> Result<Db, OpenError> {
    let db = Db::Postgres(Box::new(server.connect()?));
    if db.row("SELECT current_schema()", &[], |row| row.get::<Option<String>>(0))?.flatten().is_none() {
        return Err(OpenError::Config("the search_path of Postgres names no schema that exists".to_owned()));
    }
    for setting in ["fsync", "full_page_writes"] {
        if db.value::<String>("SELECT current_setting(?1)", values![setting])? != "on" {
            return Err(OpenError::Config(format!("Postgres runs with {setting} off: what it answers as committed may be lost")));
        }
    }
    lock(&db)?;
    schema::migrate(&db)?;
    claim(&db)?;
    Ok(db)
}

/// Connect again after a connection was lost.
pub(crate) fn reopen_writer(server: &Arc<Server>, claim: &Claim) -> Outcome<Again> {
    let session = server.connect()?;
    let db = Db::Postgres(Box::new(session));
    if db.value::<i64>(LOCK, &[])? == 0 {
        return Err(StoreError::Lost("the ledger's lock in Postgres is held by another session".to_owned()).into());
    }
    // Whoever holds the lock decides alone: what the lost session sent has been done by now, or never will be.
    let newest: Option<String> = db.row("SELECT token FROM writers ORDER BY n DESC LIMIT 1", &[], |row| row.get(0))?;
    let batch: Option<i64> = db.row("SELECT batch FROM writers WHERE token = ?1", values![&claim.token], |row| row.get(0))?;
    match batch {
        Some(batch) if newest.as_deref() == Some(claim.token.as_str()) => {
            if let Db::Postgres(session) = &db {
                session.set_claim(Claim { token: claim.token.clone(), batch });
            }
            Ok(Again::Mine(Box::new(db), batch))
        }
        batch => {
            db.close();
            Ok(Again::Taken(batch))
        }
    }
}

fn lock(db: &Db) -> Result<(), OpenError> {
    if db.value::<i64>(LOCK, &[])? == 0 {
        return Err(OpenError::Locked { what: "the advisory lock in Postgres".to_owned() });
    }
    Ok(())
}

fn claim(db: &Db) -> Outcome<()> {
    let mut random = [0; 16];
    rand::rngs::OsRng
        .try_fill_bytes(&mut random)
        .map_err(|e| Fault::Refused(Refused::LedgerUnavailable { what: format!("no randomness: {e}") }))?;
    let token = hex::encode(random);
    db.begin()?;
    // Waits for a transaction of the claim before, which ends it for that one.
    db.row("SELECT n FROM writers ORDER BY n DESC LIMIT 1 FOR UPDATE", &[], |_| Ok(()))?;
    let n: i64 = db.value("INSERT INTO writers (token, batch) VALUES (?1, 0) RETURNING n", values![&token])?;
    db.execute("DELETE FROM writers WHERE n < ?1", values![n - KEPT])?;
    db.commit()?;
    if let Db::Postgres(session) = db {
        session.set_claim(Claim { token, batch: 0 });
    }
    Ok(())
}

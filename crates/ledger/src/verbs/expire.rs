//! What time does: holds lapse; results, callers' keys and counters of old windows are dropped.
//!
//! It never touches what has begun: an outcome that nobody reported is the reaper's to settle.

use jiff::SignedDuration;

use crate::attempts;
use crate::cache::OrgRow;
use crate::chain::{Tx, micros};
use crate::fault::{Fault, Outcome};
use crate::store::values;
use crate::types::Attempt;
use crate::verbs::release::give_back;

/// Reason code of a hold that lapsed.
pub(crate) const HOLD_EXPIRED: &str = "HoldExpired";
/// Most holds that lapse in one call, so that others are not kept waiting.
const AT_ONCE: i64 = 1000;
/// How long a caller's key is kept, and a counter after its window.
const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// Lapse the holds whose time is over, at most 1,000 of them, and drop what is kept for a day only.
pub(crate) fn expire(tx: &mut Tx<'_>, epoch: i64) -> Outcome<Vec<Attempt>> {
    tx.fence(epoch)?;
    let mut lapsed = Vec::new();
    for (mut row, id) in attempts::lapsed(tx.db, tx.now, AT_ONCE)? {
        let org: OrgRow = tx.org(&id)?;
        give_back(tx, &org, &mut row, HOLD_EXPIRED, "ledger")?;
        lapsed.push(row.attempt(id, None)?);
    }
    let day_ago = tx.now.checked_sub(KEPT).map_err(|e| Fault::Stored(e.to_string()))?;
    tx.db.execute("DELETE FROM results WHERE until <= ?1", values![micros(tx.now)])?;
    tx.db.execute(
        "DELETE FROM idempotency WHERE made < ?1 AND NOT EXISTS
           (SELECT 1 FROM attempts a WHERE a.org = idempotency.org AND a.id = idempotency.attempt AND a.state < 2)",
        values![micros(day_ago)],
    )?;
    tx.prune_counters(day_ago)?;
    Ok(lapsed)
}

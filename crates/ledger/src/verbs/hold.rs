//! `hold`: reserve without permission to run.

use crate::attempts::{self, AttemptRow};
use crate::chain::{Tx, to_micros};
use crate::fault::{Outcome, invalid};
use crate::record::kind;
use crate::spend::{Phase, Spend};
use crate::types::{Held, Hold, KeyedDigest, State};
use crate::verbs::{already, check_amounts, check_subject, entry, same_action, state_name};

/// Reserve. The same hold sent again answers as before and writes nothing.
pub(crate) fn hold(tx: &mut Tx<'_>, epoch: i64, hold: Hold, input: KeyedDigest) -> Outcome<Held> {
    tx.fence(epoch)?;
    let Hold { subject, reserve, charges, expires, idempotency } = hold;
    check_subject(&subject, charges.len())?;
    check_amounts(&reserve)?;
    let org = tx.org(&subject.org)?;
    if let Some(row) = attempts::find(tx.db, org.n, &subject.id)? {
        if row.state != State::Held {
            return Err(already(&row.id, state_name(row.state)));
        }
        same_action(&row, &subject, &input)?;
        return Ok(Held { seq: row.first_seq, input, again: true });
    }
    let expires = to_micros(expires);
    if expires <= tx.now {
        return Err(invalid("the hold has expired already"));
    }
    tx.check_key(org.n, &subject, idempotency.as_ref())?;

    let (lines, charged) = tx.charge(&charges, &reserve, &[])?;
    let mut row = AttemptRow::new(org.n, &subject.id, &subject.verb, State::Held, input.clone());
    row.deadline = expires;
    row.spend = Spend { reserved: reserve.clone(), used: [].into(), phase: Phase::Open, lines };
    let caller = subject.actor.username.clone();
    let mut record = entry(kind::HOLD, subject, Some(input.clone()));
    record.deadline = Some(expires);
    record.reserved = reserve;
    record.charged = charged;
    if let Some(key) = &idempotency {
        record.idempotency_key.clone_from(&key.key);
        attempts::keep_key(tx.db, &row, &caller, key, tx.now)?;
    }
    let seq = tx.append(&org.id.uid, record)?;
    row.first_seq = seq;
    row.last_seq = seq;
    attempts::insert(tx.db, &row)?;
    Ok(Held { seq, input, again: false })
}

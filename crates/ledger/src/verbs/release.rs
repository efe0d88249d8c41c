//! `release`: give a hold back. What has begun is settled, never released.

use crate::attempts::{self, AttemptRow};
use crate::cache::OrgRow;
use crate::chain::Tx;
use crate::fault::{Fault, Outcome};
use crate::record::kind;
use crate::spend::Phase;
use crate::types::{Refused, Release, State};
use crate::verbs::settle::read_carried;
use crate::verbs::{already, check_name, state_name};

/// Release. Released before: answers as before and writes nothing.
pub(crate) fn release(tx: &mut Tx<'_>, epoch: i64, release: &Release) -> Outcome<i64> {
    tx.fence(epoch)?;
    check_name("the id", &release.id)?;
    let not_found = || Fault::from(Refused::NotFound { id: release.id.clone() });
    let org = tx.find_org(&release.org.uid)?.ok_or_else(not_found)?;
    let mut row = attempts::find(tx.db, org.n, &release.id)?.ok_or_else(not_found)?;
    match row.state {
        State::Held => give_back(tx, &org, &mut row, &release.reason, &release.by),
        State::Released => Ok(row.last_seq),
        state => Err(already(&row.id, state_name(state))),
    }
}

/// Return a hold's reservation and record it.
pub(crate) fn give_back(tx: &mut Tx<'_>, org: &OrgRow, row: &mut AttemptRow, reason: &str, by: &str) -> Outcome<i64> {
    let before = row.spend.clone();
    row.spend.phase = Phase::Fixed;
    tx.shift(&before, &row.spend)?;
    let mut record = read_carried(tx, org, row)?;
    record.kind = kind::RELEASE.to_owned();
    record.action.clone_from(&row.id);
    record.verb.clone_from(&row.verb);
    record.input = Some(row.input.clone());
    record.reason = reason.to_owned();
    record.by = by.to_owned();
    row.state = State::Released;
    row.reason = reason.to_owned();
    row.last_seq = tx.append(&org.id.uid, record)?;
    attempts::update(tx.db, row)?;
    Ok(row.last_seq)
}

//! `begin`: turn a hold into a start, or reserve and start. Committed before anything runs.

use crate::attempts::{self, AttemptRow};
use crate::chain::{Tx, to_micros};
use crate::fault::Outcome;
use crate::record::kind;
use crate::spend::{Phase, Spend};
use crate::store::values;
use crate::types::{Amounts, Begin, Begun, Idempotency, KeyedDigest, Refused, State, unit};
use crate::verbs::settle::carried;
use crate::verbs::{already, check_amounts, check_name, check_subject, entry, same_action, state_name};

/// Start. The same start by the same executor answers `again` and writes nothing.
pub(crate) fn begin(tx: &mut Tx<'_>, epoch: i64, begin: Begin, input: KeyedDigest, resume: String) -> Outcome<Begun> {
    tx.fence(epoch)?;
    check_subject(&begin.subject, begin.charges.len().max(begin.consume.len()).max(begin.read.len()))?;
    check_amounts(&begin.reserve)?;
    check_name("the executor", &begin.executor)?;
    let org = tx.org(&begin.subject.org)?;
    let hold = attempts::find(tx.db, org.n, &begin.subject.id)?;
    if let Some(row) = &hold {
        match row.state {
            State::Begun if row.executor == begin.executor => {
                same_action(row, &begin.subject, &input)?;
                return Ok(Begun { seq: row.begin_seq.unwrap_or(row.first_seq), input, again: true });
            }
            State::Held if row.deadline <= tx.now => return Err(already(&row.id, "Expired")),
            State::Held => same_action(row, &begin.subject, &input)?,
            state => return Err(already(&row.id, state_name(state))),
        }
    }
    tx.check_key(org.n, &begin.subject, begin.idempotency.as_ref())?;
    tx.compare(&begin.read, hold.as_ref().map_or(&[], |row| row.spend.lines.as_slice()))?;
    tx.check_unused(org.n, &begin.subject.id, &begin.consume)?;
    start(tx, begin, input, resume, hold)
}

fn start(tx: &mut Tx<'_>, begin: Begin, input: KeyedDigest, resume: String, hold: Option<AttemptRow>) -> Outcome<Begun> {
    let Begin { subject, reserve, charges, consume, executor, deadline, idempotency, .. } = begin;
    let org = tx.org(&subject.org)?;
    let deadline = to_micros(deadline);
    let caller = subject.actor.username.clone();
    let held = hold.is_some();
    let mut row = match hold {
        Some(row) => row,
        None => AttemptRow {
            spend: Spend { reserved: reserve.clone(), ..Spend::default() },
            ..AttemptRow::new(org.n, &subject.id, &subject.verb, State::Begun, input.clone())
        },
    };
    // What is counted since the hold was made.
    let mut added = Amounts::new();
    if held {
        let new = reserve.into_iter().filter(|(name, _)| name.starts_with(unit::BY_OUTCOME) && !row.spend.reserved.contains_key(name));
        added.extend(new);
        row.spend.reserved.extend(added.clone());
    }
    // A hold has reserved already; a counter that only the begin names is charged with the same amounts.
    let (lines, charged) = tx.charge(&charges, &row.spend.reserved, &row.spend.lines)?;
    row.spend.lines.extend(lines);
    row.spend.phase = Phase::Open;
    tx.consume(org.n, &subject.id, &consume)?;

    let mut record = entry(kind::BEGIN, subject, Some(input.clone()));
    record.executor.clone_from(&executor);
    record.deadline = Some(deadline);
    record.charged = charged;
    record.consumed = consume;
    record.reserved = if held { added } else { row.spend.reserved.clone() };
    keep_key(tx, &row, &caller, idempotency.as_ref(), &mut record.idempotency_key)?;
    let carried = carried(&record);
    let seq = tx.append(&org.id.uid, record)?;

    row.state = State::Begun;
    row.executor = executor;
    row.deadline = deadline;
    row.resume = resume;
    row.begin_seq = Some(seq);
    row.last_seq = seq;
    row.begun = Some(tx.now);
    if held {
        attempts::update(tx.db, &row)?;
    } else {
        row.first_seq = seq;
        row.n = attempts::insert(tx.db, &row)?;
    }
    tx.cache.begin(row, carried);
    Ok(Begun { seq, input, again: false })
}

fn keep_key(tx: &Tx<'_>, row: &AttemptRow, caller: &str, key: Option<&Idempotency>, recorded: &mut String) -> Outcome<()> {
    let Some(key) = key else { return Ok(()) };
    recorded.clone_from(&key.key);
    attempts::keep_key(tx.db, row, caller, key, tx.now)
}

impl Tx<'_> {
    /// Refuse a single-use key that another action consumed.
    fn check_unused(&self, org: i64, id: &str, keys: &[String]) -> Outcome<()> {
        for key in keys {
            check_name("a single-use key", key)?;
            let sql = "SELECT attempt FROM consumed WHERE org = ?1 AND key = ?2";
            let by: Option<String> = self.db.row(sql, values![org, key], |row| row.get(0))?;
            if by.is_some_and(|by| by != id) {
                return Err(Refused::AlreadyUsed { key: key.clone() }.into());
            }
        }
        Ok(())
    }

    fn consume(&self, org: i64, id: &str, keys: &[String]) -> Outcome<()> {
        for key in keys {
            self.db.execute("INSERT INTO consumed VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING", values![org, key, id])?;
        }
        Ok(())
    }
}

//! `settle`: what became of an action that began, and what it used; in parts, and once for all.
//!
//! Each part states what was used since the part before. The first last part stands: any later one answers as
//! it did and writes nothing, but for a person's resolution of an unknown outcome. Use beyond the reservation
//! is counted and recorded, never lost.

use crate::attempts::{self, AttemptRow};
use crate::cache::OrgRow;
use crate::chain::{Tx, micros, position};
use crate::fault::{Fault, Outcome as Done, invalid};
use crate::record::{Cost, Entry, kind};
use crate::spend::Phase;
use crate::store::values;
use crate::types::{Amounts, KeyedDigest, Outcome, Refused, Settle, Settled, State, unit};
use crate::verbs::{check_amounts, check_name, lift_facts};

/// How long a result is kept for collection.
const RESULT_KEPT_MICROS: i64 = 24 * 3600 * 1_000_000;

/// A result ready to be kept: canonical text and digest.
pub(crate) type ResultBody = (String, KeyedDigest);

/// Settle.
pub(crate) fn settle(tx: &mut Tx<'_>, epoch: i64, settle: Settle, result: Option<ResultBody>) -> Done<Settled> {
    tx.fence(epoch)?;
    check(&settle)?;
    let not_found = || Fault::from(Refused::NotFound { id: settle.id.clone() });
    let org = tx.find_org(&settle.org.uid)?.ok_or_else(not_found)?;
    let (row, from) = match tx.cache.take_begun(org.n, &settle.id) {
        Some((row, from)) => (row, Some(from)),
        None => (attempts::find(tx.db, org.n, &settle.id)?.ok_or_else(not_found)?, None),
    };
    let digest = result.as_ref().map(|(_, digest)| digest.clone());
    match row.state {
        State::Held | State::Released => Err(not_found()),
        State::Begun if settle.resolution => Err(invalid("only an unknown outcome can be resolved")),
        State::Begun => write(tx, &org, row, from, settle, result),
        State::Settled if settle.resolution && row.outcome == Some(Outcome::Unknown) => write(tx, &org, row, from, settle, result),
        State::Settled => Ok(Settled { seq: row.last_seq, result: row.result.or(digest), outcome: row.outcome }),
    }
}

fn check(settle: &Settle) -> Done<()> {
    check_name("the id", &settle.id)?;
    check_amounts(&settle.used)?;
    if let Some(unit) = settle.used.keys().find(|name| name.starts_with(unit::BY_OUTCOME)) {
        return Err(invalid(format!("{unit} follows the outcome: a settlement does not state it")));
    }
    if settle.last != settle.outcome.is_some() {
        return Err(invalid("the last part, and only it, has an outcome"));
    }
    if settle.result.is_some() && !settle.last {
        return Err(invalid("only the last part has a result"));
    }
    if settle.resolution && !matches!(settle.outcome, Some(Outcome::Done | Outcome::NotDone)) {
        return Err(invalid("a resolution says Done or NotDone"));
    }
    Ok(())
}

fn write(
    tx: &mut Tx<'_>,
    org: &OrgRow,
    mut row: AttemptRow,
    from: Option<Entry>,
    settle: Settle,
    result: Option<ResultBody>,
) -> Done<Settled> {
    let before = row.spend.clone();
    let excess = match settle.outcome {
        Some(outcome) if settle.resolution => row.spend.resolve(outcome, &settle.used)?,
        _ => row.spend.add(&settle.used)?,
    };
    if let Some(outcome) = settle.outcome {
        row.spend.follow(outcome);
        row.spend.phase = if outcome == Outcome::Unknown { Phase::Unknown } else { Phase::Fixed };
    }
    tx.shift(&before, &row.spend)?;

    let mut record = match from {
        Some(from) => from,
        None => read_carried(tx, org, &row)?,
    };
    record.kind = if settle.resolution { kind::RESOLUTION } else { kind::SETTLE }.to_owned();
    record.action.clone_from(&row.id);
    record.verb.clone_from(&row.verb);
    record.input = Some(row.input.clone());
    record.cost = cost(&settle.used);
    record.excess = excess;
    record.used = settle.used;
    record.reason.clone_from(&settle.reason);
    record.message.clone_from(&settle.message);
    record.executor.clone_from(&row.executor);
    record.by = settle.by;
    if settle.last {
        record.counted = row.spend.counted()?;
        record.outcome = settle.outcome.map(|o| format!("{o:?}")).unwrap_or_default();
        record.duration_ms = row.begun.map(|begun| (micros(tx.now) - micros(begun)) / 1000);
        record.result = result.as_ref().map(|(_, digest)| digest.clone());
        row.state = State::Settled;
        row.outcome = settle.outcome;
        row.resolved = settle.resolution;
        row.reason = settle.reason;
        row.message = settle.message;
        row.facts = serde_json::to_string(&settle.facts)?;
        row.result = record.result.clone().or(row.result);
    }
    lift_facts(&mut record, settle.facts);
    row.last_seq = tx.append(&org.id.uid, record)?;
    attempts::update(tx.db, &row)?;
    if let Some((text, _)) = result {
        let sql =
            "INSERT INTO results VALUES (?1, ?2, ?3) ON CONFLICT (attempt) DO UPDATE SET until = excluded.until, text = excluded.text";
        tx.db.execute(sql, values![row.n, micros(tx.now).saturating_add(RESULT_KEPT_MICROS), &text])?;
    }
    Ok(Settled { seq: row.last_seq, result: row.result, outcome: row.outcome })
}

/// What a settle or release record repeats of the record that started the action: who, what and where.
pub(crate) fn carried(from: &Entry) -> Entry {
    Entry {
        actor: from.actor.clone(),
        target: from.target.clone(),
        trace: from.trace.clone(),
        task: from.task.clone(),
        job_space: from.job_space.clone(),
        context: from.context.clone(),
        contract: from.contract.clone(),
        workflow_run: from.workflow_run.clone(),
        workflow_node: from.workflow_node.clone(),
        tool_digest: from.tool_digest.clone(),
        agent_digest: from.agent_digest.clone(),
        provider: from.provider.clone(),
        model: from.model.clone(),
        price_version: from.price_version.clone(),
        ..Entry::default()
    }
}

/// The same, from the stored record.
pub(crate) fn read_carried(tx: &Tx<'_>, org: &OrgRow, row: &AttemptRow) -> Done<Entry> {
    let pos = position(org.n, row.begin_seq.unwrap_or(row.first_seq))?;
    let text: String = tx.db.value("SELECT text FROM records WHERE pos = ?1", values![pos])?;
    Ok(carried(&serde_json::from_str(&text)?))
}

fn cost(used: &Amounts) -> Option<Cost> {
    let of = |unit: &str| used.get(unit).copied().unwrap_or(0);
    let cost = Cost {
        tokens_in: of(unit::TOKENS_IN),
        tokens_out: of(unit::TOKENS_OUT),
        tokens_cached: of(unit::TOKENS_CACHED),
        micro_usd: of(unit::MICRO_USD),
    };
    (cost != Cost::default()).then_some(cost)
}

//! The attempts table: one row an action, and how it reads as an [`Attempt`].
//!
//! Rows are kept, since an id begins once; a result is kept for a day beside them.

use jiff::Timestamp;

use crate::chain::{from_micros, micros};
use crate::fault::{Fault, Outcome as Done};
use crate::spend::Spend;
use crate::store::{Db, Row, Value, values};
use crate::types::{Attempt, Idempotency, KeyedDigest, OrgId, Outcome, State};

/// An action's row, as the verbs need it.
#[derive(Clone, Debug)]
pub(crate) struct AttemptRow {
    pub(crate) n: i64,
    pub(crate) org: i64,
    pub(crate) id: String,
    pub(crate) verb: String,
    pub(crate) state: State,
    pub(crate) executor: String,
    pub(crate) deadline: Timestamp,
    pub(crate) resume: String,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) resolved: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) facts: String,
    pub(crate) spend: Spend,
    pub(crate) input: KeyedDigest,
    pub(crate) result: Option<KeyedDigest>,
    pub(crate) first_seq: i64,
    pub(crate) begin_seq: Option<i64>,
    pub(crate) last_seq: i64,
    pub(crate) begun: Option<Timestamp>,
}

const COLUMNS: &str = "a.n, a.org, a.id, a.verb, a.state, a.executor, a.deadline, a.resume, a.outcome, a.resolved, a.reason,
    a.message, a.facts, a.spend, a.input_digest, a.input_key, a.input_size, a.result_digest, a.result_key, a.result_size,
    a.first_seq, a.begin_seq, a.last_seq, a.begun";

pub(crate) fn find(db: &Db, org: i64, id: &str) -> Done<Option<AttemptRow>> {
    let sql = format!("SELECT {COLUMNS} FROM attempts a WHERE a.org = ?1 AND a.id = ?2");
    db.row(&sql, values![org, id], read)
}

/// What an action has reserved and used; nothing when there is none.
pub(crate) fn spend(db: &Db, uid: &str, id: &str) -> Done<Spend> {
    let sql = "SELECT a.spend FROM attempts a JOIN orgs o ON o.n = a.org WHERE o.uid = ?1 AND a.id = ?2";
    let found: Option<String> = db.row(sql, values![uid, id], |row| row.get(0))?;
    found.map_or_else(|| Ok(Spend::default()), |text| Ok(serde_json::from_str(&text)?))
}

/// Id of the action that a key stands for with the same body.
pub(crate) fn replayed(db: &Db, uid: &str, caller: &str, verb: &str, key: &Idempotency) -> Done<Option<String>> {
    let org: Option<i64> = db.row("SELECT n FROM orgs WHERE uid = ?1", values![uid], |row| row.get(0))?;
    let Some(org) = org else { return Ok(None) };
    Ok(find_key(db, org, caller, verb, &key.key)?.filter(|(body, _)| *body == key.body).map(|(_, id)| id))
}

/// Holds whose time is over, the oldest first.
pub(crate) fn lapsed(db: &Db, now: Timestamp, limit: i64) -> Done<Vec<(AttemptRow, OrgId)>> {
    let sql = format!(
        "SELECT {COLUMNS}, o.name, o.uid FROM attempts a JOIN orgs o ON o.n = a.org
         WHERE a.state = 0 AND a.deadline <= ?1 ORDER BY a.deadline LIMIT ?2"
    );
    db.rows(&sql, values![micros(now), limit], |row| Ok((read(row)?, OrgId { name: row.get(24)?, uid: row.get(25)? })))
}

pub(crate) fn insert(db: &Db, row: &AttemptRow) -> Done<i64> {
    db.value(
        "INSERT INTO attempts (org, id, verb, state, executor, deadline, resume, spend, input_digest, input_key,
           input_size, first_seq, begin_seq, last_seq, begun)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) RETURNING n",
        values![
            row.org,
            &row.id,
            &row.verb,
            state_number(row.state),
            &row.executor,
            micros(row.deadline),
            &row.resume,
            &serde_json::to_string(&row.spend)?,
            &row.input.digest,
            &row.input.key_id,
            row.input.size,
            row.first_seq,
            row.begin_seq,
            row.last_seq,
            row.begun.map(micros),
        ],
    )
}

pub(crate) fn update(db: &Db, row: &AttemptRow) -> Done<()> {
    db.execute(
        "UPDATE attempts SET state = ?2, executor = ?3, deadline = ?4, resume = ?5, outcome = ?6, resolved = ?7, reason = ?8,
           message = ?9, facts = ?10, spend = ?11, result_digest = ?12, result_key = ?13, result_size = ?14,
           begin_seq = ?15, last_seq = ?16, begun = ?17
         WHERE n = ?1",
        values![
            row.n,
            state_number(row.state),
            &row.executor,
            micros(row.deadline),
            &row.resume,
            row.outcome.map(outcome_number),
            i64::from(row.resolved),
            &row.reason,
            &row.message,
            &row.facts,
            &serde_json::to_string(&row.spend)?,
            row.result.as_ref().map(|r| &r.digest),
            row.result.as_ref().map(|r| &r.key_id),
            row.result.as_ref().map(|r| r.size),
            row.begin_seq,
            row.last_seq,
            row.begun.map(micros),
        ],
    )?;
    Ok(())
}

/// Which of the attempts are wanted.
pub(crate) enum Which<'a> {
    /// One, by Org uid and id.
    Id(&'a str, &'a str),
    /// Those held or begun.
    Open,
    /// The one that a caller's key stands for, by Org uid, caller, verb and key.
    Key(&'a str, &'a str, &'a str, &'a str),
}

/// Attempts with their results.
pub(crate) fn list(db: &Db, which: &Which<'_>) -> Done<Vec<Attempt>> {
    let (from, condition, values): (&str, &str, &[Value<'_>]) = match which {
        Which::Id(uid, id) => ("", "o.uid = ?1 AND a.id = ?2", values![*uid, *id]),
        Which::Open => ("", "a.state < 2 ORDER BY a.n", &[]),
        Which::Key(uid, caller, verb, key) => (
            "JOIN idempotency i ON i.org = a.org AND i.attempt = a.id",
            "o.uid = ?1 AND i.caller = ?2 AND i.verb = ?3 AND i.key = ?4",
            values![*uid, *caller, *verb, *key],
        ),
    };
    let sql = format!(
        "SELECT {COLUMNS}, o.name, o.uid, r.text FROM attempts a JOIN orgs o ON o.n = a.org {from}
         LEFT JOIN results r ON r.attempt = a.n WHERE {condition}"
    );
    db.rows(&sql, values, |row| {
        let org = OrgId { name: row.get(24)?, uid: row.get(25)? };
        let result: Option<String> = row.get(26)?;
        read(row)?.attempt(org, result.as_deref())
    })
}

impl AttemptRow {
    /// The row of an action that is new.
    pub(crate) fn new(org: i64, id: &str, verb: &str, state: State, input: KeyedDigest) -> Self {
        Self {
            n: 0,
            org,
            id: id.to_owned(),
            verb: verb.to_owned(),
            state,
            executor: String::new(),
            deadline: Timestamp::UNIX_EPOCH,
            resume: "null".to_owned(),
            outcome: None,
            resolved: false,
            reason: String::new(),
            message: String::new(),
            facts: "{}".to_owned(),
            spend: Spend::default(),
            input,
            result: None,
            first_seq: 0,
            begin_seq: None,
            last_seq: 0,
            begun: None,
        }
    }

    /// As callers see it.
    pub(crate) fn attempt(self, org: OrgId, result: Option<&str>) -> Done<Attempt> {
        Ok(Attempt {
            id: self.id,
            org,
            verb: self.verb,
            state: self.state,
            executor: self.executor,
            deadline: self.deadline,
            resume: serde_json::from_str(&self.resume)?,
            outcome: self.outcome,
            reason: self.reason,
            message: self.message,
            result: result.map(serde_json::from_str).transpose()?,
            result_digest: self.result,
            facts: serde_json::from_str(&self.facts)?,
        })
    }
}

/// What a caller's key stands for: the request's body and the action.
pub(crate) fn find_key(db: &Db, org: i64, caller: &str, verb: &str, key: &str) -> Done<Option<(String, String)>> {
    let sql = "SELECT body, attempt FROM idempotency WHERE org = ?1 AND caller = ?2 AND verb = ?3 AND key = ?4";
    db.row(sql, values![org, caller, verb, key], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Keep a caller's key.
pub(crate) fn keep_key(db: &Db, row: &AttemptRow, caller: &str, key: &Idempotency, now: Timestamp) -> Done<()> {
    let sql = "INSERT INTO idempotency VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING";
    db.execute(sql, values![row.org, caller, &row.verb, &key.key, &key.body, &row.id, micros(now)])?;
    Ok(())
}

fn read(row: &Row<'_>) -> Done<AttemptRow> {
    let spend: String = row.get(13)?;
    let digest = |at: usize| -> Done<Option<KeyedDigest>> {
        let Some(digest) = row.get::<Option<String>>(at)? else { return Ok(None) };
        Ok(Some(KeyedDigest { digest, key_id: row.get(at + 1)?, size: row.get(at + 2)? }))
    };
    Ok(AttemptRow {
        n: row.get(0)?,
        org: row.get(1)?,
        id: row.get(2)?,
        verb: row.get(3)?,
        state: state(row.get(4)?)?,
        executor: row.get(5)?,
        deadline: from_micros(row.get(6)?)?,
        resume: row.get(7)?,
        outcome: row.get::<Option<i64>>(8)?.map(outcome).transpose()?,
        resolved: row.get::<i64>(9)? != 0,
        reason: row.get(10)?,
        message: row.get(11)?,
        facts: row.get(12)?,
        spend: serde_json::from_str(&spend)?,
        input: digest(14)?.ok_or_else(|| Fault::Stored("an attempt has no input digest".to_owned()))?,
        result: digest(17)?,
        first_seq: row.get(20)?,
        begin_seq: row.get(21)?,
        last_seq: row.get(22)?,
        begun: row.get::<Option<i64>>(23)?.map(from_micros).transpose()?,
    })
}

fn state_number(state: State) -> i64 {
    match state {
        State::Held => 0,
        State::Begun => 1,
        State::Released => 2,
        State::Settled => 3,
    }
}

fn state(number: i64) -> Done<State> {
    match number {
        0 => Ok(State::Held),
        1 => Ok(State::Begun),
        2 => Ok(State::Released),
        3 => Ok(State::Settled),
        other => Err(Fault::Stored(format!("state {other}"))),
    }
}

fn outcome_number(outcome: Outcome) -> i64 {
    match outcome {
        Outcome::Done => 0,
        Outcome::NotDone => 1,
        Outcome::Unknown => 2,
    }
}

fn outcome(number: i64) -> Done<Outcome> {
    match number {
        0 => Ok(Outcome::Done),
        1 => Ok(Outcome::NotDone),
        2 => Ok(Outcome::Unknown),
        other => Err(Fault::Stored(format!("outcome {other}"))),
    }
}

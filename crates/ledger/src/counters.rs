//! Counters: what is used and reserved, by unit, window and dimensions.
//!
//! A counter row belongs to one window; the next window has a row of its own, so a reservation is always
//! settled where it was made. Versions are drawn from one sequence, so a version names one state of one row.
//! Nothing here decides how much an action used; it only moves amounts, checked, and refuses to pass a limit.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::chain::Tx;
use crate::fault::{Fault, Outcome, invalid, overflow};
use crate::record::Charged;
use crate::spend::Spend;
use crate::store::{Db, Row, values};
use crate::types::{Amounts, Charge, CounterKey, CounterValue, Refused, Window};

/// What a counter's row is named by.
const NAME: &str = "SELECT base, start FROM counters WHERE n = ?1";

/// A counter charged by an action: its row and its unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line(pub(crate) i64, pub(crate) String);

/// A counter's row.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counter {
    pub(crate) n: i64,
    pub(crate) used: i64,
    pub(crate) reserved: i64,
    pub(crate) version: i64,
}

/// A counter to be charged.
struct Found {
    base: String,
    start: i64,
    row: Option<Counter>,
    charged: Charged,
    /// Already charged by the hold that this begin converts.
    held: bool,
}

/// Length of a window in seconds, 0 for one that never resets.
fn seconds(window: Window) -> Outcome<i64> {
    match window {
        Window::Total => Ok(0),
        Window::Seconds(length) if length > 0 => Ok(length),
        Window::Seconds(_) => Err(invalid("a window must be longer than nothing")),
    }
}

/// Start of the window that holds the time.
pub(crate) fn window_start(window: Window, now: Timestamp) -> Outcome<i64> {
    match seconds(window)? {
        0 => Ok(0),
        length => Ok(now.as_second().div_euclid(length) * length),
    }
}

/// End of a counter's window, if it has one.
fn ends(charged: &Charged) -> Outcome<Option<i64>> {
    match charged.window {
        0 => Ok(None),
        length => charged.start.checked_add(length).map(Some).ok_or_else(overflow),
    }
}

/// Names a counter without its window's start.
fn base(key: &CounterKey) -> Outcome<String> {
    if key.unit.is_empty() {
        return Err(invalid("a counter needs a unit"));
    }
    Ok(serde_json::to_string(&(&key.unit, seconds(key.window)?, &key.dims))?)
}

fn read(db: &Db, base: &str, start: i64) -> Outcome<Option<Counter>> {
    db.row("SELECT n, used, reserved, version FROM counters WHERE base = ?1 AND start = ?2", values![base, start], row)
}

fn row(row: &Row<'_>) -> Outcome<Counter> {
    Ok(Counter { n: row.get(0)?, used: row.get(1)?, reserved: row.get(2)?, version: row.get(3)? })
}

/// A counter in its present window.
pub(crate) fn value(db: &Db, counter: CounterKey, now: Timestamp) -> Outcome<CounterValue> {
    let start = window_start(counter.window, now)?;
    let row = read(db, &base(&counter)?, start)?.unwrap_or_default();
    Ok(CounterValue { counter, start, used: row.used, reserved: row.reserved, version: row.version })
}

/// Counters without what an action has made of them itself. One that it is charged to already is read in the window where it is charged: there it counts.
pub(crate) fn values_without(db: &Db, own: &Spend, keys: Vec<CounterKey>, now: Timestamp) -> Outcome<Vec<CounterValue>> {
    let mut lines = BTreeMap::new();
    for Line(n, unit) in &own.lines {
        let found = db.row(NAME, values![*n], |row| Ok((row.get::<String>(0)?, row.get::<i64>(1)?)))?;
        if let Some((base, start)) = found {
            lines.insert(base, (start, own.share(unit)?));
        }
    }
    let value = |counter: CounterKey| {
        let base = base(&counter)?;
        let Some((start, share)) = lines.get(&base) else { return value(db, counter, now) };
        let row = read(db, &base, *start)?.unwrap_or_default();
        let without = |all: i64, own: i64| all.checked_sub(own).filter(|rest| *rest >= 0).ok_or_else(overflow);
        let (used, reserved) = (without(row.used, share.used)?, without(row.reserved, share.reserved)?);
        Ok(CounterValue { counter, start: *start, used, reserved, version: row.version })
    };
    keys.into_iter().map(value).collect()
}

impl Tx<'_> {
    /// Refuse when a counter that was read has moved since, or is not the one that the action is charged to: the present window's, or that of its hold.
    pub(crate) fn compare(&mut self, read: &[CounterValue], held: &[Line]) -> Outcome<()> {
        if read.is_empty() {
            return Ok(());
        }
        let held = self.bases(held)?;
        for seen in read {
            let base = base(&seen.counter)?;
            let start = held.get(&base).map_or_else(|| window_start(seen.counter.window, self.now), |start| Ok(*start))?;
            let present = self.counter(&base, start)?.unwrap_or_default();
            if start != seen.start || present.version != seen.version {
                return Err(Refused::Contended.into());
            }
        }
        Ok(())
    }

    /// Check every limit, then reserve. Counters named twice are charged once; those of `held` are not charged again.
    pub(crate) fn charge(&mut self, charges: &[Charge], reserve: &Amounts, held: &[Line]) -> Outcome<(Vec<Line>, Vec<Charged>)> {
        let found = self.find(charges, reserve, held)?;
        let mut lines = Vec::new();
        let mut charged = Vec::new();
        for counter in found.into_values().filter(|counter| !counter.held) {
            let version = self.next_version()?;
            let amount = counter.charged.amount;
            let n = if let Some(row) = counter.row {
                let reserved = row.reserved.checked_add(amount).ok_or_else(overflow)?;
                self.write(Counter { reserved, version, ..row })?;
                row.n
            } else {
                let sql = "INSERT INTO counters (base, start, ends, used, reserved, version) VALUES (?1, ?2, ?3, 0, ?4, ?5) RETURNING n";
                let n = self.db.value(sql, values![&counter.base, counter.start, ends(&counter.charged)?, amount, version])?;
                self.cache.move_counter(Counter { n, used: 0, reserved: amount, version });
                n
            };
            lines.push(Line(n, counter.charged.unit.clone()));
            charged.push(counter.charged);
        }
        Ok((lines, charged))
    }

    fn find(&mut self, charges: &[Charge], reserve: &Amounts, held: &[Line]) -> Outcome<BTreeMap<String, Found>> {
        let held = self.bases(held)?;
        let mut found: BTreeMap<String, Found> = BTreeMap::new();
        for charge in charges {
            let key = &charge.counter;
            let base = base(key)?;
            let amount = reserve.get(&key.unit).copied().unwrap_or(0);
            if !found.contains_key(&base) {
                let before = held.get(&base);
                let start = before.map_or_else(|| window_start(key.window, self.now), |start| Ok(*start))?;
                let charged = Charged { unit: key.unit.clone(), window: seconds(key.window)?, start, dims: key.dims.clone(), amount };
                let row = self.counter(&base, start)?;
                let counter = Found { base: base.clone(), start, row, charged, held: before.is_some() };
                found.insert(base.clone(), counter);
            }
            let Some(counter) = found.get(&base) else { continue };
            let row = counter.row.unwrap_or_default();
            let total = row.used.checked_add(row.reserved).ok_or_else(overflow)?;
            // What a hold reserved is in the total already.
            let others = if counter.held { total.saturating_sub(amount).max(0) } else { total };
            if let Some(limit) = charge.max
                && others.checked_add(amount).ok_or_else(overflow)? > limit
            {
                let (owner, unit) = (charge.owner.clone(), key.unit.clone());
                return Err(Refused::BudgetExceeded { owner, unit, limit, used: others, asked: amount }.into());
            }
        }
        Ok(found)
    }

    fn bases(&self, lines: &[Line]) -> Outcome<BTreeMap<String, i64>> {
        let mut bases = BTreeMap::new();
        for Line(n, _) in lines {
            bases.extend(self.db.row(NAME, values![*n], |row| Ok((row.get(0)?, row.get(1)?)))?);
        }
        Ok(bases)
    }

    /// Move every counter of an action from what it contributed before to what it contributes now.
    pub(crate) fn shift(&mut self, before: &Spend, after: &Spend) -> Outcome<()> {
        for Line(n, unit) in &after.lines {
            let (had, has) = (before.share(unit)?, after.share(unit)?);
            if had == has {
                continue;
            }
            let row = match self.cache.counter(*n) {
                Some(row) => Some(row),
                None => self.db.row("SELECT n, used, reserved, version FROM counters WHERE n = ?1", values![*n], row)?,
            };
            // A window that ended long ago is no longer kept: only the records tell of it.
            let Some(row) = row else { continue };
            let moved = |value: i64, from: i64, to: i64| value.checked_sub(from).and_then(|v| v.checked_add(to)).ok_or_else(overflow);
            let used = moved(row.used, had.used, has.used)?;
            let reserved = moved(row.reserved, had.reserved, has.reserved)?;
            if used < 0 || reserved < 0 {
                return Err(Fault::Stored(format!("counter {n} would be negative")));
            }
            let version = self.next_version()?;
            // Put back as it was read, should this verb be undone.
            self.cache.read_counter(row, None);
            self.write(Counter { n: *n, used, reserved, version })?;
        }
        Ok(())
    }

    /// The row of a counter, by way of the cache.
    fn counter(&mut self, base: &str, start: i64) -> Outcome<Option<Counter>> {
        if let Some(row) = self.cache.named(base, start) {
            return Ok(Some(row));
        }
        let row = read(self.db, base, start)?.map(|row| self.cache.counter(row.n).unwrap_or(row));
        if let Some(row) = row {
            self.cache.read_counter(row, Some((base, start)));
        }
        Ok(row)
    }

    fn write(&mut self, counter: Counter) -> Outcome<()> {
        counter.used.checked_add(counter.reserved).ok_or_else(overflow)?;
        self.cache.move_counter(counter);
        Ok(())
    }

    /// The next version; the highest ever given is kept when counters are pruned.
    fn next_version(&mut self) -> Outcome<i64> {
        let last = match self.cache.version {
            Some(version) => version,
            None => self.highest_version()?,
        };
        let next = last.checked_add(1).ok_or_else(overflow)?;
        self.cache.version = Some(next);
        Ok(next)
    }

    fn highest_version(&self) -> Outcome<i64> {
        let present: i64 = self.db.value("SELECT coalesce(max(version), 0) FROM counters", &[])?;
        let kept: Option<i64> = self.db.row("SELECT CAST(value AS BIGINT) FROM meta WHERE name = 'version'", &[], |row| row.get(0))?;
        Ok(present.max(kept.unwrap_or(0)))
    }

    /// Drop counters of windows that ended before a time and hold no reservation.
    pub(crate) fn prune_counters(&mut self, ended_before: Timestamp) -> Outcome<()> {
        // What is asked for next must see what this batch has moved.
        self.cache.write_counters(self.db)?;
        let sql = "SELECT n FROM counters WHERE ends IS NOT NULL AND ends < ?1 AND reserved = 0 LIMIT 1000";
        let dropped: HashSet<i64> = self.db.rows(sql, values![ended_before.as_second()], |row| row.get(0))?.into_iter().collect();
        if dropped.is_empty() {
            return Ok(());
        }
        let version = self.highest_version()?;
        self.db.execute(
            "INSERT INTO meta VALUES ('version', CAST(?1 AS BIGINT)) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            values![version],
        )?;
        self.cache.drop_counters(&dropped);
        for n in dropped {
            self.db.execute("DELETE FROM counters WHERE n = ?1", values![n])?;
        }
        Ok(())
    }
}

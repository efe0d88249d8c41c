//! What one action reserved and used, by unit, and what that makes on the counters it charged.
//!
//! Pure arithmetic: a counter always holds the sum of the shares of the actions charged to it.

use serde::{Deserialize, Serialize};

use crate::counters::Line;
use crate::fault::{Outcome, overflow};
use crate::types::{self, Amounts, unit};

/// How far an action's spend is fixed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// What is not used is still reserved.
    #[default]
    Open,
    /// Only what was used counts.
    Fixed,
    /// Nobody knows: counts as used at its maximum.
    Unknown,
}

/// The spend of one action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spend {
    pub(crate) reserved: Amounts,
    pub(crate) used: Amounts,
    pub(crate) phase: Phase,
    pub(crate) lines: Vec<Line>,
}

/// What an action makes on a counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) reserved: i64,
    pub(crate) used: i64,
}

impl Spend {
    /// What it makes on a counter of that unit.
    pub(crate) fn share(&self, unit: &str) -> Outcome<Share> {
        let reserved = amount(&self.reserved, unit);
        let used = amount(&self.used, unit);
        Ok(match self.phase {
            Phase::Open => Share { reserved: reserved.checked_sub(used).ok_or_else(overflow)?.max(0), used },
            Phase::Fixed => Share { reserved: 0, used },
            Phase::Unknown => Share { reserved: 0, used: used.max(reserved) },
        })
    }

    /// Add what a part used. Returns, of that, what is beyond the reservation.
    pub(crate) fn add(&mut self, used: &Amounts) -> Outcome<Amounts> {
        let mut excess = Amounts::new();
        for (unit, more) in used {
            let reserved = amount(&self.reserved, unit);
            let before = amount(&self.used, unit);
            let after = before.checked_add(*more).ok_or_else(overflow)?;
            let beyond = (after - reserved).max(0) - (before - reserved).max(0);
            if beyond > 0 {
                excess.insert(unit.clone(), beyond);
            }
            self.used.insert(unit.clone(), after);
        }
        Ok(excess)
    }

    /// Fix the units that follow the outcome of an action alone. An unknown outcome leaves them at their maximum, until it is resolved.
    pub(crate) fn follow(&mut self, outcome: types::Outcome) {
        if outcome == types::Outcome::Done {
            let units = self.reserved.iter().filter(|(name, _)| name.starts_with(unit::BY_OUTCOME));
            self.used.extend(units.map(|(name, amount)| (name.clone(), *amount)));
        }
    }

    /// Fix an unknown spend by a resolution: what it states is added to what earlier parts used. Of an action
    /// that was done, a unit that it does not state stays at its maximum: spend is never lost.
    pub(crate) fn resolve(&mut self, outcome: types::Outcome, used: &Amounts) -> Outcome<Amounts> {
        if outcome == types::Outcome::Done {
            let units: Vec<String> = self.reserved.keys().filter(|unit| !used.contains_key(*unit)).cloned().collect();
            for unit in units {
                let most = amount(&self.reserved, &unit).max(amount(&self.used, &unit));
                self.used.insert(unit, most);
            }
        }
        let excess = self.add(used)?;
        self.phase = Phase::Fixed;
        Ok(excess)
    }

    /// All that counts as used.
    pub(crate) fn counted(&self) -> Outcome<Amounts> {
        let units = self.reserved.keys().chain(self.used.keys());
        units.map(|unit| Ok((unit.clone(), self.share(unit)?.used))).collect()
    }
}

fn amount(amounts: &Amounts, unit: &str) -> i64 {
    amounts.get(unit).copied().unwrap_or(0)
}

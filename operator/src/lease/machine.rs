//! Who holds the lease, as a state machine over what was read and written and when, by the local monotonic clock.
//!
//! Two rules make it exclusive as long as clocks run at nearly the same speed (their readings may differ by anything):
//! a holder counts from when it *sent* its last successful write and stops after `stop`; a candidate counts from when it *saw*
//! the record change last (also one that it made itself where none was) and takes over after `duration`, by a write that names the version it saw. A write that arrives late
//! names an old version and fails. No wall clock is compared, no I/O happens here, and a lease once lost is never held again.

use std::time::Duration;

/// Time since an origin of the own process, from a monotonic clock.
pub type Mono = Duration;

/// The times of the lease.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A candidate takes over when the record has not changed for this long.
    pub duration: Duration,
    /// A holder writes this often.
    pub renew: Duration,
    /// A holder whose last success is this old stops.
    pub stop: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { duration: Duration::from_secs(15), renew: Duration::from_secs(2), stop: Duration::from_secs(10) }
    }
}

/// The record as the API server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who holds it; None after a release.
    pub holder: Option<String>,
    /// `leaseTransitions`: the epoch of its holder.
    pub transitions: i64,
    /// `resourceVersion`.
    pub version: String,
}

/// What to do after a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Read again later.
    Wait,
    /// Create the record with this epoch.
    Create {
        /// Epoch to write.
        epoch: i64,
        /// Whether success means holding. If not, the new record must first be seen unchanged for `duration`, as anybody's.
        holds: bool,
    },
    /// Write the record with this epoch, naming the version that was read.
    Replace {
        /// Version that the write must name.
        version: String,
        /// Epoch to write.
        transitions: i64,
    },
}

/// One candidate. Its identity must be new with every process.
#[derive(Debug)]
pub struct Machine {
    me: String,
    timing: Timing,
    floor: i64,
    observed: Option<(Option<Seen>, Mono)>,
    held: Option<(i64, Mono)>,
    lost: bool,
}

impl Machine {
    /// A candidate that will not hold an epoch of `floor` or less (the last one the ledger knows; 0: a new ledger).
    #[must_use]
    pub fn new(me: String, timing: Timing, floor: i64) -> Self {
        Self { me, timing, floor, observed: None, held: None, lost: false }
    }

    /// Takes in what a read answered at `at`; None: there is no record.
    pub fn read(&mut self, at: Mono, seen: Option<Seen>) -> Want {
        if self.lost {
            return Want::Wait;
        }
        if let Some((epoch, _)) = self.held {
            return match seen {
                Some(seen) if seen.holder.as_deref() == Some(&self.me) && seen.transitions == epoch => {
                    Want::Replace { version: seen.version, transitions: epoch }
                }
                _ => {
                    self.lost = true;
                    Want::Wait
                }
            };
        }
        self.floor = self.floor.max(seen.as_ref().map_or(0, |s| s.transitions));
        if self.observed.as_ref().is_none_or(|(old, _)| *old != seen) {
            self.observed = Some((seen.clone(), at));
        }
        let since = self.observed.as_ref().map_or(at, |(_, since)| *since);
        let silent = at.saturating_sub(since) >= self.timing.duration;
        match seen {
            // Without a record nobody can be seen to be silent, and somebody may hold one that was made and deleted between two reads:
            // its renewals fail from now on, and he has stopped when ours has stood for `duration`. Only a ledger that no epoch has
            // ever written starts at once.
            None => Want::Create { epoch: self.floor + 1, holds: self.floor == 0 },
            Some(seen) if seen.holder.is_none() || silent => Want::Replace { version: seen.version, transitions: self.floor + 1 },
            _ => Want::Wait,
        }
    }

    /// Takes in that a write of `epoch`, sent at `sent`, succeeded.
    pub fn written(&mut self, sent: Mono, epoch: i64) {
        if !self.lost {
            self.held = Some((epoch, sent));
        }
    }

    /// The epoch held at `now`, if any.
    #[must_use]
    pub fn holds(&self, now: Mono) -> Option<i64> {
        let (epoch, since) = self.held?;
        (!self.lost && now < since + self.timing.stop).then_some(epoch)
    }

    /// When holding ends unless a write succeeds before.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        self.held.filter(|_| !self.lost).map(|(_, since)| since + self.timing.stop)
    }

    /// Ends holding for good.
    pub fn give_up(&mut self) {
        self.lost = true;
    }
}

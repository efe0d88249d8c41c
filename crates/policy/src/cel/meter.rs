//! The budget of one decision, kept beside the evaluation: once it is spent it stays spent, whatever an expression made of the error.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use regex::Regex;
use rustix::time::{ClockId, clock_gettime};

/// Most steps of one decision, over all rules.
pub const MAX_STEPS: u64 = 1_000_000;
/// Most time of one decision, over all rules: processor time of the thread that decides, since what a busy machine takes away is not the
/// rules' doing. Nothing but this limit depends on it.
pub const MAX_TIME: Duration = Duration::from_millis(50);

/// What one decision may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most steps.
    pub steps: u64,
    /// Most time.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { steps: MAX_STEPS, time: MAX_TIME }
    }
}

/// Processor time of this thread so far. A decision begins and ends on one thread.
fn spent_by_thread() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // The kernel counts up from zero and nanoseconds are below a second.
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Steps between two looks at the clock. A look costs as much as a hundred steps; this many take far less than a thousandth of the time limit.
const LOOK: u64 = 256;

/// Counts steps and time of one decision. The clock runs from the first look at it, which small decisions never take: what they may do in `LOOK` steps has a
/// bound of its own, since whatever grows with the size of its operands is charged by it.
#[derive(Debug)]
pub struct Meter {
    steps: AtomicU64,
    limit: u64,
    time: Duration,
    /// Processor time in nanoseconds at which the decision must be over; 0: not looked at yet.
    end: AtomicU64,
    /// Steps at the last look.
    looked: AtomicU64,
    spent: AtomicBool,
    /// Patterns of the rule under evaluation.
    patterns: Mutex<Arc<Vec<Regex>>>,
}

impl Meter {
    /// A budget that starts now.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            steps: AtomicU64::new(0),
            limit: limits.steps,
            time: limits.time,
            end: AtomicU64::new(0),
            looked: AtomicU64::new(0),
            spent: AtomicBool::new(false),
            patterns: Mutex::default(),
        }
    }

    /// Charges steps; false when the budget is spent. One thread at a time charges, so that no step is lost.
    pub fn charge(&self, steps: u64) -> bool {
        let total = self.steps.load(Ordering::Relaxed).saturating_add(steps);
        self.steps.store(total, Ordering::Relaxed);
        if total > self.limit {
            self.spent.store(true, Ordering::Relaxed);
        } else if total - self.looked.load(Ordering::Relaxed) >= LOOK {
            self.look();
        }
        !self.spent()
    }

    /// Looks at the clock.
    pub fn look(&self) {
        self.looked.store(self.steps.load(Ordering::Relaxed), Ordering::Relaxed);
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        let now = spent_by_thread();
        match self.end.load(Ordering::Relaxed) {
            0 => self.end.store(nanos(now.saturating_add(self.time)).max(1), Ordering::Relaxed),
            end if nanos(now) > end => self.spent.store(true, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Looks at the clock if it runs.
    pub fn look_again(&self) {
        if self.end.load(Ordering::Relaxed) != 0 {
            self.look();
        }
    }

    /// Whether it is spent.
    #[must_use]
    pub fn spent(&self) -> bool {
        self.spent.load(Ordering::Relaxed)
    }

    /// Steps charged so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Sets the patterns of the rule that is evaluated next.
    pub fn use_patterns(&self, patterns: &Arc<Vec<Regex>>) {
        *self.patterns.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(patterns);
    }

    /// Pattern of the rule under evaluation. None cannot happen for a program of ours and counts as an error.
    #[must_use]
    pub fn pattern(&self, index: usize) -> Option<Regex> {
        self.patterns.lock().unwrap_or_else(PoisonError::into_inner).get(index).cloned()
    }
}

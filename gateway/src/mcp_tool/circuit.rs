//! Whether a server that has failed is asked again. Pure; the time is given.

use std::time::{Duration, Instant};

/// Failures in a row after which a server is left alone.
pub(super) const FAILURES: u32 = 3;
/// For how long, the first time; doubles while the probe after it fails.
pub(super) const PAUSE: Duration = Duration::from_secs(10);
/// For how long at most.
pub(super) const LONGEST: Duration = Duration::from_secs(300);

/// Failures in a row, and what follows from them.
#[derive(Debug, Default)]
pub(super) struct Circuit {
    failures: u32,
    until: Option<Instant>,
    pause: Duration,
}

/// May it be asked?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Yes.
    Closed,
    /// Once, to see whether it works again, before any call begins.
    Probe,
    /// Not for so long.
    Open(Duration),
}

impl Circuit {
    pub fn gate(&self, now: Instant) -> Gate {
        match self.until {
            None => Gate::Closed,
            Some(until) if now < until => Gate::Open(until - now),
            Some(_) => Gate::Probe,
        }
    }

    pub fn worked(&mut self) {
        *self = Self::default();
    }

    pub fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        // Calls that were under way when it was opened do not lengthen it.
        if self.failures >= FAILURES && !matches!(self.gate(now), Gate::Open(_)) {
            self.pause = if self.pause.is_zero() { PAUSE } else { (self.pause * 2).min(LONGEST) };
            self.until = Some(now + self.pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_probes_and_closes() {
        let (mut circuit, start) = (Circuit::default(), Instant::now());
        for _ in 1..FAILURES {
            circuit.failed(start);
            assert_eq!(circuit.gate(start), Gate::Closed);
        }
        circuit.failed(start);
        assert_eq!(circuit.gate(start), Gate::Open(PAUSE));
        circuit.failed(start);
        assert_eq!(circuit.gate(start), Gate::Open(PAUSE));
        let later = start + PAUSE;
        assert_eq!(circuit.gate(later), Gate::Probe);
        circuit.failed(later);
        assert_eq!(circuit.gate(later), Gate::Open(PAUSE * 2));
        let later = later + PAUSE * 2;
        circuit.worked();
        assert_eq!(circuit.gate(later), Gate::Closed);
        circuit.failed(later);
        assert_eq!(circuit.gate(later), Gate::Closed);
    }

    #[test]
    fn the_pause_has_an_end() {
        let (mut circuit, mut now) = (Circuit::default(), Instant::now());
        for _ in 0..50 {
            circuit.failed(now);
            if let Gate::Open(left) = circuit.gate(now) {
                assert!(left <= LONGEST);
                now += left;
            }
        }
        circuit.failed(now);
        assert_eq!(circuit.gate(now), Gate::Open(LONGEST));
    }
}

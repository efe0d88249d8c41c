//! Waiting times after failures: doubling, with jitter, so that replicas do not come back in step.

use std::time::Duration;

/// Doubling waits between `first` and `most`.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts with `first`, ends with `most`.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// The next wait: between half and all of the present step; `chance` is in 0..=1.
    pub fn step(&mut self, chance: f64) -> Duration {
        let step = self.next;
        self.next = step.saturating_mul(2).min(self.most);
        step.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
    }

    /// The next wait, by the process's own randomness.
    pub fn wait(&mut self) -> Duration {
        self.step(rand::random())
    }

    /// It went well.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_most_and_starts_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let steps: Vec<u128> = (0..8).map(|_| backoff.step(1.0).as_millis()).collect();
        assert_eq!(steps, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.step(0.0).as_millis(), 2500);
        backoff.reset();
        assert_eq!(backoff.step(0.0).as_millis(), 50);
    }

    #[test]
    fn its_own_randomness_stays_in_range() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(100));
        for _ in 0..100 {
            let wait = backoff.wait();
            assert!((50..=100).contains(&wait.as_millis()), "{wait:?}");
        }
    }
}

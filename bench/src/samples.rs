//! What a bench measured: repeats of one figure, and ratios of repeats that ran in turns.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// One figure, measured several times.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds a repeat.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The middle one; of an even number the mean of the two in the middle. NaN without a repeat.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match (sorted.len(), sorted.len() / 2) {
            (0, _) => f64::NAN,
            (len, middle) if len % 2 == 1 => sorted[middle],
            (_, middle) => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }

    /// The smallest.
    pub fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::min)
    }

    /// The largest.
    pub fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::max)
    }

    /// Repeat by repeat, this over `other`: noise that lasts longer than a repeat cancels out.
    pub fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(mine, theirs)| mine / theirs).collect())
    }
}

/// Wall time and processor time of this process (all its threads) for some work.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// From start to end.
    pub wall: Duration,
    /// Of all threads together.
    pub cpu: Duration,
}

/// Runs `work` and tells what it took.
pub fn spent<T>(work: impl FnOnce() -> T) -> (T, Spent) {
    let (wall, cpu) = (Instant::now(), process_cpu());
    let result = work();
    (result, Spent { wall: wall.elapsed(), cpu: process_cpu().saturating_sub(cpu) })
}

/// Processor time that this process has used so far.
fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Samples {
        Samples(values.to_vec())
    }

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        assert!((of(&[9.0, 1.0, 4.0]).median() - 4.0).abs() < f64::EPSILON);
        assert!((of(&[9.0, 1.0, 4.0, 2.0]).median() - 3.0).abs() < f64::EPSILON);
        assert!(of(&[]).median().is_nan() && of(&[]).min().is_nan());
    }

    #[test]
    fn ratios_are_taken_repeat_by_repeat() {
        let ratio = of(&[1.0, 20.0, 3.0]).over(&of(&[2.0, 10.0, 3.0]));
        assert_eq!(ratio, of(&[0.5, 2.0, 1.0]));
    }

    #[test]
    fn processor_time_passes_only_with_work() {
        let (_, idle) = spent(|| std::thread::park_timeout(Duration::from_millis(30)));
        assert!(idle.wall >= Duration::from_millis(25) && idle.cpu < idle.wall);
    }
}

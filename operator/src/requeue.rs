//! The one table of when a reconcile comes back, and the one mapping from an API error to its row.

use std::time::Duration;

/// Everything is looked at again at least this often.
const RESYNC: Duration = Duration::from_secs(600);
/// Something that somebody else must provide: its watch wakes us, and this in case it does not.
const MISSING: Duration = Duration::from_secs(30);
/// Somebody wrote at the same time.
const CONFLICT: Duration = Duration::from_secs(1);
/// First and largest step of the backoff of other failures.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// How a reconcile ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, or stalled until somebody changes something: a change wakes us.
    Settled,
    /// Something is not there yet: its watch wakes us.
    Waiting,
    /// Come back exactly then.
    At(Duration),
    /// There is no such object: one that is made wakes us.
    Gone,
}

/// How a reconcile failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Written at the same time by another, or another object of that name.
    Conflict,
    /// Refused for what it is; trying again changes nothing.
    Invalid,
    /// Something that the write needs is not there.
    Missing,
    /// May pass by itself.
    Transient,
}

/// When to come back, if at all, after `failures` failures in a row before this one. `jitter` is a random number in 0..1.
#[must_use]
pub fn again(result: &Result<Outcome, Category>, failures: u32, jitter: f64) -> Option<Duration> {
    Some(match result {
        Ok(Outcome::Gone) => return None,
        // An exact time is never moved: `startAt` means that second.
        Ok(Outcome::At(delay)) => (*delay).min(RESYNC),
        Ok(Outcome::Settled) | Err(Category::Invalid) => RESYNC.mul_f64(0.9 + 0.2 * jitter),
        Ok(Outcome::Waiting) | Err(Category::Missing) => MISSING.mul_f64(0.9 + 0.2 * jitter),
        Err(Category::Conflict) => CONFLICT.mul_f64(0.9 + 0.2 * jitter),
        Err(Category::Transient) => {
            let (first, last) = BACKOFF;
            first.saturating_mul(2_u32.saturating_pow(failures.min(16))).min(last).mul_f64(0.5 + 0.5 * jitter)
        }
    })
}

/// The row of an API error.
#[must_use]
pub fn category(error: &kube::Error) -> Category {
    match error {
        kube::Error::Api(status) => match status.code {
            409 => Category::Conflict,
            404 => Category::Missing,
            400 | 413 | 422 => Category::Invalid,
            // 403 too: rights and quotas are changed by people and come back.
            _ => Category::Transient,
        },
        _ => Category::Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let s = Duration::from_secs;
        assert_eq!(super::again(&Ok(Outcome::Gone), 3, 0.3), None);
        let again = |result: &_, failures, jitter| super::again(result, failures, jitter).unwrap();
        assert_eq!(again(&Ok(Outcome::At(s(3))), 0, 0.3), s(3));
        assert_eq!(again(&Ok(Outcome::At(s(86_400))), 0, 0.3), RESYNC);
        assert!(again(&Ok(Outcome::Settled), 9, 0.0) >= s(500));
        assert!(again(&Err(Category::Conflict), 9, 1.0) < s(2));
        let steps: Vec<_> = (0..12).map(|n| again(&Err(Category::Transient), n, 1.0).as_secs()).collect();
        assert_eq!(steps, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert!(again(&Err(Category::Transient), 0, 0.0) > Duration::ZERO, "never a busy loop");
    }
}

//! Metrics of admission: reviews by kind, verdict and reason, and how long they took. Labels come from closed sets.

use polity_api::reasons;
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

/// Kinds that are looked at; everything else counts as `Other`.
const KINDS: [&str; 8] = ["Org", "Role", "Policy", "Agent", "Tool", "ToolCall", "Approval", "Task"];

/// Counters and durations.
#[derive(Clone, Debug)]
pub struct Metrics {
    reviews: IntCounterVec,
    seconds: HistogramVec,
    attempts_dropped: IntCounter,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// They are registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let reviews = IntCounterVec::new(
            Opts::new("polity_admission_reviews_total", "Admission reviews answered."),
            &["webhook", "kind", "verdict", "reason"],
        )?;
        let buckets = vec![0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];
        let seconds = HistogramVec::new(
            HistogramOpts::new("polity_admission_duration_seconds", "Time to answer an admission review.").buckets(buckets),
            &["webhook", "kind"],
        )?;
        let attempts_dropped =
            IntCounter::new("polity_admission_attempts_dropped_total", "Notes of refused calls that were not handed to core.")?;
        registry.register(Box::new(reviews.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(attempts_dropped.clone()))?;
        Ok(Self { reviews, seconds, attempts_dropped })
    }

    /// One answered review. `reason` is empty for an accepted one.
    pub fn answered(&self, webhook: &str, kind: &str, verdict: &str, reason: &str, seconds: f64) {
        let kind = KINDS.iter().find(|k| **k == kind).copied().unwrap_or("Other");
        let reason = if reason.is_empty() || reasons::ALL.iter().any(|(code, _)| *code == reason) { reason } else { "Other" };
        self.reviews.with_label_values(&[webhook, kind, verdict, reason]).inc();
        self.seconds.with_label_values(&[webhook, kind]).observe(seconds);
    }

    /// One note of a refused call that nobody will record.
    pub fn attempt_dropped(&self) {
        self.attempts_dropped.inc();
    }

    /// Notes dropped so far.
    #[must_use]
    pub fn attempts_dropped(&self) -> u64 {
        self.attempts_dropped.get()
    }

    /// Reviews counted so far.
    #[must_use]
    pub fn reviews(&self, webhook: &str, kind: &str, verdict: &str, reason: &str) -> u64 {
        self.reviews.with_label_values(&[webhook, kind, verdict, reason]).get()
    }
}

//! Metrics that are read at the moment of a scrape.

use std::sync::Arc;

use prometheus::{
    Opts,
    core::{Collector, Desc},
    proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

use crate::snapshots::Snapshots;

/// `polity_snapshot_age_seconds{kind}`: age of the last proof of life of each kind that decisions rest on. A kind that the API
/// server has never spoken about shows as infinite.
pub struct SnapshotAge {
    snapshots: Arc<Snapshots>,
    desc: Desc,
}

const NAME: &str = "polity_snapshot_age_seconds";
const HELP: &str = "Time since the API server last confirmed the objects of a kind that decisions rest on.";

impl SnapshotAge {
    /// For a registry.
    ///
    /// # Errors
    /// When prometheus refuses the name.
    pub fn new(snapshots: Arc<Snapshots>) -> prometheus::Result<Self> {
        let opts = Opts::new(NAME, HELP).variable_label("kind");
        let desc = Desc::new(opts.name, opts.help, opts.variable_labels, opts.const_labels)?;
        Ok(Self { snapshots, desc })
    }
}

impl Collector for SnapshotAge {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let metrics = self.snapshots.ages().map(|(kind, age)| {
            let mut label = LabelPair::default();
            label.set_name("kind".to_owned());
            label.set_value(kind.to_owned());
            let mut gauge = Gauge::default();
            gauge.set_value(age.map_or(f64::INFINITY, |age| age.as_secs_f64()));
            let mut metric = Metric::from_label(vec![label]);
            metric.set_gauge(gauge);
            metric
        });
        let metrics: Vec<Metric> = metrics.collect();
        if metrics.is_empty() {
            return Vec::new();
        }
        let mut family = MetricFamily::default();
        family.set_name(NAME.to_owned());
        family.set_help(HELP.to_owned());
        family.set_field_type(MetricType::GAUGE);
        family.set_metric(metrics);
        vec![family]
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;

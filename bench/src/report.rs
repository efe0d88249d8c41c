//! The table that a bench prints and the JSON that it leaves in `target/bench`.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::samples::Samples;

/// What a bench found.
#[derive(Debug, Serialize)]
pub struct Report {
    name: String,
    machine: String,
    rows: Vec<Row>,
}

/// One figure, or a ratio of two.
#[derive(Debug, Serialize)]
struct Row {
    what: String,
    beside: String,
    unit: String,
    value: f64,
    min: f64,
    max: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    goal: Option<f64>,
    better: Better,
}

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

impl Report {
    /// An empty one, on this machine.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), machine: machine(), rows: Vec::new() }
    }

    /// Adds a plain figure.
    pub fn figure(&mut self, what: &str, unit: &str, samples: &Samples, better: Better) {
        self.push(what, "", unit, samples, None, better);
    }

    /// Adds a ratio to `beside` with its goal.
    pub fn ratio(&mut self, what: &str, beside: &str, ratio: &Samples, goal: f64, better: Better) {
        self.push(what, beside, "ratio", ratio, Some(goal), better);
    }

    /// Adds a plain figure with its goal.
    pub fn bounded(&mut self, what: &str, unit: &str, samples: &Samples, goal: f64, better: Better) {
        self.push(what, "", unit, samples, Some(goal), better);
    }

    fn push(&mut self, what: &str, beside: &str, unit: &str, samples: &Samples, goal: Option<f64>, better: Better) {
        let (what, beside, unit) = (what.to_owned(), beside.to_owned(), unit.to_owned());
        self.rows.push(Row { what, beside, unit, value: samples.median(), min: samples.min(), max: samples.max(), goal, better });
    }

    /// Writes `NAME.json` into `folder` and answers its path.
    ///
    /// # Errors
    /// When the folder or the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join(format!("{}.json", self.name));
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        fs::write(&path, serde_json::to_vec_pretty(self)?).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

impl Row {
    /// Whether the goal is reached by the median; nothing without a goal.
    fn reached(&self) -> Option<bool> {
        self.goal.map(|goal| match self.better {
            Better::Higher => self.value >= goal,
            Better::Lower => self.value <= goal,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(to, "\n{} on {}", self.name, self.machine)?;
        let width = self.rows.iter().map(|row| row.what.len()).max().unwrap_or(0);
        for row in &self.rows {
            write!(to, "  {:<width$}  {:>12} {:<8} ({} to {})", row.what, short(row.value), row.unit, short(row.min), short(row.max))?;
            if !row.beside.is_empty() {
                write!(to, "  of {}", row.beside)?;
            }
            if let (Some(goal), Some(reached)) = (row.goal, row.reached()) {
                let bound = if row.better == Better::Higher { "≥" } else { "≤" };
                write!(to, "  goal {bound} {}: {}", short(goal), if reached { "reached" } else { "missed" })?;
            }
            writeln!(to)?;
        }
        Ok(())
    }
}

/// Four digits that matter.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// Processor, cores, memory and kernel, as far as the kernel tells.
fn machine() -> String {
    let line = |file: &str, key: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let found = text.lines().find_map(|line| line.strip_prefix(key)?.split_once(':').map(|(_, value)| value.trim().to_owned()));
        found.unwrap_or_else(|| "unknown".to_owned())
    };
    // Of the machine, not of this process: a bench may have bound itself to one.
    let cores = fs::read_to_string("/proc/cpuinfo").unwrap_or_default().lines().filter(|line| line.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{}, {cores} cores, {} memory, Linux {}", line("/proc/cpuinfo", "model name"), line("/proc/meminfo", "MemTotal"), kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        let mut samples = Samples::default();
        values.iter().for_each(|value| samples.push(*value));
        samples
    }

    #[test]
    fn a_goal_is_judged_by_the_median_and_the_right_way_round() {
        let mut report = Report::new("x");
        report.ratio("time", "limit", &samples(&[0.4, 0.6, 0.5]), 0.5, Better::Lower);
        report.ratio("rate", "limit", &samples(&[0.4, 0.6, 0.45]), 0.5, Better::Higher);
        let text = report.to_string();
        assert!(text.contains("goal ≤ 0.500: reached") && text.contains("goal ≥ 0.500: missed"), "{text}");
    }

    #[test]
    fn the_file_has_the_agreed_fields() {
        let folder = std::env::temp_dir().join(format!("polity-bench-{}", std::process::id()));
        let mut report = Report::new("shape");
        report.figure("pairs", "1/s", &samples(&[1.0, 2.0, 3.0]), Better::Higher);
        let path = report.write(&folder).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(read["name"], "shape");
        assert_eq!(read["rows"][0]["value"], 2.0);
        assert_eq!(read["rows"][0]["better"], "higher");
        assert!(read["rows"][0].get("goal").is_none() && !read["machine"].as_str().unwrap().is_empty());
    }
}

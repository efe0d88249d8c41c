//! `policy bench`: how long the decisions of test files take on this machine, without a cluster.
//!
//! It times whole decisions, as admission and dispatch make them, one after the other on one thread. It judges no verdict: that is `policy test`.

use std::{io::Write, path::PathBuf, time::Duration, time::Instant};

use anyhow::{Context, Result, bail};
use polity_policy::{prepare, snapshots};
use serde::Serialize;
use serde_json::json;

use super::{manifests, test::fixtures};
use crate::{Verdict, args::Output, table};

/// Decisions before the first that counts.
const WARM_UP: usize = 200;

/// What one test's decision takes, in microseconds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Timed {
    name: String,
    verdict: &'static str,
    decisions: usize,
    p50_micros: f64,
    p99_micros: f64,
}

pub fn run(
    paths: &[PathBuf],
    tests: &[PathBuf],
    seconds: f64,
    max_micros: Option<f64>,
    output: Output,
    out: &mut dyn Write,
) -> Result<Verdict> {
    let fixtures = fixtures(tests)?;
    let (world, misshapen) = manifests::read(paths)?;
    if let Some(first) = misshapen.first() {
        bail!("{} ({}): {}", first.object, first.file, first.problem);
    }
    let built = Instant::now();
    let snapshots = snapshots(&world, &fixtures);
    let built = built.elapsed();
    // Each gets its share of the time.
    let share = Duration::try_from_secs_f64(seconds).context("--seconds")?.div_f64(f64::from(u32::try_from(fixtures.len())?));
    let mut timed = Vec::with_capacity(fixtures.len());
    for fixture in &fixtures {
        let prepared = prepare(&snapshots, fixture).map_err(|e| anyhow::anyhow!("test {:?}: {e}", fixture.name))?;
        let verdict = prepared.decide().verdict.name();
        (0..WARM_UP).for_each(|_| drop(prepared.decide()));
        let (mut each, until) = (Vec::new(), Instant::now() + share);
        while each.is_empty() || Instant::now() < until {
            let start = Instant::now();
            let decision = prepared.decide();
            each.push(start.elapsed());
            drop(decision);
        }
        each.sort_unstable();
        let at = |percent: usize| each[(each.len() - 1) * percent / 100].as_secs_f64() * 1e6;
        timed.push(Timed { name: fixture.name.clone(), verdict, decisions: each.len(), p50_micros: at(50), p99_micros: at(99) });
    }
    let slow: Vec<&Timed> = timed.iter().filter(|t| max_micros.is_some_and(|most| t.p50_micros > most)).collect();
    let good = slow.is_empty();
    if output == Output::Json {
        let slow: Vec<&str> = slow.iter().map(|t| t.name.as_str()).collect();
        writeln!(out, "{}", json!({"passed": good, "snapshotsMillis": built.as_secs_f64() * 1e3, "slow": slow, "tests": timed}))?;
    } else {
        let row = |t: &Timed| {
            let micros = |m: f64| format!("{m:.1}");
            vec![t.name.clone(), t.verdict.to_owned(), micros(t.p50_micros), micros(t.p99_micros), t.decisions.to_string()]
        };
        let rows: Vec<Vec<String>> = timed.iter().map(row).collect();
        table::print(out, &["TEST", "VERDICT", "P50 µs", "P99 µs", "DECISIONS"], &rows)?;
        writeln!(out, "{} snapshots built in {:.1} ms", snapshots.len(), built.as_secs_f64() * 1e3)?;
        for test in slow {
            writeln!(out, "SLOW  {}: {:.1} µs, more than {}", test.name, test.p50_micros, max_micros.unwrap_or_default())?;
        }
    }
    Ok(if good { Verdict::Good } else { Verdict::Bad })
}

//! `memory`: what the cache that every edge and core decide by adds to the process for 100 and 1,000 Orgs (each with an agent, a Role, a tool and a Policy),
//! and how long it takes from nothing until every Org has its view. The stand-in for an API server is counted before it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use polity_runtime::CancellationToken;
use polity_runtime::cache::Cache;
use tokio::time::timeout;

use crate::admission::organisation;
use crate::report::{Better, Report};
use crate::samples::Samples;
use crate::standin::StandIn;

const REPEATS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs it.
///
/// # Errors
/// When an Org has no view in the end.
pub fn run() -> Result<Report> {
    let mut report = Report::new("memory");
    for orgs in [100, 1000] {
        let (mut mib, mut seconds) = (Samples::default(), Samples::default());
        for _ in 0..REPEATS {
            // Threads and their arenas go with it.
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            let (added, took) = runtime.block_on(measure(orgs)).with_context(|| format!("{orgs} Orgs"))?;
            mib.push(added);
            seconds.push(took);
        }
        report.bounded(&format!("{orgs} Orgs: memory of cache and views"), "MiB", &mib, 150.0, Better::Lower);
        report.bounded(&format!("{orgs} Orgs: from nothing to all views"), "s", &seconds, 5.0, Better::Lower);
    }
    Ok(report)
}

async fn measure(orgs: usize) -> Result<(f64, f64)> {
    let server = StandIn::with((0..orgs).flat_map(|n| organisation::stored_as(&format!("org-{n}"), 1)).collect());
    let (before, from) = (resident_mib()?, Instant::now());
    let cancel = CancellationToken::new();
    let _ended = cancel.clone().drop_guard();
    let cache = Cache::start(server.client(), &cancel);
    let mut changes = cache.snapshots().changes();
    let all = async {
        while cache.snapshots().fresh().is_err() || cache.snapshots().orgs().len() < orgs {
            changes.next().await;
        }
    };
    timeout(PATIENCE, all).await.context("not every Org has a view")?;
    let took = from.elapsed().as_secs_f64();
    for n in 0..orgs {
        let view = cache.snapshots().get(&format!("org-{n}")).map_err(|e| anyhow::anyhow!("{e}"))?;
        ensure!(view.is_open().is_ok(), "org-{n} takes no calls");
    }
    Ok((resident_mib()? - before, took))
}

/// Resident memory of this process.
fn resident_mib() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
}

//! `bench ledger`: durable `begin` and `settle` of 64 callers, beside the same bytes appended with group `fdatasync` and no logic.

mod append;
pub mod budget;
mod calls;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use polity_bench::{
    report::{Better, Report},
    samples::{Samples, spent},
};
use polity_ledger::{Config, Durability, Filter, Ledger, MAX_PAGE, Record, SystemClock, verify};
use tokio::runtime::Runtime;

/// Callers at once.
const CALLERS: usize = 64;
/// Pairs of each caller in one repeat.
const PAIRS: usize = 600;
/// Repeats of each.
const REPEATS: usize = 5;

/// Measures.
///
/// # Errors
/// The ledger refuses, or its chain is not whole afterwards.
pub fn run() -> Result<Report> {
    let runtime = runtime()?;
    let mut report = Report::new("ledger");
    let (mut ours, mut limit, mut cpu) = (Samples::default(), Samples::default(), Samples::default());
    let (mut relaxed, mut export) = (Samples::default(), Samples::default());
    for _ in 0..REPEATS {
        let folder = folder()?;
        let (done, took) = spent(|| runtime.block_on(pairs(folder.path(), Durability::Durable)));
        let (rate, records, read) = done?;
        ours.push(rate);
        export.push(read * 100_000.0 / to_f64(records.len()));
        cpu.push(took.cpu.as_secs_f64() * 1e6 / to_f64(CALLERS * PAIRS));
        let sizes: Vec<usize> = records.iter().map(|record| record.to_line().len() + 1).collect();
        let folder = self::folder()?;
        relaxed.push(runtime.block_on(pairs(folder.path(), Durability::Relaxed))?.0);
        let folder = self::folder()?;
        limit.push(to_f64(CALLERS * PAIRS) / runtime.block_on(append::run(folder.path(), CALLERS, &sizes))?.as_secs_f64());
    }
    report.figure("durable begin+settle pairs, 64 callers", "1/s", &ours, Better::Higher);
    report.figure("the same bytes, group fdatasync, no logic", "1/s", &limit, Better::Higher);
    report.figure("relaxed begin+settle pairs, 64 callers", "1/s", &relaxed, Better::Higher);
    report.figure("100,000 records read as lines, page by page", "s", &export, Better::Lower);
    report.figure("processor time of a pair, callers included", "µs", &cpu, Better::Lower);
    report.ratio("pairs per second", "group fdatasync of the same bytes", &ours.over(&limit), 0.5, Better::Higher);
    Ok(report)
}

/// A runtime as core has it.
fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("a runtime")
}

/// A folder on the disk that is measured: `target/bench`, never a file system in memory.
fn folder() -> Result<tempfile::TempDir> {
    let base = PathBuf::from("target/bench");
    std::fs::create_dir_all(&base)?;
    tempfile::tempdir_in(base).context("a folder for the ledger")
}

/// Pairs per second, the records that they left, and the seconds that reading them as lines took.
async fn pairs(folder: &Path, durability: Durability) -> Result<(f64, Vec<Record>, f64)> {
    let ledger = Ledger::open(Config::new(folder, "bench"), Arc::new(SystemClock))?;
    // The chain and the Org's key are made once in an Org's life, not with every pair.
    ledger.digest(&calls::org(), "1").await?;
    let start = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                for n in 0..PAIRS {
                    let id = calls::id(caller * PAIRS + n);
                    ledger.begin_as(1, calls::begin(&id, i64::MAX / 2), durability).await?;
                    ledger.settle_as(1, calls::settle(&id), durability).await?;
                }
                Ok::<_, polity_ledger::Refused>(())
            })
        })
        .collect();
    for caller in callers {
        caller.await??;
    }
    let rate = to_f64(CALLERS * PAIRS) / start.elapsed().as_secs_f64();
    let start = Instant::now();
    let (mut lines, mut after) = (Vec::new(), 0);
    loop {
        let page = ledger.page(&calls::org().uid, after, MAX_PAGE, Filter::default(), false).await?;
        lines.extend(page.lines);
        if page.next >= page.head {
            break;
        }
        after = page.next;
    }
    let read = start.elapsed().as_secs_f64();
    let mut records = lines.iter().map(|line| Record::from_line(line)).collect::<Result<Vec<_>, _>>()?;
    ledger.close().await;
    verify(records.iter().cloned().map(Ok::<_, polity_ledger::Refused>))?;
    ensure!(records.len() == 2 * CALLERS * PAIRS + 1, "{} records", records.len());
    records.remove(0);
    Ok((rate, records, read))
}

#[allow(clippy::cast_precision_loss)] // counts of a bench
fn to_f64(count: usize) -> f64 {
    count as f64
}

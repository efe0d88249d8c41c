//! `bench budget`: 1,000 calls race for a budget of 100. Exactly 100 begin, whatever the order, and the counter says so.

use std::{sync::Arc, time::Instant};

use anyhow::{Result, ensure};
use polity_bench::{
    report::{Better, Report},
    samples::Samples,
};
use polity_ledger::{Config, Ledger, Refused, SystemClock};

use super::{REPEATS, calls, folder, runtime};

/// Calls that race.
const RACING: usize = 1000;
/// What the budget is for.
const BUDGET: i64 = 100;

/// Measures.
///
/// # Errors
/// Another number than the budget's has begun.
pub fn run() -> Result<Report> {
    let runtime = runtime()?;
    let mut report = Report::new("budget");
    let (mut begun, mut took) = (Samples::default(), Samples::default());
    for _ in 0..REPEATS {
        let start = Instant::now();
        let count = runtime.block_on(race())?;
        took.push(start.elapsed().as_secs_f64() * 1000.0);
        ensure!(i64::from(count) == BUDGET, "{count} calls began on a budget for {BUDGET}");
        begun.push(f64::from(count));
    }
    report.figure("begun of 1,000 racing calls on a budget for 100", "calls", &begun, Better::Lower);
    report.figure("time of the race", "ms", &took, Better::Lower);
    Ok(report)
}

async fn race() -> Result<u32> {
    let folder = folder()?;
    let ledger = Ledger::open(Config::new(folder.path(), "bench"), Arc::new(SystemClock))?;
    let callers: Vec<_> = (0..RACING)
        .map(|n| {
            let ledger = ledger.clone();
            tokio::spawn(async move { ledger.begin(1, calls::begin(&calls::id(n), BUDGET)).await })
        })
        .collect();
    let mut begun = 0;
    for caller in callers {
        match caller.await? {
            Ok(_) => begun += 1,
            Err(Refused::BudgetExceeded { .. }) => {}
            Err(other) => return Err(other.into()),
        }
    }
    let read = ledger.counters(vec![calls::begin("", 0).charges.remove(0).counter]).await?;
    ensure!(read.iter().all(|c| c.used + c.reserved == BUDGET), "the counter says {read:?}");
    ledger.close().await;
    Ok(begun)
}

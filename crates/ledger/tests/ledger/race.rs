//! A thousand callers and a budget of a hundred.

use std::sync::Arc;

use polity_ledger::{Outcome, Refused, Window, verify};
use tokio::sync::Semaphore;

use crate::common::{Rig, begin_at, counter, recount, settle};

const CALLERS: usize = 1000;
const BUDGET: i64 = 100;

async fn check(rig: &Rig, begun: usize) {
    assert_eq!(i64::try_from(begun).unwrap(), BUDGET);
    assert_eq!(rig.total().await, (0, BUDGET));
    let records = rig.records().await;
    assert_eq!(records.iter().filter(|r| r.kind == "begin").count(), begun);
    assert_eq!(recount(&records), rig.home.counters());
    verify(records.into_iter().map(Ok::<_, Refused>)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn by_the_limit() {
    let rig = Rig::new();
    let now = rig.now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|i| {
            let ledger = rig.ledger.clone();
            tokio::spawn(async move { ledger.begin(1, begin_at(now, &format!("call-{i}"), 1, BUDGET)).await })
        })
        .collect();
    let mut begun = 0;
    for caller in callers {
        match caller.await.unwrap() {
            Ok(_) => begun += 1,
            Err(Refused::BudgetExceeded { .. }) => (),
            Err(other) => panic!("{other:?}"),
        }
    }
    check(&rig, begun).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn by_compare_and_set() {
    let rig = Rig::new();
    let now = rig.now();
    let at_once = Arc::new(Semaphore::new(16));
    let callers: Vec<_> = (0..CALLERS)
        .map(|i| {
            let (ledger, at_once) = (rig.ledger.clone(), Arc::clone(&at_once));
            tokio::spawn(async move {
                let _turn = at_once.acquire().await.unwrap();
                loop {
                    let read = ledger.counters(vec![counter(Window::Total)]).await.unwrap();
                    // The decision is a rule of the caller's: the ledger is told no limit.
                    if read[0].used + read[0].reserved >= BUDGET {
                        return false;
                    }
                    let mut begin = begin_at(now, &format!("call-{i}"), 1, 0);
                    begin.charges[0].max = None;
                    begin.read = read;
                    match ledger.begin(1, begin).await {
                        Ok(_) => return true,
                        Err(Refused::Contended) => (),
                        Err(other) => panic!("{other:?}"),
                    }
                }
            })
        })
        .collect();
    let mut begun = 0;
    for caller in callers {
        begun += usize::from(caller.await.unwrap());
    }
    check(&rig, begun).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_call_by_many_runs_once() {
    let rig = Rig::new();
    let now = rig.now();
    let callers: Vec<_> = (0..100)
        .map(|i| {
            let ledger = rig.ledger.clone();
            tokio::spawn(async move {
                let mut begin = begin_at(now, "call", 1, BUDGET);
                begin.executor = format!("edge-{i}");
                let begun = ledger.begin(1, begin).await.is_ok();
                if begun {
                    ledger.settle(1, settle("call", 1, Outcome::Done)).await.unwrap();
                }
                begun
            })
        })
        .collect();
    let mut begun = 0;
    for caller in callers {
        begun += usize::from(caller.await.unwrap());
    }
    assert_eq!((begun, rig.total().await), (1, (1, 0)));
}

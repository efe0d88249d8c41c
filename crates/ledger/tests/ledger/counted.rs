//! Counters that rules read: read without the action itself, compared when it begins, settled by the outcome alone.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use polity_ledger::{Amounts, Begin, Charge, CounterKey, Hold, Outcome, Refused, Release, Settle, Window};
use proptest::prelude::*;

use crate::common::{Rig, amounts, org, settle};

const UNIT: &str = "count/rule/acme/limits/spent";

fn key(window: Window) -> CounterKey {
    CounterKey { unit: UNIT.to_owned(), window, dims: BTreeMap::from([("agent".to_owned(), "acme/bot".to_owned())]) }
}

fn counted(rig: &Rig, id: &str, amount: i64, window: Window) -> Begin {
    let mut begin = rig.begin(id, 1, 1_000_000);
    begin.reserve.insert(UNIT.to_owned(), amount);
    begin.charges.push(Charge { counter: key(window), max: None, owner: String::new() });
    begin
}

fn held(rig: &Rig, id: &str, amount: i64, window: Window) -> Hold {
    let Begin { reserve, charges, .. } = counted(rig, id, amount, window);
    Hold { reserve, charges, ..rig.hold(id, 1, 1_000_000) }
}

async fn value(rig: &Rig, id: &str, window: Window) -> (i64, i64) {
    let value = rig.ledger.counters_before(&org(), id, vec![key(window)]).await.unwrap().remove(0);
    (value.used, value.reserved)
}

#[tokio::test]
async fn the_outcome_alone_settles_what_is_counted() {
    let rig = Rig::new();
    for (id, outcome, after) in [("done", Outcome::Done, (7, 0)), ("not", Outcome::NotDone, (7, 0)), ("unknown", Outcome::Unknown, (14, 0))]
    {
        rig.ledger.begin(1, counted(&rig, id, 7, Window::Total)).await.unwrap();
        // the executor states calls only
        rig.ledger.settle(1, settle(id, 1, outcome)).await.unwrap();
        assert_eq!(value(&rig, "other", Window::Total).await, after, "{id}");
    }
    let resolution = Settle { used: Amounts::new(), resolution: true, ..settle("unknown", 0, Outcome::NotDone) };
    rig.ledger.settle(1, resolution).await.unwrap();
    assert_eq!(value(&rig, "other", Window::Total).await, (7, 0), "resolved as not done: given back");
    rig.ledger.begin(1, counted(&rig, "again", 7, Window::Total)).await.unwrap();
    let stated = Settle { used: Amounts::from([(UNIT.to_owned(), 0)]), ..settle("again", 1, Outcome::Done) };
    assert!(matches!(rig.ledger.settle(1, stated).await, Err(Refused::Invalid { .. })), "nobody talks it down");
}

#[tokio::test]
async fn an_action_does_not_count_against_itself() {
    let rig = Rig::new();
    rig.ledger.begin(1, counted(&rig, "first", 5, Window::Total)).await.unwrap();
    rig.ledger.hold(1, held(&rig, "waits", 30, Window::Total)).await.unwrap();
    assert_eq!(value(&rig, "other", Window::Total).await, (0, 35));
    assert_eq!(value(&rig, "waits", Window::Total).await, (0, 5));
    rig.ledger.begin(1, counted(&rig, "waits", 30, Window::Total)).await.unwrap();
    assert_eq!(value(&rig, "waits", Window::Total).await, (0, 5), "also once it has begun");
    assert_eq!(value(&rig, "other", Window::Total).await, (0, 35));
    let release = |id: &str| Release { org: org(), id: id.to_owned(), reason: "ApprovalDenied".to_owned(), by: "core".to_owned() };
    rig.ledger.hold(1, held(&rig, "denied", 9, Window::Total)).await.unwrap();
    rig.ledger.release(1, release("denied")).await.unwrap();
    assert_eq!(value(&rig, "other", Window::Total).await, (0, 35));
}

#[tokio::test]
async fn a_start_rests_on_what_was_read() {
    let rig = Rig::new();
    let minute = Window::Seconds(60);
    let read = async |id: &str| rig.ledger.counters_before(&org(), id, vec![key(minute)]).await.unwrap();
    let with = |begin: Begin, read: Vec<_>| Begin { read, ..begin };
    let seen = read("a").await;
    rig.ledger.begin(1, counted(&rig, "other", 1, minute)).await.unwrap();
    let moved = rig.ledger.begin(1, with(counted(&rig, "a", 1, minute), seen)).await;
    assert_eq!(moved, Err(Refused::Contended));
    let seen = read("a").await;
    rig.clock.turn(SignedDuration::from_secs(60));
    let over = rig.ledger.begin(1, with(counted(&rig, "a", 1, minute), seen)).await;
    assert_eq!(over, Err(Refused::Contended), "the window that was read is over");
    rig.ledger.begin(1, with(counted(&rig, "a", 1, minute), read("a").await)).await.unwrap();
    // what is held counts where it is held, and reads that window when it begins
    rig.ledger.hold(1, held(&rig, "waits", 4, minute)).await.unwrap();
    rig.clock.turn(SignedDuration::from_secs(60));
    rig.ledger.begin(1, counted(&rig, "next", 2, minute)).await.unwrap();
    assert_eq!((value(&rig, "waits", minute).await, value(&rig, "x", minute).await), ((0, 1), (0, 2)));
    let seen = read("waits").await;
    rig.ledger.begin(1, with(counted(&rig, "waits", 4, minute), seen)).await.unwrap();
    assert_eq!(value(&rig, "x", minute).await, (0, 2), "not charged again in the new window");
}

#[tokio::test]
async fn a_counter_that_came_after_the_hold_is_charged_too() {
    let rig = Rig::new();
    rig.ledger.hold(1, rig.hold("waits", 1, 10)).await.unwrap();
    rig.ledger.begin(1, counted(&rig, "waits", 6, Window::Total)).await.unwrap();
    assert_eq!(value(&rig, "other", Window::Total).await, (0, 6));
    rig.ledger.settle(1, settle("waits", 1, Outcome::Done)).await.unwrap();
    assert_eq!(value(&rig, "other", Window::Total).await, (6, 0));
    let records = rig.records().await;
    let begin = records.iter().find(|r| r.kind == "begin").unwrap();
    assert_eq!(begin.reserved, Amounts::from([(UNIT.to_owned(), 6)]), "the hold has the rest: {:?}", amounts(1));
}

/// What one of the racing deciders does.
#[derive(Clone, Debug)]
enum Step {
    /// Reads the counter for an action of that amount.
    Read(usize, i64),
    /// Begins it by what it read, if a rule of at most 20 allows it.
    Begin(usize),
    /// Settles it.
    Settle(usize, bool),
    /// Time passes.
    Turn(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..6_usize, 0..9_i64).prop_map(|(who, amount)| Step::Read(who, amount)),
        3 => (0..6_usize).prop_map(Step::Begin),
        1 => (0..6_usize, any::<bool>()).prop_map(|(who, done)| Step::Settle(who, done)),
        1 => (1..40_i64).prop_map(Step::Turn),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// However reading and beginning interleave: the sum of what has begun in a window never passes the rule's limit.
    #[test]
    fn the_sum_of_a_window_never_passes_the_limit(steps in prop::collection::vec(step(), 1..60)) {
        const LIMIT: i64 = 20;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let rig = Rig::new();
            let minute = Window::Seconds(60);
            let mut read: BTreeMap<usize, (String, i64, Vec<_>)> = BTreeMap::new();
            // id → window, amount that counts
            let mut begun: BTreeMap<String, (i64, i64)> = BTreeMap::new();
            let mut last: BTreeMap<usize, String> = BTreeMap::new();
            for (n, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Read(who, amount) => {
                        let id = format!("a-{who}-{n}");
                        let values = rig.ledger.counters_before(&org(), &id, vec![key(minute)]).await.unwrap();
                        read.insert(who, (id, amount, values));
                    }
                    Step::Begin(who) => {
                        let Some((id, amount, values)) = read.remove(&who) else { continue };
                        if values.iter().map(|v| v.used + v.reserved).sum::<i64>() + amount > LIMIT {
                            continue;
                        }
                        let begin = Begin { read: values, ..counted(&rig, &id, amount, minute) };
                        match rig.ledger.begin(1, begin).await {
                            Ok(_) => {
                                begun.insert(id.clone(), (rig.now().as_second() / 60, amount));
                                last.insert(who, id);
                            }
                            Err(refused) => assert_eq!(refused, Refused::Contended),
                        }
                    }
                    Step::Settle(who, done) => {
                        let Some(id) = last.remove(&who) else { continue };
                        let outcome = if done { Outcome::Done } else { Outcome::NotDone };
                        rig.ledger.settle(1, settle(&id, 1, outcome)).await.unwrap();
                        if !done {
                            begun.insert(id, (0, 0));
                        }
                    }
                    Step::Turn(seconds) => rig.clock.turn(SignedDuration::from_secs(seconds)),
                }
                let mut sums: BTreeMap<i64, i64> = BTreeMap::new();
                for (window, amount) in begun.values() {
                    *sums.entry(*window).or_default() += amount;
                }
                assert!(sums.values().all(|sum| *sum <= LIMIT), "{sums:?}");
                let here = sums.get(&(rig.now().as_second() / 60)).copied().unwrap_or_default();
                let (used, reserved) = value(&rig, "nobody", minute).await;
                assert_eq!(used + reserved, here);
            }
        });
    }
}

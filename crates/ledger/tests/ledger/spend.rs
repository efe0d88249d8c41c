//! Money: limits, windows, parts, excess, unknown outcomes and their resolution.

use jiff::SignedDuration;
use polity_ledger::{Amounts, Charge, Outcome, Refused, Settle, State, Window, unit};
use serde_json::json;

use crate::common::{Rig, amounts, charge, counter, org, part, recount, settle};

fn exceeded(refused: Refused) -> (i64, i64, i64) {
    match refused {
        Refused::BudgetExceeded { limit, used, asked, .. } => (limit, used, asked),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_limit_names_its_owner() {
    let rig = Rig::new();
    rig.ledger.begin(1, rig.begin("a", 7, 10)).await.unwrap();
    let refused = rig.ledger.begin(1, rig.begin("b", 4, 10)).await.unwrap_err();
    assert_eq!(refused.to_string(), "Org acme budget.total: 10 calls in the window, 7 used and reserved, 4 more asked");
    assert_eq!(exceeded(rig.ledger.hold(1, rig.hold("b", 4, 10)).await.unwrap_err()), (10, 7, 4));
    rig.ledger.begin(1, rig.begin("b", 3, 10)).await.unwrap();
    assert_eq!(rig.total().await, (0, 10));
    assert_eq!(rig.ledger.attempt(&org(), "c").await.unwrap(), None);
}

#[tokio::test]
async fn every_charge_is_checked_and_a_counter_is_charged_once() {
    let rig = Rig::new();
    let mut begin = rig.begin("a", 2, 10);
    let strict = Charge { max: Some(3), owner: "Role clerk".to_owned(), ..charge(0) };
    let window = Charge { counter: counter(Window::Seconds(60)), max: Some(5), owner: "rate".to_owned() };
    begin.charges.extend([strict.clone(), window.clone()]);
    rig.ledger.begin(1, begin.clone()).await.unwrap();
    assert_eq!(rig.total().await, (0, 2), "named twice, charged once");
    begin.subject.id = "b".to_owned();
    let refused = rig.ledger.begin(1, begin).await.unwrap_err();
    assert!(matches!(refused, Refused::BudgetExceeded { owner, .. } if owner == "Role clerk"));
    assert_eq!(rig.total().await, (0, 2), "a refusal leaves no part behind");
}

#[tokio::test]
async fn a_limit_that_came_after_the_hold_counts() {
    let rig = Rig::new();
    rig.ledger.hold(1, rig.hold("a", 3, 10)).await.unwrap();
    assert_eq!(exceeded(rig.ledger.begin(1, rig.begin("a", 3, 2)).await.unwrap_err()), (2, 0, 3), "lowered");
    let mut begin = rig.begin("a", 1, 10);
    begin.charges.push(Charge { counter: counter(Window::Seconds(60)), max: Some(3), owner: "rate".to_owned() });
    rig.ledger.begin(1, begin).await.unwrap();
    let window = rig.ledger.counters(vec![counter(Window::Seconds(60))]).await.unwrap().remove(0);
    assert_eq!((window.used, window.reserved), (0, 3), "the hold's amounts, not the begin's");
    assert_eq!(rig.total().await, (0, 3));
}

#[tokio::test]
async fn a_reservation_settles_into_its_own_window() {
    let rig = Rig::new();
    let minute = Charge { counter: counter(Window::Seconds(60)), max: Some(2), owner: "rate".to_owned() };
    let begin = |id: &str| {
        let mut begin = rig.begin(id, 2, 100);
        begin.charges = vec![minute.clone()];
        begin
    };
    rig.ledger.begin(1, begin("a")).await.unwrap();
    let before = rig.ledger.counters(vec![counter(Window::Seconds(60))]).await.unwrap();
    assert_eq!(exceeded(rig.ledger.begin(1, begin("b")).await.unwrap_err()), (2, 2, 2));
    rig.clock.turn(SignedDuration::from_secs(60));
    let now = rig.ledger.counters(vec![counter(Window::Seconds(60))]).await.unwrap();
    assert_eq!((now[0].used, now[0].reserved), (0, 0));
    let mut stale = begin("b");
    stale.read = before;
    assert_eq!(rig.ledger.begin(1, stale).await, Err(Refused::Contended), "read in the window before");
    let mut fresh = begin("b");
    fresh.read = now;
    rig.ledger.begin(1, fresh).await.unwrap();
    rig.ledger.settle(1, settle("a", 1, Outcome::Done)).await.unwrap();
    let now = rig.ledger.counters(vec![counter(Window::Seconds(60))]).await.unwrap();
    assert_eq!((now[0].used, now[0].reserved), (0, 2));
    let counts: Vec<(i64, i64)> = rig.home.counters().into_values().collect();
    assert_eq!(counts, [(1, 0), (0, 2)]);
    // Days later the first window is dropped; the second still holds a reservation.
    let seen = now[0].version;
    rig.clock.turn(SignedDuration::from_hours(48));
    rig.ledger.expire(1).await.unwrap();
    assert_eq!(rig.home.counters().len(), 1);
    rig.ledger.settle(1, settle("b", 2, Outcome::Done)).await.unwrap();
    rig.ledger.expire(1).await.unwrap();
    assert_eq!(rig.home.counters().len(), 0);
    rig.ledger.begin(1, begin("c")).await.unwrap();
    let now = rig.ledger.counters(vec![counter(Window::Seconds(60))]).await.unwrap();
    assert!(now[0].version > seen + 1, "versions are not given twice");
}

#[tokio::test]
async fn compare_and_set() {
    let rig = Rig::new();
    let read = rig.ledger.counters(vec![counter(Window::Total)]).await.unwrap();
    let with = |id: &str, read: &[polity_ledger::CounterValue]| {
        let mut begin = rig.begin(id, 1, 10);
        begin.read = read.to_vec();
        begin
    };
    rig.ledger.begin(1, with("a", &read)).await.unwrap();
    assert_eq!(rig.ledger.begin(1, with("b", &read)).await, Err(Refused::Contended));
    assert!(rig.ledger.begin(1, with("a", &read)).await.unwrap().again, "sent again, not decided again");
    let read = rig.ledger.counters(vec![counter(Window::Total)]).await.unwrap();
    rig.ledger.settle(1, settle("a", 0, Outcome::NotDone)).await.unwrap();
    assert_eq!(rig.ledger.begin(1, with("b", &read)).await, Err(Refused::Contended));
    let read = rig.ledger.counters(vec![counter(Window::Total)]).await.unwrap();
    rig.ledger.begin(1, with("b", &read)).await.unwrap();
}

#[tokio::test]
async fn settled_in_parts_and_beyond_the_reservation() {
    let rig = Rig::new();
    rig.ledger.begin(1, rig.begin("a", 5, 10)).await.unwrap();
    rig.ledger.settle(1, part("a", 2)).await.unwrap();
    assert_eq!(rig.total().await, (2, 3));
    rig.ledger.settle(1, part("a", 4)).await.unwrap();
    assert_eq!(rig.total().await, (6, 0));
    rig.ledger.settle(1, settle("a", 1, Outcome::Done)).await.unwrap();
    assert_eq!(rig.total().await, (7, 0));
    let records = rig.records().await;
    let excess: Vec<Amounts> = records[2..].iter().map(|r| r.excess.clone()).collect();
    assert_eq!(excess, [Amounts::new(), amounts(1), amounts(1)]);
    assert_eq!(records.last().unwrap().counted, amounts(7));
    assert_eq!(recount(&records), rig.home.counters());
}

#[tokio::test]
async fn cost_is_recorded() {
    let rig = Rig::new();
    let mut begin = rig.begin("a", 1, 10);
    begin.reserve.extend([(unit::MICRO_USD.to_owned(), 5_000), (unit::TOKENS_IN.to_owned(), 100)]);
    rig.ledger.begin(1, begin).await.unwrap();
    let mut end = settle("a", 1, Outcome::Done);
    end.used.extend([(unit::MICRO_USD.to_owned(), 4_200), (unit::TOKENS_IN.to_owned(), 90)]);
    end.facts = [("model".to_owned(), json!("m-1")), ("exitCode".to_owned(), json!(0))].into();
    rig.ledger.settle(1, end).await.unwrap();
    let last = rig.records().await.pop().unwrap();
    let cost = last.cost.clone().unwrap();
    assert_eq!((cost.micro_usd, cost.tokens_in, cost.tokens_out), (4_200, 90, 0));
    assert_eq!((last.model.as_str(), last.facts.len()), ("m-1", 1));
}

fn resolve(id: &str, used: Amounts, outcome: Outcome) -> Settle {
    Settle { used, resolution: true, by: "jane".to_owned(), ..settle(id, 0, outcome) }
}

#[tokio::test]
async fn unknown_counts_at_its_maximum_until_resolved() {
    let rig = Rig::new();
    for (id, outcome, used, total) in [
        ("done, amount known", Outcome::Done, amounts(2), 3),
        ("done, amount not known", Outcome::Done, Amounts::new(), 4),
        ("not done", Outcome::NotDone, Amounts::new(), 1),
        ("done, for more than reserved", Outcome::Done, amounts(5), 6),
    ] {
        let before = rig.total().await.0;
        rig.ledger.begin(1, rig.begin(id, 4, 100)).await.unwrap();
        assert!(matches!(rig.ledger.settle(1, resolve(id, amounts(1), outcome)).await, Err(Refused::Invalid { .. })));
        rig.ledger.settle(1, part(id, 1)).await.unwrap();
        let unknown = rig.ledger.settle(1, settle(id, 0, Outcome::Unknown)).await.unwrap();
        assert_eq!(unknown.outcome, Some(Outcome::Unknown));
        assert_eq!(rig.total().await, (before + 4, 0), "{id}: at its maximum");
        let late = rig.ledger.settle(1, settle(id, 1, Outcome::Done)).await.unwrap();
        assert_eq!(late, unknown, "{id}: only a resolution changes it");
        let resolved = rig.ledger.settle(1, resolve(id, used.clone(), outcome)).await.unwrap();
        assert_eq!(resolved.outcome, Some(outcome));
        assert_eq!(rig.total().await, (before + total, 0), "{id}: resolved");
        let other = if outcome == Outcome::Done { Outcome::NotDone } else { Outcome::Done };
        for again in [outcome, other] {
            assert_eq!(rig.ledger.settle(1, resolve(id, used.clone(), again)).await.unwrap(), resolved, "{id}: once");
        }
        let attempt = rig.ledger.attempt(&org(), id).await.unwrap().unwrap();
        assert_eq!((attempt.state, attempt.outcome), (State::Settled, Some(outcome)));
    }
    let records = rig.records().await;
    let last = records.last().unwrap();
    assert_eq!((last.kind.as_str(), last.by.as_str()), ("resolution", "jane"));
    assert_eq!(recount(&records), rig.home.counters());
}

#[tokio::test]
async fn a_resolution_long_after_its_window_touches_no_other_counter() {
    let rig = Rig::new();
    let begin = |id: &str| {
        let mut begin = rig.begin(id, 2, 100);
        begin.charges = vec![Charge { counter: counter(Window::Seconds(60)), max: None, owner: String::new() }];
        begin
    };
    rig.ledger.begin(1, begin("a")).await.unwrap();
    rig.ledger.settle(1, settle("a", 0, Outcome::Unknown)).await.unwrap();
    rig.clock.turn(SignedDuration::from_hours(48));
    rig.ledger.expire(1).await.unwrap();
    assert!(rig.home.counters().is_empty());
    rig.ledger.begin(1, begin("b")).await.unwrap();
    let resolved = rig.ledger.settle(1, resolve("a", Amounts::new(), Outcome::NotDone)).await.unwrap();
    assert_eq!(resolved.outcome, Some(Outcome::NotDone));
    let counts: Vec<(i64, i64)> = rig.home.counters().into_values().collect();
    assert_eq!(counts, [(0, 2)]);
    assert_eq!(rig.records().await.last().unwrap().counted, amounts(0));
}

#[tokio::test]
async fn results_are_kept_for_a_day() {
    let rig = Rig::new();
    rig.ledger.begin(1, rig.begin("a", 1, 10)).await.unwrap();
    let mut end = settle("a", 1, Outcome::Done);
    end.result = Some(json!("x".repeat(1 << 20)));
    assert!(matches!(rig.ledger.settle(1, end.clone()).await, Err(Refused::Invalid { .. })), "two quotes too long");
    end.result = Some(json!("x".repeat((1 << 20) - 2)));
    let settled = rig.ledger.settle(1, end).await.unwrap();
    assert_eq!(settled.result.as_ref().unwrap().size, 1 << 20);
    rig.clock.turn(SignedDuration::from_hours(23));
    rig.ledger.expire(1).await.unwrap();
    assert!(rig.ledger.attempt(&org(), "a").await.unwrap().unwrap().result.is_some());
    rig.clock.turn(SignedDuration::from_hours(2));
    rig.ledger.expire(1).await.unwrap();
    let attempt = rig.ledger.attempt(&org(), "a").await.unwrap().unwrap();
    assert_eq!((attempt.result, attempt.result_digest), (None, settled.result));
}

#[tokio::test]
async fn bad_amounts_are_refused() {
    let rig = Rig::new();
    let invalid = |answer: Result<polity_ledger::Begun, Refused>| {
        assert!(matches!(answer, Err(Refused::Invalid { .. })), "{answer:?}");
    };
    invalid(rig.ledger.begin(1, rig.begin("a", -1, 10)).await);
    let mut begin = rig.begin("a", i64::MAX, 10);
    begin.charges[0].max = None;
    rig.ledger.begin(1, begin).await.unwrap();
    let mut begin = rig.begin("b", 1, 10);
    begin.charges[0].max = None;
    invalid(rig.ledger.begin(1, begin).await);
    let over = rig.ledger.settle(1, part("a", i64::MAX)).await;
    assert!(over.is_ok());
    for end in [settle("a", 1, Outcome::Done), part("a", -1)] {
        assert!(matches!(rig.ledger.settle(1, end).await, Err(Refused::Invalid { .. })));
    }
    let mut begin = rig.begin("c", 1, 10);
    begin.charges[0].counter.window = Window::Seconds(0);
    invalid(rig.ledger.begin(1, begin).await);
    for wrong in [
        Settle { last: true, ..part("a", 0) },
        Settle { outcome: Some(Outcome::Done), ..part("a", 0) },
        Settle { resolution: true, ..settle("a", 0, Outcome::Unknown) },
        Settle { result: Some(json!(1)), ..part("a", 0) },
    ] {
        assert!(matches!(rig.ledger.settle(1, wrong).await, Err(Refused::Invalid { .. })));
    }
    assert_eq!(rig.total().await, (i64::MAX, 0));
}

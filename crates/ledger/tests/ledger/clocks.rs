//! A clock that jumps, ahead and back: no window gives its budget twice, nothing that has lapsed comes back to life, a key still runs once, the chain
//! stays whole. (Jumps of a day and more are another thing: after a day keys and counters of old windows are dropped.)

use std::collections::BTreeMap;

use jiff::SignedDuration;
use polity_ledger::{Charge, Idempotency, Outcome, Refused, Window, verify};

use crate::common::{Rig, counter, recount, settle};

const HOUR: i64 = 3600;
const MOST: i64 = 3;

fn hourly() -> Charge {
    Charge { counter: counter(Window::Seconds(HOUR)), max: Some(MOST), owner: "Org acme budget.1h".to_owned() }
}

#[tokio::test]
async fn no_window_gives_its_budget_twice() {
    let mut rig = Rig::new();
    let mut given: BTreeMap<i64, i64> = BTreeMap::new();
    let (mut began, mut refused) = (0, 0);
    for n in 0..240_i64 {
        // Minutes and hours, ahead and back, without a pattern; together they stay within half a day of the start.
        let minutes = (n * 131) % 720 - 360;
        rig.clock.turn(SignedDuration::from_mins(minutes));
        let window = rig.now().as_second().div_euclid(HOUR);
        let mut begin = rig.begin(&format!("call-{n}"), 1, 10_000);
        begin.charges.push(hourly());
        match rig.ledger.begin(1, begin).await {
            Ok(_) => {
                began += 1;
                *given.entry(window).or_default() += 1;
            }
            Err(Refused::BudgetExceeded { limit: MOST, .. }) => {
                refused += 1;
                assert_eq!(given.get(&window), Some(&MOST), "refused with room left");
            }
            Err(other) => panic!("{other:?}"),
        }
        if n % 3 == 0 {
            rig.ledger.expire(1).await.unwrap();
        }
        if n % 5 == 0 {
            // What was not done gives nothing back that was not its own.
            let done = rig.ledger.settle(1, settle(&format!("call-{n}"), 1, Outcome::Done)).await;
            assert!(done.is_ok() || matches!(done, Err(Refused::NotFound { .. })), "{done:?}");
        }
        rig.clock.turn(SignedDuration::from_mins(-minutes));
    }
    assert!(given.values().all(|calls| *calls <= MOST), "{given:?}");
    assert!(began > 20 && refused > 100, "{began} began, {refused} were refused: nothing is proved");
    rig.reopen().await;
    let records = rig.records().await;
    assert_eq!(recount(&records), rig.home.counters());
    verify(records.into_iter().map(Ok::<_, Refused>)).unwrap();
}

#[tokio::test]
async fn what_has_lapsed_stays_so() {
    let rig = Rig::new();
    rig.ledger.hold(1, rig.hold("a", 1, 10)).await.unwrap();
    let while_it_waited = rig.begin("a", 1, 10);
    rig.clock.turn(SignedDuration::from_hours(2));
    assert_eq!(rig.ledger.expire(1).await.unwrap().len(), 1);
    rig.clock.turn(SignedDuration::from_hours(-3));
    let refused = rig.ledger.begin(1, while_it_waited).await.unwrap_err();
    assert!(matches!(&refused, Refused::AlreadyExecuted { state, .. } if state == "Released"), "{refused:?}");
    assert_eq!(rig.total().await, (0, 0));
}

#[tokio::test]
async fn a_key_runs_once_whatever_the_clock_says() {
    let rig = Rig::new();
    let keyed = |id: &str| {
        let mut begin = rig.begin(id, 1, 10);
        begin.idempotency = Some(Idempotency { key: "k".to_owned(), body: "body".to_owned() });
        begin
    };
    rig.ledger.begin(1, keyed("a")).await.unwrap();
    for hours in [-20, 30, -5, 17, -40] {
        rig.clock.turn(SignedDuration::from_hours(hours));
        rig.ledger.expire(1).await.unwrap();
        let again = rig.ledger.begin(1, keyed("b")).await;
        assert_eq!(again, Err(Refused::IdempotencyReplay { id: "a".to_owned() }), "after {hours} hours");
    }
    assert_eq!(rig.records().await.iter().filter(|r| r.kind.as_str() == "begin").count(), 1);
}

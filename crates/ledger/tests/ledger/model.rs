//! Random verbs against a simple model: the same answers, and counters that are the sum of the actions.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use polity_ledger::{Begin, Charge, Hold, Outcome, Refused, Release, Settle, Window, verify};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::common::{Counts, Rig, amounts, counter, org, part, recount, settle, subject};
use crate::home::MODELS;

const TOTAL: i64 = 30;
const MINUTE: i64 = 12;

#[derive(Clone, Debug)]
enum Op {
    Hold(u8, i64),
    Begin(u8, i64, bool),
    Settle(u8, i64, End),
    Release(u8),
    Expire,
    Turn(i64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Part,
    Last(Outcome),
    Resolve(Outcome),
}

fn op() -> impl Strategy<Value = Op> {
    let outcome = prop_oneof![Just(Outcome::Done), Just(Outcome::NotDone), Just(Outcome::Unknown)];
    let end = prop_oneof![
        Just(End::Part),
        outcome.prop_map(End::Last),
        prop_oneof![Just(Outcome::Done), Just(Outcome::NotDone)].prop_map(End::Resolve),
    ];
    prop_oneof![
        2 => (0..8_u8, 0..9_i64).prop_map(|(id, n)| Op::Hold(id, n)),
        4 => (0..8_u8, 0..9_i64, any::<bool>()).prop_map(|(id, n, stale)| Op::Begin(id, n, stale)),
        4 => (0..8_u8, 0..12_i64, end).prop_map(|(id, n, end)| Op::Settle(id, n, end)),
        1 => (0..8_u8).prop_map(Op::Release),
        1 => Just(Op::Expire),
        1 => (1..50_i64).prop_map(Op::Turn),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Held(Timestamp),
    Begun,
    Released,
    Settled(Outcome),
}

#[derive(Clone, Debug)]
struct Action {
    at: At,
    reserved: i64,
    used: i64,
    window: i64,
}

impl Action {
    /// Used and reserved.
    fn share(&self) -> (i64, i64) {
        match self.at {
            At::Held(_) | At::Begun => (self.used, (self.reserved - self.used).max(0)),
            At::Released => (0, 0),
            At::Settled(Outcome::Unknown) => (self.used.max(self.reserved), 0),
            At::Settled(_) => (self.used, 0),
        }
    }
}

#[derive(Default)]
struct Model {
    actions: BTreeMap<u8, Action>,
    /// Something was used beyond its reservation: a counter may stand above its limit.
    beyond: bool,
}

impl Model {
    fn sum(&self, window: Option<i64>) -> (i64, i64) {
        let actions = self.actions.values().filter(|a| window.is_none_or(|w| a.window == w));
        actions.map(Action::share).fold((0, 0), |sum, share| (sum.0 + share.0, sum.1 + share.1))
    }

    fn fits(&self, window: i64, more: i64) -> bool {
        let full = |sum: (i64, i64), max: i64| sum.0 + sum.1 + more > max;
        !full(self.sum(None), TOTAL) && !full(self.sum(Some(window)), MINUTE)
    }

    /// What a begin or hold should answer; `Ok(true)` when it does something.
    fn start(&mut self, id: u8, n: i64, now: Timestamp, begin: bool) -> Result<bool, &'static str> {
        let window = now.as_second().div_euclid(60) * 60;
        match self.actions.get(&id).map(|a| (a.at, a.window)) {
            None if !self.fits(window, n) => Err("BudgetExceeded"),
            None => {
                let at = if begin { At::Begun } else { At::Held(now + SignedDuration::from_secs(90)) };
                self.actions.insert(id, Action { at, reserved: n, used: 0, window });
                Ok(true)
            }
            Some((At::Held(until), _)) if begin && until <= now => Err("AlreadyExecuted"),
            Some((At::Held(_), window)) if begin && !self.fits(window, 0) => Err("BudgetExceeded"),
            Some((At::Held(_), _)) if begin => {
                self.actions.get_mut(&id).unwrap().at = At::Begun;
                Ok(true)
            }
            Some((At::Held(_), _)) => Ok(false),
            Some((At::Begun, _)) if begin => Ok(false),
            Some(_) => Err("AlreadyExecuted"),
        }
    }

    fn settle(&mut self, id: u8, n: i64, end: End) -> Result<bool, &'static str> {
        let Some(action) = self.actions.get_mut(&id) else { return Err("NotFound") };
        let resolve = matches!(end, End::Resolve(_));
        match action.at {
            At::Held(_) | At::Released => return Err("NotFound"),
            At::Begun if resolve => return Err("Invalid"),
            At::Settled(Outcome::Unknown) if resolve => (),
            At::Settled(_) => return Ok(false),
            At::Begun => (),
        }
        action.used += n;
        self.beyond |= action.used > action.reserved;
        match end {
            End::Part => (),
            End::Last(outcome) | End::Resolve(outcome) => action.at = At::Settled(outcome),
        }
        Ok(true)
    }
}

fn charges() -> Vec<Charge> {
    [(Window::Total, TOTAL), (Window::Seconds(60), MINUTE)]
        .map(|(window, max)| Charge { counter: counter(window), max: Some(max), owner: "test".to_owned() })
        .to_vec()
}

async fn run(ops: Vec<Op>) {
    let rig = Rig::new();
    let mut model = Model::default();
    for op in ops {
        step(&rig, &mut model, &op).await;
        let total = rig.total().await;
        assert_eq!(total, model.sum(None), "{op:?}");
        assert!(model.beyond || total.0 + total.1 <= TOTAL, "{op:?}");
    }
    let records = rig.records().await;
    let counts = rig.home.counters();
    assert_eq!(recount(&records), counts);
    assert_eq!(windows(&counts), by_window(&model));
    if !records.is_empty() {
        verify(records.into_iter().map(Ok::<_, Refused>)).unwrap();
    }
}

/// Counters of the minute window by their start.
fn windows(counts: &Counts) -> BTreeMap<i64, (i64, i64)> {
    counts.iter().filter(|((_, start), _)| *start > 0).map(|((_, start), count)| (*start, *count)).collect()
}

fn by_window(model: &Model) -> BTreeMap<i64, (i64, i64)> {
    model.actions.values().map(|a| (a.window, model.sum(Some(a.window)))).collect()
}

async fn step(rig: &Rig, model: &mut Model, op: &Op) {
    let before = rig.ledger.head(&org()).await.unwrap().map_or(0, |head| head.seq);
    let now = rig.now();
    let (wanted, answer): (Result<bool, &str>, Result<i64, Refused>) = match *op {
        Op::Hold(id, n) => {
            let expires = now + SignedDuration::from_secs(90);
            let subject = subject(&id.to_string());
            let hold = Hold { subject, reserve: amounts(n), charges: charges(), expires, idempotency: None };
            (model.start(id, n, now, false), rig.ledger.hold(1, hold).await.map(|held| held.seq))
        }
        Op::Begin(id, n, stale) => {
            let mut read = rig.ledger.counters(vec![counter(Window::Total)]).await.unwrap();
            let known = model.actions.get(&id).map(|a| a.at);
            let moved = stale && matches!(known, None | Some(At::Held(_)));
            read[0].version -= i64::from(moved);
            let expired = matches!(known, Some(At::Held(until)) if until <= now);
            let wanted = if moved && !expired { Err("Contended") } else { model.start(id, n, now, true) };
            let begin = rig.begin(&id.to_string(), n, 0);
            let begin = Begin { charges: charges(), read, ..begin };
            (wanted, rig.ledger.begin(1, begin).await.map(|begun| begun.seq))
        }
        Op::Settle(id, n, end) => {
            let id_text = id.to_string();
            let settle = match end {
                End::Part => part(&id_text, n),
                End::Last(outcome) => settle(&id_text, n, outcome),
                End::Resolve(outcome) => Settle { resolution: true, ..settle(&id_text, n, outcome) },
            };
            (model.settle(id, n, end), rig.ledger.settle(1, settle).await.map(|settled| settled.seq))
        }
        Op::Release(id) => {
            let wanted = match model.actions.get_mut(&id) {
                None => Err("NotFound"),
                Some(action) => match action.at {
                    At::Held(_) => {
                        action.at = At::Released;
                        Ok(true)
                    }
                    At::Released => Ok(false),
                    _ => Err("AlreadyExecuted"),
                },
            };
            let release = Release { org: org(), id: id.to_string(), reason: "test".to_owned(), by: "me".to_owned() };
            (wanted, rig.ledger.release(1, release).await)
        }
        Op::Expire => {
            let due = |a: &&mut Action| matches!(a.at, At::Held(until) if until <= now);
            let lapsed = model.actions.values_mut().filter(due).map(|a| a.at = At::Released).count();
            assert_eq!(rig.ledger.expire(1).await.unwrap().len(), lapsed);
            return;
        }
        Op::Turn(seconds) => return rig.clock.turn(SignedDuration::from_secs(seconds)),
    };
    match (&wanted, &answer) {
        (Ok(_), Ok(_)) => (),
        (Err(reason), Err(refused)) => assert_eq!(refused.reason(), *reason, "{op:?}"),
        _ => panic!("{op:?}: wanted {wanted:?}, got {answer:?}"),
    }
    let after = rig.ledger.head(&org()).await.unwrap().map_or(0, |head| head.seq);
    let wrote = after - before.max(1);
    assert_eq!(wrote.max(0), i64::from(wanted == Ok(true)), "{op:?} wrote {wrote} records");
}

/// Few by default, since each step is a commit; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let short = if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default().cases } else { MODELS };
    ProptestConfig { cases: short, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn as_the_model_says(ops in vec(op(), 1..60)) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(ops));
    }
}

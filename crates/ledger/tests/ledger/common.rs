//! What the tests share: a clock to turn, requests to vary, and a recount of the counters from the records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use polity_ledger::{
    Amounts, Begin, Charge, Clock, CounterKey, Hold, Ledger, OrgId, Outcome, Record, Settle, Subject, Target, Verdict, Window, unit,
};
use serde_json::json;

use crate::home::Home;

/// A clock that stands until it is turned.
#[derive(Debug)]
pub(crate) struct HandClock(AtomicI64);

impl HandClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(1_750_000_000_000_000)))
    }

    pub(crate) fn turn(&self, by: SignedDuration) {
        self.0.fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_microsecond(self.0.load(Ordering::SeqCst)).unwrap()
    }
}

pub(crate) struct Rig {
    pub(crate) home: Home,
    pub(crate) clock: Arc<HandClock>,
    pub(crate) ledger: Ledger,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let home = Home::new();
        let clock = HandClock::new();
        let ledger = Ledger::open(home.config("test"), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        Self { home, clock, ledger }
    }

    /// Close and open again.
    pub(crate) async fn reopen(&mut self) {
        self.ledger.close().await;
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        self.ledger = Ledger::open(self.home.config("test"), clock).unwrap();
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) async fn records(&self) -> Vec<Record> {
        self.ledger.export(&org(), 1, 10_000).await.unwrap()
    }

    pub(crate) fn begin(&self, id: &str, calls: i64, max: i64) -> Begin {
        begin_at(self.now(), id, calls, max)
    }

    pub(crate) fn hold(&self, id: &str, calls: i64, max: i64) -> Hold {
        Hold {
            subject: subject(id),
            reserve: amounts(calls),
            charges: vec![charge(max)],
            expires: self.now() + SignedDuration::from_hours(1),
            idempotency: None,
        }
    }

    /// The total counter that `charge` charges: used and reserved.
    pub(crate) async fn total(&self) -> (i64, i64) {
        let value = self.ledger.counters(vec![counter(Window::Total)]).await.unwrap().remove(0);
        (value.used, value.reserved)
    }
}

pub(crate) fn org() -> OrgId {
    OrgId { name: "acme".to_owned(), uid: "uid-acme".to_owned() }
}

pub(crate) fn amounts(calls: i64) -> Amounts {
    Amounts::from([(unit::CALLS.to_owned(), calls)])
}

pub(crate) fn counter(window: Window) -> CounterKey {
    CounterKey { unit: unit::CALLS.to_owned(), window, dims: [("org".to_owned(), org().uid)].into() }
}

pub(crate) fn charge(max: i64) -> Charge {
    Charge { counter: counter(Window::Total), max: Some(max), owner: "Org acme budget.total".to_owned() }
}

pub(crate) fn subject(id: &str) -> Subject {
    Subject {
        id: id.to_owned(),
        org: org(),
        verb: "tool.call".to_owned(),
        target: Target { kind: "Tool".to_owned(), name: "refund".to_owned(), ..Target::default() },
        actor: polity_ledger::Actor { kind: "AI".to_owned(), username: "system:serviceaccount:acme:bot".to_owned(), ..Default::default() },
        input: json!({ "amount": 12.0, "to": "somebody" }),
        snapshot: "snapshot-1".to_owned(),
        verdict: Verdict { effect: "Allow".to_owned(), ..Verdict::default() },
        dims: [("role".to_owned(), "acme/clerk".to_owned()), ("task".to_owned(), "t-1".to_owned())].into(),
        trace: String::new(),
        keep_input: false,
        past: None,
    }
}

pub(crate) fn begin_at(now: Timestamp, id: &str, calls: i64, max: i64) -> Begin {
    Begin {
        subject: subject(id),
        reserve: amounts(calls),
        charges: vec![charge(max)],
        read: vec![],
        consume: vec![],
        executor: "core".to_owned(),
        deadline: now + SignedDuration::from_mins(5),
        idempotency: None,
        resume: json!({ "pod": id }),
    }
}

pub(crate) fn settle(id: &str, used: i64, outcome: Outcome) -> Settle {
    Settle { last: true, outcome: Some(outcome), ..part(id, used) }
}

pub(crate) fn part(id: &str, used: i64) -> Settle {
    Settle {
        org: org(),
        id: id.to_owned(),
        used: amounts(used),
        last: false,
        outcome: None,
        reason: String::new(),
        message: String::new(),
        result: None,
        facts: [].into(),
        by: "core".to_owned(),
        resolution: false,
    }
}

/// Unit, window, start and dimensions of a counter → used and reserved.
pub(crate) type Counts = BTreeMap<(String, i64), (i64, i64)>;

#[derive(Default)]
struct Seen {
    reserved: Amounts,
    used: Amounts,
    counters: Vec<((String, i64), String)>,
    ended: bool,
    begun: bool,
}

/// The counters as the records alone tell them; panics where the records contradict themselves.
pub(crate) fn recount(records: &[Record]) -> Counts {
    let mut actions: BTreeMap<&str, Seen> = BTreeMap::new();
    for record in records {
        let seen = actions.entry(&record.action).or_default();
        let kind = record.kind.as_str();
        if kind == "hold" || kind == "begin" {
            assert!(!seen.begun, "{} begins twice", record.action);
            seen.begun = kind == "begin";
            for (unit, amount) in &record.reserved {
                *seen.reserved.entry(unit.clone()).or_default() += amount;
            }
            for charged in &record.charged {
                let base = serde_json::to_string(&(&charged.unit, charged.window, &charged.dims)).unwrap();
                seen.counters.push(((base, charged.start), charged.unit.clone()));
                assert_eq!(charged.amount, seen.reserved.get(&charged.unit).copied().unwrap_or(0));
            }
            assert!(kind == "hold" || !seen.reserved.is_empty(), "{} begins without a reservation", record.action);
        }
        if kind == "settle" || kind == "resolution" {
            assert!(seen.begun, "{} is settled and never began", record.action);
            if record.outcome.is_empty() {
                for (unit, amount) in &record.used {
                    *seen.used.entry(unit.clone()).or_default() += amount;
                }
            } else {
                seen.used = record.counted.clone();
                seen.ended = true;
            }
        }
        seen.ended |= kind == "release";
    }
    let mut counts = Counts::new();
    for seen in actions.values() {
        for (counter, unit) in &seen.counters {
            let of = |amounts: &Amounts| amounts.get(unit).copied().unwrap_or(0);
            let count = counts.entry(counter.clone()).or_default();
            count.0 += of(&seen.used);
            count.1 += if seen.ended { 0 } else { (of(&seen.reserved) - of(&seen.used)).max(0) };
        }
    }
    counts
}

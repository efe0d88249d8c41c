//! Calls as an edge sends them: a tool call of an AI worker with a trace, two budgets, a rule that allowed it, and a small result.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use polity_ledger::{Actor, Begin, Charge, CounterKey, OrgId, Outcome, Settle, Subject, Target, Verdict, Window, unit};
use serde_json::json;

/// The Org.
pub fn org() -> OrgId {
    OrgId { name: "acme".to_owned(), uid: "0af76519-16cd-43dd-8448-eb211c80319c".to_owned() }
}

/// An id like a uid: spread over the key space, as uids are.
pub fn id(n: usize) -> String {
    let spread = u64::try_from(n).unwrap_or_default().wrapping_mul(0x9E37_79B9_7F4A_7C15);
    format!("{:08x}-16cd-43dd-8448-{:012x}", spread >> 32, spread & 0xffff_ffff_ffff)
}

/// A start, with a limit on the number of calls.
pub fn begin(id: &str, limit: i64) -> Begin {
    let charge = |unit: &str, max| Charge {
        counter: CounterKey {
            unit: unit.to_owned(),
            window: Window::Seconds(86_400),
            dims: BTreeMap::from([("org".to_owned(), org().uid)]),
        },
        max: Some(max),
        owner: "budget of Org acme per 86400 s".to_owned(),
    };
    Begin {
        subject: Subject {
            id: id.to_owned(),
            org: org(),
            verb: "tool.call".to_owned(),
            target: Target { kind: "Tool".to_owned(), namespace: "acme".to_owned(), name: "refund".to_owned(), digest: "ab".repeat(32) },
            actor: Actor {
                kind: "AI".to_owned(),
                agent: "acme/clerk".to_owned(),
                username: "system:serviceaccount:acme:clerk".to_owned(),
                roles: vec!["acme/support".to_owned()],
                ..Actor::default()
            },
            input: json!({"amount": 12, "to": "somebody", "note": "as agreed on the phone"}),
            snapshot: "cd".repeat(32),
            verdict: Verdict { effect: "Allow".to_owned(), rules: vec!["acme/limits/amount".to_owned()], ..Verdict::default() },
            dims: BTreeMap::from([("role".to_owned(), "acme/support".to_owned()), ("task".to_owned(), "ticket-4711".to_owned())]),
            trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
            keep_input: false,
            past: None,
        },
        reserve: [(unit::CALLS.to_owned(), 1), (unit::MICRO_USD.to_owned(), 1000)].into(),
        charges: vec![charge(unit::CALLS, limit), charge(unit::MICRO_USD, i64::MAX / 2)],
        read: Vec::new(),
        consume: Vec::new(),
        executor: "polity-edge-5d8f7c9b6d-x2x7k".to_owned(),
        deadline: Timestamp::now() + SignedDuration::from_mins(5),
        idempotency: None,
        resume: serde_json::Value::Null,
    }
}

/// Its end.
pub fn settle(id: &str) -> Settle {
    Settle {
        org: org(),
        id: id.to_owned(),
        used: [(unit::CALLS.to_owned(), 1), (unit::MICRO_USD.to_owned(), 700)].into(),
        last: true,
        outcome: Some(Outcome::Done),
        reason: String::new(),
        message: String::new(),
        result: Some(json!({"receipt": "r-4711", "ok": true})),
        facts: BTreeMap::new(),
        by: "polity-edge-5d8f7c9b6d-x2x7k".to_owned(),
        resolution: false,
    }
}

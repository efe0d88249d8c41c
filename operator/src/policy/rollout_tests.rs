use std::sync::Arc;

use polity_ledger::{Begin, Config, SystemClock};
use serde_json::json;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn key(policy: &str) -> Key {
    ("acme".to_owned(), policy.to_owned())
}

fn subject(id: &str, effect: &str, advised: &[(&str, &str, &str)]) -> Subject {
    let advisory =
        advised.iter().map(|(rule, effect, policy)| json!({"rule": rule, "effect": effect, "policy": policy})).collect::<Vec<_>>();
    serde_json::from_value(json!({
        "id": id, "org": {"name": "acme", "uid": "u"}, "verb": "tool.call",
        "target": {"kind": "Tool", "namespace": "acme", "name": "pay"},
        "actor": {"type": "AI", "agent": "acme/bot", "username": "bot"},
        "input": {}, "snapshot": "s", "verdict": {"effect": effect, "advisory": advisory}, "dims": {}
    }))
    .unwrap()
}

fn rollout() -> Rollout {
    let rollout = Rollout::new(&Registry::new()).unwrap();
    rollout.wakes(Arc::new(Queue::new(Duration::ZERO)));
    rollout
}

/// Notes a call by the strongest of its effects.
fn call(rollout: &Rollout, seq: i64, second: i64, advised: &[(&str, &str, &str)]) {
    rollout.note(Rollout::of(&subject("x", "Allow", advised)), seq, at(second));
}

#[test]
fn a_call_counts_once_by_the_strongest_effect_and_for_its_version_only() {
    let rollout = rollout();
    rollout.ready();
    call(&rollout, 1, 0, &[("acme/p/ask", "RequireApproval", "d1"), ("acme/p/most", "Deny", "d1"), ("acme/q/r", "Rewrite", "d9")]);
    call(&rollout, 2, 1, &[("acme/p/ask", "RequireApproval", "d1")]);
    call(&rollout, 3, 2, &[("acme/p/ask", "RequireApproval", "older")]);
    let (p, again) = rollout.figures(&key("p"), "d1", None, at(0));
    assert_eq!((p.calls, p.denied, p.asked, p.rewritten, again), (2, 1, 1, 0, None));
    let shown: Vec<_> = p.examples.iter().map(|e| (e.rule.as_str(), e.effect, e.record)).collect();
    assert_eq!(shown, [("ask", Effect::RequireApproval, 2), ("most", Effect::Deny, 1)]);
    assert_eq!((p.examples[0].agent.as_str(), p.examples[0].tool.as_str(), p.examples[0].org.as_str()), ("acme/bot", "acme/pay", "acme"));
    let (q, _) = rollout.figures(&key("q"), "d9", None, at(0));
    assert_eq!((q.calls, q.rewritten), (1, 1));
    assert_eq!(rollout.figures(&key("p"), "d2", None, at(5)).0.calls, 0, "another version begins anew");
    assert_eq!(rollout.figures(&key("p"), "d1", None, at(5)).0.calls, 0, "and the one before is forgotten");
}

#[test]
fn what_is_denied_anyway_and_what_rests_on_an_approval_counts_not() {
    let advised = [("acme/p/most", "Deny", "d")];
    assert!(Rollout::of(&subject("x", "Deny", &advised)).is_none());
    let mut approved = subject("x", "Allow", &advised);
    approved.verdict.approvals = vec!["uid".to_owned()];
    assert!(Rollout::of(&approved).is_none(), "it was counted when it was held");
    assert!(Rollout::of(&subject("x", "RequireApproval", &advised)).is_some());
    assert!(Rollout::of(&subject("x", "Allow", &[])).is_none());
}

#[test]
fn written_at_most_each_ten_seconds_and_only_with_news() {
    let rollout = rollout();
    rollout.ready();
    let advised = [("acme/p/most", "Deny", "d")];
    let (zero, _) = rollout.figures(&key("p"), "d", None, at(0));
    assert_eq!((zero.since.0, zero.calls), (at(0), 0));
    call(&rollout, 1, 1, &advised);
    let (one, _) = rollout.figures(&key("p"), "d", Some(&zero), at(1));
    assert_eq!((one.calls, one.since.0), (1, at(0)));
    call(&rollout, 2, 2, &advised);
    let (same, again) = rollout.figures(&key("p"), "d", Some(&one), at(4));
    assert_eq!((same, again), (one.clone(), Some(Duration::from_secs(7))));
    let (two, _) = rollout.figures(&key("p"), "d", Some(&one), at(11));
    assert_eq!(two.calls, 2);
    assert_eq!(rollout.figures(&key("p"), "d", Some(&two), at(500_000)), (two.clone(), None), "at rest nothing changes");
    call(&rollout, 3, 500_001, &advised);
    let (later, _) = rollout.figures(&key("p"), "d", Some(&two), at(500_001));
    assert_eq!((later.calls, later.since.0, later.examples.len()), (1, at(500_001) - WINDOW, 1), "the window moved on");
    for seq in 0..20 {
        call(&rollout, 10 + seq, 500_002 + seq, &advised);
    }
    let (many, _) = rollout.figures(&key("p"), "d", Some(&later), at(500_100));
    assert_eq!((many.calls, many.examples.len(), many.examples[0].record), (21, EXAMPLES, 29));
}

/// A core that starts shows what the one before would have shown, and counts nothing twice that begins meanwhile.
#[tokio::test]
async fn the_records_give_the_same_again() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(Config::new(dir.path(), "inst"), Arc::new(SystemClock)).unwrap();
    let begin = |id: &str, advised: &[(&str, &str, &str)]| Begin {
        subject: subject(id, "Allow", advised),
        reserve: [].into(),
        charges: Vec::new(),
        read: Vec::new(),
        consume: Vec::new(),
        executor: "core".to_owned(),
        deadline: Timestamp::MAX,
        idempotency: None,
        resume: serde_json::Value::Null,
    };
    let advised = [("acme/p/most", "Deny", "d")];
    for id in ["a", "b"] {
        ledger.begin(1, begin(id, &advised)).await.unwrap();
    }
    ledger.begin(1, begin("c", &[])).await.unwrap();
    let rollout = rollout();
    let now = Timestamp::now();
    // begins while the chains are read: before and after
    let early = ledger.begin(1, begin("d", &advised)).await.unwrap();
    rollout.note(Rollout::of(&begin("d", &advised).subject), early.seq, now);
    let since =
        Shown { since: Time(now - SignedDuration::from_hours(1)), calls: 0, denied: 0, asked: 0, rewritten: 0, examples: Vec::new() };
    assert_eq!(rollout.figures(&key("p"), "d", Some(&since), now), (since.clone(), None), "not before everything was read");
    let unheard = ledger.begin(1, begin("e", &advised)).await.unwrap();
    chains(&rollout, &ledger, now).await.unwrap();
    rollout.note(Rollout::of(&begin("e", &advised).subject), unheard.seq, now);
    chains(&rollout, &ledger, now).await.unwrap();
    rollout.ready();
    let (shown, _) = rollout.figures(&key("p"), "d", Some(&since), now);
    assert_eq!((shown.calls, shown.denied, shown.examples.len()), (4, 4, 4), "{shown:?}");
    // the next core finds that nothing came since, and changes nothing
    let next = self::rollout();
    chains(&next, &ledger, now).await.unwrap();
    next.ready();
    let later = now + SignedDuration::from_hours(23);
    assert_eq!(next.figures(&key("p"), "d", Some(&shown), later), (shown, None));
    ledger.close().await;
}

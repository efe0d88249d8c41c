//! Recorded decisions against a candidate Policy, from a real ledger's records.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)] // a helper that fails fails its test; `json!` values read best by value

mod common;

use std::{path::Path, sync::Arc};

use common::run;
use polity_ledger::{Actor, Config, CounterRead, Ledger, Note, OrgId, Past, Subject, SystemClock, Target, Verdict};
use serde_json::json;

const BOT: &str = "system:serviceaccount:shop:polity-agent-clerk-bot";

fn file(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(name).to_str().unwrap().to_owned()
}

/// What was decided about a refund.
fn decided(id: &str, amount: i64, effect: &str, reason: &str, keep_input: bool) -> Note {
    let org = OrgId { name: "shop".to_owned(), uid: "uid-1".to_owned() };
    let subject = Subject {
        id: id.to_owned(),
        org: org.clone(),
        verb: "tool.call".to_owned(),
        target: Target { kind: "Tool".to_owned(), namespace: "shop".to_owned(), name: "refund".to_owned(), digest: "d".to_owned() },
        actor: Actor { username: BOT.to_owned(), agent: "shop/clerk-bot".to_owned(), ..Actor::default() },
        input: json!({"amount": amount}),
        snapshot: "s".to_owned(),
        verdict: Verdict { effect: effect.to_owned(), reason: reason.to_owned(), ..Verdict::default() },
        dims: [].into(),
        trace: String::new(),
        keep_input,
        past: None,
    };
    let once = Some(format!("decision/{id}"));
    Note {
        kind: "decision".to_owned(),
        org,
        once,
        subject: Some(subject),
        actor: None,
        target: None,
        reason: reason.to_owned(),
        facts: [].into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_is_tried_on_what_was_decided() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(Config::new(dir.path(), "inst"), Arc::new(SystemClock)).unwrap();
    for note in [
        decided("small", 20, "Allow", "", true),
        decided("asked", 450, "RequireApproval", "ApprovalRequired", true),
        decided("refused", 900, "Deny", "PolicyDenied", true),
        decided("digest only", 450, "RequireApproval", "ApprovalRequired", false),
        decided("under other rules", 20, "Deny", "PolicyDenied", true),
    ] {
        ledger.note(1, note).await.unwrap();
    }
    drop(ledger);
    let records = dir.path().join("shop.ndjson");
    std::fs::write(&records, run(&["audit", "export", "--dir", dir.path().to_str().unwrap(), "--org", "shop"]).ends(0).out.clone())
        .unwrap();
    let records = records.to_str().unwrap();
    let (org, candidate) = (file("org.yaml"), file("candidate.yaml"));

    let said = run(&["policy", "replay", "-f", &org, "-c", &candidate, "--records", records]);
    said.ends(1).has(&[
        "5 calls: 1 would be decided otherwise, 2 alike",
        "not covered: 1, the input was not kept",
        "the organisation has changed",
    ]);
    let json = run(&["policy", "replay", "-f", &org, "-c", &candidate, "--records", records, "-o", "json"]).ends(1).json();
    let change = &json["changed"][0];
    assert_eq!(
        (&change["was"], &change["wouldBe"], &change["rules"]),
        (&json!("RequireApproval"), &json!("Deny"), &json!(["shop/refunds/most"]))
    );
    assert_eq!(change["agent"], "shop/clerk-bot");

    // The rules as they are change nothing, and that is a success.
    let same = dir.path().join("same.yaml");
    std::fs::write(&same, std::fs::read_to_string(&candidate).unwrap().replace("<= 400", "<= 500")).unwrap();
    run(&["policy", "replay", "-f", &org, "-c", same.to_str().unwrap(), "--records", records])
        .ends(0)
        .has(&["0 would be decided otherwise, 3 alike"]);

    run(&["policy", "replay", "-f", &org, "-c", &org, "--records", records]).ends(1).has(&["a candidate is a Policy"]);
    run(&["policy", "replay", "-f", &org, "-c", &candidate, "--records", &org]).ends(1).has(&["record 1"]);
    let elsewhere = dir.path().join("elsewhere.yaml");
    std::fs::write(&elsewhere, std::fs::read_to_string(&candidate).unwrap().replace("namespace: shop", "namespace: elsewhere")).unwrap();
    run(&["policy", "replay", "-f", &org, "-c", elsewhere.to_str().unwrap(), "--records", records]).ends(1).has(&["belongs to no Org"]);
}

/// Rules that read counters and history are told what they were told then; what the records do not tell is named.
#[tokio::test(flavor = "multi_thread")]
async fn counters_and_history_stand_where_they_stood() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let policy = |rules: &str, counter: &str, more: &str| {
        format!(
            "apiVersion: polity.dev/v1alpha1\nkind: Policy\nmetadata: {{name: sums, namespace: shop}}\nspec:\n  match: {{tools: [refund]{more}}}\n  \
             counters: [{counter}]\n  rules:\n{rules}"
        )
    };
    let rule = |name: &str, expression: &str| format!("  - {{name: {name}, expression: \"{expression}\", effect: Deny}}\n");
    let spent = "{name: spent, amount: args.amount, by: [Agent], window: 24h}";
    let (day, calls, leak) =
        (rule("day", "counters.spent + args.amount <= 100"), rule("few", "history.calls < 9"), rule("leak", "!('pii' in history.labels)"));
    let organisation = std::fs::read_to_string(file("org.yaml")).unwrap().split("kind: Policy").next().unwrap().to_owned();
    let organisation = organisation.trim_end().trim_end_matches("apiVersion: polity.dev/v1alpha1").to_owned();
    std::fs::write(at("org.yaml"), organisation + &policy(&format!("{day}{calls}{leak}"), spent, "")).unwrap();

    let ledger = Ledger::open(Config::new(dir.path(), "inst"), Arc::new(SystemClock)).unwrap();
    let past = |spent: i64, calls: i64, pii: bool| {
        let spent = CounterRead {
            policy: "shop/sums".to_owned(),
            name: "spent".to_owned(),
            window: 86_400,
            by: vec!["agent".to_owned()],
            value: spent,
        };
        Some(Past { counters: vec![spent], calls: Some(calls), labels: [("pii".to_owned(), pii)].into(), ..Past::default() })
    };
    for (id, amount, effect, reason, past) in [
        ("first", 40, "Allow", "", past(0, 0, false)),
        ("second", 40, "Allow", "", past(40, 1, false)),
        ("third", 40, "Deny", "PolicyDenied", past(80, 2, false)),
        ("read", 10, "Deny", "PolicyDenied", past(80, 3, true)),
        ("of an older Polity", 10, "Allow", "", None),
    ] {
        let mut note = decided(id, amount, effect, reason, true);
        note.subject.as_mut().unwrap().past = past;
        ledger.note(1, note).await.unwrap();
    }
    drop(ledger);
    std::fs::write(
        at("shop.ndjson"),
        run(&["audit", "export", "--dir", dir.path().to_str().unwrap(), "--org", "shop"]).ends(0).out.clone(),
    )
    .unwrap();
    let replay = |candidate: String, code: i32, wanted: &[&str]| {
        std::fs::write(at("candidate.yaml"), candidate).unwrap();
        run(&["policy", "replay", "-f", &at("org.yaml"), "-c", &at("candidate.yaml"), "--records", &at("shop.ndjson")])
            .ends(code)
            .has(wanted);
    };
    let rules = |day: &str| policy(&format!("{day}{calls}{leak}"), spent, "");
    let untold = "not covered: 1, counter shop/sums/spent: the record does not tell what it stood at";
    replay(rules(&day), 0, &["5 calls: 0 would be decided otherwise, 4 alike", untold]);
    // 40 + 40 is too much now, and 80 + 40 was before
    replay(
        rules(&rule("day", "counters.spent + args.amount <= 60")),
        1,
        &["1 would be decided otherwise, 3 alike", "Allow", "shop/sums/day"],
    );
    replay(rules(&rule("day", "counters.spent + args.amount <= 120")), 1, &["1 would be decided otherwise, 3 alike", "Deny"]);
    let week = spent.replace("24h", "7d");
    replay(
        policy(&day, &week, ""),
        0,
        &["0 would be decided otherwise, 0 alike", "not covered: 4, counter shop/sums/spent: it counted over another window then"],
    );
    let all = spent.replace("[Agent]", "[Tool]");
    replay(policy(&day, &all, ""), 0, &["not covered: 4, counter shop/sums/spent: calls counted apart by something else then"]);
    let double = spent.replace("args.amount", "args.amount * 2");
    replay(policy(&day, &double, ""), 0, &["not covered: 4, counter shop/sums/spent: calls would have added another amount"]);
    replay(policy(&day, spent, ", risk: [money]"), 1, &[]);
    replay(
        policy(&day, spent, ", agents: [clerk-bot]"),
        0,
        &["not covered: 4, counter shop/sums/spent: its Policy selects other calls now"],
    );
    let new = policy(&rule("new", "counters.calls < 5"), "{name: calls, window: 24h}", "");
    replay(new, 0, &["not covered: 4, counter shop/sums/calls: the record does not tell what it stood at"]);
    replay(
        policy(&rule("l", "!('vip' in history.labels)"), spent, ""),
        0,
        &["not covered: 4, \"vip\" in history.labels: no rule asked for it then"],
    );
    replay(
        policy(&rule("t", "history.tools['refund'] < 2"), spent, ""),
        0,
        &["not covered: 4, history.tools['refund']: no rule read it then"],
    );
}

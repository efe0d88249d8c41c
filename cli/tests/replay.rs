//! Recorded decisions against a candidate Policy, from a real ledger's records.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)] // a helper that fails fails its test; `json!` values read best by value

mod common;

use std::{path::Path, sync::Arc};

use common::run;
use polity_ledger::{Actor, Config, Ledger, Note, OrgId, Subject, SystemClock, Target, Verdict};
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

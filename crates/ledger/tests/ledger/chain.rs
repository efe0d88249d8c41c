//! Chains: what is exported verifies, and whatever is done to it is found and named.

use polity_ledger::record::NO_PREVIOUS;
use polity_ledger::{Broken, Clock, Expect, Flaw, Head, Ledger, Outcome, Record, Verified, canonical, read_lines, verify_with};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::{HandClock, Rig, begin_at, org, settle};
use crate::home::Home;

/// A chain of 12 records as exported lines.
async fn lines() -> Vec<String> {
    let rig = Rig::new();
    for i in 0..5 {
        let id = format!("call-{i}");
        rig.ledger.begin(1, rig.begin(&id, 1, 100)).await.unwrap();
        rig.ledger.settle(1, settle(&id, 1, Outcome::Done)).await.unwrap();
    }
    rig.ledger.begin(1, rig.begin("last", 1, 100)).await.unwrap();
    rig.records().await.iter().map(Record::to_line).collect()
}

fn check(lines: &[String], expect: &Expect) -> Result<Verified, Broken> {
    verify_with(read_lines(lines.join("\n").as_bytes()), expect)
}

fn flaw(lines: &[String], expect: &Expect) -> (i64, Flaw) {
    let broken = check(lines, expect).unwrap_err();
    assert!(broken.to_string().contains(&broken.seq.to_string()));
    (broken.seq, broken.what)
}

fn head(lines: &[String], seq: usize) -> Head {
    let hash = Record::from_line(&lines[seq - 1]).unwrap().hash().to_owned();
    Head { seq: i64::try_from(seq).unwrap(), hash }
}

fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// A record with other content and a hash that is right.
fn forged(line: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut value: Value = serde_json::from_str(line).unwrap();
    value.as_object_mut().unwrap().remove("hash");
    change(&mut value);
    let text = canonical(&value).unwrap();
    format!("{},\"hash\":\"{}\"}}", text.strip_suffix('}').unwrap(), hash(&text))
}

#[tokio::test]
async fn a_whole_chain_verifies() {
    let lines = lines().await;
    let expect = Expect { installation: Some("test".to_owned()), org_uid: Some(org().uid), head: Some(head(&lines, 12)), keys: Vec::new() };
    let verified = check(&lines, &expect).unwrap();
    assert_eq!((verified.records, verified.head), (12, expect.head));
    assert_eq!((verified.installation.as_str(), verified.org.as_str()), ("test", "acme"));
    // A head that was kept earlier holds as well.
    check(&lines, &Expect { head: Some(head(&lines, 7)), ..Expect::default() }).unwrap();
    assert_eq!(check(&[], &Expect::default()).unwrap(), Verified::default());
}

#[tokio::test]
async fn the_exported_text_is_the_text_hashed() {
    for line in lines().await {
        let (body, rest) = line.rsplit_once(",\"hash\":\"").unwrap();
        assert_eq!(hash(&format!("{body}}}")), rest.strip_suffix("\"}").unwrap());
    }
}

#[tokio::test]
async fn any_flipped_byte_is_found() {
    let whole = lines().await;
    for bit in [0x01, 0x04, 0x20] {
        for at in 0..whole[4].len() {
            let mut bytes = whole[4].clone().into_bytes();
            bytes[at] ^= bit;
            let Ok(text) = String::from_utf8(bytes) else { continue };
            let mut lines = whole.clone();
            lines[4] = text;
            let (seq, what) = flaw(&lines, &Expect::default());
            assert_eq!(seq, 5, "byte {at}: {}", lines[4]);
            assert!(matches!(what, Flaw::Hash | Flaw::Unreadable), "byte {at}: {what:?}");
        }
    }
}

#[tokio::test]
async fn a_changed_text_of_the_same_meaning_is_found() {
    let mut lines = lines().await;
    lines[4] = lines[4].replacen(":", ": ", 1);
    assert_eq!(flaw(&lines, &Expect::default()), (5, Flaw::Unreadable));
}

#[tokio::test]
async fn dropped_records_are_found() {
    let whole = lines().await;
    let mut lines = whole.clone();
    lines.remove(4);
    assert_eq!(flaw(&lines, &Expect::default()), (5, Flaw::Gap));
    let mut lines = whole.clone();
    lines.drain(4..8);
    assert_eq!(flaw(&lines, &Expect::default()), (5, Flaw::Gap));
    let lines = whole[1..].to_vec();
    assert_eq!(flaw(&lines, &Expect::default()), (1, Flaw::FirstRecord));
    let lines = whole[..9].to_vec();
    check(&lines, &Expect::default()).expect("a dropped tail shows only against a head");
    let known = Expect { head: Some(head(&whole, 12)), ..Expect::default() };
    assert_eq!(flaw(&lines, &known), (10, Flaw::Gap));
    assert_eq!(flaw(&[], &known), (1, Flaw::FirstRecord));
}

#[tokio::test]
async fn another_order_is_found() {
    let whole = lines().await;
    let mut lines = whole.clone();
    lines.swap(4, 5);
    assert_eq!(flaw(&lines, &Expect::default()), (5, Flaw::Order));
    let mut lines = whole.clone();
    lines.insert(7, whole[2].clone());
    assert_eq!(flaw(&lines, &Expect::default()), (8, Flaw::Order));
    let mut lines = whole;
    lines.swap(0, 5);
    assert_eq!(flaw(&lines, &Expect::default()), (1, Flaw::FirstRecord));
}

#[tokio::test]
async fn a_fork_is_found() {
    let whole = lines().await;
    let other = forged(&whole[4], |v| v["verb"] = json!("tool.other"));
    let mut lines = whole.clone();
    lines.insert(5, other.clone());
    assert_eq!(flaw(&lines, &Expect::default()), (5, Flaw::Fork), "two of one record");
    let mut lines = whole.clone();
    lines[4] = other.clone();
    assert_eq!(flaw(&lines, &Expect::default()), (6, Flaw::Fork), "replaced: the next one follows another");
    let mut lines = whole[..5].to_vec();
    lines[4] = other;
    check(&lines, &Expect::default()).expect("the end of a fork shows only against a head");
    let known = Expect { head: Some(head(&whole, 5)), ..Expect::default() };
    assert_eq!(flaw(&lines, &known), (5, Flaw::Fork));
}

#[tokio::test]
async fn a_foreign_first_record_is_found() {
    let whole = lines().await;
    for expect in [
        Expect { installation: Some("production".to_owned()), ..Expect::default() },
        Expect { org_uid: Some("uid-of-an-older-acme".to_owned()), ..Expect::default() },
    ] {
        assert_eq!(flaw(&whole, &expect), (1, Flaw::FirstRecord));
    }
    let mut lines = whole.clone();
    lines[0] = forged(&whole[0], |v| v["installation"] = json!("production"));
    assert_eq!(flaw(&lines, &Expect::default()), (2, Flaw::Fork));
    assert_eq!(flaw(&lines, &Expect { installation: Some("test".to_owned()), ..Expect::default() }), (1, Flaw::FirstRecord));
    let mut lines = whole.clone();
    lines[5] = forged(&whole[5], |v| v["org"]["uid"] = json!("uid-other"));
    assert_eq!(flaw(&lines, &Expect::default()), (6, Flaw::Foreign));
    let mut lines = whole;
    lines[0] = forged(&lines[0], |v| v["installation"] = json!(""));
    assert_eq!(flaw(&lines, &Expect::default()), (1, Flaw::FirstRecord));
}

#[tokio::test]
async fn unknown_kinds_and_fields_are_accepted() {
    let whole = lines().await;
    let last = Record::from_line(&whole[11]).unwrap();
    let line = forged(&whole[11], |v| {
        v["seq"] = json!(13);
        v["prev"] = json!(last.hash());
        v["kind"] = json!("route");
        v["format"] = json!(2);
        v["outcome"] = json!("HalfDone");
        v["candidates"] = json!([{ "agent": "a", "score": 0.5 }]);
        v["actor"]["mood"] = json!("new");
    });
    let mut lines = whole;
    lines.push(line.clone());
    assert_eq!(check(&lines, &Expect::default()).unwrap().records, 13);
    let record = Record::from_line(&line).unwrap();
    assert_eq!(record.other["candidates"], json!([{ "agent": "a", "score": 0.5 }]));
    // Also where it travels as JSON of another writer.
    let json = serde_json::to_string_pretty(&record).unwrap();
    let back: Record = serde_json::from_str(&json).unwrap();
    assert_eq!(back, record);
    assert!(json.contains("mood") && back.computed_hash() == back.hash());
}

#[tokio::test]
async fn each_org_has_a_chain_of_its_own() {
    let rig = Rig::new();
    for (uid, id) in [("u1", "a"), ("u2", "a"), ("u1", "b")] {
        let mut begin = begin_at(rig.now(), id, 1, 100);
        begin.subject.org.uid = uid.to_owned();
        assert!(!rig.ledger.begin(1, begin).await.unwrap().again, "ids are of an Org");
    }
    let orgs = rig.ledger.orgs().await.unwrap();
    let uids: Vec<&str> = orgs.iter().map(|o| o.uid.as_str()).collect();
    assert_eq!(uids, ["u1", "u2"]);
    for (org, count) in orgs.iter().zip([3, 2]) {
        let records = rig.ledger.export(org, 0, 100).await.unwrap();
        assert_eq!(records[0].prev, NO_PREVIOUS);
        let verified = polity_ledger::verify(records.into_iter().map(Ok::<_, Broken>)).unwrap();
        assert_eq!(verified.records, count);
        assert_eq!(verified.head, rig.ledger.head(org).await.unwrap());
    }
    assert_eq!(rig.ledger.export(&orgs[0], 2, 1).await.unwrap()[0].seq, 2);
    assert_eq!(rig.ledger.head(&org()).await.unwrap(), None);
    assert!(rig.ledger.export(&org(), 1, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_first_record_names_the_installation() {
    let home = Home::new();
    let clock: std::sync::Arc<dyn Clock> = HandClock::new();
    let ledger = Ledger::open(home.config("production"), clock).unwrap();
    ledger.digest(&org(), "1").await.unwrap();
    let record = ledger.export(&org(), 1, 1).await.unwrap().remove(0);
    assert_eq!((record.installation.as_str(), record.org.clone()), ("production", org()));
    assert_eq!((record.kind.as_str(), record.id.as_str()), ("genesis", "uid-acme/1"));
}

//! Segments: signed roots, keys that follow each other, retention, and what `verify` makes of it all.

use jiff::SignedDuration;
use polity_ledger::{
    Broken, Expect, Filter, Flaw, Head, Line, OrgId, Outcome, Refused, Root, Sealing, Settle, Standing, Verified, read_export, verify_with,
};

use crate::common::{Rig, org, settle};

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn small() -> Sealing {
    Sealing { records: 10, ..Sealing::default() }
}

async fn pairs(rig: &Rig, from: usize, count: usize) {
    for i in from..from + count {
        let id = format!("call-{i}");
        rig.ledger.begin(1, rig.begin(&id, 1, 1000)).await.unwrap();
        rig.ledger.settle(1, settle(&id, 1, Outcome::Done)).await.unwrap();
    }
}

async fn export(rig: &Rig) -> Vec<String> {
    let (mut lines, mut after) = (Vec::new(), 0);
    loop {
        // A small page, so that roots fall on the edges of pages too.
        let page = rig.ledger.page(&org().uid, after, 7, Filter::default(), true).await.unwrap();
        lines.extend(page.lines);
        if page.next >= page.head {
            return lines;
        }
        after = page.next;
    }
}

fn check(lines: &[String], expect: &Expect) -> Result<Verified, Broken> {
    verify_with(read_export(lines.join("\n").as_bytes()), expect)
}

fn flaw(lines: &[String]) -> (i64, Flaw) {
    let broken = check(lines, &Expect::default()).unwrap_err();
    (broken.seq, broken.what)
}

fn roots(lines: &[String]) -> Vec<(usize, Root)> {
    let read = |line: &String| match Line::read(line).unwrap() {
        Line::Root(root) => Some(*root),
        Line::Record(_) => None,
    };
    lines.iter().enumerate().filter_map(|(at, line)| Some((at, read(line)?))).collect()
}

/// 41 records in four full segments and one record more.
async fn sealed() -> (Rig, Vec<String>) {
    let rig = Rig::new();
    pairs(&rig, 0, 20).await;
    assert_eq!(rig.ledger.seal(1, small()).await.unwrap(), 4);
    assert_eq!(rig.ledger.seal(1, small()).await.unwrap(), 0, "nothing more is due");
    let lines = export(&rig).await;
    (rig, lines)
}

#[tokio::test]
async fn a_chain_rolls_over_into_signed_segments() {
    let (rig, lines) = sealed().await;
    assert_eq!(lines.len(), 45);
    let verified = check(&lines, &Expect::default()).unwrap();
    assert_eq!((verified.records, verified.roots, verified.sealed, verified.dropped), (41, 4, 40, 0));
    assert_eq!(verified.head, rig.ledger.head(&org()).await.unwrap());
    let ends: Vec<(i64, i64)> = roots(&lines).iter().map(|(_, r)| (r.statement().first, r.statement().last)).collect();
    assert_eq!(ends, [(1, 10), (11, 20), (21, 30), (31, 40)]);
    // The rest of it when its first record is a day old.
    rig.clock.turn(DAY);
    assert_eq!(rig.ledger.seal(1, small()).await.unwrap(), 1);
    assert_eq!(check(&export(&rig).await, &Expect::default()).unwrap().sealed, 41);
}

#[tokio::test]
async fn a_root_that_is_forged_is_found() {
    let (_, lines) = sealed().await;
    let at = roots(&lines)[1].0;
    let key = roots(&lines)[0].1.statement().key_id.clone();
    for (from, to) in [("\"last\":20", "\"last\":19"), ("\"segment\":2", "\"segment\":3"), (key.as_str(), "0000000000000000")] {
        let mut forged = lines.clone();
        forged[at] = forged[at].replace(from, to);
        assert_ne!(forged[at], lines[at]);
        assert_eq!(flaw(&forged).1, Flaw::Root, "{from}");
    }
    let mut spaced = lines.clone();
    spaced[at] = spaced[at].replacen(':', ": ", 1);
    assert_eq!(flaw(&spaced), (21, Flaw::Unreadable));
    let mut without = lines.clone();
    without.remove(at);
    assert_eq!(flaw(&without), (30, Flaw::Root), "the next root does not follow");
    // A root of another ledger, whole and signed, by a key that is not known here.
    let (_, other) = sealed().await;
    let mut foreign = lines.clone();
    foreign[at] = other[at].clone();
    assert_eq!(flaw(&foreign), (20, Flaw::Root));
    let pinned = Expect { keys: vec![roots(&other)[0].1.statement().key_id.clone()], ..Expect::default() };
    assert_eq!(check(&lines, &pinned).unwrap_err().what, Flaw::Root, "signed by another key than the one that is known");
    let pinned = Expect { keys: vec![key.clone()], ..Expect::default() };
    assert_eq!(check(&lines, &pinned).unwrap().keys, [key]);
}

#[tokio::test]
async fn a_tail_dropped_before_a_signed_root_is_found() {
    let (_, lines) = sealed().await;
    let last_root = roots(&lines)[3].0;
    let mut short = lines[..last_root - 3].to_vec();
    short.push(lines[last_root].clone());
    assert_eq!(flaw(&short), (38, Flaw::Gap));
}

#[tokio::test]
async fn records_dropped_without_retention_are_found() {
    let (_, lines) = sealed().await;
    // The first segment's records are gone, its root is there, as after retention; but no record says so.
    assert_eq!(flaw(&lines[10..]), (1, Flaw::Gap));
    let mut middle = lines;
    middle.drain(11..21);
    assert_eq!(flaw(&middle), (11, Flaw::Gap), "records of the second segment");
}

#[tokio::test]
async fn keys_follow_each_other_without_a_gap() {
    let rig = Rig::new();
    let keys = Sealing { key_age: SignedDuration::from_hours(24 * 30), ..small() };
    let mut all = Vec::new();
    for month in 0..4 {
        pairs(&rig, month * 10, 10).await;
        rig.ledger.seal(1, keys).await.unwrap();
        rig.clock.turn(DAY * 31);
        if month == 1 {
            // A key that signs no root of this chain at all.
            rig.ledger.seal(1, Sealing { records: 1000, age: DAY * 1000, ..keys }).await.unwrap();
            rig.clock.turn(DAY * 31);
        }
    }
    let lines = export(&rig).await;
    for (_, root) in roots(&lines) {
        all.push(root.statement().key_id.clone());
    }
    all.dedup();
    assert_eq!(all.len(), 4);
    assert_eq!(check(&lines, &Expect::default()).unwrap().keys, all);
    let pinned = Expect { keys: vec![all[0].clone()], ..Expect::default() };
    check(&lines, &pinned).expect("one key that is known vouches for those after it");
    // Without the word of the key before.
    let at = roots(&lines).iter().find(|(_, r)| !r.statement().endorsements.is_empty()).unwrap().0;
    let mut forged = lines;
    forged[at] = forged[at].replace("endorsements", "endorsementz");
    assert_eq!(flaw(&forged).1, Flaw::Root, "the text is not the one that was signed");
    // Private parts of keys that others follow are gone.
    let kept = rig.home.number("SELECT count(*) FROM signers WHERE seed IS NOT NULL");
    let made = rig.home.number("SELECT count(*) FROM signers");
    assert_eq!((kept, made), (1, 5));
}

#[tokio::test]
async fn retention_drops_whole_segments_and_the_rest_verifies() {
    let (mut rig, before) = sealed().await;
    let year = DAY * 365;
    assert_eq!(rig.ledger.retain(1, &org(), rig.now() - year).await.unwrap(), None, "nothing is that old");
    rig.clock.turn(year + DAY);
    pairs(&rig, 100, 1).await;
    let old = rig.now() - year;
    assert_eq!(rig.ledger.retain(1, &org(), old).await.unwrap(), Some((1, 10)));
    assert_eq!(rig.ledger.retain(1, &org(), old).await.unwrap(), Some((11, 20)));
    let page = rig.ledger.page(&org().uid, 0, 1, Filter::default(), false).await.unwrap();
    assert_eq!((page.first, page.next), (21, 21), "who asks for what was dropped is told what is left");
    assert_eq!(rig.ledger.page(&org().uid, i64::MAX, 1, Filter::default(), false).await.unwrap().first, 21, "also who asks for the head");
    rig.reopen().await;
    let lines = export(&rig).await;
    let key = roots(&before)[0].1.statement().key_id.clone();
    let expect = Expect {
        installation: Some("test".to_owned()),
        org_uid: Some(org().uid),
        keys: vec![key],
        head: rig.ledger.head(&org()).await.unwrap(),
    };
    let verified = check(&lines, &expect).unwrap();
    assert_eq!((verified.records, verified.dropped, verified.roots), (45, 20, 4));
    assert_eq!(roots(&lines).len(), 4, "roots stay");
    // An anchor taken at the end of what was dropped still holds, and another does not.
    let root = roots(&before)[1].1.statement().clone();
    let anchor = |hash: String| Expect { head: Some(Head { seq: 20, hash }), ..Expect::default() };
    check(&lines, &anchor(root.last_hash)).unwrap();
    assert_eq!(check(&lines, &anchor("0".repeat(64))).unwrap_err().what, Flaw::Fork);
    // One segment more than the records say.
    let mut more = lines.clone();
    more.drain(2..12);
    assert_eq!(flaw(&more), (21, Flaw::Gap));
    while rig.ledger.retain(1, &org(), rig.now()).await.unwrap().is_some() {}
    assert_eq!(check(&export(&rig).await, &expect_head(&rig).await).unwrap().dropped, 40, "the end of the chain is never dropped");
}

async fn expect_head(rig: &Rig) -> Expect {
    Expect { head: rig.ledger.head(&org()).await.unwrap(), ..Expect::default() }
}

#[tokio::test]
async fn what_is_not_settled_keeps_its_segment() {
    let rig = Rig::new();
    rig.ledger.begin(1, rig.begin("open", 1, 1000)).await.unwrap();
    rig.ledger.begin(1, rig.begin("unknown", 1, 1000)).await.unwrap();
    rig.ledger.settle(1, settle("unknown", 0, Outcome::Unknown)).await.unwrap();
    pairs(&rig, 0, 10).await;
    rig.ledger.seal(1, small()).await.unwrap();
    rig.clock.turn(DAY * 400);
    let acme = org();
    let dropped = || rig.ledger.retain(1, &acme, rig.now());
    assert_eq!(dropped().await.unwrap(), None);
    rig.ledger.settle(1, settle("open", 1, Outcome::Done)).await.unwrap();
    assert_eq!(dropped().await.unwrap(), None, "a person may still resolve it");
    let resolution = Settle { resolution: true, ..settle("unknown", 1, Outcome::Done) };
    rig.ledger.settle(1, resolution).await.unwrap();
    assert_eq!(dropped().await.unwrap(), Some((1, 10)));
}

#[tokio::test]
async fn a_ledger_restored_from_a_backup_does_not_reach_its_anchor() {
    let mut rig = Rig::new();
    pairs(&rig, 0, 2).await;
    rig.ledger.close().await;
    rig.home.back_up();
    rig.reopen().await;
    pairs(&rig, 10, 2).await;
    let anchor = rig.ledger.head(&org()).await.unwrap().unwrap();
    assert_eq!(rig.ledger.standing(&org(), &anchor).await.unwrap(), Standing::Fits);
    rig.ledger.close().await;
    rig.home.restore();
    rig.reopen().await;
    assert_eq!(rig.ledger.standing(&org(), &anchor).await.unwrap(), Standing::Behind { head: 5 });
    // It goes on, as far and farther: the chain is whole, and still another one.
    pairs(&rig, 20, 4).await;
    assert_eq!(rig.ledger.standing(&org(), &anchor).await.unwrap(), Standing::Differs);
    let lines = export(&rig).await;
    check(&lines, &Expect::default()).unwrap();
    let fork = check(&lines, &Expect { head: Some(anchor.clone()), ..Expect::default() }).unwrap_err();
    assert_eq!((fork.seq, fork.what), (9, Flaw::Fork));
    assert_eq!(rig.ledger.standing(&OrgId { name: "x".into(), uid: "x".into() }, &anchor).await.unwrap(), Standing::Behind { head: 0 });
}

/// Two writers that never saw each other: each chain is whole, the two together are not.
#[tokio::test]
async fn records_of_two_writers_are_found() {
    let (one, two) = (Rig::new(), Rig::new());
    pairs(&one, 0, 3).await;
    two.clock.turn(SignedDuration::from_secs(1));
    pairs(&two, 0, 3).await;
    let (first, second) = (export(&one).await, export(&two).await);
    let mut mixed = first[..4].to_vec();
    mixed.extend_from_slice(&second[4..]);
    assert_eq!(flaw(&mixed), (5, Flaw::Fork), "it does not follow");
    let mut both = first;
    both.insert(4, second[4].clone());
    assert_eq!(flaw(&both), (5, Flaw::Fork));
}

#[tokio::test]
async fn destroyed_keys_leave_a_whole_chain() {
    let mut rig = Rig::new();
    let mut end = settle("call", 1, Outcome::Done);
    end.result = Some(serde_json::json!("secret"));
    rig.ledger.begin(1, rig.begin("call", 1, 1000)).await.unwrap();
    rig.ledger.settle(1, end).await.unwrap();
    let before = rig.ledger.digest(&org(), "text").await.unwrap();
    assert!(rig.ledger.erase(1, &org(), "request-17").await.unwrap());
    assert!(!rig.ledger.erase(1, &org(), "request-17").await.unwrap(), "once for each name");
    let after = rig.ledger.digest(&org(), "text").await.unwrap();
    assert!(after.key_id != before.key_id && after.digest != before.digest, "another key from now on");
    assert_eq!(rig.ledger.attempt(&org(), "call").await.unwrap().unwrap().result, None);
    check(&export(&rig).await, &expect_head(&rig).await).unwrap();
    let last = rig.records().await.pop().unwrap();
    assert_eq!((last.kind.as_str(), &last.facts["keys"]), ("erasure", &serde_json::json!([before.key_id])));
    rig.reopen().await;
    assert_eq!(rig.ledger.digest(&org(), "text").await.unwrap(), after);
    let kept = rig.home.number("SELECT count(*) FROM keys WHERE key IS NOT NULL");
    assert_eq!(kept, 1);
    assert!(!rig.ledger.erase(1, &OrgId { name: "x".into(), uid: "x".into() }, "request-17").await.unwrap());
}

#[tokio::test]
async fn pages_and_filters() {
    let (rig, _) = sealed().await;
    let page = |filter: Filter| {
        let ledger = rig.ledger.clone();
        async move { ledger.page(&org().uid, 0, 1000, filter, false).await.unwrap().lines.len() }
    };
    assert_eq!(page(Filter::default()).await, 41);
    assert_eq!(page(Filter { kind: "begin".to_owned(), ..Filter::default() }).await, 20);
    assert_eq!(page(Filter { action: "call-3".to_owned(), ..Filter::default() }).await, 2);
    assert_eq!(page(Filter { tool: "refund".to_owned(), verdict: "Allow".to_owned(), ..Filter::default() }).await, 20);
    assert_eq!(page(Filter { task: "t-1".to_owned(), ..Filter::default() }).await, 40);
    assert_eq!(page(Filter { task: "t-2".to_owned(), ..Filter::default() }).await, 0);
    assert_eq!(page(Filter { agent: "acme/other".to_owned(), ..Filter::default() }).await, 0);
    assert_eq!(page(Filter { since: Some(rig.now() + DAY), ..Filter::default() }).await, 0);
    assert_eq!(page(Filter { until: Some(rig.now() + DAY), ..Filter::default() }).await, 41);
    let none = rig.ledger.page("no such Org", 3, 10, Filter::default(), true).await.unwrap();
    assert_eq!((none.lines.len(), none.next, none.head), (0, 3, 0));
}

#[tokio::test]
async fn waiting_for_more() {
    let rig = Rig::new();
    pairs(&rig, 0, 1).await;
    let uid = org().uid;
    let at_once = std::time::Duration::from_secs(3600);
    rig.ledger.grown(&uid, 2, at_once).await;
    let waits = tokio::spawn({
        let ledger = rig.ledger.clone();
        async move {
            ledger.grown(&org().uid, 3, at_once).await;
            ledger.page(&org().uid, 3, 10, Filter::default(), false).await
        }
    });
    pairs(&rig, 1, 1).await;
    assert!(!waits.await.unwrap().unwrap().lines.is_empty());
    rig.ledger.grown("no such Org", 0, std::time::Duration::ZERO).await;
    let closed: Result<_, Refused> = {
        rig.ledger.close().await;
        rig.ledger.orgs().await
    };
    assert!(closed.is_err());
}

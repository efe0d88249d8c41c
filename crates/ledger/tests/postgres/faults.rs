//! What a server can do: lose an answer, go away, come back, be another's. Nothing is done twice, nothing that was
//! answered is lost, and while it is away everything is refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use polity_ledger::{Clock, Ledger, OpenError, Outcome, Refused, SystemClock, verify};

use crate::common::{Rig, begin_at, org, recount, settle};
use crate::home::{Home, shared};
use crate::proxy::{After, Mode, Proxy};
use crate::server::Server;

/// Wait for a condition.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !is() {
        assert!(Instant::now() < deadline, "waited for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn open(home: &Home) -> Result<Ledger, OpenError> {
    Ledger::open(home.config("test"), Arc::new(SystemClock))
}

/// A ledger that is reached by way of a proxy, with one action begun.
async fn proxied() -> (Home, Proxy, Ledger) {
    let home = Home::new();
    let proxy = Proxy::before(shared().dir());
    let ledger = open(&home.by(proxy.socket())).unwrap();
    ledger.begin(1, begin_at(SystemClock.now(), "first", 1, 100)).await.unwrap();
    (home, proxy, ledger)
}

/// The books agree, and each of these actions began once.
async fn agree(home: &Home, ledger: &Ledger, begun: &[&str]) {
    let records = ledger.export(&org(), 1, 10_000).await.unwrap();
    let actions: Vec<&str> = records.iter().filter(|r| r.kind == "begin").map(|r| r.action.as_str()).collect();
    assert_eq!(actions, begun);
    assert_eq!(recount(&records), home.counters());
    verify(records.into_iter().map(Ok::<_, Refused>)).unwrap();
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_answered_as_done() {
    let (home, proxy, ledger) = proxied().await;
    proxy.set(Mode::LoseAnswer(After::Pass));
    let begun = ledger.begin(1, begin_at(SystemClock.now(), "second", 1, 100)).await.unwrap();
    assert_eq!((begun.seq, begun.again), (3, false));
    assert!(ledger.begin(1, begin_at(SystemClock.now(), "second", 1, 100)).await.unwrap().again);
    ledger.settle(1, settle("second", 1, Outcome::Done)).await.unwrap();
    agree(&home, &ledger, &["first", "second"]).await;
}

#[tokio::test]
async fn a_commit_that_is_lost_is_answered_as_not_done() {
    let (home, proxy, ledger) = proxied().await;
    proxy.set(Mode::LoseCommit(After::Pass));
    let refused = ledger.begin(1, begin_at(SystemClock.now(), "second", 1, 100)).await.unwrap_err();
    assert!(matches!(&refused, Refused::LedgerUnavailable { what } if what.contains("not committed")), "{refused}");
    agree(&home, &ledger, &["first"]).await;
    let begun = ledger.begin(1, begin_at(SystemClock.now(), "second", 1, 100)).await.unwrap();
    assert_eq!((begun.seq, begun.again), (3, false));
    agree(&home, &ledger, &["first", "second"]).await;
}

/// The one in doubt waits for the truth; all others are refused at once.
async fn in_doubt(lost: Mode, wanted: bool) {
    let (home, proxy, ledger) = proxied().await;
    proxy.set(lost);
    let doubted = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.begin(1, begin_at(SystemClock.now(), "second", 1, 100)).await }
    });
    until("the ledger tries again", || proxy.turned_away() > 1).await;
    let refused = ledger.begin(1, begin_at(SystemClock.now(), "third", 1, 100)).await;
    assert!(matches!(refused, Err(Refused::LedgerUnavailable { .. })), "{refused:?}");
    assert!(!doubted.is_finished());
    proxy.set(Mode::Pass);
    let answer = doubted.await.unwrap();
    assert_eq!(answer.is_ok(), wanted, "{answer:?}");
    ledger.begin(1, begin_at(SystemClock.now(), "fourth", 1, 100)).await.unwrap();
    agree(&home, &ledger, if wanted { &["first", "second", "fourth"] } else { &["first", "fourth"] }).await;
}

#[tokio::test]
async fn in_doubt_until_the_server_is_back_and_done() {
    in_doubt(Mode::LoseAnswer(After::Away), true).await;
}

#[tokio::test]
async fn in_doubt_until_the_server_is_back_and_not_done() {
    in_doubt(Mode::LoseCommit(After::Away), false).await;
}

#[tokio::test]
async fn a_ledger_closed_in_doubt_says_so() {
    let (home, proxy, ledger) = proxied().await;
    proxy.set(Mode::LoseAnswer(After::Away));
    let doubted = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.begin(1, begin_at(SystemClock.now(), "second", 1, 100)).await }
    });
    until("the ledger tries again", || proxy.turned_away() > 1).await;
    ledger.close().await;
    let refused = doubted.await.unwrap().unwrap_err();
    assert!(matches!(&refused, Refused::LedgerUnavailable { what } if what.contains("not known")), "{refused}");
    // Asked again by the same executor, it is the same start.
    let ledger = open(&home).unwrap();
    assert!(ledger.begin(1, begin_at(SystemClock.now(), "second", 1, 100)).await.unwrap().again);
    agree(&home, &ledger, &["first", "second"]).await;
}

#[tokio::test]
async fn a_writer_whose_place_was_taken_stops() {
    let rig = Rig::new();
    rig.ledger.begin(1, rig.begin("first", 1, 100)).await.unwrap();
    assert!(matches!(open(&rig.home), Err(OpenError::Locked { .. })));
    rig.home.end_writer();
    let mut other = open(&rig.home);
    until("the lock is free", || {
        if other.is_err() {
            other = open(&rig.home);
        }
        other.is_ok()
    })
    .await;
    let other = other.unwrap();
    for _ in 0..2 {
        let refused = rig.ledger.begin(9, rig.begin("second", 1, 100)).await.unwrap_err();
        assert!(matches!(&refused, Refused::LedgerUnavailable { .. }), "{refused}");
    }
    other.begin(2, rig.begin("second", 1, 100)).await.unwrap();
    other.close().await;
    // It looks again, finds the claim of the other, and stops for good.
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        match rig.ledger.begin(9, rig.begin("third", 1, 100)).await.unwrap_err() {
            Refused::LedgerUnavailable { what } if what.contains("another core") => break,
            Refused::LedgerUnavailable { what } => assert!(Instant::now() < deadline, "{what}"),
            other => panic!("{other}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let again = open(&rig.home).unwrap();
    agree(&rig.home, &again, &["first", "second"]).await;
}

/// As where a pooler gives each statement another session, and a lock means nothing.
#[tokio::test]
async fn a_claim_that_is_not_the_newest_cannot_commit() {
    let rig = Rig::new();
    rig.ledger.begin(1, rig.begin("first", 1, 100)).await.unwrap();
    rig.home.execute("INSERT INTO writers (token, batch) VALUES ('another', 0)");
    for _ in 0..2 {
        let refused = rig.ledger.begin(1, rig.begin("second", 1, 100)).await.unwrap_err();
        assert!(matches!(&refused, Refused::LedgerUnavailable { what } if what.contains("another core")), "{refused}");
    }
    rig.ledger.close().await;
    agree(&rig.home, &open(&rig.home).unwrap(), &["first"]).await;
}

/// As after a change to a replica that was behind.
#[tokio::test]
async fn a_server_that_lost_commits_is_not_written_to() {
    let rig = Rig::new();
    rig.ledger.begin(1, rig.begin("first", 1, 100)).await.unwrap();
    rig.home.end_writer();
    rig.home.execute("UPDATE writers SET batch = batch - 1");
    let mut refused = rig.ledger.begin(1, rig.begin("second", 1, 100)).await.unwrap_err();
    // The first may still have been sent to the session that has ended.
    let deadline = Instant::now() + Duration::from_secs(120);
    while !refused.to_string().contains("has lost") {
        assert!(Instant::now() < deadline, "{refused}");
        assert!(refused.to_string().contains("Postgres") || refused.to_string().contains("connection"), "{refused}");
        tokio::time::sleep(Duration::from_millis(10)).await;
        refused = rig.ledger.begin(1, rig.begin("second", 1, 100)).await.unwrap_err();
    }
    assert!(matches!(rig.ledger.orgs().await, Err(Refused::LedgerUnavailable { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_and_comes_back() {
    let mut server = Server::start();
    let home = Home::on(&server);
    let ledger = open(&home).unwrap();
    let (done, denied, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let (ledger, done, denied, enough) = (ledger.clone(), Arc::clone(&done), Arc::clone(&denied), Arc::clone(&enough));
            tokio::spawn(async move {
                let mut said = Vec::new();
                for n in 0.. {
                    if enough.load(Ordering::SeqCst) {
                        break;
                    }
                    let id = format!("{caller}-{n}");
                    // Asked again until it is answered, as core asks.
                    let seq = loop {
                        match ledger.begin(1, begin_at(SystemClock.now(), &id, 1, 1_000_000)).await {
                            Ok(begun) => break begun.seq,
                            Err(Refused::LedgerUnavailable { .. }) => drop(denied.fetch_add(1, Ordering::SeqCst)),
                            Err(other) => panic!("{other}"),
                        }
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    };
                    said.push((id, seq));
                    done.fetch_add(1, Ordering::SeqCst);
                }
                said
            })
        })
        .collect();
    for _ in 0..2 {
        let (before, refused) = (done.load(Ordering::SeqCst), denied.load(Ordering::SeqCst));
        until("some work", || done.load(Ordering::SeqCst) > before + 20).await;
        server.kill();
        until("everybody is refused", || denied.load(Ordering::SeqCst) > refused + 16).await;
        assert!(matches!(ledger.orgs().await, Err(Refused::LedgerUnavailable { .. })));
        server.up(&[]);
        let before = done.load(Ordering::SeqCst);
        until("work goes on by itself", || done.load(Ordering::SeqCst) > before + 20).await;
    }
    enough.store(true, Ordering::SeqCst);
    let mut said = BTreeMap::new();
    for caller in callers {
        said.extend(caller.await.unwrap());
    }
    let records = ledger.export(&org(), 1, 10_000).await.unwrap();
    let begun: BTreeMap<String, i64> = records.iter().filter(|r| r.kind == "begin").map(|r| (r.action.clone(), r.seq)).collect();
    assert_eq!(begun, said, "each began once, and where it was said");
    assert_eq!(recount(&records), home.counters());
    verify(records.into_iter().map(Ok::<_, Refused>)).unwrap();
    ledger.close().await;
    server.kill();
    server.up(&["fsync=off"]);
    let refused = open(&home).unwrap_err();
    assert!(matches!(&refused, OpenError::Config(what) if what.contains("fsync")), "{refused}");
}

/// As a constraint is that is looked at when a statement ends, after its rows were sent.
#[tokio::test]
async fn an_error_that_follows_the_rows_is_seen() {
    let rig = Rig::new();
    rig.ledger.begin(1, rig.begin("first", 1, 100)).await.unwrap();
    rig.home.execute("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''refused at the end''; END'");
    rig.home.execute("CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON attempts FOR EACH ROW EXECUTE FUNCTION refuse()");
    let refused = rig.ledger.begin(1, rig.begin("second", 1, 100)).await.unwrap_err();
    assert!(matches!(&refused, Refused::LedgerUnavailable { what } if what.contains("refused at the end")), "{refused}");
    agree(&rig.home, &rig.ledger, &["first"]).await;
    rig.home.execute("DROP TRIGGER refuse ON attempts");
    // At the commit, the whole batch is refused.
    rig.home.execute(
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON attempts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    let refused = rig.ledger.begin(1, rig.begin("second", 1, 100)).await.unwrap_err();
    assert!(matches!(&refused, Refused::LedgerUnavailable { what } if what.contains("refused at the end")), "{refused}");
    rig.home.execute("DROP TRIGGER late ON attempts");
    rig.ledger.begin(1, rig.begin("third", 1, 100)).await.unwrap();
    agree(&rig.home, &rig.ledger, &["first", "third"]).await;
}

#[tokio::test]
async fn every_character_is_kept() {
    let rig = Rig::new();
    let id = "\0 and \u{10FFFE}0 in an id";
    rig.ledger.begin(1, rig.begin(id, 1, 100)).await.unwrap();
    let mut end = settle(id, 1, Outcome::Done);
    end.message = "a tool's \0 in a message".to_owned();
    end.result = Some(serde_json::json!({ "\0": "\0" }));
    rig.ledger.settle(1, end.clone()).await.unwrap();
    let attempt = rig.ledger.attempt(&org(), id).await.unwrap().unwrap();
    assert_eq!((attempt.id.as_str(), &attempt.message, &attempt.result), (id, &end.message, &end.result));
    verify(rig.records().await.into_iter().map(Ok::<_, Refused>)).unwrap();
}

#[test]
fn a_url_that_says_too_little_is_refused() {
    for url in ["", "postgresql://", "postgresql://host", "postgresql://user@/db", "postgresql://user:hunter2@host:no/db", "mysql://u@h/d"]
    {
        let postgres = polity_ledger::Postgres { url: url.to_owned(), ..Default::default() };
        let config = polity_ledger::Config::at(polity_ledger::Store::Postgres(postgres), "test");
        assert!(!format!("{config:?}").contains("hunter2"));
        let refused = Ledger::open(config, Arc::new(SystemClock)).unwrap_err();
        assert!(matches!(refused, OpenError::Config(_)), "{url}: {refused}");
        assert!(!format!("{refused:?}").contains("hunter2"), "{refused:?}");
    }
}

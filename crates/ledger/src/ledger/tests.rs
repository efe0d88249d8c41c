//! What cannot be provoked from outside: a commit that fails, a verb that panics.

use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::clock::SystemClock;

fn open_in(dir: &tempfile::TempDir) -> Ledger {
    Ledger::open(Config::new(dir.path(), "test"), Arc::new(SystemClock)).unwrap()
}

fn org(uid: &str) -> OrgId {
    OrgId { name: "acme".to_owned(), uid: uid.to_owned() }
}

/// A verb that keeps the writer until told, so that those sent meanwhile share the next commit. It has started when
/// this returns.
async fn keep_busy(ledger: &Ledger, until: Receiver<()>) -> tokio::task::JoinHandle<Result<(), Refused>> {
    let ledger = ledger.clone();
    let (started, start) = oneshot::channel();
    let busy = tokio::spawn(async move {
        let verb = move |_: &mut Tx<'_>| {
            let _ = started.send(());
            let _ = until.recv();
            Ok(())
        };
        ledger.write(verb).await
    });
    start.await.unwrap();
    busy
}

/// Wait until so many verbs wait for the writer.
async fn queued(ledger: &Ledger, count: usize) {
    while ledger.queue.max_capacity() - ledger.queue.capacity() < count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_commit_that_fails_applies_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open_in(&dir);
    ledger.fence(1).await.unwrap();
    let (go, until) = channel();
    let busy = keep_busy(&ledger, until).await;
    let (one, two) = (ledger.clone(), ledger.clone());
    let good = tokio::spawn(async move { one.write(|tx| tx.org(&org("u1")).map(drop)).await });
    queued(&ledger, 1).await;
    let bad = tokio::spawn(async move {
        let violation = "PRAGMA defer_foreign_keys = ON; INSERT INTO once VALUES (99, 'key', 1)";
        two.write(move |tx| Ok(tx.conn.execute_batch(violation)?)).await
    });
    queued(&ledger, 2).await;
    let fenced = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.fence(0).await }
    });
    queued(&ledger, 3).await;
    go.send(()).unwrap();
    for answer in [busy.await.unwrap(), good.await.unwrap(), bad.await.unwrap(), fenced.await.unwrap()] {
        assert!(matches!(answer, Err(Refused::LedgerUnavailable { .. })), "{answer:?}");
    }
    assert!(ledger.orgs().await.unwrap().is_empty());
    assert_eq!(ledger.fence(0).await, Err(Refused::Fenced { epoch: 0, current: 1 }));
    ledger.digest(&org("u2"), "1").await.unwrap();
    assert_eq!(ledger.orgs().await.unwrap(), [org("u2")]);
}

#[tokio::test]
async fn a_verb_that_panics_undoes_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open_in(&dir);
    let answer: Result<(), Refused> = ledger
        .write(|tx| {
            tx.fence(7)?;
            tx.org(&org("u1"))?;
            panic!("a bug");
        })
        .await;
    assert!(matches!(answer, Err(Refused::LedgerUnavailable { .. })));
    assert!(ledger.orgs().await.unwrap().is_empty());
    ledger.fence(1).await.expect("the epoch was not raised either");
    ledger.digest(&org("u1"), "1").await.unwrap();
    assert_eq!(ledger.head(&org("u1")).await.unwrap().unwrap().seq, 1);
}

#[tokio::test]
async fn a_database_on_a_read_only_volume() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open_in(&dir);
    ledger.digest(&org("u1"), "1").await.unwrap();
    ledger.close().await;
    let conn = crate::schema::open_immutable(&dir.path().join(crate::schema::FILE)).unwrap();
    assert_eq!(read::export(&conn, "u1", 1, 10).unwrap().len(), 1);
}

/// A killed process cannot show it, only a machine that loses power: what is answered has been flushed.
#[tokio::test]
async fn commits_are_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let pragma =
        |name: &'static str| move |tx: &mut Tx<'_>| Ok(tx.conn.query_row(name, [], |row| row.get::<_, rusqlite::types::Value>(0))?);
    let ledger = open_in(&dir);
    for (name, wanted) in [
        ("PRAGMA synchronous", rusqlite::types::Value::Integer(2)),
        ("PRAGMA foreign_keys", rusqlite::types::Value::Integer(1)),
        ("PRAGMA journal_mode", rusqlite::types::Value::Text("wal".to_owned())),
    ] {
        assert_eq!(ledger.write(pragma(name)).await.unwrap(), wanted, "{name}");
    }
}

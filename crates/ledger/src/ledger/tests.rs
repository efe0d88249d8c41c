//! What cannot be provoked from outside: a commit that fails, a verb that panics.

use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::clock::SystemClock;
use crate::record::Entry;
use crate::store::sqlite;

fn open_in(dir: &tempfile::TempDir) -> Ledger {
    Ledger::open(Config::new(dir.path(), "test"), Arc::new(SystemClock)).unwrap()
}

fn sqlite_of<'a>(tx: &Tx<'a>) -> &'a rusqlite::Connection {
    match tx.db {
        Db::Sqlite(conn) => conn,
        Db::Postgres(_) => panic!("opened in a directory"),
    }
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
        two.write(move |tx| Ok(sqlite_of(tx).execute_batch(violation)?)).await
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
    let db = Db::Sqlite(sqlite::open_immutable(&dir.path().join(sqlite::FILE)).unwrap());
    assert_eq!(read::export(&db, "u1", 1, 10).unwrap().len(), 1);
}

/// A disk that flushes when told: it says that it has begun, then waits for the result.
struct Told {
    begun: std::sync::mpsc::Sender<()>,
    result: Receiver<std::io::Result<()>>,
    wal: Wal,
}

impl Disk for Told {
    fn flush(&self) -> std::io::Result<()> {
        self.begun.send(()).map_err(std::io::Error::other)?;
        self.result.recv().map_err(std::io::Error::other)??;
        self.wal.flush()
    }
}

fn told(dir: &tempfile::TempDir) -> (Ledger, Receiver<()>, std::sync::mpsc::Sender<std::io::Result<()>>) {
    let config = Config::new(dir.path(), "test");
    let opened = open(&config).unwrap();
    let Home::File(path) = &opened.home else { panic!("a directory has a file") };
    let wal = Wal::of(path).unwrap();
    let (begun, has_begun) = channel();
    let (result, told) = channel();
    let disk = Box::new(Told { begun, result: told, wal });
    (Ledger::start(opened, &config, Arc::new(SystemClock), disk).unwrap(), has_begun, result)
}

async fn begun(flush: &Receiver<()>) {
    while flush.try_recv().is_err() {
        tokio::task::yield_now().await;
    }
}

/// A killed process cannot show it, only a machine that loses power: what is answered or read has been flushed.
#[tokio::test]
async fn nothing_is_answered_or_read_before_it_is_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, flush, result) = told(&dir);
    let write = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.write(|tx| tx.org(&org("u1")).map(drop)).await }
    });
    begun(&flush).await;
    let read = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.orgs().await }
    });
    // The second write is run while the disk is at work on the first.
    let (ran, has_run) = channel();
    let second = tokio::spawn({
        let ledger = ledger.clone();
        let verb = move |tx: &mut Tx<'_>| {
            let _ = ran.send(());
            tx.org(&org("u2")).map(drop)
        };
        async move { ledger.write(verb).await }
    });
    while has_run.try_recv().is_err() {
        tokio::task::yield_now().await;
    }
    while !ledger.pool.has_idle() {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!write.is_finished() && !read.is_finished() && !second.is_finished());
    result.send(Ok(())).unwrap();
    write.await.unwrap().unwrap();
    assert_eq!(read.await.unwrap().unwrap(), [org("u1")]);
    begun(&flush).await;
    assert!(!second.is_finished());
    result.send(Ok(())).unwrap();
    second.await.unwrap().unwrap();
    assert_eq!(ledger.orgs().await.unwrap(), [org("u1"), org("u2")]);
}

#[tokio::test]
async fn a_relaxed_caller_is_answered_before_the_flush_and_a_durable_one_after() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, flush, result) = told(&dir);
    // The disk is at work on this one from now on.
    ledger.send(|tx| tx.org(&org("u1")).map(drop), true).await.unwrap();
    begun(&flush).await;
    let durable = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.write(|tx| tx.org(&org("u2")).map(drop)).await }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!durable.is_finished());
    result.send(Ok(())).unwrap();
    result.send(Ok(())).unwrap();
    durable.await.unwrap().unwrap();
    assert_eq!(ledger.orgs().await.unwrap(), [org("u1"), org("u2")]);
}

#[tokio::test]
async fn a_flush_that_fails_stops_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, flush, result) = told(&dir);
    result.send(Err(std::io::Error::other("the disk is gone"))).unwrap();
    let answer = ledger.write(|tx| tx.org(&org("u1")).map(drop)).await;
    assert!(matches!(&answer, Err(Refused::LedgerUnavailable { what }) if what.contains("the disk is gone")), "{answer:?}");
    begun(&flush).await;
    // No second flush is tried: a disk that answers well again may have lost what it was given before.
    drop(result);
    for _ in 0..2 {
        assert!(matches!(ledger.write(|tx| tx.org(&org("u1")).map(drop)).await, Err(Refused::LedgerUnavailable { .. })));
        assert!(matches!(ledger.orgs().await, Err(Refused::LedgerUnavailable { .. })));
    }
    assert!(flush.try_recv().is_err());
    ledger.close().await;
    let again = open_in(&dir);
    again.digest(&org("u2"), "1").await.unwrap();
}

#[tokio::test]
async fn the_database_keeps_its_own_order() {
    let dir = tempfile::tempdir().unwrap();
    let pragma =
        |name: &'static str| move |tx: &mut Tx<'_>| Ok(sqlite_of(tx).query_row(name, [], |row| row.get::<_, rusqlite::types::Value>(0))?);
    let ledger = open_in(&dir);
    for (name, wanted) in [
        // NORMAL: the log is flushed before each checkpoint; that a commit lasts is the flusher's work.
        ("PRAGMA synchronous", rusqlite::types::Value::Integer(1)),
        ("PRAGMA foreign_keys", rusqlite::types::Value::Integer(1)),
        ("PRAGMA journal_mode", rusqlite::types::Value::Text("wal".to_owned())),
    ] {
        assert_eq!(ledger.write(pragma(name)).await.unwrap(), wanted, "{name}");
    }
}

#[tokio::test]
async fn an_undone_verb_leaves_what_others_of_its_batch_did() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open_in(&dir);
    ledger.fence(1).await.unwrap();
    let (go, until) = channel();
    let busy = keep_busy(&ledger, until).await;
    let entry = |reason: &str| Entry { kind: "transition".to_owned(), reason: reason.to_owned(), ..Entry::default() };
    let (one, two, three) = (ledger.clone(), ledger.clone(), ledger.clone());
    let (first, last) = (entry("first"), entry("last"));
    let good = tokio::spawn(async move {
        one.write(move |tx| {
            tx.org(&org("u1"))?;
            tx.append("u1", first)
        })
        .await
    });
    queued(&ledger, 1).await;
    let undone = entry("undone");
    let bad = tokio::spawn(async move {
        two.write(move |tx| {
            tx.fence(7)?;
            tx.org(&org("u2"))?;
            tx.append("u1", undone)?;
            Err::<(), _>(invalid("no"))
        })
        .await
    });
    queued(&ledger, 2).await;
    let after = tokio::spawn(async move { three.write(move |tx| tx.append("u1", last)).await });
    queued(&ledger, 3).await;
    go.send(()).unwrap();
    busy.await.unwrap().unwrap();
    assert_eq!((good.await.unwrap(), after.await.unwrap()), (Ok(2), Ok(3)));
    assert!(bad.await.unwrap().is_err());
    ledger.fence(1).await.expect("the epoch was not raised");
    let records = ledger.export(&org("u1"), 1, 10).await.unwrap();
    assert_eq!(records.iter().map(|r| r.reason.as_str()).collect::<Vec<_>>(), ["", "first", "last"]);
    crate::verify(records.into_iter().map(Ok::<_, Refused>)).unwrap();
    assert_eq!(ledger.orgs().await.unwrap(), [org("u1")]);
}

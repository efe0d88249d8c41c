//! The store in a directory: its files, a full disk, and reading beside a writer.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use polity_ledger::{Clock, Config, Ledger, OpenError, Outcome, Refused, SystemClock, open_read_only, verify};
use serde_json::json;

use crate::common::{HandClock, Rig, begin_at, org, recount, settle};
use crate::home::Home;

fn open(config: Config) -> Result<Ledger, OpenError> {
    Ledger::open(config, HandClock::new() as Arc<dyn Clock>)
}

async fn whole(ledger: &Ledger, dir: &Path) -> usize {
    let records = ledger.export(&org(), 1, 10_000).await.unwrap();
    assert_eq!(recount(&records), Home::of(&dir.display().to_string()).counters());
    let begun = records.iter().filter(|r| r.kind == "begin").count();
    let verified = verify(records.into_iter().map(Ok::<_, Refused>)).unwrap();
    assert_eq!(verified.head, ledger.head(&org()).await.unwrap());
    begun
}

#[tokio::test]
async fn its_files_are_for_their_owner_only() {
    let rig = Rig::new();
    rig.ledger.begin(1, rig.begin("a", 1, 1)).await.unwrap();
    for entry in std::fs::read_dir(&rig.home.dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "ledger.lock" {
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_store_refuses_and_keeps_what_it_said() {
    let dir = tempfile::tempdir().unwrap();
    let limited = Config { max_pages: Some(100), ..Config::new(dir.path(), "test") };
    let ledger = open(limited).unwrap();
    let now = HandClock::new().now();
    let mut said = 0;
    let mut refused = 0;
    for round in 0..20 {
        let callers: Vec<_> = (0..16)
            .map(|i| {
                let ledger = ledger.clone();
                let mut begin = begin_at(now, &format!("call-{round}-{i}"), 1, 1000);
                begin.resume = json!("x".repeat(i * 300));
                tokio::spawn(async move { ledger.begin(1, begin).await })
            })
            .collect();
        for caller in callers {
            match caller.await.unwrap() {
                Ok(_) => said += 1,
                Err(Refused::LedgerUnavailable { .. }) => refused += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    assert!(said > 0 && refused > 100, "{said} begun, {refused} refused");
    assert_eq!(whole(&ledger, dir.path()).await, said);
    ledger.close().await;
    let ledger = open(Config::new(dir.path(), "test")).unwrap();
    assert_eq!(whole(&ledger, dir.path()).await, said);
    ledger.begin(1, begin_at(now, "more", 1, 1000)).await.unwrap();
    assert_eq!(whole(&ledger, dir.path()).await, said + 1);
}

/// Run by `a_disk_that_fails` under a limit of the size of files.
#[test]
#[ignore = "a child of another test"]
fn limited_child() {
    let Ok(dir) = std::env::var("LEDGER_STORE_DIR") else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let ledger = Ledger::open(Config::new(dir, "test"), Arc::new(SystemClock)).unwrap();
        let now = SystemClock.now();
        let mut said = 0;
        let mut failed = 0;
        for i in 0.. {
            match ledger.begin(1, begin_at(now, &format!("call-{i}"), 1, 10_000)).await {
                Ok(_) => said += 1,
                Err(Refused::LedgerUnavailable { .. }) => failed += 1,
                Err(other) => panic!("{other:?}"),
            }
            if failed == 20 {
                break;
            }
        }
        println!("\nSAID {said}");
    });
}

#[tokio::test]
async fn a_disk_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let exe = std::env::current_exe().unwrap();
    // The signal ignored, a write beyond the limit fails with "file too large", as on a full disk.
    let script = "trap '' XFSZ; ulimit -f 4000; exec \"$0\" file::limited_child --exact --ignored --nocapture";
    let child = Command::new("sh").args(["-c", script]).arg(exe).env("LEDGER_STORE_DIR", dir.path()).output().unwrap();
    let out = String::from_utf8_lossy(&child.stdout).into_owned();
    let said = out.lines().find_map(|line| line.strip_prefix("SAID ")).expect(&out).parse::<usize>().unwrap();
    assert!(said > 10, "{out}");
    let ledger = Ledger::open(Config::new(dir.path(), "test"), Arc::new(SystemClock)).unwrap();
    let kept = whole(&ledger, dir.path()).await;
    assert_eq!(kept, said, "what was answered is there, what was refused is not");
}

#[test]
fn a_directory_that_cannot_be_written() {
    let error = open(Config::new("/proc/self/ledger", "test")).unwrap_err();
    assert!(matches!(error, OpenError::Files { .. }), "{error}");
}

#[tokio::test]
async fn a_reader_refuses_a_newer_one() {
    let rig = Rig::new();
    rig.ledger.close().await;
    rig.home.make_newer();
    assert!(matches!(open_read_only(&rig.home.dir), Err(OpenError::Newer { found: 99, .. })));
}

#[tokio::test]
async fn reading_beside_a_writer() {
    let rig = Rig::new();
    rig.ledger.begin(1, rig.begin("a", 1, 10)).await.unwrap();
    let reader = open_read_only(&rig.home.dir).unwrap();
    rig.ledger.settle(1, settle("a", 1, Outcome::Done)).await.unwrap();
    assert_eq!(reader.orgs().unwrap(), [org()]);
    assert_eq!(reader.records(&org()).count(), 2, "as it was at the opening");
    let now = open_read_only(&rig.home.dir).unwrap();
    let verified = verify(now.records(&org())).unwrap();
    assert_eq!((verified.records, verified.head), (3, now.head(&org()).unwrap()));
    assert!(open_read_only(rig.home.dir.join("nothing")).is_err());
}

#[tokio::test]
async fn reading_a_closed_ledger() {
    let rig = Rig::new();
    for i in 0..1100 {
        let ledger = rig.ledger.clone();
        let begin = rig.begin(&format!("call-{i}"), 1, 10_000);
        tokio::spawn(async move { ledger.begin(1, begin).await });
    }
    while rig.ledger.head(&org()).await.unwrap().is_none_or(|head| head.seq < 1101) {
        tokio::task::yield_now().await;
    }
    rig.ledger.close().await;
    let files = std::fs::read_dir(&rig.home.dir).unwrap().count();
    assert_eq!(files, 2, "the write-ahead log is folded in");
    let reader = open_read_only(&rig.home.dir).unwrap();
    assert_eq!(verify(reader.records(&org())).unwrap().records, 1101);
}

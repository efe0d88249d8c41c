//! Export and verification of records, from a real ledger.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)] // a helper that fails fails its test; `json!` values read best by value

mod common;

use std::sync::Arc;

use common::run;
use polity_ledger::{Actor, Config, Ledger, Note, OrgId, SystemClock};

/// A ledger with three records of one Org; its directory.
async fn ledger(dir: &std::path::Path) {
    let ledger = Ledger::open(Config::new(dir, "inst"), Arc::new(SystemClock)).unwrap();
    let epoch = 1;
    for n in 0..2 {
        let note = Note {
            kind: "transition".to_owned(),
            org: OrgId { name: "acme".to_owned(), uid: "uid-1".to_owned() },
            once: None,
            subject: None,
            actor: Some(Actor { username: "alice".to_owned(), ..Actor::default() }),
            target: None,
            reason: format!("R{n}"),
            facts: [].into(),
        };
        ledger.note(epoch, note).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_verify_and_changes_are_found() {
    let dir = tempfile::tempdir().unwrap();
    ledger(dir.path()).await;
    let at = dir.path().to_str().unwrap();
    let exported = run(&["audit", "export", "--dir", at, "--org", "acme"]);
    exported.ends(0);
    let lines: Vec<&str> = exported.out.lines().collect();
    assert_eq!(lines.len(), 3, "genesis and two notes: {exported:?}");
    assert_eq!(run(&["audit", "export", "--dir", at, "--org", "uid-1"]).out, exported.out);
    assert_eq!(run(&["audit", "export", "--dir", at, "--org", "uid-1", "--from", "3"]).out.lines().collect::<Vec<_>>(), [lines[2]]);
    run(&["audit", "export", "--dir", at, "--org", "other"]).ends(1).has(&["no chain of \"other\"", "acme (uid uid-1)"]);
    run(&["audit", "export", "--dir", "/nonexistent", "--org", "acme"]).ends(1).has(&["cannot open"]);

    let query = |args: &[&str]| run(&[&["audit", "query", "--dir", at, "--org", "acme"], args].concat());
    assert_eq!(query(&["--kind", "transition", "--limit", "1"]).out.lines().collect::<Vec<_>>(), [lines[1]]);
    assert_eq!(query(&["--kind", "transition", "--since", "2000-01-01T00:00:00Z"]).out.lines().count(), 2);
    assert_eq!(query(&["--agent", "acme/bot"]).out, "");
    query(&["--since", "yesterday"]).ends(1).has(&["--since is no time"]);
    let csv = query(&["-o", "csv", "--kind", "transition"]);
    let csv: Vec<&str> = csv.out.lines().collect();
    assert!(csv.len() == 3 && csv[0].starts_with("seq,time,kind,") && csv[1].contains(",alice,"), "{csv:?}");
    run(&["audit", "query", "--org", "acme"]).ends(1).has(&["--dir", "--server"]);
    run(&["audit", "query", "--org", "acme", "--server", "https://edge"]).ends(1).has(&["--token-file"]);
    let plain = ["audit", "query", "--org", "acme", "--server", "http://edge", "--token-file", at, "--ca-file", at];
    run(&plain).ends(1).has(&["https"]);
    run(&["audit", "verify", "--dir", at, "--org", "acme"]).ends(0).has(&["whole: 3 records"]);
    run(&["audit", "verify"]).ends(2);
    let schema = run(&["audit", "schema"]).ends(0).json();
    assert!(schema["else"]["properties"]["hash"].is_object());

    let file = dir.path().join("acme.ndjson");
    let path = file.to_str().unwrap();
    let write = |text: String| std::fs::write(&file, text).unwrap();
    write(exported.out.clone());
    let whole = run(&["audit", "verify", path, "-o", "json", "--org-uid", "uid-1", "--installation", "inst"]);
    let whole = whole.ends(0).json();
    assert_eq!((&whole["whole"], &whole["verified"]["records"]), (&true.into(), &3.into()));
    let head = format!("3:{}", whole["verified"]["head"]["hash"].as_str().unwrap());
    run(&["audit", "verify", path]).ends(0).has(&["whole: 3 records of Org acme", &head, "--head"]);
    run(&["audit", "verify", path, "--head", &head]).ends(0);
    run(&["audit", "verify", path, "--org-uid", "uid-2"]).ends(1).has(&["BROKEN"]);

    write(exported.out.replace("\"R1\"", "\"R2\""));
    let changed = run(&["audit", "verify", path, "-o", "json"]).ends(1).json();
    assert_eq!((&changed["whole"], &changed["broken"]["seq"]), (&false.into(), &3.into()));
    write(format!("{}\n{}\n", lines[0], lines[2]));
    run(&["audit", "verify", path]).ends(1).has(&["BROKEN: record 2"]);
    write(format!("{}\n{}\n", lines[0], lines[1]));
    run(&["audit", "verify", path]).ends(0);
    run(&["audit", "verify", path, "--head", &head]).ends(1).has(&["BROKEN: record 3"]);
    write(String::new());
    run(&["audit", "verify", path]).ends(1).has(&["there are no records"]);
    run(&["audit", "verify", "/nonexistent"]).ends(1).has(&["cannot read"]);
    run(&["audit", "verify", path, "--head", "3"]).ends(2);
}

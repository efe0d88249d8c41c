//! Killed with SIGKILL again and again: what was answered is there, and the books agree.
//!
//! A child process runs verbs and prints each answer; the parent kills it, reads what it printed, opens the
//! ledger and holds the one against the other. `LEDGER_CRASH_ROUNDS` asks for more rounds than the short form.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use polity_ledger::{Clock, Hold, Ledger, OpenError, Outcome, Refused, Release, Settle, State, SystemClock, verify};
use rand::Rng;

use crate::common::{amounts, begin_at, charge, org, part, recount, settle, subject};
use crate::home::{CRASHES, Home};

const BUDGET: i64 = 1_000_000;

fn open(home: &Home) -> Ledger {
    Ledger::open(home.config("test"), Arc::new(SystemClock)).unwrap()
}

fn say(kind: &str, id: &str, seq: i64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nSAID {kind} {id} {seq}").unwrap();
    out.flush().unwrap();
}

async fn one(ledger: &Ledger, id: &str, now: Timestamp) -> Result<(), Refused> {
    let (reserve, path, part_used, last_used) = {
        let mut random = rand::rng();
        let amounts: [i64; 3] = [random.random_range(0..9), random.random_range(0..4), random.random_range(0..12)];
        (amounts[0], random.random_range(0..8), amounts[1], amounts[2])
    };
    let (reserve, charges) = (amounts(reserve), vec![charge(BUDGET)]);
    if path < 4 {
        let expires = now + SignedDuration::from_hours(1);
        let hold = Hold { subject: subject(id), reserve: reserve.clone(), charges, expires, idempotency: None };
        say("hold", id, ledger.hold(1, hold).await?.seq);
        if path == 0 {
            let release = Release { org: org(), id: id.to_owned(), reason: "Denied".to_owned(), by: "core".to_owned() };
            say("release", id, ledger.release(1, release).await?);
            return Ok(());
        }
    }
    let mut begin = begin_at(now, id, 0, BUDGET);
    begin.reserve = reserve;
    begin.consume = vec![format!("approval/{id}")];
    say("begin", id, ledger.begin(1, begin).await?.seq);
    if path == 5 {
        return Ok(());
    }
    say("settle", id, ledger.settle(1, part(id, part_used)).await?.seq);
    let outcome = [Outcome::Done, Outcome::NotDone, Outcome::Unknown][path % 3];
    say("settle", id, ledger.settle(1, settle(id, last_used, outcome)).await?.seq);
    if path == 2 {
        let resolution = Settle { resolution: true, ..settle(id, last_used, Outcome::NotDone) };
        say("resolution", id, ledger.settle(1, resolution).await?.seq);
    }
    Ok(())
}

/// The process that is killed.
#[test]
#[ignore = "a child of another test"]
fn child() {
    let (Ok(home), Ok(round)) = (std::env::var("LEDGER_CRASH_HOME"), std::env::var("LEDGER_CRASH_ROUND")) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let ledger = open(&Home::of(&home));
        let now = SystemClock.now();
        let callers = (0..8).map(|caller| {
            let (ledger, round) = (ledger.clone(), round.clone());
            tokio::spawn(async move {
                for n in 0.. {
                    one(&ledger, &format!("{round}-{caller}-{n}"), now).await.unwrap();
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.unwrap();
        }
    });
}

/// Run the child, kill it, and return what it said.
fn killed(home: &Home, round: u64) -> Vec<(String, String, i64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["crash::child", "--exact", "--ignored", "--nocapture"])
        .env("LEDGER_CRASH_HOME", home.name())
        .env("LEDGER_CRASH_ROUND", round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = channel();
    let reader = std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let mut said = Vec::new();
    let mut deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                let words: Vec<&str> = line.split(' ').collect();
                if let ["SAID", kind, id, seq] = words[..] {
                    if said.is_empty() {
                        deadline = Instant::now() + Duration::from_millis(rand::rng().random_range(0..150));
                    }
                    said.push((kind.to_owned(), id.to_owned(), seq.parse().unwrap()));
                }
            }
            Err(RecvTimeoutError::Timeout) => child.kill().unwrap_or_default(),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if Instant::now() > deadline {
            child.kill().unwrap_or_default();
        }
    }
    child.wait().unwrap();
    reader.join().unwrap();
    said
}

async fn records(ledger: &Ledger) -> Vec<polity_ledger::Record> {
    let mut records: Vec<polity_ledger::Record> = Vec::new();
    loop {
        let from = i64::try_from(records.len()).unwrap() + 1;
        let piece = ledger.export(&org(), from, 10_000).await.unwrap();
        if piece.is_empty() {
            return records;
        }
        records.extend(piece);
    }
}

/// A server may still hold the lock of a process that is gone, for a moment.
async fn reopened(home: &Home) -> Ledger {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match Ledger::open(home.config("test"), Arc::new(SystemClock)) {
            Err(OpenError::Locked { .. }) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(20)).await,
            opened => return opened.unwrap(),
        }
    }
}

#[tokio::test]
async fn killed_at_any_point() {
    let rounds = std::env::var("LEDGER_CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(CRASHES);
    let home = Home::new();
    let mut all = 0;
    for round in 0..rounds {
        let said = killed(&home, round);
        assert!(!said.is_empty(), "the child did nothing");
        all += said.len();
        let ledger = reopened(&home).await;
        let records = records(&ledger).await;
        for (kind, id, seq) in &said {
            let record = &records[usize::try_from(seq - 1).unwrap()];
            assert_eq!((&record.kind, &record.action), (kind, id), "round {round}: record {seq} is lost");
        }
        // `recount` also finds a begin without a reservation and a settlement without a begin.
        assert_eq!(recount(&records), home.counters(), "round {round}");
        attempts_agree(&ledger, &records).await;
        carried_on(&ledger, &said).await;
        verify(records.into_iter().map(Ok::<_, Refused>)).unwrap();
        ledger.close().await;
    }
    println!("{rounds} rounds, {all} answers");
}

/// What the table has open is what the records leave open.
async fn attempts_agree(ledger: &Ledger, records: &[polity_ledger::Record]) {
    let mut open: BTreeMap<&str, State> = BTreeMap::new();
    for record in records.iter().filter(|r| !r.action.is_empty()) {
        match record.kind.as_str() {
            "hold" => drop(open.insert(&record.action, State::Held)),
            "begin" => drop(open.insert(&record.action, State::Begun)),
            "settle" if record.outcome.is_empty() => (),
            _ => drop(open.remove(record.action.as_str())),
        }
    }
    let found = ledger.open_attempts().await.unwrap();
    let found: BTreeMap<&str, State> = found.iter().map(|a| (a.id.as_str(), a.state)).collect();
    assert_eq!(found, open);
}

/// An executor that comes back finds its start, and another one cannot have it.
async fn carried_on(ledger: &Ledger, said: &[(String, String, i64)]) {
    let ended: BTreeSet<&str> = said.iter().filter(|(kind, ..)| kind != "begin" && kind != "hold").map(|(_, id, _)| id.as_str()).collect();
    for (_, id, seq) in said.iter().filter(|(kind, id, _)| kind == "begin" && !ended.contains(id.as_str())).take(5) {
        let Some(attempt) = ledger.attempt(&org(), id).await.unwrap() else { panic!("{id} is lost") };
        if attempt.state != State::Begun {
            continue;
        }
        let mut begin = begin_at(SystemClock.now(), id, 1, BUDGET);
        let again = ledger.begin(1, begin.clone()).await.unwrap();
        assert_eq!((again.seq, again.again), (*seq, true));
        begin.executor = "edge-2".to_owned();
        assert!(matches!(ledger.begin(1, begin).await, Err(Refused::AlreadyExecuted { .. })));
    }
}

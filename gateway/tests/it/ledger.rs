//! A scripted core: an in-memory ledger with the rules that the edge relies on, refusals on demand, and a log of what it was told.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Mutex,
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use polity_gateway::core::Core;
use polity_ledger::{Attempt, Begin, Begun, KeyedDigest, Note, Outcome, Page, Refused, Release, Settle, Settled, State};
use polity_policy::Known;
use polity_runtime::internal::{
    CancelRequest, Cancels, CancelsRequest, CountedBegin, PastRequest, RecordsRequest, RunError, RunRequest, ShimInput, ShimPod,
    ShimResult, ToolDrifted,
};
use serde_json::{Value, json};

#[derive(Default)]
struct Book {
    seq: i64,
    attempts: BTreeMap<String, Attempt>,
    keys: BTreeMap<(String, String), (String, String)>,
    log: Vec<String>,
    begins: Vec<Begin>,
    notes: Vec<Note>,
    results: Vec<ShimResult>,
    refuse_begin: VecDeque<Refused>,
    /// Begins that are committed and not answered.
    lose_begin: u32,
    refuse_settle: VecDeque<Refused>,
    away: bool,
    /// Records of the chain, and the sequence of the oldest one.
    chain: Vec<String>,
    first: i64,
    /// What counters and history stand at.
    past: Known,
    /// Views that are refused as stale when counters are asked for.
    stale_past: u32,
    /// Wishes to cancel that edges are told.
    wishes: Vec<String>,
}

#[derive(Default)]
pub struct Ledger(Mutex<Book>);

fn digest(value: &Value) -> KeyedDigest {
    KeyedDigest {
        digest: format!("{:x}", value.to_string().len()),
        key_id: "k1".into(),
        size: i64::try_from(value.to_string().len()).unwrap(),
    }
}

pub fn unavailable() -> Refused {
    Refused::LedgerUnavailable { what: "scripted".into() }
}

impl Ledger {
    pub fn log(&self) -> Vec<String> {
        self.0.lock().unwrap().log.clone()
    }
    pub fn set_past(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.0.lock().unwrap().past);
    }
    pub fn stale_past(&self, times: u32) {
        self.0.lock().unwrap().stale_past = times;
    }
    pub fn begins(&self) -> Vec<Begin> {
        self.0.lock().unwrap().begins.clone()
    }
    /// How many calls have begun.
    pub fn begun(&self) -> usize {
        self.0.lock().unwrap().begins.len()
    }
    pub fn notes(&self) -> Vec<Note> {
        self.0.lock().unwrap().notes.clone()
    }
    pub fn results(&self) -> Vec<ShimResult> {
        self.0.lock().unwrap().results.clone()
    }
    pub fn attempt_of(&self, id: &str) -> Option<Attempt> {
        self.0.lock().unwrap().attempts.get(id).cloned()
    }
    pub fn refuse_begin(&self, refusals: impl IntoIterator<Item = Refused>) {
        self.0.lock().unwrap().refuse_begin.extend(refusals);
    }
    pub fn lose_begin(&self, n: u32) {
        self.0.lock().unwrap().lose_begin = n;
    }
    pub fn refuse_settle(&self, refusals: impl IntoIterator<Item = Refused>) {
        self.0.lock().unwrap().refuse_settle.extend(refusals);
    }
    pub fn away(&self, away: bool) {
        self.0.lock().unwrap().away = away;
    }
    /// One more record of the chain; returns its sequence.
    pub fn record(&self, kind: &str, text: &str) -> i64 {
        let mut book = self.0.lock().unwrap();
        book.first = book.first.max(1);
        let seq = book.first + i64::try_from(book.chain.len()).unwrap();
        book.chain.push(json!({"seq": seq, "kind": kind, "text": text}).to_string());
        seq
    }
    /// Retention drops the oldest records.
    pub fn drop_oldest(&self, n: usize) {
        let mut book = self.0.lock().unwrap();
        book.chain.drain(..n);
        book.first += i64::try_from(n).unwrap();
    }
    pub fn chain(&self) -> Vec<String> {
        self.0.lock().unwrap().chain.clone()
    }
    /// An attempt that somebody else made.
    pub fn put(&self, attempt: Attempt) {
        self.0.lock().unwrap().attempts.insert(attempt.id.clone(), attempt);
    }
    pub fn end(&self, id: &str, outcome: Outcome, reason: &str, result: Option<Value>) {
        let mut book = self.0.lock().unwrap();
        let attempt = book.attempts.get_mut(id).unwrap();
        attempt.state = State::Settled;
        attempt.outcome = Some(outcome);
        attempt.reason = reason.into();
        attempt.result_digest = result.as_ref().map(digest);
        attempt.result = result;
        attempt.facts = BTreeMap::from([("exitCode".into(), json!(0))]);
    }
}

impl Ledger {
    async fn page(&self, request: &RecordsRequest) -> Result<Page, Refused> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(request.wait);
        loop {
            {
                let book = self.0.lock().unwrap();
                if book.away {
                    return Err(unavailable());
                }
                let head = book.first + i64::try_from(book.chain.len()).unwrap() - 1;
                if head > request.after || tokio::time::Instant::now() >= deadline {
                    let mut page = Page { next: request.after, head, first: book.first, ..Page::default() };
                    for (seq, line) in (book.first..).zip(&book.chain).filter(|(seq, _)| *seq > request.after) {
                        page.next = seq;
                        if request.filter.kind.is_empty() || line.contains(&format!(r#""kind":"{}""#, request.filter.kind)) {
                            page.lines.push(line.clone());
                        }
                        if page.lines.iter().map(String::len).sum::<usize>() >= request.bytes {
                            break;
                        }
                    }
                    return Ok(page);
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Book {
    fn begin(&mut self, begin: &Begin) -> Result<Begun, Refused> {
        if self.away {
            return Err(unavailable());
        }
        if let Some(refused) = self.refuse_begin.pop_front() {
            return Err(refused);
        }
        let (id, executor) = (begin.subject.id.clone(), begin.executor.clone());
        let input = digest(&begin.subject.input);
        match self.attempts.get(&id) {
            Some(a) if a.state == State::Begun && a.executor == executor => {
                self.lose_begin = self.lose_begin.saturating_sub(1);
                return if self.lose_begin > 0 { Err(unavailable()) } else { Ok(Begun { seq: 1, input, again: true }) };
            }
            Some(a) if a.state != State::Held => return Err(Refused::AlreadyExecuted { id, state: format!("{:?}", a.state) }),
            _ => {}
        }
        if let Some(key) = &begin.idempotency {
            let at = (begin.subject.actor.username.clone(), key.key.clone());
            match self.keys.get(&at) {
                Some((body, _)) if *body != key.body => return Err(Refused::IdempotencyKeyReused),
                Some((_, other)) if *other != id => return Err(Refused::IdempotencyReplay { id: other.clone() }),
                _ => {}
            }
            self.keys.insert(at, (key.body.clone(), id.clone()));
        }
        self.seq += 1;
        self.log.push(format!("begin {}", begin.subject.target.name));
        self.begins.push(begin.clone());
        self.attempts.insert(id.clone(), begun(&id, &executor, begin.deadline));
        if self.lose_begin > 0 {
            self.lose_begin -= 1;
            return Err(unavailable());
        }
        Ok(Begun { seq: self.seq, input, again: false })
    }

    fn settle(&mut self, settle: &Settle) -> Result<Settled, Refused> {
        if self.away {
            return Err(unavailable());
        }
        if let Some(refused) = self.refuse_settle.pop_front() {
            return Err(refused);
        }
        let seq = self.seq;
        let attempt = self.attempts.get_mut(&settle.id).ok_or_else(|| Refused::NotFound { id: settle.id.clone() })?;
        if attempt.state == State::Begun {
            attempt.state = State::Settled;
            attempt.outcome = settle.outcome;
            attempt.reason.clone_from(&settle.reason);
            attempt.message.clone_from(&settle.message);
            attempt.result_digest = settle.result.as_ref().map(digest);
            attempt.result.clone_from(&settle.result);
            attempt.facts.clone_from(&settle.facts);
            let used = settle.used.get("calls").copied().unwrap_or(0);
            self.log.push(format!("settle {:?} {} used={used}", settle.outcome.unwrap(), settle.reason));
        }
        Ok(Settled { seq, result: attempt.result_digest.clone(), outcome: attempt.outcome })
    }
}

/// An attempt that has begun.
pub fn begun(id: &str, executor: &str, deadline: Timestamp) -> Attempt {
    Attempt {
        id: id.into(),
        org: polity_ledger::OrgId { name: "acme".into(), uid: "org-acme".into() },
        verb: "tool.call".into(),
        state: State::Begun,
        executor: executor.into(),
        deadline,
        resume: Value::Null,
        outcome: None,
        reason: String::new(),
        message: String::new(),
        result: None,
        result_digest: None,
        facts: BTreeMap::new(),
    }
}

impl Core for Ledger {
    fn begin<'a>(&'a self, begin: &'a Begin) -> BoxFuture<'a, Result<Begun, Refused>> {
        let answer = self.0.lock().unwrap().begin(begin);
        Box::pin(std::future::ready(answer))
    }
    fn begin_counted<'a>(&'a self, begin: &'a CountedBegin) -> BoxFuture<'a, Result<Begun, Refused>> {
        let mut book = self.0.lock().unwrap();
        let answer = book.begin(&begin.begin);
        book.log.push(format!("counted for {}", begin.facts.caller.username));
        Box::pin(std::future::ready(answer))
    }
    fn past<'a>(&'a self, request: &'a PastRequest) -> BoxFuture<'a, Result<Known, Refused>> {
        let mut book = self.0.lock().unwrap();
        let task = request.facts.task.as_ref().map_or("-", |t| t.name.as_str());
        book.log.push(format!("past of {} for {} task {task}", request.subject.target.name, request.facts.caller.username));
        let key = request.idempotency.as_ref().map(|k| ((request.subject.actor.username.clone(), k.key.clone()), &k.body));
        let before = key.and_then(|(at, body)| book.keys.get(&at).filter(|(b, _)| b == body)).map(|(_, id)| id.clone());
        let answer = if book.away {
            Err(unavailable())
        } else if let Some(id) = before.filter(|id| *id != request.subject.id) {
            Err(Refused::IdempotencyReplay { id })
        } else if book.stale_past > 0 {
            book.stale_past -= 1;
            Err(Refused::StaleSnapshot { digest: request.subject.snapshot.clone() })
        } else {
            Ok(book.past.clone())
        };
        Box::pin(std::future::ready(answer))
    }
    fn settle<'a>(&'a self, settle: &'a Settle) -> BoxFuture<'a, Result<Settled, Refused>> {
        let answer = self.0.lock().unwrap().settle(settle);
        Box::pin(std::future::ready(answer))
    }
    fn release<'a>(&'a self, release: &'a Release) -> BoxFuture<'a, Result<(), Refused>> {
        let mut book = self.0.lock().unwrap();
        let held = book.attempts.get_mut(&release.id).filter(|a| a.state == State::Held);
        let answer = match held {
            Some(attempt) => {
                attempt.state = State::Released;
                Ok(())
            }
            None => Err(Refused::NotFound { id: release.id.clone() }),
        };
        book.log.push(format!("release {}", release.reason));
        Box::pin(std::future::ready(answer))
    }
    fn note<'a>(&'a self, note: &'a Note) -> BoxFuture<'a, Result<Option<i64>, Refused>> {
        let mut book = self.0.lock().unwrap();
        let answer = if book.away { Err(unavailable()) } else { Ok(Some(7)) };
        book.log.push(format!("note {} {}", note.kind, note.reason));
        book.notes.push(note.clone());
        Box::pin(std::future::ready(answer))
    }
    fn run<'a>(&'a self, run: &'a RunRequest) -> BoxFuture<'a, Result<Begun, Refused>> {
        let mut book = self.0.lock().unwrap();
        let mut begin = run.begin.clone();
        "polity-core".clone_into(&mut begin.executor);
        let answer = book.begin(&begin);
        book.log.push(format!("run {} {}s", run.tool.name, run.timeout_seconds));
        Box::pin(std::future::ready(answer))
    }
    fn drifted<'a>(&'a self, told: &'a ToolDrifted) -> BoxFuture<'a, Result<(), Refused>> {
        self.0.lock().unwrap().log.push(format!("drifted {} {}", told.tool.name, told.changed.join(",")));
        Box::pin(std::future::ready(Ok(())))
    }
    fn cancel<'a>(&'a self, wish: &'a CancelRequest) -> BoxFuture<'a, Result<(), Refused>> {
        assert_eq!(wish.org, "org-acme");
        let mut book = self.0.lock().unwrap();
        if book.away {
            return Box::pin(std::future::ready(Err(unavailable())));
        }
        match book.attempts.get_mut(&wish.key) {
            Some(attempt) if attempt.state == State::Begun && attempt.executor == "polity-core" => {
                attempt.state = State::Settled;
                attempt.outcome = Some(Outcome::NotDone);
                attempt.reason = "Canceled".into();
                book.log.push("core stopped it".into());
            }
            Some(attempt) if attempt.state != State::Begun => {}
            _ => book.wishes.push(wish.key.clone()),
        }
        Box::pin(std::future::ready(Ok(())))
    }
    fn cancels<'a>(&'a self, request: &'a CancelsRequest) -> BoxFuture<'a, Result<Cancels, Refused>> {
        let after = usize::try_from(request.after).unwrap();
        Box::pin(async move {
            loop {
                let keys: Vec<String> = self.0.lock().unwrap().wishes.iter().skip(after).cloned().collect();
                if !keys.is_empty() {
                    return Ok(Cancels { epoch: 1, next: request.after + i64::try_from(keys.len()).unwrap(), keys });
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    }
    fn attempt<'a>(&'a self, org_uid: &'a str, id: &'a str, wait: Duration) -> BoxFuture<'a, Result<Option<Attempt>, Refused>> {
        assert_eq!(org_uid, "org-acme");
        Box::pin(async move {
            let deadline = tokio::time::Instant::now() + wait;
            loop {
                let found = {
                    let book = self.0.lock().unwrap();
                    if book.away {
                        return Err(unavailable());
                    }
                    book.attempts.get(id).cloned()
                };
                if found.as_ref().is_none_or(|a| a.state != State::Begun) || tokio::time::Instant::now() >= deadline {
                    return Ok(found);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    }
    fn records<'a>(&'a self, org_uid: &'a str, request: &'a RecordsRequest) -> BoxFuture<'a, Result<Page, Refused>> {
        assert_eq!(org_uid, "org-acme");
        if !self.0.lock().unwrap().chain.is_empty() {
            return Box::pin(self.page(request));
        }
        let lines = vec![json!({"asked": request}).to_string(), "{}".into()];
        Box::pin(std::future::ready(Ok(Page { lines, next: request.after + 2, head: 9, first: 1 })))
    }
    fn run_input<'a>(&'a self, id: &'a str, pod: &'a ShimPod) -> BoxFuture<'a, Result<ShimInput, RunError>> {
        let answer = match (id, pod.pod_name.as_str(), pod.pod_uid.as_str(), pod.namespace.as_str()) {
            ("1", "call-1", "uid-call-1", "acme") => Ok(serde_json::from_value(json!({"input": {"a": 1}, "deadline": "2030-01-01T00:00:00Z", "timeoutSeconds": 5, "trace": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})).unwrap()),
            ("2", ..) => Err(RunError::AnotherPod { id: id.into() }),
            ("3", ..) => Err(RunError::Refused(unavailable())),
            _ => Err(RunError::NotKnown { id: id.into() }),
        };
        Box::pin(std::future::ready(answer))
    }
    fn run_result<'a>(&'a self, _: &'a str, result: &'a ShimResult) -> BoxFuture<'a, Result<(), RunError>> {
        self.0.lock().unwrap().results.push(result.clone());
        Box::pin(std::future::ready(Ok(())))
    }
}

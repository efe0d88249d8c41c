//! `/v1/orgs/{org}/calls`: how agents act. Who asks, decide, begin, run, settle; one answer, or an Approval to wait for.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Path, RawQuery, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use polity_api::{
    Caller, reasons,
    toolcall::{CallResult, Decision as Shown, Phase},
};
use polity_ledger::{Attempt, State as LedgerState};
use polity_runtime::{CancellationToken, internal::CancelRequest};
use tokio::sync::oneshot;

use crate::{
    answer::{self, Answer},
    body::{self, CallBody},
    decide::{Ask, busy},
    execute::{Basis, Started, Step, runs_here},
    id,
    metrics::Door,
    problem::Problem,
    state::Gateway,
    trace,
    under_way::Leash,
};

type Shared = State<Arc<Gateway>>;

/// Longest wait in one question to core.
const CORE_WAIT: Duration = Duration::from_secs(30);
/// How long a call that is to be stopped is waited for.
const STOPPING: Duration = Duration::from_secs(10);

impl Gateway {
    /// Who asks.
    pub(crate) async fn caller(&self, headers: &HeaderMap) -> Result<Arc<Caller>, Problem> {
        let value = headers.get("authorization").and_then(|v| v.to_str().ok());
        Ok(self.identities.of_header(value).await?)
    }
}

/// `POST /v1/orgs/{org}/calls`.
pub async fn create(
    State(gateway): Shared,
    org: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let caller = gateway.caller(&headers).await?;
    let org = org_of(org)?;
    let _slot = gateway.call_slots.try_acquire().map_err(|_| busy())?;
    let body: CallBody = body::read(&headers, body, body::MAX_BODY).await?;
    let wait = body.wait()?;
    let spec = body.into_spec()?;
    let view = gateway.view(&org)?;
    let id = id::new(view.org_uid(), &caller.username, rand::random());
    let ask = Ask::new(&org, caller.as_ref().clone(), spec, id, trace::of(&headers, rand::random()));
    let patience = Patience { run: wait, people: wait };
    let leash = gateway.under_way.leash(vec![ask.id.clone()]);
    Ok(gateway.call(Door::Calls, ask, patience, leash).await?.into_response())
}

/// How long a caller waits.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the end of a call that runs.
    pub run: Duration,
    /// For the end of a call that waits for people.
    pub people: Duration,
}

fn joined(done: Result<Result<Answer, Problem>, tokio::task::JoinError>) -> Result<Answer, Problem> {
    done.unwrap_or_else(|error| {
        tracing::error!(%error, "a call broke off");
        Err(Problem::unavailable(reasons::UNAVAILABLE, "a fault of Polity: what became of the call is in the ledger"))
    })
}

impl Gateway {
    /// A call through whichever door: decided, begun, run, settled. What has begun is brought to its end even if the caller hangs up; only a wish to
    /// cancel, by the leash, keeps what has not begun from it, and stops what runs.
    pub(crate) async fn call(self: &Arc<Self>, door: Door, ask: Ask, patience: Patience, leash: Leash) -> Result<Answer, Problem> {
        let (begun, has_begun) = oneshot::channel();
        let id = ask.id.clone();
        let mut work = self.work.spawn(self.clone().carry_out(ask, patience, leash, begun));
        let answer = tokio::select! {
            done = &mut work => joined(done),
            Ok(decision) = has_begun => match tokio::time::timeout(patience.run, &mut work).await {
                Ok(done) => joined(done),
                Err(_) => Ok(Answer::new(id, Phase::Running).decided(Some(decision))),
            },
        };
        self.metrics.called(door, &answer);
        answer
    }

    /// Decides and runs to the end; tells `begun` as soon as it runs here.
    async fn carry_out(
        self: Arc<Self>,
        ask: Ask,
        patience: Patience,
        leash: Leash,
        begun: oneshot::Sender<Shown>,
    ) -> Result<Answer, Problem> {
        let wait = patience.run;
        let cancel = leash.token().clone();
        let step = match self.decide_and_begin(&ask, &Basis { cancel: cancel.clone(), ..Basis::of(&ask) }).await {
            Ok(step) => step,
            Err(problem) => {
                if problem.reason() == reasons::LEDGER_UNAVAILABLE
                    && let Ok(view) = self.view(&ask.org)
                {
                    let org = polity_ledger::OrgId { name: ask.org.clone(), uid: view.org_uid().to_owned() };
                    self.abandon(org, ask.id.clone());
                }
                return Err(problem);
            }
        };
        match step {
            Step::Denied(decided) | Step::Refused(decided) => Err(self.refuse(&decided).await),
            Step::Ask(_) if cancel.is_cancelled() => Err(canceled()),
            Step::Ask(decided) => {
                let answer = self.wait_for_people(&ask, &decided, patience).await?;
                if cancel.is_cancelled() && !answer.settled() { self.withdraw(&ask, answer).await } else { Ok(answer) }
            }
            Step::Replay(id) => self.replayed(&ask, &id, wait).await,
            Step::Elsewhere | Step::NotOurs => {
                Err(Problem::new(StatusCode::CONFLICT, reasons::ALREADY_EXECUTED, "this call has begun already"))
            }
            Step::Started(mut started) if runs_here(&started.tool) => {
                let shown = self.shown(&started);
                // Nobody listens any more when the caller has hung up; the call goes on.
                let _ = begun.send(shown.clone());
                self.run_here(&ask, &mut started, shown, cancel).await
            }
            Step::Started(started) => {
                let shown = self.shown(&started);
                let org_uid = &started.decided.subject.org.uid;
                let attempt = tokio::select! {
                    attempt = self.wait_for_end(org_uid, &ask.id, wait) => attempt?,
                    () = cancel.cancelled() => {
                        self.core.cancel(&CancelRequest { org: org_uid.clone(), key: ask.id.clone() }).await?;
                        self.wait_for_end(org_uid, &ask.id, STOPPING).await?
                    }
                };
                let answer = attempt.map_or_else(|| Answer::new(&ask.id, Phase::Running), |a| Answer::of_attempt(&a));
                Ok(answer.rewritten(&started.decided.decision).decided(Some(shown)))
            }
        }
    }

    fn shown(&self, started: &Started) -> Shown {
        answer::shown(&started.decided.decision, Some(&started.begun), self.replica.process(), self.clock.now())
    }

    async fn run_here(&self, ask: &Ask, started: &mut Started, shown: Shown, cancel: CancellationToken) -> Result<Answer, Problem> {
        let (ran, settled) = self.run_and_settle(started, &ask.trace, cancel.cancelled()).await;
        let settled = settled?;
        if settled.outcome != Some(ran.outcome) {
            // Core had given the run up; its word stands.
            let attempt = self.core.attempt(&started.decided.subject.org.uid, &ask.id, Duration::ZERO).await?;
            let answer = attempt.map_or_else(|| Answer::new(&ask.id, Phase::Unknown), |a| Answer::of_attempt(&a));
            return Ok(answer.rewritten(&started.decided.decision).decided(Some(shown)));
        }
        let phase = match (ran.outcome, ran.reason) {
            (polity_ledger::Outcome::Unknown, _) => Phase::Unknown,
            (polity_ledger::Outcome::Done, "") => Phase::Succeeded,
            (polity_ledger::Outcome::NotDone, reasons::CANCELED) => Phase::Canceled,
            _ => Phase::Failed,
        };
        let result = CallResult {
            size: settled.result.as_ref().map(|d| d.size),
            digest: settled.result.as_ref().map(answer::digest),
            output: ran.output,
            code: ran.status.map(i32::from),
            stderr_tail: None,
        };
        let ended = Answer { reason: ran.reason.to_owned(), message: ran.message, result: Some(result), ..Answer::new(&ask.id, phase) };
        Ok(ended.rewritten(&started.decided.decision).decided(Some(shown)))
    }

    /// A call that people must allow becomes an object.
    async fn wait_for_people(&self, ask: &Ask, decided: &crate::decide::Decided, patience: Patience) -> Result<Answer, Problem> {
        let answer = self.store(ask, decided, patience).await?;
        if answer.phase == Phase::Denied && answer.approval.is_none() {
            // Core saw more than this edge; a denial looks like one whoever found it.
            let reason = if answer.reason.is_empty() { reasons::POLICY_DENIED } else { &answer.reason };
            let hint = answer.decision.as_ref().map(|d| d.hint.clone()).unwrap_or_default();
            return Err(Problem::new(StatusCode::FORBIDDEN, reason, answer.message).hint(hint));
        }
        Ok(answer)
    }

    /// A call that was canceled while it became an object: it is not waited for any more.
    async fn withdraw(&self, ask: &Ask, answer: Answer) -> Result<Answer, Problem> {
        let view = self.view(&ask.org)?;
        let Some(call) = self.own_call(view.namespace(), answer.call.as_deref().unwrap_or_default(), &ask.caller).await? else {
            return Ok(answer);
        };
        self.cancel_call(&call).await
    }

    /// The outcome of the same request, made before.
    async fn replayed(&self, ask: &Ask, id: &str, wait: Duration) -> Result<Answer, Problem> {
        let org_uid = self.view(&ask.org)?.org_uid().to_owned();
        let attempt = self.wait_for_end(&org_uid, id, wait).await?;
        attempt
            .map(|a| Answer::of_attempt(&a))
            .ok_or_else(|| Problem::not_found(format!("the same request was made before as {id}, of which nothing is kept")))
    }

    /// The attempt once it has ended, or as it stands after the time.
    async fn wait_for_end(&self, org_uid: &str, id: &str, wait: Duration) -> Result<Option<Attempt>, Problem> {
        let started = tokio::time::Instant::now();
        loop {
            let left = wait.saturating_sub(started.elapsed());
            let asked = tokio::time::Instant::now();
            let attempt = self.core.attempt(org_uid, id, left.min(CORE_WAIT)).await?;
            let ended = attempt.as_ref().is_none_or(|a| matches!(a.state, LedgerState::Settled | LedgerState::Released));
            if ended || started.elapsed() >= wait {
                return Ok(attempt);
            }
            if asked.elapsed() < Duration::from_millis(50) {
                // Core answered at once although the call goes on: do not ask in a tight loop.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// `GET /v1/orgs/{org}/calls/{id}`.
pub async fn read(
    State(gateway): Shared,
    path: Result<Path<(String, String)>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Answer, Problem> {
    let caller = gateway.caller(&headers).await?;
    let (org, id) = call_of(path)?;
    let wait = body::wait_of_query(query.as_deref())?;
    let _slot = gateway.wait_slots.try_acquire().map_err(|_| busy())?;
    let view = gateway.view(&org)?;
    if id::belongs(&id, view.org_uid(), &caller.username) {
        let attempt = gateway.wait_for_end(view.org_uid(), &id, wait).await?;
        return attempt.map(|a| Answer::of_attempt(&a)).ok_or_else(|| unknown(&id));
    }
    let call = gateway.own_call(view.namespace(), &id, &caller).await?.ok_or_else(|| unknown(&id))?;
    Ok(Answer::of_call(&gateway.until_over(call, wait).await))
}

/// `POST /v1/orgs/{org}/calls/{id}/cancel`.
pub async fn cancel(
    State(gateway): Shared,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Answer, Problem> {
    let caller = gateway.caller(&headers).await?;
    let (org, id) = call_of(path)?;
    let view = gateway.view(&org)?;
    if id::belongs(&id, view.org_uid(), &caller.username) {
        let attempt = gateway.core.attempt(view.org_uid(), &id, Duration::ZERO).await?.ok_or_else(|| unknown(&id))?;
        if Answer::of_attempt(&attempt).settled() {
            return Ok(Answer::of_attempt(&attempt));
        }
        gateway.cancel_under_way(view.org_uid(), id.clone()).await?;
        let attempt = gateway.wait_for_end(view.org_uid(), &id, STOPPING).await?.ok_or_else(|| unknown(&id))?;
        let answer = Answer::of_attempt(&attempt);
        return if answer.settled() { Ok(answer) } else { Err(not_cancelable()) };
    }
    let call = gateway.own_call(view.namespace(), &id, &caller).await?.ok_or_else(|| unknown(&id))?;
    let answer = Answer::of_call(&call);
    if answer.settled() { Ok(answer) } else { gateway.cancel_call(&call).await }
}

/// Canceled before it began: nobody waits for this any more.
pub(crate) fn canceled() -> Problem {
    Problem::new(StatusCode::CONFLICT, reasons::CANCELED, "canceled before it began; nothing has run")
}

fn not_cancelable() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        reasons::NOT_CANCELABLE,
        "whoever runs the call has not stopped it; it ends within the Tool's time-out",
    )
    .hint("ask again; a replica that has died is not asked any more")
}

fn unknown(id: &str) -> Problem {
    Problem::not_found(format!("you have no call {id} here"))
}

pub(crate) fn org_of(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    path.map(|Path(org)| org).map_err(|e| Problem::invalid(e.to_string()))
}

fn call_of(path: Result<Path<(String, String)>, PathRejection>) -> Result<(String, String), Problem> {
    path.map(|Path(both)| both).map_err(|e| Problem::invalid(e.to_string()))
}

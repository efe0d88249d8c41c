//! A ToolCall after `begin`: bring its status up to what the ledger knows, stop it if asked, take a person's word on an unknown outcome.
//! Nothing here begins anything.

use std::time::Duration;

use kube::ResourceExt;
use polity_api::{
    reasons,
    toolcall::{Phase, ResolvedOutcome},
};
use polity_ledger::{Amounts, Attempt, Note, Outcome, Settle, State};

use super::{
    call::{ENDED, Pass, WHILE_RUNNING},
    controller::{Error, SOON},
    runner::EXECUTOR,
    status,
};
use crate::requeue::Outcome as Next;

impl Pass<'_> {
    /// Shows the outcome of the earlier call with the same idempotency key and body.
    pub(super) async fn replay(&self, id: &str) -> Result<Next, Error> {
        let Some(earlier) = self.ctx.runner.gate.ledger.attempt(&self.org, id).await? else { return Ok(Next::At(SOON)) };
        self.ctx.runner.delete(&self.namespace, &self.id, None).await;
        if !matches!(earlier.state, State::Settled | State::Released) {
            return Ok(Next::At(SOON));
        }
        let mut status = status::ended(self.status(), &earlier, self.generation(), self.now);
        let message = format!("the same request ran before as {id}; this is its outcome");
        let good = status.phase == Some(Phase::Succeeded);
        polity_api::conditions::set(
            &mut status.conditions,
            polity_api::conditions::SUCCEEDED,
            good,
            polity_api::reasons::IDEMPOTENCY_REPLAY,
            &message,
            self.generation(),
            self.now,
        );
        self.write(status).await?;
        Ok(Next::At(ENDED))
    }

    /// A call that has begun: bring the status up to it, stop it if asked, look again.
    pub(super) async fn begun(&self, attempt: &Attempt) -> Result<Next, Error> {
        let ours = attempt.executor == EXECUTOR;
        let canceled = self.call.spec.cancel || self.task().await?.is_ok_and(|t| t.is_some_and(|t| t.cancel));
        if ours && canceled {
            if let Err(error) = self.ctx.runner.cancel(attempt).await {
                tracing::warn!(call = %self.call.name_any(), %error, "stopping a run failed");
            }
            return Ok(Next::At(Duration::from_millis(200)));
        }
        if ours {
            if let Err(error) = self.ctx.runner.look_after(attempt, self.now).await {
                tracing::warn!(call = %self.call.name_any(), %error, "looking after a run failed");
            }
            let shown_running = self.call.status.as_ref().and_then(|s| s.phase) == Some(Phase::Running);
            if !shown_running {
                let status = status::resumed(self.status(), attempt, &self.snapshot, self.generation(), self.now);
                self.write(status).await?;
            }
        }
        Ok(Next::At(WHILE_RUNNING))
    }

    /// A call whose attempt has ended: the terminal status, or a person's word on an unknown outcome.
    pub(super) async fn settled(&self, attempt: &Attempt) -> Result<Next, Error> {
        if attempt.outcome == Some(Outcome::Unknown)
            && let Some(resolution) = &self.call.spec.resolution
        {
            let by = resolution.by.clone().unwrap_or_default();
            let outcome = match resolution.outcome {
                ResolvedOutcome::Done => Outcome::Done,
                ResolvedOutcome::NotDone => Outcome::NotDone,
            };
            self.ctx
                .runner
                .gate
                .settle(Settle {
                    org: self.org.clone(),
                    id: self.id.clone(),
                    used: Amounts::new(),
                    last: true,
                    outcome: Some(outcome),
                    reason: reasons::RESOLVED.to_owned(),
                    message: format!("resolved by {by}: {}", resolution.reason),
                    result: None,
                    facts: attempt.facts.clone(),
                    by,
                    resolution: true,
                })
                .await?;
            return Ok(Next::At(Duration::from_millis(50)));
        }
        let mut before = self.status();
        if attempt.executor == EXECUTOR && !before.decision.as_ref().is_some_and(status::shows_allowed) {
            // It ran while core was away and could not say so.
            before = status::resumed(before, attempt, &self.snapshot, self.generation(), self.now);
        }
        let status = status::ended(before, attempt, self.generation(), self.now);
        let waits_for_person = status.phase == Some(Phase::Unknown);
        self.write(status).await?;
        self.ctx.runner.delete(&self.namespace, &self.id, None).await;
        Ok(if waits_for_person { Next::Settled } else { Next::At(ENDED) })
    }

    /// A call that has begun by its status but not by the ledger: another ledger was here before (a lost or restored volume). It never begins
    /// again; a person says what became of it.
    pub(super) async fn forgotten(&self) -> Result<Next, Error> {
        let Some(resolution) = &self.call.spec.resolution else {
            let message = "the call has begun, but this ledger has no record of it (was its volume lost or restored?)";
            self.write(status::forgotten(self.status(), message, self.generation(), self.now)).await?;
            return Ok(Next::Settled);
        };
        let by = resolution.by.clone().unwrap_or_default();
        let facts = serde_json::json!({"outcome": resolution.outcome, "reason": resolution.reason, "by": by, "call": self.id});
        self.ctx
            .runner
            .gate
            .note(Note {
                kind: "transition".to_owned(),
                org: self.org.clone(),
                once: Some(format!("forgotten/{}", self.id)),
                subject: None,
                actor: Some(polity_ledger::Actor { kind: "Human".to_owned(), username: by.clone(), ..polity_ledger::Actor::default() }),
                target: Some(polity_ledger::Target {
                    kind: "ToolCall".to_owned(),
                    namespace: self.namespace.clone(),
                    name: self.call.name_any(),
                    ..Default::default()
                }),
                reason: reasons::RESOLVED.to_owned(),
                facts: facts.as_object().cloned().unwrap_or_default().into_iter().collect(),
            })
            .await?;
        let done = resolution.outcome == ResolvedOutcome::Done;
        let message = format!("resolved by {by}: {}", resolution.reason);
        self.write(status::resolved(self.status(), done, &message, self.generation(), self.now)).await?;
        Ok(Next::At(ENDED))
    }
}

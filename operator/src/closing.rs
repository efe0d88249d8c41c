//! What dispatch does when an Org is deleted: end what has begun, give back what is held, and write the last record.

use std::sync::Arc;

use anyhow::{Result, bail};
use futures::future::{BoxFuture, FutureExt};
use polity_ledger::{Note, OrgId, Release, State, Target};

use crate::{
    context::OrgClosing,
    dispatch::{Runner, runner::EXECUTOR},
};

/// Closes an Org's affairs in the ledger.
pub struct Closing {
    /// Runner and, in it, the gate.
    pub runner: Arc<Runner>,
}

impl OrgClosing for Closing {
    fn flush<'a>(&'a self, org: &'a OrgId) -> BoxFuture<'a, Result<()>> {
        self.close(org).boxed()
    }
}

impl Closing {
    async fn close(&self, org: &OrgId) -> Result<()> {
        let gate = &self.runner.gate;
        let mut edge_runs = 0;
        for attempt in gate.ledger.open_attempts().await?.into_iter().filter(|a| a.org.uid == org.uid) {
            match attempt.state {
                State::Held => {
                    let reason = polity_api::reasons::ORG_DELETING.to_owned();
                    gate.release(Release { org: attempt.org.clone(), id: attempt.id.clone(), reason, by: EXECUTOR.to_owned() }).await?;
                }
                State::Begun if attempt.executor == EXECUTOR => self.runner.cancel(&attempt).await?,
                // The edge settles it, or the sweep does at its deadline.
                State::Begun => edge_runs += 1,
                State::Released | State::Settled => {}
            }
        }
        if edge_runs > 0 {
            bail!("{edge_runs} http calls of Org {} have not ended yet", org.name);
        }
        gate.note(Note {
            kind: "transition".to_owned(),
            org: org.clone(),
            once: Some(format!("closed/{}", org.uid)),
            subject: None,
            actor: None,
            target: Some(Target { kind: "Org".to_owned(), name: org.name.clone(), ..Target::default() }),
            reason: polity_api::reasons::ORG_CLOSED.to_owned(),
            facts: std::collections::BTreeMap::new(),
        })
        .await?;
        Ok(())
    }
}

//! Looks after each Org's chain: closes its segments with signed roots, drops what need not be kept any longer, destroys keys when an Org asks for it, and anchors its head in
//! `Org.status.ledger`, so that a ledger which lost its tail is noticed by somebody who has only the cluster.
//!
//! At most one write an Org in each interval (a minute, if not set otherwise), none while its chain does not grow. A chain that does not reach its anchor, or has another record
//! there, comes from a backup: nothing begins in that Org, and the anchor stays, until a person names the restore.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use polity_api::{Org, org::DEFAULT_RETENTION_DAYS};
use polity_ledger::{Head, Ledger, Note, OrgId, Refused, Sealing, Standing};
use polity_runtime::{CancellationToken, cache::Cache, clock::SharedClock};
use serde_json::json;

use crate::dispatch::Gate;

/// Field manager of the anchors.
const MANAGER: &str = "polity-anchor";

/// Which chains reach their anchors.
pub struct Anchors {
    cache: Arc<Cache>,
    ledger: Ledger,
    epoch: i64,
    /// Name of a restore that a person vouches for; empty when there is none.
    restore: String,
    /// Uids of Orgs whose chain was found to reach its anchor. It cannot fall behind while this process holds the ledger.
    fit: Mutex<BTreeSet<String>>,
}

impl Anchors {
    /// Nothing is known yet.
    pub fn new(cache: Arc<Cache>, ledger: Ledger, epoch: i64, restore: &str) -> Self {
        Self { cache, ledger, epoch, restore: restore.trim().to_owned(), fit: Mutex::default() }
    }

    /// Refuses unless the Org's chain reaches its anchor, or a person has named the restore after which it does not.
    ///
    /// # Errors
    /// `LedgerUnavailable`, saying what is missing and what to do.
    pub async fn hold(&self, org: &OrgId) -> Result<(), Refused> {
        if self.fit.lock().unwrap_or_else(PoisonError::into_inner).contains(&org.uid) {
            return Ok(());
        }
        let anchor = self.cache.world().orgs.get(&org.name).filter(|o| o.uid().as_deref() == Some(&org.uid)).and_then(|o| anchored(o));
        if let Some(anchor) = anchor
            && let Some(wrong) = wrong(&anchor, &self.ledger.standing(org, &anchor).await?)
        {
            self.begin_restore(org, &anchor, &wrong).await?;
        }
        self.fit.lock().unwrap_or_else(PoisonError::into_inner).insert(org.uid.clone());
        Ok(())
    }

    /// Records the restore that a person named, once; refuses without one.
    async fn begin_restore(&self, org: &OrgId, anchor: &Head, wrong: &str) -> Result<(), Refused> {
        let refused = |todo: &str| Refused::LedgerUnavailable { what: format!("the chain of Org {}: {wrong}; {todo}", org.name) };
        if self.restore.is_empty() {
            return Err(refused("it was restored from a backup or damaged: see docs/operations.md, A restored ledger"));
        }
        let before = self.ledger.head(org).await?.unwrap_or_default();
        let note = Note {
            kind: "restore".to_owned(),
            org: org.clone(),
            once: Some(format!("restore/{}", self.restore)),
            subject: None,
            actor: None,
            target: None,
            reason: polity_api::reasons::LEDGER_RESTORED.to_owned(),
            facts: [
                ("name".to_owned(), json!(self.restore)),
                ("anchoredSeq".to_owned(), json!(anchor.seq)),
                ("anchoredHash".to_owned(), json!(anchor.hash)),
                ("restoredSeq".to_owned(), json!(before.seq)),
            ]
            .into(),
        };
        if self.ledger.note(self.epoch, note).await? <= before.seq {
            return Err(refused(&format!("POLITY_RESTORE={} was used before: give each restore a name of its own", self.restore)));
        }
        tracing::warn!(org = org.name, restore = self.restore, wrong, "a restored chain goes on");
        Ok(())
    }
}

/// The anchor of an Org, if it has one.
fn anchored(org: &Org) -> Option<Head> {
    let shown = org.status.as_ref()?.ledger.as_ref()?;
    Some(Head { seq: shown.seq, hash: shown.hash.clone() })
}

/// What is wrong with a chain, held against its anchor.
fn wrong(anchor: &Head, standing: &Standing) -> Option<String> {
    match standing {
        Standing::Fits => None,
        Standing::Behind { head } => Some(format!("it ends with record {head}, and record {} was anchored", anchor.seq)),
        Standing::Differs => Some(format!("its record {} is not the one that was anchored", anchor.seq)),
    }
}

/// Looks after the chains, once in each interval, until cancelled.
pub async fn keep(gate: Arc<Gate>, cache: Arc<Cache>, clock: SharedClock, every: Duration, stop: CancellationToken) {
    let mut known: BTreeMap<String, i64> = BTreeMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        if let Err(error) = segments(&gate, &cache, clock.now()).await {
            tracing::warn!(%error, "chains were not sealed, or not shortened");
        }
        let world = cache.world();
        for org in world.orgs.values() {
            let (Some(uid), name) = (org.uid(), org.name_any()) else { continue };
            let id = OrgId { name: name.clone(), uid: uid.clone() };
            if let Err(error) = gate.anchors.hold(&id).await {
                tracing::error!(org = name, %error, "not anchored");
                continue;
            }
            let last = known.get(&uid).copied();
            match gate.ledger.head(&id).await {
                Ok(Some(head)) if last != Some(head.seq) && anchored(org).is_none_or(|shown| shown != head) => {
                    if let Err(error) = anchor(&gate.client, &name, &uid, &head).await {
                        tracing::warn!(org = name, %error, "anchoring the chain failed");
                        continue;
                    }
                    known.insert(uid, head.seq);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(org = name, %error, "the chain's head cannot be read"),
            }
        }
        known.retain(|uid, _| world.orgs.values().any(|o| o.uid().as_ref() == Some(uid)));
    }
}

/// Closes segments and drops those that are older than their Org keeps them. The chain of an Org that is gone is kept for the default time.
async fn segments(gate: &Gate, cache: &Cache, now: Timestamp) -> Result<(), Refused> {
    let epoch = gate.epoch();
    while gate.ledger.seal(epoch, Sealing::default()).await? > 0 {}
    let world = cache.world();
    for org in gate.ledger.orgs().await? {
        let object = world.orgs.get(&org.name).filter(|o| o.uid().as_deref() == Some(&org.uid));
        if let Some(name) = object.and_then(|o| o.spec.record.as_ref()?.erase.as_ref())
            && gate.ledger.erase(epoch, &org, name).await?
        {
            tracing::warn!(org = org.name, erasure = name, "the keys of the digests were destroyed");
        }
        let days = object.and_then(|o| o.spec.record.as_ref()?.retention_days).unwrap_or(DEFAULT_RETENTION_DAYS);
        let kept = SignedDuration::from_hours(days.saturating_mul(24));
        let Ok(before) = now.checked_sub(kept) else { continue };
        while let Some((first, last)) = gate.ledger.retain(epoch, &org, before).await? {
            tracing::info!(org = org.name, first, last, days, "records were dropped after their time");
        }
    }
    Ok(())
}

async fn anchor(client: &Client, name: &str, uid: &str, head: &Head) -> Result<(), kube::Error> {
    let api: Api<Org> = Api::all(client.clone());
    let patch = json!({"metadata": {"uid": uid}, "status": {"ledger": {"seq": head.seq, "hash": head.hash}}});
    // A manager of its own tells these writes from those of reconciling, in managedFields and in the audit log.
    let manager = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    api.patch_status(name, &manager, &Patch::Merge(patch)).await.map(drop)
}

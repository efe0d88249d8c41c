//! Anchors each Org's chain in `Org.status.ledger`, so that a ledger which lost its tail is noticed by somebody who has only the cluster.
//! At most one write an Org a minute, none while its chain does not grow.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use polity_api::Org;
use polity_ledger::OrgId;
use polity_runtime::{CancellationToken, cache::Cache};

use crate::dispatch::Gate;

/// Field manager of the anchors.
const MANAGER: &str = "polity-anchor";
/// Time between two anchors of an Org.
const EVERY: Duration = Duration::from_secs(60);

/// Anchors until cancelled.
pub async fn keep(gate: Arc<Gate>, cache: Arc<Cache>, stop: CancellationToken) {
    let mut known: BTreeMap<String, i64> = BTreeMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let world = cache.world();
        for org in world.orgs.values() {
            let (Some(uid), name) = (org.uid(), org.name_any()) else { continue };
            let shown = org.status.as_ref().and_then(|s| s.ledger.as_ref()).map(|l| l.seq);
            let last = known.get(&uid).copied().or(shown).unwrap_or_default();
            match gate.ledger.head(&OrgId { name: name.clone(), uid: uid.clone() }).await {
                Ok(Some(head)) if head.seq > last => {
                    if let Err(error) = anchor(&gate, &name, &uid, head.seq, &head.hash).await {
                        tracing::warn!(org = name, %error, "anchoring the chain failed");
                        continue;
                    }
                    known.insert(uid, head.seq);
                }
                Ok(Some(head)) if head.seq < last => {
                    tracing::error!(
                        org = name,
                        anchored = last,
                        head = head.seq,
                        "the ledger has fewer records than were anchored: its tail is lost"
                    );
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(org = name, %error, "the chain's head cannot be read"),
            }
        }
        known.retain(|uid, _| world.orgs.values().any(|o| o.uid().as_ref() == Some(uid)));
    }
}

async fn anchor(gate: &Gate, name: &str, uid: &str, seq: i64, hash: &str) -> Result<(), kube::Error> {
    let api: Api<Org> = Api::all(gate.client.clone());
    let patch = serde_json::json!({"metadata": {"uid": uid}, "status": {"ledger": {"seq": seq, "hash": hash}}});
    // A manager of its own tells these writes from those of reconciling, in managedFields and in the audit log.
    let manager = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    api.patch_status(name, &manager, &Patch::Merge(patch)).await.map(drop)
}

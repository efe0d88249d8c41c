//! The one way to `begin`: whoever runs an action, core checks here that admission is enforced, that the view which decided is
//! current, that the Approval it rests on fits, and which budgets it is charged to; then the ledger commits.
//!
//! Never decides by itself and never lets a request name its own limits.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Api, Client, ResourceExt, api::ListParams};
use polity_api::{Approval, approval::ApprovalPhase, caller::Caller};
use polity_ledger::{
    Begin, Begun, Charge, CounterKey, Durability, Held, Hold, Ledger, Note, Refused, Release, Settle, Settled, Subject, Target, Window,
};
use polity_policy::Snapshot;
use polity_runtime::{clock::Clock, deliver::RETURNED, guards::Guards, internal::CallFacts, snapshots::Snapshots, subject};

use super::count::Turns;
use crate::{anchors::Anchors, events::Announcer, lease::Leadership, policy::Rollout};

/// How long core waits for its own watch when the sender has seen a change a moment earlier.
const CATCH_UP: Duration = Duration::from_secs(1);

/// Core's gate in front of the ledger.
pub struct Gate {
    /// The ledger.
    pub ledger: Ledger,
    /// Views of the Orgs as core sees them.
    pub snapshots: Arc<Snapshots>,
    /// Guards and webhook configurations as they are.
    pub guards: Arc<Guards>,
    /// The lease, with its epoch.
    pub leadership: Leadership,
    /// API client, for the live read of an Approval.
    pub client: Client,
    /// Which chains reach their anchors.
    pub anchors: Anchors,
    /// Tells people what they must notice.
    pub events: Arc<Announcer>,
    /// Counts what Policies that are not enforced would have done.
    pub rollout: Arc<Rollout>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who counts where at present.
    pub turns: Turns,
}

impl Gate {
    /// Epoch of this leader.
    pub fn epoch(&self) -> i64 {
        self.leadership.epoch
    }

    /// Checks and begins. Committed when it returns Ok. `facts` are needed where the action counts (`Snapshot::may_count`).
    ///
    /// # Errors
    /// As [`Refused`] says; nothing was written. `Contended` also when what was counted meanwhile changes the verdict.
    pub async fn begin(&self, mut begin: Begin, facts: Option<&CallFacts>) -> Result<Begun, Refused> {
        self.enforced()?;
        let Views { decided, current } = self.view(&begin.subject).await?;
        Box::pin(self.anchors.hold(&begin.subject.org)).await?;
        let approvals = self.check_approvals(&begin.subject, &current).await?;
        begin.consume = approvals.consume;
        begin.charges = charges(&current, &begin.reserve);
        begin.read = Vec::new();
        let durability = durability(&current);
        // A stored call is told of on its own object.
        let tool = has_no_object(&begin.subject).then(|| tool_of(&begin.subject, &current)).flatten();
        let tool = tool.map(|tool| (begin.subject.id.clone(), tool));
        let advised = Rollout::of(&begin.subject);
        let begun = match counting(&decided, &begin.subject, facts)? {
            Some(facts) => Box::pin(self.begin_counted(&decided, begin, facts, &approvals.rules, durability)).await?,
            None => Box::pin(self.ledger.begin_as(self.epoch(), begin, durability)).await?,
        };
        if let Some((id, tool)) = tool {
            self.events.begun(&id, tool);
        }
        if !begun.again {
            self.rollout.note(advised, begun.seq, self.clock.now());
        }
        Ok(begun)
    }

    /// Checks and holds a reservation for a call that waits.
    ///
    /// # Errors
    /// As [`Refused`] says; nothing was written.
    pub async fn hold(&self, mut hold: Hold, facts: Option<&CallFacts>) -> Result<Held, Refused> {
        self.enforced()?;
        let Views { decided, current } = self.view(&hold.subject).await?;
        Box::pin(self.anchors.hold(&hold.subject.org)).await?;
        hold.charges = charges(&current, &hold.reserve);
        let advised = Rollout::of(&hold.subject);
        let held = match counting(&decided, &hold.subject, facts)? {
            Some(facts) => Box::pin(self.hold_counted(&decided, hold, facts)).await?,
            None => self.ledger.hold(self.epoch(), hold).await?,
        };
        if !held.again {
            self.rollout.note(advised, held.seq, self.clock.now());
        }
        Ok(held)
    }

    /// Ends an action, or a part of it.
    ///
    /// # Errors
    /// As [`Refused`] says; nothing was written.
    pub async fn settle(&self, mut settle: Settle) -> Result<Settled, Refused> {
        // What a tool returned and nobody may see leaves only its keyed digest.
        if let Some(returned) = settle.facts.remove(RETURNED) {
            let digest = self.digest(&settle.org, &returned).await?;
            settle.facts.insert(RETURNED.to_owned(), serde_json::json!(digest));
        }
        let view = self.snapshots.get(&settle.org.name).ok().filter(|view| view.org_uid() == settle.org.uid);
        let durability = view.map_or(Durability::Durable, |view| durability(&view));
        let end = self.events.end_of(&settle);
        let settled = self.ledger.settle_as(self.epoch(), settle, durability).await?;
        if let Some(end) = end {
            self.events.ended(end);
        }
        Ok(settled)
    }

    /// Gives a hold back.
    ///
    /// # Errors
    /// As [`Refused`] says; nothing was written.
    pub async fn release(&self, release: Release) -> Result<i64, Refused> {
        self.ledger.release(self.epoch(), release).await
    }

    /// Records something that reserves nothing.
    ///
    /// # Errors
    /// As [`Refused`] says; nothing was written.
    pub async fn note(&self, note: Note) -> Result<i64, Refused> {
        self.ledger.note(self.epoch(), note).await
    }

    /// Nothing starts unless the lease is certainly ours and admission is enforced.
    fn enforced(&self) -> Result<(), Refused> {
        if !self.leadership.is_valid() {
            return Err(Refused::Fenced { epoch: self.leadership.epoch, current: self.leadership.epoch + 1 });
        }
        self.guards.enforced().map_err(|what| Refused::AdmissionNotEnforced { what })
    }

    /// The current view, if the one that decided is it or was it until a moment ago. An Org that has closed since takes nothing more,
    /// however fresh the decision.
    async fn view(&self, subject: &Subject) -> Result<Views, Refused> {
        let stale = || Refused::StaleSnapshot { digest: subject.snapshot.clone() };
        let known = self.snapshots.find_within(&subject.org.uid, &subject.snapshot, CATCH_UP).await;
        let current = self.snapshots.get(&subject.org.name).map_err(|_| stale())?;
        if current.org_uid() != subject.org.uid || current.is_open().is_err() {
            return Err(stale());
        }
        known.map(|decided| Views { decided, current }).ok_or_else(stale)
    }

    /// The view that decided, if core may take it.
    pub(super) async fn decided(&self, subject: &Subject) -> Result<Arc<Snapshot>, Refused> {
        self.view(subject).await.map(|views| views.decided)
    }

    /// Reads each Approval that the verdict rests on, live.
    async fn check_approvals(&self, subject: &Subject, snapshot: &Snapshot) -> Result<Approvals, Refused> {
        let mut given = Approvals::default();
        if subject.verdict.approvals.is_empty() {
            return Ok(given);
        }
        let mismatch = |what: String| Refused::ApprovalMismatch { what };
        let api: Api<Approval> = Api::namespaced(self.client.clone(), snapshot.namespace());
        let list =
            api.list(&ListParams::default()).await.map_err(|e| Refused::LedgerUnavailable { what: format!("reading Approvals: {e}") })?;
        for uid in &subject.verdict.approvals {
            let approval =
                list.iter().find(|a| a.uid().as_deref() == Some(uid)).ok_or_else(|| mismatch(format!("no Approval of uid {uid}")))?;
            self.check_approval(approval, subject).await?;
            given.consume.push(format!("approval/{uid}"));
            given.rules.extend(approval.spec.requirements.iter().map(|r| r.rule.clone()));
        }
        Ok(given)
    }

    async fn check_approval(&self, approval: &Approval, subject: &Subject) -> Result<(), Refused> {
        let name = approval.name_any();
        let mismatch = |what: &str| Refused::ApprovalMismatch { what: format!("Approval {name} {what}") };
        if approval.status.as_ref().and_then(|s| s.phase) != Some(ApprovalPhase::Approved) {
            return Err(mismatch("is not approved"));
        }
        if approval.spec.action.call_uid != subject.id {
            return Err(mismatch("is for another call"));
        }
        let caller = Caller { username: subject.actor.username.clone(), ..Caller::default() };
        let text =
            subject::approval_text(&subject.verb, &subject.target, &subject.input, &caller, subject.dims.get("task").map(String::as_str));
        let digest = self.digest(&subject.org, &text).await?;
        if digest.digest != approval.spec.digest.digest || digest.key_id != approval.spec.digest.key_id {
            return Err(mismatch("was given for something else: tool, input, caller or task differ"));
        }
        Ok(())
    }

    /// Keyed digest of a JSON value under the Org's key.
    ///
    /// # Errors
    /// The value has no canonical form, or the ledger cannot read its key.
    pub async fn digest(&self, org: &polity_ledger::OrgId, value: &serde_json::Value) -> Result<polity_ledger::KeyedDigest, Refused> {
        let text = polity_ledger::canonical(value).map_err(|e| Refused::Invalid { what: e.to_string() })?;
        self.ledger.digest(org, &text).await
    }
}

/// Whether the id is one that an edge made for this caller, and not an object's uid.
fn has_no_object(subject: &Subject) -> bool {
    polity_gateway::is_call_id(&subject.id, &subject.org.uid, &subject.actor.username)
}

/// The Tool that is acted on.
fn tool_of(subject: &Subject, snapshot: &Snapshot) -> Option<ObjectReference> {
    let Target { kind, namespace, name, digest } = &subject.target;
    let mut tools = snapshot.path().iter().filter_map(|org| snapshot.tool(name, Some(org)));
    let tool = tools.find(|tool| tool.namespace == *namespace && tool.digest == *digest).filter(|_| kind == "Tool")?;
    Some(ObjectReference {
        api_version: Some(format!("{}/{}", polity_api::GROUP, polity_api::VERSION)),
        kind: Some(kind.clone()),
        namespace: Some(namespace.clone()),
        name: Some(name.clone()),
        uid: Some(tool.uid.clone()),
        ..ObjectReference::default()
    })
}

/// The view that decided, and the present one.
struct Views {
    decided: Arc<Snapshot>,
    current: Arc<Snapshot>,
}

/// What Approvals give a start.
#[derive(Default)]
struct Approvals {
    /// Single-use keys that it consumes.
    consume: Vec<String>,
    /// Rules that they satisfy.
    rules: Vec<String>,
}

/// The facts of an action that counts; None: it counts nowhere.
fn counting<'a>(decided: &Snapshot, subject: &Subject, facts: Option<&'a CallFacts>) -> Result<Option<&'a CallFacts>, Refused> {
    if !decided.may_count(&subject.target.namespace, &subject.target.name) {
        return Ok(None);
    }
    match facts {
        Some(facts) if facts.caller.username == subject.actor.username => Ok(Some(facts)),
        _ => Err(Refused::Invalid { what: "the action counts, and the facts of its caller are missing or another's".to_owned() }),
    }
}

/// The Org's explicit choice.
fn durability(snapshot: &Snapshot) -> Durability {
    if snapshot.relaxed() { Durability::Relaxed } else { Durability::Durable }
}

/// Counters that an action of this Org is charged to: its own budgets and every ancestor's.
fn charges(snapshot: &Snapshot, reserve: &polity_ledger::Amounts) -> Vec<Charge> {
    snapshot
        .budgets()
        .iter()
        .filter(|limit| reserve.contains_key(limit.unit))
        .map(|limit| Charge {
            counter: CounterKey {
                unit: limit.unit.to_owned(),
                window: Window::Seconds(limit.window),
                dims: BTreeMap::from([("org".to_owned(), limit.org_uid.clone())]),
            },
            max: Some(limit.max),
            owner: format!("budget of Org {} per {} s", limit.org, limit.window),
        })
        .collect()
}

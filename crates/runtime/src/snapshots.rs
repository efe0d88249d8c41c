//! The present view of every Org, swapped as a whole, and how old it may be. Who asks gets a view that is fresh, or a refusal.
//!
//! Never answers from a view that the API server has not confirmed within 30 s, and never from one that is overdue for a rebuild.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use polity_api::reasons;
use polity_policy::{Snapshot, World};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::{
    changes::{Announcer, Changes},
    pulse::Pulse,
    world_feed::homes,
};

/// Oldest proof of life, and longest time that core takes a superseded view.
pub const MAX_AGE: Duration = Duration::from_secs(30);

/// Why there is no view to decide by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFresh {
    /// The first full list of a kind is not there yet.
    #[error("the first list of {0} is not there yet")]
    NotSynced(&'static str),
    /// The API server has been silent for too long.
    #[error("the API server has said nothing about {kind} for {seconds} s")]
    Silent {
        /// The kind.
        kind: &'static str,
        /// For how long.
        seconds: u64,
    },
    /// A change has been waiting for its rebuild for too long.
    #[error("changes wait for their rebuild for {0} s")]
    Behind(u64),
    /// No such Org, or its view could not be built.
    #[error("no view of an Org {0}")]
    NoView(String),
}

impl NotFresh {
    /// The stable reason code.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoView(_) => reasons::ORG_NOT_READY,
            _ => reasons::POLICY_STALE,
        }
    }
}

/// What is published at one moment.
#[derive(Debug, Default)]
struct Published {
    views: HashMap<String, Arc<Snapshot>>,
    homes: BTreeMap<String, String>,
    /// (Org uid, digest) of superseded views, since when.
    superseded: HashMap<(String, String), (Arc<Snapshot>, Instant)>,
    /// Name by uid.
    names: HashMap<String, String>,
}

/// Views by Org.
#[derive(Debug)]
pub struct Snapshots {
    published: ArcSwap<Published>,
    /// Pulses of the kinds that decisions rest on.
    pulses: Vec<(&'static str, Arc<Pulse>)>,
    /// Since when a change waits for its rebuild.
    waiting: Mutex<Option<Instant>>,
    announcer: Announcer<String>,
    turns: watch::Sender<u64>,
}

impl Snapshots {
    pub(crate) fn new(pulses: Vec<(&'static str, Arc<Pulse>)>) -> Arc<Self> {
        Arc::new(Self {
            published: ArcSwap::default(),
            pulses,
            waiting: Mutex::default(),
            announcer: Announcer::default(),
            turns: watch::Sender::new(0),
        })
    }

    /// The view of an Org to decide by.
    ///
    /// # Errors
    /// When there is none, or it may be out of date.
    pub fn get(&self, org: &str) -> Result<Arc<Snapshot>, NotFresh> {
        self.fresh()?;
        self.published.load().views.get(org).cloned().ok_or_else(|| NotFresh::NoView(org.to_owned()))
    }

    /// The Org that a namespace belongs to: by `Org.status.namespace` and the namespace's own uid, never by a label.
    #[must_use]
    pub fn by_namespace(&self, namespace: &str) -> Option<String> {
        self.published.load().homes.get(namespace).cloned()
    }

    /// Whether views may be used at present. For readiness.
    ///
    /// # Errors
    /// Why not.
    pub fn fresh(&self) -> Result<(), NotFresh> {
        for (kind, pulse) in &self.pulses {
            if !pulse.synced() {
                return Err(NotFresh::NotSynced(kind));
            }
            match pulse.age() {
                Some(age) if age <= MAX_AGE => {}
                age => return Err(NotFresh::Silent { kind, seconds: age.unwrap_or_default().as_secs() }),
            }
        }
        // Until the first publication after the lists there is nothing to decide by.
        if !self.pulses.is_empty() && *self.turns.borrow() == 0 {
            return Err(NotFresh::NotSynced("views"));
        }
        let waiting = *self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.map(|since| since.elapsed()) {
            Some(behind) if behind > MAX_AGE => Err(NotFresh::Behind(behind.as_secs())),
            _ => Ok(()),
        }
    }

    /// Age of the oldest proof of life; None before every kind has one.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.pulses.iter().map(|(_, pulse)| pulse.age()).collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// Age of the proof of life of each kind; None: never.
    pub(crate) fn ages(&self) -> impl Iterator<Item = (&'static str, Option<Duration>)> + '_ {
        self.pulses.iter().map(|(kind, pulse)| (*kind, pulse.age()))
    }

    /// Names of Orgs whose view became another one (or went away), beginning with every present one.
    pub fn changes(&self) -> Changes<String> {
        // Subscribed first: what is published in between is told twice rather than never.
        let mut changes = self.announcer.subscribe([]);
        let present = self.published.load().views.keys().cloned().collect::<Vec<_>>();
        changes.fill(present);
        changes
    }

    /// The view that a digest names, if core may take it: the Org's current one, or one superseded at most 30 s ago. None also
    /// while our own view is not fresh, and for an Org that is gone.
    #[must_use]
    pub fn find(&self, org_uid: &str, digest: &str) -> Option<Arc<Snapshot>> {
        if self.fresh().is_err() || digest.is_empty() {
            return None;
        }
        let published = self.published.load();
        let current = published.names.get(org_uid).and_then(|name| published.views.get(name))?;
        if current.digest() == digest {
            return Some(current.clone());
        }
        let (view, since) = published.superseded.get(&(org_uid.to_owned(), digest.to_owned()))?;
        (since.elapsed() <= MAX_AGE).then(|| view.clone())
    }

    /// Whether core may take a decision by that digest; see `find`.
    #[must_use]
    pub fn accepts(&self, org_uid: &str, digest: &str) -> bool {
        self.find(org_uid, digest).is_some()
    }

    /// `find`, waiting up to `patience` for our own watch to catch up: the sender may have seen a change a moment before us.
    pub async fn find_within(&self, org_uid: &str, digest: &str, patience: Duration) -> Option<Arc<Snapshot>> {
        let mut turns = self.turns.subscribe();
        let search = async {
            loop {
                turns.borrow_and_update();
                if let Some(view) = self.find(org_uid, digest) {
                    return Some(view);
                }
                turns.changed().await.ok()?;
            }
        };
        timeout(patience, search).await.ok().flatten()
    }

    pub(crate) fn pulses(&self) -> impl Iterator<Item = &Arc<Pulse>> {
        self.pulses.iter().map(|(_, pulse)| pulse)
    }

    /// Orgs with a view.
    #[must_use]
    pub fn orgs(&self) -> Vec<String> {
        self.published.load().views.keys().cloned().collect()
    }

    /// Notes that a change waits for its rebuild, and since when.
    pub(crate) fn note_waiting(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
    }

    /// What waited has been published; `since`: what has come in the meantime waits since then at the latest.
    pub(crate) fn settle_waiting(&self, since: Option<Instant>) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Puts `rebuilt` in force; an Org with None has no view any more. `turn` is the number of the World's state they show.
    pub(crate) fn publish(&self, world: &World, rebuilt: BTreeMap<String, Option<Arc<Snapshot>>>, turn: u64) {
        let old = self.published.load();
        let mut next =
            Published { views: old.views.clone(), homes: homes(world), superseded: old.superseded.clone(), names: HashMap::new() };
        next.superseded.retain(|_, (_, since)| since.elapsed() <= MAX_AGE);
        let mut changed = BTreeSet::new();
        for (org, view) in rebuilt {
            let before = match view {
                Some(view) => next.views.insert(org.clone(), view),
                None => next.views.remove(&org),
            };
            let after = next.views.get(&org);
            if before.as_ref().map(|v| v.digest()) == after.map(|v| v.digest()) {
                continue;
            }
            if let Some(before) = before {
                next.superseded.insert((before.org_uid().to_owned(), before.digest().to_owned()), (before, Instant::now()));
            }
            changed.insert(org);
        }
        next.names = next.views.iter().map(|(name, view)| (view.org_uid().to_owned(), name.clone())).collect();
        self.published.store(Arc::new(next));
        self.turns.send_modify(|t| *t = turn.max(1));
        self.announcer.tell(changed);
    }

    /// Waits until a state of the World at least that late has been published.
    pub(crate) async fn until_turn(&self, turn: u64) {
        let mut turns = self.turns.subscribe();
        // The sender lives in self, so that this cannot fail.
        let _ = turns.wait_for(|t| *t >= turn).await;
    }
}

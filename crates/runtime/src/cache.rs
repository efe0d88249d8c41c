//! What is cached of the cluster for decisions: the `World`, fed by watches of the policy-bearing kinds, and from it a view per
//! Org, rebuilt when something of that Org or of one above it changed. Tasks are kept beside.
//!
//! Never writes to the cluster. A rebuild that panics leaves its Org without a view, which denies; it never leaves the old one.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kube::Client;
use polity_api::{Agent, Org, Policy, Role, Task, Tool};
use polity_policy::{CompileCache, Snapshot, TaskFacts, World};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    missing::Missing,
    pulse::Pulse,
    snapshots::Snapshots,
    watch::{self, Event, Target},
    watched::Watched,
    world_feed::{self, Held, NamespaceMeta, Touched},
};

/// Wait before a rebuild that failed as a whole is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The cache of core, and of each edge replica.
pub struct Cache {
    state: Mutex<State>,
    changed: Notify,
    snapshots: Arc<Snapshots>,
    tasks: Arc<Watched<Task>>,
    tools_pulse: Arc<Pulse>,
    compiled: CompileCache,
    missing: Option<Missing>,
}

#[derive(Default)]
struct State {
    /// Copied only when a rebuild still reads the last one.
    world: Arc<World>,
    dirty: BTreeSet<String>,
    all_dirty: bool,
    /// Counts changes of the World.
    turn: u64,
}

impl Cache {
    /// Starts to watch and to rebuild, until cancelled. Views are refused until every kind has been listed once.
    pub fn start(client: Client, cancel: &CancellationToken) -> Arc<Self> {
        let [orgs, roles, policies, agents, tools, namespaces] = std::array::from_fn(|_| Arc::new(Pulse::default()));
        let tasks = Watched::start(client.clone(), Target::all(), cancel.clone());
        let pulses = vec![
            (Org::KIND, orgs.clone()),
            (Role::KIND, roles.clone()),
            (Policy::KIND, policies.clone()),
            (Agent::KIND, agents.clone()),
            (Tool::KIND, tools.clone()),
            (NamespaceMeta::KIND, namespaces.clone()),
            ("Task", tasks.pulse().clone()),
        ];
        let cache = Arc::new(Self::assemble(Snapshots::new(pulses), tasks, tools.clone(), Some(Missing::new(client.clone()))));
        cache.feed::<Org>(client.clone(), Target::all(), orgs, cancel);
        cache.feed::<Role>(client.clone(), Target::all(), roles, cancel);
        cache.feed::<Policy>(client.clone(), Target::all(), policies, cancel);
        cache.feed::<Agent>(client.clone(), Target::all(), agents, cancel);
        cache.feed::<Tool>(client.clone(), Target::all(), tools, cancel);
        cache.feed::<NamespaceMeta>(client, Target::all().metadata_only(), namespaces, cancel);
        let (rebuilt, cancel) = (cache.clone(), cancel.clone());
        tokio::spawn(async move { cancel.run_until_cancelled(rebuilt.keep_rebuilding()).await });
        cache
    }

    /// A cache that shows one `World` and never changes: for tests, and for tools without a cluster. Always fresh.
    #[must_use]
    pub fn fixed(world: World) -> Arc<Self> {
        let cache = Arc::new(Self::assemble(Snapshots::new(Vec::new()), Watched::empty(), Arc::default(), None));
        cache.change(|state| {
            state.world = Arc::new(world);
            state.all_dirty = true;
        });
        cache.rebuild();
        cache
    }

    fn assemble(snapshots: Arc<Snapshots>, tasks: Arc<Watched<Task>>, tools_pulse: Arc<Pulse>, missing: Option<Missing>) -> Self {
        let compiled = CompileCache::default();
        Self { state: Mutex::default(), changed: Notify::new(), snapshots, tasks, tools_pulse, compiled, missing }
    }

    /// Views of the Orgs.
    #[must_use]
    pub fn snapshots(&self) -> &Arc<Snapshots> {
        &self.snapshots
    }

    /// The cached objects as they are now.
    #[must_use]
    pub fn world(&self) -> Arc<World> {
        self.lock().world.clone()
    }

    /// Tasks.
    #[must_use]
    pub fn tasks(&self) -> &Arc<Watched<Task>> {
        &self.tasks
    }

    /// What decisions know of a Task, from the cache.
    #[must_use]
    pub fn task(&self, namespace: &str, name: &str) -> Option<TaskFacts> {
        self.tasks.get(namespace, name).map(|task| task_facts(&task))
    }

    /// A Task, fetched live when the cache lacks it: its maker may have created it a moment ago. None: there is none, or it
    /// could not be fetched within 200 ms. Callers deny `TaskNotFound` then.
    pub async fn fetch_missing_task(&self, namespace: &str, name: &str) -> Option<TaskFacts> {
        if let Some(task) = self.task(namespace, name) {
            return Some(task);
        }
        let task = self.missing.as_ref()?.task(namespace, name).await?;
        Some(task_facts(&task))
    }

    /// Looks live for a Tool that the cache lacks; true when it is in the views from now on: decide again.
    pub async fn fetch_missing_tool(&self, namespace: &str, name: &str) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        let Some(missing) = &self.missing else { return false };
        if self.world().tools.contains_key(&key) {
            return true;
        }
        let Some(tool) = missing.tool(namespace, name).await else { return false };
        let turn = {
            let mut state = self.lock();
            // Absent although the watch has passed its version: deleted since.
            let version = tool.metadata.resource_version.as_deref().unwrap_or_default();
            if !state.world.tools.contains_key(&key) && self.tools_pulse.passed(version) {
                return false;
            }
            if !state.world.tools.contains_key(&key) {
                let item = watch::Item { namespace: key.0, name: key.1, object: Ok(tool) };
                self.apply(&mut state, Event::Applied(item));
            }
            state.turn
        };
        tokio::time::timeout(crate::missing::PATIENCE, self.snapshots.until_turn(turn)).await.is_ok()
    }

    fn feed<K>(self: &Arc<Self>, client: Client, target: Target<K>, pulse: Arc<Pulse>, cancel: &CancellationToken)
    where
        K: Held + serde::de::DeserializeOwned,
    {
        let cache = self.clone();
        let sink = move |event| cache.take::<K>(event);
        tokio::spawn(watch::run(client, target, pulse, sink, cancel.clone()));
    }

    /// Takes over what a watch told.
    pub(crate) fn take<K: Held>(&self, event: Event<K>) {
        self.apply(&mut self.lock(), event);
    }

    fn apply<K: Held>(&self, state: &mut State, event: Event<K>) {
        let listed = matches!(event, Event::Listed(_));
        match world_feed::apply(Arc::make_mut(&mut state.world), event) {
            Some(Touched::All) => state.all_dirty = true,
            Some(Touched::Orgs(orgs)) => state.dirty.extend(orgs),
            // A list without anything new also has to reach the rebuild: it may be the last one that was waited for.
            None if listed => {}
            None => return,
        }
        state.turn += 1;
        self.snapshots.note_waiting();
        self.changed.notify_one();
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        state.turn += 1;
    }

    async fn keep_rebuilding(self: Arc<Self>) {
        // Before every kind is there a view would lack Policies. Nothing is lost by waiting: changes pile up as dirty Orgs.
        for pulse in self.snapshots.pulses() {
            pulse.until_synced().await;
        }
        self.lock().all_dirty = true;
        loop {
            let cache = self.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || cache.rebuild()).await {
                // The change still counts as waiting: if this goes on, `Snapshots` refuses every view.
                tracing::error!(%error, "rebuilding views failed");
                self.lock().all_dirty = true;
                tokio::time::sleep(RETRY).await;
                continue;
            }
            self.changed.notified().await;
        }
    }

    /// Rebuilds every Org that something changed for.
    fn rebuild(&self) {
        let began = Instant::now();
        let (world, dirty, turn) = {
            let mut state = self.lock();
            let mut dirty = std::mem::take(&mut state.dirty);
            if std::mem::take(&mut state.all_dirty) {
                dirty.extend(state.world.orgs.keys().cloned());
                dirty.extend(self.snapshots.orgs());
            }
            (state.world.clone(), dirty, state.turn)
        };
        let dirty = world_feed::with_descendants(&world, &dirty);
        let count = dirty.len();
        let rebuilt: BTreeMap<String, Option<Arc<Snapshot>>> =
            dirty.into_iter().map(|org| (org.clone(), self.build(&world, &org))).collect();
        self.snapshots.publish(&world, rebuilt, turn);
        let state = self.lock();
        self.snapshots.settle_waiting((state.turn != turn).then_some(began));
        drop(state);
        tracing::debug!(orgs = count, us = began.elapsed().as_micros() as u64, "views rebuilt");
    }

    fn build(&self, world: &World, org: &str) -> Option<Arc<Snapshot>> {
        if !world.orgs.contains_key(org) {
            return None;
        }
        let built = catch_unwind(AssertUnwindSafe(|| Snapshot::build_with(world, org, &self.compiled)));
        if built.is_err() {
            tracing::error!(org, "building the view panicked; calls of the Org are denied");
        }
        built.ok().map(Arc::new)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What decisions know of a Task.
#[must_use]
pub fn task_facts(task: &Task) -> TaskFacts {
    TaskFacts {
        name: task.metadata.name.clone().unwrap_or_default(),
        uid: task.metadata.uid.clone().unwrap_or_default(),
        job_space: task.spec.job_space.clone(),
        cancel: task.spec.cancel || task.metadata.deletion_timestamp.is_some(),
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;

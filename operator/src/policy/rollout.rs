//! What Policies in Warn or Observe would have done: counted by version of the Policy over the last 24 h, for their status.
//!
//! The ledger's records are the only store: what begins is noted here as it is committed, and a core that starts reads the same from the records
//! again. Nothing is counted that has no record, and nothing here decides.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use polity_api::policy::{Effect, Mode, Rollout as Shown, RolloutExample};
use polity_ledger::{Actor, Advised, Ledger, OrgId, Record, Refused, Subject, Target, Verdict, record::kind};
use polity_runtime::CancellationToken;
use prometheus::{IntCounterVec, Opts, Registry};

use crate::{
    context::Context,
    engine::{Key, queue::Queue},
};

/// The figures of a Policy are written at most this often.
pub const EVERY: SignedDuration = SignedDuration::from_secs(10);
/// Calls count for so long.
const WINDOW: SignedDuration = SignedDuration::from_hours(24);
/// Calls that are shown one by one.
const EXAMPLES: usize = 5;
/// Most records of a chain that a core which starts looks at; what is older is not counted, and `since` says so.
const LOOK_BACK: i64 = 200_000;
/// Records that are looked at in one read.
const PIECE: i64 = 10_000;
/// Versions of Policies that are counted; more are not.
const MAX_TALLIES: usize = 20_000;
/// Pause before a chain that could not be read is read again.
const AGAIN: Duration = Duration::from_secs(2);

/// A call that would have gone another way, as its record tells.
#[derive(Clone, Debug)]
pub struct Note {
    org: OrgId,
    agent: String,
    tool: String,
    advised: Vec<Advised>,
}

/// Calls of one minute: denied, asked, rewritten.
type Calls = [i64; 3];

/// What one version of a Policy would have done.
#[derive(Debug, Default)]
struct Tally {
    minutes: BTreeMap<i64, Calls>,
    /// The latest first.
    examples: VecDeque<RolloutExample>,
    /// There is something that is not shown yet.
    fresh: bool,
}

/// Figures as they are shown, and since when.
#[derive(Debug)]
struct Published {
    digest: String,
    at: Timestamp,
}

#[derive(Debug, Default)]
struct State {
    /// By Policy and digest of its spec.
    tallies: HashMap<(Key, String), Tally>,
    published: HashMap<Key, Published>,
    /// Records that were noted while chains are still read: Org and sequence. None: all have been read.
    early: Option<HashSet<(String, i64)>>,
    /// Sequence up to which a chain was read.
    read: HashMap<String, i64>,
    /// What is older was not looked at.
    from: Option<Timestamp>,
}

/// Counts what Policies that are not enforced would have done.
#[derive(Debug)]
pub struct Rollout {
    state: Mutex<State>,
    queue: OnceLock<Arc<Queue>>,
    calls: IntCounterVec,
}

impl Rollout {
    /// Nothing counted yet.
    ///
    /// # Errors
    /// Its metric is registered already.
    pub fn new(metrics: &Registry) -> prometheus::Result<Self> {
        let help = "Calls that a Policy in Warn or Observe would have denied, sent to people or rewritten, since this core began.";
        let calls = IntCounterVec::new(Opts::new("polity_policy_rollout_calls_total", help), &["namespace", "policy", "effect"])?;
        metrics.register(Box::new(calls.clone()))?;
        let state = State { early: Some(HashSet::new()), ..State::default() };
        Ok(Self { state: Mutex::new(state), queue: OnceLock::new(), calls })
    }

    /// Policies with new figures are put here.
    pub fn wakes(&self, queue: Arc<Queue>) {
        // the first context of a process is the only one
        let _ = self.queue.set(queue);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be noted of an action once it is committed. A start that rests on an Approval was counted when it was asked for.
    #[must_use]
    pub fn of(subject: &Subject) -> Option<Note> {
        note(&subject.org, &subject.verdict, Some(&subject.actor), Some(&subject.target))
    }

    /// Counts an action that was committed with this sequence in the chain of its Org.
    pub fn note(&self, note: Option<Note>, seq: i64, now: Timestamp) {
        let Some(note) = note else { return };
        let mut state = self.state();
        let read = state.read.get(&note.org.uid).is_some_and(|read| seq <= *read);
        if let Some(early) = &mut state.early
            && !read
        {
            early.insert((note.org.uid.clone(), seq));
        }
        if read {
            return;
        }
        for (key, effect) in state.count(&note, seq, now) {
            self.calls.with_label_values(&[&key.0, &key.1, &format!("{effect:?}")]).inc();
            if let Some(queue) = self.queue.get() {
                queue.add_after(key.clone(), state.wait(&key, now));
            }
        }
    }

    /// The figures of a Policy as they are to be shown, and when to come back for newer ones. `before` are those in its status, of the same version.
    pub fn figures(&self, key: &Key, digest: &str, before: Option<&Shown>, now: Timestamp) -> (Shown, Option<Duration>) {
        let mut state = self.state();
        state.tallies.retain(|(k, d), _| k != key || d == digest);
        if state.published.get(key).is_some_and(|p| p.digest != digest) {
            state.published.remove(key);
        }
        let zero = || Shown { since: Time(seconds(now)), calls: 0, denied: 0, asked: 0, rewritten: 0, examples: Vec::new() };
        let shown = before.cloned().unwrap_or_else(zero);
        let wait = state.wait(key, now);
        let (reading, from, first) = (state.early.is_some(), state.from, !state.published.contains_key(key));
        let Some(tally) = state.tallies.get_mut(&(key.clone(), digest.to_owned())).filter(|t| t.fresh) else { return (shown, None) };
        // what a chain that is still being read would add is not known
        if reading {
            return (shown, None);
        }
        // an earlier core has shown it
        if first && !shown.examples.is_empty() && shown.examples.first() == tally.examples.front() {
            tally.fresh = false;
            return (shown, None);
        }
        if !wait.is_zero() {
            return (shown, Some(wait));
        }
        tally.fresh = false;
        let new = tally.shown(&shown, from, now);
        if new == shown {
            return (shown, None);
        }
        state.published.insert(key.clone(), Published { digest: digest.to_owned(), at: now });
        (new, None)
    }

    /// The Policy is gone, or enforced.
    pub fn forget(&self, key: &Key) {
        let mut state = self.state();
        state.tallies.retain(|(k, _), _| k != key);
        state.published.remove(key);
        for effect in [Effect::Deny, Effect::RequireApproval, Effect::Rewrite] {
            // it has none where nothing was counted
            let _ = self.calls.remove_label_values(&[&key.0, &key.1, &format!("{effect:?}")]);
        }
    }

    /// Counts records of a chain that lie before this core.
    fn take(&self, org: &OrgId, records: &[Record], upto: i64, since: Timestamp) {
        let mut state = self.state();
        for record in records.iter().filter(|r| r.time >= since && matches!(r.kind.as_str(), kind::HOLD | kind::BEGIN)) {
            let noted = state.early.as_ref().is_some_and(|early| early.contains(&(org.uid.clone(), record.seq)));
            let verdict = record.verdict.as_ref().filter(|_| !noted);
            if let Some(note) = verdict.and_then(|v| note(&record.org, v, record.actor.as_ref(), record.target.as_ref())) {
                state.count(&note, record.seq, record.time);
            }
        }
        state.read.insert(org.uid.clone(), upto);
    }

    /// All chains have been read.
    fn ready(&self) {
        let mut state = self.state();
        state.early = None;
        if let Some(queue) = self.queue.get() {
            state.tallies.keys().for_each(|(key, _)| queue.add(key.clone()));
        }
    }
}

impl State {
    /// Counts a call for each Policy that would have done something to it: once, by the strongest effect.
    fn count(&mut self, note: &Note, seq: i64, at: Timestamp) -> Vec<(Key, Effect)> {
        let mut found: BTreeMap<(Key, &str), (Effect, &str)> = BTreeMap::new();
        for advised in &note.advised {
            let Some((key, rule)) = parts(&advised.rule) else { continue };
            let effect = match advised.effect.as_str() {
                "Deny" => Effect::Deny,
                "RequireApproval" => Effect::RequireApproval,
                "Rewrite" => Effect::Rewrite,
                // of a later version
                _ => continue,
            };
            let entry = found.entry((key, &advised.policy)).or_insert((effect, rule));
            if (effect as usize) < (entry.0 as usize) {
                *entry = (effect, rule);
            }
        }
        let mut counted = Vec::new();
        for ((key, digest), (effect, rule)) in found {
            let id = (key.clone(), digest.to_owned());
            if self.tallies.len() >= MAX_TALLIES && !self.tallies.contains_key(&id) {
                continue;
            }
            let tally = self.tallies.entry(id).or_default();
            let example = RolloutExample {
                rule: rule.to_owned(),
                effect,
                agent: note.agent.clone(),
                tool: note.tool.clone(),
                at: Time(seconds(at)),
                org: note.org.name.clone(),
                record: seq,
            };
            tally.add(example, at);
            counted.push((key, effect));
        }
        counted
    }

    /// How long the figures of a Policy must wait before they are written again.
    fn wait(&self, key: &Key, now: Timestamp) -> Duration {
        let Some(published) = self.published.get(key) else { return Duration::ZERO };
        let passed = now.duration_since(published.at);
        // a clock that was set back delays nothing for long
        if passed.is_negative() || passed >= EVERY { Duration::ZERO } else { (EVERY - passed).unsigned_abs() }
    }
}

impl Tally {
    fn add(&mut self, example: RolloutExample, at: Timestamp) {
        let minute = at.as_second().div_euclid(60);
        if let Some(calls) = self.minutes.entry(minute).or_default().get_mut(example.effect as usize) {
            *calls += 1;
        }
        let oldest = minute - WINDOW.as_mins();
        self.minutes = self.minutes.split_off(&oldest);
        let place = self.examples.iter().take_while(|e| e.at.0 > example.at.0).count();
        self.examples.insert(place, example);
        self.examples.truncate(EXAMPLES);
        self.fresh = true;
    }

    /// Figures since the later of what was shown before and the beginning of the window.
    fn shown(&self, before: &Shown, from: Option<Timestamp>, now: Timestamp) -> Shown {
        let window = now.checked_sub(WINDOW).unwrap_or(Timestamp::MIN);
        let since = [Some(before.since.0), Some(window), from].into_iter().flatten().max().unwrap_or(before.since.0);
        let since = seconds(since);
        let mut sum: Calls = [0; 3];
        for calls in self.minutes.range(since.as_second().div_euclid(60)..).map(|(_, calls)| calls) {
            sum.iter_mut().zip(calls).for_each(|(sum, calls)| *sum += calls);
        }
        let [denied, asked, rewritten] = sum;
        let examples = self.examples.iter().filter(|e| e.at.0 >= since).cloned().collect();
        Shown { since: Time(since), calls: denied + asked + rewritten, denied, asked, rewritten, examples }
    }
}

/// What a record says of rules that are not enforced; None: nothing, or the action did not go on, or it was counted when it was held.
fn note(org: &OrgId, verdict: &Verdict, actor: Option<&Actor>, target: Option<&Target>) -> Option<Note> {
    if verdict.advisory.is_empty() || verdict.effect == "Deny" || !verdict.approvals.is_empty() {
        return None;
    }
    Some(Note {
        org: org.clone(),
        agent: actor.map(|a| a.agent.clone()).unwrap_or_default(),
        tool: target.map(|t| format!("{}/{}", t.namespace, t.name)).unwrap_or_default(),
        advised: verdict.advisory.clone(),
    })
}

/// Times in a status have no more than seconds.
fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// Policy and name of a rule; without a name for the Policy as a whole.
fn parts(rule: &str) -> Option<(Key, &str)> {
    let (namespace, rest) = rule.split_once('/')?;
    let (policy, rule) = rest.split_once('/').unwrap_or((rest, ""));
    Some(((namespace.to_owned(), policy.to_owned()), rule))
}

/// Counts what was recorded before this core began, where a Policy asks for it. Ends when all chains have been read.
pub async fn recount(ctx: Arc<Context>, ledger: Ledger, stop: CancellationToken) {
    if stop.run_until_cancelled(ctx.cluster.policies.wait_ready()).await.is_none() {
        return;
    }
    // without such a Policy there is nothing to show; what comes later is noted as it begins
    if ctx.cluster.policies.all().iter().any(|p| p.spec.mode != Mode::Enforce) {
        let now = ctx.now();
        while let Err(error) = chains(&ctx.rollout, &ledger, now).await {
            tracing::warn!(%error, "counting what Policies would have done failed");
            if stop.run_until_cancelled(tokio::time::sleep(AGAIN)).await.is_none() {
                return;
            }
        }
    }
    ctx.rollout.ready();
}

async fn chains(rollout: &Rollout, ledger: &Ledger, now: Timestamp) -> Result<(), Refused> {
    let since = now.checked_sub(WINDOW).unwrap_or(Timestamp::MIN);
    for org in ledger.orgs().await? {
        if rollout.state().read.contains_key(&org.uid) {
            continue;
        }
        let Some(head) = ledger.head(&org).await? else { continue };
        let mut after = (head.seq - LOOK_BACK).max(0);
        if let Some(oldest) = ledger.export(&org, after + 1, 1).await?.first().filter(|r| after > 0 && r.time > since) {
            let mut state = rollout.state();
            state.from = state.from.max(Some(oldest.time));
        }
        let mut found = Vec::new();
        while after < head.seq {
            let (records, upto) = ledger.advised(&org, after, PIECE.min(head.seq - after)).await?;
            found.extend(records);
            if upto <= after {
                break;
            }
            after = upto;
        }
        rollout.take(&org, &found, head.seq, since);
    }
    Ok(())
}

#[cfg(test)]
#[path = "rollout_tests.rs"]
mod tests;

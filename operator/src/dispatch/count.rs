//! What an action counts, and what it is decided by: counters of Policies and the history of Tasks. Core reads and charges them, by the view that decided and
//! never by a sender's word, and decides once more before it lets the action begin or be held.
//!
//! Whoever begins or holds something that counts waits for the turn of its counters, so that between reading and committing nobody adds to them; what is
//! given back meanwhile the ledger notices by their versions. Without a rule that counts, nothing here runs.

use std::collections::BTreeSet;

use polity_ledger::{Begin, Begun, Charge, CounterKey, CounterValue, Durability, Held, Hold, Idempotency, Refused, State, Subject, Window};
use polity_policy::{Counting, Decision, Known, Past, Place, Request, Snapshot, Verdict};
use polity_runtime::internal::{CallFacts, PastRequest};
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};

use super::gate::Gate;

/// How often an action is decided again because counters were settled between reading and committing.
const TRIES: u32 = 32;
/// Number of turns. Counters that share one wait for each other, which costs time and nothing else.
const STRIPES: usize = 256;

/// One turn for each of many groups of counters.
pub struct Turns([Mutex<()>; STRIPES]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(())))
    }
}

impl Turns {
    /// Waits for the turns of these counters, always in the same order, so that no two wait for each other.
    async fn take(&self, keys: impl Iterator<Item = &CounterKey>) -> Vec<MutexGuard<'_, ()>> {
        let groups: BTreeSet<usize> = keys.map(group).collect();
        let mut taken = Vec::with_capacity(groups.len());
        for turn in groups.into_iter().filter_map(|group| self.0.get(group)) {
            taken.push(turn.lock().await);
        }
        taken
    }
}

/// The group of a counter (FNV-1a over its name).
fn group(key: &CounterKey) -> usize {
    let text = [&key.unit].into_iter().chain(key.dims.iter().flat_map(|(name, value)| [name, value]));
    let hash = text
        .flat_map(|t| t.bytes().chain([0]))
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    usize::try_from(hash % STRIPES as u64).unwrap_or_default()
}

/// What an action counts, as the ledger names it.
struct Counted {
    counting: Counting,
    /// What rules read, in the order of `counting.asked`.
    asked: Vec<CounterKey>,
    charges: Vec<Charge>,
}

/// A decision by what counters stand at.
struct Again {
    decision: Decision,
    /// The counters as read.
    read: Vec<CounterValue>,
    /// The same for the record.
    past: Option<polity_ledger::Past>,
}

impl Gate {
    /// What rules are told of calls before an action.
    ///
    /// # Errors
    /// The view that decided is not current, the same request was made before (`IdempotencyReplay`), or the ledger cannot be read.
    pub async fn past(&self, request: &PastRequest) -> Result<Known, Refused> {
        let PastRequest { subject, facts, idempotency } = request;
        if let Some(id) = self.replayed(subject, idempotency.as_ref()).await? {
            return Err(Refused::IdempotencyReplay { id });
        }
        let view = self.decided(subject).await?;
        let decision = view.decide_stored(&self.request(&view, subject, facts, &[], Past::Unknown));
        self.past_of(subject, &decision.counting).await
    }

    /// Another action that was the same request: its outcome stands, whatever was counted since.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn replayed(&self, subject: &Subject, idempotency: Option<&Idempotency>) -> Result<Option<String>, Refused> {
        let Some(key) = idempotency else { return Ok(None) };
        let id = self.ledger.replayed(&subject.org, &subject.actor.username, &subject.verb, key).await?;
        Ok(id.filter(|id| *id != subject.id))
    }

    /// The same for an action of which it is known what it counts.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn past_of(&self, subject: &Subject, counting: &Counting) -> Result<Known, Refused> {
        let counted = self.counted(subject, counting.clone()).await?;
        Ok(self.read(subject, &counted).await?.0)
    }

    /// Begins an action that counts, if the rules still allow it by what the counters stand at now.
    pub(super) async fn begin_counted(
        &self,
        view: &Snapshot,
        begin: Begin,
        facts: &CallFacts,
        approved: &[String],
        durability: Durability,
    ) -> Result<Begun, Refused> {
        let subject = begin.subject.clone();
        // What has begun is answered as it was: what others have counted since changes nothing of it.
        if self.ledger.attempt(&subject.org, &subject.id).await?.is_some_and(|a| a.state != State::Held) {
            return self.ledger.begin_as(self.epoch(), begin, durability).await;
        }
        let counted = self.first(view, &subject, facts, approved).await?;
        let _turn = self.turn(&counted).await;
        for _ in 0..TRIES {
            let Again { decision, read, past } = self.again(view, &subject, facts, approved, &counted).await?;
            if decision.verdict != Verdict::Allow {
                return Err(Refused::Contended);
            }
            let mut begin = Begin { read, ..begin.clone() };
            begin.subject.past = past;
            begin.charges.extend(counted.charges.iter().cloned());
            begin.reserve.extend(counted.amounts());
            match self.ledger.begin_as(self.epoch(), begin, durability).await {
                Err(Refused::Contended) => {}
                answer => return answer,
            }
        }
        Err(Refused::Contended)
    }

    /// Holds the reservation of a call that waits for people, and what it counts.
    pub(super) async fn hold_counted(&self, view: &Snapshot, mut hold: Hold, facts: &CallFacts) -> Result<Held, Refused> {
        let subject = hold.subject.clone();
        if self.ledger.attempt(&subject.org, &subject.id).await?.is_some() {
            return self.ledger.hold(self.epoch(), hold).await;
        }
        let counted = self.first(view, &subject, facts, &[]).await?;
        let _turn = self.turn(&counted).await;
        let Again { decision, past, .. } = self.again(view, &subject, facts, &[], &counted).await?;
        if decision.verdict != Verdict::RequireApproval {
            return Err(Refused::Contended);
        }
        hold.charges.extend(counted.charges.iter().cloned());
        hold.reserve.extend(counted.amounts());
        hold.subject.past = past;
        self.ledger.hold(self.epoch(), hold).await
    }

    /// What an action counts, by the view that decided.
    async fn first(&self, view: &Snapshot, subject: &Subject, facts: &CallFacts, approved: &[String]) -> Result<Counted, Refused> {
        let decision = view.decide_stored(&self.request(view, subject, facts, approved, Past::Unknown));
        self.counted(subject, decision.counting).await
    }

    async fn turn(&self, counted: &Counted) -> Vec<MutexGuard<'_, ()>> {
        self.turns.take(counted.asked.iter().chain(counted.charges.iter().map(|c| &c.counter))).await
    }

    /// Decides by what the counters stand at.
    async fn again(
        &self,
        view: &Snapshot,
        subject: &Subject,
        facts: &CallFacts,
        approved: &[String],
        counted: &Counted,
    ) -> Result<Again, Refused> {
        let (known, read) = self.read(subject, counted).await?;
        let decision = view.decide_stored(&self.request(view, subject, facts, approved, Past::Known(&known)));
        Ok(Again { decision, read, past: polity_runtime::subject::past(&counted.counting, &known) })
    }

    async fn read(&self, subject: &Subject, counted: &Counted) -> Result<(Known, Vec<CounterValue>), Refused> {
        if counted.asked.is_empty() {
            return Ok((Known::default(), Vec::new()));
        }
        let read = self.ledger.counters_before(&subject.org, &subject.id, counted.asked.clone()).await?;
        let values: Vec<i64> = read.iter().map(|v| v.used.saturating_add(v.reserved)).collect();
        Ok((counted.counting.known(&values), read))
    }

    /// Names the counters as the ledger does.
    async fn counted(&self, subject: &Subject, counting: Counting) -> Result<Counted, Refused> {
        let places = || counting.asked.iter().map(|a| &a.place).chain(counting.tallies.iter().map(|t| &t.place));
        // Only a keyed digest of an input is ever kept.
        let input = match places().any(|p| p.by_input) {
            true => {
                let text = json!({"namespace": subject.target.namespace, "tool": subject.target.name, "input": subject.input});
                self.digest(&subject.org, &text).await?.digest
            }
            false => String::new(),
        };
        let asked = counting.asked.iter().map(|a| key(&a.place, &input)).collect();
        let charge = |place: &Place| Charge { counter: key(place, &input), max: None, owner: String::new() };
        let charges = counting.tallies.iter().map(|t| charge(&t.place)).collect();
        Ok(Counted { asked, charges, counting })
    }

    fn request<'a>(
        &self,
        view: &'a Snapshot,
        subject: &'a Subject,
        facts: &'a CallFacts,
        approved: &'a [String],
        past: Past<'a>,
    ) -> Request<'a> {
        Request {
            verb: &subject.verb,
            tool: &subject.target.name,
            tool_org: view.tool_org(&subject.target.namespace, &subject.target.name),
            args: &subject.input,
            caller: &facts.caller,
            task: facts.task.as_ref(),
            job_space: facts.job_space.as_deref(),
            context: subject.dims.get("context").map(String::as_str),
            id: &subject.id,
            approved,
            now: self.clock.now(),
            past,
        }
    }
}

impl Counted {
    /// What it reserves, by unit: each counter of a Policy, each label and the number of calls has a unit of its own.
    fn amounts(&self) -> impl Iterator<Item = (String, i64)> {
        self.counting.tallies.iter().map(|t| (t.place.unit.clone(), t.amount))
    }
}

fn key(place: &Place, input: &str) -> CounterKey {
    let mut dims = place.dims.clone();
    dims.insert("org".to_owned(), place.org_uid.clone());
    if place.by_input {
        dims.insert("input".to_owned(), input.to_owned());
    }
    let window = if place.window > 0 { Window::Seconds(place.window) } else { Window::Total };
    CounterKey { unit: place.unit.clone(), window, dims }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(unit: &str, agent: &str) -> CounterKey {
        CounterKey { unit: unit.to_owned(), window: Window::Total, dims: [("agent".to_owned(), agent.to_owned())].into() }
    }

    #[tokio::test]
    async fn the_same_counter_has_one_turn_and_the_order_of_names_is_no_trap() {
        let turns = Turns::default();
        let (a, b) = (key("count/rule/a/p/x", "a/bot"), key("count/rule/a/p/y", "a/bot"));
        assert_ne!(group(&a), group(&b));
        let held = turns.take([&a, &b, &a].into_iter()).await;
        assert_eq!(held.len(), 2);
        assert!(futures::poll!(Box::pin(turns.take([&b].into_iter()))).is_pending());
        let (mut one, mut two) = (Box::pin(turns.take([&a, &b].into_iter())), Box::pin(turns.take([&b, &a].into_iter())));
        assert!(futures::poll!(&mut one).is_pending() && futures::poll!(&mut two).is_pending());
        drop(held);
        drop(one.await);
        assert_eq!(two.await.len(), 2);
    }
}

//! Which worker Pods of an AI Agent to make and which to delete.
//!
//! A worker that ended is kept until its replacement is due: it is the memory of how often its place failed in a row, so that
//! the backoff survives restarts of core and needs no write. The plan never asks for more workers than wanted, nor takes more than
//! one ready worker away in a roll-out.

use jiff::{SignedDuration, Timestamp};

/// A worker that lived this long did not crash.
const STABLE: SignedDuration = SignedDuration::from_mins(10);
/// First and longest wait before a replacement.
const BACKOFF_SECONDS: (i64, i64) = (10, 300);
/// From so many ends in a row on it is called a crash loop.
const LOOP: u32 = 2;

/// One worker Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Name of the Pod.
    pub name: String,
    /// Digest of the template that it was made from.
    pub template: String,
    /// How often its place had failed in a row when it was made.
    pub attempt: u32,
    /// When it was made.
    pub created: Timestamp,
    /// Ready.
    pub ready: bool,
    /// When its container ended, if it has.
    pub ended: Option<Timestamp>,
    /// Being deleted.
    pub terminating: bool,
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Number of workers.
    pub replicas: usize,
    /// Digest of the present template.
    pub template: &'a str,
    /// Present time.
    pub now: Timestamp,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Workers to make, each with its attempt.
    pub create: Vec<u32>,
    /// Names of Pods to delete, before any is made.
    pub delete: Vec<String>,
    /// Worst crash loop: number of ends in a row, and the worker.
    pub crashing: Option<(u32, String)>,
    /// When the plan changes by itself.
    pub again: Option<Timestamp>,
}

/// Ends in a row, once `worker` has ended.
fn failures(worker: &Worker, ended: Timestamp) -> u32 {
    if ended.duration_since(worker.created) >= STABLE { 0 } else { worker.attempt.saturating_add(1) }
}

/// When the place of a worker that ended may be filled again.
fn due(failures: u32, ended: Timestamp) -> Timestamp {
    let (first, longest) = BACKOFF_SECONDS;
    let wait = match failures {
        0 => 0,
        n => first.saturating_mul(1 << (n - 1).min(8)).min(longest),
    };
    ended.saturating_add(SignedDuration::from_secs(wait)).unwrap_or(ended)
}

/// Makes the plan.
#[must_use]
pub fn plan(wanted: &Wanted<'_>, workers: &[Worker]) -> Plan {
    let mut plan = Plan::default();
    let mut soon = |at: Timestamp| plan.again = Some(plan.again.map_or(at, |old| old.min(at)));
    let (mut waiting, mut running, mut refill) = (Vec::new(), Vec::new(), Vec::new());
    for worker in workers.iter().filter(|w| !w.terminating) {
        match worker.ended {
            // A new template may well mend what ended: no waiting.
            Some(_) if worker.template != wanted.template => plan.delete.push(worker.name.clone()),
            Some(ended) => {
                let failures = failures(worker, ended);
                let due = due(failures, ended);
                if due <= wanted.now {
                    plan.delete.push(worker.name.clone());
                    refill.push(failures);
                } else {
                    soon(due);
                    waiting.push((failures, worker));
                }
            }
            None => {
                let stable = worker.created.saturating_add(STABLE).unwrap_or(worker.created);
                if worker.attempt >= LOOP && stable > wanted.now {
                    soon(stable);
                }
                running.push(worker);
            }
        }
    }
    let looping = |w: &Worker| w.attempt >= LOOP && wanted.now.duration_since(w.created) < STABLE;
    plan.crashing = waiting
        .iter()
        .filter(|(n, _)| *n >= LOOP)
        .map(|(n, w)| (*n, w.name.clone()))
        .chain(running.iter().filter(|w| looping(w)).map(|w| (w.attempt, w.name.clone())))
        .max();
    if wanted.replicas == 0 {
        plan.crashing = None;
    }
    shrink(wanted, &mut plan, &mut waiting, &mut running);
    roll_out(wanted, &mut plan, &mut running);
    let missing = wanted.replicas.saturating_sub(waiting.len() + running.len());
    refill.sort_unstable();
    plan.create = refill.into_iter().rev().chain(std::iter::repeat(0)).take(missing).collect();
    plan.delete.sort();
    if wanted.replicas == 0 {
        plan.again = None;
    }
    plan
}

/// Takes away what is too much: the ended first, then those not ready, then old templates, then the youngest.
fn shrink(wanted: &Wanted<'_>, plan: &mut Plan, waiting: &mut Vec<(u32, &Worker)>, running: &mut Vec<&Worker>) {
    running.sort_by_key(|w| (w.ready, w.template == wanted.template, std::cmp::Reverse(w.created), w.name.clone()));
    while waiting.len() + running.len() > wanted.replicas {
        let gone = if waiting.is_empty() { running.remove(0) } else { waiting.remove(0).1 };
        plan.delete.push(gone.name.clone());
    }
}

/// Replaces workers of an old template: those not ready at once, ready ones one at a time and only while all others are ready.
fn roll_out(wanted: &Wanted<'_>, plan: &mut Plan, running: &mut Vec<&Worker>) {
    let ready = running.iter().filter(|w| w.ready).count();
    let mut may_take_ready = ready >= wanted.replicas;
    running.retain(|w| {
        let old = w.template != wanted.template;
        let take = old && (!w.ready || std::mem::take(&mut may_take_ready));
        if take {
            plan.delete.push(w.name.clone());
        }
        !take
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }
    fn worker(name: &str, template: &str, ready: bool) -> Worker {
        Worker { name: name.to_owned(), template: template.to_owned(), attempt: 0, created: at(0), ready, ended: None, terminating: false }
    }
    fn wanted(replicas: usize, now: i64) -> Wanted<'static> {
        Wanted { replicas, template: "new", now: at(now) }
    }

    #[test]
    fn scales_up_and_down_not_ready_first() {
        assert_eq!(plan(&wanted(2, 0), &[]).create, [0, 0]);
        let workers = [worker("a", "new", true), worker("b", "new", false), worker("c", "new", true)];
        let p = plan(&wanted(2, 1), &workers);
        assert_eq!((p.create.len(), p.delete), (0, vec!["b".to_owned()]));
        assert_eq!(plan(&wanted(0, 1), &workers).delete, ["a", "b", "c"]);
    }

    #[test]
    fn rolls_out_one_ready_worker_at_a_time() {
        let workers = [worker("a", "old", true), worker("b", "old", true), worker("c", "old", false)];
        let p = plan(&wanted(3, 1), &workers);
        assert_eq!((p.create.clone(), p.delete), (vec![0], vec!["c".to_owned()]), "one is not ready: the ready ones stay");
        let p = plan(&wanted(2, 1), &workers[..2]);
        assert_eq!((p.create, p.delete.len()), (vec![0], 1));
        let p = plan(&wanted(1, 1), &workers[..1]);
        assert_eq!((p.create, p.delete), (vec![0], vec!["a".to_owned()]));
    }

    #[test]
    fn backs_off_from_ten_seconds_to_five_minutes_and_forgets_after_a_stable_life() {
        let mut seconds = Vec::new();
        for attempt in 0..8 {
            let ended = Worker { ended: Some(at(5)), attempt, ..worker("a", "new", false) };
            let p = plan(&wanted(1, 5), std::slice::from_ref(&ended));
            assert!(p.create.is_empty() && p.delete.is_empty());
            let again = p.again.unwrap();
            seconds.push(again.duration_since(at(5)).as_secs());
            let later = Wanted { replicas: 1, template: "new", now: again };
            let p = plan(&later, &[ended]);
            assert_eq!((p.create, p.delete), (vec![attempt + 1], vec!["a".to_owned()]));
            assert_eq!(p.crashing, None, "the new one has not ended yet");
        }
        assert_eq!(seconds, [10, 20, 40, 80, 160, 300, 300, 300]);
        let long = Worker { ended: Some(at(700)), attempt: 7, ..worker("a", "new", false) };
        assert_eq!(plan(&wanted(1, 700), &[long]).create, [0]);
    }

    #[test]
    fn a_crash_loop_is_named_until_it_is_stable_and_a_new_template_starts_at_once() {
        let ended = Worker { ended: Some(at(5)), attempt: 3, ..worker("a", "new", false) };
        assert_eq!(plan(&wanted(1, 6), std::slice::from_ref(&ended)).crashing, Some((4, "a".to_owned())));
        let running = Worker { attempt: 4, ..worker("b", "new", true) };
        let p = plan(&wanted(1, 6), std::slice::from_ref(&running));
        assert_eq!((p.crashing, p.again), (Some((4, "b".to_owned())), Some(at(600))));
        assert_eq!(plan(&wanted(1, 600), &[running]).crashing, None);
        let old = Worker { template: "old".to_owned(), ..ended };
        let p = plan(&wanted(1, 6), &[old]);
        assert_eq!((p.create, p.delete, p.crashing), (vec![0], vec!["a".to_owned()], None));
    }

    fn any_worker() -> impl Strategy<Value = Worker> {
        (any::<bool>(), 0..5_u32, 0..900_i64, any::<bool>(), prop::option::of(0..900_i64), prop::bool::weighted(0.1)).prop_map(
            |(new, attempt, created, ready, life, terminating)| Worker {
                name: String::new(),
                template: if new { "new" } else { "old" }.to_owned(),
                attempt,
                created: at(created),
                ready: ready && life.is_none(),
                ended: life.map(|l| at(created + l)),
                terminating,
            },
        )
    }

    proptest! {
        #[test]
        fn never_too_many_never_two_ready_ones_taken_and_settles(mut workers in prop::collection::vec(any_worker(), 0..9), replicas in 0..6_usize, now in 900..2000_i64) {
            for (i, w) in workers.iter_mut().enumerate() {
                w.name = format!("w{i}");
            }
            let p = plan(&wanted(replicas, now), &workers);
            let kept: Vec<_> = workers.iter().filter(|w| !w.terminating && !p.delete.contains(&w.name)).cloned().collect();
            prop_assert!(kept.len() + p.create.len() <= replicas.max(kept.len()));
            prop_assert_eq!(kept.len() + p.create.len(), replicas);
            prop_assert!(p.delete.iter().all(|n| workers.iter().any(|w| w.name == *n && !w.terminating)));
            let ready = |list: &[Worker]| list.iter().filter(|w| w.ready && !w.terminating).count();
            prop_assert!(ready(&kept) >= ready(&workers).min(replicas).saturating_sub(1));
            prop_assert!(p.again.is_none_or(|again| again > at(now)), "never a busy loop");
            // Carried out and asked again at once, there is nothing to do.
            let mut after = kept;
            after.extend(p.create.iter().enumerate().map(|(i, attempt)| Worker { name: format!("n{i}"), attempt: *attempt, created: at(now), ..worker("", "new", false) }));
            let again = plan(&wanted(replicas, now), &after);
            if ready(&after) < replicas || after.iter().all(|w| w.template == "new") {
                prop_assert!(again.create.is_empty() && again.delete.is_empty(), "{:?}", again);
            }
        }
    }
}

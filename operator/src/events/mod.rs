//! Kubernetes Events (`events.k8s.io/v1`) for what somebody must notice: a stored call that was denied, failed, or whose outcome is unknown or not what
//! was claimed; an Approval that is asked for or has expired; an Org or Agent that stalls.
//!
//! Best effort: nothing waits for an Event and nothing is decided by one; the ledger and the conditions say everything. Nothing is told twice, nothing
//! from before this core began, and nothing at rest. Of a call without an object only an outcome that is not what was claimed is told, on its Tool.

mod told;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Client, Resource,
    runtime::events::{Recorder, Reporter},
};
use polity_api::{Approval, ToolCall, names};
use polity_ledger::Settle;
use polity_runtime::CancellationToken;
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::{sync::mpsc, time::timeout};

use self::told::Told;

/// Events that wait to be written; more are dropped.
const QUEUE: usize = 256;
/// Time between two writes: at most twenty a second.
const PACE: Duration = Duration::from_millis(50);
/// Longest wait for the API server.
const PATIENCE: Duration = Duration::from_secs(5);
/// What was told is remembered for so many objects; then the oldest is forgotten.
const REMEMBERED: usize = 10_000;
/// Times in a status have no more than seconds.
const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// Uid of an object and reason → when it came to that.
type Known = HashMap<(String, String), Timestamp>;

/// The end of a call without an object, to be told of once it is committed.
pub struct End {
    id: String,
    told: Option<Told>,
}

/// Tells what somebody must notice.
pub struct Announcer {
    send: mpsc::Sender<Told>,
    /// Whatever came about before is not told: an earlier core has done that.
    since: Timestamp,
    known: Mutex<Known>,
    /// Tools of calls without an object that have begun here.
    under_way: Mutex<HashMap<String, ObjectReference>>,
    written: IntCounterVec,
}

impl Announcer {
    /// Starts to write, as this instance of core, until told to stop.
    ///
    /// # Errors
    /// Its metric is registered already.
    pub fn start(
        client: Client,
        instance: &str,
        now: Timestamp,
        metrics: &Registry,
        stop: CancellationToken,
    ) -> prometheus::Result<Arc<Self>> {
        let reporter = Reporter { controller: format!("{}/{}", polity_api::GROUP, names::CORE), instance: Some(instance.to_owned()) };
        let recorder = Recorder::new(client, reporter);
        let (announcer, queue) = Self::new(now)?;
        metrics.register(Box::new(announcer.written.clone()))?;
        let written = announcer.written.clone();
        tokio::spawn(async move { stop.run_until_cancelled(write(recorder, queue, written)).await });
        Ok(Arc::new(announcer))
    }

    fn new(now: Timestamp) -> prometheus::Result<(Self, mpsc::Receiver<Told>)> {
        let written = IntCounterVec::new(Opts::new("polity_events_total", "Kubernetes Events by what became of them."), &["result"])?;
        let (send, queue) = mpsc::channel(QUEUE);
        Ok((Self { send, since: now, known: Mutex::default(), under_way: Mutex::default(), written }, queue))
    }

    /// What a stored call has come to.
    pub fn call(&self, call: &ToolCall) {
        self.tell(told::of_call(call));
    }

    /// What an Approval has come to.
    pub fn approval(&self, approval: &Approval) {
        self.tell(told::of_approval(approval));
    }

    /// Whether an object waits for somebody to change something.
    pub fn stalled<K: Resource<DynamicType = ()>>(&self, object: &K, conditions: &[Condition]) {
        self.tell(told::of_stalled(object, conditions));
    }

    /// A call without an object has begun with this Tool.
    pub fn begun(&self, id: &str, tool: ObjectReference) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        // Calls whose end does not pass here any more: what would be told of them is lost, and no more.
        if under_way.len() >= REMEMBERED {
            under_way.clear();
        }
        under_way.insert(id.to_owned(), tool);
    }

    /// What is to be told once this settlement is committed: a call without an object whose outcome is not what was claimed, on its Tool.
    pub fn end_of(&self, settle: &Settle) -> Option<End> {
        let tool = self.under_way.lock().unwrap_or_else(PoisonError::into_inner).get(&settle.id).cloned()?;
        settle.last.then(|| End { id: settle.id.clone(), told: told::of_end(settle, tool) })
    }

    /// That settlement is committed.
    pub fn ended(&self, end: End) {
        // Whoever takes it out tells it: the same settlement sent again is told once.
        if self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&end.id).is_some()
            && let Some(told) = end.told
        {
            self.put(told);
        }
    }

    fn tell(&self, told: Option<(Told, Timestamp)>) {
        let Some((told, at)) = told else { return };
        if at.duration_since(self.since) >= -SECOND && self.is_new(&told, at) {
            self.put(told);
        }
    }

    fn put(&self, told: Told) {
        if self.send.try_send(told).is_err() {
            self.written.with_label_values(&["dropped"]).inc();
        }
    }

    fn is_new(&self, told: &Told, at: Timestamp) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (told.regarding.uid.clone().unwrap_or_default(), told.event.reason.clone());
        if known.get(&key).is_some_and(|before| *before >= at) {
            return false;
        }
        if known.len() >= REMEMBERED
            && let Some(oldest) = known.iter().min_by_key(|(_, at)| **at).map(|(key, _)| key.clone())
        {
            known.remove(&oldest);
        }
        known.insert(key, at);
        true
    }
}

/// Writes what comes, one after the other. The recorder makes a series of what is told of an object again.
async fn write(recorder: Recorder, mut queue: mpsc::Receiver<Told>, written: IntCounterVec) {
    while let Some(told) = queue.recv().await {
        let result = match timeout(PATIENCE, recorder.publish(&told.event, &told.regarding)).await {
            Ok(Ok(())) => "written",
            Ok(Err(error)) => {
                tracing::debug!(%error, reason = told.event.reason, object = ?told.regarding.name, "an Event was not written");
                "failed"
            }
            Err(_) => "failed",
        };
        written.with_label_values(&[result]).inc();
        tokio::time::sleep(PACE).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn denied(uid: &str, at: &str) -> ToolCall {
        let status = json!({
            "phase": "Denied",
            "conditions": [{"type": "Succeeded", "status": "False", "reason": "PolicyDenied", "message": "no", "lastTransitionTime": at}]
        });
        serde_json::from_value(json!({
            "apiVersion": "polity.dev/v1alpha1", "kind": "ToolCall", "metadata": {"name": "c", "namespace": "acme", "uid": uid},
            "spec": {"tool": {"name": "pay"}}, "status": status
        }))
        .unwrap()
    }

    #[test]
    fn once_and_nothing_of_old() {
        let (announcer, mut queue) = Announcer::new("2026-11-21T10:00:00.7Z".parse().unwrap()).unwrap();
        announcer.call(&denied("a", "2026-11-21T09:59:59Z"));
        assert!(queue.try_recv().is_err(), "from before this core began");
        for _ in 0..3 {
            announcer.call(&denied("a", "2026-11-21T10:00:00Z"));
        }
        assert_eq!(queue.try_recv().unwrap().event.reason, "PolicyDenied");
        assert!(queue.try_recv().is_err(), "told once");
        announcer.call(&denied("a", "2026-11-21T10:05:00Z"));
        announcer.call(&denied("b", "2026-11-21T10:00:00Z"));
        assert!(queue.try_recv().is_ok() && queue.try_recv().is_ok(), "again, and of another");
    }

    #[test]
    fn nobody_waits_for_an_event() {
        let (announcer, mut queue) = Announcer::new(Timestamp::UNIX_EPOCH).unwrap();
        for i in 0..QUEUE + 7 {
            announcer.call(&denied(&i.to_string(), "2026-11-21T10:00:00Z"));
        }
        assert_eq!(announcer.written.with_label_values(&["dropped"]).get(), 7);
        assert_eq!(std::iter::from_fn(|| queue.try_recv().ok()).count(), QUEUE);
    }
}

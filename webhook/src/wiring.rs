//! The server's needs met by the edge's cache, a Kubernetes client and the connection to core. Glue only: it decides nothing.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::api::authentication::v1::UserInfo;
use kube::Client;
use polity_api::reasons;
use polity_ledger::Note;
use polity_policy::{Snapshot, TaskFacts, World};
use polity_runtime::{
    CancellationToken,
    access::{self, Access, Subject},
    cache::Cache,
    core_client::CoreClient,
};
use tokio::sync::mpsc;

use crate::{
    metrics::Metrics,
    state::{Attempts, Cluster, Permission, Unavailable, Views},
};

impl Views for Cache {
    fn of_namespace(&self, namespace: &str) -> Result<Arc<Snapshot>, Unavailable> {
        let views = self.snapshots();
        let refuse = |reason, message| Err(Unavailable { reason, message });
        // What is stale must not say that there is no Org.
        if let Err(e) = views.fresh() {
            return refuse(e.reason(), e.to_string());
        }
        let Some(org) = views.by_namespace(namespace) else {
            return refuse(
                reasons::ORG_NOT_READY,
                format!("namespace {namespace:?} belongs to no Org, or its Org is not ready; calls are made in an Org's namespace"),
            );
        };
        views.get(&org).or_else(|e| refuse(e.reason(), e.to_string()))
    }

    fn world(&self) -> Arc<World> {
        self.world()
    }
}

/// Questions to the API server by this client, with the cache in front.
pub struct Live {
    client: Client,
    cache: Arc<Cache>,
}

impl Live {
    /// Asks with this client.
    #[must_use]
    pub fn new(client: Client, cache: Arc<Cache>) -> Self {
        Self { client, cache }
    }
}

impl Cluster for Live {
    fn may<'a>(&'a self, user: &'a UserInfo, permission: &'a Permission) -> BoxFuture<'a, Result<bool, Unavailable>> {
        async move {
            let subject = Subject {
                username: user.username.clone().unwrap_or_default(),
                uid: user.uid.clone(),
                groups: user.groups.clone().unwrap_or_default(),
                extra: user.extra.clone().unwrap_or_default(),
            };
            let wanted = Access {
                verb: permission.verb,
                group: permission.group,
                resource: permission.resource,
                subresource: None,
                namespace: Some(&permission.namespace),
                name: Some(&permission.name),
            };
            let answer = access::allowed(&self.client, &subject, wanted).await;
            answer.map_err(|e| Unavailable {
                reason: reasons::ADMISSION_FAILED,
                message: format!("cannot find out whether {:?} may: {e}", subject.username),
            })
        }
        .boxed()
    }

    fn task<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Option<TaskFacts>, Unavailable>> {
        async move { Ok(self.cache.fetch_missing_task(namespace, name).await) }.boxed()
    }

    fn tool_appeared<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, bool> {
        self.cache.fetch_missing_tool(namespace, name).boxed()
    }
}

/// Notes waiting to be sent; more are dropped and counted.
const WAITING: usize = 1024;
/// Longest that one note may take; core may be away for long, and then notes are dropped.
const PATIENCE: Duration = Duration::from_secs(2);

/// Hands notes of refused calls to core, in the background.
pub struct Recorder {
    queue: mpsc::Sender<Note>,
    metrics: Metrics,
}

impl Recorder {
    /// Sends to core until cancelled.
    #[must_use]
    pub fn start(core: Arc<CoreClient>, metrics: Metrics, cancel: CancellationToken) -> Arc<Self> {
        let send = move |note: Note| {
            let core = core.clone();
            async move { core.note(&note).await.map(drop).map_err(|e| e.to_string()) }.boxed()
        };
        Self::start_with(WAITING, send, metrics, cancel)
    }

    fn start_with(
        waiting: usize,
        send: impl Fn(Note) -> BoxFuture<'static, Result<(), String>> + Send + Sync + 'static,
        metrics: Metrics,
        cancel: CancellationToken,
    ) -> Arc<Self> {
        let (queue, mut notes) = mpsc::channel::<Note>(waiting);
        let counted = metrics.clone();
        let work = async move {
            while let Some(note) = notes.recv().await {
                let failed = match tokio::time::timeout(PATIENCE, send(note)).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(e)) => e,
                    Err(_elapsed) => "no answer in time".to_owned(),
                };
                tracing::debug!(error = failed, "note of a refused call dropped");
                counted.attempt_dropped();
            }
        };
        tokio::spawn(async move { cancel.run_until_cancelled(work).await });
        Arc::new(Self { queue, metrics })
    }
}

impl Attempts for Recorder {
    fn take(&self, note: Note) {
        if self.queue.try_send(note).is_err() {
            self.metrics.attempt_dropped();
        }
    }
}

#[cfg(test)]
mod tests {
    use polity_ledger::OrgId;
    use tokio::sync::Semaphore;

    use super::*;

    fn note(n: usize) -> Note {
        Note {
            kind: "attempt".to_owned(),
            org: OrgId::default(),
            once: None,
            subject: None,
            actor: None,
            target: None,
            reason: n.to_string(),
            facts: [].into(),
        }
    }

    #[tokio::test]
    async fn drops_rather_than_waits() {
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let (sent, mut got) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(0));
        let closed = gate.clone();
        let send = move |note: Note| {
            let (sent, gate) = (sent.clone(), closed.clone());
            async move {
                gate.acquire().await.map_err(|e| e.to_string())?.forget();
                if note.reason == "1" {
                    return Err("core is away".to_owned());
                }
                sent.send(note.reason).map_err(|e| e.to_string())
            }
            .boxed()
        };
        let recorder = Recorder::start_with(2, send, metrics.clone(), CancellationToken::new());
        for n in 0..5 {
            recorder.take(note(n)); // never awaits: the worker has not run yet
        }
        assert_eq!(metrics.attempts_dropped(), 3, "two wait, the rest is dropped");
        gate.add_permits(2);
        assert_eq!(got.recv().await.as_deref(), Some("0"));
        recorder.take(note(9));
        gate.add_permits(1);
        assert_eq!(got.recv().await.as_deref(), Some("9"), "a failure does not stop the rest");
        assert_eq!(metrics.attempts_dropped(), 4);
    }
}

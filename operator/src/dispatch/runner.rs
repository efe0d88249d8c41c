//! Runs of container tools: a Pod that cannot start, the ledger's `begin`, then leave to start.
//!
//! The Pod is made first, with a scheduling gate, so that it exists but cannot run; `begin` is committed; only then the gate is
//! removed. After a crash each state therefore has one meaning: a gated Pod never ran, a Pod that is gone after `begin` was
//! taken away and may have run. Nothing here opens a connection to a tool: its shim fetches input and posts the result.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodSchedulingGate};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use polity_ledger::{Attempt, Begin, Begun, OrgId, Refused, State};
use polity_runtime::{
    internal::{CallFacts, ShimInput, ShimPod, ShimResult},
    subject,
};
use tokio::sync::broadcast;

use super::{
    cancels::Cancels,
    gate::Gate,
    inputs::Inputs,
    outcome::{self, Run},
    pod::{self, ToolPod},
};
use crate::engine::queue::Queue;

/// Gate that keeps a tool's Pod from being scheduled before `begin`.
const GATE: &str = "polity.dev/begin";
/// Seconds a Pod may take beyond the tool's own time, to start and to report.
pub const GRACE_SECONDS: i64 = 60;
/// The kubelet ends a Pod only then, so that core sees why it waits when the time is over: the kubelet forgets.
const AFTER_DEADLINE_SECONDS: i64 = 15;
/// Executor name of runs that core looks after.
pub const EXECUTOR: &str = polity_api::names::CORE;

/// Why a run did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The gate or the ledger refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The API server refuses the Pod for now or for good (quota, admission); nothing has begun.
    #[error("the Pod was refused: {0}")]
    PodRefused(String),
    /// The API server cannot be reached or failed; nothing is known to have begun.
    #[error("making the Pod failed")]
    Api(#[source] kube::Error),
    /// Pods cannot run here.
    #[error("no node here can run Pods")]
    NoPodRuntime,
}

/// Settings of the runner.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Image that has the shim.
    pub image: String,
    /// Base URL of the edge, for shims.
    pub edge_url: String,
    /// Whether Pods can run here.
    pub pods: bool,
}

/// Starts, feeds and ends the Pods of container calls.
pub struct Runner {
    /// The gate in front of the ledger.
    pub gate: Arc<Gate>,
    /// Wishes to cancel what edges run.
    pub cancels: Cancels,
    client: Client,
    settings: Settings,
    ended: broadcast::Sender<String>,
    calls: Arc<Queue>,
    inputs: Inputs,
}

impl Runner {
    /// A runner. `calls` is the queue of ToolCalls, which hears of the end of their runs.
    #[must_use]
    pub fn new(gate: Arc<Gate>, client: Client, settings: Settings, calls: Arc<Queue>) -> Self {
        let (ended, cancels, inputs) = (broadcast::channel(4096).0, Cancels::default(), Inputs::default());
        Self { gate, cancels, client, settings, ended, calls, inputs }
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Makes the gated Pod, begins, and lets it start. Safe to call again after any failure.
    ///
    /// # Errors
    /// As [`StartError`] says. Nothing runs unless `begin` was committed.
    pub async fn start(&self, run: &Run, mut begin: Begin, facts: Option<&CallFacts>, now: Timestamp) -> Result<(Begun, Pod), StartError> {
        if !self.settings.pods {
            return Err(StartError::NoPodRuntime);
        }
        let pod = self.ensure_gated(run).await?;
        EXECUTOR.clone_into(&mut begin.executor);
        begin.deadline = now + SignedDuration::from_secs(i64::from(run.timeout_seconds) + GRACE_SECONDS);
        begin.resume = serde_json::to_value(run).map_err(|e| Refused::Invalid { what: e.to_string() })?;
        match self.gate.begin(begin, facts).await {
            Ok(begun) => {
                crate::killpoint::reached("call-begun");
                self.let_start(&run.namespace, &pod.name_any()).await.map_err(StartError::Api)?;
                Ok((begun, pod))
            }
            Err(refused) => {
                // A Pod that has begun under another attempt must stay; one that never will must go.
                if !matches!(
                    refused,
                    Refused::AlreadyExecuted { .. }
                        | Refused::LedgerUnavailable { .. }
                        | Refused::StaleSnapshot { .. }
                        | Refused::Contended
                ) {
                    self.delete(&run.namespace, &run.id, pod.uid()).await;
                }
                Err(refused.into())
            }
        }
    }

    /// The call's Pod, gated; an older one that does not carry this call's id is never touched.
    async fn ensure_gated(&self, run: &Run) -> Result<Pod, StartError> {
        let mut pod = pod::build(&ToolPod {
            org: &run.org.name,
            namespace: &run.namespace,
            id: &run.id,
            container: &run.container,
            timeout_seconds: run.timeout_seconds,
            grace_seconds: GRACE_SECONDS + AFTER_DEADLINE_SECONDS,
            shim_image: &self.settings.image,
            edge_url: &self.settings.edge_url,
            owner: run.call.as_ref().map(|(name, uid)| super::owner(name, uid)),
            trace: &run.trace,
        });
        if let Some(spec) = pod.spec.as_mut() {
            spec.scheduling_gates = Some(vec![PodSchedulingGate { name: GATE.to_owned() }]);
        }
        let api = self.pods(&run.namespace);
        match api.create(&PostParams::default(), &pod).await {
            Ok(pod) => {
                crate::killpoint::reached("call-pod-made");
                Ok(pod)
            }
            Err(kube::Error::Api(e)) if e.code == 409 => {
                let found = api.get(&subject::pod_name(&run.id)).await.map_err(StartError::Api)?;
                if found.labels().get(polity_api::names::LABEL_NAME) == Some(&run.id) {
                    Ok(found)
                } else {
                    Err(StartError::PodRefused(format!("a Pod named {} is in the way", found.name_any())))
                }
            }
            Err(kube::Error::Api(e)) if e.code == 403 || e.code == 422 || e.code == 404 => Err(StartError::PodRefused(e.message.clone())),
            Err(error) => Err(StartError::Api(error)),
        }
    }

    /// Removes the gate. A Pod whose gate is gone already is left alone.
    async fn let_start(&self, namespace: &str, name: &str) -> Result<(), kube::Error> {
        let patch = serde_json::json!({"spec": {"schedulingGates": [{"$patch": "delete", "name": GATE}]}});
        match self.pods(namespace).patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(e)) if e.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Deletes the call's Pod, only the one of that uid if given. Failure is left to the sweep.
    pub async fn delete(&self, namespace: &str, id: &str, uid: Option<String>) {
        let params = DeleteParams {
            preconditions: uid.map(|uid| Preconditions { uid: Some(uid), resource_version: None }),
            ..DeleteParams::default()
        };
        if let Err(error) = self.pods(namespace).delete(&subject::pod_name(id), &params).await
            && !matches!(&error, kube::Error::Api(e) if e.code == 404 || e.code == 409)
        {
            tracing::warn!(%namespace, call = id, %error, "deleting a tool's Pod failed; the sweep tries again");
        }
    }

    /// The input of a run, for the shim in its Pod.
    ///
    /// # Errors
    /// No such open run, or another Pod asks.
    pub async fn input(&self, id: &str, pod: &ShimPod, now: Timestamp) -> Result<ShimInput, ShimError> {
        let (attempt, run) = self.run_of(id, pod).await?;
        if attempt.state != State::Begun {
            return Err(ShimError::NotKnown);
        }
        if !self.inputs.give(id) {
            return Err(ShimError::NotKnown);
        }
        let deadline = attempt.deadline.min(now + SignedDuration::from_secs(i64::from(run.timeout_seconds)));
        Ok(ShimInput { input: run.input, deadline, trace: run.trace })
    }

    /// Takes what a shim posted, settles, and wakes who waits. The same again answers the same.
    ///
    /// # Errors
    /// No such run, another Pod, or the ledger cannot commit.
    pub async fn result(&self, id: &str, result: &ShimResult) -> Result<(), ShimError> {
        let (_, run) = self.run_of(id, &result.pod).await?;
        self.gate.settle(outcome::posted(&run, &result.output)).await?;
        crate::killpoint::reached("call-settled");
        self.over(&run);
        if run.call.is_none() {
            // With a ToolCall its controller does this, once the end is in the status.
            self.delete(&run.namespace, id, Some(result.pod.pod_uid.clone())).await;
        }
        Ok(())
    }

    /// The run, if this Pod is its Pod and it has begun.
    async fn run_of(&self, id: &str, pod: &ShimPod) -> Result<(Attempt, Run), ShimError> {
        let snapshots = &self.gate.snapshots;
        let org = snapshots.by_namespace(&pod.namespace).and_then(|org| snapshots.get(&org).ok()).ok_or(ShimError::NotKnown)?;
        let org = OrgId { name: org.org().to_owned(), uid: org.org_uid().to_owned() };
        let attempt = self.gate.ledger.attempt(&org, id).await?.ok_or(ShimError::NotKnown)?;
        if attempt.executor != EXECUTOR || matches!(attempt.state, State::Held | State::Released) {
            return Err(ShimError::NotKnown);
        }
        let run: Run = serde_json::from_value(attempt.resume.clone()).map_err(|_| ShimError::NotKnown)?;
        if run.namespace != pod.namespace || subject::pod_name(id) != pod.pod_name {
            return Err(ShimError::OtherPod);
        }
        let found = self.pods(&run.namespace).get_opt(&pod.pod_name).await.map_err(ShimError::Api)?.ok_or(ShimError::OtherPod)?;
        let ours = found.uid().as_deref() == Some(&pod.pod_uid)
            && found.labels().get(polity_api::names::LABEL_NAME).map(String::as_str) == Some(id);
        if ours { Ok((attempt, run)) } else { Err(ShimError::OtherPod) }
    }

    /// A run has ended: tells who waits, and has the end brought into its ToolCall.
    fn over(&self, run: &Run) {
        self.announce(&run.id);
        if let Some((name, _)) = &run.call {
            self.calls.add((run.namespace.clone(), name.clone()));
        }
    }

    /// Tells who waits that an attempt has ended.
    pub fn announce(&self, id: &str) {
        self.inputs.forget(id);
        // No receiver is no error: nobody waits.
        let _ = self.ended.send(id.to_owned());
    }

    /// Ends of attempts, by id.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<String> {
        self.ended.subscribe()
    }

    /// The attempt, as soon as it has ended or the time is over.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn wait(&self, org: &OrgId, id: &str, longest: Duration) -> Result<Option<Attempt>, Refused> {
        let mut ended = self.subscribe();
        let deadline = tokio::time::Instant::now() + longest;
        loop {
            let attempt = self.gate.ledger.attempt(org, id).await?;
            if attempt.as_ref().is_none_or(|a| matches!(a.state, State::Settled | State::Released)) {
                return Ok(attempt);
            }
            // A lagging receiver may have missed the end: look again.
            let news = async {
                while let Ok(which) = ended.recv().await {
                    if which == id {
                        break;
                    }
                }
            };
            if tokio::time::timeout_at(deadline, news).await.is_err() {
                return Ok(attempt);
            }
        }
    }

    /// Looks after one open attempt of core's: lets it start, or ends it when its Pod is gone, hopeless or late.
    ///
    /// # Errors
    /// The API server or the ledger failed; the next sweep tries again.
    pub async fn look_after(&self, attempt: &Attempt, now: Timestamp) -> Result<(), SweepError> {
        let Ok(run) = serde_json::from_value::<Run>(attempt.resume.clone()) else {
            tracing::error!(id = attempt.id, "an open attempt has no readable run: left to a person");
            return Ok(());
        };
        let name = subject::pod_name(&run.id);
        let pod = self.pods(&run.namespace).get_opt(&name).await?;
        let end = match &pod {
            None => Some("the tool's Pod is gone without a result"),
            Some(pod) if gated(pod) && now < attempt.deadline => {
                self.let_start(&run.namespace, &name).await?;
                None
            }
            Some(pod) if outcome::hopeless(pod) => Some("the tool's Pod ended without a result"),
            Some(pod) if outcome::no_image(pod, now) => Some("the tool's image cannot be got"),
            Some(_) if now >= attempt.deadline => Some("the tool's Pod took too long"),
            Some(_) => None,
        };
        if let Some(why) = end {
            let given = self.inputs.close(&run.id);
            self.gate.settle(outcome::lost(&run, pod.as_ref(), given, why)).await?;
            self.over(&run);
            self.delete(&run.namespace, &run.id, pod.and_then(|p| p.uid())).await;
        }
        Ok(())
    }

    /// Stops a call that core runs; the edges are told of any other that may be under way.
    ///
    /// # Errors
    /// The API server or the ledger failed; try again.
    pub async fn cancel_any(&self, org: &OrgId, key: &str) -> Result<(), SweepError> {
        match self.gate.ledger.attempt(org, key).await? {
            Some(attempt) if attempt.state == State::Begun && attempt.executor == EXECUTOR => self.cancel(&attempt).await,
            Some(attempt) if matches!(attempt.state, State::Settled | State::Released) => Ok(()),
            _ => {
                self.cancels.tell(key.to_owned());
                Ok(())
            }
        }
    }

    /// Stops a run: deletes its Pod and settles by what is known of it.
    ///
    /// # Errors
    /// The API server or the ledger failed; try again.
    pub async fn cancel(&self, attempt: &Attempt) -> Result<(), SweepError> {
        let Ok(run) = serde_json::from_value::<Run>(attempt.resume.clone()) else { return Ok(()) };
        let pod = self.pods(&run.namespace).get_opt(&subject::pod_name(&run.id)).await?;
        let given = self.inputs.close(&run.id);
        self.delete(&run.namespace, &run.id, pod.as_ref().and_then(ResourceExt::uid)).await;
        self.gate.settle(outcome::canceled(&run, pod.as_ref(), given)).await?;
        self.over(&run);
        Ok(())
    }
}

/// Whether a Pod still waits for `begin`.
#[must_use]
pub fn gated(pod: &Pod) -> bool {
    let gates = pod.spec.as_ref().and_then(|s| s.scheduling_gates.as_deref()).unwrap_or_default();
    gates.iter().any(|g| g.name == GATE)
}

/// Why a shim is not served.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// No such run has begun (yet).
    #[error("no run of this id has begun")]
    NotKnown,
    /// The Pod that asks is not the run's.
    #[error("this Pod is not the run's")]
    OtherPod,
    /// The ledger refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The API server failed.
    #[error("reading the Pod failed")]
    Api(#[source] kube::Error),
}

/// Why a sweep of one attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The ledger refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The API server failed.
    #[error("reading or changing the Pod failed")]
    Api(#[from] kube::Error),
}

//! A scripted shim: plays the tool's Pod on a control plane that has no node, with a real token bound to the real Pod object.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequestSpec},
    core::v1::Pod,
};
use kube::{Api, ResourceExt};

use crate::{cluster::Cluster, parts::Polity, wait};

/// What a scripted shim needs: the cluster and the gateway. Of its own, so that parts may be restarted while it works.
#[derive(Clone)]
pub struct Shim {
    cluster: Cluster,
    gateway: String,
    patience: Duration,
}

impl Shim {
    /// A shim that waits up to `patience` for each step, over restarts of core and edge.
    #[must_use]
    pub fn new(polity: &Polity, patience: Duration) -> Self {
        Self { cluster: polity.cluster.clone(), gateway: polity.gateway(), patience }
    }

    /// As [`play`].
    ///
    /// # Errors
    /// The Pod does not appear or is not let start, or the edge refuses.
    pub async fn play(&self, namespace: &str, id: &str, exit_code: i32, stdout: &str) -> Result<serde_json::Value> {
        let name = format!("call-{id}");
        let pods: Api<Pod> = Api::namespaced(self.cluster.admin().await?, namespace);
        let pod = wait::until(self.patience, "the tool's Pod is let start", || async {
            let pod = pods.get(&name).await.map_err(|e| e.to_string())?;
            let gated = pod.spec.as_ref().is_some_and(|s| s.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()));
            if gated { Err("gated".to_owned()) } else { Ok(pod) }
        })
        .await?;
        let token = bound_token(&self.cluster, namespace, &name, pod.uid().context("uid")?).await?;
        let base = format!("{}/shim/v1/runs/{id}", self.gateway);
        let http = client()?;
        let input = wait::until(self.patience, "the input of the run", || async {
            let answer = http.get(format!("{base}/input")).bearer_auth(&token).send().await.map_err(|e| e.to_string())?;
            if answer.status().is_success() {
                Ok(answer)
            } else {
                Err(format!("{}: {}", answer.status(), answer.text().await.unwrap_or_default()))
            }
        })
        .await?;
        let input: serde_json::Value = input.json().await?;
        let body = serde_json::json!({"exitCode": exit_code, "stdout": stdout, "stderrTail": ""});
        let unheard = AtomicBool::new(false);
        wait::until(self.patience, "the result is taken", || async {
            let sent = http.post(format!("{base}/result")).bearer_auth(&token).json(&body).send().await;
            let answer = sent.inspect_err(|_| unheard.store(true, Ordering::Relaxed)).map_err(|e| e.to_string())?;
            let status = answer.status();
            // Taken, with the answer lost: a run that has ended loses its Pod, and with it the token.
            let gone = status == reqwest::StatusCode::UNAUTHORIZED && unheard.load(Ordering::Relaxed);
            unheard.fetch_or(status.is_server_error(), Ordering::Relaxed);
            if status.is_success() || gone { Ok(()) } else { Err(format!("{status}: {}", answer.text().await.unwrap_or_default())) }
        })
        .await?;
        Ok(input)
    }
}

/// Waits until the call's Pod may start, fetches the input as its shim would, and posts a result.
/// Returns the input that it was given.
///
/// # Errors
/// The Pod does not appear or is not let start, or the edge refuses.
pub async fn play(polity: &Polity, namespace: &str, id: &str, exit_code: i32, stdout: &str) -> Result<serde_json::Value> {
    Shim::new(polity, Duration::from_secs(120)).play(namespace, id, exit_code, stdout).await
}

/// A token of the Org's tool account bound to this Pod, as the kubelet would mount it.
///
/// # Errors
/// The API server refuses.
pub async fn pod_token(polity: &Polity, namespace: &str, pod: &str, uid: String) -> Result<String> {
    bound_token(&polity.cluster, namespace, pod, uid).await
}

async fn bound_token(cluster: &Cluster, namespace: &str, pod: &str, uid: String) -> Result<String> {
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(pod.to_owned()),
        uid: Some(uid),
    };
    let spec = TokenRequestSpec { audiences: vec!["polity".to_owned()], bound_object_ref: Some(bound), expiration_seconds: Some(600) };
    cluster.token(namespace, "polity-tool", spec).await
}

/// An HTTP client that does not check the edge's certificate: the tests of certificates do.
///
/// # Errors
/// It cannot be built.
pub fn client() -> Result<reqwest::Client> {
    let client = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).timeout(Duration::from_secs(130)).build();
    match client {
        Ok(client) => Ok(client),
        Err(error) => bail!("HTTP client: {error}"),
    }
}

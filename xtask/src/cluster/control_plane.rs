//! etcd, API server, controller manager, and with a node the scheduler.
//!
//! etcd skips fsync: these clusters are for trials and tests, and no benchmark of durability uses them.
//! The controller manager's client limits are raised, since its default of 20 requests/s would be what
//! every larger run measures. No part elects a leader: there is one of each.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::settings::{Form, PODS, SERVICES, Settings};
use super::{Cluster, audit, kubectl, process};
use crate::wait::{Look, until};

pub fn start(cluster: &Cluster, settings: &Settings) -> Result<()> {
    fs::write(cluster.dir.join("config/audit.yaml"), audit::POLICY).context("write the audit policy")?;
    etcd(cluster, settings)?;
    api_server(cluster, settings)?;
    until(Duration::from_secs(90), "API server ready", || {
        process::must_run(&cluster.dir, "etcd")?;
        process::must_run(&cluster.dir, "kube-apiserver")?;
        Ok(if kubectl::ready(cluster) { Look::Done(()) } else { Look::NotYet("/readyz does not say ok".to_owned()) })
    })?;
    controller_manager(cluster)?;
    if settings.form != Form::Plane {
        let config = format!("--kubeconfig={}", path(&cluster.dir, "config/kube-scheduler.kubeconfig"));
        run(cluster, "kube-scheduler", &[config, "--leader-elect=false".to_owned(), "--secure-port=0".to_owned()])?;
    }
    until(Duration::from_secs(60), "controller manager at work", || {
        process::must_run(&cluster.dir, "kube-controller-manager")?;
        let account = cluster.kubectl().args(["get", "serviceaccount", "default", "--namespace=default", "-o", "name"]).output()?;
        Ok(if account.status.success() { Look::Done(()) } else { Look::NotYet("no default service account".to_owned()) })
    })
}

/// Starts a part where the cluster's parts run.
pub fn run(cluster: &Cluster, name: &str, arguments: &[String]) -> Result<()> {
    let mut command = cluster.inside(cluster.bin.join(name));
    command.args(arguments);
    process::start(&cluster.dir, name, command, super::holder::running(cluster))
}

pub fn path(dir: &Path, file: &str) -> String {
    dir.join(file).to_string_lossy().into_owned()
}

fn etcd(cluster: &Cluster, settings: &Settings) -> Result<()> {
    let dir = |file: &str| path(&cluster.dir, file);
    let client = format!("https://127.0.0.1:{}", settings.etcd_port);
    let peer = format!("http://127.0.0.1:{}", settings.etcd_peer_port);
    let arguments = [
        format!("--data-dir={}", dir("etcd")),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        format!("--cert-file={}", dir("pki/etcd.crt")),
        format!("--key-file={}", dir("pki/etcd.key")),
        format!("--trusted-ca-file={}", dir("pki/etcd-ca.crt")),
        "--client-cert-auth".to_owned(),
        "--unsafe-no-fsync".to_owned(),
        "--quota-backend-bytes=4294967296".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    run(cluster, "etcd", &arguments)
}

fn api_server(cluster: &Cluster, settings: &Settings) -> Result<()> {
    let dir = |file: &str| path(&cluster.dir, file);
    let mut arguments = vec![
        format!("--etcd-servers=https://127.0.0.1:{}", settings.etcd_port),
        format!("--etcd-cafile={}", dir("pki/etcd-ca.crt")),
        format!("--etcd-certfile={}", dir("pki/apiserver-etcd.crt")),
        format!("--etcd-keyfile={}", dir("pki/apiserver-etcd.key")),
        format!("--secure-port={}", settings.api_port),
        format!("--advertise-address={}", settings.address()),
        format!("--tls-cert-file={}", dir("pki/apiserver.crt")),
        format!("--tls-private-key-file={}", dir("pki/apiserver.key")),
        format!("--client-ca-file={}", dir("pki/ca.crt")),
        format!("--kubelet-certificate-authority={}", dir("pki/ca.crt")),
        format!("--kubelet-client-certificate={}", dir("pki/apiserver-kubelet.crt")),
        format!("--kubelet-client-key={}", dir("pki/apiserver-kubelet.key")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--anonymous-auth=false".to_owned(),
        format!("--service-cluster-ip-range={SERVICES}"),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-account-signing-key-file={}", dir("pki/tokens.key")),
        format!("--service-account-key-file={}", dir("pki/tokens.pub")),
        format!("--audit-policy-file={}", dir("config/audit.yaml")),
        format!("--audit-log-path={}", dir("audit.log")),
        // One file, never rotated away in the life of such a cluster: it is read to count writes.
        "--audit-log-maxsize=4096".to_owned(),
        "--shutdown-delay-duration=0s".to_owned(),
        "--shutdown-send-retry-after=true".to_owned(),
    ];
    match settings.form {
        // A loopback address is not allowed among the endpoints of the Service `kubernetes`.
        Form::Plane | Form::Simulated => {
            arguments.extend(["--bind-address=127.0.0.1".to_owned(), "--endpoint-reconciler-type=none".to_owned()]);
        }
        Form::Node => arguments.push("--bind-address=0.0.0.0".to_owned()),
    }
    run(cluster, "kube-apiserver", &arguments)
}

fn controller_manager(cluster: &Cluster) -> Result<()> {
    let dir = |file: &str| path(&cluster.dir, file);
    let arguments = [
        format!("--kubeconfig={}", dir("config/kube-controller-manager.kubeconfig")),
        format!("--root-ca-file={}", dir("pki/ca.crt")),
        format!("--service-account-private-key-file={}", dir("pki/tokens.key")),
        format!("--cluster-cidr={PODS}"),
        "--use-service-account-credentials=true".to_owned(),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        // A quota on a kind whose definition is new is first counted at the next full sync: 5 minutes by default.
        "--resource-quota-sync-period=5s".to_owned(),
        "--kube-api-qps=500".to_owned(),
        "--kube-api-burst=1000".to_owned(),
    ];
    run(cluster, "kube-controller-manager", &arguments)
}

//! etcd, API server, controller manager and scheduler.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result};

use super::{Cluster, process};
use crate::{shell, wait};

/// What the API server writes to its audit log: who wrote what, never bodies.
const AUDIT: &str = r#"{"apiVersion":"audit.k8s.io/v1","kind":"Policy","omitStages":["RequestReceived"],
"rules":[{"level":"None","verbs":["get","list","watch"]},{"level":"None","resources":[{"group":"coordination.k8s.io"}],"userGroups":["system:nodes"]},{"level":"Metadata"}]}"#;

/// Starts the control plane and waits until it answers.
///
/// # Errors
/// A part does not come up.
pub(super) fn start(cluster: &Cluster) -> Result<()> {
    let dir = &cluster.dir;
    let pki = dir.join("pki");
    let path = |file: &str| pki.join(file).display().to_string();
    let (etcd, peer, api) = (cluster.port(2379), cluster.port(2380), cluster.port(6443));
    fs::write(dir.join("audit.json"), AUDIT)?;
    let etcd_url = format!("http://127.0.0.1:{etcd}");
    let flags = [
        format!("--data-dir={}", dir.join("etcd").display()),
        format!("--listen-client-urls={etcd_url}"),
        format!("--advertise-client-urls={etcd_url}"),
        format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    process::start(dir, "etcd", program(cluster, "etcd").args(flags))?;
    let flags = [
        format!("--etcd-servers={etcd_url}"),
        format!("--secure-port={api}"),
        format!("--bind-address={}", if cluster.node { "0.0.0.0" } else { "127.0.0.1" }),
        format!("--advertise-address={}", if cluster.node { cluster.address() } else { "10.213.0.1".to_owned() }),
        format!("--service-cluster-ip-range={}", cluster.service_cidr()),
        format!("--tls-cert-file={}", path("apiserver.crt")),
        format!("--tls-private-key-file={}", path("apiserver.key")),
        format!("--client-ca-file={}", path("ca.crt")),
        format!("--service-account-key-file={}", path("accounts.pub")),
        format!("--service-account-signing-key-file={}", path("accounts.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--kubelet-client-certificate={}", path("apiserver-kubelet.crt")),
        format!("--kubelet-client-key={}", path("apiserver-kubelet.key")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        format!("--audit-policy-file={}", dir.join("audit.json").display()),
        format!("--audit-log-path={}", dir.join("audit.log").display()),
        "--endpoint-reconciler-type=none".to_owned(),
        "--v=1".to_owned(),
    ];
    let flags = flags.into_iter().filter(|f| !(cluster.node && f == "--endpoint-reconciler-type=none"));
    process::start(dir, "kube-apiserver", program(cluster, "kube-apiserver").args(flags))?;
    wait::until(Duration::from_secs(60), "API server", || {
        if !process::alive(dir, "kube-apiserver") {
            return Err(process::log_tail(dir, "kube-apiserver"));
        }
        if shell::ok(&mut cluster.kubectl(["get", "--raw", "/readyz", "--request-timeout=2s"])) { Ok(()) } else { Err("not ready".to_owned()) }
    })
    .with_context(|| format!("see {}", dir.join("kube-apiserver.log").display()))?;
    let config = |name: &str| format!("--kubeconfig={}", dir.join(format!("{name}.kubeconfig")).display());
    let flags = [
        config("controller-manager"),
        "--use-service-account-credentials=true".to_owned(),
        format!("--service-account-private-key-file={}", path("accounts.key")),
        format!("--root-ca-file={}", path("ca.crt")),
        format!("--cluster-cidr={}", cluster.pod_cidr()),
        "--leader-elect=false".to_owned(),
        "--kube-api-qps=200".to_owned(),
        "--kube-api-burst=400".to_owned(),
        format!("--secure-port={}", cluster.port(10257)),
    ];
    process::start(dir, "kube-controller-manager", program(cluster, "kube-controller-manager").args(flags))?;
    if cluster.node {
        let flags = [config("scheduler"), "--leader-elect=false".to_owned(), "--kube-api-qps=200".to_owned(), "--kube-api-burst=400".to_owned()];
        process::start(dir, "kube-scheduler", program(cluster, "kube-scheduler").args(flags))?;
    }
    Ok(())
}

/// A binary of the cluster, inside the node's network namespace when there is one. Mounts stay the host's: kubelet and
/// containerd must see each other's.
pub(super) fn program(cluster: &Cluster, name: &str) -> Command {
    let binary: PathBuf = cluster.bin.join(name);
    if cluster.node { shell::cmd("nsenter", [format!("--net=/run/netns/{}", cluster.netns()), binary.display().to_string()]) } else { Command::new(binary) }
}

//! Polity's parts as processes of the host, on a control plane whose node runs no container.
//!
//! They run under their own accounts with tokens of those, so that RBAC and guards see what they would see
//! on a node. Everything of the chart is applied but its workloads.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::cluster::{Cluster, process};
use crate::install::{self, NAMESPACE};
use crate::wait::{Look, until};
use crate::{paths, product, run};

/// Kinds of the chart that need a node.
const WORKLOADS: &[&str] = &["StatefulSet", "Deployment", "Pod", "PersistentVolumeClaim"];

/// Installs the chart's objects and starts core and one edge, anew if they run. Returns the URL of the agents' endpoint.
pub fn start(cluster: &Cluster, built: &Path) -> Result<String> {
    let dir = cluster.dir();
    for part in ["polity-edge", "polity-core"] {
        process::stop(dir, part, Duration::from_secs(10))?;
    }
    let [internal, core_admin, gateway, webhook, edge_admin] = ports()?;
    objects(cluster, &format!("https://127.0.0.1:{webhook}"))?;
    let listen = |port: u16| format!("127.0.0.1:{port}");
    let core = [
        ("POLITY_POD_NAME", "polity-core-0".to_owned()),
        ("POLITY_DATA_DIR", dir.join("core").to_string_lossy().into_owned()),
        ("POLITY_EDGE_URL", format!("https://127.0.0.1:{gateway}")),
        ("POLITY_EDGE_NAMES", "127.0.0.1,localhost".to_owned()),
        ("POLITY_IMAGE", format!("{}:dev", product::REPOSITORY)),
        // No node runs containers here: calls of container tools are refused with that reason instead of waiting.
        ("POLITY_PODS", "false".to_owned()),
        ("POLITY_LISTEN_INTERNAL", listen(internal)),
        ("POLITY_LISTEN_ADMIN", listen(core_admin)),
    ];
    fs::create_dir_all(dir.join("core"))?;
    part(cluster, built, "core", &core)?;
    let edge = [
        ("POLITY_POD_NAME", "polity-edge-0".to_owned()),
        ("POLITY_CORE_URL", format!("https://127.0.0.1:{internal}")),
        ("POLITY_EDGE_NAMES", "127.0.0.1,localhost".to_owned()),
        ("POLITY_CLUSTER_CIDRS", "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16".to_owned()),
        ("POLITY_LISTEN_GATEWAY", listen(gateway)),
        ("POLITY_LISTEN_WEBHOOK", listen(webhook)),
        ("POLITY_LISTEN_ADMIN", listen(edge_admin)),
    ];
    part(cluster, built, "edge", &edge)?;
    for (name, port) in [("core", core_admin), ("edge", edge_admin)] {
        until(Duration::from_secs(60), &format!("{name} ready"), || {
            process::must_run(dir, &format!("polity-{name}"))?;
            let ready = run::attempt(Command::new(built.join("polity")).args(["healthcheck", &format!("http://127.0.0.1:{port}/readyz")]));
            Ok(ready.map_or_else(|| Look::NotYet("/readyz does not say so".to_owned()), |_| Look::Done(())))
        })?;
    }
    until(Duration::from_secs(30), "webhook certificates", || {
        let kinds = "validatingwebhookconfiguration,mutatingwebhookconfiguration";
        let text = run::output(cluster.kubectl().args(["get", kinds, "polity", "-o", "json"]))?;
        Ok(if text.contains("caBundle") { Look::Done(()) } else { Look::NotYet("no caBundle".to_owned()) })
    })?;
    Ok(format!("https://127.0.0.1:{gateway}"))
}

/// Five free ports of loopback.
fn ports() -> Result<[u16; 5]> {
    let held = [(); 5].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let mut ports = [0; 5];
    for (port, listener) in ports.iter_mut().zip(&held) {
        *port = listener.as_ref().ok().context("no free port on loopback")?.local_addr()?.port();
    }
    Ok(ports)
}

/// Applies what the chart renders, CRDs first, without workloads and tests.
fn objects(cluster: &Cluster, webhook: &str) -> Result<()> {
    install::namespace(cluster)?;
    let chart = paths::root().join("charts/polity");
    let mut helm = cluster.helm();
    helm.args(["template", "polity"]).arg(chart).args(["--namespace", NAMESPACE, "--set", &format!("webhook.url={webhook}")]);
    let documents: Vec<Value> = serde_saphyr::from_multiple(&run::output(&mut helm)?).context("read the rendered chart")?;
    let wanted = |document: &&Value| {
        let hook = document.pointer("/metadata/annotations/helm.sh~1hook").is_some();
        document["kind"].is_string() && !hook && !WORKLOADS.iter().any(|kind| document["kind"] == *kind)
    };
    let (crds, rest): (Vec<&Value>, Vec<&Value>) =
        documents.iter().filter(wanted).partition(|document| document["kind"] == "CustomResourceDefinition");
    for group in [crds, rest] {
        let texts: Vec<String> = group.iter().map(ToString::to_string).collect();
        cluster.apply(&texts.join("\n---\n"))?;
    }
    run::output(cluster.kubectl().args(["wait", "crd", "--all", "--for=condition=Established", "--timeout=30s"])).map(|_| ())
}

fn part(cluster: &Cluster, built: &Path, name: &str, settings: &[(&str, String)]) -> Result<()> {
    let account = format!("polity-{name}");
    let token = run::output(cluster.kubectl().args(["create", "token", &account, "--namespace", NAMESPACE, "--duration=24h"]))?;
    let mut kubeconfig: Value = serde_json::from_slice(&fs::read(cluster.kubeconfig())?).context("read the kubeconfig")?;
    match kubeconfig.pointer_mut("/users/0/user") {
        Some(user) => *user = json!({"token": token.trim()}),
        None => bail!("the kubeconfig has no user"),
    }
    let path = cluster.dir().join(format!("config/{account}.kubeconfig"));
    fs::write(&path, kubeconfig.to_string())?;
    let mut command = Command::new(built.join("polity"));
    command.arg(name).env("KUBECONFIG", &path).env("POLITY_NAMESPACE", NAMESPACE).envs(settings.iter().map(|(key, value)| (key, value)));
    process::start(cluster.dir(), &account, command, false)
}

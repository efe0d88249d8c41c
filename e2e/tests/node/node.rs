//! The cluster with its node: command lines, core's ledger on the host, the edge from the host.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use anyhow::{Context, Result, bail};
use polity_e2e::{Cluster, cluster::SYSTEM};
use serde_json::Value;

/// What the tests share.
pub struct Node {
    /// The cluster.
    pub cluster: Cluster,
    cli: PathBuf,
    acme: Mutex<bool>,
}

impl Node {
    pub fn from_env() -> Result<Self> {
        let cli = std::env::var_os("POLITY_E2E_CLI").context("POLITY_E2E_CLI is not set: run `cargo xtask test`")?;
        Ok(Self { cluster: Cluster::node()?, cli: cli.into(), acme: Mutex::new(false) })
    }

    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.cluster.run("kubectl", args)
    }

    /// Objects as JSON.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get"], args, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).context("objects as JSON")
    }

    /// Applies a folder of the repository as a user would.
    pub fn apply_folder(&self, folder: &str) -> Result<()> {
        let path = polity_e2e::cluster::repo().join(folder);
        self.kubectl(&["apply", "-f", path.to_str().context("path")?]).map(|_| ())
    }

    /// Applies examples/acme, once for all tests.
    pub fn acme(&self) -> Result<()> {
        let mut applied = self.acme.lock().map_err(|_| anyhow::anyhow!("another test failed while it applied examples/acme"))?;
        if !*applied {
            self.apply_folder("examples/acme")?;
            *applied = true;
        }
        Ok(())
    }

    /// The command line for people, with this person's rights.
    pub fn cli_as(&self, person: &str, args: &[&str]) -> Result<String> {
        let mut kubeconfig: Value = serde_json::from_slice(&std::fs::read(self.cluster.kubeconfig())?)?;
        let user = kubeconfig.pointer_mut("/users/0/user").and_then(Value::as_object_mut).context("the kubeconfig has no user")?;
        user.insert("as".to_owned(), person.into());
        user.insert("as-groups".to_owned(), serde_json::json!(["system:authenticated"]));
        let own = tempfile::NamedTempFile::new()?;
        std::fs::write(own.path(), kubeconfig.to_string())?;
        let out = Command::new(&self.cli).env("KUBECONFIG", own.path()).args(args).output().context("cannot start kubectl-polity")?;
        if !out.status.success() {
            bail!("kubectl polity {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr));
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Core's volume, which is a directory of this machine.
    pub fn data(&self) -> Result<PathBuf> {
        let claims = self.get(&["persistentvolumeclaims", "--namespace", SYSTEM])?;
        let volume = claims["items"][0]["spec"]["volumeName"].as_str().context("core's claim has no volume")?;
        let volume = self.get(&["persistentvolume", volume])?;
        Ok(volume["spec"]["local"]["path"].as_str().context("not a local volume")?.into())
    }

    /// The edge, reached through the API server.
    pub fn edge(&self) -> Result<Forward> {
        let mut command = Command::new("kubectl");
        let bin = std::env::var_os("POLITY_E2E_BIN").context("POLITY_E2E_BIN is not set")?;
        command.env("PATH", bin).env("KUBECONFIG", self.cluster.kubeconfig());
        command.args(["port-forward", "--namespace", SYSTEM, "service/polity-edge", ":443"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("start kubectl port-forward")?;
        let out = child.stdout.take().context("its output")?;
        let mut forward = Forward { child, base: String::new(), _out: BufReader::new(out) };
        let mut line = String::new();
        forward._out.read_line(&mut line)?;
        let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split_whitespace().next()).with_context(|| format!("{line:?}"))?;
        forward.base = format!("https://127.0.0.1:{port}");
        Ok(forward)
    }
}

/// A port that leads to the edge while this lives.
pub struct Forward {
    child: Child,
    /// Base URL.
    pub base: String,
    // Open as long as it runs, or its next line would end it.
    _out: BufReader<std::process::ChildStdout>,
}

impl Drop for Forward {
    fn drop(&mut self) {
        // Fails only when it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Pid, on this machine, of the Pod's process whose command line starts so. The Pod is known by its uid in the cgroup.
pub fn process(pod_uid: &str, command: &str) -> Result<Option<String>> {
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        // Not every entry is a process, and processes end.
        let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap_or_default();
        let cgroup = read("cgroup");
        let of_pod = cgroup.contains(pod_uid) || cgroup.contains(&pod_uid.replace('-', "_"));
        if of_pod && read("cmdline").starts_with(command) {
            return Ok(path.file_name().and_then(|n| n.to_str()).map(str::to_owned));
        }
    }
    Ok(None)
}

//! Polity's parts as host processes under their own accounts, to be restarted and killed by tests.

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    cluster::{Cluster, SYSTEM},
    wait,
};

/// How long a part may take to be ready.
const PATIENCE: Duration = Duration::from_secs(120);

/// Addresses of the parts, chosen free when the test run starts and kept over restarts.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Core's server for the edge.
    pub internal: u16,
    /// Core's health and metrics.
    pub core_admin: u16,
    /// The gateway.
    pub gateway: u16,
    /// The webhook.
    pub webhook: u16,
    /// The edge's health and metrics.
    pub edge_admin: u16,
}

impl Addresses {
    /// Free ports of loopback.
    ///
    /// # Errors
    /// No port is free.
    pub fn choose() -> Result<Self> {
        let sockets: Vec<TcpListener> = (0..5).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
        let port = |i: usize| -> Result<u16> { Ok(sockets.get(i).context("socket")?.local_addr()?.port()) };
        Ok(Self { internal: port(0)?, core_admin: port(1)?, gateway: port(2)?, webhook: port(3)?, edge_admin: port(4)? })
    }
}

/// One running part. Killed when dropped.
pub struct Part {
    name: &'static str,
    command: Vec<String>,
    env: Vec<(String, String)>,
    admin: u16,
    log: PathBuf,
    child: Option<Child>,
}

impl Part {
    /// Core, with its data under `dir`.
    ///
    /// # Errors
    /// Its account's kubeconfig cannot be made.
    pub async fn core(cluster: &Cluster, dir: &Path, addresses: &Addresses) -> Result<Self> {
        let kubeconfig = dir.join("core.kubeconfig");
        cluster.account_kubeconfig("polity-core", &kubeconfig).await?;
        let env = vec![
            ("KUBECONFIG".to_owned(), kubeconfig.display().to_string()),
            ("POLITY_POD_NAME".to_owned(), "polity-core-0".to_owned()),
            ("POLITY_DATA_DIR".to_owned(), dir.join("data").display().to_string()),
            ("POLITY_EDGE_URL".to_owned(), format!("https://127.0.0.1:{}", addresses.gateway)),
            ("POLITY_EDGE_NAMES".to_owned(), "127.0.0.1,localhost".to_owned()),
            ("POLITY_IMAGE".to_owned(), "docker.io/polity/polity:dev".to_owned()),
            ("POLITY_LISTEN_INTERNAL".to_owned(), format!("127.0.0.1:{}", addresses.internal)),
            ("POLITY_LISTEN_ADMIN".to_owned(), format!("127.0.0.1:{}", addresses.core_admin)),
        ];
        Ok(Self::new("core", env, addresses.core_admin, dir))
    }

    /// One edge.
    ///
    /// # Errors
    /// Its account's kubeconfig cannot be made.
    pub async fn edge(cluster: &Cluster, dir: &Path, addresses: &Addresses) -> Result<Self> {
        let kubeconfig = dir.join("edge.kubeconfig");
        cluster.account_kubeconfig("polity-edge", &kubeconfig).await?;
        let env = vec![
            ("KUBECONFIG".to_owned(), kubeconfig.display().to_string()),
            ("POLITY_POD_NAME".to_owned(), "polity-edge-0".to_owned()),
            ("POLITY_CORE_URL".to_owned(), format!("https://127.0.0.1:{}", addresses.internal)),
            ("POLITY_EDGE_NAMES".to_owned(), "127.0.0.1,localhost".to_owned()),
            ("POLITY_CLUSTER_CIDRS".to_owned(), "10.213.0.0/16,10.214.0.0/16,10.215.0.0/16".to_owned()),
            ("POLITY_LISTEN_GATEWAY".to_owned(), format!("127.0.0.1:{}", addresses.gateway)),
            ("POLITY_LISTEN_WEBHOOK".to_owned(), format!("127.0.0.1:{}", addresses.webhook)),
            ("POLITY_LISTEN_ADMIN".to_owned(), format!("127.0.0.1:{}", addresses.edge_admin)),
        ];
        Ok(Self::new("edge", env, addresses.edge_admin, dir))
    }

    fn new(name: &'static str, mut env: Vec<(String, String)>, admin: u16, dir: &Path) -> Self {
        env.push(("POLITY_NAMESPACE".to_owned(), SYSTEM.to_owned()));
        env.push(("POLITY_LOG".to_owned(), std::env::var("POLITY_E2E_LOG").unwrap_or_else(|_| "info,polity=debug".to_owned())));
        let binary = std::env::var("POLITY_E2E_SERVER").unwrap_or_else(|_| "polity".to_owned());
        Self { name, command: vec![binary, name.to_owned()], env, admin, log: dir.join(format!("{name}.log")), child: None }
    }

    /// Adds or replaces a variable for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.env.retain(|(n, _)| n != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Removes a variable for the next start.
    pub fn unset(&mut self, name: &str) {
        self.env.retain(|(n, _)| n != name);
    }

    /// Starts it; does not wait.
    ///
    /// # Errors
    /// The binary cannot be started.
    pub fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).envs(self.env.iter().cloned()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().with_context(|| format!("cannot start {}: is POLITY_E2E_SERVER right?", self.command[0]))?);
        Ok(())
    }

    /// Whether the process runs.
    pub fn running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|c| matches!(c.try_wait(), Ok(None)))
    }

    /// Whether it has been ended by SIGKILL, not by itself.
    pub fn killed(&mut self) -> bool {
        use std::os::unix::process::ExitStatusExt;
        self.child.as_mut().is_some_and(|c| matches!(c.try_wait(), Ok(Some(status)) if status.signal() == Some(9)))
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// It ends or does not get ready; the message has the end of its log.
    pub async fn ready(&mut self) -> Result<()> {
        let url = format!("http://127.0.0.1:{}/readyz", self.admin);
        let http = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).timeout(Duration::from_secs(2)).build()?;
        let what = format!("{} is ready", self.name);
        let lives = wait::until(PATIENCE, &what, || {
            let (running, ask) = (self.running(), http.get(&url));
            async move {
                if !running {
                    return Ok(false);
                }
                let answer = ask.send().await.map_err(|e| e.to_string())?;
                if answer.status().is_success() { Ok(true) } else { Err(answer.text().await.unwrap_or_default()) }
            }
        });
        let lives = lives.await.with_context(|| self.log_tail())?;
        anyhow::ensure!(lives, "{} ended:\n{}", self.name, self.log_tail());
        Ok(())
    }

    /// Whether it says that it is ready, now.
    pub async fn answers_ready(&self) -> bool {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(2)).build();
        let Ok(http) = http else { return false };
        let answer = http.get(format!("http://127.0.0.1:{}/readyz", self.admin)).send().await;
        answer.is_ok_and(|a| a.status().is_success())
    }

    /// Kills it with SIGKILL and waits for its end.
    ///
    /// # Errors
    /// The process cannot be signalled.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It does not within the limit.
    pub async fn ended(&mut self, limit: Duration) -> Result<()> {
        let what = format!("{} has ended", self.name);
        wait::until(limit, &what, || std::future::ready(if self.running() { Err("it still runs".to_owned()) } else { Ok(()) })).await
    }

    /// Kills, starts again and waits until ready.
    ///
    /// # Errors
    /// As for each step.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.start()?;
        self.ready().await
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(25).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // A part that cannot be killed is seen by the cluster's own shutdown.
        let _ = self.kill();
    }
}

/// Core and one edge on a control plane without a node.
pub struct Polity {
    /// The cluster.
    pub cluster: Cluster,
    /// Addresses of the parts.
    pub addresses: Addresses,
    /// Data, logs, kubeconfigs.
    pub dir: PathBuf,
    /// Core.
    pub core: Part,
    /// The edge.
    pub edge: Part,
}

impl Polity {
    /// Installs the chart's objects and starts both parts.
    ///
    /// # Errors
    /// Something does not come up.
    pub async fn start(cluster: Cluster, dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir.join("data"))?;
        let addresses = Addresses::choose()?;
        crate::install::chart(&cluster, &format!("https://127.0.0.1:{}", addresses.webhook)).await?;
        let mut core = Part::core(&cluster, dir, &addresses).await?;
        let mut edge = Part::edge(&cluster, dir, &addresses).await?;
        core.start()?;
        edge.start()?;
        core.ready().await?;
        edge.ready().await?;
        let polity = Self { cluster, addresses, dir: dir.to_owned(), core, edge };
        polity.webhooks_filled().await?;
        Ok(polity)
    }

    /// Waits until core has filled the CA bundle of the webhook configurations.
    async fn webhooks_filled(&self) -> Result<()> {
        wait::until(PATIENCE, "caBundle in the webhook configurations", || async {
            let text = self
                .cluster
                .run("kubectl", &["get", "validatingwebhookconfiguration,mutatingwebhookconfiguration", "polity", "-o", "json"])
                .map_err(|e| e.to_string())?;
            if text.contains("caBundle") { Ok(()) } else { Err("empty".to_owned()) }
        })
        .await
    }

    /// Base URL of the gateway.
    #[must_use]
    pub fn gateway(&self) -> String {
        format!("https://127.0.0.1:{}", self.addresses.gateway)
    }
}

//! Faults that tests bring on: core killed at a point of its own or at any moment, its lease freed once it is known to be dead, the API
//! server frozen, or killed and started again; and putting everything back in order afterwards. Judges nothing.

use std::{
    cell::RefCell,
    ffi::OsString,
    os::unix::{ffi::OsStringExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures::future::LocalBoxFuture;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    cluster::{Cluster, SYSTEM},
    parts::{Part, Polity},
};

/// Core's lease.
const LEASE: &str = "polity-core";
/// Variable that names the point at which core kills itself.
const POINT: &str = "POLITY_KILL_AT";
/// How long core may take to reach a point.
const REACH: Duration = Duration::from_secs(90);

/// The lease as it is: its holder, if any, and its epoch.
///
/// # Errors
/// It cannot be read.
pub async fn lease(cluster: &Cluster) -> Result<(Option<String>, i32)> {
    let lease = leases(cluster).await?.get(LEASE).await?.spec.unwrap_or_default();
    Ok((lease.holder_identity, lease.lease_transitions.unwrap_or_default()))
}

/// Takes the lease from a holder that is dead, so that the next core need not wait until it expires. Never call it while one runs.
///
/// # Errors
/// It cannot be written.
pub async fn free_lease(cluster: &Cluster) -> Result<()> {
    let free = json!({"spec": {"holderIdentity": null}});
    leases(cluster).await?.patch(LEASE, &PatchParams::default(), &Patch::Merge(free)).await.map(drop).context("freeing the lease")
}

async fn leases(cluster: &Cluster) -> Result<Api<Lease>> {
    Ok(Api::namespaced(cluster.admin().await?, SYSTEM))
}

/// Kills core if it runs and starts it again, to be killed at `point` if one is given. Does not wait.
///
/// # Errors
/// As for each step.
pub async fn reborn(cluster: &Cluster, core: &mut Part, point: Option<&str>) -> Result<()> {
    core.kill()?;
    match point {
        Some(point) => core.set(POINT, point),
        None => core.unset(POINT),
    }
    free_lease(cluster).await?;
    core.start()
}

/// Waits until core has killed itself at `point`. Its own exit is another thing, and fails.
///
/// # Errors
/// It still runs, or has ended otherwise.
pub async fn dies(core: &mut Part, point: &str) -> Result<()> {
    core.ended(REACH).await.with_context(|| format!("core did not reach {point}: is the server built with the feature killpoints?"))?;
    ensure!(core.killed(), "core ended by itself before {point}:\n{}", core.log_tail());
    Ok(())
}

/// Runs a test that breaks things, and puts both parts back in order, however it ended.
///
/// # Errors
/// What the test says, or the parts do not come back.
pub async fn mended<F>(polity: &mut Polity, test: F) -> Result<()>
where
    F: for<'a> FnOnce(&'a mut Polity) -> LocalBoxFuture<'a, Result<()>>,
{
    let result = test(polity).await;
    if result.is_err() || !polity.core.running() {
        reborn(&polity.cluster, &mut polity.core, None).await?;
    }
    if !polity.edge.running() {
        polity.edge.start()?;
    }
    let back = async {
        polity.core.ready().await?;
        polity.edge.ready().await
    };
    let back = back.await;
    result.and(back)
}

/// The API server, stopped in mid-air. It goes on when this is dropped.
pub struct Frozen {
    pid: String,
}

impl Frozen {
    /// Freezes the API server of a cluster that has no node of its own.
    ///
    /// # Errors
    /// Its process is not known, or cannot be signalled.
    pub fn api_server(cluster: &Cluster) -> Result<Self> {
        let pid = api_server(&api_server_file(cluster)?)?;
        signal("-STOP", &pid)?;
        Ok(Self { pid })
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(error) = signal("-CONT", &self.pid) {
            eprintln!("the API server stays frozen: {error:#}");
        }
    }
}

/// The API server of a cluster that has no node of its own, killed with -9. Starts again, with the same command, when told to.
pub struct Killed {
    record: PathBuf,
    log: PathBuf,
    command: RefCell<Command>,
    /// It runs again.
    over: bool,
}

impl Killed {
    /// Kills it, and waits until it is gone.
    ///
    /// # Errors
    /// Its process is not known, cannot be looked at (that needs Linux) or signalled, or does not end.
    pub async fn api_server(cluster: &Cluster) -> Result<Self> {
        let record = api_server_file(cluster)?;
        let pid = api_server(&record)?;
        let process = Path::new("/proc").join(&pid);
        let mut words = split(&std::fs::read(process.join("cmdline"))?).into_iter();
        let mut command = Command::new(words.next().context("an empty command line")?);
        command.args(words).current_dir(std::fs::read_link(process.join("cwd"))?).env_clear();
        for variable in split(&std::fs::read(process.join("environ"))?) {
            if let Some((name, value)) = variable.to_str().and_then(|v| v.split_once('=')) {
                command.env(name, value);
            }
        }
        signal("-KILL", &pid)?;
        crate::until(REACH, "the API server is gone", || async {
            let state = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
            if state.is_empty() || state.contains(") Z ") { Ok(()) } else { Err(state) }
        })
        .await?;
        Ok(Self { record, log: cluster.dir()?.join("log/kube-apiserver.log"), command: RefCell::new(command), over: false })
    }

    /// Starts it again, and leaves word of it where the cluster's own tool finds what it has to stop.
    ///
    /// # Errors
    /// It does not start, or is not ready in time.
    pub async fn start(mut self, cluster: &Cluster) -> Result<()> {
        let client = cluster.admin().await?;
        let child = RefCell::new(self.spawn()?);
        crate::until(REACH, "the API server is ready", || async {
            let ask = http::Request::get("/readyz").body(Vec::new()).map_err(|e| e.to_string())?;
            let Err(away) = client.request_text(ask).await else { return Ok(()) };
            // Whoever asks a port of loopback on which nobody listens may be given that very port for his own end: until he lets it go, nobody
            // else can listen, and the server ends.
            let mut child = child.borrow_mut();
            if child.try_wait().map_err(|e| e.to_string())?.is_some() {
                *child = self.spawn().map_err(|e| format!("{e:#}"))?;
            }
            Err(away.to_string())
        })
        .await?;
        let mut child = child.into_inner();
        self.over = true;
        std::thread::spawn(move || child.wait());
        Ok(())
    }

    fn spawn(&self) -> Result<Child> {
        let log = std::fs::File::options().append(true).open(&self.log)?;
        let mut command = self.command.borrow_mut();
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().context("the API server")?;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
        // Field 22 of proc(5); the name before may contain anything.
        let started = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19)).context("start time")?;
        std::fs::write(&self.record, json!({"pid": child.id(), "started": started}).to_string())?;
        Ok(child)
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // What comes after a test that failed half-way needs it too.
        if !self.over
            && let Err(error) = self.spawn()
        {
            eprintln!("the API server stays away: {error:#}");
        }
    }
}

fn split(bytes: &[u8]) -> Vec<OsString> {
    bytes.split(|b| *b == 0).filter(|word| !word.is_empty()).map(|word| OsString::from_vec(word.to_vec())).collect()
}

fn api_server_file(cluster: &Cluster) -> Result<PathBuf> {
    Ok(cluster.dir()?.join("run/kube-apiserver.json"))
}

fn api_server(file: &Path) -> Result<String> {
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(file).with_context(|| format!("{}", file.display()))?)?;
    Ok(record["pid"].as_i64().context("pid of the API server")?.to_string())
}

fn signal(which: &str, pid: &str) -> Result<()> {
    let status = Command::new("kill").args([which, pid]).status().context("kill")?;
    ensure!(status.success(), "kill {which} {pid}: {status}");
    Ok(())
}

/// Numbers that look random and are the same for the same seed.
pub struct Dice(u64);

impl Dice {
    /// From a seed; any is good.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `below`, which is not 0.
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below.max(1)
    }
}

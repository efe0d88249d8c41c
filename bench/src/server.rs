//! Servers under test: child processes on the first core, stopped with the value that stands for them. The load has the second core.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Core of servers.
const SERVER_CORE: usize = 0;
/// Core of the load.
const LOAD_CORE: usize = 1;

/// Binds this thread, and those that it starts from now on, to the core of the load.
///
/// # Errors
/// When the machine has one core only: then nothing can be told apart.
pub fn be_the_load() -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(LOAD_CORE);
    sched_setaffinity(None, &cores).context("two cores are needed: one for the server, one for the load")
}

/// A server that runs.
pub struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts this program with other arguments; it says its address in its first line, and ends when its stdin is closed.
    ///
    /// # Errors
    /// When it does not start or says nothing.
    pub fn of_ours(arguments: &[&str]) -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut child = on_core(program.as_os_str()).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
        let address = line.trim().parse().with_context(|| format!("the address of `{}`", arguments.join(" ")));
        Ok(Self { address: address.inspect_err(|_| drop(child.kill()))?, child })
    }

    /// Starts another program, written in Go, that is told its address; whoever uses it waits until it answers.
    ///
    /// # Errors
    /// When it does not start.
    pub fn of_peer(program: &str, arguments: impl FnOnce(SocketAddr) -> Vec<String>) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = on_core(program.as_ref());
        command.args(arguments(address)).env("GOMAXPROCS", "1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { child: command.spawn().with_context(|| format!("start {program}"))?, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Processor time of all its threads so far, as the scheduler counts it (nanoseconds in `/proc/PID/task/TID/schedstat`).
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu(&self) -> Result<Duration> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id())).context("the server ended")? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            nanoseconds += text.split_whitespace().next().context("schedstat")?.parse::<u64>()?;
        }
        ensure!(nanoseconds > 0, "the kernel counts no processor time in schedstat");
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Largest resident memory so far, in MiB.
    ///
    /// # Errors
    /// When it has ended.
    pub fn peak_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn on_core(program: &std::ffi::OsStr) -> Command {
    let mut command = Command::new("taskset");
    command.arg("--cpu-list").arg(SERVER_CORE.to_string()).arg(program);
    command
}

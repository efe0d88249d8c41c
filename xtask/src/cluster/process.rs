//! Background processes of a cluster, known by pid files of our own.
//!
//! A pid file has the start time of the process beside its number, so that a number that the kernel
//! gave to somebody else meanwhile is never signalled. Nothing is ever looked up by name.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::run;
use crate::wait::{Look, until};

#[derive(Serialize, Deserialize)]
struct Record {
    pid: i32,
    started: String,
}

fn pid_file(dir: &Path, name: &str) -> PathBuf {
    dir.join("run").join(format!("{name}.json"))
}

pub fn log_file(dir: &Path, name: &str) -> PathBuf {
    dir.join("log").join(format!("{name}.log"))
}

/// Starts `command` in the background, its output appended to `log/NAME.log`.
///
/// With `wrapped`, the command is a wrapper that forks the real process and waits for it (as nsenter
/// and unshare do when they enter a process namespace): the child's pid is the one that counts.
pub fn start(dir: &Path, name: &str, mut command: Command, wrapped: bool) -> Result<()> {
    let log = File::options().create(true).append(true).open(log_file(dir, name))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let mut child = command.spawn().with_context(|| format!("start {name}: {}", run::shown(&command)))?;
    let outer = i32::try_from(child.id())?;
    let pid = if !wrapped {
        outer
    } else {
        until(Duration::from_secs(5), &format!("start of {name}"), || {
            if let Some(status) = child.try_wait()? {
                bail!("{name} ended at once: {status}\n{}", run::tail(&log_file(dir, name), 10));
            }
            Ok(child_of(outer).map_or_else(|| Look::NotYet("its wrapper has no child".to_owned()), Look::Done))
        })?
    };
    let started = start_time(pid).with_context(|| format!("{name} ended at once\n{}", run::tail(&log_file(dir, name), 10)))?;
    fs::write(pid_file(dir, name), serde_json::to_vec(&Record { pid, started })?)?;
    // Reaps the process should it end while we live; its end is nobody's business here.
    std::thread::spawn(move || child.wait());
    Ok(())
}

/// Writes a file that only its owner reads.
pub fn secret(path: &Path, text: &str) -> Result<()> {
    let _old = fs::remove_file(path);
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes()).with_context(|| format!("write {}", path.display()))
}

/// Names of everything that was started from this folder and not yet stopped.
pub fn recorded(dir: &Path) -> Vec<String> {
    let files = fs::read_dir(dir.join("run")).into_iter().flatten().flatten();
    files.filter_map(|file| file.file_name().to_str()?.strip_suffix(".json").map(ToOwned::to_owned)).collect()
}

/// The pid of a part, if it runs.
pub fn pid(dir: &Path, name: &str) -> Option<i32> {
    let record: Record = serde_json::from_slice(&fs::read(pid_file(dir, name)).ok()?).ok()?;
    (start_time(record.pid)? == record.started).then_some(record.pid)
}

pub fn running(dir: &Path, name: &str) -> bool {
    pid(dir, name).is_some()
}

/// Fails with the end of the log when a part that should run does not.
pub fn must_run(dir: &Path, name: &str) -> Result<()> {
    if !running(dir, name) {
        bail!("{name} has ended:\n{}", run::tail(&log_file(dir, name), 20));
    }
    Ok(())
}

/// Ends a part and waits until it is gone: SIGTERM, and SIGKILL after `grace`.
pub fn stop(dir: &Path, name: &str, grace: Duration) -> Result<()> {
    for (signal, time) in [(Signal::TERM, grace), (Signal::KILL, Duration::from_secs(20))] {
        let Some(target) = pid(dir, name).and_then(Pid::from_raw) else { break };
        let _gone_meanwhile = kill_process(target, signal);
        let gone = until(time, &format!("end of {name}"), || {
            Ok(if running(dir, name) { Look::NotYet("it still runs".to_owned()) } else { Look::Done(()) })
        });
        if signal == Signal::KILL {
            gone?;
        }
    }
    let _no_file = fs::remove_file(pid_file(dir, name));
    Ok(())
}

/// When a process was started, or nothing if it is gone or only waits to be reaped.
fn start_time(pid: i32) -> Option<String> {
    if !Path::new("/proc/self/stat").exists() {
        let started = run::attempt(Command::new("ps").args(["-o", "lstart=", "-p", &pid.to_string()]))?;
        return Some(started.trim().to_owned()).filter(|s| !s.is_empty());
    }
    let fields = stat(pid)?;
    (fields.first()? != "Z").then(|| fields.get(19).cloned()).flatten()
}

/// The fields of /proc/PID/stat from the state on: the name before it may contain anything.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(ToOwned::to_owned).collect())
}

fn child_of(parent: i32) -> Option<i32> {
    let parent = parent.to_string();
    let pids = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.into_iter().find(|pid| stat(*pid).is_some_and(|fields| fields.get(1) == Some(&parent)))
}

//! Background processes of a cluster: each with a log and a pid file that also has the start time, so that a pid
//! which the kernel gave to somebody else is never signalled.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{shell, wait};

/// Starts a process in the background, logging to `DIR/NAME.log`.
///
/// # Errors
/// It cannot be started.
pub(crate) fn start(dir: &Path, name: &str, command: &mut Command) -> Result<()> {
    let log = fs::File::create(dir.join(format!("{name}.log")))?;
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let pid = child.id();
    fs::write(dir.join(format!("{name}.pid")), format!("{pid} {}", started(pid).unwrap_or_default()))?;
    Ok(())
}

/// Kernel's start time of a process, which with the pid names it; None when it is gone or only its exit is left.
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = stat.rsplit_once(')')?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if fields.first() == Some(&"Z") {
        return None;
    }
    fields.get(19).map(|s| (*s).to_owned())
}

fn read(dir: &Path, name: &str) -> Option<u32> {
    let text = fs::read_to_string(dir.join(format!("{name}.pid"))).ok()?;
    let (pid, since) = text.split_once(' ')?;
    let pid: u32 = pid.parse().ok()?;
    (started(pid).as_deref() == Some(since)).then_some(pid)
}

/// Whether the process runs.
pub(crate) fn alive(dir: &Path, name: &str) -> bool {
    read(dir, name).is_some()
}

/// Whether every process that was started here runs.
pub(crate) fn all_alive(dir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return false };
    entries.flatten().filter_map(|e| e.file_name().to_str()?.strip_suffix(".pid").map(str::to_owned)).all(|name| alive(dir, &name))
}

/// Stops a process that was started here: asks, waits, then kills.
///
/// # Errors
/// It does not go away.
pub(crate) fn stop(dir: &Path, name: &str, patience: Duration) -> Result<()> {
    let file = dir.join(format!("{name}.pid"));
    if let Some(pid) = read(dir, name) {
        let pid_text = pid.to_string();
        shell::ok(&mut shell::cmd("kill", ["-TERM", &pid_text]));
        let gone = || if read(dir, name).is_none() { Ok(()) } else { Err(format!("pid {pid} still runs")) };
        if wait::until(patience, name, gone).is_err() {
            shell::ok(&mut shell::cmd("kill", ["-KILL", &pid_text]));
            wait::until(Duration::from_secs(10), name, gone)?;
        }
    }
    if file.exists() {
        fs::remove_file(file)?;
    }
    Ok(())
}

/// Last lines of a process's log, for error messages.
pub(crate) fn log_tail(dir: &Path, name: &str) -> String {
    let text = fs::read(dir.join(format!("{name}.log"))).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().rev().take(15).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

//! Running other programs in the foreground.
//!
//! A child gets no standard input and a process group of its own; when we are asked to stop, the
//! whole group is ended. Never runs a shell on interpolated text.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::wait::{Look, until};

/// Longer than any single step may take; the limit of CI is 90 minutes.
const LONGEST: Duration = Duration::from_secs(85 * 60);

/// Time for a child that is asked to stop.
const GRACE: Duration = Duration::from_secs(10);

/// The program and its arguments, for messages.
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let arguments = command.get_args().map(|a| a.to_string_lossy().into_owned());
    std::iter::once(program).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// Runs to the end, its output going where ours goes.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    let child = spawn(command)?;
    wait(child, command)
}

/// Runs to the end and fails if it failed.
pub fn check(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs to the end and gives its standard output; on failure the error has its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start `{}`", shown(command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}\n{}", shown(command), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("output of `{}`", shown(command)))
}

/// Like `output`, for calls whose failure is an answer too.
pub fn attempt(command: &mut Command) -> Option<String> {
    output(command).ok()
}

/// Runs with all output to `log`, calling `tick` while it lasts.
pub fn logged(command: &mut Command, log: &Path, mut tick: impl FnMut()) -> Result<()> {
    let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
    command.stdout(file.try_clone()?).stderr(file);
    let mut child = spawn(command)?;
    let ended = until(LONGEST, &shown(command), || {
        tick();
        Ok(child.try_wait()?.map_or_else(|| Look::NotYet("still running".to_owned()), Look::Done))
    });
    let status = ended.inspect_err(|_| end(&mut child, GRACE))?;
    if !status.success() {
        bail!("`{}` failed: {status}; see {}\n{}", shown(command), log.display(), tail(log, 30));
    }
    Ok(())
}

/// The last lines of a file, or nothing when it cannot be read.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

/// Starts in a process group of its own, without standard input.
pub fn spawn(command: &mut Command) -> Result<Child> {
    command.stdin(Stdio::null()).process_group(0).spawn().with_context(|| format!("start `{}`", shown(command)))
}

/// Waits for the end of a child, or ends it when we are asked to stop.
pub fn wait(mut child: Child, command: &Command) -> Result<ExitStatus> {
    ended(&mut child, command).inspect_err(|_| end(&mut child, GRACE))
}

/// Waits for the end of a child, or fails when we are asked to stop: the child then still runs.
pub fn ended(child: &mut Child, command: &Command) -> Result<ExitStatus> {
    until(LONGEST, &shown(command), || Ok(child.try_wait()?.map_or_else(|| Look::NotYet("still running".to_owned()), Look::Done)))
}

/// This program as it runs, even when its file has been built anew in the meantime.
pub fn this_program() -> Result<PathBuf> {
    let process = Path::new("/proc/self/exe");
    if !process.exists() {
        return std::env::current_exe().context("where this program is");
    }
    Ok(PathBuf::from(format!("/proc/{}/exe", std::process::id())))
}

/// Ends a child and all that it started in its group: asked first, killed when it has not ended within the grace.
pub fn end(child: &mut Child, grace: Duration) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(group) = group {
        let _gone = kill_process_group(group, Signal::TERM);
        let asked = std::time::Instant::now();
        while asked.elapsed() < grace && matches!(child.try_wait(), Ok(None)) {
            std::thread::park_timeout(Duration::from_millis(50));
        }
        let _gone = kill_process_group(group, Signal::KILL);
    }
    let _reaped = child.wait();
}

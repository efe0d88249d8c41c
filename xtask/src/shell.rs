//! Running commands: what is run, and what it said when it failed. Never through a shell.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// Runs a command to its end with its output passed through.
///
/// # Errors
/// It cannot be started or does not exit with 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {}", show(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", show(command));
    }
    Ok(())
}

/// Runs a command to its end and returns its stdout.
///
/// # Errors
/// It cannot be started or does not exit with 0; the message has its stderr.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let out = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", show(command)))?;
    if !out.status.success() {
        bail!("{} failed: {}\n{}{}", show(command), out.status, String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs a command and says whether it exited with 0; output is discarded.
pub(crate) fn ok(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// A command from words.
pub(crate) fn cmd<S: AsRef<std::ffi::OsStr>>(program: impl AsRef<Path>, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program.as_ref());
    command.args(args);
    command
}

fn show(command: &Command) -> String {
    let words: Vec<String> = std::iter::once(command.get_program()).chain(command.get_args()).map(|w| w.to_string_lossy().into_owned()).collect();
    words.join(" ")
}

/// Whether this process is root (Linux).
pub(crate) fn root() -> bool {
    output(&mut cmd("id", ["-u"])).is_ok_and(|id| id.trim() == "0")
}

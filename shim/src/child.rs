//! The tool's command: started with the input on stdin and without any `POLITY_` variable, watched, and stopped at
//! its time-out, at too much output, or when the Pod is asked to end. Stopping kills its process group; what has left the group
//! ends with the container, whose first process this is.

use std::{process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    sync::Notify,
};

use crate::{edge::Input, mask::Masks, tail::Tail};

/// Most of stdout that is taken: the largest result that Polity accepts.
pub const MAX_STDOUT: usize = 1024 * 1024;
/// What is kept of stderr.
pub const MAX_STDERR_TAIL: usize = 64 * 1024;
/// Shells' code for a command that cannot be started.
const CANNOT_START: i32 = 127;
/// How long a process outside the group may keep the pipes open after the command has ended.
const PIPE_GRACE: Duration = Duration::from_secs(2);

/// What came out of the command; posted as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Exit code; 128 + signal when one ended it; 127 when it could not be started.
    pub exit_code: i32,
    /// Everything on stdout, unless there was too much.
    pub stdout: String,
    /// End of stderr, secret values masked.
    pub stderr_tail: String,
    /// It was stopped at its time-out.
    pub timed_out: bool,
    /// It was stopped because stdout is larger than what Polity accepts.
    pub too_large: bool,
}

/// Why the command is no longer watched.
enum End {
    Exited(std::io::Result<std::process::ExitStatus>),
    TooLarge,
    TimedOut,
    Stopped,
}

/// Runs the command to its end. `stopped` completes when the Pod is asked to end.
pub async fn run(command: &[String], input: &Input, timeout: Duration, masks: &Masks, stopped: impl Future<Output = ()>) -> Report {
    let mut child = match spawn(command, input.traceparent.as_deref()) {
        Ok(child) => child,
        Err(e) => {
            let program = command.first().map_or("", String::as_str);
            let stderr_tail = format!("polity-shim: cannot start {program}: {e}\n");
            return Report { exit_code: CANNOT_START, stderr_tail, ..Report::default() };
        }
    };
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let mut stdout = Vec::new();
    let mut tail = Tail::new(MAX_STDERR_TAIL, masks.longest());
    let too_large = Notify::new();
    let end = {
        let mut pipes = Box::pin(pump(&mut child, &input.text, &mut stdout, &mut tail, &too_large));
        let (end, open) = watch(&mut child, pipes.as_mut(), &too_large, timeout, stopped).await;
        if let Some(group) = group {
            // Fails only when nobody is left in the group.
            let _ = kill_process_group(group, Signal::KILL);
        }
        if open {
            let _ = tokio::time::timeout(PIPE_GRACE, pipes).await;
        }
        end
    };
    let timed_out = matches!(end, End::TimedOut);
    let overflow = matches!(end, End::TooLarge);
    let status = match end {
        End::Exited(status) => status,
        End::TooLarge | End::TimedOut | End::Stopped => child.wait().await,
    };
    let too_large = overflow || stdout.len() > MAX_STDOUT;
    Report {
        exit_code: status.as_ref().map_or(CANNOT_START, exit_code),
        stdout: if too_large { String::new() } else { String::from_utf8_lossy(&stdout).into_owned() },
        stderr_tail: tail.text(masks),
        timed_out,
        too_large,
    }
}

fn spawn(command: &[String], traceparent: Option<&str>) -> std::io::Result<Child> {
    let (program, arguments) = command.split_first().ok_or_else(|| std::io::Error::other("no command"))?;
    let mut child = Command::new(program);
    child.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("POLITY_") {
            child.env_remove(name);
        }
    }
    if let Some(traceparent) = traceparent {
        child.env("TRACEPARENT", traceparent);
    }
    child.spawn()
}

/// Feeds stdin and drains stdout and stderr until all three are closed.
fn pump<'a>(
    child: &mut Child,
    input: &'a [u8],
    stdout: &'a mut Vec<u8>,
    tail: &'a mut Tail,
    too_large: &'a Notify,
) -> impl Future<Output = ()> + use<'a> {
    let (to, from, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    async move {
        let feed = async {
            if let Some(mut to) = to {
                // A command that does not read its input is free to do so.
                let _ = to.write_all(input).await;
                let _ = to.shutdown().await;
            }
        };
        let take = async {
            if let Some(from) = from {
                capture(from, stdout, too_large).await;
            }
        };
        let keep = async {
            if let Some(errors) = errors {
                tail.read(errors).await;
            }
        };
        tokio::join!(feed, take, keep);
    }
}

/// Reads stdout up to one byte more than is accepted.
async fn capture(from: impl AsyncRead + Unpin, stdout: &mut Vec<u8>, too_large: &Notify) {
    let mut limited = from.take(MAX_STDOUT as u64 + 1);
    // A read error is an end: the command is gone then.
    let _ = limited.read_to_end(stdout).await;
    if stdout.len() > MAX_STDOUT {
        too_large.notify_one();
    }
}

/// Waits for whatever ends the command, and tells whether its pipes are still open.
async fn watch(
    child: &mut Child,
    mut pipes: std::pin::Pin<&mut (impl Future<Output = ()> + ?Sized)>,
    too_large: &Notify,
    timeout: Duration,
    stopped: impl Future<Output = ()>,
) -> (End, bool) {
    let deadline = tokio::time::sleep(timeout);
    tokio::pin!(deadline, stopped);
    let mut open = true;
    loop {
        tokio::select! {
            status = child.wait() => return (End::Exited(status), open),
            () = too_large.notified() => return (End::TooLarge, open),
            () = &mut deadline => return (End::TimedOut, open),
            () = &mut stopped => return (End::Stopped, open),
            () = &mut pipes, if open => open = false,
        }
    }
}

fn exit_code(status: &std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(CANNOT_START)
}

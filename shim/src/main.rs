//! `polity-shim`: runs a tool's command inside the tool's own Pod. An init container copies it in
//! (`install`), the tool's container starts with it (`run`). It fetches the input from the edge, gives it to the
//! command on stdin, and posts what came out. It never decides anything, never executes into another container,
//! and keeps neither token nor secret.
//!
//! Exit codes of `run`: 0 the result was accepted; 10 nothing was started; 11 the command ended (or was stopped), its result was not accepted.

mod args;
mod child;
mod edge;
mod install;
mod mask;
mod run;
mod tail;

use clap::Parser as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::process::ExitCode {
    let done = match args::Args::parse().command {
        args::Command::Install { directory } => install::install(&directory).map_err(|e| (run::NOT_STARTED, e.to_string())),
        args::Command::Run { settings, command } => run::run(&settings, &command).await.map_err(|e| (e.exit_code(), e.to_string())),
    };
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err((code, message)) => {
            eprintln!("polity-shim: {message}");
            std::process::ExitCode::from(code)
        }
    }
}

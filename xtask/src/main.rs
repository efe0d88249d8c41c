//! `cargo xtask`: the verbs of this repository. The work is in the modules; this file only names them.

mod cli;
mod cluster;
mod image;
mod packages;
mod paths;
mod run;
mod stop;
mod upstream;
mod wait;

use std::process::ExitCode;

fn main() -> ExitCode {
    match stop::listen().and_then(|()| cli::run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

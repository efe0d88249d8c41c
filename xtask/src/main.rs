//! `cargo xtask`: the verbs of this repository. The work is in the modules; this file only names them.

mod arrows;
mod bench;
mod cli;
mod cluster;
mod deny;
mod generate;
mod host;
mod image;
mod install;
mod packages;
mod paths;
mod product;
mod ready;
mod run;
mod show;
mod stop;
mod suite;
mod up;
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

//! Command line and environment. Everything that `run` needs comes from variables that core sets on the Pod.

use std::path::PathBuf;

/// Runs a tool's command inside its Pod: input from Polity on stdin, output posted back.
#[derive(clap::Parser, Debug)]
#[command(name = "polity-shim", version)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Copy this program into a directory (what the init container does).
    Install {
        /// Directory, e.g. `/run/polity/bin`.
        directory: PathBuf,
    },
    /// Run a command with the call's input and post its result.
    Run {
        #[command(flatten)]
        settings: Settings,
        /// The tool's command with its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

/// Settings of `run`. The names of the variables start with `POLITY_`; none of them reaches the command.
#[derive(clap::Args, Clone, Debug)]
pub struct Settings {
    /// Base URL of the edge, https only.
    #[arg(long, env = "POLITY_URL")]
    pub url: String,
    /// Id of the call.
    #[arg(long, env = "POLITY_CALL_ID")]
    pub call_id: String,
    /// File with this Pod's token. Read again for each request, since the kubelet rotates it.
    #[arg(long, env = "POLITY_TOKEN_FILE")]
    pub token_file: PathBuf,
    /// File with the certificate of Polity's CA, the only one that is trusted.
    #[arg(long, env = "POLITY_CA_FILE")]
    pub ca_file: PathBuf,
    /// How long the command may run.
    #[arg(long, env = "POLITY_TIMEOUT_SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout_seconds: u64,
    /// Directory with the tool's secrets; their values are masked in what is kept of stderr.
    #[arg(long, env = "POLITY_SECRETS_DIR", default_value = "/run/polity/secrets")]
    pub secrets_dir: PathBuf,
    /// How long to go on asking for the input, which may not be known at once, before giving up without a start.
    #[arg(long, env = "POLITY_INPUT_PATIENCE_SECONDS", default_value_t = 120)]
    pub input_patience_seconds: u64,
    /// How long to go on posting the result before giving up.
    #[arg(long, env = "POLITY_RESULT_PATIENCE_SECONDS", default_value_t = 600)]
    pub result_patience_seconds: u64,
}

//! The words of `kubectl polity tool`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Work on Tools.
#[derive(Debug, Subcommand)]
pub enum ToolCommand {
    /// Show what the server of an mcp Tool lists now, how it differs from what is pinned, and what to write to pin it. Writes nothing; ends well
    /// only if both are the same.
    Pin(PinArgs),
}

/// Arguments of `tool pin`.
#[derive(Debug, Args)]
pub struct PinArgs {
    /// Name of the Tool.
    #[arg(required_unless_present = "manifests")]
    pub name: Option<String>,
    /// Manifest files and directories: read the Tool from these, without a cluster.
    #[arg(short = 'f', long = "filename", num_args = 1..)]
    pub manifests: Vec<PathBuf>,
    /// A saved answer to tools/list, instead of asking the server.
    #[arg(long, conflicts_with = "server")]
    pub listing: Option<PathBuf>,
    /// Header to send when the server is asked from this machine, as `NAME: VALUE`. May be given more than once.
    #[arg(long = "header", conflicts_with_all = ["listing", "server"])]
    pub headers: Vec<String>,
    /// URL of the edge, which then asks the server as it does before a call; for those who may update the Tool.
    #[arg(long)]
    pub server: Option<String>,
    /// Org of the Tool, with --server.
    #[arg(long, requires = "server")]
    pub org: Option<String>,
    /// File with a token of audience `polity`, with --server.
    #[arg(long, env = "POLITY_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// File with the certificate of Polity's CA, with --server.
    #[arg(long, env = "POLITY_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: PinOutput,
}

/// How to print a pin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PinOutput {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// A JSON merge patch that pins what is listed now.
    Patch,
}

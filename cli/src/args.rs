//! The command line's grammar. Texts here are the help that users see.

mod tool;

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use polity_policy::FixtureHistory;

pub use tool::{PinArgs, PinOutput, ToolCommand};

/// Govern organisations of AI agents and people.
#[derive(Debug, Parser)]
#[command(name = "kubectl polity", bin_name = "kubectl polity", version)]
pub struct Line {
    /// Cluster to speak with.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Which cluster, as with kubectl.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    /// Context of the kubeconfig.
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// Kubeconfig file.
    #[arg(long, global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the Org; default: the context's.
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check and test Policies from files, without a cluster.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Approve (or deny) what waits for approval, in your own name.
    Approve(ApproveArgs),
    /// List what waits for approval.
    Approvals(ApprovalsArgs),
    /// Call a Tool and show what came out.
    Call(CallArgs),
    /// Ask whether a call would be allowed, without making it: on the cluster in your own name, or offline from files.
    CanI(CanIArgs),
    /// Explain why a call would be decided as it would, from the cluster's definitions or from files: every rule that was tried, the part that fails, what
    /// would pass.
    Explain(ExplainArgs),
    /// Show the Org tree with namespaces, quota and workers.
    Tree(TreeArgs),
    /// Query, export and verify the ledger's records.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Work on Tools.
    #[command(subcommand)]
    Tool(ToolCommand),
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Work on Policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Check every Policy against the Tools beside it: names, types, syntax.
    Check {
        /// Manifest files and directories.
        #[arg(short = 'f', long = "filename", required = true, num_args = 1..)]
        manifests: Vec<PathBuf>,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Decide the calls of test files against manifests and compare with what they expect.
    Test {
        /// Manifest files and directories.
        #[arg(short = 'f', long = "filename", required = true, num_args = 1..)]
        manifests: Vec<PathBuf>,
        /// Test files and directories.
        #[arg(short = 't', long = "tests", required = true, num_args = 1..)]
        tests: Vec<PathBuf>,
        /// Say what the tests try of each rule: how often it was looked at, held and failed, and which of its branches never ran.
        #[arg(long)]
        coverage: bool,
        /// Fail unless each rule failed in a test and each of its branches ran. Says what is left out.
        #[arg(long)]
        full_coverage: bool,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Time the decisions of test files against manifests, on this machine.
    Bench {
        /// Manifest files and directories.
        #[arg(short = 'f', long = "filename", required = true, num_args = 1..)]
        manifests: Vec<PathBuf>,
        /// Test files and directories.
        #[arg(short = 't', long = "tests", required = true, num_args = 1..)]
        tests: Vec<PathBuf>,
        /// Seconds for all of them together.
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        /// Fail if half of a test's decisions take longer than so many microseconds.
        #[arg(long)]
        max_micros: Option<f64>,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Decide recorded calls again with a candidate Policy, and list what would change. Fails if something would.
    Replay {
        /// Manifest files and directories of the organisation as it is.
        #[arg(short = 'f', long = "filename", required = true, num_args = 1..)]
        manifests: Vec<PathBuf>,
        /// Files and directories with the Policies to try: each is added, or takes the place of the one of its name.
        #[arg(short = 'c', long = "candidate", required = true, num_args = 1..)]
        candidates: Vec<PathBuf>,
        /// Exported records, one a line; `-` for standard input.
        #[arg(long)]
        records: PathBuf,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
}

/// Arguments of `approve`.
#[derive(Debug, Args)]
pub struct ApproveArgs {
    /// Name of the Approval.
    pub name: String,
    /// Say no instead; one no denies it.
    #[arg(long)]
    pub deny: bool,
    /// Why, kept in the record.
    #[arg(long)]
    pub reason: Option<String>,
}

/// Arguments of `approvals`.
#[derive(Debug, Args)]
pub struct ApprovalsArgs {
    /// In all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// Arguments of `call`.
#[derive(Debug, Args)]
pub struct CallArgs {
    /// Name of the Tool.
    pub tool: String,
    /// Input as JSON, `@FILE`, or `-` for standard input.
    #[arg(long, default_value = "{}")]
    pub input: String,
    /// Org above that has the Tool.
    #[arg(long)]
    pub tool_org: Option<String>,
    /// Task that the call is for.
    #[arg(long)]
    pub task: Option<String>,
    /// Job space that the call is for.
    #[arg(long)]
    pub job_space: Option<String>,
    /// The same key with the same request never runs twice.
    #[arg(long)]
    pub idempotency_key: Option<String>,
    /// Wait until it has ended, and print its result.
    #[arg(long)]
    pub wait: bool,
    /// Longest time to wait, in seconds.
    #[arg(long, default_value_t = 300)]
    pub timeout: u64,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// Arguments of `can-i`.
#[derive(Debug, Args)]
pub struct CanIArgs {
    /// Name of the Tool.
    pub tool: String,
    /// Input as JSON, `@FILE`, or `-` for standard input.
    #[arg(long, default_value = "{}")]
    pub input: String,
    /// Org above that has the Tool.
    #[arg(long)]
    pub tool_org: Option<String>,
    /// Task that the call would be for; only on a cluster.
    #[arg(long, conflicts_with = "manifests")]
    pub task: Option<String>,
    /// Job space that the call would be for.
    #[arg(long)]
    pub job_space: Option<String>,
    /// Manifest files and directories: decide from these alone, without a cluster.
    #[arg(short = 'f', long = "filename", num_args = 1.., requires = "org")]
    pub manifests: Vec<PathBuf>,
    /// Offline: the Org that the call would be made in.
    #[arg(long, requires = "manifests")]
    pub org: Option<String>,
    /// Offline: the Agent that would call.
    #[arg(long, requires = "manifests", conflicts_with = "caller")]
    pub agent: Option<String>,
    /// Offline: the username that would call.
    #[arg(long, requires = "manifests")]
    pub caller: Option<String>,
    /// Calls before.
    #[command(flatten)]
    pub past: PastArgs,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// What rules are told of calls before, where the ledger is not asked.
#[derive(Debug, Args)]
pub struct PastArgs {
    /// What a counter stands at before the call. Rules that read one that is not given deny with `CountersUnknown`.
    #[arg(long = "counter", value_name = "NAMESPACE/POLICY/COUNTER=VALUE")]
    pub counter: Vec<String>,
    /// How many calls the Task has made before.
    #[arg(long, value_name = "N")]
    pub history_calls: Option<i64>,
    /// A label that results of the Task's calls carried. Repeat it for several.
    #[arg(long, value_name = "LABEL")]
    pub history_label: Vec<String>,
    /// Offline: how often the Task has called a Tool. Repeat it for several.
    #[arg(long, value_name = "TOOL=N", requires = "manifests", value_parser = tool_calls)]
    pub history_tool: Vec<(String, i64)>,
}

fn tool_calls(text: &str) -> Result<(String, i64), String> {
    let wrong = || format!("{text:?} is not of the form TOOL=N, N an integer");
    let (tool, calls) = text.split_once('=').ok_or_else(wrong)?;
    Ok((tool.to_owned(), calls.parse().map_err(|_| wrong())?))
}

impl PastArgs {
    /// Whether anything is said of calls before.
    #[must_use]
    pub fn said(&self) -> bool {
        !self.counter.is_empty() || self.history().is_some()
    }

    /// Counters by name.
    ///
    /// # Errors
    /// One is not of the form `namespace/policy/counter=value`.
    pub fn counters(&self) -> Result<BTreeMap<String, i64>> {
        let read = |text: &String| {
            let (name, value) = text.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        self.counter
            .iter()
            .map(|text| {
                read(text)
                    .with_context(|| format!("--counter {text:?} is not of the form NAMESPACE/POLICY/COUNTER=VALUE, VALUE an integer"))
            })
            .collect()
    }

    /// The history; None: nothing is said of it.
    #[must_use]
    pub fn history(&self) -> Option<FixtureHistory> {
        let said = self.history_calls.is_some() || !self.history_label.is_empty() || !self.history_tool.is_empty();
        said.then(|| FixtureHistory {
            calls: self.history_calls.unwrap_or_default(),
            labels: self.history_label.iter().cloned().collect(),
            tools: self.history_tool.iter().cloned().collect(),
        })
    }
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Name of the Tool.
    pub tool: String,
    /// Input as JSON, `@FILE`, or `-` for standard input. No value of it is shown.
    #[arg(long, default_value = "{}")]
    pub input: String,
    /// Org above that has the Tool.
    #[arg(long)]
    pub tool_org: Option<String>,
    /// Job space that the call would be for.
    #[arg(long)]
    pub job_space: Option<String>,
    /// Manifest files and directories: decide from these alone, without a cluster.
    #[arg(short = 'f', long = "filename", num_args = 1.., requires = "org")]
    pub manifests: Vec<PathBuf>,
    /// Org that the call would be made in; on a cluster the default is that of the namespace.
    #[arg(long)]
    pub org: Option<String>,
    /// Agent that would call.
    #[arg(long, conflicts_with = "caller", required_unless_present = "caller")]
    pub agent: Option<String>,
    /// Username that would call.
    #[arg(long)]
    pub caller: Option<String>,
    /// Calls before.
    #[command(flatten)]
    pub past: PastArgs,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// Arguments of `tree`.
#[derive(Debug, Args)]
pub struct TreeArgs {
    /// Org to start from; default: every root.
    pub org: Option<String>,
}

/// Work on records.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Show the records that fit: from the edge with a token of your own, or from a ledger's directory.
    Query {
        /// Where the records are.
        #[command(flatten)]
        source: SourceArgs,
        /// Which of them.
        #[command(flatten)]
        filter: FilterArgs,
        /// Most records to show.
        #[arg(long)]
        limit: Option<usize>,
        /// Then show records as they come, until interrupted; with --server.
        #[arg(long, conflicts_with_all = ["dir", "until"])]
        follow: bool,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t)]
        output: RecordOutput,
    },
    /// Write an Org's whole chain with its signed roots, one a line, from the edge or from a ledger's directory.
    Export {
        /// Where the records are.
        #[command(flatten)]
        source: SourceArgs,
        /// First sequence to write.
        #[arg(long, default_value_t = 1)]
        from: i64,
        /// How to print. CSV has no signed roots and cannot be verified.
        #[arg(short, long, value_enum, default_value_t)]
        output: RecordOutput,
    },
    /// Print the JSON Schema of exported lines.
    Schema,
    /// Prove that a chain of records is whole: an exported file, or straight from the edge or a ledger's directory.
    Verify {
        /// Exported records, one a line; `-` for standard input.
        #[arg(conflicts_with_all = ["dir", "server"], required_unless_present_any = ["dir", "server"])]
        file: Option<PathBuf>,
        /// Where the records are, without a file.
        #[command(flatten)]
        source: SourceArgs,
        /// A record that must be in it, as `SEQ:HASH`, e.g. from `Org.status.ledger`.
        #[arg(long, value_parser = crate::audit::head)]
        head: Option<polity_ledger::Head>,
        /// Uid that the chain's Org must have.
        #[arg(long)]
        org_uid: Option<String>,
        /// Installation that the chain must be from.
        #[arg(long)]
        installation: Option<String>,
        /// Id of a key that signed its roots, or endorsed those that did. May be given more than once.
        #[arg(long = "key")]
        keys: Vec<String>,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
}

/// Where records are.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// Directory of the ledger (core's volume, or a copy of it).
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// URL of the edge, e.g. `https://polity-edge.polity-system.svc`.
    #[arg(long, conflicts_with = "dir")]
    pub server: Option<String>,
    /// File with a token of audience `polity`, with --server.
    #[arg(long, env = "POLITY_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// File with the certificate of Polity's CA, with --server.
    #[arg(long, env = "POLITY_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Name of the Org; with --dir also its uid.
    #[arg(long, default_value = "")]
    pub org: String,
}

/// Which records are wanted; all that is given must fit.
#[derive(Debug, Args)]
pub struct FilterArgs {
    /// Written at this time or later, e.g. `2026-11-21T00:00:00Z`.
    #[arg(long)]
    pub since: Option<String>,
    /// Written before this time.
    #[arg(long)]
    pub until: Option<String>,
    /// Kind of the record, e.g. `decision`.
    #[arg(long, default_value = "")]
    pub kind: String,
    /// Agent, by name or as `namespace/name`.
    #[arg(long, default_value = "")]
    pub agent: String,
    /// Name of the Tool.
    #[arg(long, default_value = "")]
    pub tool: String,
    /// Task.
    #[arg(long, default_value = "")]
    pub task: String,
    /// Effect of the verdict: `Allow`, `Deny` or `RequireApproval`.
    #[arg(long, default_value = "", value_parser = ["", "Allow", "Deny", "RequireApproval"], hide_possible_values = true)]
    pub verdict: String,
    /// Trace id, or the whole traceparent.
    #[arg(long, default_value = "")]
    pub trace: String,
    /// Id of the action.
    #[arg(long, default_value = "")]
    pub action: String,
}

/// How to print records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RecordOutput {
    /// One JSON object a line.
    #[default]
    Ndjson,
    /// Comma-separated values.
    Csv,
}

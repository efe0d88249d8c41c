//! `polity-worker`: an agent without a model, for examples and tests. `scripted` makes the calls that it was told to make, one after
//! the other, and says in its log what became of each. It decides nothing and never goes round a denial.

mod call;
mod client;
mod identity;
mod line;
mod mailer;
mod scripted;
mod tool;
mod upstream;

use clap::Parser as _;

/// An agent without a model, for examples and tests.
#[derive(clap::Parser)]
#[command(name = "polity-worker", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make the given calls in turn, tell what became of each, then stay idle.
    Scripted(scripted::Settings),
    /// Stand in for a tool: input as JSON on stdin, a receipt as JSON on stdout.
    Tool(tool::Settings),
    /// Stand in for a mail service over HTTP. Sends nothing.
    Mailer(mailer::Settings),
    /// Stand in for somebody's MCP server.
    Upstream(upstream::Settings),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Args { command } = Args::parse();
    match command {
        Command::Scripted(settings) => scripted::run(&settings).await,
        Command::Mailer(settings) => mailer::run(&settings).await,
        Command::Upstream(settings) => upstream::run(&settings).await,
        Command::Tool(settings) => tool::run(&settings, std::io::stdin().lock(), std::io::stdout().lock()),
    }
}

//! The commands that speak with a cluster, as the user of the kubeconfig. Refusals are shown as the server words them.

pub mod approvals;
pub mod approve;
pub mod call;
pub mod tree;
mod warnings;
pub mod world;

use std::future::Future;

use anyhow::{Context, Result};
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
};
use tower::util::MapResponseLayer;
use warnings::Warnings;

use crate::{Verdict, args::ClusterArgs};

/// A cluster and the namespace meant.
pub struct Cluster {
    /// Client.
    pub client: Client,
    /// Namespace.
    pub namespace: String,
    /// Warnings of the API server so far; shown already.
    pub warnings: Warnings,
}

/// Connects, and runs a command.
pub fn run<F: Future<Output = Result<Verdict>>>(args: &ClusterArgs, work: impl FnOnce(Cluster) -> F) -> Result<Verdict> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let cluster = connect(args).await?;
        work(cluster).await
    })
}

async fn connect(args: &ClusterArgs) -> Result<Cluster> {
    // Several crates here could bring a provider; this one is meant. A second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let config = match &args.kubeconfig {
        Some(file) => {
            let kubeconfig = Kubeconfig::read_from(file).with_context(|| format!("cannot read {}", file.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &options).await
        }
        None => Config::from_kubeconfig(&options).await,
    }
    .context("no usable kubeconfig")?;
    let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let warnings = Warnings::default();
    let heard = warnings.clone();
    let layer = MapResponseLayer::new(move |response| heard.show(response));
    let client = ClientBuilder::try_from(config).context("cannot connect")?.with_layer(&layer).build();
    Ok(Cluster { client, namespace, warnings })
}

/// A refusal in the server's own words, without the wrapping of the client.
pub fn worded(error: kube::Error, doing: &str) -> anyhow::Error {
    match error {
        // the API server's own refusal, before anything of Polity was asked
        kube::Error::Api(status) if status.reason == "Forbidden" && status.message.contains("cannot ") => {
            anyhow::anyhow!(
                "{doing}: {}\n  hint: rights in an Org's namespace come from Org.spec.members (calls: growth, engineer, admin; approvals: approver, director)",
                status.message
            )
        }
        kube::Error::Api(status) => anyhow::anyhow!("{doing}: {}", status.message),
        other => anyhow::Error::new(other).context(doing.to_owned()),
    }
}

/// JSON on one line, cut to so many characters.
pub fn short(value: &serde_json::Value, most: usize) -> String {
    let text = value.to_string();
    if text.chars().count() <= most { text } else { text.chars().take(most.saturating_sub(1)).chain(['…']).collect() }
}

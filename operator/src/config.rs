//! Settings of the parts, from the environment (the chart sets them) or flags. Read once in `main`, then passed on.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use polity_ledger::{Postgres, Store};
use polity_runtime::telemetry::{LogConfig, LogFormat};

/// Settings that both parts have.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Namespace that Polity is installed into.
    #[arg(long, env = "POLITY_NAMESPACE", default_value = polity_api::names::SYSTEM_NAMESPACE)]
    pub namespace: String,
    /// Name of this replica.
    #[arg(long, env = "POLITY_POD_NAME")]
    pub pod_name: String,
    /// Filter of log lines, e.g. `info,polity=debug`.
    #[arg(long, env = "POLITY_LOG", default_value = "info")]
    pub log_filter: String,
    /// `json` or `text`.
    #[arg(long, env = "POLITY_LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,
}

impl Common {
    /// How to log.
    #[must_use]
    pub fn log(&self) -> LogConfig {
        LogConfig { format: self.log_format, filter: self.log_filter.clone() }
    }
}

/// Settings of core.
#[derive(Args, Clone, Debug)]
pub struct Core {
    /// What both parts have.
    #[command(flatten)]
    pub common: Common,
    /// Directory of the ledger.
    #[arg(long, env = "POLITY_DATA_DIR", default_value = "/var/lib/polity")]
    pub data_dir: PathBuf,
    /// URL of the Postgres database that keeps the ledger, `postgresql://USER@HOST/DATABASE`, in place of the directory. Encrypted unless it says
    /// `sslmode=disable`.
    #[arg(long, env = "POLITY_LEDGER_POSTGRES_URL", hide_env_values = true, default_value = "")]
    pub ledger_postgres_url: Secret,
    /// File with the password for it, read for each connection.
    #[arg(long, env = "POLITY_LEDGER_POSTGRES_PASSWORD_FILE")]
    pub ledger_postgres_password_file: Option<PathBuf>,
    /// File with the certificates (PEM) that its server's must follow from. Default: those that the machine trusts.
    #[arg(long, env = "POLITY_LEDGER_POSTGRES_CA_FILE")]
    pub ledger_postgres_ca_file: Option<PathBuf>,
    /// Name of a restore of the ledger from a backup, e.g. `2026-11-21-volume-lost`: chains that end before their anchor go on, and record it.
    #[arg(long, env = "POLITY_RESTORE", default_value = "")]
    pub restore: String,
    /// Seconds between two anchors of a growing chain in `Org.status.ledger`. Fewer show a lost tail earlier and write more often.
    #[arg(long, env = "POLITY_ANCHOR_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub anchor_seconds: u64,
    /// Base URL of the edge as agents and shims reach it. Default: `https://polity-edge.NAMESPACE.svc`.
    #[arg(long, env = "POLITY_EDGE_URL")]
    pub edge_url: Option<String>,
    /// More names for the edge's certificate.
    #[arg(long, env = "POLITY_EDGE_NAMES", value_delimiter = ',')]
    pub edge_names: Vec<String>,
    /// Image with the shim, for tools' Pods.
    #[arg(long, env = "POLITY_IMAGE")]
    pub image: String,
    /// Whether nodes here can run Pods; if not, calls of container tools are refused (`NoPodRuntime`).
    #[arg(long, env = "POLITY_PODS", default_value_t = true, action = clap::ArgAction::Set)]
    pub pods: bool,
    /// Server for the edge.
    #[arg(long, env = "POLITY_LISTEN_INTERNAL", default_value = "0.0.0.0:8443")]
    pub listen_internal: SocketAddr,
    /// Health and metrics.
    #[arg(long, env = "POLITY_LISTEN_ADMIN", default_value = "0.0.0.0:8080")]
    pub listen_admin: SocketAddr,
}

/// A setting that may hold a password: shown nowhere.
#[derive(Clone, Default)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Core {
    /// Where the ledger is kept.
    #[must_use]
    pub fn ledger(&self) -> Store {
        if self.ledger_postgres_url.0.is_empty() {
            return Store::Directory(self.data_dir.clone());
        }
        Store::Postgres(Postgres {
            url: self.ledger_postgres_url.0.clone(),
            password_file: self.ledger_postgres_password_file.clone(),
            ca_file: self.ledger_postgres_ca_file.clone(),
        })
    }

    /// Base URL of the edge.
    #[must_use]
    pub fn edge_base(&self) -> String {
        self.edge_url.clone().filter(|u| !u.is_empty()).unwrap_or_else(|| format!("https://polity-edge.{}.svc", self.common.namespace))
    }
}

/// Settings of the edge.
#[derive(Args, Clone, Debug)]
pub struct Edge {
    /// What both parts have.
    #[command(flatten)]
    pub common: Common,
    /// Base URL of core. Default: `https://polity-core.NAMESPACE.svc:8443`.
    #[arg(long, env = "POLITY_CORE_URL")]
    pub core_url: Option<String>,
    /// More names of the edge's certificate, as core has them: what MCP clients may ask it by.
    #[arg(long, env = "POLITY_EDGE_NAMES", value_delimiter = ',')]
    pub edge_names: Vec<String>,
    /// Networks of the cluster (Pods, Services, nodes), which `http` tools never reach.
    #[arg(long, env = "POLITY_CLUSTER_CIDRS", value_delimiter = ',')]
    pub cluster_cidrs: Vec<String>,
    /// OpenID Connect issuers whose tokens are accepted, as a JSON list: `issuerURL`, `audience`, `usernameClaim`, `usernamePrefix`, `groupsClaim`,
    /// `groupsPrefix`, `ca` (PEM).
    #[arg(long, env = "POLITY_OIDC_ISSUERS", default_value = "")]
    pub oidc_issuers: String,
    /// Seconds between two signs of life of a stream of events; as often the reader's token and rights are looked at again.
    #[arg(long, env = "POLITY_EVENTS_HEARTBEAT_SECONDS", default_value_t = 15)]
    pub events_heartbeat_seconds: u64,
    /// Most streams of events of this replica.
    #[arg(long, env = "POLITY_EVENTS_STREAMS", default_value_t = 64)]
    pub events_streams: usize,
    /// Most streams of events of one username on this replica.
    #[arg(long, env = "POLITY_EVENTS_STREAMS_PER_CALLER", default_value_t = 8)]
    pub events_streams_per_caller: usize,
    /// Server for agents and shims.
    #[arg(long, env = "POLITY_LISTEN_GATEWAY", default_value = "0.0.0.0:8443")]
    pub listen_gateway: SocketAddr,
    /// Server for the API server's reviews.
    #[arg(long, env = "POLITY_LISTEN_WEBHOOK", default_value = "0.0.0.0:9443")]
    pub listen_webhook: SocketAddr,
    /// Health and metrics.
    #[arg(long, env = "POLITY_LISTEN_ADMIN", default_value = "0.0.0.0:8080")]
    pub listen_admin: SocketAddr,
}

impl Edge {
    /// Base URL of core.
    #[must_use]
    pub fn core_base(&self) -> String {
        self.core_url.clone().filter(|u| !u.is_empty()).unwrap_or_else(|| format!("https://polity-core.{}.svc:8443", self.common.namespace))
    }
}

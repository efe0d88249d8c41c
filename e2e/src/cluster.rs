//! The cluster under test and clients for it: admin, any user by impersonation, and Polity's own accounts by real tokens.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};

/// Namespace that Polity is installed into.
pub const SYSTEM: &str = "polity-system";

/// A running cluster.
#[derive(Clone)]
pub struct Cluster {
    kubeconfig: PathBuf,
    bin: PathBuf,
}

impl Cluster {
    /// The control plane without a node, as `POLITY_E2E_KUBECONFIG` names it.
    ///
    /// # Errors
    /// The variable is not set: run the tests with `cargo xtask test`.
    pub fn plane() -> Result<Self> {
        Self::from_env("POLITY_E2E_KUBECONFIG")
    }

    /// The cluster with a real node, as `POLITY_E2E_NODE_KUBECONFIG` names it.
    ///
    /// # Errors
    /// The variable is not set: run the tests with `cargo xtask test` as root on Linux.
    pub fn node() -> Result<Self> {
        Self::from_env("POLITY_E2E_NODE_KUBECONFIG")
    }

    fn from_env(variable: &str) -> Result<Self> {
        let path =
            |name: &str| std::env::var_os(name).map(PathBuf::from).with_context(|| format!("{name} is not set: run `cargo xtask test`"));
        Ok(Self { kubeconfig: path(variable)?, bin: path("POLITY_E2E_BIN")? })
    }

    /// Admin's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Directory of the cluster: logs, audit log.
    ///
    /// # Errors
    /// The kubeconfig has no directory.
    pub fn dir(&self) -> Result<&Path> {
        self.kubeconfig.parent().context("kubeconfig without directory")
    }

    /// A client with admin's rights.
    ///
    /// # Errors
    /// The kubeconfig cannot be read.
    pub async fn admin(&self) -> Result<Client> {
        self.client(None, &[]).await
    }

    /// A client that is this user with these groups (besides `system:authenticated`), with that user's rights only.
    ///
    /// # Errors
    /// The kubeconfig cannot be read.
    pub async fn user(&self, name: &str, groups: &[&str]) -> Result<Client> {
        self.client(Some(name), groups).await
    }

    async fn client(&self, user: Option<&str>, groups: &[&str]) -> Result<Client> {
        let mut kubeconfig = Kubeconfig::read_from(&self.kubeconfig)?;
        if let Some(user) = user {
            for named in &mut kubeconfig.auth_infos {
                let auth = named.auth_info.get_or_insert_default();
                auth.impersonate = Some(user.to_owned());
                auth.impersonate_groups = Some(groups.iter().map(|g| (*g).to_owned()).chain(["system:authenticated".to_owned()]).collect());
            }
        }
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }

    /// Writes a kubeconfig for one of Polity's accounts, with a real token, so that RBAC and guards see the account itself.
    ///
    /// # Errors
    /// The account does not exist, or the file cannot be written.
    pub async fn account_kubeconfig(&self, account: &str, target: &Path) -> Result<()> {
        let token = self
            .token(SYSTEM, account, TokenRequestSpec { audiences: Vec::new(), expiration_seconds: Some(86_400), ..Default::default() })
            .await?;
        let mut kubeconfig: serde_json::Value = serde_json::from_slice(&std::fs::read(&self.kubeconfig)?)?;
        kubeconfig["users"][0]["user"] = serde_json::json!({"token": token});
        std::fs::write(target, kubeconfig.to_string())?;
        Ok(())
    }

    /// A token of an account.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn token(&self, namespace: &str, account: &str, spec: TokenRequestSpec) -> Result<String> {
        let api: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(self.admin().await?, namespace);
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let answer = api.create_token_request(account, &PostParams::default(), &request).await?;
        answer.status.map(|s| s.token).context("no token in the answer")
    }

    /// Runs one of the upstream binaries against the cluster and returns its stdout.
    ///
    /// # Errors
    /// It fails; the message has its stderr.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let mut command = Command::new(self.bin.join(program));
        command.args(args).env("KUBECONFIG", &self.kubeconfig).env("HELM_CACHE_HOME", self.dir()?.join("helm"));
        let out = command.output().with_context(|| format!("cannot start {program}"))?;
        if !out.status.success() {
            bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr));
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }
}

/// Root of the repository.
#[must_use]
pub fn repo() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path
}

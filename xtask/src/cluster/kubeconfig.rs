//! Kubeconfig files: one for the admin, who is whoever started the cluster, and one for each part.
//!
//! They embed nothing: certificates and keys are named by their paths. JSON is YAML.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::certs::CLIENTS;
use super::settings::Settings;

pub fn write_all(dir: &Path, settings: &Settings) -> Result<()> {
    for (client, ..) in CLIENTS {
        let path = if *client == "admin" { dir.join("kubeconfig") } else { dir.join(format!("config/{client}.kubeconfig")) };
        let pki = dir.join("pki");
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "polity", "cluster": {
                "server": format!("https://{}", settings.api()),
                "certificate-authority": pki.join("ca.crt"),
            }}],
            "users": [{"name": client, "user": {
                "client-certificate": pki.join(format!("{client}.crt")),
                "client-key": pki.join(format!("{client}.key")),
            }}],
            "contexts": [{"name": "polity", "context": {"cluster": "polity", "user": client}}],
            "current-context": "polity",
        });
        fs::write(&path, serde_json::to_vec_pretty(&config)?).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

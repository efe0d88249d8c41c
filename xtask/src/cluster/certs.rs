//! Certificates and kubeconfigs of a cluster: one CA, one client certificate for each part.

use std::fs;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::Cluster;

/// Writes CA, serving and client certificates into `DIR/pki` and a kubeconfig for each client.
///
/// # Errors
/// A key or file cannot be made.
pub(super) fn write(cluster: &Cluster) -> Result<()> {
    let pki = cluster.dir.join("pki");
    fs::create_dir_all(&pki)?;
    let ca_key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "kubernetes");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let ca = params.self_signed(&ca_key)?;
    fs::write(pki.join("ca.crt"), ca.pem())?;
    let issuer = Issuer::new(params, ca_key);
    let leaf = |file: &str, cn: &str, org: Option<&str>, names: &[String]| -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name.push(DnType::CommonName, cn);
        if let Some(org) = org {
            params.distinguished_name.push(DnType::OrganizationName, org);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        fs::write(pki.join(format!("{file}.crt")), params.signed_by(&key, &issuer)?.pem())?;
        fs::write(pki.join(format!("{file}.key")), key.serialize_pem())?;
        Ok(())
    };
    let mut names: Vec<String> =
        ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"].map(str::to_owned).to_vec();
    names.extend(["127.0.0.1".to_owned(), cluster.address(), cluster.service_ip(1)]);
    leaf("apiserver", "kube-apiserver", None, &names)?;
    leaf("apiserver-kubelet", "kube-apiserver-kubelet-client", Some("system:masters"), &[])?;
    leaf("kubelet-serving", "polity-node", None, &["polity-node".to_owned(), cluster.address()])?;
    let clients = [
        ("admin", "admin", Some("system:masters")),
        ("controller-manager", "system:kube-controller-manager", None),
        ("scheduler", "system:kube-scheduler", None),
        ("kubelet", "system:node:polity-node", Some("system:nodes")),
        ("proxy", "system:kube-proxy", None),
    ];
    for (file, cn, org) in clients {
        leaf(file, cn, org, &[])?;
        let target = if file == "admin" { cluster.kubeconfig() } else { cluster.dir.join(format!("{file}.kubeconfig")) };
        fs::write(target, kubeconfig(cluster, file)?)?;
    }
    let accounts = KeyPair::generate()?;
    fs::write(pki.join("accounts.key"), accounts.serialize_pem())?;
    fs::write(pki.join("accounts.pub"), accounts.public_key_pem())?;
    Ok(())
}

/// A kubeconfig that carries its certificates.
fn kubeconfig(cluster: &Cluster, client: &str) -> Result<String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let pki = cluster.dir.join("pki");
    let data = |file: String| -> Result<String> { Ok(STANDARD.encode(fs::read(pki.join(file))?)) };
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "polity",
        "clusters": [{"name": "polity", "cluster": {"server": cluster.server(), "certificate-authority-data": data("ca.crt".to_owned())?}}],
        "users": [{"name": client, "user": {
            "client-certificate-data": data(format!("{client}.crt"))?, "client-key-data": data(format!("{client}.key"))?}}],
        "contexts": [{"name": "polity", "context": {"cluster": "polity", "user": client}}],
    });
    Ok(serde_json::to_string_pretty(&config)?)
}

//! Certificates of a cluster: one CA for Kubernetes, one for etcd, and the key that signs tokens.
//!
//! Keys are made anew at each start and never leave the cluster's folder.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use time::{Duration, OffsetDateTime};

use super::process::secret;
use super::settings::{API_SERVICE, NODE, Settings};

/// Who gets a client certificate: file, common name, organization.
pub const CLIENTS: &[(&str, &str, &str)] = &[
    ("admin", "polity-admin", "system:masters"),
    ("kube-controller-manager", "system:kube-controller-manager", ""),
    ("kube-scheduler", "system:kube-scheduler", ""),
    ("kube-proxy", "system:kube-proxy", ""),
    ("kubelet", "system:node:polity-node", "system:nodes"),
    ("coredns", "system:coredns", ""),
    ("apiserver-kubelet", "kube-apiserver-kubelet-client", "system:masters"),
];

type Authority = Issuer<'static, KeyPair>;

pub fn write(dir: &Path, settings: &Settings) -> Result<()> {
    let pki = dir.join("pki");
    let kubernetes = authority(&pki, "ca", "kubernetes-ca")?;
    let address = settings.address().to_string();
    let service = API_SERVICE.to_string();
    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"];
    let names: Vec<&str> = names.into_iter().chain(["127.0.0.1", &service, &address]).collect();
    issue(&pki, &kubernetes, "apiserver", "kube-apiserver", "", &names)?;
    issue(&pki, &kubernetes, "kubelet-server", &format!("system:node:{NODE}"), "system:nodes", &[NODE, &address])?;
    for (file, name, organization) in CLIENTS {
        issue(&pki, &kubernetes, file, name, organization, &[])?;
    }
    let etcd = authority(&pki, "etcd-ca", "etcd-ca")?;
    issue(&pki, &etcd, "etcd", "etcd", "", &["localhost", "127.0.0.1"])?;
    issue(&pki, &etcd, "apiserver-etcd", "kube-apiserver", "", &[])?;
    let tokens = KeyPair::generate().context("make the key of tokens")?;
    secret(&pki.join("tokens.key"), &tokens.serialize_pem())?;
    fs::write(pki.join("tokens.pub"), tokens.public_key_pem()).context("write tokens.pub")
}

fn params(names: &[&str], common: &str, organization: &str) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).with_context(|| format!("names of {common}"))?;
    params.distinguished_name.push(DnType::CommonName, common);
    if !organization.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(365);
    Ok(params)
}

fn authority(pki: &Path, file: &str, name: &str) -> Result<Authority> {
    let mut params = params(&[], name, "")?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().context("make a key")?;
    let certificate = params.self_signed(&key).with_context(|| format!("sign {name}"))?;
    fs::write(pki.join(format!("{file}.crt")), certificate.pem())?;
    secret(&pki.join(format!("{file}.key")), &key.serialize_pem())?;
    Ok(Issuer::new(params, key))
}

/// A certificate for clients, and with names for servers too.
fn issue(pki: &Path, authority: &Authority, file: &str, common: &str, organization: &str, names: &[&str]) -> Result<()> {
    let mut params = params(names, common, organization)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if !names.is_empty() {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    let key = KeyPair::generate().context("make a key")?;
    let certificate = params.signed_by(&key, authority).with_context(|| format!("sign {file}"))?;
    fs::write(pki.join(format!("{file}.crt")), certificate.pem())?;
    secret(&pki.join(format!("{file}.key")), &key.serialize_pem())
}

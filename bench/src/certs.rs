//! One throw-away CA and a certificate for `localhost`, made for a run: every server under test serves the same one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Files of a run.
pub struct Certs {
    folder: PathBuf,
}

impl Certs {
    /// Makes them (ECDSA P-256).
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn make(folder: &Path) -> Result<Self> {
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::new(vec![])?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_certificate = ca.self_signed(&ca_key)?;
        let key = KeyPair::generate()?;
        let leaf = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let leaf = leaf.signed_by(&key, &Issuer::from_params(&ca, &ca_key))?;
        fs::write(folder.join("ca.crt"), ca_certificate.pem())?;
        fs::write(folder.join("tls.crt"), leaf.pem())?;
        fs::write(folder.join("tls.key"), key.serialize_pem())?;
        Ok(Self::in_folder(folder))
    }

    /// Those made before.
    pub fn in_folder(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Path of the certificate.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("tls.crt")
    }

    /// Path of its key.
    pub fn key(&self) -> PathBuf {
        self.folder.join("tls.key")
    }

    /// For a client that trusts the CA only.
    ///
    /// # Errors
    /// When the CA cannot be read.
    pub fn client(&self) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.folder.join("ca.crt"))?)?;
        Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
    }

    /// For a server, by the code that the edge serves with.
    ///
    /// # Errors
    /// When the files do not fit.
    pub fn server(&self) -> Result<ServerConfig> {
        let read = |name: &str| fs::read_to_string(self.folder.join(name));
        let certs = polity_runtime::tls::Certs::empty();
        certs.install(&read("tls.crt")?, &read("tls.key")?, &read("ca.crt")?)?;
        Ok(certs.server_config(&polity_runtime::tls::ClientAuth::None)?)
    }
}

//! TLS that is renewed while it serves: one place holds the present certificate, key and trusted CAs, and every server and
//! client configuration made from it looks there at each handshake. Nothing is read from disk, nothing is restarted.
//!
//! Never serves without a certificate (handshakes fail until there is one) and never trusts anything but Polity's own CA.

use std::sync::{Arc, Once};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error as RustlsError, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    server::{
        ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use tokio::sync::watch;

use crate::x509;

/// Installs ring as the process's crypto, once; later calls do nothing.
pub fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if ring::default_provider().install_default().is_err() {
            tracing::debug!("a crypto provider was installed before");
        }
    });
}

/// What is wrong with certificates.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No usable PEM.
    #[error("the {0} is not readable PEM")]
    Pem(&'static str),
    /// Certificate and key do not fit, or rustls refuses them.
    #[error("certificate refused: {0}")]
    Refused(#[from] RustlsError),
    /// No trusted CA among them.
    #[error("no CA certificate to trust: {0}")]
    NoCa(String),
    /// The certificate cannot be parsed.
    #[error(transparent)]
    X509(#[from] x509::X509Error),
    /// The HTTP client cannot be made.
    #[error("cannot make the client: {0}")]
    Client(String),
}

/// Whom a server lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Anybody; who they are is found out otherwise (tokens), or by the API server's own rules.
    None,
    /// Only who presents a certificate of our CA that carries this DNS name.
    Required {
        /// The name.
        dns_name: String,
    },
}

/// The certificate in force and what belongs to it.
#[derive(Debug)]
struct Material {
    key: Arc<CertifiedKey>,
    servers: Arc<WebPkiServerVerifier>,
    clients: Arc<dyn ClientCertVerifier>,
    not_before: Timestamp,
    not_after: Timestamp,
    ca_pem: Arc<str>,
    digest: [u8; 32],
}

/// Holds the certificate in force.
#[derive(Debug)]
pub struct Certs {
    current: ArcSwapOption<Material>,
    changed: watch::Sender<u64>,
    provider: Arc<CryptoProvider>,
}

impl Certs {
    /// Without a certificate yet.
    #[must_use]
    pub fn empty() -> Arc<Self> {
        install_crypto();
        Arc::new(Self { current: ArcSwapOption::empty(), changed: watch::Sender::new(0), provider: Arc::new(ring::default_provider()) })
    }

    /// Puts a certificate in force. `ca` may hold several CAs (during a rotation). Answers whether anything changed; on an
    /// error what was in force stays.
    ///
    /// # Errors
    /// When something cannot be read, or key and certificate do not belong together.
    pub fn install(&self, cert_pem: &str, key_pem: &str, ca_pem: &str) -> Result<bool, TlsError> {
        let digest = x509::digest(&[cert_pem, key_pem, ca_pem]);
        if self.current.load().as_ref().is_some_and(|m| m.digest == digest) {
            return Ok(false);
        }
        let chain = certificates(cert_pem, "certificate")?;
        let leaf = chain.first().ok_or(TlsError::Pem("certificate"))?;
        let life = x509::Life::of(leaf)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| TlsError::Pem("key"))?;
        let key = Arc::new(CertifiedKey::from_der(chain, key, &self.provider)?);
        let mut roots = RootCertStore::empty();
        for ca in certificates(ca_pem, "CA certificate")? {
            roots.add(ca)?;
        }
        let roots = Arc::new(roots);
        let servers = WebPkiServerVerifier::builder_with_provider(roots.clone(), self.provider.clone());
        let clients = WebPkiClientVerifier::builder_with_provider(roots, self.provider.clone());
        let material = Material {
            key,
            servers: servers.build().map_err(|e| TlsError::NoCa(e.to_string()))?,
            clients: clients.clear_root_hint_subjects().build().map_err(|e| TlsError::NoCa(e.to_string()))?,
            not_before: life.not_before,
            not_after: life.not_after,
            ca_pem: ca_pem.into(),
            digest,
        };
        self.current.store(Some(Arc::new(material)));
        self.changed.send_modify(|n| *n += 1);
        Ok(true)
    }

    /// Tells of every change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The CAs trusted at present, as PEM.
    #[must_use]
    pub fn ca_pem(&self) -> Option<Arc<str>> {
        self.current.load().as_ref().map(|m| m.ca_pem.clone())
    }

    /// Whether there is a certificate, valid at `now`. For readiness.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn valid(&self, now: Timestamp) -> Result<(), String> {
        let current = self.current.load();
        let Some(material) = current.as_ref() else { return Err("no certificate yet".to_owned()) };
        if now < material.not_before {
            return Err(format!("the certificate is not valid before {}", material.not_before));
        }
        if now >= material.not_after {
            return Err(format!("the certificate expired at {}", material.not_after));
        }
        Ok(())
    }

    /// When the certificate in force ends.
    #[must_use]
    pub fn not_after(&self) -> Option<Timestamp> {
        self.current.load().as_ref().map(|m| m.not_after)
    }

    /// A server configuration for HTTP/2 and HTTP/1.1 that never has to be made again.
    ///
    /// # Errors
    /// When rustls refuses its own defaults.
    pub fn server_config(self: &Arc<Self>, auth: &ClientAuth) -> Result<ServerConfig, TlsError> {
        let builder = ServerConfig::builder_with_provider(self.provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match auth {
            ClientAuth::None => builder.with_no_client_auth(),
            ClientAuth::Required { dns_name } => {
                builder.with_client_cert_verifier(Arc::new(OurClients { certs: self.clone(), name: server_name(dns_name)? }))
            }
        };
        let mut config = builder.with_cert_resolver(self.clone());
        if *auth != ClientAuth::None {
            // A resumed session would let in a client whose certificate has ended since.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// A client configuration that presents our certificate and trusts our CA alone. With `name`, the server's certificate must
    /// carry that DNS name whatever host was dialled; without, the host's.
    ///
    /// # Errors
    /// When `name` is no DNS name.
    pub fn client_config(self: &Arc<Self>, name: Option<&str>) -> Result<ClientConfig, TlsError> {
        let name = name.map(server_name).transpose()?;
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(OurServer { certs: self.clone(), name }))
            .with_client_cert_resolver(self.clone());
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    fn material(&self) -> Result<Arc<Material>, RustlsError> {
        self.current.load_full().ok_or_else(|| RustlsError::General("no certificate yet".to_owned()))
    }
}

fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|_| TlsError::Pem(what))
}

fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(|e| TlsError::Client(e.to_string()))
}

impl ResolvesServerCert for Certs {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load().as_ref().map(|m| m.key.clone())
    }
}

impl ResolvesClientCert for Certs {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.current.load().as_ref().map(|m| m.key.clone())
    }

    fn has_certs(&self) -> bool {
        self.current.load().is_some()
    }
}

/// Verifies servers with the CAs in force at the time of the handshake.
#[derive(Debug)]
struct OurServer {
    certs: Arc<Certs>,
    name: Option<ServerName<'static>>,
}

/// Verifies clients with the CAs in force at the time of the handshake, and their name.
#[derive(Debug)]
struct OurClients {
    certs: Arc<Certs>,
    name: ServerName<'static>,
}

impl ServerCertVerifier for OurServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        dialled: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        let name = self.name.as_ref().unwrap_or(dialled);
        self.certs.material()?.servers.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        m: &[u8],
        c: &CertificateDer<'_>,
        d: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls12_signature(m, c, d, &self.certs.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        m: &[u8],
        c: &CertificateDer<'_>,
        d: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(m, c, d, &self.certs.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.certs.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for OurClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, RustlsError> {
        let verified = self.certs.material()?.clients.verify_client_cert(end_entity, intermediates, now)?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, &self.name)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        m: &[u8],
        c: &CertificateDer<'_>,
        d: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls12_signature(m, c, d, &self.certs.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        m: &[u8],
        c: &CertificateDer<'_>,
        d: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(m, c, d, &self.certs.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.certs.provider.signature_verification_algorithms.supported_schemes()
    }
}

//! Where a call goes: URL, the address that it is connected to, and whose certificates are trusted.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use polity_api::{
    reasons,
    tool::{Endpoint, Scheme, ServiceRef},
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use url::{Host, Url};

use super::{HttpTools, Ran};

/// Certificates trusted where a Tool names none: those of the edge's image (or `SSL_CERT_FILE`).
#[derive(Clone, Debug)]
pub struct Roots(Arc<rustls::RootCertStore>);

impl Roots {
    /// Reads the system's certificates. None found is no error: then only Tools with a `caBundle` of their own can be reached over TLS.
    #[must_use]
    pub fn system() -> Self {
        let found = rustls_native_certs::load_native_certs();
        let mut store = rustls::RootCertStore::empty();
        let (good, bad) = store.add_parsable_certificates(found.certs);
        tracing::info!(good, bad, errors = found.errors.len(), "trusted certificates for http Tools");
        Self(Arc::new(store))
    }

    /// Exactly these.
    #[must_use]
    pub fn of(store: rustls::RootCertStore) -> Self {
        Self(Arc::new(store))
    }
}

/// Where a call goes.
#[derive(Debug)]
pub(super) struct Target {
    pub url: Url,
    /// The host of `url` is connected to at this address, without another lookup.
    pub address: SocketAddr,
    pub tls: rustls::ClientConfig,
}

fn not_ready(message: impl Into<String>) -> Ran {
    Ran::not_done(reasons::TOOL_NOT_READY, message)
}

fn refused(message: impl Into<String>) -> Ran {
    Ran::not_done(reasons::EGRESS_REFUSED, message)
}

/// Finds and judges the target.
pub(super) async fn find(tools: &HttpTools, namespace: &str, endpoint: &Endpoint<'_>) -> Result<Target, Ran> {
    let tls = tls(tools, endpoint.ca_bundle)?;
    match (endpoint.url, endpoint.service) {
        (Some(url), None) => outside(tools, url, tls).await,
        (None, Some(service)) => inside(tools, namespace, service, tls).await,
        _ => Err(not_ready("the Tool must name exactly one of url and service")),
    }
}

async fn outside(tools: &HttpTools, url: &str, tls: rustls::ClientConfig) -> Result<Target, Ran> {
    let url: Url = url.parse().map_err(|e| not_ready(format!("the Tool's url is none: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
        return Err(not_ready("the Tool's url must be http or https, without user and password"));
    }
    let port = url.port_or_known_default().ok_or_else(|| not_ready("the Tool's url has no port"))?;
    let egress = tools.egress.load_full().ok_or_else(|| refused("the cluster's own address ranges are not known yet"))?;
    let host = url.host().ok_or_else(|| not_ready("the Tool's url has no host"))?;
    let addresses = match &host {
        Host::Ipv4(v4) => vec![IpAddr::V4(*v4)],
        Host::Ipv6(v6) => vec![IpAddr::V6(*v6)],
        Host::Domain(name) => {
            let found = tools.lookup.addresses(name).await;
            found.map_err(|e| Ran::not_done(reasons::TOOL_FAILED, format!("{name} has no address: {e}")))?
        }
    };
    // One bad address among good ones is refused as a whole: whoever answers for the name may mean any of them.
    for address in &addresses {
        egress.outside(*address).map_err(|e| refused(format!("{host}: {e}")))?;
    }
    let address = addresses.first().ok_or_else(|| Ran::not_done(reasons::TOOL_FAILED, format!("{host} has no address")))?;
    Ok(Target { address: SocketAddr::new(*address, port), url, tls })
}

async fn inside(tools: &HttpTools, namespace: &str, service: &ServiceRef, tls: rustls::ClientConfig) -> Result<Target, Ran> {
    let scheme = match service.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let port = u16::try_from(service.port).map_err(|_| not_ready("the Service's port is none"))?;
    let text = format!("{scheme}://{}.{namespace}.svc:{port}{}", service.name, service.path);
    let url: Url = text.parse().map_err(|e| not_ready(format!("the Service's address is none: {e}")))?;
    // A path cannot make another host of it.
    if url.host_str() != Some(&format!("{}.{namespace}.svc", service.name)) {
        return Err(not_ready("the Service's name or path is none"));
    }
    let egress = tools.egress.load_full().ok_or_else(|| refused("the cluster's own address ranges are not known yet"))?;
    let address = tools.lookup.service(namespace, &service.name).await.map_err(|e| Ran::not_done(reasons::TOOL_FAILED, e))?;
    egress.service(address).map_err(|e| refused(format!("Service {}: {e}", service.name)))?;
    Ok(Target { url, address: SocketAddr::new(address, port), tls })
}

fn tls(tools: &HttpTools, bundle: Option<&str>) -> Result<rustls::ClientConfig, Ran> {
    let roots = match bundle {
        None => tools.roots.0.clone(),
        Some(pem) => Arc::new(bundled(pem).map_err(|e| not_ready(format!("the Tool's caBundle: {e}")))?),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| not_ready(format!("TLS: {e}")))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn bundled(pem: &str) -> Result<rustls::RootCertStore, String> {
    let mut store = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|e| e.to_string())?;
        store.add(certificate).map_err(|e| e.to_string())?;
    }
    if store.is_empty() { Err("it has no certificate".to_owned()) } else { Ok(store) }
}

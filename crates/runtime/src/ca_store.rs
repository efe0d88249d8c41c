//! Core's side of certificates: keeps the CA in Secret `polity-ca`, the edge's certificate in `polity-edge-tls`, its own in
//! memory, and the CA in the webhook configurations; renews each in time. The order is always trust first, leaf second.
//!
//! Runs in the one process that holds the lease. Never touches a Secret that Polity did not make: it says so and waits.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        core::v1::Secret,
    },
};
use kube::{
    Api, Client, Resource,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use polity_api::names;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::Backoff,
    ca::{Authority, Lives, MintError, Pair},
    clock::SharedClock,
    tls::{Certs, TlsError},
};

/// On Secrets: made, and therefore also replaced, by this part of Polity.
pub const MADE_BY: &str = "polity.dev/made-by";
/// Time between two looks. A look reads four objects and writes nothing when all is well.
const INTERVAL: Duration = Duration::from_secs(10);

/// What to make certificates for.
#[derive(Clone, Debug)]
pub struct CaConfig {
    /// Namespace of core and edge.
    pub namespace: String,
    /// DNS names and IP addresses of the edge, besides its Services'.
    pub edge_names: Vec<String>,
    /// How long things live.
    pub lives: Lives,
}

impl CaConfig {
    /// The usual lives, and no further names.
    #[must_use]
    pub fn new(namespace: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), edge_names: Vec::new(), lives: Lives::default() }
    }

    /// Every name of the edge's certificate.
    #[must_use]
    pub fn edge(&self) -> Vec<String> {
        let mut all = service_names(names::EDGE, &self.namespace);
        all.extend(service_names("polity-webhook", &self.namespace));
        all.extend(self.edge_names.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()));
        all
    }

    /// Every name of core's certificate.
    #[must_use]
    pub fn core(&self) -> Vec<String> {
        service_names(names::CORE, &self.namespace)
    }
}

fn service_names(service: &str, namespace: &str) -> Vec<String> {
    vec![
        service.to_owned(),
        format!("{service}.{namespace}"),
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
    ]
}

/// Why certificates are not in order.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The API server refused or failed.
    #[error("cannot {what}")]
    Api {
        /// What was tried.
        what: String,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// A certificate cannot be made.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// Our own certificate cannot be put in force.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Somebody else's Secret is in the way.
    #[error(
        "Secret {0} exists and was not made by Polity (annotation {MADE_BY} is missing): it is left alone; delete it, or set the annotation to polity-core if Polity may replace it"
    )]
    Foreign(String),
}

/// Keeps certificates in order.
pub struct CaStore {
    client: Client,
    secrets: Api<Secret>,
    config: CaConfig,
    clock: SharedClock,
    certs: Arc<Certs>,
    own: Mutex<Option<Pair>>,
    bundle: watch::Sender<Option<Arc<str>>>,
}

impl CaStore {
    /// Without certificates yet: `ensure` makes them.
    #[must_use]
    pub fn new(client: Client, config: CaConfig, clock: SharedClock) -> Arc<Self> {
        let secrets = Api::namespaced(client.clone(), &config.namespace);
        Arc::new(Self { client, secrets, config, clock, certs: Certs::empty(), own: Mutex::default(), bundle: watch::Sender::new(None) })
    }

    /// Core's own certificate, for its servers.
    #[must_use]
    pub fn certs(&self) -> &Arc<Certs> {
        &self.certs
    }

    /// What everybody has to trust, PEM: one CA, two during a rotation. None before the first `ensure`.
    #[must_use]
    pub fn bundle_pem(&self) -> Option<Arc<str>> {
        self.bundle.borrow().clone()
    }

    /// Tells of a new bundle.
    #[must_use]
    pub fn bundle_changes(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.bundle.subscribe()
    }

    /// Looks again and again until cancelled. What fails is logged and tried again.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(500), INTERVAL);
        loop {
            let wait = match cancel.run_until_cancelled(self.ensure()).await {
                None => return,
                Some(Ok(())) => {
                    backoff.reset();
                    INTERVAL
                }
                Some(Err(error)) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::error!(%error, cause, "certificates are not in order");
                    backoff.wait()
                }
            };
            if cancel.run_until_cancelled(sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    /// Puts everything in order, and writes nothing when it is.
    ///
    /// # Errors
    /// What could not be put in order; what came before it in the order stays done.
    pub async fn ensure(&self) -> Result<(), CaError> {
        let authority = self.authority().await?;
        let bundle = authority.bundle();
        self.publish(&bundle);
        self.fill_webhooks(&bundle).await?;
        let edge = self.edge_leaf(&authority, &bundle).await?;
        let own = self.own_leaf(&authority, &bundle)?;
        if authority.previous_done([&edge, &own], self.clock.now(), &self.config.lives) {
            tracing::info!("every certificate is of the new CA; the previous one is no longer trusted");
            self.save_ca(&Authority { previous: None, ..authority }, &self.stored(names::CA_SECRET).await?).await?;
        }
        Ok(())
    }

    /// The CA in force: as stored, made, or rotated.
    async fn authority(&self) -> Result<Authority, CaError> {
        let (now, lives) = (self.clock.now(), &self.config.lives);
        let stored = self.stored(names::CA_SECRET).await?;
        let found = stored.as_ref().and_then(read_ca);
        let next = match found {
            Some(authority) if !authority.usable() => {
                tracing::warn!("the CA in Secret {} cannot sign; making a new one", names::CA_SECRET);
                Authority::create(now, lives)?
            }
            Some(authority) if authority.due(now) => {
                tracing::info!("two thirds of the CA's life are over; making a new one");
                authority.rotate(now, lives)?
            }
            Some(authority) => return Ok(authority),
            None => {
                tracing::info!("making a CA in Secret {}", names::CA_SECRET);
                Authority::create(now, lives)?
            }
        };
        self.save_ca(&next, &stored).await?;
        Ok(next)
    }

    async fn save_ca(&self, authority: &Authority, stored: &Option<Secret>) -> Result<(), CaError> {
        let mut data = BTreeMap::from([("ca.crt", authority.current.cert.as_str()), ("ca.key", authority.current.key.as_str())]);
        if let Some(previous) = &authority.previous {
            data.insert("previous.crt", previous);
        }
        self.save(names::CA_SECRET, "Opaque", &data, stored.as_ref()).await
    }

    fn publish(&self, bundle: &str) {
        self.bundle.send_if_modified(|present| {
            let new = present.as_deref() != Some(bundle);
            if new {
                *present = Some(bundle.into());
            }
            new
        });
    }

    /// The edge's certificate, replaced when due. Its Secret also carries the bundle.
    async fn edge_leaf(&self, authority: &Authority, bundle: &str) -> Result<Pair, CaError> {
        let (now, lives, wanted) = (self.clock.now(), &self.config.lives, self.config.edge());
        let stored = self.stored(names::EDGE_TLS_SECRET).await?;
        let text = |key| stored.as_ref().and_then(|secret| text(secret, key));
        let present = text("tls.crt").zip(text("tls.key")).map(|(cert, key)| Pair { cert, key });
        let due = match &present {
            Some(pair) => authority.leaf_due(pair, &wanted, now, lives),
            None => Some("there is none"),
        };
        let leaf = match (present, due) {
            (Some(pair), None) if text("ca.crt").as_deref() == Some(bundle) => return Ok(pair),
            (Some(pair), None) => pair,
            (_, why) => {
                tracing::info!(why, "making the edge's certificate");
                authority.issue(&wanted, now, lives)?
            }
        };
        let data = BTreeMap::from([("tls.crt", leaf.cert.as_str()), ("tls.key", leaf.key.as_str()), ("ca.crt", bundle)]);
        self.save(names::EDGE_TLS_SECRET, "kubernetes.io/tls", &data, stored.as_ref()).await?;
        Ok(leaf)
    }

    /// Core's own certificate: lives in memory only, new with each process.
    fn own_leaf(&self, authority: &Authority, bundle: &str) -> Result<Pair, CaError> {
        let (now, lives, wanted) = (self.clock.now(), &self.config.lives, self.config.core());
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let leaf = match own.take() {
            Some(pair) if authority.leaf_due(&pair, &wanted, now, lives).is_none() => pair,
            _ => authority.issue(&wanted, now, lives)?,
        };
        *own = Some(leaf.clone());
        self.certs.install(&leaf.cert, &leaf.key, bundle)?;
        Ok(leaf)
    }

    /// Puts the bundle into both webhook configurations. One that does not exist is none of ours to make.
    async fn fill_webhooks(&self, bundle: &str) -> Result<(), CaError> {
        let wanted = ByteString(bundle.as_bytes().to_vec());
        self.fill::<MutatingWebhookConfiguration>(names::MUTATING_WEBHOOK, &wanted, |config| {
            config.webhooks.iter().flatten().map(|w| (w.name.clone(), w.client_config.ca_bundle.clone())).collect()
        })
        .await?;
        self.fill::<ValidatingWebhookConfiguration>(names::VALIDATING_WEBHOOK, &wanted, |config| {
            config.webhooks.iter().flatten().map(|w| (w.name.clone(), w.client_config.ca_bundle.clone())).collect()
        })
        .await
    }

    async fn fill<K>(&self, name: &str, wanted: &ByteString, hooks: impl Fn(&K) -> Vec<(String, Option<ByteString>)>) -> Result<(), CaError>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let kind = K::kind(&());
        let Some(config) = api.get_opt(name).await.map_err(|e| failed(format!("read {kind} {name}"), e))? else { return Ok(()) };
        let hooks = hooks(&config);
        if hooks.iter().all(|(_, present)| present.as_ref() == Some(wanted)) {
            return Ok(());
        }
        tracing::info!(%kind, name, "filling in caBundle");
        let webhooks: Vec<Value> = hooks.into_iter().map(|(hook, _)| json!({"name": hook, "clientConfig": {"caBundle": wanted}})).collect();
        let apply = json!({"apiVersion": K::api_version(&()), "kind": kind, "metadata": {"name": name}, "webhooks": webhooks});
        // Owns this one field; the rest stays the chart's.
        let params = PatchParams::apply(names::CORE).force();
        api.patch(name, &params, &Patch::Apply(apply)).await.map_err(|e| failed(format!("fill caBundle of {kind} {name}"), e))?;
        Ok(())
    }

    /// A Secret that we may replace: ours, or an empty one made for us.
    async fn stored(&self, name: &str) -> Result<Option<Secret>, CaError> {
        let secret = self.secrets.get_opt(name).await.map_err(|e| failed(format!("read Secret {name}"), e))?;
        match secret {
            Some(secret) if !made_by_us(&secret) && secret.data.as_ref().is_some_and(|d| !d.is_empty()) => {
                Err(CaError::Foreign(name.to_owned()))
            }
            other => Ok(other),
        }
    }

    async fn save(&self, name: &str, type_: &str, data: &BTreeMap<&str, &str>, stored: Option<&Secret>) -> Result<(), CaError> {
        let mut secret = stored.cloned().unwrap_or_else(|| Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some(BTreeMap::from([(names::LABEL_MANAGED_BY.to_owned(), names::MANAGED_BY.to_owned())])),
                ..ObjectMeta::default()
            },
            type_: Some(type_.to_owned()),
            ..Secret::default()
        });
        secret.metadata.annotations.get_or_insert_default().insert(MADE_BY.to_owned(), names::CORE.to_owned());
        secret.metadata.managed_fields = None;
        secret.data = Some(data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))).collect());
        let params = PostParams { field_manager: Some(names::CORE.to_owned()), ..PostParams::default() };
        // Both fail when somebody else was faster: an older view never overwrites.
        let written = match stored {
            Some(_) => self.secrets.replace(name, &params, &secret).await,
            None => self.secrets.create(&params, &secret).await,
        };
        written.map(drop).map_err(|e| failed(format!("write Secret {name}"), e))
    }
}

fn failed(what: String, source: kube::Error) -> CaError {
    CaError::Api { what, source: Box::new(source) }
}

fn made_by_us(secret: &Secret) -> bool {
    secret.metadata.annotations.as_ref().and_then(|a| a.get(MADE_BY)).is_some_and(|by| by == names::CORE)
}

pub(crate) fn text(secret: &Secret, key: &str) -> Option<String> {
    String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok()
}

fn read_ca(secret: &Secret) -> Option<Authority> {
    let current = Pair { cert: text(secret, "ca.crt").unwrap_or_default(), key: text(secret, "ca.key").unwrap_or_default() };
    secret.data.as_ref().filter(|d| !d.is_empty()).map(|_| Authority { current, previous: text(secret, "previous.crt") })
}

#[cfg(test)]
#[path = "ca_store_tests.rs"]
mod tests;

//! An object that a call names and the cache lacks is fetched once, live, before the call is denied: one request for all who
//! ask at the same time, 200 ms at most, few at once. What the cache has is never fetched.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use polity_api::{Task, Tool};
use polity_policy::Key;
use serde::de::DeserializeOwned;
use tokio::{sync::Semaphore, time::timeout};

/// Longest wait for one object.
pub(crate) const PATIENCE: Duration = Duration::from_millis(200);
/// Most fetches at once: a stranger must not be able to make us flood the API server.
const AT_ONCE: usize = 16;

/// Fetches what is missing.
pub(crate) struct Missing {
    client: Client,
    slots: Arc<Semaphore>,
    tasks: Flights<Task>,
    tools: Flights<Tool>,
}

type Flight<K> = Shared<BoxFuture<'static, Option<Arc<K>>>>;
type Flights<K> = Mutex<HashMap<Key, Flight<K>>>;

impl Missing {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, slots: Arc::new(Semaphore::new(AT_ONCE)), tasks: Mutex::default(), tools: Mutex::default() }
    }

    pub(crate) async fn task(&self, namespace: &str, name: &str) -> Option<Arc<Task>> {
        self.fetch(&self.tasks, namespace, name).await
    }

    pub(crate) async fn tool(&self, namespace: &str, name: &str) -> Option<Arc<Tool>> {
        self.fetch(&self.tools, namespace, name).await
    }

    async fn fetch<K>(&self, flights: &Flights<K>, namespace: &str, name: &str) -> Option<Arc<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let key = (namespace.to_owned(), name.to_owned());
        let flight = {
            let mut flights = flights.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that have ended answered at their time; a later question is a new one.
            flights.retain(|_, flight| flight.peek().is_none() && flight.strong_count().unwrap_or(0) > 1);
            flights.entry(key).or_insert_with(|| self.launch(namespace, name)).clone()
        };
        flight.await
    }

    fn launch<K>(&self, namespace: &str, name: &str) -> Flight<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let (slots, name, namespace) = (self.slots.clone(), name.to_owned(), namespace.to_owned());
        async move {
            let fetch = async {
                let _slot = slots.acquire().await.ok()?;
                match api.get_opt(&name).await {
                    Ok(object) => object.map(Arc::new),
                    Err(error) => {
                        tracing::warn!(namespace, name, %error, "cannot fetch an object that the cache lacks");
                        None
                    }
                }
            };
            timeout(PATIENCE, fetch).await.ok().flatten()
        }
        .boxed()
        .shared()
    }
}

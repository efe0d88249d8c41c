//! A way between a part and the API server that a test can make slow, or cut without a word: connections stay open, and nothing that belongs to a watch
//! comes through any more, while every other request is answered. Answers nothing itself and changes nothing on the way.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};
use http::{StatusCode, header};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::cluster::Cluster;

/// Longest body of a request; etcd takes no more.
const LONGEST: usize = 4 << 20;

/// The way. It ends, with all its connections, when it is dropped.
pub struct Between {
    address: std::net::SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    client: Client,
    cut: AtomicBool,
    /// How often it was cut: a stream that was open then never speaks again.
    cuts: AtomicU64,
    delay_millis: AtomicU64,
}

impl Between {
    /// A way to the API server of a cluster, in plain HTTP on loopback; whoever uses it shows his own token.
    ///
    /// # Errors
    /// The kubeconfig cannot be read, or no port is free.
    pub async fn to(cluster: &Cluster) -> Result<Self> {
        let mut kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
        for named in &mut kubeconfig.auth_infos {
            named.auth_info = Some(kube::config::AuthInfo::default());
        }
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let shared = Shared {
            client: Client::try_from(config)?,
            cut: AtomicBool::new(false),
            cuts: AtomicU64::new(0),
            delay_millis: AtomicU64::new(0),
        };
        let shared = Arc::new(shared);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(pass).with_state(shared.clone());
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the way to the API server ended: {error}");
            }
        });
        Ok(Self { address, shared, serving })
    }

    /// Writes a kubeconfig beside another one, with the same account, that goes this way.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn kubeconfig(&self, of: &Path) -> Result<PathBuf> {
        let mut kubeconfig: serde_json::Value = serde_json::from_slice(&std::fs::read(of).with_context(|| format!("{}", of.display()))?)?;
        kubeconfig["clusters"][0]["cluster"]["server"] = format!("http://{}", self.address).into();
        let path = of.with_extension("between");
        std::fs::write(&path, kubeconfig.to_string())?;
        Ok(path)
    }

    /// From now on each request waits so long before it goes on.
    pub fn slow(&self, delay: Duration) {
        self.shared.delay_millis.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Watches hear nothing any more, and nobody tells them: those that are open as well as those to come.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
        self.shared.cuts.fetch_add(1, Ordering::SeqCst);
    }

    /// Watches that are made from now on work. Those that were open stay as they are: open, and mute.
    pub fn restore(&self) {
        self.shared.cut.store(false, Ordering::SeqCst);
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let delay = shared.delay_millis.load(Ordering::Relaxed);
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let watches = request.uri().query().is_some_and(|query| query.split('&').any(|word| word.starts_with("watch=")));
    let cuts = shared.cuts.load(Ordering::SeqCst);
    if watches && shared.cut.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    let (mut parts, body) = request.into_parts();
    parts.headers.remove(header::HOST);
    let Ok(body) = axum::body::to_bytes(body, LONGEST).await else { return StatusCode::BAD_REQUEST.into_response() };
    let request = http::Request::from_parts(parts, kube::client::Body::from(body));
    let (mut parts, body) = match shared.client.send(request).await {
        Ok(response) => response.into_parts(),
        Err(error) => return (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    };
    parts.headers.remove(header::TRANSFER_ENCODING);
    parts.headers.remove(header::CONNECTION);
    let body = Body::new(body);
    if !watches {
        return Response::from_parts(parts, body);
    }
    let spoken = stream::unfold(body.into_data_stream(), move |mut stream| {
        let shared = shared.clone();
        async move {
            let frame = stream.next().await;
            if shared.cuts.load(Ordering::SeqCst) != cuts {
                std::future::pending::<()>().await;
            }
            frame.map(|frame| (frame, stream))
        }
    });
    Response::from_parts(parts, Body::from_stream(spoken))
}

//! Postgres: how its server is reached, and the thread that drives all connections to it.
//!
//! A connection is encrypted and the server's certificate checked, unless the URL says `sslmode=disable` or names a Unix
//! socket: it never falls back. The password may stand in a file, read anew for each connection; no error and no log line
//! shows it. Everything here blocks: it is called by the writer, by threads that may block, and at the opening.

mod claim;
mod schema;
mod session;
mod tls;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use crate::open::OpenError;
use crate::store::StoreError;

pub(crate) use claim::{Again, open_writer, reopen_writer};
pub(crate) use session::Session;
use tls::Tls;

/// Longest wait for a connection; also for the server to acknowledge what was sent.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest wait for the answer to one statement. One that takes longer counts as lost with its connection.
const ANSWER: Duration = Duration::from_secs(60);

/// A Postgres database that keeps the ledger. Its user owns the schema that the ledger's tables are in: the first of
/// the `search_path`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Postgres {
    /// `postgresql://USER@HOST:PORT/DATABASE`, several hosts parted by commas: the one that takes writes is used.
    pub url: String,
    /// File with the password, read for each connection. None: as the URL has it.
    pub password_file: Option<PathBuf>,
    /// File with certificates (PEM) that the server's must follow from. None: those that the machine trusts.
    pub ca_file: Option<PathBuf>,
}

impl fmt::Debug for Postgres {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("password_file", &self.password_file).field("ca_file", &self.ca_file).finish_non_exhaustive()
    }
}

/// A server that connections are made to. The last one that is dropped ends the thread that drives them.
pub(crate) struct Server {
    config: tokio_postgres::Config,
    password_file: Option<PathBuf>,
    tls: Tls,
    driver: Handle,
    _until_dropped: oneshot::Sender<()>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("hosts", &self.config.get_hosts()).finish_non_exhaustive()
    }
}

impl Server {
    /// The server of a configuration. Nothing is connected yet.
    pub(crate) fn new(settings: &Postgres) -> Result<Arc<Self>, OpenError> {
        let wrong = |what: String| OpenError::Config(format!("the URL of Postgres: {what}"));
        let mut config: tokio_postgres::Config = settings.url.parse().map_err(|e| wrong(told(&e)))?;
        if config.get_hosts().is_empty() || config.get_user().is_none() || config.get_dbname().is_none() {
            return Err(wrong("it names a host, a user and a database, as in postgresql://USER@HOST/DATABASE".to_owned()));
        }
        let local = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        let plain = local || config.get_ssl_mode() == SslMode::Disable;
        // `prefer`, which is also what a URL without a word on it has, would fall back to plain text.
        config.ssl_mode(if plain { SslMode::Disable } else { SslMode::Require });
        config.application_name("polity-ledger").target_session_attrs(TargetSessionAttrs::ReadWrite);
        config.connect_timeout(CONNECT).tcp_user_timeout(CONNECT);
        config.keepalives(true).keepalives_idle(CONNECT).keepalives_interval(Duration::from_secs(3)).keepalives_retries(3);
        let tls = if plain { Tls::none() } else { Tls::new(settings.ca_file.as_deref())? };
        let (until_dropped, dropped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(OpenError::Thread)?;
        let driver = runtime.handle().clone();
        std::thread::Builder::new()
            .name("ledger-postgres".to_owned())
            .spawn(move || {
                // Nothing is ever sent: it ends when the sender is dropped.
                let _ = runtime.block_on(dropped);
            })
            .map_err(OpenError::Thread)?;
        Ok(Arc::new(Self { config, password_file: settings.password_file.clone(), tls, driver, _until_dropped: until_dropped }))
    }

    /// What comes within a time, if anything does.
    pub(crate) fn within<T>(&self, longest: Duration, what: impl Future<Output = T>) -> Option<T> {
        self.driver.block_on(async { tokio::time::timeout(longest, what).await.ok() })
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> Result<Session, StoreError> {
        let mut config = self.config.clone();
        if let Some(file) = &self.password_file {
            let read = std::fs::read_to_string(file);
            let password = read.map_err(|e| StoreError::Postgres(format!("no password in {}: {e}", file.display())))?;
            config.password(password.trim_end_matches(['\n', '\r']));
        }
        let connecting = async {
            let (client, connection) = config.connect(self.tls.clone()).await?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::warn!(error = %told(&error), "a connection of the ledger to Postgres ended");
                }
            });
            Ok(client)
        };
        let connected: Result<_, tokio_postgres::Error> =
            self.driver
                .block_on(async { tokio::time::timeout(CONNECT, connecting).await })
                .map_err(|_| StoreError::Lost(format!("Postgres did not answer within {} s", CONNECT.as_secs())))?;
        let client = connected.map_err(|e| StoreError::Lost(format!("no connection to Postgres: {}", told(&e))))?;
        let session = Session::new(client, self.driver.clone());
        // A server that loses this connection shall notice, and give up its lock; it never weakens what a commit means.
        session.batch(
            "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 3; SET tcp_keepalives_count = 3; \
             SET tcp_user_timeout = 15000; SET client_min_messages = warning; SET lock_timeout = '20s'; \
             SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
        )?;
        Ok(session)
    }
}

/// An error with its causes, which its own words leave out.
pub(super) fn told(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

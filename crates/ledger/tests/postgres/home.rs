//! Where the ledgers of these tests are kept: each in a schema of its own, on one server of Postgres.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use polity_ledger::{Config, Postgres, Store};
use tokio_postgres::{NoTls, Row};

use crate::common::Counts;
use crate::server::Server;

/// How often a process is killed.
pub(crate) const CRASHES: u64 = 4;
/// How many sequences of verbs are held against the model.
pub(crate) const MODELS: u32 = 6;

static SERVER: OnceLock<Server> = OnceLock::new();
static MADE: AtomicU64 = AtomicU64::new(0);

/// A place for one ledger.
pub(crate) struct Home {
    url: String,
}

/// The server that all homes share; it ends with this process.
pub(crate) fn shared() -> &'static Server {
    SERVER.get_or_init(Server::start)
}

impl Home {
    pub(crate) fn new() -> Self {
        Self::on(shared())
    }

    /// One on a server of its own.
    pub(crate) fn on(server: &Server) -> Self {
        let schema = format!("t{}", MADE.fetch_add(1, Ordering::Relaxed));
        let home = Self { url: server.url(&schema) };
        home.execute(&format!("CREATE SCHEMA {schema}"));
        home
    }

    /// The same, reached by another socket.
    pub(crate) fn by(&self, socket: &std::path::Path) -> Self {
        Self { url: crate::server::url(socket, 5432, self.schema()) }
    }

    /// End the session that holds the lock, as a network that breaks would.
    pub(crate) fn end_writer(&self) {
        let schema = self.schema();
        let ended = self.number(&format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND objid = '{schema}'::regnamespace::oid"
        ));
        assert_eq!(ended, 1);
    }

    /// One that another process has made, by its name.
    pub(crate) fn of(name: &str) -> Self {
        Self { url: name.to_owned() }
    }

    pub(crate) fn name(&self) -> String {
        self.url.clone()
    }

    pub(crate) fn config(&self, installation: &str) -> Config {
        Config::at(Store::Postgres(Postgres { url: self.url.clone(), ..Postgres::default() }), installation)
    }

    /// Its schema.
    pub(crate) fn schema(&self) -> &str {
        self.url.rsplit("%3D").next().unwrap()
    }

    fn query(&self, sql: &str) -> Vec<Row> {
        query(&self.url, sql)
    }

    /// Change what is stored, behind the ledger's back.
    pub(crate) fn execute(&self, sql: &str) {
        self.query(sql);
    }

    /// As a later version of Polity would leave it.
    pub(crate) fn make_newer(&self) {
        self.execute("UPDATE meta SET value = '99' WHERE name = 'schema'");
    }

    /// A number that is stored.
    pub(crate) fn number(&self, sql: &str) -> i64 {
        self.query(sql)[0].get(0)
    }

    /// The counters as they stand.
    pub(crate) fn counters(&self) -> Counts {
        let rows = self.query("SELECT base, start, used, reserved FROM counters");
        rows.iter().map(|row| ((row.get(0), row.get(1)), (row.get(2), row.get(3)))).collect()
    }

    fn dump(&self) -> std::path::PathBuf {
        shared().dir().join(format!("{}.sql", self.schema()))
    }

    /// Keep a copy of the ledger.
    pub(crate) fn back_up(&self) {
        let mut dump = shared().command("pg_dump");
        let dump =
            dump.args(["-U", "postgres", "-d", "postgres", "-n", self.schema(), "-h"]).arg(shared().dir()).arg("-f").arg(self.dump());
        assert!(dump.status().unwrap().success());
    }

    /// Put the copy in its place.
    pub(crate) fn restore(&self) {
        self.execute(&format!("DROP SCHEMA {} CASCADE", self.schema()));
        let mut load = shared().command("psql");
        let load = load
            .args(["-qX", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres", "-h"])
            .arg(shared().dir())
            .arg("-f")
            .arg(self.dump());
        assert!(load.output().unwrap().status.success());
    }
}

/// Run one statement on a connection of its own, wherever it is called.
pub(crate) fn query(url: &str, sql: &str) -> Vec<Row> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
            tokio::spawn(connection);
            client.query(sql, &[]).await.unwrap()
        })
    };
    std::thread::scope(|threads| threads.spawn(run).join().unwrap())
}

//! Where the ledgers of these tests are kept: each in a directory of its own, by SQLite.

use std::path::PathBuf;

use polity_ledger::Config;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::common::Counts;

/// How often a process is killed.
pub(crate) const CRASHES: u64 = 10;
/// How many sequences of verbs are held against the model.
pub(crate) const MODELS: u32 = 48;

/// A place for one ledger.
pub(crate) struct Home {
    /// Removed with this.
    _own: Option<TempDir>,
    pub(crate) dir: PathBuf,
}

impl Home {
    pub(crate) fn new() -> Self {
        let own = tempfile::tempdir().unwrap();
        Self { dir: own.path().to_owned(), _own: Some(own) }
    }

    /// One that another process has made, by its name.
    pub(crate) fn of(name: &str) -> Self {
        Self { _own: None, dir: name.into() }
    }

    pub(crate) fn name(&self) -> String {
        self.dir.display().to_string()
    }

    pub(crate) fn config(&self, installation: &str) -> Config {
        Config::new(&self.dir, installation)
    }

    fn conn(&self) -> Connection {
        Connection::open(self.dir.join("ledger.db")).unwrap()
    }

    /// Change what is stored, behind the ledger's back.
    pub(crate) fn execute(&self, sql: &str) {
        self.conn().execute_batch(sql).unwrap();
    }

    /// As a later version of Polity would leave it.
    pub(crate) fn make_newer(&self) {
        self.execute("PRAGMA user_version = 99");
    }

    /// A number that is stored.
    pub(crate) fn number(&self, sql: &str) -> i64 {
        self.conn().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// The counters as they stand.
    pub(crate) fn counters(&self) -> Counts {
        let conn = self.conn();
        let mut statement = conn.prepare("SELECT base, start, used, reserved FROM counters").unwrap();
        let rows = statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), (row.get(2)?, row.get(3)?)))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// Keep a copy of the ledger, which is closed.
    pub(crate) fn back_up(&self) {
        std::fs::copy(self.dir.join("ledger.db"), self.dir.join("backup")).unwrap();
    }

    /// Put the copy in its place.
    pub(crate) fn restore(&self) {
        std::fs::copy(self.dir.join("backup"), self.dir.join("ledger.db")).unwrap();
    }
}

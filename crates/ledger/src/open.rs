//! Opening a ledger: directory, lock, migrations, and the check that each chain ends where its head says.
//!
//! It checks the last record of each chain, not the whole chain; that is `verify`'s work. It never repairs.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::chain::position;
use crate::fault::{Fault, Outcome};
use crate::record::hash_of;
use crate::store::lock::Lock;
use crate::store::postgres::{self, Postgres, Server};
use crate::store::{Db, StoreError, sqlite, values};

/// How a ledger is opened.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it is kept.
    pub store: Store,
    /// Name of this installation, e.g. the uid of the namespace `kube-system`. Stands in the first record of
    /// each chain; a ledger of another installation is refused.
    pub installation: String,
    /// Most verbs that share one commit.
    pub max_batch: usize,
    /// Most verbs that wait for the writer; more callers wait for room.
    pub queue: usize,
    /// Most pages of 4 KiB that a database in a directory may have, so that it cannot fill its volume.
    pub max_pages: Option<i64>,
}

/// Where a ledger is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// In a directory on a local file system, by SQLite; made if absent.
    Directory(PathBuf),
    /// In a database of Postgres.
    Postgres(Postgres),
}

impl Config {
    /// The defaults, in a directory.
    pub fn new(dir: impl Into<PathBuf>, installation: impl Into<String>) -> Self {
        Self::at(Store::Directory(dir.into()), installation)
    }

    /// The defaults, wherever it is kept.
    pub fn at(store: Store, installation: impl Into<String>) -> Self {
        Self { store, installation: installation.into(), max_batch: 256, queue: 1024, max_pages: None }
    }
}

/// Why a ledger could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the ledger is open in another process, which holds {what}")]
    Locked {
        /// The lock file, or what stands for it.
        what: String,
    },
    /// A file or directory cannot be made or opened.
    #[error("cannot open {}", path.display())]
    Files {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database refused.
    #[error("cannot open the ledger's database")]
    Store(#[from] StoreError),
    /// A stored value is not what this crate writes.
    #[error("the ledger's database is damaged: {0}")]
    Damaged(String),
    /// The thread that writes could not be started.
    #[error("cannot start the ledger's writer")]
    Thread(#[source] std::io::Error),
    /// A later version of Polity has written it.
    #[error("the ledger has version {found}, this Polity knows {known}: use the later one")]
    Newer {
        /// Version found.
        found: i64,
        /// Newest known.
        known: i64,
    },
    /// An earlier version of Polity has written it, and it is opened for reading only.
    #[error("the ledger has version {found}, this Polity reads {known}: open it for writing once")]
    Older {
        /// Version found.
        found: i64,
        /// Version that is read.
        known: i64,
    },
    /// It belongs to another installation.
    #[error("the ledger belongs to installation {found:?}, not {wanted:?}")]
    OtherInstallation {
        /// Named in the ledger.
        found: String,
        /// Named by the configuration.
        wanted: String,
    },
    /// A chain does not end where its head says.
    #[error("the chain of Org {org} is damaged: {what}")]
    Inconsistent {
        /// Name of the Org.
        org: String,
        /// What is wrong.
        what: String,
    },
    /// The configuration is wrong.
    #[error("ledger configuration: {0}")]
    Config(String),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<Fault> for OpenError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Store(error) => Self::Store(error),
            Fault::Stored(what) => Self::Damaged(what),
            Fault::Refused(refused) => Self::Damaged(refused.to_string()),
        }
    }
}

/// An opened database and the lock on it.
pub(crate) struct Opened {
    pub(crate) db: Db,
    /// The lock of a directory; that of a server is its session's.
    pub(crate) lock: Option<Lock>,
    pub(crate) home: Home,
    /// Heads of the chains, by the Org's uid.
    pub(crate) heads: HashMap<String, i64>,
}

/// Where readers connect, and a writer whose connection was lost.
#[derive(Clone, Debug)]
pub(crate) enum Home {
    /// A database in a directory.
    File(PathBuf),
    /// A server; the lock is its session's.
    Server(Arc<Server>),
}

impl Home {
    /// A connection that only reads.
    pub(crate) fn reader(&self) -> Result<Db, StoreError> {
        Ok(match self {
            Self::File(path) => Db::Sqlite(sqlite::open_reader(path)?),
            Self::Server(server) => Db::Postgres(Box::new(server.connect()?)),
        })
    }
}

/// Open for writing.
pub(crate) fn open(config: &Config) -> Result<Opened, OpenError> {
    if config.installation.is_empty() {
        return Err(OpenError::Config("the installation has no name".to_owned()));
    }
    if config.max_batch == 0 || config.queue == 0 {
        return Err(OpenError::Config("batch and queue must hold at least one".to_owned()));
    }
    let dir = match &config.store {
        Store::Directory(dir) => dir,
        Store::Postgres(postgres) => {
            let server = Server::new(postgres)?;
            let db = postgres::open_writer(&server)?;
            let heads = check(&db, &config.installation)?;
            return Ok(Opened { db, lock: None, home: Home::Server(server), heads });
        }
    };
    std::fs::create_dir_all(dir).map_err(|source| OpenError::Files { path: dir.clone(), source })?;
    let lock = Lock::take(dir)?;
    let path = dir.join(sqlite::FILE);
    touch(&path)?;
    let db = Db::Sqlite(sqlite::open_writer(&path, config.max_pages)?);
    let heads = check(&db, &config.installation)?;
    if let Db::Sqlite(conn) = &db {
        sqlite::flush_apart(conn)?;
    }
    Ok(Opened { db, lock: Some(lock), home: Home::File(path), heads })
}

/// The database holds the keys of digests: for its owner only. SQLite gives its other files the same mode.
fn touch(path: &Path) -> Result<(), OpenError> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(|source| OpenError::Files { path: path.to_owned(), source })
}

/// What is checked of any database that is opened for writing. Returns the heads of the chains.
fn check(db: &Db, wanted: &str) -> Result<HashMap<String, i64>, OpenError> {
    installation(db, wanted)?;
    check_heads(db)?;
    Ok(heads(db)?.into_iter().collect())
}

/// The head of each chain, by the Org's uid.
pub(crate) fn heads(db: &Db) -> Outcome<Vec<(String, i64)>> {
    db.rows("SELECT uid, seq FROM orgs", &[], |row| Ok((row.get(0)?, row.get(1)?)))
}

fn installation(db: &Db, wanted: &str) -> Result<(), OpenError> {
    db.execute("INSERT INTO meta VALUES ('installation', ?1) ON CONFLICT DO NOTHING", values![wanted])?;
    let found: String = db.value("SELECT value FROM meta WHERE name = 'installation'", &[])?;
    if found == wanted {
        return Ok(());
    }
    Err(OpenError::OtherInstallation { found, wanted: wanted.to_owned() })
}

/// Each head is its chain's last record, and that record has its hash.
pub(crate) fn check_heads(db: &Db) -> Result<(), OpenError> {
    let heads: Vec<(i64, String, i64, String)> =
        db.rows("SELECT n, name, seq, hash FROM orgs", &[], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    for (n, org, seq, hash) in heads {
        let wrong = |what: String| OpenError::Inconsistent { org: org.clone(), what };
        let (Ok(from), Ok(to)) = (position(n, 0), position(n + 1, 0)) else {
            return Err(wrong("its number is out of range".to_owned()));
        };
        let sql = "SELECT pos, hash, text FROM records WHERE pos >= ?1 AND pos < ?2 ORDER BY pos DESC LIMIT 1";
        let last: Option<(i64, String, String)> = db.row(sql, values![from, to], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let Some((pos, stored, text)) = last else {
            return Err(wrong(format!("it has no records, its head is {seq}")));
        };
        if pos - from != seq || stored != hash {
            return Err(wrong(format!("its last record is {}, its head {seq}", pos - from)));
        }
        if hash_of(&text) != stored {
            return Err(wrong(format!("record {seq} does not have its hash")));
        }
    }
    Ok(())
}

//! Opening a ledger: directory, lock, migrations, and the check that each chain ends where its head says.
//!
//! It checks the last record of each chain, not the whole chain; that is `verify`'s work. It never repairs.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension};

use crate::chain::position;
use crate::lock::Lock;
use crate::record::hash_of;
use crate::schema;

/// How a ledger is opened.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the database; made if absent. On a local file system.
    pub dir: PathBuf,
    /// Name of this installation, e.g. the uid of the namespace `kube-system`. Stands in the first record of
    /// each chain; a ledger of another installation is refused.
    pub installation: String,
    /// Most verbs that share one commit.
    pub max_batch: usize,
    /// Most verbs that wait for the writer; more callers wait for room.
    pub queue: usize,
    /// Most pages of 4 KiB that the database may have, so that it cannot fill its volume.
    pub max_pages: Option<i64>,
}

impl Config {
    /// The defaults.
    pub fn new(dir: impl Into<PathBuf>, installation: impl Into<String>) -> Self {
        Self { dir: dir.into(), installation: installation.into(), max_batch: 256, queue: 1024, max_pages: None }
    }
}

/// Why a ledger could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the ledger is open in another process, which holds {}", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A file or directory cannot be made or opened.
    #[error("cannot open {}", path.display())]
    Files {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("cannot open the ledger's database")]
    Store(#[from] rusqlite::Error),
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
    Config(&'static str),
}

/// An opened database and the lock on it.
pub(crate) struct Opened {
    pub(crate) conn: Connection,
    pub(crate) lock: Lock,
    pub(crate) path: PathBuf,
    /// Heads of the chains, by the Org's uid.
    pub(crate) heads: HashMap<String, i64>,
}

/// Open for writing.
pub(crate) fn open(config: &Config) -> Result<Opened, OpenError> {
    if config.installation.is_empty() {
        return Err(OpenError::Config("the installation has no name"));
    }
    if config.max_batch == 0 || config.queue == 0 {
        return Err(OpenError::Config("batch and queue must hold at least one"));
    }
    std::fs::create_dir_all(&config.dir).map_err(|source| OpenError::Files { path: config.dir.clone(), source })?;
    let lock = Lock::take(&config.dir)?;
    let path = config.dir.join(schema::FILE);
    touch(&path)?;
    let conn = schema::open_writer(&path, config.max_pages)?;
    installation(&conn, &config.installation)?;
    check_heads(&conn)?;
    let heads =
        conn.prepare("SELECT uid, seq FROM orgs")?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    schema::flush_apart(&conn)?;
    Ok(Opened { conn, lock, path, heads })
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

fn installation(conn: &Connection, wanted: &str) -> Result<(), OpenError> {
    conn.execute("INSERT OR IGNORE INTO meta VALUES ('installation', ?1)", [wanted])?;
    let found: String = conn.query_row("SELECT value FROM meta WHERE name = 'installation'", [], |row| row.get(0))?;
    if found == wanted {
        return Ok(());
    }
    Err(OpenError::OtherInstallation { found, wanted: wanted.to_owned() })
}

/// Each head is its chain's last record, and that record has its hash.
pub(crate) fn check_heads(conn: &Connection) -> Result<(), OpenError> {
    let mut heads = conn.prepare("SELECT n, name, seq, hash FROM orgs")?;
    let mut rows = heads.query([])?;
    while let Some(row) = rows.next()? {
        let (n, org, seq, hash): (i64, String, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        let wrong = |what: String| OpenError::Inconsistent { org: org.clone(), what };
        let (Ok(from), Ok(to)) = (position(n, 0), position(n + 1, 0)) else {
            return Err(wrong("its number is out of range".to_owned()));
        };
        let last: Option<(i64, String, String)> = conn
            .query_row("SELECT pos, hash, text FROM records WHERE pos >= ?1 AND pos < ?2 ORDER BY pos DESC LIMIT 1", [from, to], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()?;
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

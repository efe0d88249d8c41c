//! The lock that keeps a second process off a ledger's directory.
//!
//! The kernel releases it when the process ends, however it ends. It excludes openers on one machine only;
//! across machines the volume's access mode and the epoch do that.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::open::OpenError;

/// Held as long as the ledger is open.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Take the lock of a directory, or say at once that another has it.
    pub(crate) fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("ledger.lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|source| OpenError::Files { path: path.clone(), source })?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked { what: path.display().to_string() }),
            Err(TryLockError::Error(source)) => Err(OpenError::Files { path, source }),
        }
    }
}

//! `install`: copies this program into a directory that the tool's container shares. Written under another name
//! first and renamed, so that a half-written copy is never started.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path};

/// Why the copy failed.
#[derive(Debug, thiserror::Error)]
#[error("copying {from} to {to}: {source}")]
pub struct InstallError {
    from: String,
    to: String,
    source: io::Error,
}

/// Copies the running program to `DIRECTORY/polity-shim`, executable by everybody: the tool's container may run as any user.
pub fn install(directory: &Path) -> Result<(), InstallError> {
    let to = directory.join("polity-shim");
    let copy = || -> io::Result<()> {
        let half = directory.join(".polity-shim.part");
        fs::create_dir_all(directory)?;
        fs::copy(std::env::current_exe()?, &half)?;
        fs::set_permissions(&half, fs::Permissions::from_mode(0o755))?;
        fs::rename(&half, &to)
    };
    copy().map_err(|source| InstallError { from: "this program".to_owned(), to: to.display().to_string(), source })
}

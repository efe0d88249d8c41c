//! MCP clients that others wrote, installed from the lock files of `e2e/clients` into the cache that checkouts share, once for each state of these files.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use sha2::{Digest as _, Sha256};

/// Where the lock files and scripts are.
#[must_use]
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// The Python that has the official client.
///
/// # Errors
/// Python is missing, or the packages cannot be installed.
pub fn python() -> Result<PathBuf> {
    let at = installed("python", &["requirements.txt"], |dir| {
        run(Command::new("python3").args(["-m", "venv"]).arg(dir.join("venv")))?;
        let pip = dir.join("venv/bin/pip");
        run(Command::new(pip)
            .args(["install", "--quiet", "--no-deps", "--disable-pip-version-check", "-r"])
            .arg(dir.join("requirements.txt")))
    })?;
    Ok(at.join("venv/bin/python"))
}

/// Folder of `node_modules` with the official client and the conformance suite.
///
/// # Errors
/// npm is missing, or the packages cannot be installed.
pub fn typescript() -> Result<PathBuf> {
    installed("typescript", &["package.json", "package-lock.json"], |dir| {
        run(Command::new("npm").current_dir(dir).args(["ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]))
    })
}

/// The Node.js that the lock file pins: the machine's own may be older than what the suite needs.
///
/// # Errors
/// There is none for this machine.
pub fn node(modules: &Path) -> Result<PathBuf> {
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    let node = modules.join(format!("node_modules/node-linux-{arch}/bin/node"));
    ensure!(node.exists(), "no Node.js for this machine at {}", node.display());
    Ok(node)
}

/// A folder of the cache with copies of these files and what `install` made of them. Built beside its final place and renamed when whole.
fn installed(name: &str, files: &[&str], install: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let store = cache()?.join("clients");
    fs::create_dir_all(&store)?;
    let mut state = String::new();
    for file in files {
        let path = scripts().join(name).join(file);
        state += &fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    }
    let digest = hex::encode(Sha256::digest(state));
    let named = format!("{name}-{}", digest.get(..16).unwrap_or(&digest));
    let whole = store.join(&named);
    let lock = fs::File::create(store.join(format!(".{name}.lock")))?;
    // Blocks until another checkout has installed the same; the test's own deadline is above this.
    lock.lock()?;
    // A virtual environment names its own path, so it is made where it stays; the mark says that it is whole.
    let mark = whole.join(".whole");
    if !mark.exists() {
        if whole.exists() {
            fs::remove_dir_all(&whole)?;
        }
        fs::create_dir_all(&whole)?;
        for file in files {
            fs::copy(scripts().join(name).join(file), whole.join(file))?;
        }
        install(&whole)?;
        fs::write(&mark, "")?;
    }
    Ok(whole)
}

fn cache() -> Result<PathBuf> {
    std::env::var_os("POLITY_CACHE")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("XDG_CACHE_HOME").map(|base| Path::new(&base).join("polity")))
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/polity")))
        .context("set POLITY_CACHE or HOME: there is no place for the cache")
}

fn run(command: &mut Command) -> Result<()> {
    let told = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(told.status.success(), "{command:?}: {}\n{}", told.status, String::from_utf8_lossy(&told.stderr));
    Ok(())
}

/// Runs a client to its end and gives what it printed.
///
/// # Errors
/// It fails, or does not end within the limit.
pub async fn output(mut command: tokio::process::Command, limit: Duration) -> Result<std::process::Output> {
    let ended = command.stdin(Stdio::null()).kill_on_drop(true).output();
    tokio::time::timeout(limit, ended)
        .await
        .with_context(|| format!("{command:?} does not end"))?
        .with_context(|| format!("cannot start {command:?}"))
}

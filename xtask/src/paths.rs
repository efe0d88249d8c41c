//! Where things are: the checkout, what is built for it, and the cache that checkouts share.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the checkout: where this was compiled, unless `POLITY_CHECKOUT` says that it has moved since.
pub fn root() -> PathBuf {
    if let Some(moved) = std::env::var_os("POLITY_CHECKOUT") {
        return PathBuf::from(moved);
    }
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Everything built for this checkout.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// What outlives a checkout: `$POLITY_CACHE`, else `polity` in the user's cache folder.
pub fn cache() -> Result<PathBuf> {
    let cache = std::env::var_os("POLITY_CACHE")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("XDG_CACHE_HOME").map(|base| Path::new(&base).join("polity")))
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/polity")))
        .context("set POLITY_CACHE or HOME: there is no place for the cache")?;
    std::fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    Ok(cache)
}

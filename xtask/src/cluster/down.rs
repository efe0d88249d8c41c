//! Stopping a cluster: parts in order, then the namespaces with all that is left in them, then files.
//!
//! Only what the cluster's own files name is touched, and it is no error when it is gone already. Logs stay.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::settings::{Form, Settings};
use super::{Cluster, cgroup, holder, link, process};

pub fn down(cluster: &Cluster) -> Result<()> {
    if !cluster.dir.exists() {
        return Ok(());
    }
    let settings = Settings::read(&cluster.dir).ok();
    // A folder with content but without settings is not known to be ours: what runs from it could not be stopped.
    if settings.is_none() && fs::read_dir(&cluster.dir)?.flatten().any(|entry| entry.file_name() != "log") {
        bail!("{} is not a cluster folder of this version; stop what uses it and remove it", cluster.dir.display());
    }
    // What was started on top of the cluster first.
    let parts = settings.as_ref().map(|settings| settings.form.parts()).unwrap_or_default();
    let extra = process::recorded(&cluster.dir).into_iter().filter(|name| !parts.contains(&name.as_str()) && name != holder::NAME);
    for part in extra.chain(parts.iter().map(ToString::to_string)) {
        process::stop(&cluster.dir, &part, Duration::from_secs(10)).with_context(|| format!("stop {part}"))?;
    }
    holder::stop(cluster)?;
    if let Some(settings) = settings.filter(|settings| settings.form == Form::Node) {
        link::disconnect(&settings);
        cgroup::remove(cluster)?;
    }
    for entry in fs::read_dir(&cluster.dir)? {
        let entry = entry?;
        if entry.file_name() == "log" {
            continue;
        }
        let gone = if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        gone.with_context(|| format!("remove {}", entry.path().display()))?;
    }
    Ok(())
}

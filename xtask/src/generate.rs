//! The files that are printed from the Rust types: CRDs, the chart's guards, the reference pages.
//!
//! What they hold is decided in `polity_api::generated`; here they are only written, or compared.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use polity_api::generated::{Content, HEADER, files};

use crate::{paths, run};

/// Folders in which every file is generated, so that one of a kind that is gone is seen.
const OWNED: &[&str] = &["crds", "charts/polity/files/crds", "charts/polity/files/guards", "docs/reference"];

/// Writes all files and removes those that are no more.
pub fn write() -> Result<()> {
    let (wanted, stale) = plan()?;
    for (path, text) in wanted {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        if fs::read_to_string(&path).is_ok_and(|now| now == text) {
            continue;
        }
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        println!("  wrote {}", path.display());
    }
    for path in stale {
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        println!("  removed {}", path.display());
    }
    Ok(())
}

/// Fails with the differences when a file is not what the types say.
pub fn check() -> Result<()> {
    let (wanted, stale) = plan()?;
    let mut differences: Vec<String> = stale.iter().map(|path| format!("{} is of no type", path.display())).collect();
    let scratch = paths::target().join("generated");
    for (path, text) in wanted {
        if fs::read_to_string(&path).is_ok_and(|now| now == text) {
            continue;
        }
        let fresh = scratch.join(path.file_name().unwrap_or_default());
        fs::create_dir_all(&scratch)?;
        fs::write(&fresh, text)?;
        let diff = Command::new("diff").arg("-u").arg(&path).arg(&fresh).output().context("run diff")?;
        let shown: Vec<&str> = std::str::from_utf8(&diff.stdout).unwrap_or_default().lines().take(40).collect();
        differences.push(format!("{} is stale\n{}", path.display(), shown.join("\n")));
    }
    if !differences.is_empty() {
        bail!("run `cargo xtask gen`:\n{}", differences.join("\n"));
    }
    Ok(())
}

type Plan = (Vec<(PathBuf, String)>, Vec<PathBuf>);

/// What is wanted where, and which files are of nothing any more.
fn plan() -> Result<Plan> {
    let root = paths::root();
    let mut wanted = Vec::new();
    for (path, content) in files().context("print the types")? {
        let text = match content {
            Content::Text(text) => text,
            Content::Yaml(documents) => {
                let printed: Result<Vec<String>, _> = documents.iter().map(serde_saphyr::to_string).collect();
                format!("{HEADER}{}", printed.with_context(|| format!("print {path}"))?.join("---\n"))
            }
        };
        wanted.push((root.join(path), text));
    }
    let stale = OWNED
        .iter()
        .flat_map(|folder| fs::read_dir(root.join(folder)).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.is_file() && !wanted.iter().any(|(known, _)| known == path))
        .collect();
    Ok((wanted, stale))
}

/// Formats nothing itself: says whether the sources are as rustfmt would have them.
pub fn formatted() -> Result<()> {
    run::check(Command::new("cargo").current_dir(paths::root()).args(["fmt", "--all", "--check"]))
}

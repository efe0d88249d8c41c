//! YAML, in one place: documents in, JSON values out. Everything else in this program works on JSON.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// One document and where it comes from.
#[derive(Clone, Debug)]
pub struct Document {
    /// File.
    pub file: PathBuf,
    /// What it says.
    pub value: Value,
}

/// Documents of files; of a directory every `.yaml`, `.yml` and `.json` in it, in the order of their names, as `kubectl apply -f` takes them.
pub fn documents(paths: &[PathBuf]) -> Result<Vec<Document>> {
    let mut files = Vec::new();
    for path in paths {
        collect(path, &mut files)?;
    }
    let mut all = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let values = parse(&text).with_context(|| format!("{} is not YAML", file.display()))?;
        all.extend(values.into_iter().map(|value| Document { file: file.clone(), value }));
    }
    if all.is_empty() {
        bail!("no documents found in {}", paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "));
    }
    Ok(all)
}

/// The documents of a text; empty ones are left out, as kubectl does.
pub fn parse(text: &str) -> Result<Vec<Value>> {
    let values: Vec<Value> = serde_saphyr::from_multiple(text)?;
    Ok(values.into_iter().filter(|v| !v.is_null()).collect())
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let about = || format!("cannot read {}", path.display());
    if !path.metadata().with_context(about)?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut entries: Vec<PathBuf> =
        path.read_dir().with_context(about)?.map(|e| e.map(|e| e.path())).collect::<std::io::Result<_>>().with_context(about)?;
    let known = |path: &Path| path.extension().and_then(|e| e.to_str()).is_some_and(|e| matches!(e, "yaml" | "yml" | "json"));
    entries.retain(|entry| known(entry) && !entry.is_dir());
    entries.sort();
    files.append(&mut entries);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_as_kubectl_reads_them() {
        let values = parse("# nothing\n---\na: 1\nb: '1'\nc: true\nd: 24h\ne: 1.0\nf:\n---\n---\n{\"g\": [1]}\n").unwrap();
        assert_eq!(values, [json!({"a": 1, "b": "1", "c": true, "d": "24h", "e": 1.0, "f": null}), json!({"g": [1]})]);
        assert!(parse("a: 1\na: 2\n").is_err(), "the same key twice");
        assert!(parse("a: [").is_err());
    }
}

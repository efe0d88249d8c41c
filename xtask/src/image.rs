//! Writes an image as an OCI layout tar: one layer with a few static binaries, no base, no registry, no Docker.
//! Format: the OCI image layout and image specification, version 1.

use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};

/// Writes `name` with the given files (name in the root, source) and entrypoint.
///
/// # Errors
/// A source cannot be read or the target not written.
pub(crate) fn write(target: &Path, name: &str, files: &[(&str, &PathBuf)], entrypoint: &[&str]) -> Result<()> {
    let layer = layer(files)?;
    let layer_digest = digest(&layer);
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Entrypoint": entrypoint, "User": "65532:65532", "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
    })
    .to_string()
    .into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer_digest, "size": layer.len()}],
    })
    .to_string()
    .into_bytes();
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(&manifest), "size": manifest.len(),
            "platform": {"architecture": "amd64", "os": "linux"},
            "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}}],
    })
    .to_string()
    .into_bytes();
    let mut tar = tar::Builder::new(File::create(target).with_context(|| format!("writing {}", target.display()))?);
    add(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    add(&mut tar, "index.json", &index, 0o644)?;
    for blob in [&config, &manifest, &layer] {
        add(&mut tar, &format!("blobs/sha256/{}", &digest(blob)[7..]), blob, 0o644)?;
    }
    tar.finish()?;
    Ok(())
}

fn layer(files: &[(&str, &PathBuf)]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, source) in files {
        let mut content = Vec::new();
        File::open(source).with_context(|| format!("reading {}", source.display()))?.read_to_end(&mut content)?;
        add(&mut tar, name, &content, 0o755)?;
    }
    Ok(tar.into_inner()?)
}

fn add<W: Write>(tar: &mut tar::Builder<W>, name: &str, content: &[u8], mode: u32) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_cksum();
    tar.append_data(&mut header, name, content)?;
    Ok(())
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

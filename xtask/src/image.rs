//! Container images without a container tool: an OCI layout with one layer, as one archive.
//!
//! The same files give the same bytes, so a digest says whether there is anything new to import.
//! There is nothing in an image but the files named, `/tmp`, and the user that they run as.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// The user that every image runs as.
const USER: u64 = 65532;

/// What goes into an image.
pub struct Image {
    /// Full names, all of the same content. `DIGEST` in a name becomes the first digits of the manifest's digest.
    pub names: Vec<String>,
    /// Path in the image, without the leading slash, and the file it is copied from.
    pub files: Vec<(String, PathBuf)>,
    pub entrypoint: String,
}

/// An archive that was written.
pub struct Written {
    pub path: PathBuf,
    /// Twelve digits that change with the content.
    pub digest: String,
}

/// Writes `image` to `archive`.
pub fn write(image: &Image, archive: &Path) -> Result<Written> {
    if let Some(folder) = archive.parent() {
        fs::create_dir_all(folder)?;
    }
    let layer = archive.with_extension("layer");
    let (layer_digest, layer_size) = write_layer(image, &layer)?;
    let config = serde_json::to_vec(&json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"User": format!("{USER}:{USER}"), "Entrypoint": [image.entrypoint], "WorkingDir": "/", "Env": ["PATH=/"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
    }))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &sha256(&config), config.len() as u64),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer_digest, layer_size)],
    }))?;
    let manifest_digest = sha256(&manifest);
    let digest: String = manifest_digest.chars().take(12).collect();
    let entries = image.names.iter().map(|name| {
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest_digest, manifest.len() as u64);
        entry["annotations"] = json!({"io.containerd.image.name": name.replace("DIGEST", &digest)});
        entry
    });
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": entries.collect::<Vec<Value>>(),
    }))?;

    let mut tar = Builder::new(BufWriter::new(File::create(archive).with_context(|| format!("create {}", archive.display()))?));
    add(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add(&mut tar, "index.json", &index)?;
    add(&mut tar, &format!("blobs/sha256/{manifest_digest}"), &manifest)?;
    add(&mut tar, &format!("blobs/sha256/{}", sha256(&config)), &config)?;
    let mut layer_file = File::open(&layer)?;
    tar.append_data(&mut header(EntryType::Regular, 0o644, layer_size), format!("blobs/sha256/{layer_digest}"), &mut layer_file)?;
    tar.into_inner()?.flush()?;
    fs::remove_file(&layer)?;
    Ok(Written { path: archive.to_owned(), digest })
}

/// The one layer; gives its digest and size.
fn write_layer(image: &Image, layer: &Path) -> Result<(String, u64)> {
    let mut tar = Builder::new(BufWriter::new(File::create(layer).with_context(|| format!("create {}", layer.display()))?));
    tar.append_data(&mut header(EntryType::Directory, 0o1777, 0), "tmp/", std::io::empty())?;
    for (name, from) in &image.files {
        let file = File::open(from).with_context(|| format!("open {}", from.display()))?;
        let size = file.metadata()?.len();
        tar.append_data(&mut header(EntryType::Regular, 0o755, size), name, file)?;
    }
    tar.into_inner()?.flush()?;
    let mut hash = Sha256::new();
    let mut file = File::open(layer)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hash.update(buffer.get(..read).unwrap_or_default()),
        }
    }
    Ok((hex::encode(hash.finalize()), fs::metadata(layer)?.len()))
}

/// Owned by root, dated nowhere.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn add(tar: &mut Builder<impl Write>, name: &str, bytes: &[u8]) -> Result<()> {
    tar.append_data(&mut header(EntryType::Regular, 0o644, bytes.len() as u64), name, bytes).with_context(|| format!("add {name}"))
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size})
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The architecture as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

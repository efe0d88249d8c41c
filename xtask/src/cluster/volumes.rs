//! Static local volumes and their StorageClass, `polity-local`.
//!
//! A volume is used once: when its claim is deleted it stays `Released` with its data, and a new claim
//! takes the next. There are enough for the installs of one cluster's life.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use anyhow::{Context, Result};

use super::settings::NODE;
use super::{Cluster, kubectl};

const COUNT: usize = 12;
/// The user of Polity's image.
const USER: u32 = 65532;

pub fn provision(cluster: &Cluster) -> Result<()> {
    let mut manifest = "\
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: polity-local}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
"
    .to_owned();
    for index in 0..COUNT {
        let folder = cluster.dir.join(format!("node/volumes/{index}"));
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        chown(&folder, Some(USER), Some(USER))?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o770))?;
        manifest.push_str(&format!(
            "---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: polity-local-{index}}}
spec:
  capacity: {{storage: 10Gi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: polity-local
  local: {{path: {folder:?}}}
  nodeAffinity:
    required:
      nodeSelectorTerms:
      - matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [{NODE}]}}]
"
        ));
    }
    kubectl::apply(cluster, &manifest)
}

//! What a cluster chose at its start and must find again: form, addresses, ports.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// ClusterIPs, and the address of the API server and of DNS among them.
pub const SERVICES: &str = "10.215.0.0/16";
pub const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 215, 0, 1);
pub const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 215, 0, 10);
/// Addresses of Pods. Seen only inside the node's network namespace, so every cluster has the same.
pub const PODS: &str = "10.214.0.0/16";
/// Numbers of veth pairs start here.
const FIRST_SLOT: u8 = 16;
/// The name of the one node.
pub const NODE: &str = "polity-node";

/// What a cluster consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Form {
    /// Control plane on loopback.
    Plane,
    /// Control plane on loopback with a scheduler and a simulated node: Pods are said to run, and nothing runs.
    Simulated,
    /// Control plane and one real node, in namespaces of their own.
    Node,
}

impl Form {
    /// What runs in a cluster of this form, in the order in which it is stopped: an API server whose etcd is gone hangs.
    pub fn parts(self) -> &'static [&'static str] {
        match self {
            Self::Plane => &["kube-controller-manager", "kube-apiserver", "etcd"],
            Self::Simulated => &["kwok", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"],
            Self::Node => {
                &["kubelet", "kube-proxy", "coredns", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd", "containerd"]
            }
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    pub form: Form,
    /// Number of the veth pair among those of this machine; the addresses follow from it.
    pub slot: u8,
    pub api_port: u16,
    pub etcd_port: u16,
    pub etcd_peer_port: u16,
}

impl Settings {
    /// Free ports on loopback, or a free slot.
    pub fn choose(form: Form) -> Result<Self> {
        if form == Form::Node {
            return Ok(Self { form, slot: free_slot()?, api_port: 6443, etcd_port: 2379, etcd_peer_port: 2380 });
        }
        // All three are held open until all are known, so that they differ.
        let held = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let ports = held.iter().map(|l| Ok(l.as_ref().ok().context("no free port on loopback")?.local_addr()?.port()));
        match ports.collect::<Result<Vec<u16>>>()?.as_slice() {
            &[api_port, etcd_port, etcd_peer_port] => Ok(Self { form, slot: 0, api_port, etcd_port, etcd_peer_port }),
            _ => bail!("no free ports on loopback"),
        }
    }

    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("settings.json");
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))
    }

    pub fn write(&self, dir: &Path) -> Result<()> {
        fs::write(dir.join("settings.json"), serde_json::to_vec_pretty(self)?).context("write settings.json")
    }

    /// The host's end of the veth pair.
    pub fn host(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.slot, 1)
    }

    /// The address by which the API server is reached, from the host as well.
    pub fn address(&self) -> Ipv4Addr {
        match self.form {
            Form::Plane | Form::Simulated => Ipv4Addr::LOCALHOST,
            Form::Node => Ipv4Addr::new(10, 213, self.slot, 2),
        }
    }

    pub fn api(&self) -> SocketAddr {
        SocketAddr::from((self.address(), self.api_port))
    }

    /// Name of the host's end of the veth pair.
    pub fn host_link(&self) -> String {
        format!("polity{}", self.slot)
    }
}

fn free_slot() -> Result<u8> {
    (FIRST_SLOT..=u8::MAX)
        .find(|slot| !Path::new("/sys/class/net").join(format!("polity{slot}")).exists())
        .context("no veth pair is free: clean up clusters on this machine")
}

//! A file system that is really full under core's ledger: nothing runs that is not durably recorded, and when there is room again it goes on by itself.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use polity_api::toolcall::Phase;
use polity_e2e::{chaos, ledger, org_name, parts::Polity, shim::Shim, until};
use serde_json::json;

use crate::{
    calls::phase,
    fixtures::{self, SOON},
    help,
};

/// A file system of its own, in memory, of a few MiB. It goes when this is dropped.
struct Volume(PathBuf);

impl Volume {
    fn mount(at: &Path, mib: u32) -> Result<Self> {
        std::fs::create_dir_all(at)?;
        let size = format!("size={mib}m,mode=0700");
        let out = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "polity-e2e"]).arg(at).output().context("mount")?;
        ensure!(out.status.success(), "mount: {}", String::from_utf8_lossy(&out.stderr));
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        match Command::new("umount").arg("--lazy").arg(&self.0).status() {
            Ok(status) if status.success() => {}
            other => eprintln!("{} stays mounted: {other:?}", self.0.display()),
        }
    }
}

/// Writes a file until there is no room for one more byte.
fn fill(volume: &Path) -> Result<PathBuf> {
    let path = volume.join("filler");
    let mut file = File::create(&path)?;
    for size in [1 << 16, 1 << 12, 1] {
        let block = vec![1_u8; size];
        loop {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error).context("filling the volume"),
            }
        }
    }
    Ok(path)
}

/// Whether this process may mount a file system. Without that right the test is not run, and its line in the list says so.
pub fn possible() -> bool {
    tempfile::tempdir().is_ok_and(|dir| Volume::mount(&dir.path().join("try"), 1).is_ok())
}

/// Core on a volume that gets full: calls through the gateway are denied, those through the API server wait, none has a Pod; then there is room, and
/// all goes on without a restart.
pub async fn the_ledgers_disk_is_full(polity: &mut Polity) -> Result<()> {
    let own = polity.dir.join("data").display().to_string();
    let volume = Volume::mount(&polity.dir.join("small"), 24)?;
    polity.core.set("POLITY_DATA_DIR", &volume.0.display().to_string());
    chaos::reborn(&polity.cluster, &mut polity.core, None).await?;
    let data = volume.0.clone();
    let result = async {
        polity.core.ready().await?;
        chaos::mended(polity, |p| Box::pin(full(p, data))).await
    };
    let result = result.await;
    polity.core.kill()?;
    polity.core.set("POLITY_DATA_DIR", &own);
    chaos::reborn(&polity.cluster, &mut polity.core, None).await?;
    polity.core.ready().await?;
    drop(volume);
    result
}

async fn full(polity: &mut Polity, volume: PathBuf) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("full");
    let uid = fixtures::organisation(&admin, &org).await?;
    let (bot, robot) = (help::bot(polity, &org).await?, help::robot(polity, &org).await?);
    let pay = json!({"tool": "pay", "input": {"amount": 20, "to": "ann"}, "waitSeconds": 0});
    let mut begun = BTreeSet::new();
    let (code, body) = robot.call(&org, pay.clone()).await?;
    ensure!(code == 202, "{code} {body}");
    begun.insert(body["id"].as_str().context("id")?.to_owned());

    let filler = fill(&volume)?;
    // What the write-ahead log has room for already may still be taken.
    let taken = std::cell::RefCell::new(&mut begun);
    until(SOON, "a full disk denies", || async {
        let (code, body) = robot.call(&org, pay.clone()).await.map_err(|e| format!("{e:#}"))?;
        if let (202, Some(id)) = (code, body["id"].as_str()) {
            taken.borrow_mut().insert(id.to_owned());
        }
        if code == 503 && body["reason"] == "LedgerUnavailable" { Ok(()) } else { Err(format!("{code} {body}")) }
    })
    .await?;
    let (name, id) = help::made(&bot, &help::small()).await?;
    for _ in 0..5 {
        let (code, body) = robot.call(&org, pay.clone()).await?;
        ensure!(code == 503 && body["reason"] == "LedgerUnavailable", "with a full disk: {code} {body}");
    }
    let pods: Api<Pod> = Api::namespaced(admin.clone(), &org);
    let calls = ListParams::default().labels("polity.dev/kind=ToolCall");
    // A Pod that waits behind its gate runs nothing.
    let open = |pod: &Pod| pod.spec.as_ref().is_none_or(|spec| spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty));
    let list = pods.list(&calls).await?;
    let early: BTreeSet<String> =
        list.iter().filter(|pod| open(pod)).filter_map(|pod| pod.name_any().strip_prefix("call-").map(str::to_owned)).collect();
    ensure!(early.is_subset(&begun), "Pods of calls that did not begin may start: {early:?}, begun: {begun:?}");
    ensure!(polity.core.running(), "core ended: {}", polity.core.log_tail());

    std::fs::remove_file(filler)?;
    until(SOON, "there is room again", || async {
        let (code, body) = robot.call(&org, pay.clone()).await.map_err(|e| format!("{e:#}"))?;
        if code == 202 { Ok(()) } else { Err(format!("{code} {body}")) }
    })
    .await?;
    // What was asked for meanwhile through the API server goes on.
    Shim::new(polity, SOON).play(&org, &id, 0, "{}").await?;
    phase(&admin, &org, &name, Phase::Succeeded).await?;
    for id in &begun {
        let lines =
            ledger::records(&volume, &uid)?.iter().map(|r| r.to_line()).filter(|line| line.contains(id.as_str())).collect::<Vec<_>>();
        let begins = lines.iter().filter(|line| line.contains(r#""kind":"begin""#)).count();
        ensure!(begins == 1, "{id} was answered as begun and has {begins} such records");
    }
    ledger::check(&volume).map(drop)
}

//! node
use anyhow::Result;
pub fn check_machine() -> Result<()> {
    anyhow::bail!("not yet")
}
pub fn start(_c: &super::Cluster, _s: &super::settings::Settings) -> Result<()> {
    Ok(())
}

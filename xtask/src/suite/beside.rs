//! A part of the suite that runs beside the others, as a process of its own at a lower priority; what it prints is shown when it is waited for.
//!
//! Never outlives the suite: when that ends early, the part is asked to stop its clusters and waited for.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::cargo::Counts;
use crate::{paths, run};

/// How much the others go first where cores are short: the time-outs and promised times under test are theirs.
const NICE: &str = "10";
/// Time for taking a cluster down.
const TEARDOWN: Duration = Duration::from_secs(90);

/// The part, while it runs.
pub struct Beside {
    /// None once it has ended.
    child: Option<Child>,
    command: Command,
    log: PathBuf,
}

impl Beside {
    /// Starts `cargo xtask test --only PART`.
    pub fn start(part: &str) -> Result<Self> {
        let folder = paths::target().join("suite");
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let log = folder.join(format!("{part}.log"));
        let file = fs::File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let mut command = Command::new("nice");
        command.args(["-n", NICE]).arg(run::this_program()?).args(["test", "--only", part]);
        command.stdout(file.try_clone()?).stderr(file);
        let child = run::spawn(&mut command)?;
        Ok(Self { child: Some(child), command, log })
    }

    /// Waits for its end, shows what it printed, and counts its tests.
    pub fn join(mut self) -> Result<Counts> {
        let ended = match &mut self.child {
            Some(child) => run::ended(child, &self.command),
            None => bail!("it has ended"),
        };
        if ended.is_ok() {
            self.child = None;
        }
        let said = fs::read_to_string(&self.log).with_context(|| format!("read {}", self.log.display()))?;
        println!("{said}");
        let status = ended?;
        let counts = Counts::of(&said);
        if !status.success() && counts.failed == 0 {
            bail!("`{}` failed: {status}", run::shown(&self.command));
        }
        Ok(counts)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            run::end(child, TEARDOWN);
        }
    }
}

//! Parts of the suite that run beside the others, as one process at a lower priority; what it prints is shown when it is waited for.
//!
//! Never outlives the suite: when that ends early, they are asked to stop their clusters and waited for.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum as _;

use super::{Part, cargo::Counts};
use crate::{paths, run};

/// How much the others go first where cores are short: the time-outs and promised times under test are theirs.
const NICE: &str = "10";
/// Time for taking a cluster down.
const TEARDOWN: Duration = Duration::from_secs(90);

/// The parts, while they run.
pub struct Beside {
    /// None once they have ended.
    child: Option<Child>,
    command: Command,
    log: PathBuf,
}

impl Beside {
    /// Starts `cargo xtask test` with these parts only.
    pub fn start(parts: &[Part]) -> Result<Self> {
        let folder = paths::target();
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let log = folder.join("beside.log");
        let file = fs::File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let mut command = Command::new("nice");
        command.args(["-n", NICE]).arg(run::this_program()?).arg("test");
        for name in parts.iter().filter_map(Part::to_possible_value) {
            command.arg("--only").arg(name.get_name());
        }
        command.stdout(file.try_clone()?).stderr(file);
        let child = run::spawn(&mut command)?;
        Ok(Self { child: Some(child), command, log })
    }

    /// Waits for their end, shows what they printed, and counts their tests.
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

//! cargo-deny on bans, licences and sources, as `deny.toml` says. Installed into the cache when missing.

use std::process::Command;

use anyhow::Result;

use crate::{paths, run};

const VERSION: &str = "0.20.2";

pub fn check() -> Result<()> {
    let home = paths::cache()?.join(format!("tools/cargo-deny-{VERSION}"));
    let program = home.join("bin/cargo-deny");
    if !program.exists() {
        println!("  installing cargo-deny {VERSION} into {}", home.display());
        let mut install = Command::new("cargo");
        install.args(["install", "--locked", "--quiet", &format!("cargo-deny@{VERSION}"), "--root"]).arg(&home);
        run::check(&mut install)?;
    }
    run::check(Command::new(program).current_dir(paths::root()).args(["--offline", "check", "bans", "licenses", "sources"]))
}

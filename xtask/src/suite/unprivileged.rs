//! `cargo xtask up` and `down` as a user without any right: what is promised to those who are not root.
//!
//! As root, a user is made up for it (a number that no account has, no groups, no way back to rights), with folders of its own for
//! everything that is written; what was built already is taken over. Not as root, the caller is that user.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::Form;
use crate::wait::{Look, until};
use crate::{paths, product, run, upstream};

/// The user's and the group's number.
const USER: u32 = 64_123;
const NAME: &str = "nobody";
/// What of the checkout `up` reads.
const CHECKOUT: &[&str] = &["charts", "examples", "e2e/cluster"];
/// What `up` must have shown.
const SHOWN: &[&str] = &[
    "The node is simulated by KWOK",
    "acme-finance  namespace acme-finance",
    ": Denied reason=NoPodRuntime",
    ": Denied rule=acme/forbidden/no-sanctioned-accounts reason=PolicyDenied",
    ": WaitingApproval",
    "$ kubectl polity approve",
    "with a simulated node: no container runs",
];

/// Brings a cluster up and down again and looks at what was shown and what is left.
pub fn check() -> Result<()> {
    upstream::binaries(Form::Simulated)?;
    // With kill points, which nobody asks for here: the build that the tests on a control plane have made.
    let built = product::host_binaries(&["polity-operator/killpoints"])?;
    let base = std::env::temp_dir().join(format!("polity-unprivileged-{}", std::process::id()));
    let result = prepare(&base, &built).and_then(|()| up_and_down(&base));
    let removed = fs::remove_dir_all(&base).with_context(|| format!("remove {}", base.display()));
    result.and(removed)
}

fn prepare(base: &Path, built: &Path) -> Result<()> {
    for part in CHECKOUT {
        copy(&paths::root().join(part), &base.join("checkout").join(part))?;
    }
    for program in product::HOST {
        copy(&built.join(program), &base.join("built").join(program))?;
    }
    copy(&run::this_program()?, &base.join("built/xtask"))?;
    for name in upstream::built(Form::Simulated)? {
        copy(&paths::cache()?.join("upstream").join(&name), &base.join("cache/upstream").join(&name))?;
    }
    for own in ["home", "target", "tmp", "cache", "cache/upstream"] {
        fs::create_dir_all(base.join(own))?;
        if rustix::process::geteuid().is_root() {
            chown(base.join(own), Some(USER), Some(USER))?;
        }
    }
    Ok(())
}

/// Copies a file or a folder, readable for everybody; files by a hard link where that is possible and readable.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let what = || format!("copy {} to {}", from.display(), to.display());
    if from.is_dir() {
        fs::create_dir_all(to).with_context(what)?;
        for entry in fs::read_dir(from).with_context(what)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(what)?;
    }
    let mode = fs::metadata(from).with_context(what)?.permissions().mode();
    if mode & 0o444 == 0o444 && fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    fs::copy(from, to).with_context(what)?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode | 0o444)).with_context(what)
}

fn up_and_down(base: &Path) -> Result<()> {
    let up = xtask(base, &["up", "--name", NAME, "--built", &base.join("built").to_string_lossy()]);
    if let Ok(said) = &up {
        println!("{said}");
    }
    let shown = up.and_then(|said| {
        let missing: Vec<&&str> = SHOWN.iter().filter(|part| !said.contains(**part)).collect();
        ensure!(missing.is_empty(), "`up` did not say {missing:?}");
        Ok(())
    });
    let down = xtask(base, &["down", "--name", NAME]).map(|_| ());
    shown.and(down)?;
    let cluster = base.join(format!("target/cluster-{NAME}"));
    let left: Vec<PathBuf> = fs::read_dir(&cluster)?.flatten().map(|entry| entry.path()).filter(|path| !path.ends_with("log")).collect();
    ensure!(left.is_empty(), "`down` left {left:?}");
    until(Duration::from_secs(10), "no process is left", || {
        let left = processes(base)?;
        Ok(if left.is_empty() { Look::Done(()) } else { Look::NotYet(left.join(", ")) })
    })
}

/// Runs the command as the user without rights; gives what it printed.
fn xtask(base: &Path, arguments: &[&str]) -> Result<String> {
    let program = base.join("built/xtask");
    let mut command = if rustix::process::geteuid().is_root() {
        let mut setpriv = Command::new("setpriv");
        let user = USER.to_string();
        setpriv.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--no-new-privs", "--"]).arg(program);
        setpriv
    } else {
        Command::new(program)
    };
    command.current_dir(base).args(arguments).env_remove("XDG_CACHE_HOME").env_remove("KUBECONFIG");
    for (name, at) in
        [("HOME", "home"), ("TMPDIR", "tmp"), ("CARGO_TARGET_DIR", "target"), ("POLITY_CACHE", "cache"), ("POLITY_CHECKOUT", "checkout")]
    {
        command.env(name, base.join(at));
    }
    let log = base.join(format!("{}.out", arguments.first().unwrap_or(&"")));
    let ended = run::logged(&mut command, &log, || {});
    let said = fs::read_to_string(&log).unwrap_or_default();
    match ended {
        Ok(()) => Ok(said),
        Err(error) => bail!("`cargo xtask {}` without rights: {error:#}\n{said}", arguments.join(" ")),
    }
}

/// Processes of the user, or, without root, those that run what was taken over.
fn processes(base: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.chars().any(|c| !c.is_ascii_digit()) {
            continue;
        }
        let theirs = fs::metadata(&path).is_ok_and(|about| about.uid() == USER);
        let ours = fs::read_link(path.join("exe")).is_ok_and(|exe| exe.starts_with(base));
        if theirs || ours {
            found.push(format!("{name} {}", fs::read_to_string(path.join("comm")).unwrap_or_default().trim()));
        }
    }
    Ok(found)
}

//! A server of Postgres of the test's own: made in a directory of its own by an unprivileged user, reached by a Unix
//! socket and, where a test wants it, by loopback. It ends with the process that started it, however that ends.
//!
//! Also used by the tests on an API server.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The user and group `nobody`: Postgres refuses to run as root.
const NOBODY: u32 = 65534;
/// Longest wait for the server to come up.
const LONGEST: Duration = Duration::from_secs(120);

/// See the module.
pub struct Server {
    programs: PathBuf,
    dir: PathBuf,
    /// Of its socket, and on loopback if it listens there.
    port: u16,
    loopback: bool,
    run: Option<Run>,
}

/// A server that runs.
struct Run {
    /// A shell that stops the server once its input ends.
    guard: Child,
    pid: String,
}

impl Server {
    /// Make the database and start the server, reached by its socket.
    pub fn start() -> Self {
        let mut server = Self::make(false);
        server.up(&[]);
        server
    }

    /// Make the database; the server listens on loopback too, if asked to.
    pub fn make(loopback: bool) -> Self {
        let programs = programs();
        let dir = tempfile::Builder::new().prefix("polity-pg-").tempdir().unwrap().keep();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        if is_root() {
            chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let server = Self { programs, dir, port: 5432, loopback, run: None };
        let mut made = server.command("initdb");
        made.args(["--no-sync", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "-D"]).arg(server.dir.join("data"));
        let made = made.output().unwrap();
        assert!(made.status.success(), "initdb: {}{}", String::from_utf8_lossy(&made.stdout), String::from_utf8_lossy(&made.stderr));
        server
    }

    /// Start it again, or at first.
    pub fn up(&mut self, settings: &[&str]) {
        assert!(self.run.is_none(), "it runs already");
        let deadline = Instant::now() + LONGEST;
        std::fs::write(self.dir.join("keep"), "").unwrap();
        let script = r#"log="$1"; shift; "$@" </dev/null >>"$log" 2>&1 & pid=$!; echo $pid; cat >/dev/null; kill -QUIT $pid 2>/dev/null; wait $pid; [ -e keep ] || rm -rf "$PWD""#;
        loop {
            if self.loopback {
                self.port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            }
            let mut guard = self.shell();
            guard.args(["-c", script, "guard"]).arg(self.dir.join("log")).arg(self.programs.join("postgres"));
            guard.arg("-D").arg(self.dir.join("data")).arg("-k").arg(&self.dir).args(["-h", if self.loopback { "127.0.0.1" } else { "" }]);
            guard.args(["-p", &self.port.to_string(), "-c", "max_connections=300"]);
            guard.args(["-c", "shared_buffers=32MB", "-c", "wal_level=minimal", "-c", "max_wal_senders=0"]);
            guard.args(settings.iter().flat_map(|setting| ["-c", setting]));
            let mut guard = guard.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let mut pid = String::new();
            BufReader::new(guard.stdout.take().unwrap()).read_line(&mut pid).unwrap();
            let run = Run { guard, pid: pid.trim().to_owned() };
            // After one that was killed, the memory of that one is still in use for a moment.
            while Path::new("/proc").join(&run.pid).join("exe").exists() && !is_zombie(&run.pid) {
                if self.answers() {
                    std::fs::remove_file(self.dir.join("keep")).unwrap();
                    self.run = Some(run);
                    return;
                }
                assert!(Instant::now() < deadline, "Postgres does not answer: {}", self.log());
                pause();
            }
            drop(run);
            assert!(Instant::now() < deadline, "Postgres does not start: {}", self.log());
            pause();
        }
    }

    /// Kill it with SIGKILL.
    pub fn kill(&mut self) {
        let run = self.run.take().expect("it runs");
        std::fs::write(self.dir.join("keep"), "").unwrap();
        assert!(Command::new("kill").args(["-KILL", &run.pid]).status().unwrap().success());
        drop(run);
    }

    fn answers(&self) -> bool {
        let mut probe = self.command("psql");
        probe
            .args(["--no-psqlrc", "-qtAX", "-c", "SELECT 1", "-U", "postgres", "-d", "postgres", "-p", &self.port.to_string(), "-h"])
            .arg(&self.dir);
        probe.output().unwrap().status.success()
    }

    /// What a statement answers, without its heading.
    #[allow(dead_code)] // of the tests on an API server
    pub fn psql(&self, sql: &str) -> std::io::Result<std::process::Output> {
        let mut psql = self.command("psql");
        psql.args(["--no-psqlrc", "-qtAX", "-U", "postgres", "-d", "postgres", "-c", sql, "-p", &self.port.to_string(), "-h"])
            .arg(&self.dir)
            .output()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn shell(&self) -> Command {
        let mut command = Command::new("/bin/sh");
        command.current_dir(&self.dir);
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// A program of Postgres, run by the server's user.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(&self.dir);
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// The server's directory, which has its socket.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its URL, with a schema as the search path.
    pub fn url(&self, schema: &str) -> String {
        url(&self.dir, self.port, schema)
    }

    /// The port that it has now.
    #[allow(dead_code)] // of the tests that listen on loopback
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Give the server a file of its own.
    #[allow(dead_code)] // of the tests that listen on loopback
    pub fn give(&self, name: &str, text: &str) {
        let path = self.dir.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        if is_root() {
            chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.run = None;
        std::fs::remove_dir_all(&self.dir).unwrap_or_default();
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        self.guard.wait().map(drop).unwrap_or_default();
    }
}

/// Between two looks at a condition that has a deadline.
#[allow(clippy::disallowed_methods)]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

/// The URL of a socket's directory, with a schema as the search path.
pub fn url(socket: &Path, port: u16, schema: &str) -> String {
    let socket = socket.display().to_string().replace('/', "%2F");
    format!("postgresql://postgres@{socket}:{port}/postgres?options=-c%20search_path%3D{schema}")
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn is_zombie(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

/// Where the programs of Postgres are: with Debian in a directory of the version.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let mut found: Vec<PathBuf> = versions.map(|entry| entry.path()).filter(|path| path.join("bin/initdb").exists()).collect();
    found.sort_by_key(version);
    if let Some(newest) = found.pop() {
        return newest.join("bin");
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).find(|dir| dir.join("initdb").exists() && dir.join("postgres").exists());
    found.expect("these tests need Postgres, version 13 or later: apt-get install --no-install-recommends postgresql")
}

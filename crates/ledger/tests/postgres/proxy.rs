//! A socket before the server's that can be told to break at the worst moment: between a commit and its answer.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They pass.
    Pass,
    /// The next commit of the writer reaches the server, its answer is lost; then as the other says.
    LoseAnswer(After),
    /// The next commit of the writer is lost; then as the other says.
    LoseCommit(After),
    /// Every new one ends at once.
    Away,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Pass,
    Away,
}

#[derive(Default)]
struct Shared {
    mode: Mutex<Option<Mode>>,
    turned_away: AtomicUsize,
}

/// See the module.
pub(crate) struct Proxy {
    dir: tempfile::TempDir,
    shared: Arc<Shared>,
}

impl Proxy {
    pub(crate) fn before(server: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(".s.PGSQL.5432")).unwrap();
        let (shared, target) = (Arc::new(Shared::default()), server.join(".s.PGSQL.5432"));
        let known = Arc::clone(&shared);
        // Ends with the process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if known.mode() == Mode::Away {
                    known.turned_away.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                let Ok(server) = UnixStream::connect(&target) else { continue };
                carry(client, server, &known);
            }
        });
        Self { dir, shared }
    }

    pub(crate) fn socket(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = Some(mode);
    }

    /// How many connections were turned away.
    pub(crate) fn turned_away(&self) -> usize {
        self.shared.turned_away.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn mode(&self) -> Mode {
        self.mode.lock().unwrap().unwrap_or(Mode::Pass)
    }

    fn then(&self, after: After) {
        *self.mode.lock().unwrap() = Some(if after == After::Pass { Mode::Pass } else { Mode::Away });
    }
}

fn carry(client: UnixStream, server: UnixStream, shared: &Arc<Shared>) {
    let muted = Arc::new(AtomicBool::new(false));
    let (mut from, mut to, quiet) = (server.try_clone().unwrap(), client.try_clone().unwrap(), Arc::clone(&muted));
    std::thread::spawn(move || {
        pass(&mut from, &mut to, |_| !quiet.load(Ordering::SeqCst));
    });
    let (mut from, mut to, shared) = (client, server, Arc::clone(shared));
    std::thread::spawn(move || {
        let mut writer = false;
        pass(&mut from, &mut to, |sent| {
            let has = |word: &[u8]| sent.windows(word.len()).any(|part| part == word);
            writer |= has(b"SAVEPOINT verb\0");
            match shared.mode() {
                Mode::LoseAnswer(after) if writer && has(b"COMMIT\0") => {
                    muted.store(true, Ordering::SeqCst);
                    shared.then(after);
                    true
                }
                Mode::LoseCommit(after) if writer && has(b"COMMIT\0") => {
                    shared.then(after);
                    false
                }
                _ => true,
            }
        });
    });
}

/// Carry what comes, until it ends or one is not to pass; then both ends are shut.
fn pass(from: &mut UnixStream, to: &mut UnixStream, mut lets: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if !lets(&buffer[..length]) || to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    for end in [from, to] {
        end.shutdown(std::net::Shutdown::Both).unwrap_or_default();
    }
}

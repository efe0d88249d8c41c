//! Points at which a test may kill core, compiled in by the feature `killpoints` only, which the shipped image lacks.

/// Kills the process when `POLITY_KILL_AT` names this point. Does nothing without the feature.
#[cfg(not(feature = "killpoints"))]
pub fn reached(_point: &str) {}

/// Kills the process with SIGKILL when `POLITY_KILL_AT` names this point (once: the file `POLITY_KILL_DONE` marks it).
#[cfg(feature = "killpoints")]
pub fn reached(point: &str) {
    let Ok(wanted) = std::env::var("POLITY_KILL_AT") else { return };
    if wanted != point {
        return;
    }
    if let Ok(mark) = std::env::var("POLITY_KILL_DONE") {
        if std::path::Path::new(&mark).exists() {
            return;
        }
        let _ = std::fs::write(&mark, point);
    }
    let _ = std::process::Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
    loop {
        std::thread::park();
    }
}

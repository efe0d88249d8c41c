//! What `/healthz` and `/readyz` say: named checks, each a closure that tells what is wrong. The server is in `serve`.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Named checks of liveness and readiness.
#[derive(Clone, Default)]
pub struct Health {
    live: Arc<RwLock<BTreeMap<&'static str, Check>>>,
    ready: Arc<RwLock<BTreeMap<&'static str, Check>>>,
}

impl Health {
    /// Without checks: alive and ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The process is restarted while this fails.
    pub fn live(&self, name: &'static str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.live.write().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::new(check));
    }

    /// No traffic comes while this fails.
    pub fn ready(&self, name: &'static str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.ready.write().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::new(check));
    }

    /// Runs the checks of liveness.
    ///
    /// # Errors
    /// One line for each check that fails.
    pub fn is_live(&self) -> Result<(), String> {
        run(&self.live)
    }

    /// Runs the checks of readiness.
    ///
    /// # Errors
    /// One line for each check that fails.
    pub fn is_ready(&self) -> Result<(), String> {
        run(&self.ready)
    }
}

fn run(checks: &RwLock<BTreeMap<&'static str, Check>>) -> Result<(), String> {
    let checks = checks.read().unwrap_or_else(PoisonError::into_inner).clone();
    let failed: Vec<String> = checks.iter().filter_map(|(name, check)| check().err().map(|e| format!("{name}: {e}\n"))).collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.concat()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_every_check_that_fails() {
        let health = Health::new();
        assert_eq!(health.is_ready(), Ok(()));
        health.ready("a", || Ok(()));
        health.ready("b", || Err("cold".into()));
        health.ready("c", || Err("stale".into()));
        assert_eq!(health.is_ready(), Err("b: cold\nc: stale\n".into()));
        assert_eq!(health.is_live(), Ok(()));
    }
}

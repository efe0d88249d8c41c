//! How many streams there are, in all and of each username. Refuses beyond the bounds; keeps nobody waiting.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::http::StatusCode;
use polity_api::reasons;

use super::Limits;
use crate::problem::Problem;

/// Streams under way.
pub struct Slots {
    pub(super) limits: Limits,
    taken: Arc<Mutex<HashMap<String, usize>>>,
}

/// One stream under way; gives its place back when dropped.
pub struct Slot {
    taken: Arc<Mutex<HashMap<String, usize>>>,
    username: String,
}

impl Slots {
    /// None is under way.
    pub fn new(limits: Limits) -> Self {
        Self { limits, taken: Arc::default() }
    }

    /// A place for one more stream of this username.
    pub(super) fn take(&self, username: &str) -> Result<Slot, Problem> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = |message: String| Problem::new(StatusCode::TOO_MANY_REQUESTS, reasons::TOO_MANY_REQUESTS, message);
        if taken.values().sum::<usize>() >= self.limits.streams {
            return Err(refused("this replica has as many streams as it takes".to_owned()));
        }
        if taken.get(username).is_some_and(|own| *own >= self.limits.of_caller) {
            let message = format!("{username} has {} streams here already", self.limits.of_caller);
            return Err(refused(message).hint("close one of them, or read several kinds by one stream"));
        }
        *taken.entry(username.to_owned()).or_default() += 1;
        Ok(Slot { taken: self.taken.clone(), username: username.to_owned() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.username) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.username);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let slots = Slots::new(Limits { streams: 3, of_caller: 2, ..Limits::default() });
        let ann = [slots.take("ann"), slots.take("ann")];
        assert!(ann.iter().all(Result::is_ok));
        let refused = slots.take("ann").err().unwrap();
        assert_eq!((refused.status(), refused.reason()), (StatusCode::TOO_MANY_REQUESTS, reasons::TOO_MANY_REQUESTS));
        let bob = slots.take("bob").unwrap();
        assert!(slots.take("eve").err().unwrap().message().contains("this replica"));
        drop(bob);
        assert!(slots.take("eve").is_ok());
        drop(ann);
        assert!(slots.taken.lock().unwrap().is_empty());
    }
}

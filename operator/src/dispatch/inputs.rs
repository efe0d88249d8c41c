//! Which runs were given their input, and which never will be: what a Pod's status says of its tool comes later than the truth.
//!
//! A tool begins only with its input, which core gives out. So a run that is ended from outside is first closed here: was the input
//! given before, the tool may have taken effect, whatever the Pod's status says; was it not, it never will be. Kept in memory only:
//! after a restart of core the statuses of the runs before it are old enough.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// How many closed runs are remembered. A request for an input that was under way when its run was closed ends long before so many more are.
const REMEMBERED: usize = 10_000;

/// Ids of calls by what became of their input.
#[derive(Default)]
struct Fates {
    given: HashSet<String>,
    closed: HashSet<String>,
    order: VecDeque<String>,
}

/// The fates of inputs.
#[derive(Default)]
pub struct Inputs(Mutex<Fates>);

impl Inputs {
    /// Gives the input out, unless the run is closed. Ask before the input leaves core.
    #[must_use]
    pub fn give(&self, id: &str) -> bool {
        let mut fates = self.fates();
        let open = !fates.closed.contains(id);
        if open {
            fates.given.insert(id.to_owned());
        }
        open
    }

    /// Closes the run unless its input was given; says whether it was.
    #[must_use]
    pub fn close(&self, id: &str) -> bool {
        let mut fates = self.fates();
        let given = fates.given.contains(id);
        if !given && fates.closed.insert(id.to_owned()) {
            fates.order.push_back(id.to_owned());
            if fates.order.len() > REMEMBERED
                && let Some(oldest) = fates.order.pop_front()
            {
                fates.closed.remove(&oldest);
            }
        }
        given
    }

    /// The run has ended: that its input was given matters no more.
    pub fn forget(&self, id: &str) {
        self.fates().given.remove(id);
    }

    fn fates(&self) -> MutexGuard<'_, Fates> {
        // A panic cannot leave it half changed: nothing in between can fail.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_given_or_its_run_closed_never_both() {
        let inputs = Inputs::default();
        assert!(inputs.give("a") && inputs.give("a"), "a shim may ask again");
        assert!(inputs.close("a"));
        assert!(!inputs.close("b"));
        assert!(!inputs.give("b"));
        inputs.forget("b");
        assert!(!inputs.give("b"), "closed stays closed");
        inputs.forget("a");
        assert!(!inputs.close("a"));
        for other in 0..REMEMBERED {
            assert!(!inputs.close(&format!("c-{other}")));
        }
        assert!(inputs.give("b"), "not remembered for ever");
    }
}

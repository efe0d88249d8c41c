//! Who holds a Role, from its assignment and the Agents that are there.

use polity_api::role::{Assignment, AssignmentMode};

/// Whether an Agent is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// There and ready.
    Ready,
    /// There, but not ready.
    NotReady,
    /// Not there.
    Missing,
}

/// Result of an assignment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// Holders in order of preference.
    pub holders: Vec<String>,
    /// Agents named that are not there.
    pub missing: Vec<String>,
    /// Agents that are there, but beyond `max`.
    pub beyond: Vec<String>,
}

/// Assigns a Role.
pub fn assign(assignment: &Assignment, presence: impl Fn(&str) -> Presence) -> Assigned {
    let mut result = Assigned::default();
    let mut seen = std::collections::BTreeSet::new();
    for agent in assignment.agents.iter().filter(|a| seen.insert(a.as_str())) {
        let there = presence(agent);
        if there == Presence::Missing {
            result.missing.push(agent.clone());
            continue;
        }
        let room = match assignment.mode {
            AssignmentMode::Fixed => result.holders.is_empty(),
            AssignmentMode::Single => result.holders.is_empty() && there == Presence::Ready,
            AssignmentMode::Multi => assignment.max.is_none_or(|max| i32::try_from(result.holders.len()).is_ok_and(|n| n < max)),
        };
        if room {
            result.holders.push(agent.clone());
        } else if assignment.mode == AssignmentMode::Multi {
            result.beyond.push(agent.clone());
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(mode: AssignmentMode, max: Option<i32>, agents: &[&str]) -> (Vec<String>, Vec<String>, Vec<String>) {
        let assignment = Assignment { mode, max, agents: agents.iter().map(|a| (*a).to_owned()).collect() };
        let r = assign(&assignment, |name| match name {
            "gone" => Presence::Missing,
            "ill" => Presence::NotReady,
            _ => Presence::Ready,
        });
        (r.holders, r.missing, r.beyond)
    }
    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn modes() {
        use AssignmentMode::{Fixed, Multi, Single};
        assert_eq!(run(Fixed, None, &["ill"]), (list(&["ill"]), list(&[]), list(&[])));
        assert_eq!(run(Fixed, None, &["gone"]), (list(&[]), list(&["gone"]), list(&[])));
        assert_eq!(run(Single, None, &["gone", "ill", "b", "c"]), (list(&["b"]), list(&["gone"]), list(&[])));
        assert_eq!(run(Multi, Some(2), &["a", "gone", "a", "ill", "c"]), (list(&["a", "ill"]), list(&["gone"]), list(&["c"])));
        assert_eq!(run(Multi, None, &[]), (list(&[]), list(&[]), list(&[])));
    }
}

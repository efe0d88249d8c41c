//! Reporting lines: who reports to whom, and whether a line bites its own tail.

/// The cycle that `start` is part of, beginning and ending with it. A line that merely runs into somebody else's cycle has none.
pub fn cycle<K: Clone + PartialEq>(start: &K, superior: impl Fn(&K) -> Option<K>) -> Option<Vec<K>> {
    let mut line = vec![start.clone()];
    let mut current = start.clone();
    while let Some(next) = superior(&current) {
        line.push(next.clone());
        if next == *start {
            return Some(line);
        }
        if line[1..line.len() - 1].contains(&next) {
            return None;
        }
        current = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_members_of_the_cycle_are_in_it() {
        let superior = |name: &&'static str| match *name {
            "a" => Some("b"),
            "b" => Some("c"),
            "c" => Some("a"),
            "out" => Some("a"),
            "self" => Some("self"),
            "clerk" => Some("boss"),
            _ => None,
        };
        assert_eq!(cycle(&"b", superior), Some(vec!["b", "c", "a", "b"]));
        assert_eq!(cycle(&"self", superior), Some(vec!["self", "self"]));
        assert_eq!(cycle(&"out", superior), None);
        assert_eq!(cycle(&"clerk", superior), None);
    }
}

//! The way from an Org up to its root, and what can be wrong with it.

use std::collections::BTreeMap;

/// Deepest tree.
pub const MAX_DEPTH: usize = 32;

/// What ancestry needs to know of an Org.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its parent.
    pub parent: Option<String>,
    /// Being deleted.
    pub deleting: bool,
}

/// Why an Org has no usable ancestry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A parent does not exist (or cannot be read).
    #[error("Org {child} names the parent {parent}, which does not exist")]
    Missing {
        /// Who names it.
        child: String,
        /// The missing one.
        parent: String,
    },
    /// A parent is being deleted.
    #[error("the parent {0} is being deleted")]
    Deleting(String),
    /// The parents form a cycle.
    #[error("the parents form a cycle: {}", .0.join(" → "))]
    Cycle(Vec<String>),
    /// Deeper than `MAX_DEPTH`.
    #[error("the tree is deeper than {MAX_DEPTH} Orgs")]
    TooDeep,
}

/// Names from the root down to `name`.
///
/// # Errors
/// A parent is missing, deleting, part of a cycle, or too far up.
pub fn path(name: &str, links: &BTreeMap<String, Link>) -> Result<Vec<String>, Broken> {
    let mut up = vec![name.to_owned()];
    let mut current = name.to_owned();
    let mut deleting = None;
    while let Some(parent) = links.get(&current).and_then(|l| l.parent.clone()) {
        if let Some(start) = up.iter().position(|n| *n == parent) {
            let mut cycle = up.split_off(start);
            cycle.push(parent);
            return Err(Broken::Cycle(cycle));
        }
        let Some(link) = links.get(&parent) else { return Err(Broken::Missing { child: current, parent }) };
        if link.deleting && deleting.is_none() {
            deleting = Some(parent.clone());
        }
        up.push(parent.clone());
        if up.len() > MAX_DEPTH {
            return Err(Broken::TooDeep);
        }
        current = parent;
    }
    if let Some(parent) = deleting {
        return Err(Broken::Deleting(parent));
    }
    up.reverse();
    Ok(up)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(list: &[(&str, Option<&str>, bool)]) -> BTreeMap<String, Link> {
        list.iter().map(|(n, p, d)| ((*n).to_owned(), Link { parent: p.map(str::to_owned), deleting: *d })).collect()
    }

    #[test]
    fn the_way_up_and_what_breaks_it() {
        let tree = links(&[
            ("a", None, false),
            ("b", Some("a"), false),
            ("c", Some("b"), true),
            ("x", Some("y"), false),
            ("y", Some("x"), false),
            ("z", Some("x"), false),
            ("m", Some("gone"), false),
            ("d", Some("c"), false),
        ]);
        assert_eq!(path("a", &tree).unwrap(), ["a"]);
        assert_eq!(path("c", &tree).unwrap(), ["a", "b", "c"], "its own deletion is not its ancestry's");
        assert_eq!(path("d", &tree), Err(Broken::Deleting("c".to_owned())));
        assert_eq!(path("x", &tree).unwrap_err().to_string(), "the parents form a cycle: x → y → x");
        assert_eq!(path("z", &tree).unwrap_err().to_string(), "the parents form a cycle: x → y → x");
        assert!(matches!(path("m", &tree), Err(Broken::Missing { parent, .. }) if parent == "gone"));
        let deep: Vec<(String, Option<String>)> = (0..40).map(|i| (format!("o{i}"), (i > 0).then(|| format!("o{}", i - 1)))).collect();
        let deep: BTreeMap<_, _> = deep.into_iter().map(|(n, p)| (n, Link { parent: p, deleting: false })).collect();
        assert_eq!(path("o39", &deep), Err(Broken::TooDeep));
        assert_eq!(path("o31", &deep).unwrap().len(), 32);
    }
}

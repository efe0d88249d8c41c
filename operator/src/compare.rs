//! Whether a live object is what we want it to be, so that nothing is written that is already so.
//!
//! Metadata and most fields: what we want must be there, more may be. Fields named `exact` must hold nothing else, since what
//! another adds there (a quota, a subject, a rule) would change what the object means; server-side apply alone would leave it.

use serde_json::{Map, Value, json};

/// What must be done to a live object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// A JSON merge patch that removes what nobody but us may add; None: nothing to remove.
    pub remove: Option<Value>,
    /// Whether something that we want is missing or different.
    pub apply: bool,
}

impl Difference {
    /// Nothing to do.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.remove.is_none() && !self.apply
    }
}

/// Compares.
#[must_use]
pub fn difference(desired: &Value, live: &Value, exact: &[&str]) -> Difference {
    let mut remove = Map::new();
    for field in exact {
        if let Some(extra) = extras(&desired[*field], &live[*field]) {
            remove.insert((*field).to_owned(), extra);
        }
    }
    Difference { remove: (!remove.is_empty()).then_some(Value::Object(remove)), apply: !contains(live, desired, &[]) }
}

/// Keys of `live` that `desired` lacks, as a merge patch that removes them.
fn extras(desired: &Value, live: &Value) -> Option<Value> {
    match (desired, live) {
        (_, Value::Null) => None,
        (Value::Object(want), Value::Object(have)) => {
            let gone = have.iter().filter_map(|(key, value)| {
                let extra = match want.get(key) {
                    None => (!empty(value)).then_some(Value::Null),
                    Some(wanted) => extras(wanted, value),
                };
                extra.map(|e| (key.clone(), e))
            });
            let gone: Map<_, _> = gone.collect();
            (!gone.is_empty()).then_some(Value::Object(gone))
        }
        (Value::Null, value) => (!empty(value)).then_some(Value::Null),
        // Lists are replaced whole by apply.
        _ => None,
    }
}

fn empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// Whether `live` holds all of `desired`: maps may hold more, lists must be equal, but for owner references.
fn contains(live: &Value, desired: &Value, path: &[&str]) -> bool {
    match (live, desired) {
        (Value::Object(have), Value::Object(want)) => want.iter().all(|(key, wanted)| {
            let mut path = path.to_vec();
            path.push(key);
            have.get(key).map_or(empty(wanted), |value| contains(value, wanted, &path))
        }),
        (Value::Array(have), Value::Array(want)) if path == ["metadata", "ownerReferences"] => {
            want.iter().all(|w| have.iter().any(|h| h["uid"] == w["uid"] && contains(h, w, &[])))
        }
        (Value::Array(have), Value::Array(want)) => have.len() == want.len() && have.iter().zip(want).all(|(h, w)| equal(h, w)),
        (have, want) => have == want,
    }
}

/// Equality of what is in a list: apply replaces it whole, so that more is different too.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let side = |x: &Map<String, Value>, y: &Map<String, Value>| x.iter().all(|(k, v)| y.get(k).map_or(empty(v), |w| equal(v, w)));
            side(x, y) && side(y, x)
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(v, w)| equal(v, w)),
        _ => a == b,
    }
}

/// A JSON merge patch from `old` to `new`; None: equal.
#[must_use]
pub fn merge_patch(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for key in before.keys().filter(|k| !after.contains_key(*k)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in after {
        match before.get(key) {
            Some(b) => {
                if let Some(inner) = merge_patch(b, value) {
                    patch.insert(key.clone(), inner);
                }
            }
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    (!patch.is_empty()).then(|| json!(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_rest_nothing_and_drift_is_seen() {
        let desired = json!({"metadata": {"labels": {"a": "1"}, "ownerReferences": [{"uid": "u", "controller": true}]}, "spec": {"hard": {"pods": "5"}, "podSelector": {}}});
        let mut live = json!({
            "metadata": {"uid": "x", "labels": {"a": "1", "theirs": "2"}, "ownerReferences": [{"uid": "other"}, {"uid": "u", "controller": true, "name": "o"}]},
            "spec": {"hard": {"pods": "5"}, "podSelector": {}}, "status": {"used": {}},
        });
        assert!(difference(&desired, &live, &["spec"]).is_none());
        live["spec"]["hard"]["pods"] = json!("6");
        assert_eq!(difference(&desired, &live, &["spec"]), Difference { remove: None, apply: true });
        live["spec"]["hard"] = json!({"pods": "5", "secrets": "0"});
        let d = difference(&desired, &live, &["spec"]);
        assert_eq!(d, Difference { remove: Some(json!({"spec": {"hard": {"secrets": null}}})), apply: false });
        assert!(difference(&desired, &live, &[]).is_none(), "where more is allowed, more is no drift");
    }

    #[test]
    fn lists_are_equal_or_applied_whole() {
        let desired = json!({"subjects": [{"kind": "User", "name": "a"}]});
        for live in [
            json!({"subjects": [{"kind": "User", "name": "a"}, {"kind": "User", "name": "eve"}]}),
            json!({"subjects": []}),
            json!({}),
            json!({"subjects": [{"kind": "User", "name": "a", "namespace": "x"}]}),
        ] {
            assert!(difference(&desired, &live, &["subjects"]).apply, "{live}");
        }
        let open = json!({"spec": {"ingress": [{"from": []}]}});
        assert_eq!(difference(&json!({"spec": {"podSelector": {}}}), &open, &["spec"]).remove, Some(json!({"spec": {"ingress": null}})));
    }

    #[test]
    fn merge_patches_say_only_what_changed() {
        let old = json!({"a": 1, "b": {"c": [1], "d": 2}, "gone": true});
        assert_eq!(merge_patch(&old, &old), None);
        assert_eq!(
            merge_patch(&old, &json!({"a": 1, "b": {"c": [1, 2], "d": 2}, "new": {}})),
            Some(json!({"b": {"c": [1, 2]}, "gone": null, "new": {}}))
        );
    }
}

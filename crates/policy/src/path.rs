//! Places in a JSON value, as rules name them: `customer.iban` or `/customer/iban`, with `*` for every item of a list or member of a map. Resolved against
//! the types of a Tool when a Policy is checked; never evaluates anything.

use std::fmt;

use serde_json::{Map, Value};

use crate::{
    cel::ty::{Field, Ty},
    suggest,
};

/// Longest text of a path in bytes.
const MAX_TEXT: usize = 256;
/// Most steps of a path.
const MAX_STEPS: usize = 16;
/// Most places that are listed by name; changes beyond are made all the same.
pub const MAX_LISTED: usize = 32;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// The member of this name.
    Name(String),
    /// Every item or member.
    Each,
}

/// A place, or with `*` several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    text: String,
    steps: Vec<Step>,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What is done at a place.
pub trait Change {
    /// Whether a place that is not there is made.
    fn creates(&self) -> bool;
    /// Whether the place is removed from what holds it.
    fn removes(&self) -> bool;
    /// Whether a value on the way ends the way, though the path goes on.
    fn passes(&self, value: &Value) -> bool {
        value.is_null() && !self.creates()
    }
    /// Changes what is there (null where it was made); says whether anything changed.
    ///
    /// # Errors
    /// It cannot be done to such a value.
    fn change(&self, value: &mut Value) -> Result<bool, String>;
}

impl Path {
    /// Reads a path.
    ///
    /// # Errors
    /// It is empty, too long, or has an empty step.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_TEXT {
            return Err(format!("path has {} bytes; at most {MAX_TEXT} are accepted", text.len()));
        }
        let names: Vec<String> = match text.strip_prefix('/') {
            Some(pointer) => pointer.split('/').map(|s| s.replace("~1", "/").replace("~0", "~")).collect(),
            None => text.split('.').map(str::to_owned).collect(),
        };
        if names.iter().any(String::is_empty) {
            return Err(format!("path {text:?} has an empty step; write customer.iban or /customer/iban"));
        }
        if names.len() > MAX_STEPS {
            return Err(format!("path {text:?} has more than {MAX_STEPS} steps"));
        }
        if text.contains(['[', ']']) && !text.starts_with('/') {
            return Err(format!("path {text:?}: a single item of a list cannot be named; write * for every item"));
        }
        let steps = names.into_iter().map(|n| if n == "*" { Step::Each } else { Step::Name(n) }).collect();
        Ok(Self { text: text.to_owned(), steps })
    }

    /// The type at the place, and whether it is always there.
    ///
    /// # Errors
    /// A type on the way has no such member.
    pub fn typed<'a>(&self, root: &'a Ty) -> Result<(&'a Ty, bool), String> {
        let mut ty = root.non_null();
        let mut always = false;
        for step in &self.steps {
            always = false;
            ty = match (ty, step) {
                (Ty::Dyn, _) => return Ok((&Ty::Dyn, false)),
                (Ty::Object(object), Step::Name(name)) => {
                    let Some(Field { ty, required }) = object.fields.get(name) else {
                        let there = object.fields.keys().map(String::as_str);
                        return Err(format!(
                            "path {self}: no field `{name}` in {}; {}",
                            object.what,
                            suggest::among("fields", name, there)
                        ));
                    };
                    always = *required;
                    ty
                }
                (Ty::Map(of), _) | (Ty::List(of), Step::Each) => of,
                (Ty::Object(object), Step::Each) => {
                    return Err(format!("path {self}: {} has named fields; name one instead of *", object.what));
                }
                (Ty::List(_), Step::Name(name)) => {
                    return Err(format!("path {self}: `{name}` is looked for in a list; write * for every item"));
                }
                (other, Step::Name(name)) => return Err(format!("path {self}: {other} has no field `{name}`")),
                (other, Step::Each) => return Err(format!("path {self}: {other} has no items")),
            }
            .non_null();
        }
        Ok((ty, always))
    }

    /// Does something at every such place of a value. Answers where something changed, as JSON Pointers, and how often.
    ///
    /// # Errors
    /// Something on the way is not what the path needs, or the change does not go with what is there. The value may be changed in part then.
    pub fn apply(&self, root: &mut Value, change: &dyn Change) -> Result<Changed, String> {
        let mut walk = Walk { change, at: String::new(), changed: Changed::default() };
        walk.go(root, &self.steps).map_err(|e| format!("path {self}: {e}"))?;
        Ok(walk.changed)
    }
}

/// Where something changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// JSON Pointers of the first [`MAX_LISTED`].
    pub places: Vec<String>,
    /// How many there were.
    pub count: usize,
}

struct Walk<'a> {
    change: &'a dyn Change,
    at: String,
    changed: Changed,
}

impl Walk<'_> {
    fn note(&mut self, count: usize) {
        if count > 0 {
            self.changed.count += count;
            if self.changed.places.len() < MAX_LISTED {
                self.changed.places.push(self.at.clone());
            }
        }
    }

    /// At a step down, with the pointer grown by it meanwhile.
    fn down<T>(&mut self, name: &str, then: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.at.len();
        self.at.push('/');
        self.at.push_str(&name.replace('~', "~0").replace('/', "~1"));
        let out = then(self);
        self.at.truncate(before);
        out
    }

    fn go(&mut self, value: &mut Value, steps: &[Step]) -> Result<(), String> {
        let Some((step, rest)) = steps.split_first() else {
            let changed = self.change.change(value)?;
            self.note(usize::from(changed));
            return Ok(());
        };
        match (value, step) {
            (value, _) if self.change.passes(value) => Ok(()),
            (Value::Object(map), Step::Name(name)) => self.member(map, name, rest),
            (Value::Object(map), Step::Each) if rest.is_empty() && self.change.removes() => {
                let count = map.len();
                map.clear();
                self.down("*", |walk| walk.note(count));
                Ok(())
            }
            (Value::Array(items), Step::Each) if rest.is_empty() && self.change.removes() => {
                let count = items.len();
                items.clear();
                self.down("*", |walk| walk.note(count));
                Ok(())
            }
            (Value::Object(map), Step::Each) => map.iter_mut().try_for_each(|(name, v)| self.down(name, |walk| walk.go(v, rest))),
            (Value::Array(items), Step::Each) => {
                items.iter_mut().enumerate().try_for_each(|(i, v)| self.down(&i.to_string(), |walk| walk.go(v, rest)))
            }
            (_, Step::Name(name)) => Err(format!("there is no object at {:?} that could have `{name}`", self.at)),
            (_, Step::Each) => Err(format!("there is no list at {:?}", self.at)),
        }
    }

    fn member(&mut self, map: &mut Map<String, Value>, name: &str, rest: &[Step]) -> Result<(), String> {
        if rest.is_empty() && self.change.removes() {
            let removed = map.remove(name).is_some();
            self.down(name, |walk| walk.note(usize::from(removed)));
            return Ok(());
        }
        if !map.contains_key(name) {
            if !self.change.creates() || rest.contains(&Step::Each) {
                return Ok(());
            }
            let made = if rest.is_empty() { Value::Null } else { Value::Object(Map::new()) };
            map.insert(name.to_owned(), made);
            if rest.is_empty() {
                // made: a change even if the constant is what was made
                self.down(name, |walk| walk.note(1));
                if let Some(value) = map.get_mut(name) {
                    self.change.change(value)?;
                }
                return Ok(());
            }
        }
        match map.get_mut(name) {
            Some(value) => self.down(name, |walk| walk.go(value, rest)),
            None => Ok(()),
        }
    }
}

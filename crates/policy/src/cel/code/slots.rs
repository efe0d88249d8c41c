//! The variables of a decision as numbered slots that borrow from the request and the snapshot. A rule knows the number since it was compiled.

use std::{cell::RefCell, rc::Rc};

use cel::Value;
use chrono::{DateTime, FixedOffset};
use serde_json::Value as Json;

use super::val::{DYN, Val};
use crate::cel::{ty::Ty, value};

/// Every scalar or list that rules read of a variable other than `args`, `roles` and `now`, by variable and field.
pub const FIELDS: [(&str, &str); 26] = [
    ("org", "name"),
    ("org", "path"),
    ("org", "namespace"),
    ("agent", "name"),
    ("agent", "namespace"),
    ("agent", "type"),
    ("caller", "username"),
    ("caller", "groups"),
    ("caller", "chain"),
    ("caller", "uid"),
    ("caller", "podName"),
    ("caller", "podUid"),
    ("caller", "via"),
    ("tool", "name"),
    ("tool", "org"),
    ("tool", "namespace"),
    ("tool", "risk"),
    ("tool", "idempotent"),
    ("tool", "priceUSD"),
    ("task", "name"),
    ("task", "uid"),
    ("task", "jobSpace"),
    ("request", "verb"),
    ("request", "id"),
    ("request", "context"),
    ("request", "jobSpace"),
];

/// Number of a field of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub usize);

impl Slot {
    /// The slot of a field; None: there is no such variable or field.
    pub fn of(variable: &str, field: &str) -> Option<Self> {
        FIELDS.iter().position(|(v, f)| *v == variable && *f == field).map(Self)
    }

    /// Its variable and field, as rules write them.
    pub fn name(self) -> String {
        FIELDS.get(self.0).map(|(variable, field)| format!("{variable}.{field}")).unwrap_or_default()
    }

    /// Its field's name.
    pub fn field(self) -> &'static str {
        FIELDS.get(self.0).map_or("", |(_, field)| field)
    }
}

/// Computes the roles of the caller as a rule of one Policy sees them.
type Roles<'a> = Box<dyn Fn() -> Vec<Val<'a>> + 'a>;

/// Values of the variables for one decision.
#[derive(Default)]
pub struct Slots<'a> {
    fields: [Option<Val<'a>>; FIELDS.len()],
    args: Option<(&'a Json, &'a Ty)>,
    now: Option<DateTime<FixedOffset>>,
    roles: Option<Roles<'a>>,
    held: RefCell<Option<Rc<[Val<'a>]>>>,
    counters: Option<&'a Json>,
    history: Option<&'a Json>,
}

impl<'a> Slots<'a> {
    /// Sets all fields in the order of `FIELDS`.
    pub fn fill(&mut self, fields: [Option<Val<'a>>; FIELDS.len()]) {
        self.fields = fields;
    }

    /// Sets the arguments with their type.
    pub fn set_args(&mut self, args: &'a Json, ty: &'a Ty) {
        self.args = Some((args, ty));
    }

    /// Sets the present time.
    pub fn set_now(&mut self, now: DateTime<FixedOffset>) {
        self.now = Some(now);
    }

    /// Sets how the roles are found, for the rules that follow; they are found when the first rule reads them.
    pub fn set_roles(&mut self, roles: impl Fn() -> Vec<Val<'a>> + 'a) {
        self.roles = Some(Box::new(roles));
        self.held.take();
    }

    /// Sets what the counters of the present Policy stand at, an object, for the rules that follow.
    pub fn set_counters(&mut self, counters: Option<&'a Json>) {
        self.counters = counters;
    }

    /// Sets the history, an object.
    pub fn set_history(&mut self, history: Option<&'a Json>) {
        self.history = history;
    }

    /// The counters.
    pub fn counters(&self) -> Option<Val<'a>> {
        self.counters.map(|json| Val::json(json, &DYN))
    }

    /// The history.
    pub fn history(&self) -> Option<Val<'a>> {
        self.history.map(|json| Val::json(json, &DYN))
    }

    /// A field; None: absent.
    pub fn field(&self, slot: Slot) -> Option<&Val<'a>> {
        self.fields.get(slot.0).and_then(Option::as_ref)
    }

    /// The arguments.
    pub fn args(&self) -> Option<Val<'a>> {
        self.args.map(|(json, ty)| Val::json(json, ty))
    }

    /// The present time.
    pub fn now(&self) -> Option<Val<'a>> {
        self.now.map(Val::Time)
    }

    /// The caller's roles.
    pub fn roles(&self) -> Option<Val<'a>> {
        let roles = self.roles.as_ref()?;
        let mut held = self.held.borrow_mut();
        Some(Val::List(Rc::clone(held.get_or_insert_with(|| roles().into()))))
    }

    /// Every variable as the evaluator `cel` takes it.
    pub fn to_cel(&self) -> Vec<(&'static str, Value)> {
        let mut out: Vec<(&'static str, Value)> = Vec::new();
        let mut at = 0;
        while let Some((variable, _)) = FIELDS.get(at).copied() {
            let fields = FIELDS.iter().zip(&self.fields).filter(|((v, _), _)| *v == variable);
            out.push((variable, value::map(fields.clone().filter_map(|((_, f), value)| Some((*f, value.as_ref()?.to_cel()))))));
            at += fields.count();
        }
        out.extend(self.now().map(|now| ("now", now.to_cel())));
        out.extend(self.args().map(|args| ("args", args.to_cel())));
        out
    }
}

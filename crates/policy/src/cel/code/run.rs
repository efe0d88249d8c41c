//! Runs compiled rules. Errors are absorbed by `&&`, `||`, `all` and `exists` exactly as CEL says, but for a spent budget, which nothing absorbs.

use std::cmp::Ordering;

use super::{
    Code, Fail,
    build::{Call, MAX_ARGUMENTS, Node, Order, Where},
    ops,
    slots::Slots,
    val::Val,
};
use crate::{
    cel::{lib, meter::Meter},
    past,
};

/// What running needs: variables, the loops around, the budget.
pub struct Machine<'a, 'm> {
    pub(super) slots: &'m Slots<'a>,
    pub(super) locals: Vec<Val<'a>>,
    pub(super) meter: &'m Meter,
    /// What is known of parts that several rules have.
    memo: Option<Known<'a, 'm>>,
}

/// Values of the parts that several rules of a decision have, by number, each with the steps that it took.
pub type Memo<'a> = [Option<(Result<Val<'a>, Fail<'a>>, u64)>];

/// What is known, and under which number a rule's parts are found there.
struct Known<'a, 'm> {
    numbers: &'a [Option<u32>],
    values: &'m mut Memo<'a>,
}

type R<'a> = Result<Val<'a>, Fail<'a>>;

impl<'a, 'm> Machine<'a, 'm> {
    /// A machine for the variables of one decision.
    pub fn new(slots: &'m Slots<'a>, meter: &'m Meter) -> Self {
        Self { slots, locals: Vec::new(), meter, memo: None }
    }

    /// With what is known already: `numbers` has, for each shared part of the expression to run, its number in `values`.
    pub fn knowing(mut self, numbers: &'a [Option<u32>], values: &'m mut Memo<'a>) -> Self {
        self.memo = Some(Known { numbers, values }).filter(|known| !known.numbers.is_empty());
        self
    }

    /// Looks a part up, or computes it and remembers it. Its steps are charged again, so that a rule takes what it takes alone.
    fn shared(&mut self, number: usize, node: &'a Node) -> R<'a> {
        let place = self.memo.as_ref().and_then(|known| known.numbers.get(number).copied().flatten());
        let Some(place) = place else { return self.eval(node) };
        let found = self.memo.as_ref().and_then(|known| known.values.get(place as usize)?.clone());
        if let Some((value, steps)) = found {
            if steps > 0 {
                self.tick(steps)?;
            }
            return value;
        }
        let before = self.meter.steps();
        let value = self.eval(node);
        // once the budget is spent, nothing is known
        if !self.meter.spent()
            && let Some(entry) = self.memo.as_mut().and_then(|known| known.values.get_mut(place as usize))
        {
            *entry = Some((value.clone(), self.meter.steps() - before));
        }
        value
    }

    /// The value of an expression.
    ///
    /// # Errors
    /// It has none for these variables, or the budget is spent.
    pub fn run(&mut self, code: &'a Code) -> R<'a> {
        self.locals.clear();
        self.eval(&code.node)
    }

    /// Charges steps.
    pub(super) fn tick(&self, steps: u64) -> Result<(), Fail<'a>> {
        if self.meter.charge(steps) { Ok(()) } else { Err(Fail::Spent) }
    }

    pub(super) fn eval(&mut self, node: &'a Node) -> R<'a> {
        match node {
            Node::Const(c) => Ok(c.val()),
            Node::Slot(slot) => self.slots.field(*slot).cloned().ok_or(Fail::Absent(slot.field())),
            Node::SlotOpt(slot) => Ok(Val::Opt(self.slots.field(*slot).cloned().map(Into::into))),
            Node::Args => self.slots.args().ok_or(Fail::Absent("args")),
            Node::Roles => self.slots.roles().ok_or(Fail::Absent("roles")),
            Node::Now => self.slots.now().ok_or(Fail::Absent("now")),
            Node::Counters => self.slots.counters().ok_or(Fail::Absent(past::COUNTERS)),
            Node::History => self.slots.history().ok_or(Fail::Absent(past::HISTORY)),
            Node::Local(depth) => self.locals.get(*depth).cloned().ok_or(Fail::NoKey),
            Node::Field(of, name) => {
                let of = self.eval(of)?;
                ops::field(&of, name)
            }
            Node::FieldOpt(of, name) => {
                let of = self.eval(of)?;
                Ok(ops::field_opt(&of, name))
            }
            Node::Index(of, key) => {
                let of = self.eval(of)?;
                if let Val::Opt(inner) = of {
                    let Some(inner) = inner else { return Ok(Val::Opt(None)) };
                    let key = self.eval(key)?;
                    return Ok(Val::Opt(ops::index(&inner, &key).ok().map(Into::into)));
                }
                let value = self.eval(key)?;
                ops::index(&of, &value).map_err(|e| match e {
                    // a key that is computed is a value of the call, which no message holds
                    Fail::Absent(_) if !matches!(**key, Node::Const(_)) => Fail::NoKey,
                    other => other,
                })
            }
            Node::IndexOpt(of, key) => {
                let of = self.eval(of)?;
                let of = match of {
                    Val::Opt(None) => return Ok(Val::Opt(None)),
                    Val::Opt(Some(inner)) => (*inner).clone(),
                    other => other,
                };
                let key = self.eval(key)?;
                Ok(Val::Opt(ops::index(&of, &key).ok().map(Into::into)))
            }
            Node::Cond(cond, a, b) => {
                if self.truth(cond)? {
                    self.eval(a)
                } else {
                    self.eval(b)
                }
            }
            Node::Neg(of) => ops::negate(&self.eval(of)?),
            Node::Arith(op, a, b) => {
                let (a, b) = (self.eval(a)?, self.eval(b)?);
                ops::arithmetic(*op, &a, &b)
            }
            Node::Size(of) => ops::size(&self.eval(of)?),
            Node::Convert(to, of) => {
                let of = self.eval(of)?;
                ops::convert(*to, of)
            }
            Node::Clock(get, of) => ops::clock(*get, &self.eval(of)?),
            Node::ClockIn(get, of, zone) => {
                let of = self.eval(of)?;
                let zone = match &**zone {
                    Where::Known(zone) => *zone,
                    Where::Computed(node) => {
                        let text = self.eval(node)?;
                        text.str().and_then(ops::zone).ok_or(Fail::Function(get.name()))?
                    }
                };
                ops::clock_in(*get, &of, zone)
            }
            Node::Call(call) => self.library(call),
            Node::Shared(number, of) => self.shared(*number, of),
            Node::List(items) => items.iter().map(|item| self.eval(item)).collect::<Result<Vec<_>, _>>().map(|l| Val::List(l.into())),
            Node::Map(entries) => self.map(entries),
            Node::Unwrap(of) => match self.eval(of)? {
                Val::Opt(Some(inner)) => Ok((*inner).clone()),
                Val::Opt(None) => Err(Fail::Function("value")),
                _ => Err(Fail::Type("value()")),
            },
            Node::OrValue(of, other) => {
                let other = self.eval(other)?;
                match self.eval(of)? {
                    Val::Opt(Some(inner)) => Ok((*inner).clone()),
                    Val::Opt(None) => Ok(other),
                    _ => Err(Fail::Type("orValue()")),
                }
            }
            Node::Or2(of, other) => {
                let other = self.eval(other)?;
                match (self.eval(of)?, other) {
                    (it @ Val::Opt(Some(_)), Val::Opt(_)) => Ok(it),
                    (Val::Opt(None), other @ Val::Opt(_)) => Ok(other),
                    _ => Err(Fail::Type("or()")),
                }
            }
            Node::Collect(each) => self.collect(each),
            Node::And(..)
            | Node::Or(..)
            | Node::Not(_)
            | Node::Equal(..)
            | Node::Compare(..)
            | Node::In(..)
            | Node::Has(..)
            | Node::SlotHas(_)
            | Node::HasValue(_)
            | Node::Text(..)
            | Node::Matches(..)
            | Node::All(_)
            | Node::Exists(_)
            | Node::One(_) => self.truth(node).map(Val::Bool),
        }
    }

    /// The value of an expression that is a bool; anything else is an error.
    pub(super) fn truth(&mut self, node: &'a Node) -> Result<bool, Fail<'a>> {
        match node {
            Node::And(a, b) => match self.truth(a) {
                Ok(false) => Ok(false),
                Ok(true) => self.truth(b),
                Err(Fail::Spent) => Err(Fail::Spent),
                Err(e) => {
                    if self.truth(b)? {
                        Err(e)
                    } else {
                        Ok(false)
                    }
                }
            },
            Node::Or(a, b) => match self.truth(a) {
                Ok(true) => Ok(true),
                Ok(false) => self.truth(b),
                Err(Fail::Spent) => Err(Fail::Spent),
                Err(e) => {
                    if self.truth(b)? {
                        Ok(true)
                    } else {
                        Err(e)
                    }
                }
            },
            Node::Not(of) => self.truth(of).map(|b| !b),
            Node::Equal(want, a, b) => {
                let (a, b) = (self.eval(a)?, self.eval(b)?);
                Ok(a.equals(&b) == *want)
            }
            Node::Compare(order, a, b) => {
                let (a, b) = (self.eval(a)?, self.eval(b)?);
                let found = a.compare(&b)?;
                Ok(match order {
                    Order::Less => found == Ordering::Less,
                    Order::LessEqual => found != Ordering::Greater,
                    Order::Greater => found == Ordering::Greater,
                    Order::GreaterEqual => found != Ordering::Less,
                })
            }
            Node::In(a, b) => {
                let (a, b) = (self.eval(a)?, self.eval(b)?);
                ops::within(&a, &b)
            }
            Node::Has(of, name) => {
                let of = self.eval(of)?;
                ops::has(&of, name)
            }
            Node::SlotHas(slot) => Ok(self.slots.field(*slot).is_some()),
            Node::HasValue(of) => match self.eval(of)? {
                Val::Opt(inner) => Ok(inner.is_some()),
                _ => Err(Fail::Type("hasValue()")),
            },
            Node::Text(op, of, with) => {
                let with = self.eval(with)?;
                let of = self.eval(of)?;
                ops::text(*op, &of, &with)
            }
            Node::Matches(of, pattern) => {
                let of = self.eval(of)?;
                let Some(text) = of.str() else { return Err(Fail::Type("matches()")) };
                self.tick(1 + text.len() as u64 / 16)?;
                Ok(pattern.is_match(text))
            }
            Node::All(each) => self.all(each, false),
            Node::Exists(each) => self.all(each, true),
            Node::One(each) => self.one(each),
            _ => match self.eval(node)? {
                Val::Bool(b) => Ok(b),
                _ => Err(Fail::Type("a condition")),
            },
        }
    }

    fn library(&mut self, call: &'a Call) -> R<'a> {
        let mut values: [Val<'a>; MAX_ARGUMENTS] = [const { Val::Null }; MAX_ARGUMENTS];
        for (value, arg) in values.iter_mut().zip(&call.args) {
            *value = self.eval(arg)?;
        }
        let args = values.get(..call.args.len()).unwrap_or_default();
        lib::call(call.fun, args, &lib::With { pattern: call.pattern.as_ref(), meter: self.meter })
    }

    fn map(&mut self, entries: &'a [(Node, Node)]) -> R<'a> {
        let mut out: Vec<(Val<'a>, Val<'a>)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let (key, value) = (self.eval(key)?, self.eval(value)?);
            let Some(name) = key.str() else { return Err(Fail::Type("a key")) };
            if out.iter().any(|(k, _)| k.str() == Some(name)) {
                return Err(Fail::Duplicate);
            }
            out.push((key, value));
        }
        Ok(Val::Map(out.into()))
    }
}

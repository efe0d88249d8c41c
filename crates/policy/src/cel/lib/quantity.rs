//! Quantities in rules: exact, in billionths.

use std::cmp::Ordering;

use polity_api::quantity::{self, NANO};

use super::{Ext, Fun};
use crate::cel::code::{Fail, val::Val};

/// A quantity in billionths. How it was written does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i128);

impl Quantity {
    /// Reads a text.
    pub fn read(text: &str) -> Option<Self> {
        quantity::parse(text).map(|(nano, _)| Self(nano))
    }

    fn whole(self) -> Option<i64> {
        (self.0 % NANO == 0).then(|| i64::try_from(self.0 / NANO).ok()).flatten()
    }
}

/// Functions on a quantity.
pub fn call<'a>(fun: Fun, of: &Quantity, rest: &[Val<'a>]) -> Result<Val<'a>, Fail<'a>> {
    let wrong = Fail::Type(fun.name());
    let other = || match rest.first() {
        Some(Val::Ext(ext)) => match &**ext {
            Ext::Quantity(q) => Ok(*q),
            _ => Err(wrong),
        },
        _ => Err(wrong),
    };
    let operand = || match rest.first() {
        Some(Val::Int(n)) => Ok(Quantity(i128::from(*n) * NANO)),
        _ => other(),
    };
    let made = |nano: Option<i128>| nano.map(|n| Val::Ext(Ext::Quantity(Quantity(n)).into())).ok_or(Fail::Overflow(fun.name()));
    match fun {
        Fun::IsInteger => Ok(Val::Bool(of.whole().is_some())),
        Fun::AsInteger => of.whole().map(Val::Int).ok_or(Fail::Function(fun.name())),
        // the nearest double, as its name says
        #[allow(clippy::cast_precision_loss)]
        Fun::AsApproximateFloat => Ok(Val::Double(of.0 as f64 / NANO as f64)),
        Fun::Sign => Ok(Val::Int(i64::from(of.0.cmp(&0) as i8))),
        Fun::Add => made(of.0.checked_add(operand()?.0)),
        Fun::Sub => made(of.0.checked_sub(operand()?.0)),
        Fun::CompareTo => Ok(Val::Int(i64::from(of.cmp(&other()?) as i8))),
        Fun::IsLessThan => Ok(Val::Bool(of.cmp(&other()?) == Ordering::Less)),
        Fun::IsGreaterThan => Ok(Val::Bool(of.cmp(&other()?) == Ordering::Greater)),
        _ => Err(wrong),
    }
}

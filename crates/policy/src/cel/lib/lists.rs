//! Functions on lists, and sets, which are lists whose order and repetitions do not count.

use std::cmp::Ordering;

use super::{Fun, With, weight};
use crate::cel::code::{Fail, val::Val};

/// Elements of a list.
fn items<'a>(of: &Val<'a>, fun: Fun) -> Result<Vec<Val<'a>>, Fail<'a>> {
    let len = of.list_len().ok_or(Fail::Type(fun.name()))?;
    Ok((0..len).filter_map(|i| of.at(i)).collect())
}

/// Functions whose first argument is a list.
pub fn call<'a>(fun: Fun, args: &[Val<'a>], with: &With<'_>) -> Result<Val<'a>, Fail<'a>> {
    let wrong = Err(Fail::Type(fun.name()));
    let Some((list, rest)) = args.split_first() else { return wrong };
    let weight = weight::of(list);
    with.charge(weight)?;
    match (fun, rest) {
        (Fun::Contains | Fun::Equivalent | Fun::Intersects, [other]) => {
            let (a, b) = (items(list, fun)?, items(other, fun)?);
            let other = weight::of(other);
            with.charge(other)?;
            // each element is compared with each of the other list
            with.charge(weight.saturating_mul(b.len() as u64).saturating_add(other.saturating_mul(a.len() as u64)))?;
            let all_of = |these: &[Val<'a>], those: &[Val<'a>]| these.iter().all(|x| those.iter().any(|y| y.equals(x)));
            Ok(Val::Bool(match fun {
                Fun::Contains => all_of(&b, &a),
                Fun::Equivalent => all_of(&b, &a) && all_of(&a, &b),
                _ => b.iter().any(|x| a.iter().any(|y| y.equals(x))),
            }))
        }
        (Fun::IsSorted, []) => sorted(&items(list, fun)?).map(Val::Bool),
        (Fun::Sum, []) => sum(items(list, fun)?),
        (Fun::Min | Fun::Max, []) => {
            let wanted = if fun == Fun::Min { Ordering::Less } else { Ordering::Greater };
            let mut items = items(list, fun)?.into_iter();
            let mut best = items.next().ok_or(Fail::Function(fun.name()))?;
            ordered(&best)?;
            for item in items {
                if item.compare(&best)? == wanted {
                    best = item;
                }
            }
            Ok(best)
        }
        (Fun::IndexOf | Fun::LastIndexOf, [wanted]) => {
            let items = items(list, fun)?;
            let found = |item: &Val<'a>| item.equals(wanted);
            let at = if fun == Fun::IndexOf { items.iter().position(found) } else { items.iter().rposition(found) };
            Ok(Val::Int(at.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1)))
        }
        (Fun::Join, [] | [_]) => {
            let between = match rest.first() {
                None => "",
                Some(between) => between.str().ok_or(Fail::Type(fun.name()))?,
            };
            let items = items(list, fun)?;
            let texts: Vec<&str> = items.iter().map(|item| item.str().ok_or(Fail::Type("join"))).collect::<Result<_, _>>()?;
            let len = texts.iter().map(|t| t.len()).sum::<usize>();
            with.bytes(len.saturating_add(between.len().saturating_mul(texts.len())))?;
            Ok(Val::Text(texts.join(between).into()))
        }
        _ => wrong,
    }
}

/// Whether a value has an order at all: a list of one that has none is no list that can be sorted.
fn ordered<'a>(value: &Val<'a>) -> Result<(), Fail<'a>> {
    value.compare(value).map(|_| ())
}

fn sorted<'a>(items: &[Val<'a>]) -> Result<bool, Fail<'a>> {
    if let [one] = items {
        ordered(one)?;
    }
    let mut sorted = true;
    for pair in items.windows(2) {
        if let [a, b] = pair {
            sorted &= a.compare(b)? != Ordering::Greater;
        }
    }
    Ok(sorted)
}

/// Sum of ints, of doubles, or of durations. That of nothing is 0.
fn sum(items: Vec<Val<'_>>) -> Result<Val<'_>, Fail<'_>> {
    let mut items = items.into_iter();
    let Some(first) = items.next() else { return Ok(Val::Int(0)) };
    if !matches!(first, Val::Int(_) | Val::Double(_) | Val::Span(_)) {
        return Err(Fail::Type("sum"));
    }
    items.try_fold(first, |sum, item| match (sum, item) {
        (Val::Int(a), Val::Int(b)) => a.checked_add(b).map(Val::Int).ok_or(Fail::Overflow("sum")),
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a + b)),
        (Val::Span(a), Val::Span(b)) => a.checked_add(&b).map(Val::Span).ok_or(Fail::Overflow("sum")),
        _ => Err(Fail::Type("sum")),
    })
}

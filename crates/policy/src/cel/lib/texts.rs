//! Functions on strings. Places are counted in code points. What is part of a text of the call or the rule is not copied.

use std::ops::Range;

use super::{Fun, With};
use crate::cel::code::{Fail, val::Val};

type R<'a> = Result<Val<'a>, Fail<'a>>;

/// A part of a text, by bytes.
fn part<'a>(of: &Val<'a>, range: Range<usize>) -> Val<'a> {
    match of {
        Val::Str(s) => Val::Str(s.get(range).unwrap_or_default()),
        other => Val::Text(other.str().and_then(|s| s.get(range)).unwrap_or_default().into()),
    }
}

/// The byte at which a code point begins; the end of the text for the one after the last. None: there is none.
fn byte_of(text: &str, place: i64) -> Option<usize> {
    let place = usize::try_from(place).ok()?;
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(place)
}

/// The code point at a byte.
fn place_of(text: &str, byte: usize) -> i64 {
    let before = text.get(..byte).unwrap_or_default();
    i64::try_from(before.chars().count()).unwrap_or(i64::MAX)
}

/// Functions whose first argument is a text.
pub fn call<'a>(fun: Fun, args: &[Val<'a>], with: &With<'_>) -> R<'a> {
    let wrong = Err(Fail::Type(fun.name()));
    let Some((of, rest)) = args.split_first() else { return wrong };
    let Some(text) = of.str() else { return wrong };
    let others: usize = rest.iter().filter_map(|v| v.str().map(str::len)).sum();
    with.bytes(text.len().saturating_add(others))?;
    let none = Fail::Function(fun.name());
    let first = rest.first().and_then(Val::str);
    match (fun, rest, first) {
        (Fun::CharAt, [Val::Int(at)], _) => {
            let begin = byte_of(text, *at).ok_or(none)?;
            let len = text.get(begin..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
            Ok(part(of, begin..begin + len))
        }
        (Fun::IndexOf, [_], Some(wanted)) => Ok(Val::Int(text.find(wanted).map_or(-1, |byte| place_of(text, byte)))),
        (Fun::LastIndexOf, [_], Some(wanted)) => Ok(Val::Int(text.rfind(wanted).map_or(-1, |byte| place_of(text, byte)))),
        (Fun::IndexOf | Fun::LastIndexOf, [_, Val::Int(from)], Some(wanted)) => {
            from_place(fun, text, wanted, *from).map(Val::Int).ok_or(none)
        }
        (Fun::Quote, [], _) => {
            // each character becomes two at most
            with.bytes(text.len().saturating_mul(2))?;
            Ok(Val::Text(quote(text).into()))
        }
        (Fun::LowerAscii, [], _) => Ok(Val::Text(text.to_ascii_lowercase().into())),
        (Fun::UpperAscii, [], _) => Ok(Val::Text(text.to_ascii_uppercase().into())),
        (Fun::Trim, [], _) => {
            let begin = text.len() - text.trim_start().len();
            Ok(part(of, begin..begin + text.trim().len()))
        }
        (Fun::Substring, [Val::Int(begin)], _) => byte_of(text, *begin).map(|begin| part(of, begin..text.len())).ok_or(none),
        (Fun::Substring, [Val::Int(begin), Val::Int(end)], _) => match (byte_of(text, *begin), byte_of(text, *end)) {
            (Some(begin), Some(end)) if begin <= end => Ok(part(of, begin..end)),
            _ => Err(none),
        },
        (Fun::Replace, [_, new], Some(old)) => replace(text, old, new.str().ok_or(Fail::Type("replace"))?, usize::MAX, with),
        (Fun::Replace, [_, new, Val::Int(most)], Some(old)) => {
            replace(text, old, new.str().ok_or(Fail::Type("replace"))?, limit(*most), with)
        }
        (Fun::Split, [_], Some(between)) => split(of, text, between, usize::MAX, with),
        (Fun::Split, [_, Val::Int(most)], Some(between)) => split(of, text, between, limit(*most), with),
        (Fun::Find, [], _) => {
            let pattern = with.pattern.ok_or(none)?;
            Ok(pattern.find(text).map_or(Val::Str(""), |found| part(of, found.range())))
        }
        (Fun::FindAll, [], _) => find_all(of, text, usize::MAX, with),
        (Fun::FindAll, [Val::Int(most)], _) => find_all(of, text, limit(*most), with),
        _ => wrong,
    }
}

/// A text as a literal of CEL in double quotes.
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A limit; a negative one is none.
fn limit(most: i64) -> usize {
    usize::try_from(most).unwrap_or(usize::MAX)
}

/// The place at or after `from` (`indexOf`), or at or before it (`lastIndexOf`); -1: it is not there. None: `from` is no place of the text.
fn from_place(fun: Fun, text: &str, wanted: &str, from: i64) -> Option<i64> {
    let len = place_of(text, text.len());
    if from < 0 {
        return None;
    }
    if wanted.is_empty() {
        return Some(from.min(len));
    }
    if from >= len {
        return None;
    }
    let byte = byte_of(text, from)?;
    let found = if fun == Fun::IndexOf {
        text.get(byte..)?.find(wanted).map(|at| byte + at)
    } else {
        // what begins at the place at the latest ends so much after it at the latest
        let mut end = byte.saturating_add(wanted.len()).min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.get(..end)?.rfind(wanted)
    };
    Some(found.map_or(-1, |byte| place_of(text, byte)))
}

fn replace<'a>(text: &str, old: &str, new: &str, most: usize, with: &With<'_>) -> R<'a> {
    let times = text.matches(old).take(most).count();
    with.bytes(text.len().saturating_add(times.saturating_mul(new.len())))?;
    Ok(Val::Text(text.replacen(old, new, times).into()))
}

fn split<'a>(of: &Val<'a>, text: &str, between: &str, most: usize, with: &With<'_>) -> R<'a> {
    if most == 0 || (between.is_empty() && text.is_empty()) {
        return Ok(Val::List([].into()));
    }
    // where the text is cut, and how much is left out there
    let cuts = || -> Box<dyn Iterator<Item = usize> + '_> {
        match between.is_empty() {
            true => Box::new(text.char_indices().map(|(at, _)| at).skip(1).take(most - 1)),
            false => Box::new(text.match_indices(between).map(|(at, _)| at).take(most - 1)),
        }
    };
    with.elements(1 + cuts().count())?;
    let mut begin = 0;
    let mut out = Vec::new();
    for cut in cuts() {
        out.push(part(of, begin..cut));
        begin = cut + between.len();
    }
    out.push(part(of, begin..text.len()));
    Ok(Val::List(out.into()))
}

fn find_all<'a>(of: &Val<'a>, text: &str, most: usize, with: &With<'_>) -> R<'a> {
    let pattern = with.pattern.ok_or(Fail::Function("findAll"))?;
    let mut out = Vec::new();
    for found in pattern.find_iter(text).take(most) {
        with.elements(1)?;
        out.push(part(of, found.range()));
    }
    Ok(Val::List(out.into()))
}

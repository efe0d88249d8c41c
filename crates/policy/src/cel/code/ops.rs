//! Operators and functions of compiled rules on values, each as the evaluator `cel` computes it.

use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, TimeDelta, Timelike};
use chrono_tz::Tz;

use super::{
    Fail,
    build::{Arith, Clock, Kind, Text},
    val::Val,
};
use crate::cel::eval;

type R<'a> = Result<Val<'a>, Fail<'a>>;

/// `of.name`.
pub fn field<'a>(of: &Val<'a>, name: &'a str) -> R<'a> {
    match of {
        Val::Opt(None) => Ok(Val::Opt(None)),
        Val::Opt(Some(inner)) => match inner.get(name) {
            Some(value) => Ok(Val::Opt(value.map(Into::into))),
            None if inner.list_len().is_some() => Ok(Val::Opt(None)),
            None => Err(Fail::Absent(name)),
        },
        _ => of.get(name).ok_or(Fail::Type("."))?.ok_or(Fail::Absent(name)),
    }
}

/// `of.?name`: whatever is in the way is none.
pub fn field_opt<'a>(of: &Val<'a>, name: &str) -> Val<'a> {
    let of = match of {
        Val::Opt(None) => return Val::Opt(None),
        Val::Opt(Some(inner)) => inner,
        other => other,
    };
    Val::Opt(of.get(name).flatten().map(Into::into))
}

/// `has(of.name)`.
pub fn has<'a>(of: &Val<'a>, name: &'a str) -> Result<bool, Fail<'a>> {
    match of {
        Val::Opt(None) => Ok(false),
        Val::Opt(Some(inner)) => match inner.get(name) {
            Some(value) => Ok(value.is_some()),
            None if inner.list_len().is_some() => Ok(false),
            None => Err(Fail::Absent(name)),
        },
        _ => of.get(name).map(|value| value.is_some()).ok_or(Fail::Type("has()")),
    }
}

/// `of[key]`.
pub fn index<'a>(of: &Val<'a>, key: &Val<'a>) -> R<'a> {
    if of.list_len().is_some() {
        let at = match key {
            Val::Int(i) => *i,
            #[expect(clippy::cast_possible_truncation, reason = "whole and within the range of i64, as just checked")]
            Val::Double(d) if d.fract() == 0.0 && d.abs() < 9_223_372_036_854_775_808.0 => *d as i64,
            _ => return Err(Fail::Type("[]")),
        };
        return usize::try_from(at).ok().and_then(|i| of.at(i)).ok_or(Fail::Bounds);
    }
    if of.map_len().is_none() {
        return Err(Fail::Type("[]"));
    }
    match (key, key.str()) {
        (Val::Str(name), _) => field(of, name),
        (_, Some(name)) => of.get(name).flatten().ok_or(Fail::NoKey),
        (Val::Int(_) | Val::Double(_) | Val::Bool(_), None) => Err(Fail::NoKey),
        _ => Err(Fail::Type("[]")),
    }
}

/// `a in b`.
pub fn within<'a>(a: &Val<'a>, b: &Val<'a>) -> Result<bool, Fail<'a>> {
    match b {
        // the usual lists, without a value for each element
        Val::Strings(items) => Ok(a.str().is_some_and(|s| items.iter().any(|i| i == s))),
        Val::List(items) => Ok(items.iter().any(|i| i.equals(a))),
        Val::Consts(items) => Ok(items.iter().any(|i| i.val().equals(a))),
        _ => {
            if let Some(len) = b.list_len() {
                return Ok((0..len).any(|i| b.at(i).is_some_and(|item| item.equals(a))));
            }
            if b.map_len().is_none() {
                return Err(Fail::Type("in"));
            }
            match (a, a.str()) {
                (_, Some(key)) => Ok(b.get(key).flatten().is_some()),
                (Val::Int(_) | Val::Double(_) | Val::Bool(_), None) => Ok(false),
                _ => Err(Fail::Type("in")),
            }
        }
    }
}

/// Functions from text to bool.
pub fn text<'a>(op: Text, of: &Val<'a>, with: &Val<'a>) -> Result<bool, Fail<'a>> {
    let (Some(of), Some(with)) = (of.str(), with.str()) else { return Err(Fail::Type(op.name())) };
    Ok(match op {
        Text::Contains => of.contains(with),
        Text::StartsWith => of.starts_with(with),
        Text::EndsWith => of.ends_with(with),
    })
}

/// `size(of)`.
pub fn size<'a>(of: &Val<'a>) -> R<'a> {
    let size = of.str().map(|s| s.chars().count()).or_else(|| of.list_len()).or_else(|| of.map_len());
    size.and_then(|n| i64::try_from(n).ok()).map(Val::Int).ok_or(Fail::Type("size()"))
}

/// `-of`.
pub fn negate<'a>(of: &Val<'a>) -> R<'a> {
    match of {
        Val::Int(i) => i.checked_neg().map(Val::Int).ok_or(Fail::Overflow("negate")),
        Val::Double(d) => Ok(Val::Double(-d)),
        _ => Err(Fail::Type("-")),
    }
}

/// `a + b` and the other four.
pub fn arithmetic<'a>(op: Arith, a: &Val<'a>, b: &Val<'a>) -> R<'a> {
    match (a, b) {
        (Val::Int(a), Val::Int(b)) => ints(op, *a, *b),
        (Val::Double(a), Val::Double(b)) => match op {
            Arith::Add => Ok(Val::Double(a + b)),
            Arith::Sub => Ok(Val::Double(a - b)),
            Arith::Mul => Ok(Val::Double(a * b)),
            Arith::Div => Ok(Val::Double(a / b)),
            Arith::Rem => Err(Fail::Type("%")),
        },
        (Val::Time(_) | Val::Span(_), Val::Time(_) | Val::Span(_)) => times(op, a, b),
        _ if op != Arith::Add => Err(Fail::Type(op.name())),
        _ => match (a.str(), b.str()) {
            (Some(x), Some(y)) => Ok(Val::Text([x, y].concat().into())),
            _ => join(a, b),
        },
    }
}

fn ints<'a>(op: Arith, a: i64, b: i64) -> R<'a> {
    let result = match op {
        Arith::Add => a.checked_add(b),
        Arith::Sub => a.checked_sub(b),
        Arith::Mul => a.checked_mul(b),
        Arith::Div | Arith::Rem if b == 0 => return Err(Fail::DivisionByZero),
        Arith::Div => a.checked_div(b),
        Arith::Rem => a.checked_rem(b),
    };
    result.map(Val::Int).ok_or(Fail::Overflow(op.name()))
}

/// Lists one after the other.
fn join<'a>(a: &Val<'a>, b: &Val<'a>) -> R<'a> {
    let (Some(x), Some(y)) = (a.list_len(), b.list_len()) else { return Err(Fail::Type("+")) };
    let items: Vec<Val<'a>> = (0..x).filter_map(|i| a.at(i)).chain((0..y).filter_map(|i| b.at(i))).collect();
    Ok(Val::List(items.into()))
}

/// First and last second that a timestamp may have: the years 1 to 9999.
fn in_years(t: &DateTime<FixedOffset>) -> bool {
    let edge = |y, m, d| NaiveDate::from_ymd_opt(y, m, d).and_then(|day| day.and_hms_opt(0, 0, 0));
    match (edge(1, 1, 1), edge(10000, 1, 1)) {
        (Some(first), Some(end)) => t.naive_utc() >= first && t.naive_utc() < end,
        _ => false,
    }
}

fn times<'a>(op: Arith, a: &Val<'a>, b: &Val<'a>) -> R<'a> {
    let overflow = Fail::Overflow(op.name());
    let moved = |t: Option<DateTime<FixedOffset>>| t.filter(in_years).map(Val::Time).ok_or(overflow);
    // a duration is a number of nanoseconds that an int holds
    let span = |d: Option<TimeDelta>| d.filter(|d| d.num_nanoseconds().is_some()).map(Val::Span).ok_or(overflow);
    match (op, a, b) {
        (Arith::Add, Val::Time(t), Val::Span(d)) | (Arith::Add, Val::Span(d), Val::Time(t)) => moved(t.checked_add_signed(*d)),
        (Arith::Sub, Val::Time(t), Val::Span(d)) => moved(t.checked_sub_signed(*d)),
        (Arith::Sub, Val::Time(t), Val::Time(u)) => span(Some(t.signed_duration_since(*u))),
        (Arith::Add, Val::Span(d), Val::Span(e)) => span(d.checked_add(e)),
        (Arith::Sub, Val::Span(d), Val::Span(e)) => span(d.checked_sub(e)),
        _ => Err(Fail::Type(op.name())),
    }
}

/// `int(of)` and the other conversions.
pub fn convert<'a>(to: Kind, of: Val<'a>) -> R<'a> {
    let fail = Fail::Function(to.name());
    match (to, &of, of.str()) {
        (Kind::Int, Val::Int(_), _)
        | (Kind::Double, Val::Double(_), _)
        | (Kind::Bool, Val::Bool(_), _)
        | (Kind::String, _, Some(_))
        | (Kind::Timestamp, Val::Time(_), _)
        | (Kind::Duration, Val::Span(_), _) => Ok(of),
        #[expect(clippy::cast_possible_truncation, reason = "within the range of i64, as just checked; the fraction goes, as CEL says")]
        (Kind::Int, Val::Double(d), _) => {
            const END: f64 = 9_223_372_036_854_775_808.0;
            if *d > -END && *d < END { Ok(Val::Int(*d as i64)) } else { Err(fail) }
        }
        (Kind::Int, Val::Time(t), _) => Ok(Val::Int(t.timestamp())),
        (Kind::Int, _, Some(s)) => s.parse().map(Val::Int).map_err(|_| fail),
        #[expect(clippy::cast_precision_loss, reason = "as CEL says")]
        (Kind::Double, Val::Int(i), _) => Ok(Val::Double(*i as f64)),
        (Kind::Double, _, Some(s)) => s.parse().map(Val::Double).map_err(|_| fail),
        (Kind::String, Val::Int(i), _) => Ok(Val::Text(i.to_string().into())),
        (Kind::String, Val::Double(d), _) => Ok(Val::Text(d.to_string().into())),
        (Kind::String, Val::Bool(b), _) => Ok(Val::Str(if *b { "true" } else { "false" })),
        (Kind::Timestamp, _, Some(s)) => DateTime::parse_from_rfc3339(s).ok().filter(in_years).map(Val::Time).ok_or(fail),
        (Kind::Usd, _, Some(s)) => polity_api::money::parse_usd(s).map(Val::Int).map_err(|_| fail),
        (Kind::String, Val::Ext(ext), _) => ext.text().map(|text| Val::Text(text.into())).ok_or(Fail::Type("string")),
        // rare, and with rules of their own: one implementation
        (Kind::Bool | Kind::Duration, _, Some(_)) | (Kind::String, Val::Time(_) | Val::Span(_), _) | (Kind::Timestamp, Val::Int(_), _) => {
            let value = eval::standard(to.name(), of.to_cel());
            value.and_then(Val::scalar).ok_or(fail)
        }
        _ => Err(Fail::Type(to.name())),
    }
}

/// A time zone: by its name in the IANA database, or a distance from UTC.
#[derive(Clone, Copy, Debug)]
pub enum Zone {
    /// By name.
    Named(Tz),
    /// East of UTC.
    Offset(FixedOffset),
}

impl std::fmt::Display for Zone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Named(tz) => f.write_str(tz.name()),
            Self::Offset(offset) => offset.fmt(f),
        }
    }
}

/// Reads `Europe/Berlin`, `+02:00` or nothing for UTC.
pub fn zone(text: &str) -> Option<Zone> {
    let Some((hours, minutes)) = text.split_once(':') else {
        return if text.is_empty() { Some(Zone::Named(Tz::UTC)) } else { text.parse().ok().map(Zone::Named) };
    };
    let (h, m): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    if !(-23..=23).contains(&h) || !(0..=59).contains(&m) {
        return None;
    }
    let minutes = if hours.starts_with('-') { h * 60 - m } else { h * 60 + m };
    FixedOffset::east_opt(minutes * 60).map(Zone::Offset)
}

/// `of.getHours(zone)` and the others.
pub fn clock_in<'a>(get: Clock, of: &Val<'a>, zone: Zone) -> R<'a> {
    let Val::Time(t) = of else { return Err(Fail::Type(get.name())) };
    clock(
        get,
        &Val::Time(match zone {
            Zone::Named(tz) => t.with_timezone(&tz).fixed_offset(),
            Zone::Offset(offset) => t.with_timezone(&offset),
        }),
    )
}

/// `of.getHours()` and the others, in UTC.
pub fn clock<'a>(get: Clock, of: &Val<'a>) -> R<'a> {
    let n = match (of, get) {
        (Val::Time(t), _) => match get {
            Clock::FullYear => i64::from(t.year()),
            Clock::Month => i64::from(t.month0()),
            Clock::DayOfYear => i64::from(t.ordinal0()),
            Clock::DayOfMonth => i64::from(t.day0()),
            Clock::Date => i64::from(t.day()),
            Clock::DayOfWeek => i64::from(t.weekday().num_days_from_sunday()),
            Clock::Hours => i64::from(t.hour()),
            Clock::Minutes => i64::from(t.minute()),
            Clock::Seconds => i64::from(t.second()),
            Clock::Milliseconds => i64::from(t.timestamp_subsec_millis()),
        },
        (Val::Span(d), Clock::Hours) => d.num_hours(),
        (Val::Span(d), Clock::Minutes) => d.num_minutes(),
        (Val::Span(d), Clock::Seconds) => d.num_seconds(),
        (Val::Span(d), Clock::Milliseconds) => d.num_milliseconds(),
        _ => return Err(Fail::Type(get.name())),
    };
    Ok(Val::Int(n))
}

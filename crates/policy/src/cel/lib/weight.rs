//! How much there is of a value: a step for each part of it and one for 16 bytes of text. Looking costs no more than what it charges.

use serde_json::Value as Json;

use super::BYTES;
use crate::cel::code::val::{Const, Val};

fn text(len: usize) -> u64 {
    1 + len as u64 / BYTES
}

fn json(value: &Json) -> u64 {
    match value {
        Json::String(s) => text(s.len()),
        Json::Array(items) => 1 + items.iter().map(json).sum::<u64>(),
        Json::Object(members) => 1 + members.iter().map(|(k, v)| text(k.len()) + json(v)).sum::<u64>(),
        Json::Null | Json::Bool(_) | Json::Number(_) => 1,
    }
}

fn constant(value: &Const) -> u64 {
    match value {
        Const::Str(s) => text(s.len()),
        Const::List(items) => 1 + items.iter().map(constant).sum::<u64>(),
        _ => 1,
    }
}

/// Steps to read all of a value.
pub fn of(value: &Val<'_>) -> u64 {
    match value {
        Val::Str(s) => text(s.len()),
        Val::Text(s) => text(s.len()),
        Val::Json(value, _) => json(value),
        Val::Strings(items) => 1 + items.iter().map(|s| text(s.len())).sum::<u64>(),
        Val::Consts(items) => 1 + items.iter().map(constant).sum::<u64>(),
        Val::List(items) => 1 + items.iter().map(of).sum::<u64>(),
        Val::Map(entries) => 1 + entries.iter().map(|(k, v)| of(k) + of(v)).sum::<u64>(),
        Val::Opt(inner) => 1 + inner.as_deref().map_or(0, of),
        Val::Ext(_) | Val::Null | Val::Bool(_) | Val::Int(_) | Val::Double(_) | Val::Time(_) | Val::Span(_) => 1,
    }
}

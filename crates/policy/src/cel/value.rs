//! JSON to CEL values. Numbers have the type that the schema gives them: `integer` is int, `number` is double; where nothing is said a whole number that
//! fits is int. Never an unsigned integer, since CEL has no mixed arithmetic.

use std::{collections::HashMap, sync::Arc};

use cel::{
    Value,
    objects::{Key, Map},
};
use chrono::{DateTime, FixedOffset};
use jiff::Timestamp;
use serde_json::Value as Json;

use super::ty::Ty;

/// Converts a value of a known depth.
#[must_use]
pub fn value(json: &Json, ty: &Ty) -> Value {
    let ty = ty.non_null();
    match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::String(s) => Value::String(Arc::new(s.clone())),
        Json::Number(n) => match number(n, ty) {
            Number::Int(i) => Value::Int(i),
            Number::Double(d) => Value::Float(d),
        },
        Json::Array(items) => {
            let of = if let Ty::List(of) = ty { of } else { &Ty::Dyn };
            Value::List(Arc::new(items.iter().map(|v| value(v, of)).collect()))
        }
        Json::Object(members) => map(members.iter().map(|(k, v)| {
            let of = match ty {
                Ty::Object(object) => object.fields.get(k).map_or(&Ty::Dyn, |f| &f.ty),
                Ty::Map(of) => of,
                _ => &Ty::Dyn,
            };
            (k.as_str(), value(v, of))
        })),
    }
}

/// A number with its CEL type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// int.
    Int(i64),
    /// double.
    Double(f64),
}

/// The number with the type that the schema gives it.
#[must_use]
pub fn number(n: &serde_json::Number, ty: &Ty) -> Number {
    match (ty, n.as_i64()) {
        (Ty::Double, _) => Number::Double(n.as_f64().unwrap_or(f64::NAN)),
        (_, Some(i)) => Number::Int(i),
        (_, None) => {
            let float = n.as_f64().unwrap_or(f64::NAN);
            // 5.0 is an integer to JSON Schema
            #[expect(clippy::cast_possible_truncation, reason = "whole() has checked that it fits")]
            if matches!(ty, Ty::Int) && whole(float) { Number::Int(float as i64) } else { Number::Double(float) }
        }
    }
}

/// Whether a double is a whole number that an int holds exactly.
fn whole(f: f64) -> bool {
    f.fract() == 0.0 && f.abs() <= 9_007_199_254_740_992.0
}

/// A map with string keys.
pub fn map<'a>(members: impl Iterator<Item = (&'a str, Value)>) -> Value {
    let map: HashMap<Key, Value> = members.map(|(k, v)| (Key::String(Arc::new(k.to_owned())), v)).collect();
    Value::Map(Map { map: Arc::new(map) })
}

/// A string.
#[must_use]
pub fn string(s: &str) -> Value {
    Value::String(Arc::new(s.to_owned()))
}

/// A list of strings.
pub fn strings<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> Value {
    Value::List(Arc::new(items.into_iter().map(|s| string(s.as_ref())).collect()))
}

/// A timestamp. None: outside of what CEL can hold.
#[must_use]
pub fn timestamp(at: Timestamp) -> Option<DateTime<FixedOffset>> {
    Some(DateTime::from_timestamp(at.as_second(), at.subsec_nanosecond().unsigned_abs())?.fixed_offset())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_have_the_type_of_the_schema() {
        for (json, ty, want) in [
            (json!(5), Ty::Int, Value::Int(5)),
            (json!(5.0), Ty::Int, Value::Int(5)),
            (json!(-5), Ty::Int, Value::Int(-5)),
            (json!(5), Ty::Double, Value::Float(5.0)),
            (json!(5.5), Ty::Double, Value::Float(5.5)),
            (json!(5), Ty::Dyn, Value::Int(5)),
            (json!(5.0), Ty::Dyn, Value::Float(5.0)),
            (json!(u64::MAX), Ty::Dyn, Value::Float(u64::MAX as f64)),
            (json!(u64::MAX), Ty::Int, Value::Float(u64::MAX as f64)),
            (json!(null), Ty::Int.nullable(), Value::Null),
            (json!(7), Ty::Int.nullable(), Value::Int(7)),
        ] {
            assert_eq!(value(&json, &ty), want, "{json} as {ty}");
        }
        let nested = value(&json!([{"n": 1}]), &Ty::list(Ty::object("x", [("n", Ty::Double, true)])));
        assert_eq!(nested, Value::List(Arc::new(vec![map([("n", Value::Float(1.0))].into_iter())])));
    }
}

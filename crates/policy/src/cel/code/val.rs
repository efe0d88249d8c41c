//! Values of compiled rules: borrowed from the request, the snapshot and the program wherever that can be, so that reading an argument copies nothing.
//! Equality and order are those of the evaluator `cel`; a test holds them equal.

use std::{cmp::Ordering, rc::Rc, sync::Arc};

use cel::Value;
use chrono::{DateTime, FixedOffset, TimeDelta};
use serde_json::Value as Json;

use super::Fail;
use crate::cel::{
    lib::Ext,
    ty::Ty,
    value::{self, Number},
};

/// A value during the evaluation of one rule.
#[derive(Clone, Debug)]
pub enum Val<'a> {
    /// null.
    Null,
    /// bool.
    Bool(bool),
    /// int.
    Int(i64),
    /// double.
    Double(f64),
    /// A string that somebody else keeps.
    Str(&'a str),
    /// A string that was computed.
    Text(Rc<str>),
    /// timestamp.
    Time(DateTime<FixedOffset>),
    /// duration.
    Span(TimeDelta),
    /// An array or object of the arguments, with its type by the Tool's schema.
    Json(&'a Json, &'a Ty),
    /// A list of strings of the request or the snapshot.
    Strings(&'a [String]),
    /// A list of constants of the program.
    Consts(&'a [Const]),
    /// A list that was computed.
    List(Rc<[Val<'a>]>),
    /// A map that was written in the rule; its keys are strings, each once.
    Map(Rc<[(Val<'a>, Val<'a>)]>),
    /// The result of optional syntax.
    Opt(Option<Rc<Val<'a>>>),
    /// A quantity, an address, a network, a URL.
    Ext(Arc<Ext>),
}

/// A constant of a program.
#[derive(Clone, Debug)]
pub enum Const {
    /// null.
    Null,
    /// bool.
    Bool(bool),
    /// int.
    Int(i64),
    /// double.
    Double(f64),
    /// string.
    Str(Box<str>),
    /// timestamp.
    Time(DateTime<FixedOffset>),
    /// duration.
    Span(TimeDelta),
    /// list.
    List(Box<[Const]>),
    /// A quantity, an address, a network, a URL, with the text that the rule has for it.
    Ext(Arc<Ext>, Box<str>),
}

impl Const {
    /// The constant as a value; nothing is copied.
    pub fn val(&self) -> Val<'_> {
        match self {
            Self::Null => Val::Null,
            Self::Bool(b) => Val::Bool(*b),
            Self::Int(i) => Val::Int(*i),
            Self::Double(d) => Val::Double(*d),
            Self::Str(s) => Val::Str(s),
            Self::Time(t) => Val::Time(*t),
            Self::Span(d) => Val::Span(*d),
            Self::List(l) => Val::Consts(l),
            Self::Ext(e, _) => Val::Ext(Arc::clone(e)),
        }
    }

    /// A computed value as a constant; None: it is not one that programs keep.
    pub fn of(val: &Val<'_>) -> Option<Self> {
        Some(match val {
            Val::Null => Self::Null,
            Val::Bool(b) => Self::Bool(*b),
            Val::Int(i) => Self::Int(*i),
            Val::Double(d) => Self::Double(*d),
            Val::Str(s) => Self::Str((*s).into()),
            Val::Text(s) => Self::Str((**s).into()),
            Val::Time(t) => Self::Time(*t),
            Val::Span(d) => Self::Span(*d),
            Val::Consts(l) => Self::List((*l).into()),
            Val::Json(..) | Val::Strings(_) | Val::List(_) | Val::Map(_) | Val::Opt(_) | Val::Ext(_) => return None,
        })
    }
}

/// The type of what no schema speaks of.
pub static DYN: Ty = Ty::Dyn;

impl<'a> Val<'a> {
    /// A JSON value with the type that the schema gives it.
    pub fn json(json: &'a Json, ty: &'a Ty) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(b) => Self::Bool(*b),
            Json::String(s) => Self::Str(s),
            Json::Number(n) => match value::number(n, ty.non_null()) {
                Number::Int(i) => Self::Int(i),
                Number::Double(d) => Self::Double(d),
            },
            Json::Array(_) | Json::Object(_) => Self::Json(json, ty.non_null()),
        }
    }

    /// The string, if it is one.
    pub fn str(&self) -> Option<&str> {
        match self {
            Self::Str(s) => Some(s),
            Self::Text(s) => Some(s),
            _ => None,
        }
    }

    /// Number of elements, if it is a list.
    pub fn list_len(&self) -> Option<usize> {
        match self {
            Self::Json(Json::Array(items), _) => Some(items.len()),
            Self::Strings(items) => Some(items.len()),
            Self::Consts(items) => Some(items.len()),
            Self::List(items) => Some(items.len()),
            _ => None,
        }
    }

    /// An element of a list.
    pub fn at(&self, index: usize) -> Option<Val<'a>> {
        match self {
            Self::Json(Json::Array(items), ty) => {
                let of = if let Ty::List(of) = ty { of } else { &DYN };
                items.get(index).map(|item| Val::json(item, of))
            }
            Self::Strings(items) => items.get(index).map(|s| Val::Str(s)),
            Self::Consts(items) => items.get(index).map(Const::val),
            Self::List(items) => items.get(index).cloned(),
            _ => None,
        }
    }

    /// Number of entries, if it is a map.
    pub fn map_len(&self) -> Option<usize> {
        match self {
            Self::Json(Json::Object(members), _) => Some(members.len()),
            Self::Map(entries) => Some(entries.len()),
            _ => None,
        }
    }

    /// An entry of a map. Some(None): it is a map and has no such key.
    pub fn get(&self, key: &str) -> Option<Option<Val<'a>>> {
        match self {
            Self::Json(Json::Object(members), ty) => Some(members.get(key).map(|json| match json {
                // only numbers and what holds others read the schema
                Json::Null => Val::Null,
                Json::Bool(b) => Val::Bool(*b),
                Json::String(s) => Val::Str(s),
                Json::Number(_) | Json::Array(_) | Json::Object(_) => Val::json(json, member(ty, key)),
            })),
            Self::Map(entries) => Some(entries.iter().find(|(k, _)| k.str() == Some(key)).map(|(_, v)| v.clone())),
            _ => None,
        }
    }

    /// Keys of a map.
    pub fn keys(&self) -> Option<Vec<Val<'a>>> {
        match self {
            Self::Json(Json::Object(members), _) => Some(members.keys().map(|k| Val::Str(k)).collect()),
            Self::Map(entries) => Some(entries.iter().map(|(k, _)| k.clone()).collect()),
            _ => None,
        }
    }

    /// Whether two values are equal; numbers by their value.
    pub fn equals(&self, other: &Val<'_>) -> bool {
        match (self, other) {
            (Self::Null, Val::Null) => true,
            (Self::Bool(a), Val::Bool(b)) => a == b,
            (Self::Int(a), Val::Int(b)) => a == b,
            (Self::Int(_) | Self::Double(_), Val::Int(_) | Val::Double(_)) => numbers(self, other) == Some(Ordering::Equal),
            (Self::Str(_) | Self::Text(_), _) => self.str() == other.str(),
            (Self::Time(a), Val::Time(b)) => a == b,
            (Self::Span(a), Val::Span(b)) => a == b,
            (Self::Ext(a), Val::Ext(b)) => a == b,
            (Self::Opt(a), Val::Opt(b)) => match (a, b) {
                (None, None) => true,
                (Some(a), Some(b)) => a.equals(b),
                _ => false,
            },
            _ => self.same_elements(other),
        }
    }

    fn same_elements(&self, other: &Val<'_>) -> bool {
        if let (Some(a), Some(b)) = (self.list_len(), other.list_len()) {
            return a == b && (0..a).all(|i| matches!((self.at(i), other.at(i)), (Some(x), Some(y)) if x.equals(&y)));
        }
        let (Some(a), Some(b)) = (self.map_len(), other.map_len()) else { return false };
        a == b
            && self.keys().unwrap_or_default().iter().all(|key| {
                let key = key.str().unwrap_or_default();
                matches!((self.get(key), other.get(key)), (Some(Some(x)), Some(Some(y))) if x.equals(&y))
            })
    }

    /// Order of two values.
    ///
    /// # Errors
    /// They have none: different types, or not a number.
    pub fn compare(&self, other: &Val<'_>) -> Result<Ordering, Fail<'static>> {
        let order = match (self, other) {
            (Self::Int(a), Val::Int(b)) => Some(a.cmp(b)),
            (Self::Int(_) | Self::Double(_), Val::Int(_) | Val::Double(_)) => numbers(self, other),
            (Self::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
            (Self::Time(a), Val::Time(b)) => Some(a.cmp(b)),
            (Self::Span(a), Val::Span(b)) => Some(a.cmp(b)),
            _ => match (self.str(), other.str()) {
                (Some(a), Some(b)) => Some(a.cmp(b)),
                _ => None,
            },
        };
        order.ok_or(Fail::Unordered)
    }

    /// The value as the evaluator `cel` has it.
    pub fn to_cel(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(b) => Value::Bool(*b),
            Self::Int(i) => Value::Int(*i),
            Self::Double(d) => Value::Float(*d),
            Self::Str(s) => value::string(s),
            Self::Text(s) => value::string(s),
            Self::Time(t) => Value::Timestamp(*t),
            Self::Span(d) => Value::Duration(*d),
            Self::Json(json, ty) => value::value(json, ty),
            Self::Strings(s) => value::strings(s.iter()),
            Self::Consts(l) => Value::List(l.iter().map(|c| c.val().to_cel()).collect::<Vec<_>>().into()),
            Self::List(l) => Value::List(l.iter().map(Val::to_cel).collect::<Vec<_>>().into()),
            Self::Map(m) => value::map(m.iter().map(|(k, v)| (k.str().unwrap_or_default(), v.to_cel()))),
            Self::Ext(e) => Value::Opaque(e.clone()),
            Self::Opt(o) => Value::Opaque(Arc::new(
                o.as_ref().map_or_else(cel::objects::OptionalValue::none, |v| cel::objects::OptionalValue::of(v.to_cel())),
            )),
        }
    }

    /// A value of the evaluator `cel`; None: of a type that rules do not have.
    pub fn of_cel(value: &Value) -> Option<Val<'static>> {
        Some(match value {
            Value::List(items) => Val::List(items.iter().map(Val::of_cel).collect::<Option<_>>()?),
            Value::Map(map) => Val::Map(
                map.map
                    .iter()
                    .map(|(k, v)| match k {
                        cel::objects::Key::String(k) => Some((Val::Text(k.as_str().into()), Val::of_cel(v)?)),
                        _ => None,
                    })
                    .collect::<Option<_>>()?,
            ),
            Value::Opaque(opaque) => match (opaque.downcast_ref::<Ext>(), opaque.downcast_ref::<cel::objects::OptionalValue>()) {
                (Some(ext), _) => Val::Ext(Arc::new(ext.clone())),
                (None, Some(optional)) => Val::Opt(match optional.value() {
                    Some(inner) => Some(Rc::new(Val::of_cel(inner)?)),
                    None => None,
                }),
                (None, None) => return None,
            },
            scalar => return Val::scalar(scalar.clone()),
        })
    }

    /// A scalar of the evaluator `cel`; None: not a scalar.
    pub fn scalar(value: Value) -> Option<Val<'static>> {
        Some(match value {
            Value::Null => Val::Null,
            Value::Bool(b) => Val::Bool(b),
            Value::Int(i) => Val::Int(i),
            Value::Float(d) => Val::Double(d),
            Value::String(s) => Val::Text(s.as_str().into()),
            Value::Timestamp(t) => Val::Time(t),
            Value::Duration(d) => Val::Span(d),
            _ => return None,
        })
    }
}

/// Type of a member by the schema.
fn member<'a>(ty: &'a Ty, key: &str) -> &'a Ty {
    match ty {
        Ty::Object(object) => object.fields.get(key).map_or(&DYN, |f| &f.ty),
        Ty::Map(of) => of,
        _ => &DYN,
    }
}

/// Order of numbers of either type. An int is compared with a double as a double.
fn numbers(a: &Val<'_>, b: &Val<'_>) -> Option<Ordering> {
    #[expect(clippy::cast_precision_loss, reason = "CEL compares so")]
    let double = |v: &Val<'_>| match v {
        Val::Int(i) => Some(*i as f64),
        Val::Double(d) => Some(*d),
        _ => None,
    };
    double(a)?.partial_cmp(&double(b)?)
}

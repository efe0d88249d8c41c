//! Types of expressions. They know names: an object lists its fields, so that a misspelt one is found before anything runs.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::lib::Kind;

/// Type of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Ty {
    /// Anything; checked when it is evaluated.
    Dyn,
    /// Only null.
    Null,
    /// true or false.
    Bool,
    /// 64-bit integer.
    Int,
    /// Double.
    Double,
    /// String; with the values that the schema allows, if it lists them.
    Str(Option<Arc<Vec<String>>>),
    /// Point in time.
    Timestamp,
    /// Length of time.
    Duration,
    /// A quantity, an address, a network, a URL.
    Of(Kind),
    /// List of one type.
    List(Arc<Ty>),
    /// Map from string to one type.
    Map(Arc<Ty>),
    /// Object with known fields.
    Object(Arc<Obj>),
    /// Result of optional syntax: a value or none.
    Optional(Arc<Ty>),
    /// A value or null.
    Nullable(Arc<Ty>),
}

/// An object with known fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Obj {
    /// What it is, for messages: `args of Tool payments`.
    pub what: String,
    /// Its fields.
    pub fields: BTreeMap<String, Field>,
}

/// A field of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Its type.
    pub ty: Ty,
    /// Always there.
    pub required: bool,
}

impl Ty {
    /// A string of any value.
    pub const STRING: Self = Self::Str(None);

    /// A list of a type.
    #[must_use]
    pub fn list(of: Self) -> Self {
        Self::List(Arc::new(of))
    }

    /// An object from its fields; the flag says that a field is always there.
    #[must_use]
    pub fn object(what: &str, fields: impl IntoIterator<Item = (&'static str, Self, bool)>) -> Self {
        let fields = fields.into_iter().map(|(name, ty, required)| (name.to_owned(), Field { ty, required })).collect();
        Self::Object(Arc::new(Obj { what: what.to_owned(), fields }))
    }

    /// The type itself or null; nothing is nullable twice.
    #[must_use]
    pub fn nullable(self) -> Self {
        match self {
            Self::Null | Self::Dyn | Self::Nullable(_) => self,
            other => Self::Nullable(Arc::new(other)),
        }
    }

    /// Without the null.
    #[must_use]
    pub fn non_null(&self) -> &Self {
        match self {
            Self::Nullable(inner) => inner,
            other => other,
        }
    }

    /// Of a fixed small size, whatever its value.
    #[must_use]
    pub fn scalar(&self) -> bool {
        match self.non_null() {
            Self::Null | Self::Bool | Self::Int | Self::Double | Self::Timestamp | Self::Duration => true,
            Self::Of(kind) => *kind != Kind::Url,
            _ => false,
        }
    }

    /// int or double.
    #[must_use]
    pub fn number(&self) -> bool {
        matches!(self.non_null(), Self::Int | Self::Double)
    }

    /// Whether a value of one type can ever equal one of the other.
    #[must_use]
    pub fn comparable(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dyn, _) | (_, Self::Dyn) | (Self::Null, Self::Null | Self::Nullable(_)) | (Self::Nullable(_), Self::Null) => true,
            (Self::Null, _) | (_, Self::Null) => false,
            (a, b) => match (a.non_null(), b.non_null()) {
                (Self::Int | Self::Double, Self::Int | Self::Double) | (Self::Str(_), Self::Str(_)) => true,
                (Self::List(a), Self::List(b)) | (Self::Map(a), Self::Map(b)) | (Self::Optional(a), Self::Optional(b)) => a.comparable(b),
                (Self::Object(_) | Self::Map(_), Self::Object(_) | Self::Map(_)) => true,
                (a, b) => a == b,
            },
        }
    }

    /// One type for both, when there is one.
    #[must_use]
    pub fn join(&self, other: &Self) -> Option<Self> {
        if self == other {
            return Some(self.clone());
        }
        Some(match (self, other) {
            (Self::Dyn, _) | (_, Self::Dyn) => Self::Dyn,
            (Self::Null, t) | (t, Self::Null) => t.clone().nullable(),
            (Self::Nullable(a), b) | (b, Self::Nullable(a)) => a.join(b.non_null())?.nullable(),
            (Self::Str(_), Self::Str(_)) => Self::STRING,
            (Self::List(a), Self::List(b)) => Self::list(a.join(b)?),
            (Self::Map(a), Self::Map(b)) => Self::Map(Arc::new(a.join(b)?)),
            (Self::Optional(a), Self::Optional(b)) => Self::Optional(Arc::new(a.join(b)?)),
            (Self::Object(_) | Self::Map(_), Self::Object(_) | Self::Map(_)) => Self::Map(Arc::new(Self::Dyn)),
            _ => return None,
        })
    }
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("any"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Double => f.write_str("double"),
            Self::Str(_) => f.write_str("string"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::Of(kind) => kind.fmt(f),
            Self::List(t) => write!(f, "list({t})"),
            Self::Map(t) => write!(f, "map(string, {t})"),
            Self::Object(o) => f.write_str(&o.what),
            Self::Optional(t) => write!(f, "optional({t})"),
            Self::Nullable(t) => write!(f, "{t} or null"),
        }
    }
}

//! What is given to a statement and what is read from a row: 64-bit integers, texts, bytes and nothing.
//!
//! Postgres cannot keep the character U+0000 in a text: there it stands as U+10FFFE `0`, and U+10FFFE as U+10FFFE `1`.

use std::borrow::Cow;
use std::error::Error;

use bytes::BytesMut;
use rusqlite::types::{ToSqlOutput, ValueRef};
use tokio_postgres::types::{IsNull, ToSql, Type};

/// A parameter of a statement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    /// Nothing.
    Null,
    /// An integer.
    Int(i64),
    /// A text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
}

/// A parameter list.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$($crate::store::Value::from($value)),*] };
}
pub(crate) use values;

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Bytes(value)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(value) => ValueRef::Integer(*value),
            Self::Text(value) => ValueRef::Text(value.as_bytes()),
            Self::Bytes(value) => ValueRef::Blob(value),
        }))
    }
}

/// What a column is read as.
pub(crate) trait Column: Sized {
    /// From a row of SQLite.
    fn of_sqlite(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Self>;
    /// From a row of Postgres.
    fn of_postgres(row: &tokio_postgres::Row, at: usize) -> Result<Self, tokio_postgres::Error>;
}

/// Read as both clients read the type.
macro_rules! columns {
    ($($of:ty),*) => { $(
        impl Column for $of {
            fn of_sqlite(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Self> {
                row.get(at)
            }

            fn of_postgres(row: &tokio_postgres::Row, at: usize) -> Result<Self, tokio_postgres::Error> {
                let value: $of = row.try_get(at)?;
                Ok(value.shown())
            }
        }
    )* };
}
columns!(i64, Option<i64>, Vec<u8>, String, Option<String>);

/// A value as it was before Postgres kept it.
trait Shown: Sized {
    fn shown(self) -> Self {
        self
    }
}
impl Shown for i64 {}
impl Shown for Option<i64> {}
impl Shown for Vec<u8> {}
impl Shown for Option<String> {
    fn shown(self) -> Self {
        self.map(Shown::shown)
    }
}
impl Shown for String {
    fn shown(self) -> Self {
        if self.contains(STAND_IN) { self.replace(NUL, "\0").replace(ITSELF, "\u{10FFFE}") } else { self }
    }
}

const STAND_IN: char = '\u{10FFFE}';
const NUL: &str = "\u{10FFFE}0";
const ITSELF: &str = "\u{10FFFE}1";

/// A text as Postgres can keep it.
fn kept(text: &str) -> Cow<'_, str> {
    if text.contains(['\0', STAND_IN]) { Cow::Owned(text.replace(STAND_IN, ITSELF).replace('\0', NUL)) } else { Cow::Borrowed(text) }
}

impl ToSql for Value<'_> {
    fn to_sql(&self, of: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(value) => value.to_sql_checked(of, out),
            Self::Text(value) => kept(value).as_ref().to_sql_checked(of, out),
            Self::Bytes(value) => value.to_sql_checked(of, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        // Each kind of value checks for itself.
        true
    }

    tokio_postgres::types::to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back_as_it_was() {
        for text in ["", "a", "\0", "\u{10FFFE}", "\u{10FFFE}0", "\0\u{10FFFE}1\0", "\u{10FFFE}\u{10FFFE}", "a\0b"] {
            let stored = kept(text).into_owned();
            assert!(!stored.contains('\0'), "{stored:?}");
            assert_eq!(stored.shown(), text);
        }
    }
}

//! Canonical text straight from a value's fields, without a tree of JSON values between them.
//!
//! The same text as [`canonical`](crate::canonical()) of the value's JSON tree; a test holds both equal. Members are
//! written as they come and put in order at the end of their object.

use std::borrow::Cow;
use std::fmt::Display;

use serde::ser::{self, Serialize};

use crate::canonical::{CanonicalError, MAX_DEPTH, by_utf16, write_double, write_string};

/// The canonical text of anything that serializes as JSON.
///
/// # Errors
/// When a number is not finite, the value is nested too deeply, or it does not serialize.
pub(crate) fn to_canonical<T: Serialize + ?Sized>(value: &T) -> Result<String, CanonicalError> {
    let mut writer = Writer { out: String::with_capacity(1536), depth: 0 };
    value.serialize(&mut writer)?;
    Ok(writer.out)
}

type Done = Result<(), CanonicalError>;

struct Writer {
    out: String,
    depth: usize,
}

impl Writer {
    fn deeper(&mut self) -> Done {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(CanonicalError::TooDeep) } else { Ok(()) }
    }

    fn items(&mut self, after: &'static str) -> Result<Items<'_>, CanonicalError> {
        self.deeper()?;
        self.out.push('[');
        Ok(Items { writer: self, first: true, after })
    }

    fn members(&mut self, after: &'static str) -> Result<Members<'_>, CanonicalError> {
        self.deeper()?;
        let start = self.out.len();
        Ok(Members { writer: self, start, found: Vec::with_capacity(16), after })
    }

    /// The one member of an enum's variant with fields; `}` closes it.
    fn variant(&mut self, name: &str) {
        self.out.push('{');
        write_string(&mut self.out, name);
        self.out.push(':');
    }
}

impl ser::Error for CanonicalError {
    fn custom<T: Display>(_: T) -> Self {
        Self::Unwritable
    }
}

macro_rules! integers {
    ($($name:ident $type:ty),*) => {$(
        fn $name(self, value: $type) -> Done {
            self.serialize_i64(i64::from(value))
        }
    )*};
}

impl<'a> ser::Serializer for &'a mut Writer {
    type Ok = ();
    type Error = CanonicalError;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Items<'a>;
    type SerializeTupleStruct = Items<'a>;
    type SerializeTupleVariant = Items<'a>;
    type SerializeMap = Members<'a>;
    type SerializeStruct = Members<'a>;
    type SerializeStructVariant = Members<'a>;

    integers!(serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_u8 u8, serialize_u16 u16, serialize_u32 u32);

    fn serialize_bool(self, value: bool) -> Done {
        self.out.push_str(if value { "true" } else { "false" });
        Ok(())
    }

    fn serialize_i64(self, value: i64) -> Done {
        use std::fmt::Write;
        // Writing to a String cannot fail.
        let _ = write!(self.out, "{value}");
        Ok(())
    }

    #[allow(clippy::cast_precision_loss)] // a larger integer is a double, as in `canonical`
    fn serialize_u64(self, value: u64) -> Done {
        match i64::try_from(value) {
            Ok(value) => self.serialize_i64(value),
            Err(_) => self.serialize_f64(value as f64),
        }
    }

    fn serialize_f32(self, value: f32) -> Done {
        self.serialize_f64(f64::from(value))
    }

    fn serialize_f64(self, value: f64) -> Done {
        if !value.is_finite() {
            return Err(CanonicalError::NotFinite);
        }
        write_double(&mut self.out, value);
        Ok(())
    }

    fn serialize_char(self, value: char) -> Done {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Done {
        write_string(&mut self.out, value);
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Done {
        value.serialize(self)
    }

    fn serialize_none(self) -> Done {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Done {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Done {
        self.out.push_str("null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Done {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Done {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Done {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(self, _: &'static str, _: u32, variant: &'static str, value: &T) -> Done {
        self.deeper()?;
        self.variant(variant);
        value.serialize(&mut *self)?;
        self.out.push('}');
        self.depth -= 1;
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'a>, CanonicalError> {
        self.items("")
    }

    fn serialize_tuple(self, _: usize) -> Result<Items<'a>, CanonicalError> {
        self.items("")
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Items<'a>, CanonicalError> {
        self.items("")
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, variant: &'static str, _: usize) -> Result<Items<'a>, CanonicalError> {
        self.variant(variant);
        self.items("}")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Members<'a>, CanonicalError> {
        self.members("")
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Members<'a>, CanonicalError> {
        self.members("")
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, variant: &'static str, _: usize) -> Result<Members<'a>, CanonicalError> {
        self.variant(variant);
        self.members("}")
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Done {
        self.serialize_str(&value.to_string())
    }
}

/// Items of an array.
struct Items<'a> {
    writer: &'a mut Writer,
    first: bool,
    after: &'static str,
}

impl Items<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        if !std::mem::take(&mut self.first) {
            self.writer.out.push(',');
        }
        value.serialize(&mut *self.writer)
    }

    fn finish(self) {
        self.writer.out.push(']');
        self.writer.out.push_str(self.after);
        self.writer.depth -= 1;
    }
}

macro_rules! items {
    ($($part:ident $method:ident),*) => {$(
        impl ser::$part for Items<'_> {
            type Ok = ();
            type Error = CanonicalError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
                self.item(value)
            }

            fn end(self) -> Done {
                self.finish();
                Ok(())
            }
        }
    )*};
}

items!(SerializeSeq serialize_element, SerializeTuple serialize_element, SerializeTupleStruct serialize_field, SerializeTupleVariant serialize_field);

/// Members of an object: each `"key":value` stands in the text, from one place to another.
struct Members<'a> {
    writer: &'a mut Writer,
    start: usize,
    found: Vec<(Cow<'static, str>, usize, usize)>,
    after: &'static str,
}

impl Members<'_> {
    fn key(&mut self, key: Cow<'static, str>) {
        let at = self.writer.out.len();
        write_string(&mut self.writer.out, &key);
        self.writer.out.push(':');
        self.found.push((key, at, at));
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        value.serialize(&mut *self.writer)?;
        if let Some(last) = self.found.last_mut() {
            last.2 = self.writer.out.len();
        }
        Ok(())
    }

    fn finish(mut self) {
        if self.found.iter().all(|(key, ..)| key.is_ascii()) {
            self.found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        } else {
            self.found.sort_unstable_by(|a, b| by_utf16(&a.0, &b.0));
        }
        let out = &mut self.writer.out;
        let written = out.split_off(self.start);
        out.push('{');
        for (i, (_, from, to)) in self.found.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            out.push_str(&written[from - self.start..to - self.start]);
        }
        out.push('}');
        out.push_str(self.after);
        self.writer.depth -= 1;
    }
}

impl ser::SerializeMap for Members<'_> {
    type Ok = ();
    type Error = CanonicalError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Done {
        let key = match serde_json::to_value(key).map_err(|_| CanonicalError::Unwritable)? {
            serde_json::Value::String(key) => key,
            other => other.to_string(),
        };
        self.key(Cow::Owned(key));
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        self.value(value)
    }

    fn end(self) -> Done {
        self.finish();
        Ok(())
    }
}

macro_rules! fields {
    ($($part:ident),*) => {$(
        impl ser::$part for Members<'_> {
            type Ok = ();
            type Error = CanonicalError;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Done {
                self.key(Cow::Borrowed(key));
                self.value(value)
            }

            fn end(self) -> Done {
                self.finish();
                Ok(())
            }
        }
    )*};
}

fields!(SerializeStruct, SerializeStructVariant);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::canonical::canonical;

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(|d| json!(d)),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(".{0,4}", inner, 0..6).prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_same_text_as_by_way_of_a_tree(value in tree()) {
            prop_assert_eq!(to_canonical(&value).unwrap(), canonical(&value).unwrap());
        }
    }

    #[derive(serde::Serialize)]
    enum Shape {
        Unit,
        New(i32),
        Tuple(i32, &'static str),
        Struct { b: u64, a: Option<f64> },
    }

    #[test]
    fn every_shape() {
        let all = (
            [Shape::Unit, Shape::New(-1), Shape::Tuple(1, "x"), Shape::Struct { b: u64::MAX, a: Some(1.0) }],
            std::collections::BTreeMap::from([(7, 'c'), (10, '"')]),
            (),
            [1_u8, 2],
        );
        assert_eq!(to_canonical(&all).unwrap(), canonical(&serde_json::to_value(&all).unwrap()).unwrap());
        let mut deep = Value::Null;
        for _ in 0..200 {
            deep = json!([deep]);
        }
        assert_eq!(to_canonical(&deep), Err(CanonicalError::TooDeep));
        assert_eq!(to_canonical(&f64::NAN), Err(CanonicalError::NotFinite));
    }
}

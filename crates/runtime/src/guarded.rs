//! Reads objects as they are stored, so that a broken one is an item of its own and no end of the list that it is in: one that cannot be
//! decoded, and one that is nested deeper than JSON is read (whoever reads the list would fail as a whole, and so would every view).

use std::{borrow::Cow, cell::Cell, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, core::error_boundary::InvalidObject};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// Deepest nesting that is read. What is around an object in a list or a watch takes a few more levels; the JSON reader's own limit is 128.
pub const MAX_DEPTH: usize = 100;

/// A JSON value without what is nested too deep.
#[derive(Clone, Debug, Default)]
pub struct Bounded {
    /// What was read.
    pub value: Value,
    /// Whether something was left out.
    pub too_deep: bool,
}

impl Bounded {
    /// The value decoded, or why not.
    ///
    /// # Errors
    /// It was too deep, or is no `K`.
    pub fn decode<K: serde::de::DeserializeOwned>(self) -> Result<K, String> {
        if self.too_deep {
            return Err(format!("nested deeper than {MAX_DEPTH} levels"));
        }
        K::deserialize(self.value).map_err(|error| error.to_string())
    }
}

impl<'de> Deserialize<'de> for Bounded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let too_deep = Cell::new(false);
        let value = Level { left: MAX_DEPTH, too_deep: &too_deep }.deserialize(deserializer)?;
        Ok(Self { value, too_deep: too_deep.get() })
    }
}

#[derive(Clone, Copy)]
struct Level<'a> {
    left: usize,
    too_deep: &'a Cell<bool>,
}

impl Level<'_> {
    /// One level further down.
    fn down(self) -> Self {
        Self { left: self.left.saturating_sub(1), ..self }
    }
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.left == 0 {
            // Skipped without recursion. A text or number at this depth is taken for too deep as well.
            self.too_deep.set(true);
            IgnoredAny::deserialize(deserializer)?;
            return Ok(Value::Null);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.down())? {
            list.push(item);
        }
        Ok(list.into())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key()? {
            map.insert(key, entries.next_value_seed(self.down())?);
        }
        Ok(map.into())
    }
}

/// An object as stored: decoded, or what is wrong with it, with its metadata.
#[derive(Clone, Debug)]
pub struct Guarded<K>(
    /// The object.
    pub Result<K, InvalidObject>,
);

impl<'de, K: serde::de::DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = Bounded::deserialize(deserializer)?;
        let metadata = read.value.get("metadata").cloned().unwrap_or_default();
        match read.decode() {
            Ok(object) => Ok(Self(Ok(object))),
            Err(error) => {
                let metadata = ObjectMeta::deserialize(metadata).map_err(Error::custom)?;
                Ok(Self(Err(InvalidObject { error, metadata })))
            }
        }
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }
    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }
    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }
    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }
    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|invalid| &invalid.metadata, K::meta)
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|invalid| &mut invalid.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use kube::core::WatchEvent;
    use polity_api::Tool;

    use super::*;

    fn tool(depth: usize) -> String {
        let deep = format!("{}{{}}{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        format!(
            r#"{{"apiVersion":"polity.dev/v1alpha1","kind":"Tool","metadata":{{"name":"t{depth}","resourceVersion":"1"}},
            "spec":{{"inputSchema":{deep},"runtime":{{"container":{{"image":"x","command":["x"]}}}}}}}}"#
        )
    }

    #[test]
    fn a_deep_object_is_told_and_its_neighbours_are_read() {
        let list = format!(r#"{{"items":[{},{},{}]}}"#, tool(3), tool(9_000), tool(90));
        #[derive(Deserialize)]
        struct Page {
            items: Vec<Guarded<Tool>>,
        }
        let page: Page = serde_json::from_str(&list).unwrap();
        let names: Vec<_> = page.items.iter().map(|i| i.meta().name.clone().unwrap()).collect();
        assert_eq!(names, ["t3", "t9000", "t90"]);
        assert!(page.items[0].0.is_ok() && page.items[2].0.is_ok());
        assert!(page.items[1].0.as_ref().unwrap_err().error.contains("nested deeper"));
    }

    #[test]
    fn a_deep_object_in_an_event() {
        let event = format!(r#"{{"type":"ADDED","object":{}}}"#, tool(9_000));
        let WatchEvent::Added(Bounded { value, too_deep }) = serde_json::from_str(&event).unwrap() else { panic!("not added") };
        assert!(too_deep && value["metadata"]["name"] == "t9000");
    }

    #[test]
    fn what_is_not_too_deep_is_read_as_it_is() {
        let text = r#"{"a":[1,-1,1.5,true,null,"x",{"b":{}},18446744073709551615]}"#;
        let read: Bounded = serde_json::from_str(text).unwrap();
        assert_eq!(read.value, serde_json::from_str::<Value>(text).unwrap());
        assert!(!read.too_deep);
    }

    #[test]
    fn an_undecodable_object_keeps_its_metadata() {
        let read: Guarded<Tool> = serde_json::from_str(r#"{"metadata":{"name":"t"},"spec":5}"#).unwrap();
        assert_eq!(read.meta().name.as_deref(), Some("t"));
        assert!(read.0.is_err());
    }
}

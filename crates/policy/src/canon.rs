//! Size, depth and digest of JSON, independent of the order of keys. It never recurses deeper than `MAX_DEPTH`.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Deepest nesting of arguments.
pub const MAX_DEPTH: usize = 32;
/// Deepest nesting that is digested; what is below counts as absent. The API server allows less.
const MAX_DIGEST_DEPTH: usize = 256;

/// Whether a value is nested at most `max` deep. A scalar has depth 0. Iterative, so that no input can exhaust the stack.
#[must_use]
pub fn depth_within(value: &Value, max: usize) -> bool {
    let mut open = vec![(value, 0_usize)];
    while let Some((value, depth)) = open.pop() {
        if depth > max {
            return false;
        }
        match value {
            Value::Array(items) => open.extend(items.iter().map(|v| (v, depth + 1))),
            Value::Object(members) => open.extend(members.values().map(|v| (v, depth + 1))),
            _ => {}
        }
    }
    true
}

/// Bytes of the compact text of a value (integral floats as integers), which must have been found within `MAX_DEPTH`.
#[must_use]
pub fn text_size(value: &Value) -> usize {
    match value {
        Value::Array(items) => 2 + items.len().saturating_sub(1) + items.iter().map(text_size).sum::<usize>(),
        Value::Object(members) => {
            2 + members.len().saturating_sub(1) + members.iter().map(|(k, v)| string_size(k) + 1 + text_size(v)).sum::<usize>()
        }
        Value::Number(n) => match n.as_f64() {
            Some(f) if n.is_f64() && f.fract() == 0.0 && f.abs() < 1e15 => format!("{f:.0}").len(),
            _ => n.to_string().len(),
        },
        Value::String(s) => string_size(s),
        Value::Bool(true) | Value::Null => 4,
        Value::Bool(false) => 5,
    }
}

/// Bytes of a string with quotes and escapes.
fn string_size(s: &str) -> usize {
    2 + s
        .bytes()
        .map(|b| match b {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
            0..=0x1f => 6,
            _ => 1,
        })
        .sum::<usize>()
}

/// SHA-256 (hex) of a value's canonical form. What cannot be written as JSON has the digest of its error, so that it is never taken for something else.
#[must_use]
pub fn digest<T: Serialize>(value: &T) -> String {
    let mut sink = Sink(Sha256::new());
    match serde_json::to_value(value) {
        Ok(value) => feed(&mut sink, &value, 0),
        Err(e) => sink.text(&format!("error:{e}")),
    }
    hex::encode(sink.0.finalize())
}

/// A hash that text is fed to.
struct Sink(Sha256);

impl Sink {
    fn text(&mut self, s: &str) {
        self.0.update(s.as_bytes());
    }
}

/// Feeds a value with sorted keys.
fn feed(sink: &mut Sink, value: &Value, depth: usize) {
    if depth > MAX_DIGEST_DEPTH {
        return;
    }
    match value {
        Value::Array(items) => {
            sink.text("[");
            for item in items {
                feed(sink, item, depth + 1);
                sink.text(",");
            }
            sink.text("]");
        }
        Value::Object(members) => {
            let mut keys: Vec<_> = members.iter().collect();
            keys.sort_by(|a, b| a.0.cmp(b.0));
            sink.text("{");
            for (key, item) in keys {
                quoted(sink, key);
                sink.text(":");
                feed(sink, item, depth + 1);
                sink.text(",");
            }
            sink.text("}");
        }
        Value::String(s) => quoted(sink, s),
        other => sink.text(&other.to_string()),
    }
}

/// A string with its length before it, so that no two sequences of strings hash alike.
fn quoted(sink: &mut Sink, s: &str) {
    sink.text(&format!("\"{}:", s.len()));
    sink.text(s);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn depth_and_size() {
        assert!(depth_within(&json!({"a": [1]}), 2));
        assert!(!depth_within(&json!({"a": [1]}), 1));
        for v in [json!({"a": [1, 2.5, "x\"\n\u{1}", true, false, null], "b": {}}), json!([]), json!("é")] {
            assert_eq!(text_size(&v), v.to_string().len(), "{v}");
        }
        assert_eq!(text_size(&json!(100.0)), 3);
    }

    #[test]
    fn a_very_deep_value_neither_overflows_nor_passes() {
        let mut v = json!(1);
        for _ in 0..50_000 {
            v = Value::Array(vec![v]);
        }
        assert!(!depth_within(&v, MAX_DEPTH));
        // dropping it recursively would overflow, which is not ours to test
        std::mem::forget(v);
    }

    #[test]
    fn digest_ignores_order_and_sees_values() {
        let a: Value = serde_json::from_str(r#"{"a":1,"b":[true]}"#).unwrap();
        let b: Value = serde_json::from_str(r#"{"b":[true],"a":1}"#).unwrap();
        assert_eq!(digest(&a), digest(&b));
        assert_ne!(digest(&a), digest(&json!({"a": 1, "b": [false]})));
        assert_ne!(digest(&json!(["a", "b"])), digest(&json!(["ab", ""])));
    }
}

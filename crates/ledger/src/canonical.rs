//! Canonical JSON: one text for one meaning, so that a digest survives a round trip through an API server.
//!
//! It is RFC 8785 (JSON Canonicalization Scheme): members sorted by UTF-16 code units, no white space, the
//! shortest string escapes, and numbers as ECMAScript writes them, so that `1.0` is `1` and `1e3` is `1000`.
//! It differs in one point: RFC 8785 reads every number as a double, here an integer that fits 64 bits signed
//! keeps all of its digits, as it does in Kubernetes (which reads such a number as int64 and all others as
//! double). A larger integer is a double, as it is there. It never writes NaN or infinity.

use std::fmt::Write;

use serde_json::{Number, Value};

/// Deeper nesting is refused; it is the depth that `serde_json` reads.
pub(crate) const MAX_DEPTH: usize = 128;

/// Why a value has no canonical text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// Not a finite number.
    #[error("a number is too large for JSON's double precision")]
    NotFinite,
    /// Nested too deeply.
    #[error("the value is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// It does not serialize at all.
    #[error("the value cannot be written as JSON")]
    Unwritable,
}

/// The canonical text of a value.
///
/// # Errors
/// When a number is not finite or the value is nested too deeply.
pub fn canonical(value: &Value) -> Result<String, CanonicalError> {
    let mut out = String::with_capacity(256);
    write_value(&mut out, value, 0)?;
    Ok(out)
}

fn write_value(out: &mut String, value: &Value, depth: usize) -> Result<(), CanonicalError> {
    if depth > MAX_DEPTH {
        return Err(CanonicalError::TooDeep);
    }
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => write_number(out, number)?,
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_value(out, item, depth + 1)?;
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            members.sort_unstable_by(|(a, _), (b, _)| by_utf16(a, b));
            out.push('{');
            for (i, (key, item)) in members.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_string(out, key);
                out.push(':');
                write_value(out, item, depth + 1)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

/// Order of UTF-16 code units; for ASCII it is the order of bytes.
pub(crate) fn by_utf16(a: &str, b: &str) -> std::cmp::Ordering {
    if a.is_ascii() && b.is_ascii() { a.cmp(b) } else { a.encode_utf16().cmp(b.encode_utf16()) }
}

pub(crate) fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (i, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[plain..i]);
        plain = i + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x08 => out.push_str("\\b"),
            0x09 => out.push_str("\\t"),
            0x0a => out.push_str("\\n"),
            0x0c => out.push_str("\\f"),
            0x0d => out.push_str("\\r"),
            // Writing to a String cannot fail.
            other => drop(write!(out, "\\u{other:04x}")),
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

fn write_number(out: &mut String, number: &Number) -> Result<(), CanonicalError> {
    if let Some(integer) = number.as_i64() {
        let _ = write!(out, "{integer}");
        return Ok(());
    }
    let double = number.as_f64().filter(|d| d.is_finite()).ok_or(CanonicalError::NotFinite)?;
    write_double(out, double);
    Ok(())
}

/// ECMA-262 Number::toString. Rust's `{:e}` gives the same shortest digits; only the layout is done here.
pub(crate) fn write_double(out: &mut String, double: f64) {
    if double == 0.0 {
        out.push('0');
        return;
    }
    let text = format!("{:e}", double.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    // The value is 0.DIGITS × 10^point.
    let point = exponent + 1;
    if double < 0.0 {
        out.push('-');
    }
    if count <= point && point <= 21 {
        out.push_str(&digits);
        push_zeros(out, point - count);
    } else if 0 < point && point <= 21 {
        let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or(0));
        let _ = write!(out, "{whole}.{fraction}");
    } else if -6 < point && point <= 0 {
        out.push_str("0.");
        push_zeros(out, -point);
        out.push_str(&digits);
    } else {
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        let _ = write!(out, "{first}{dot}{rest}e{exponent:+}");
    }
}

fn push_zeros(out: &mut String, count: i32) {
    out.extend((0..count).map(|_| '0'));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> String {
        canonical(&serde_json::from_str(json).unwrap()).unwrap()
    }

    #[test]
    fn numbers_as_ecmascript_writes_them() {
        for (given, wanted) in [
            ("1.0", "1"),
            ("1e3", "1000"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("0.1", "0.1"),
            ("-1.50", "-1.5"),
            ("100e-2", "1"),
            ("333333333.33333329", "333333333.3333333"),
            ("1E30", "1e+30"),
            ("4.50", "4.5"),
            ("2e-3", "0.002"),
            ("0.000000000000000000000000001", "1e-27"),
            ("0.000001", "0.000001"),
            ("0.0000001", "1e-7"),
            ("1.25e-9", "1.25e-9"),
            ("100000000000000000000.0", "100000000000000000000"),
            ("1e21", "1e+21"),
            ("123456789012345680000", "123456789012345680000"),
            ("5e-324", "5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("9007199254740993", "9007199254740993"),
            ("9223372036854775807", "9223372036854775807"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("9223372036854775808", "9223372036854776000"),
            ("18446744073709551615", "18446744073709552000"),
        ] {
            assert_eq!(of(given), wanted, "{given}");
            assert_eq!(of(wanted), wanted, "the text of {given} is its own canonical text");
        }
    }

    #[test]
    fn members_are_sorted_by_utf16() {
        // The example of RFC 8785, 3.2.3.
        let json = "{\"\\u20ac\":\"Euro Sign\",\"\\r\":\"Carriage Return\",\"\\ufb33\":\"Hebrew Letter Dalet With Dagesh\",\
            \"1\":\"One\",\"\\ud83d\\ude00\":\"Emoji: Grinning Face\",\"\\u0080\":\"Control\",\"\\u00f6\":\"Latin Small Letter O With Diaeresis\"}";
        let wanted = "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\"ö\":\"Latin Small Letter O With Diaeresis\",\
            \"€\":\"Euro Sign\",\"😀\":\"Emoji: Grinning Face\",\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}";
        assert_eq!(of(json), wanted);
    }

    #[test]
    fn escapes_are_the_shortest() {
        assert_eq!(
            of(r#"{ "b" : [ true , null ], "a" : "\u003c\u002f\u0007\u001F\u0022\\\t\u2028" }"#),
            "{\"a\":\"</\\u0007\\u001f\\\"\\\\\\t\u{2028}\",\"b\":[true,null]}"
        );
    }

    #[test]
    fn too_deep_is_refused() {
        let mut value = Value::Null;
        for _ in 0..200 {
            value = Value::Array(vec![value]);
        }
        assert_eq!(canonical(&value), Err(CanonicalError::TooDeep));
    }

    proptest::proptest! {
        #[test]
        fn doubles_read_back_equal(double in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO) {
            let text = canonical(&serde_json::json!(double)).unwrap();
            let back: f64 = text.parse().unwrap();
            proptest::prop_assert!(back == double, "{text} is not {double:?}");
            proptest::prop_assert_eq!(of(&text), text);
        }

        #[test]
        fn strings_read_back_equal(text in ".*") {
            let written = canonical(&Value::String(text.clone())).unwrap();
            proptest::prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
        }
    }
}

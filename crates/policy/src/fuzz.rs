//! Fuzz target: arguments. Digests do not depend on the order of keys or on how often a value was written and read, sizes are those of the text, a schema and
//! what is checked against it never panic, and changing a place again changes nothing. An input is a schema, a value and a path, with `---` in lines between.

use std::fmt::Write as _;

use polity_fuzz::{Seen, Target, Verdict};
use serde_json::{Value, json};

use crate::{
    canon,
    cel::{code::val::Val, schema, value},
    compile_schema,
    path::{Change, Path},
};

const SEEDS: &[&str] = &[
    "{\"type\": \"object\", \"required\": [\"amount\"], \"properties\": {\"amount\": {\"type\": \"integer\", \"minimum\": 1}, \"to\": {\"enum\": [\"a\", \"b\"]}}}\n---\n{\"amount\": 5, \"to\": \"a\"}\n---\namount",
    "{\"$ref\": \"#/$defs/n\", \"$defs\": {\"n\": {\"type\": \"object\", \"properties\": {\"x\": {\"$ref\": \"#/$defs/n\"}, \"v\": {\"type\": [\"number\", \"null\"]}}}}}\n---\n{\"x\": {\"x\": {\"v\": 1.5e3}}, \"v\": null}\n---\n/x/x/v",
    "{\"type\": \"object\", \"additionalProperties\": {\"type\": \"array\", \"items\": {\"type\": \"string\", \"pattern\": \"^a+$\", \"maxLength\": 4}}}\n---\n{\"k\": [\"a\", \"aa\"], \"k~/\": []}\n---\n*.*",
    "{\"anyOf\": [{\"type\": \"object\", \"properties\": {\"a\": {}}}, {\"allOf\": [{\"required\": [\"b\"]}, {\"properties\": {\"b\": {\"const\": 1}}}]}], \"not\": {\"required\": [\"c\"]}}\n---\n{\"b\": 1, \"é\\u0000\": [[[{}]]], \"n\": -0.0}\n---\n/b",
];

const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "null",
    "true",
    "1",
    "1.0",
    "-0.0",
    "1e400",
    "0.1",
    "9007199254740993",
    "123456789012345680000",
    "\"a\"",
    "\"\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"é\"",
    "\"x\": ",
    "\"type\": ",
    "\"object\"",
    "\"integer\"",
    "\"number\"",
    "\"string\"",
    "\"array\"",
    "\"properties\": {",
    "\"items\": ",
    "\"required\": [",
    "\"additionalProperties\": ",
    "\"patternProperties\": ",
    "\"$ref\": \"#/$defs/n\"",
    "\"$ref\": \"#\"",
    "\"$defs\": ",
    "\"anyOf\": [",
    "\"oneOf\": [",
    "\"allOf\": [",
    "\"not\": ",
    "\"if\": ",
    "\"then\": ",
    "\"enum\": [",
    "\"const\": ",
    "\"minimum\": 0",
    "\"maxLength\": 2",
    "\"pattern\": \"(a+)+\"",
    "\"uniqueItems\": true",
    "\"multipleOf\": 0.1",
    "\"format\": \"date-time\"",
    "\"prefixItems\": [",
    "\"contains\": ",
    "\"$dynamicRef\": \"#x\"",
    "\"unevaluatedProperties\": false",
    "\"dependentRequired\": ",
    "\"propertyNames\": ",
    "\n---\n",
    "/",
    "~0",
    "~1",
    "*",
    ".",
];

#[test]
fn arguments() {
    Target {
        package: "polity-policy",
        test: "fuzz::arguments",
        corpus: concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/arguments"),
        seeds: SEEDS,
        words: WORDS,
    }
    .run(|input, seen| match std::str::from_utf8(input) {
        Ok(input) => argument(input, seen).unwrap_or_else(Verdict::Wrong),
        Err(_) => Verdict::Unused,
    });
}

/// The same value with the keys of its objects the other way round, as text.
fn reversed(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                *out += if i > 0 { " , " } else { "" };
                reversed(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (i, (key, item)) in members.iter().rev().enumerate() {
                let _ = write!(out, "{}{}:\t", if i > 0 { "," } else { "" }, json!(key));
                reversed(item, out);
            }
            out.push('}');
        }
        scalar => *out += &scalar.to_string(),
    }
}

/// What a message is about, without names, places and numbers.
fn gist(message: &str) -> String {
    let mut quoted = false;
    let last = message.rsplit(": ").next().unwrap_or_default();
    let words = last.chars().filter(|c| {
        quoted ^= matches!(c, '`' | '"');
        !quoted && (c.is_ascii_lowercase() || *c == ' ')
    });
    words.take(24).collect()
}

fn has_whole_double(value: &Value) -> bool {
    match value {
        Value::Number(n) => n.is_f64() && n.as_f64().is_some_and(|f| f.fract() == 0.0),
        Value::Array(items) => items.iter().any(has_whole_double),
        Value::Object(members) => members.values().any(has_whole_double),
        _ => false,
    }
}

/// Takes a place away, or puts a constant there.
struct Test(bool);

impl Change for Test {
    fn creates(&self) -> bool {
        !self.0
    }
    fn removes(&self) -> bool {
        self.0
    }
    fn change(&self, value: &mut Value) -> Result<bool, String> {
        let changed = *value != json!("x");
        *value = json!("x");
        Ok(changed)
    }
}

fn argument(input: &str, seen: &mut Seen) -> Result<Verdict, String> {
    let mut parts = input.split("\n---\n");
    let (schema_text, value_text, path_text) =
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Ok(given) = serde_json::from_str::<Value>(value_text) else { return Ok(Verdict::Unused) };
    if !canon::depth_within(&given, canon::MAX_DEPTH) {
        return Ok(Verdict::Unused);
    }
    canonical(&given)?;
    place(path_text, &given, seen)?;
    let Ok(schema) = serde_json::from_str::<Value>(schema_text) else { return Ok(Verdict::Used) };
    let validator = match compile_schema(&schema) {
        Ok(validator) => validator,
        Err(why) if why.contains("cannot be compiled") => return Err("the schema panicked".to_owned()),
        Err(why) => {
            seen.note(&gist(&why));
            return Ok(Verdict::Used);
        }
    };
    let ty = schema::args(&schema, "t");
    let valid = validator.is_valid(&given);
    if valid != validator.iter_errors(&given).next().is_none() {
        return Err("it is valid and has errors, or neither".to_owned());
    }
    let known = |key: &&String| WORDS.iter().any(|w| w.starts_with(&format!("\"{key}\"")));
    seen.note(&(valid, schema.as_object().map(|o| o.keys().filter(known).take(3).collect::<Vec<_>>())));
    // both readings of an argument are the same one
    let (own, cel) = (Val::json(&given, &ty).to_cel(), value::value(&given, &ty));
    if format!("{own:?}") != format!("{cel:?}") && own != cel {
        return Err(format!("as {ty} it is {own:?} and {cel:?}"));
    }
    if let Ok(path) = Path::parse(path_text) {
        seen.note(&path.typed(&ty).is_ok());
    }
    Ok(Verdict::Used)
}

fn canonical(given: &Value) -> Result<(), String> {
    let text = given.to_string();
    let size = canon::text_size(given);
    if size > text.len() || (size < text.len() && !has_whole_double(given)) {
        return Err(format!("{text} has {} bytes, and was said to have {size}", text.len()));
    }
    let mut other = String::new();
    reversed(given, &mut other);
    let digest = canon::digest(given);
    for again in [text, other] {
        let read: Value = serde_json::from_str(&again).map_err(|e| format!("{again}: {e}"))?;
        if canon::digest(&read) != digest {
            return Err(format!("another digest when it is read from {again}"));
        }
    }
    if canon::digest(&json!([given])) == digest {
        return Err("a list of it has its digest".to_owned());
    }
    Ok(())
}

fn place(text: &str, given: &Value, seen: &mut Seen) -> Result<(), String> {
    let path = match Path::parse(text) {
        Ok(path) => path,
        Err(why) => {
            seen.note(&gist(&why));
            return Ok(());
        }
    };
    if Path::parse(&path.to_string()) != Ok(path.clone()) {
        return Err(format!("the path {path} is not what it is written as"));
    }
    for change in [Test(true), Test(false)] {
        let mut value = given.clone();
        let first = path.apply(&mut value, &change);
        seen.note(&first.as_ref().map(|c| c.count.min(3)).map_err(|e| gist(e)));
        let Ok(changed) = first else { continue };
        if (changed.count == 0) != (value == *given) {
            return Err(format!("{} changes were made at {path}, and {given} became {value}", changed.count));
        }
        match path.apply(&mut value, &change) {
            Ok(again) if again.count == 0 => {}
            again => return Err(format!("done again at {path}: {again:?}")),
        }
    }
    Ok(())
}

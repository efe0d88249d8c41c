//! The published conformance cases of CEL, run through compiled rules and through the evaluator `cel`. `cargo xtask test` fetches them and names their folder in
//! `POLITY_CEL_CASES`. Every case that does not pass stands in `conformance.txt` with its reason: a case that begins to pass or to fail makes the test fail.
//! `POLITY_CEL_WRITE=1` writes that list anew.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, sync::LazyLock, time::Duration};

use cel::Value;
use serde_json::{Value as Json, json};

use super::{
    check::check,
    code::Machine,
    differential::same,
    eval_tests::session,
    meter::{Limits, MAX_STEPS},
    program,
    textproto::{self, Text},
    ty::Ty,
};

const KNOWN: &str = include_str!("conformance.txt");

/// What a case wants.
enum Want {
    Value(Value),
    Error,
}

/// Reads a value; the error says what of it rules do not have.
fn value(text: &Text) -> Result<Value, String> {
    let Text::Message(fields) = text else { return Err("a value that cannot be read".to_owned()) };
    let Some((kind, inner)) = fields.first() else { return Err("a value without a kind".to_owned()) };
    let word = match inner {
        Text::Word(s) | Text::Quoted(s) => s.as_str(),
        Text::Message(_) => "",
    };
    let number = |e: &dyn std::fmt::Display| format!("{word}: {e}");
    match kind.as_str() {
        "null_value" => Ok(Value::Null),
        "bool_value" => Ok(Value::Bool(word == "true")),
        "int64_value" => word.parse().map(Value::Int).map_err(|e| number(&e)),
        "double_value" => {
            let word = word.to_lowercase();
            word.trim_end_matches('f').parse().or_else(|_| word.parse()).map(Value::Float).map_err(|e| number(&e))
        }
        "string_value" => Ok(super::value::string(word)),
        "list_value" => inner.all("values").map(value).collect::<Result<Vec<_>, _>>().map(|l| Value::List(l.into())),
        "map_value" => {
            let mut entries = Vec::new();
            for entry in inner.all("entries") {
                let (Some(key), Some(of)) = (entry.field("key"), entry.field("value")) else { return Err("an entry".to_owned()) };
                let Value::String(key) = value(key)? else { return Err("keys that are no strings".to_owned()) };
                entries.push((key, value(of)?));
            }
            Ok(super::value::map(entries.iter().map(|(k, v)| (k.as_str(), v.clone()))))
        }
        "object_value" => object(inner),
        "uint64_value" => Err("unsigned integers".to_owned()),
        "bytes_value" => Err("bytes".to_owned()),
        "enum_value" => Err("enumerations".to_owned()),
        "type_value" => Err("types as values".to_owned()),
        other => Err(other.to_owned()),
    }
}

fn object(text: &Text) -> Result<Value, String> {
    let Text::Message(fields) = text else { return Err("messages".to_owned()) };
    let Some((url, inner)) = fields.first() else { return Err("messages".to_owned()) };
    let number = |name| inner.text(name).map_or(Ok(0), str::parse::<i64>).map_err(|e| e.to_string());
    let (seconds, nanos) = (number("seconds")?, number("nanos")?);
    if url.ends_with("google.protobuf.Duration]") {
        return Ok(Value::Duration(chrono::TimeDelta::seconds(seconds) + chrono::TimeDelta::nanoseconds(nanos)));
    }
    if url.ends_with("google.protobuf.Timestamp]") {
        let at = chrono::DateTime::from_timestamp(seconds, u32::try_from(nanos).unwrap_or_default());
        return at.map(|t| Value::Timestamp(t.fixed_offset())).ok_or_else(|| "a time out of range".to_owned());
    }
    Err("messages".to_owned())
}

fn wanted(case: &Text) -> Result<Want, String> {
    if case.field("eval_error").is_some() || case.field("any_eval_errors").is_some() {
        return Ok(Want::Error);
    }
    match (case.field("value"), case.field("typed_result")) {
        (Some(text), _) => value(text).map(Want::Value),
        (None, Some(_)) => Err("types of expressions".to_owned()),
        (None, None) => Ok(Want::Value(Value::Bool(true))),
    }
}

static NONE: LazyLock<Json> = LazyLock::new(|| json!({}));

/// Runs a case. Ok: it passes; whether compiled as well.
fn run(case: &Text) -> Result<bool, String> {
    let expr = case.text("expr").ok_or("no expression")?;
    for (field, why) in [("bindings", "variables of its own"), ("type_env", "variables of its own"), ("check_only", "types of expressions")]
    {
        if case.field(field).is_some() {
            return Err(format!("not in rules: {why}"));
        }
    }
    let want = wanted(case).map_err(|why| format!("not in rules: {why}"))?;
    let refused = |message: &str| {
        // names are the case's own; what counts is the kind of refusal
        let words: String = message.split(';').next().unwrap_or_default().to_owned();
        format!("refused: {words}")
    };
    let parsed = program::parse(expr).map_err(|f| refused(f.message.lines().next().unwrap_or_default()))?;
    if let Some(fault) = check(&parsed, &Ty::Dyn).iter().find(|f| !f.message.contains("a rule states what must hold")) {
        return Err(refused(&fault.message));
    }
    let program = program::finish(parsed)?;
    let session = session(&NONE, Limits { steps: MAX_STEPS, time: Duration::from_secs(20) });
    session.meter().use_patterns(&program.patterns);
    let by_cel = Value::resolve(&program.expr, &session.context()?).map_err(|e| e.to_string());
    let agrees = |got: &Result<Value, String>| match (&want, got) {
        (Want::Value(want), Ok(got)) => alike(want, got),
        (Want::Error, Err(_)) => true,
        _ => false,
    };
    if !agrees(&by_cel) {
        return Err("wrong: cel".to_owned());
    }
    let Ok(code) = &program.code else { return Ok(false) };
    let compiled = Machine::new(&session.slots, session.meter()).run(code);
    let right = match (&want, &compiled) {
        (Want::Value(want), Ok(got)) => same(got, want),
        (Want::Error, Err(_)) => true,
        _ => false,
    };
    if right { Ok(true) } else { Err("wrong: compiled".to_owned()) }
}

/// Equal in kind and value.
fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| alike(a, b)),
        (Value::Float(a), Value::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
        _ => std::mem::discriminant(a) == std::mem::discriminant(b) && a == b,
    }
}

#[test]
#[ignore = "needs the published cases: cargo xtask test --only cel"]
fn the_published_cases() {
    let folder = std::env::var("POLITY_CEL_CASES").expect("POLITY_CEL_CASES names the folder of the cases");
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "textproto")).collect();
    files.sort();
    let (mut compiled, mut interpreted, mut not, mut wrong) = (0, 0, BTreeMap::new(), 0);
    for path in files {
        let file = textproto::read(&fs::read_to_string(&path).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for section in file.all("section") {
            for case in section.all("test") {
                let name = |t: &Text| t.text("name").unwrap_or_default().to_owned();
                match run(case) {
                    Ok(true) => compiled += 1,
                    Ok(false) => interpreted += 1,
                    Err(why) => {
                        wrong += u32::from(why.starts_with("wrong"));
                        not.insert(format!("{}/{}/{}", name(&file), name(section), name(case)), why);
                    }
                }
            }
        }
    }
    println!(
        "published CEL cases: {} pass ({compiled} compiled, {interpreted} interpreted), {} do not, {wrong} of them for a wrong answer",
        compiled + interpreted,
        not.len()
    );
    assert!(compiled + interpreted > 300, "hardly any case was run");
    let found = not.iter().fold(String::new(), |mut text, (name, why)| {
        let _ = writeln!(text, "{name}: {}", why.replace('\n', " "));
        text
    });
    if std::env::var_os("POLITY_CEL_WRITE").is_some() {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cel/conformance.txt"), &found).unwrap();
        return;
    }
    let (was, is): (Vec<&str>, Vec<&str>) = (KNOWN.lines().collect(), found.lines().collect());
    let differ: Vec<String> = was
        .iter()
        .filter(|l| !is.contains(l))
        .map(|l| format!("no longer so: {l}"))
        .chain(is.iter().filter(|l| !was.contains(l)).map(|l| format!("new: {l}")))
        .collect();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

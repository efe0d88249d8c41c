//! Whatever is foreseen contains what happens: random expressions over random arguments, with the bounds of a schema and without.

use std::{cell::Cell, collections::BTreeSet, sync::LazyLock, time::Duration};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Map, Value as Json, json};

use super::{
    check::check,
    differential::{arguments, text},
    eval::Outcome,
    eval_tests::{TYPED, session},
    foresee::{Closed, May, foresee},
    meter::{Limits, MAX_STEPS},
    program,
};
use crate::tool::compile_schema;

/// The properties of `TYPED` that have numbers, with bounds.
static BOUNDED: LazyLock<Map<String, Json>> = LazyLock::new(|| {
    json!({"type": "object", "required": ["i", "b"], "properties": {
        "i": {"type": "integer", "minimum": -1, "maximum": 7},
        "j": {"type": "integer", "minimum": 0},
        "d": {"type": "number", "exclusiveMinimum": -2.5, "maximum": 5},
        "n": {"type": ["integer", "null"], "maximum": 0}
    }})
    .as_object()
    .unwrap()
    .clone()
});

fn program_of(text: &str) -> Option<program::Program> {
    let parsed = program::parse(text).ok()?;
    if check(&parsed, &TYPED).iter().any(|f| !f.message.contains("a rule states what must hold")) {
        return None;
    }
    program::finish(parsed).ok()
}

fn foreseen(text: &str, schema: Option<&Map<String, Json>>) -> May {
    foresee(&Closed::new(), &program_of(text).unwrap_or_else(|| panic!("{text}")), schema, &mut BTreeSet::new())
}

/// Rules about bounds, as people write them and as they do not.
fn bounded() -> BoxedStrategy<String> {
    let leaf = (
        prop::sample::select(vec!["args.i", "args.j", "args.d", "args.n"]),
        prop::sample::select(vec!["<", "<=", ">", ">=", "==", "!="]),
        prop::sample::select(vec![
            "-2",
            "-1",
            "0",
            "5",
            "7",
            "8",
            "-2.5",
            "5.0",
            "7.0",
            "(2 + 5)",
            "usd('0.000007')",
            "9223372036854775807",
        ]),
        any::<bool>(),
    )
        .prop_map(|(path, op, c, flip)| if flip { format!("{c} {op} {path}") } else { format!("{path} {op} {c}") });
    let leaf = prop_oneof![
        4 => leaf,
        1 => prop::sample::select(vec!["true", "false", "1 / 0 > 1", "[1, 2].exists(x, x > 1)", "has(args.i)", "has(args.j)", "args.b"]).prop_map(str::to_owned),
        1 => prop::sample::select(vec!["j", "d", "n"]).prop_map(|f| format!("(!has(args.{f}) || args.{f} >= -3)")),
        1 => prop::sample::select(vec!["j", "d"]).prop_map(|f| format!("(has(args.{f}) ? args.{f} > -3 : args.b)")),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            (inner.clone(), prop::sample::select(vec!["&&", "||"]), inner.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(c, a, b)| format!("({c} ? {a} : {b})")),
            inner.prop_map(|a| format!("!({a})")),
        ]
    })
    .boxed()
}

#[test]
fn nothing_happens_that_was_not_foreseen() {
    let cases = std::env::var("POLITY_DIFFERENTIAL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(500);
    let validator = compile_schema(&Json::Object(BOUNDED.clone())).unwrap();
    let (constant, by_schema) = (Cell::new(0_u32), Cell::new(0_u32));
    let near =
        (arguments(), -2_i64..9, prop::option::of(-1_i64..9), prop::option::of(prop::sample::select(vec![-2.5, -2.0, 0.0, 5.0, 5.5])))
            .prop_map(|(mut args, i, j, d)| {
                args["i"] = json!(i);
                args["b"] = json!(i % 2 == 0);
                args["n"] = json!(null);
                if let Some(j) = j {
                    args["j"] = json!(j);
                }
                if let Some(d) = d {
                    args["d"] = json!(d);
                }
                args
            });
    let args = prop::collection::vec(prop_oneof![arguments(), near], 8);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let result = runner.run(&(prop_oneof![bounded(), text("bool", 3)], args), |(text, all)| {
        let Some(program) = program_of(&text) else { return Ok(()) };
        let closed = Closed::new();
        let any = foresee(&closed, &program, None, &mut BTreeSet::new());
        let fits = foresee(&closed, &program, Some(&BOUNDED), &mut BTreeSet::new());
        constant.set(constant.get() + u32::from(any != May::ANY));
        by_schema.set(by_schema.get() + u32::from(fits != any));
        for args in &all {
            let mut session = session(args, Limits { steps: MAX_STEPS, time: Duration::from_secs(20) });
            let happened = match session.eval(&program) {
                Outcome::Holds => May::TRUE,
                Outcome::Fails => May::FALSE,
                Outcome::Error(_) => May::ERROR,
                other => return Err(TestCaseError::fail(format!("{text}: {other:?}"))),
            };
            prop_assert!(any.has(happened), "{text} over {args}: {happened:?} is not in {any:?}");
            if validator.is_valid(args) {
                prop_assert!(fits.has(happened), "{text} over {args}: {happened:?} is not in {fits:?} with the schema");
            }
        }
        Ok(())
    });
    result.unwrap_or_else(|e| panic!("{e}"));
    // what foresees nothing proves nothing
    assert!(constant.get() > cases / 20 && by_schema.get() > cases / 20, "{} {} of {cases}", constant.get(), by_schema.get());
}

#[test]
fn what_is_certain_is_foreseen() {
    for (text, want) in [
        ("1 < 2", May::TRUE),
        ("true || args.i > 1", May::TRUE),
        ("args.i > 1 || true", May::TRUE),
        ("false && args.i > 1", May::FALSE),
        ("[1, 2, 3].all(x, x > 0)", May::TRUE),
        ("'abc'.matches('^a')", May::TRUE),
        ("1 / 0 == 1", May::ERROR),
        ("args.b", May::ANY),
        ("!has(args.i)", May::TRUE.or(May::FALSE)),
    ] {
        assert_eq!(foreseen(text, None), want, "{text}");
    }
    for (text, want) in [
        ("args.i <= 7", May::TRUE),
        ("8 > args.i", May::TRUE),
        ("args.i != 9 && has(args.i)", May::TRUE),
        ("args.i > 7", May::FALSE),
        ("args.i < 7", May::TRUE.or(May::FALSE)),
        // absent is an error, which denies
        ("args.j >= 0", May::TRUE.or(May::ERROR)),
        ("!has(args.j) || args.j >= 0", May::TRUE),
        ("!has(args.j) || !has(args.d) || (args.j >= 0 && args.d > -2.5)", May::TRUE),
        ("has(args.d) ? args.d < 5.5 : args.i < 8", May::TRUE),
        ("args.n <= 0", May::ANY),
    ] {
        assert_eq!(foreseen(text, Some(&BOUNDED)), want, "{text}");
    }
}

#[test]
fn schemas_that_may_mean_something_else_bound_nothing() {
    let field = |field: Json| json!({"required": ["i"], "properties": {"i": field}}).as_object().unwrap().clone();
    let bound = json!({"type": "integer", "maximum": 7});
    assert_eq!(foreseen("args.i <= 7", Some(&field(bound.clone()))), May::TRUE);
    let mut old = field(bound.clone());
    old.insert("$schema".to_owned(), json!("http://json-schema.org/draft-03/schema#"));
    let mut referring = field(bound);
    referring.insert("$ref".to_owned(), json!("#/$defs/x"));
    let with_ref = field(json!({"$ref": "#/$defs/x", "type": "integer", "maximum": 7}));
    let large = field(json!({"type": "integer", "maximum": 9_223_372_036_854_775_807_i64}));
    let empty = field(json!({"type": "integer", "minimum": 9, "maximum": 7}));
    for schema in [old, referring, with_ref, large, empty, field(json!({"maximum": 7})), field(json!(true))] {
        assert_eq!(foreseen("args.i <= 7", Some(&schema)), May::ANY, "{schema:?}");
    }
}

//! Evaluation within its budget: every operator gives what its type says, bombs end in time and memory, a spent budget outlives absorption.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::{
    check::check,
    code::{Slots, val::Val},
    eval::{Outcome, Session},
    meter::{Limits, MAX_STEPS, MAX_TIME, Meter},
    program::{self, Program},
    schema,
    ty::Ty,
    value,
};
use crate::vars;

/// A schema that leaves nothing open, with what rules need.
pub(super) static SCHEMA: LazyLock<Json> = LazyLock::new(|| {
    json!({"type": "object", "properties": {
        "i": {"type": "integer"}, "j": {"type": "integer"}, "d": {"type": "number"}, "s": {"type": "string"}, "b": {"type": "boolean"},
        "n": {"type": ["integer", "null"]}, "list": {"type": "array", "items": {"type": "integer"}},
        "texts": {"type": "array", "items": {"type": "string"}},
        "objects": {"type": "array", "items": {"type": "object", "properties": {"k": {"type": "integer"}, "s": {"type": "string"}}}},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}}, "free": {}
    }})
});

/// Its type.
pub(super) static TYPED: LazyLock<Ty> = LazyLock::new(|| schema::args(&SCHEMA, "t"));

fn typed() -> Ty {
    TYPED.clone()
}

/// What was counted before.
static COUNTERS: LazyLock<Json> = LazyLock::new(|| json!({"spent": 3}));
/// What happened before.
static HISTORY: LazyLock<Json> = LazyLock::new(|| json!({"calls": 7, "labels": ["a", "b"]}));

pub(super) fn session(args: &Json, limits: Limits) -> Session<'_> {
    let mut slots = Slots::default();
    slots.set_args(args, &TYPED);
    slots.set_counters(Some(&COUNTERS));
    slots.set_history(Some(&HISTORY));
    slots.set_roles(|| vec![Val::Str("a"), Val::Str("b")]);
    slots.set_now(value::timestamp(jiff::Timestamp::from_second(1_700_000_000).unwrap()).unwrap());
    Session::new(Arc::new(Meter::new(limits)), slots)
}

type Eval = for<'a> fn(&mut Session<'a>, &'a Program) -> Outcome;

/// Both ways to evaluate a program, by name.
const ENGINES: [(&str, Eval); 2] = [("compiled", |s, p| s.eval(p)), ("cel", |s, p| s.interpreted(p))];

const AMPLE: Limits = Limits { steps: MAX_STEPS, time: Duration::from_secs(20) };

fn program_of(text: &str) -> Program {
    let parsed = program::parse(text).unwrap_or_else(|f| panic!("{text}: {f:?}"));
    assert_eq!(check(&parsed, &typed()), vec![], "{text}");
    let program = program::finish(parsed).unwrap();
    assert!(program.code.is_ok(), "{text}: {:?}", program.code);
    program
}

/// The outcome of an expression, which is the same with either evaluator.
fn run(text: &str, args: &Json) -> Outcome {
    let program = program_of(text);
    let [compiled, cel] = ENGINES.map(|(_, eval)| eval(&mut session(args, AMPLE), &program));
    match (&compiled, &cel) {
        (Outcome::Error(_), Outcome::Error(_)) => {}
        _ => assert_eq!(compiled, cel, "{text}"),
    }
    compiled
}

#[test]
fn every_operator_means_what_its_type_says() {
    let args = json!({"i": 7, "j": 2, "d": 2.5, "s": "abc", "b": true, "n": null, "list": [1, 2, 3], "texts": ["x", "yy"],
        "objects": [{"k": 1, "s": "p"}, {"k": 2}], "map": {"a": 1}, "free": {"x": 5, "y": 1.5, "z": [1]}});
    for text in [
        "args.i + args.j == 9 && args.i - args.j == 5 && args.i * args.j == 14 && args.i / args.j == 3 && args.i % args.j == 1 && -args.i == -7",
        "args.d + 0.5 == 3.0 && args.d - 0.5 == 2.0 && args.d * 2.0 == 5.0 && args.d / 2.5 == 1.0 && -args.d == -2.5",
        "args.i > 6.5 && args.i < 7.5 && args.d >= 2 && args.d <= 3 && args.i == 7.0 && args.d != 2",
        "args.s + 'd' == 'abcd' && args.s < 'abd' && args.s.size() == 3 && size(args.s) == 3",
        "args.s.startsWith('a') && args.s.endsWith('c') && args.s.contains('b') && args.s.matches('^a.c$') && !args.s.matches('^b')",
        "args.list + [4] == [1, 2, 3, 4] && 2 in args.list && !(5 in args.list) && args.list[0] == 1 && size(args.list) == 3",
        "args.list.all(x, x > 0) && args.list.exists(x, x == 3) && args.list.exists_one(x, x == 3) && !args.list.exists_one(x, x > 1)",
        "args.list.map(x, x * 2) == [2, 4, 6] && args.list.filter(x, x > 1) == [2, 3] && args.list.map(x, x > 1, x * 10) == [20, 30]",
        "args.objects.filter(o, has(o.s)).map(o, o.s) == ['p'] && args.objects.map(o, o.k).exists(k, k == 2)",
        "args.objects.all(o, args.list.exists(x, x == o.k))",
        "args.n == null && (args.n != null || true)",
        "has(args.n) && has(args.free.x) && !has(args.free.q)",
        "args.map.a == 1 && args.map['a'] == 1 && 'a' in args.map && args.map.all(k, args.map[k] == 1)",
        "args.free.x + 1 == 6 && args.free.y + 0.5 == 2.0 && args.free.z[0] == 1",
        "args.?s.orValue('') == 'abc' && args[?'s'].hasValue() && args.?free.q.orValue(3) == 3",
        "args.b ? args.i == 7 : false",
        "int(args.d) == 2 && double(args.i) == 7.0 && string(args.i) == '7' && int('5') == 5 && bool('true')",
        "usd('12.50') == 12500000 && usd(string(args.i)) == 7000000",
        "now > timestamp('2020-01-01T00:00:00Z') && now - timestamp('2023-11-14T22:13:20Z') == duration('0s') && now.getFullYear() == 2023",
        "{'abc': 5}[args.s] == 5 && 'a' in roles",
    ] {
        assert_eq!(run(text, &args), Outcome::Holds, "{text}");
    }
}

#[test]
fn an_absent_field_is_an_error_that_says_how_to_guard() {
    let Outcome::Error(message) = run("args.i < 5", &json!({})) else { panic!("an error expected") };
    assert_eq!(message, "`i` is absent; guard with has(…)");
    assert_eq!(run("!has(args.i) || args.i < 5", &json!({})), Outcome::Holds);
    assert!(matches!(run("args.i / args.j == 1", &json!({"i": 1, "j": 0})), Outcome::Error(_)));
    assert!(matches!(run("args.i + 1 > 0", &json!({"i": i64::MAX})), Outcome::Error(_)));
    assert!(matches!(run("args.free == true ? args.free : args.free", &json!({"free": 5})), Outcome::Error(_)));
}

/// Expressions that want far more than a decision may take.
fn bombs() -> Vec<(String, Json)> {
    let numbers = Json::Array((0..10_000).map(|n| json!(n)).collect());
    let texts = Json::Array(vec![json!("x".repeat(1000)); 30]);
    let ten = format!("[{}]", (0..100).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    vec![
        ("args.list.all(a, args.list.all(b, args.list.all(c, a + b + c >= 0)))".to_owned(), json!({"list": numbers})),
        ("args.list.exists(a, args.list.exists(b, a + b < 0))".to_owned(), json!({"list": numbers})),
        ("args.list.exists_one(a, args.list.exists_one(b, a + b < 0))".to_owned(), json!({"list": numbers})),
        (format!("{ten}.all(a, {ten}.all(b, {ten}.filter(c, c > -1).size() > 0))"), json!({})),
        (format!("{ten}.all(a, {ten}.all(b, {ten}.map(c, c).size() > 0))"), json!({})),
        (format!("{ten}.all(a, {ten}.all(b, {ten}.map(c, c > -1, c).size() > 0))"), json!({})),
        // errors of the inner loop are absorbed by the outer ones
        ("args.list.all(a, args.list.exists(b, b / (b - b) == 1) || true)".to_owned(), json!({"list": numbers})),
        ("args.list.exists(a, args.list.all(b, b >= 0) && false)".to_owned(), json!({"list": numbers})),
        (
            "args.texts.all(a, args.list.all(b, args.texts.all(c, (a + c).contains('y') || true)))".to_owned(),
            json!({"texts": texts, "list": numbers}),
        ),
        (
            "args.texts.all(a, args.list.all(b, a.matches('(x+x+)+y') || a.matches('[a-z]{1,50}y') || true))".to_owned(),
            json!({"texts": texts, "list": numbers}),
        ),
    ]
}

#[test]
fn bombs_end_in_time_and_deny() {
    for (text, args) in bombs() {
        let program = program_of(&text);
        for (engine, eval) in ENGINES {
            let begun = Instant::now();
            assert_eq!(
                eval(&mut session(&args, Limits { steps: MAX_STEPS, time: MAX_TIME }), &program),
                Outcome::Spent,
                "{engine}: {text}"
            );
            // far above the 50 ms that were asked for: a debug build on a busy machine
            assert!(begun.elapsed() < Duration::from_secs(5), "{engine}: {text}: {:?}", begun.elapsed());
        }
    }
}

#[test]
fn what_grows_is_refused_before_it_runs() {
    let chain = |step: &str| format!("['xxxxxxxxxx']{}.size() > 0", step.repeat(12));
    for text in [
        chain(".map(a, a + a)"),
        chain(".map(a, [a, a])"),
        chain(".map(a, {'l': a, 'r': a})"),
        chain(".map(a, [1, 2].map(b, a))"),
        chain(".map(a, string(a + a))"),
        chain(".map(a, [a, a][0])"),
        chain(".map(a, true ? a + a : a)"),
        format!("[[], ['xxxxxxxxxx']].filter(l, size(l) > 0).map(l, l[0]){}.size() > 0", ".map(a, a + a)".repeat(8)),
    ] {
        // also where no Tool is looked at, since the rule names no args
        for args in [typed(), Ty::Dyn] {
            let faults = check(&program::parse(&text).unwrap(), &args);
            assert!(faults.iter().any(|f| f.message.contains("not build larger values")), "{text}: {faults:?}");
        }
    }
}

#[test]
fn the_deepest_expressions_fit_a_small_stack() {
    let deep = [
        format!("1{} > 0", "+1".repeat(22)),
        format!("{}true{}", "true?(".repeat(22), "):true".repeat(22)),
        format!("size({}1{}) == 1", "[".repeat(15), "]".repeat(15)),
        format!("{}true{}", "!(".repeat(22), ")".repeat(22)),
        format!("args.list.all(a, args.list.all(b, args.list.all(c, a{} + b + c > 0)))", "+1".repeat(13)),
        format!("args.free{} == 1 || true", ".a".repeat(20)),
        vec!["args.i == 1"; 100].join(" && "),
    ];
    let small = std::thread::Builder::new().stack_size(1536 * 1024).spawn(move || {
        for text in deep {
            let program = program_of(&text);
            let args = json!({"list": [1, 2], "free": {}, "i": 1});
            for (engine, eval) in ENGINES {
                let outcome = eval(&mut session(&args, AMPLE), &program);
                assert!(matches!(outcome, Outcome::Holds | Outcome::Fails), "{engine}: {text:.60}: {outcome:?}");
            }
        }
    });
    assert!(small.unwrap().join().is_ok());
}

#[test]
fn a_part_that_several_rules_have_is_computed_once() {
    let args = json!({"list": [1, 2], "s": "a"});
    let program = program_of("args.list.all(x, x > 0) && args.s.matches('^a')");
    let parts = program.code.as_ref().unwrap().shared();
    assert_eq!(parts, ["args.list.all(x, x > 0)", "args.s.matches('^a')"]);
    let numbers = [Some(0), None];
    let mut session = session(&args, AMPLE).sharing(1);
    assert_eq!(session.eval_known(&program, &numbers), Outcome::Holds);
    let steps = session.steps();
    assert_eq!((session.eval_known(&program, &numbers), session.known()), (Outcome::Holds, 1));
    assert_eq!(session.steps(), 2 * steps, "what is looked up is charged as if it was computed");
    // what is known is what counts, and it is charged before it counts
    session.know(0, false, 1);
    assert_eq!(session.eval_known(&program, &numbers), Outcome::Fails);
    assert_eq!(session.eval(&program), Outcome::Holds);
    session.know(0, true, MAX_STEPS);
    assert_eq!(session.eval_known(&program, &numbers), Outcome::Spent);
}

#[test]
fn what_depends_on_more_than_the_call_is_not_shared() {
    for (text, want) in [
        ("args.list.exists(x, x in args.list.map(y, y + 1))", vec!["args.list.exists(x, x in args.list.map(y, y + 1))"]),
        ("args.texts.exists(t, t in roles)", vec![]),
        ("roles.all(r, r != '') && args.s.find('a') == ''", vec!["args.s.find('a')"]),
        ("args.s.matches('a') || !args.s.matches('a') || args.s.matches('b')", vec!["args.s.matches('a')", "args.s.matches('b')"]),
        ("args.i > 1 && quantity('1').add(1).sign() == 1", vec![]),
    ] {
        assert_eq!(program_of(text).code.as_ref().unwrap().shared(), want, "{text}");
    }
}

#[test]
fn a_panic_is_caught() {
    let code = Err(super::code::Unsupported("nothing"));
    let program = Program {
        code,
        expr: cel::IdedExpr::default(),
        patterns: Arc::default(),
        cost: 1,
        uses_args: false,
        uses_roles: false,
        reads: crate::past::Reads::default(),
    };
    assert_eq!(session(&json!({}), Limits { steps: 10, time: MAX_TIME }).eval(&program), Outcome::Panicked);
}

#[test]
fn the_variables_that_are_declared_are_those_that_are_set() {
    let mut names: Vec<_> = vars::types().into_iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    assert_eq!(names, ["agent", "caller", "now", "org", "request", "roles", "task", "tool"]);
}

proptest! {
    /// A budget that ends at any step never lets a rule hold that needs more.
    #[test]
    fn a_spent_budget_outlives_absorption(limit in 0_u64..400) {
        let args = json!({"list": [1, 2, 3, 4, 5], "i": 1, "j": 2});
        for text in [
            "args.list.all(a, args.list.exists(b, b == a) || true) || true",
            "true || args.list.all(a, a > 0)",
            "args.list.exists(a, a == 1)",
            "size(args.list.map(a, a + 1).filter(b, b > 0)) == 5 || args.i == 1",
            "!args.list.exists(a, a > 9) && args.list.all(b, b < 9)",
        ] {
            let program = program_of(text);
            for (engine, eval) in ENGINES {
                let mut free = session(&args, AMPLE);
                prop_assert_eq!(eval(&mut free, &program), Outcome::Holds);
                let mut tight = session(&args, Limits { steps: limit, ..AMPLE });
                let outcome = eval(&mut tight, &program);
                prop_assert_eq!(outcome == Outcome::Spent, limit < free.steps(), "{}: {} at {}: {:?}", engine, text, limit, outcome);
            }
        }
    }

    /// No text panics the checker or the evaluation, or overflows the stack.
    #[test]
    fn random_text_never_panics(text in "[a-z0-9 ().,\\[\\]{}'\"?:!&|+*/%<>=\\-_\\n]{0,120}") {
        exercise(&text);
    }

    /// The same with text that looks like rules.
    #[test]
    fn random_rules_never_panic(words in proptest::collection::vec(prop::sample::select(WORDS), 0..40)) {
        exercise(&words.concat());
    }
}

const WORDS: &[&str] = &[
    "args",
    ".",
    "i",
    "d",
    "list",
    "objects",
    "texts",
    "map",
    "free",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "'a'",
    "1",
    "2.5",
    "null",
    "true",
    "&&",
    "||",
    "!",
    "-",
    "+",
    "*",
    "/",
    "%",
    "==",
    "<",
    ">=",
    " in ",
    "?",
    ":",
    ",",
    ".all(x,",
    ".exists(x,",
    ".map(x,",
    ".filter(x,",
    "x",
    "has(",
    "size(",
    "int(",
    "string(",
    ".matches('a+')",
    ".?",
    "[?",
    ".orValue(",
    ".size()",
    "usd('1')",
    "now",
    "duration('1h')",
    "timestamp('2020-01-01T00:00:00Z')",
    ".getHours()",
    "roles",
    "9223372036854775807",
];

fn exercise(text: &str) {
    let Ok(parsed) = program::parse(text) else { return };
    assert!(!check(&parsed, &Ty::Dyn).iter().any(|f| f.message.contains("cannot be checked")), "{text}");
    if check(&parsed, &typed()).is_empty() {
        let args = json!({"i": 1, "d": 0.5, "s": "a", "list": [1, 2], "texts": ["a"], "objects": [{"k": 1}], "map": {"i": 1}, "free": [1]});
        let program = program::finish(parsed).unwrap();
        let [compiled, cel] =
            ENGINES.map(|(_, eval)| eval(&mut session(&args, Limits { steps: 100_000, time: Duration::from_secs(20) }), &program));
        assert_ne!(compiled, Outcome::Panicked, "{text}");
        assert_eq!(std::mem::discriminant(&compiled), std::mem::discriminant(&cel), "{text}: {compiled:?} {cel:?}");
    }
}

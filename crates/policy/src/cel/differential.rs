//! Compiled rules compute what the evaluator `cel` computes: random typed expressions over random arguments, compared by value, or by having none.
//! `POLITY_DIFFERENTIAL_CASES` sets how many are tried (the long form); a run of the tests tries a thousand.

use cel::{Context, Value};
use proptest::{
    prelude::*,
    strategy::Union,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value as Json, json};

use super::{
    check::check,
    code::{Fail, Machine, val::Val},
    eval::Outcome,
    eval_tests::{TYPED, session},
    lib::Ext,
    meter::{Limits, MAX_STEPS},
    program,
    program::Program,
};

/// Expressions by type, each `e` an operand of that type.
pub(super) fn text(ty: &'static str, depth: u32) -> BoxedStrategy<String> {
    let leaf = leaf(ty);
    if depth == 0 {
        return leaf;
    }
    let e = move |ty| text(ty, depth - 1);
    let two = |a: BoxedStrategy<String>, op: &'static [&'static str], b: BoxedStrategy<String>| {
        (a, prop::sample::select(op), b).prop_map(|(a, op, b)| format!("({a} {op} {b})")).boxed()
    };
    let call = |a: BoxedStrategy<String>, form: &'static [&'static str]| {
        (a, prop::sample::select(form)).prop_map(|(a, form)| form.replace('#', &a)).boxed()
    };
    let looped = |over: &'static str, var: &'static str, ty: &'static str| {
        let body = text(ty, depth - 1).prop_map(move |b| (over, var, b));
        (body, prop::sample::select(&["all", "exists", "exists_one"][..]))
            .prop_map(|((over, var, body), f)| format!("{over}.{f}({var}, {body})"))
            .boxed()
    };
    const CMP: &[&str] = &["==", "!=", "<", "<=", ">", ">="];
    let cond = (e("bool"), e(ty), e(ty)).prop_map(|(c, a, b)| format!("({c} ? {a} : {b})")).boxed();
    let own: Vec<BoxedStrategy<String>> = match ty {
        "bool" => vec![
            two(e("bool"), &["&&", "||"], e("bool")),
            two(e("bool"), &["&&", "||"], e("bool")),
            call(e("bool"), &["!(#)"]),
            two(e("int"), CMP, e("int")),
            two(e("int"), CMP, e("double")),
            two(e("double"), CMP, e("double")),
            two(e("string"), CMP, e("string")),
            two(e("any"), &["==", "!=", "<", ">="], e("any")),
            two(e("any"), &["==", "<="], e("int")),
            two(e("time"), CMP, e("time")),
            two(e("span"), CMP, e("span")),
            two(e("ints"), &["==", "!="], e("ints")),
            two(e("int"), &["in"], e("ints")),
            two(e("string"), &["in"], e("strings")),
            two(e("string"), &["in"], Just("args.map".to_owned()).boxed()),
            two(e("any"), &["in"], e("any")),
            call(e("string"), &["#.startsWith('a')", "#.endsWith('b')", "#.contains(args.s)", "#.matches('^a+b?$')", "bool(#)"]),
            call(e("any"), &["#.startsWith('a')", "#.matches('x')", "#.hasValue()"]),
            call(
                e("string"),
                &[
                    "isIP(#)",
                    "isCIDR(#)",
                    "isQuantity(#)",
                    "isURL(#)",
                    "ip(#).isLoopback()",
                    "cidr('10.0.0.0/8').containsIP(#)",
                    "quantity(#).isLessThan(quantity('2'))",
                    "(url(#).getQuery() == {})",
                ],
            ),
            call(
                e("ints"),
                &["#.isSorted()", "sets.contains(#, args.list)", "sets.equivalent(args.list, #)", "sets.intersects(#, [1, 2.0])"],
            ),
            call(e("any"), &["#.isSorted()", "sets.contains(#, [1])", "(#.indexOf('a') == 0)", "ip(#).isLoopback()"]),
            looped("args.list", "x", "bool"),
            looped("args.objects", "o", "bool"),
            looped("args.map", "k", "bool"),
            looped("args.free", "f", "bool"),
        ],
        "int" => vec![
            two(e("int"), &["+", "-", "*", "/", "%"], e("int")),
            call(e("int"), &["-(#)"]),
            call(e("double"), &["int(#)"]),
            call(e("string"), &["int(#)", "size(#)", "#.size()"]),
            call(e("ints"), &["size(#)", "#[0]", "#[1]"]),
            call(
                e("time"),
                &[
                    "int(#)",
                    "#.getFullYear()",
                    "#.getDayOfYear()",
                    "#.getDayOfWeek()",
                    "#.getMonth()",
                    "#.getHours()",
                    "#.getMilliseconds()",
                ],
            ),
            call(e("span"), &["#.getHours()", "#.getMinutes()", "#.getSeconds()", "#.getMilliseconds()"]),
            call(e("any"), &["size(#)", "int(#)", "#.sum()", "#.lastIndexOf(1)"]),
            call(e("ints"), &["#.sum()", "#.min()", "#.max()", "#.indexOf(args.i)", "#.lastIndexOf(1)"]),
            call(
                e("string"),
                &["#.indexOf('a')", "#.lastIndexOf(args.s)", "quantity(#).asInteger()", "ip(#).family()", "#.split('a').size()"],
            ),
            call(e("int"), &["quantity('1500m').add(#).sign()", "quantity('1').sub(#).asInteger()", "'a b'.indexOf('b', #)"]),
            call(e("time"), &["#.getHours('Europe/Berlin')", "#.getDate('-23:59')", "#.getHours(args.s)"]),
            call(e("int"), &["args.list[#]", "args.?n.orValue(#)", "args.?map.q.orValue(#)"]),
            cond,
        ],
        "double" => vec![
            two(e("double"), &["+", "-", "*", "/"], e("double")),
            call(e("double"), &["-(#)"]),
            call(e("int"), &["double(#)"]),
            call(e("string"), &["double(#)"]),
            cond,
        ],
        "string" => vec![
            two(e("string"), &["+"], e("string")),
            call(e("int"), &["string(#)"]),
            call(e("double"), &["string(#)"]),
            call(e("bool"), &["string(#)"]),
            call(e("time"), &["string(#)"]),
            call(e("span"), &["string(#)"]),
            call(e("string"), &["args.?s.orValue(#)", "string(#)"]),
            call(
                e("string"),
                &[
                    "#.trim()",
                    "#.lowerAscii()",
                    "#.upperAscii()",
                    "#.replace('a', args.s)",
                    "#.split('a').join('-')",
                    "#.substring(1)",
                    "#.charAt(args.i)",
                    "#.find('a+')",
                    "#.findAll('[ab]').join()",
                    "string(ip(#))",
                    "url(#).getHost()",
                    "url('https://h' + #).getEscapedPath()",
                ],
            ),
            call(e("int"), &["'aab'.substring(#)", "'aab'.charAt(#)", "'aab'.replace('a', 'b', #)", "'1.2.3'.split('.', #).join('/')"]),
            cond,
        ],
        "ints" => vec![
            two(e("ints"), &["+"], e("ints")),
            call(e("int"), &["[#]", "[#, 1]", "args.list.filter(x, x > #)", "args.list.map(x, x + #)", "args.list.map(x, x > 1, #)"]),
            cond,
        ],
        "time" => vec![two(e("time"), &["+", "-"], e("span")), call(e("string"), &["timestamp(#)"]), call(e("any"), &["timestamp(#)"])],
        "span" => vec![two(e("span"), &["+", "-"], e("span")), two(e("time"), &["-"], e("time")), call(e("string"), &["duration(#)"])],
        "any" => vec![
            two(e("any"), &["+", "-", "*", "/", "%"], e("any")),
            two(e("any"), &["+", "-"], e("int")),
            call(e("any"), &["#.x", "#['y']", "#[0]", "#.?x", "#[?'y']", "-(#)", "#.orValue(1)", "#.value()", "has(#.x) ? #.x : #"]),
            call(e("int"), &["args.free[#]"]),
            cond,
        ],
        _ => vec![],
    };
    if own.is_empty() { leaf } else { Union::new_weighted(vec![(1, leaf), (3, Union::new(own).boxed())]).boxed() }
}

fn leaf(ty: &'static str) -> BoxedStrategy<String> {
    let of: &'static [&'static str] = match ty {
        "bool" => &[
            "true",
            "false",
            "args.b",
            "has(args.s)",
            "has(args.n)",
            "has(args.free.x)",
            "args.n == null",
            "'a' in roles",
            "'b' in history.labels",
            "has(counters.spent)",
        ],
        "int" => &[
            "0",
            "1",
            "-1",
            "7",
            "9223372036854775807",
            "-9223372036854775808",
            "args.i",
            "args.j",
            "args.n",
            "args.map.a",
            "usd('12.50')",
            "counters.spent",
            "history.calls",
        ],
        "double" => &["0.0", "1.5", "-2.0", "1e308", "args.d"],
        "string" => &[
            "''",
            "'a'",
            "'aab'",
            "'10.1.2.3'",
            "'::1'",
            "'1500m'",
            "'https://u@h:80/a b?q=1'",
            "'é€'",
            "args.s",
            "args.texts[0]",
            "'1h30m'",
            "'2024-02-29T12:30:15.25Z'",
            "'12'",
            "'1.5'",
            "'true'",
        ],
        "strings" => &["args.texts", "['a', 'b']", "roles", "[args.s]", "[]"],
        "ints" => &["args.list", "[1, 2, 3]", "[]"],
        "time" => {
            &["now", "timestamp('2024-02-29T12:30:15.25Z')", "timestamp('0001-01-01T00:00:00Z')", "timestamp('9999-12-31T23:59:59Z')"]
        }
        "span" => &["duration('1h')", "duration('-90m')", "duration('9223372036s')", "(now - now)"],
        _ => &["args.free", "args.free.x", "args.free.y", "args.free[0]"],
    };
    prop::sample::select(of).prop_map(str::to_owned).boxed()
}

/// Arguments of every kind.
pub(super) fn arguments() -> BoxedStrategy<Json> {
    let int = prop_oneof![Just(0_i64), Just(1), Just(-1), Just(i64::MAX), Just(i64::MIN), -9_i64..9];
    let string = prop::sample::select(vec![
        "",
        "a",
        "aab",
        "b",
        "é€x",
        "12",
        "true",
        "30s",
        "2024-01-01T00:00:00+02:00",
        "127.0.0.1",
        "10.0.0.0/8",
        "2Ki",
        "/p?a=b",
    ]);
    let scalar = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        int.clone().prop_map(|i| json!(i)),
        Just(json!(2.5)),
        Just(json!(5.0)),
        Just(json!(u64::MAX)),
        string.clone().prop_map(|s| json!(s)),
    ];
    let free = scalar.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Json::Array),
            prop::collection::btree_map(prop::sample::select(vec!["x", "y", "z"]), inner, 0..3).prop_map(|m| m
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .collect::<serde_json::Map<_, _>>()
                .into()),
        ]
    });
    let double = prop_oneof![Just(json!(0.0)), Just(json!(5)), Just(json!(-2.5)), Just(json!(1e300)), Just(json!(9e15))];
    let object = (int.clone(), prop::option::of(string.clone())).prop_map(|(k, s)| match s {
        Some(s) => json!({"k": k, "s": s}),
        None => json!({"k": k}),
    });
    let fields: Vec<(&'static str, BoxedStrategy<Json>)> = vec![
        ("i", prop_oneof![int.clone().prop_map(|i| json!(i)), Just(json!(5.0))].boxed()),
        ("j", int.clone().prop_map(|i| json!(i)).boxed()),
        ("d", double.boxed()),
        ("s", string.clone().prop_map(|s| json!(s)).boxed()),
        ("b", any::<bool>().prop_map(|b| json!(b)).boxed()),
        ("n", prop_oneof![Just(json!(null)), int.clone().prop_map(|i| json!(i))].boxed()),
        ("list", prop::collection::vec(int.clone(), 0..4).prop_map(|l| json!(l)).boxed()),
        ("texts", prop::collection::vec(string, 0..3).prop_map(|l| json!(l)).boxed()),
        ("objects", prop::collection::vec(object, 0..3).prop_map(Json::Array).boxed()),
        ("map", prop::collection::btree_map(prop::sample::select(vec!["a", "aab", "q"]), int, 0..3).prop_map(|m| json!(m)).boxed()),
        ("free", free.boxed()),
    ];
    // each field is there four times out of five
    let fields = fields.into_iter().map(|(name, of)| prop::option::weighted(0.8, of).prop_map(move |v| (name, v))).collect::<Vec<_>>();
    fields
        .prop_map(|fields| fields.into_iter().filter_map(|(name, v)| Some((name.to_owned(), v?))).collect::<serde_json::Map<_, _>>().into())
        .boxed()
}

/// Whether a compiled value is the evaluator's, type and all.
pub(super) fn same(a: &Val<'_>, b: &Value) -> bool {
    match (a.to_cel(), b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()),
        (Value::List(_), Value::List(b)) => {
            a.list_len() == Some(b.len()) && b.iter().enumerate().all(|(i, y)| a.at(i).is_some_and(|x| same(&x, y)))
        }
        (Value::Map(_), Value::Map(b)) => {
            a.map_len() == Some(b.map.len())
                && b.map.iter().all(|(k, y)| match k {
                    cel::objects::Key::String(k) => a.get(k).flatten().is_some_and(|x| same(&x, y)),
                    _ => false,
                })
        }
        (Value::Opaque(a), Value::Opaque(b)) if a.downcast_ref::<Ext>().is_some() => a.downcast_ref::<Ext>() == b.downcast_ref::<Ext>(),
        (Value::Opaque(_), Value::Opaque(b)) => match (a, b.downcast_ref::<cel::objects::OptionalValue>().map(|o| o.value())) {
            (Val::Opt(None), Some(None)) => true,
            (Val::Opt(Some(x)), Some(Some(y))) => same(x, y),
            _ => false,
        },
        (a, b) => std::mem::discriminant(&a) == std::mem::discriminant(b) && a == *b,
    }
}

/// Where the evaluator `cel` departs from the specification and compiled rules do not: a list plus a map is an error.
pub(super) fn departs(program: &Program, args: &Json) -> bool {
    let text = format!("{:?}", program.expr);
    text.contains("_+_") && args.get("free").is_some_and(|free| free.to_string().contains('{'))
}

/// Compares both for one expression; false: the checker refuses it.
fn compare(text: &str, args: &Json) -> Result<bool, String> {
    let Ok(parsed) = program::parse(text) else { return Ok(false) };
    if check(&parsed, &TYPED).iter().any(|f| !f.message.contains("a rule states what must hold")) {
        return Ok(false);
    }
    let program = program::finish(parsed)?;
    let code = program.code.as_ref().map_err(|why| format!("{text} is not compiled: {why:?}"))?;
    let limits = Limits { steps: MAX_STEPS, time: std::time::Duration::from_secs(20) };
    let session = session(args, limits);
    let compiled = Machine::new(&session.slots, session.meter()).run(code);
    let context: Context<'_, '_> = session.context().map_err(|e| format!("{text}: {e}"))?;
    session.meter().use_patterns(&program.patterns);
    let oracle = Value::resolve(&program.expr, &context);
    let equal = match (&compiled, &oracle) {
        (Ok(a), Ok(b)) => same(a, b),
        (Err(_), Err(_)) => true,
        _ => false,
    };
    if equal || (compiled.is_err() && departs(&program, args)) {
        return Ok(true);
    }
    Err(format!("{text}\nover {args}\ncompiled {compiled:?}\ncel      {oracle:?}"))
}

#[test]
fn compiled_rules_are_what_cel_computes() {
    let cases = std::env::var("POLITY_DIFFERENTIAL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let expressions = prop::sample::select(vec!["bool", "bool", "bool", "int", "double", "string", "ints", "any", "time", "span"])
        .prop_flat_map(|ty| text(ty, 3));
    let seen = std::cell::Cell::new(0_u32);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let result = runner.run(&(expressions, arguments()), |(text, args)| match compare(&text, &args) {
        Ok(known) => {
            seen.set(seen.get() + u32::from(known));
            Ok(())
        }
        Err(difference) => Err(TestCaseError::fail(difference)),
    });
    result.unwrap_or_else(|e| panic!("{e}"));
    let accepted = seen.get();
    // a generator that the checker refuses proves nothing
    assert!(accepted * 2 > cases, "only {accepted} of {cases} expressions passed the checker");
}

/// Rules made of the same parts, one after the other, with and without a memory of these parts, within a budget. Ok(true): a part was looked up.
fn compare_sharing(rules: &[String], args: &Json, steps: u64) -> Result<bool, String> {
    let mut programs = Vec::new();
    for text in rules {
        let Ok(parsed) = program::parse(text) else { return Ok(false) };
        if !check(&parsed, &TYPED).is_empty() {
            return Ok(false);
        }
        programs.push(program::finish(parsed)?);
    }
    let mut counts: std::collections::BTreeMap<&str, u32> = std::collections::BTreeMap::new();
    for part in programs.iter().filter_map(|p| p.code.as_ref().ok()).flat_map(|code| code.shared()) {
        *counts.entry(part).or_default() += 1;
    }
    counts.retain(|_, count| *count > 1);
    let place = |part: &String| counts.keys().position(|known| known == part).and_then(|at| u32::try_from(at).ok());
    let numbers: Vec<Vec<Option<u32>>> =
        programs.iter().map(|p| p.code.as_ref().map(|code| code.shared().iter().map(place).collect()).unwrap_or_default()).collect();
    let limits = Limits { steps, time: std::time::Duration::from_secs(20) };
    let (mut alone, mut sharing) = (session(args, limits), session(args, limits).sharing(counts.len()));
    for ((text, program), numbers) in rules.iter().zip(&programs).zip(&numbers) {
        let (want, got) = (alone.eval(program), sharing.eval_known(program, numbers));
        // how far beyond its end a budget is seen to be spent is another matter
        let same_steps = want == Outcome::Spent || alone.steps() == sharing.steps();
        if want != got || !same_steps {
            return Err(format!(
                "{text} of {rules:?}\nover {args} within {steps}: {want:?} {}, sharing {got:?} {}",
                alone.steps(),
                sharing.steps()
            ));
        }
    }
    Ok(sharing.known() > 0)
}

#[test]
fn what_rules_share_changes_neither_outcomes_nor_steps() {
    let part = prop::sample::select(vec![
        "args.list.all(x, x / args.i > 0)",
        "args.objects.exists(o, o.s == args.s)",
        "args.map.exists_one(k, args.map[k] > args.list[0])",
        "args.texts.filter(t, t.matches('^a')).size() > 0",
        "args.s.matches('^a+b?$')",
        "(quantity(args.s).sign() == args.list.sum())",
        "sets.contains(args.list, [args.i])",
        "(now.getHours('Europe/Berlin') > args.i)",
    ]);
    let steps = prop_oneof![0_u64..400, Just(MAX_STEPS)];
    let mut runner = TestRunner::new(Config { cases: 1000, failure_persistence: None, ..Config::default() });
    let used = std::cell::Cell::new(0_u32);
    let strategy = (part.clone(), part, text("bool", 2), text("bool", 2), arguments(), steps);
    let result = runner.run(&strategy, |(p, q, a, b, args, steps)| {
        let rules = [
            format!("{p} && {a}"),
            format!("{b} || ({q} && {p})"),
            format!("{a} ? {p} : !({q})"),
            format!("({q} || {a}) && ({p} || {b})"),
            p.to_owned(),
        ];
        match compare_sharing(&rules, &args, steps) {
            Ok(shared) => used.set(used.get() + u32::from(shared)),
            Err(difference) => return Err(TestCaseError::fail(difference)),
        }
        Ok(())
    });
    result.unwrap_or_else(|e| panic!("{e}"));
    assert!(used.get() > 200, "only {} cases shared anything", used.get());
}

fn outcome(value: &Result<Val<'_>, Fail<'_>>) -> (Option<bool>, Option<String>) {
    match value {
        Ok(Val::Bool(b)) => (Some(*b), None),
        Ok(_) => (None, None),
        Err(e) => (None, Some(e.to_string())),
    }
}

/// Holds what is shown of one expression against the expression; false: the checker refuses it.
fn compare_shown(text: &str, args: &Json) -> Result<bool, String> {
    let Ok(parsed) = program::parse(text) else { return Ok(false) };
    if check(&parsed, &TYPED).iter().any(|f| !f.message.contains("a rule states what must hold")) {
        return Ok(false);
    }
    let program = program::finish(parsed)?;
    let code = program.code.as_ref().map_err(|why| format!("{text} is not compiled: {why:?}"))?;
    let value_of = |shown: &str| -> Result<(Option<bool>, Option<String>), String> {
        let parsed = program::parse(shown).map_err(|e| format!("{text} is shown as {shown}, which is none: {e:?}"))?;
        let shown = program::finish(parsed)?;
        let code = shown.code.as_ref().map_err(|why| format!("{text} is shown as something else: {why:?}"))?;
        let session = session(args, Limits { steps: MAX_STEPS, time: std::time::Duration::from_secs(20) });
        let value = Machine::new(&session.slots, session.meter()).run(code);
        Ok(outcome(&value))
    };
    let session = session(args, Limits { steps: MAX_STEPS, time: std::time::Duration::from_secs(20) });
    let (value, error) = outcome(&Machine::new(&session.slots, session.meter()).run(code));
    let whole = code.text();
    if value_of(&whole)? != (value, error.clone()) {
        return Err(format!("{text}\nis shown as {whole}\nover {args}"));
    }
    if value == Some(true) {
        return Ok(true);
    }
    let part = code.part(&mut Machine::new(&session.slots, session.meter()));
    let (part_value, part_error) = value_of(&part.expression)?;
    // a part that is no bool has a value by itself
    if part_value != value || (part_error.is_some() && part_error != error) {
        return Err(format!("{text}\nover {args} is {value:?} {error:?}\nnot so its part {}", part.expression));
    }
    match &part.would_pass {
        Some(wanted) if value.is_none() || value_of(wanted)?.0 != Some(false) => Err(format!("{text}\nover {args}: {wanted} would pass")),
        _ => Ok(true),
    }
}

#[test]
fn what_is_shown_of_a_rule_is_the_part_that_decided() {
    let mut runner = TestRunner::new(Config { cases: 1000, failure_persistence: None, ..Config::default() });
    let seen = std::cell::Cell::new(0_u32);
    let result = runner.run(&(text("bool", 3), arguments()), |(text, args)| match compare_shown(&text, &args) {
        Ok(known) => {
            seen.set(seen.get() + u32::from(known));
            Ok(())
        }
        Err(difference) => Err(TestCaseError::fail(difference)),
    });
    result.unwrap_or_else(|e| panic!("{e}"));
    assert!(seen.get() > 500, "only {} expressions passed the checker", seen.get());
}

//! Fuzz target: expressions. Whatever the text, the checker does not panic; what it accepts has no name that is not known, is compiled, never panics when it
//! runs, and comes to what the evaluator `cel`, the foresight and the estimate of steps say. An input is an expression, `---` in a line, and arguments as JSON.

use std::{collections::BTreeSet, sync::LazyLock, time::Duration};

use cel::{ExecutionError, Value};
use jsonschema::Validator;
use polity_fuzz::{Seen, Target, Verdict};
use serde_json::{Value as Json, json};

use super::{
    check::check,
    code::{Fail, Machine, Unsupported, val::Val},
    cost,
    differential::{departs, same},
    eval_tests::{SCHEMA, TYPED, session},
    foresee::{Closed, May, foresee},
    meter::Limits,
    program,
    ty::Ty,
};
use crate::compile_schema;

const SEEDS: &[&str] = &[
    "args.i <= 500 && args.s.endsWith('b')\n---\n{\"i\": 5, \"s\": \"aab\"}",
    "args.list.all(x, x > 0) || args.objects.exists(o, has(o.s) && o.k == 1)\n---\n{\"list\": [1, 2], \"objects\": [{\"k\": 1, \"s\": \"x\"}, {\"k\": 2}]}",
    "quantity(args.s).isLessThan(quantity('8Gi')) ? cidr('10.0.0.0/8').containsIP('10.1.1.1') : isURL(args.s)\n---\n{\"s\": \"500m\"}",
    "args.texts.map(t, t.trim()).filter(t, t.matches('^a+')).size() == 1\n---\n{\"texts\": [\" aa\", \"b\"]}",
    "sets.contains(args.list, [1]) && args.list.sum() < 10 && args.s.split('a').join('-').find('[ab]') == ''\n---\n{\"list\": [1, 2], \"s\": \"aab\"}",
    "now.getHours('Europe/Berlin') >= 8 && timestamp('2020-01-01T00:00:00Z') < now && args.?free.x.orValue(1) == 1\n---\n{\"free\": {\"x\": [1, null]}}",
    "args.d * 2.0 > 1.5 || usd('12.50') > args.j || args.map['a'] in [1, 2]\n---\n{\"d\": 2.5, \"j\": 7, \"map\": {\"a\": 1}}",
    "url('https://h:80/p?q=' + args.s).getQuery()['q'] == [args.s] && {'a': 1, 'b': args.i}[args.s] == args.i\n---\n{\"s\": \"b\", \"i\": 1}",
];

const WORDS: &[&str] = &[
    " && args.b",
    " || args.b",
    " || args.i < 5",
    " && args.s != 'a'",
    " == args.i || true",
    " ? args.b : true",
    " == args.s && args.b",
    " + args.i > 1",
    " - 1 < args.j",
    "(args.i > 1)",
    "(args.b ? 1 : 2)",
    "(args.i / args.j)",
    "size(args.list)",
    "args.list[args.i]",
    "args.texts[0]",
    "args.map[args.s]",
    "args.?s.orValue('b')",
    "string(args.i)",
    "quantity(args.s)",
    "(args.s + 'b')",
    "args.texts.join(args.s)",
    "args.list.map(x, x + 1)",
    "args.list.filter(x, x > args.i)",
    "args",
    "args.i",
    "args.j",
    "args.d",
    "args.s",
    "args.b",
    "args.n",
    "args.list",
    "args.texts",
    "args.objects",
    "args.map",
    "args.free",
    "args.free.x",
    "args.objects[0].k",
    "roles",
    "now",
    "agent.type",
    "tool.risk",
    "org.path",
    "caller",
    "true",
    "false",
    "null",
    "1",
    "2.5",
    "'a'",
    "''",
    "'aab'",
    "'10.0.0.1'",
    "'::1'",
    "'1500m'",
    "'https://u@h:80/p?q=1'",
    "[1, 2]",
    "[]",
    "['a']",
    "{'a': 1}",
    "(",
    ")",
    "[",
    "]",
    ",",
    " && ",
    " || ",
    "!",
    " == ",
    " != ",
    " < ",
    " >= ",
    " + ",
    " - ",
    " * ",
    " / ",
    " % ",
    " in ",
    " ? ",
    " : ",
    ".?x",
    "[?0]",
    ".x",
    ".orValue(1)",
    ".hasValue()",
    ".value()",
    "has(args.s)",
    "size(",
    ".size()",
    "int(",
    "double(",
    "string(",
    "bool(",
    "timestamp(",
    "duration('1h')",
    "usd('1.5')",
    "x",
    "o",
    ".all(x, ",
    ".exists(x, ",
    ".exists_one(x, ",
    ".map(x, ",
    ".filter(x, ",
    ".matches('^a')",
    ".contains('a')",
    ".startsWith(",
    ".endsWith(",
    ".find('a+')",
    ".findAll('a', 1)",
    ".charAt(0)",
    ".indexOf('a')",
    ".lastIndexOf(1)",
    ".lowerAscii()",
    ".upperAscii()",
    ".replace('a', 'b')",
    ".split('a')",
    ".join('-')",
    ".substring(1)",
    ".trim()",
    ".isSorted()",
    ".sum()",
    ".min()",
    ".max()",
    "sets.contains(",
    "sets.equivalent(",
    "sets.intersects(",
    "quantity(",
    "isQuantity(",
    ".add(1)",
    ".sub(quantity('1'))",
    ".sign()",
    ".asInteger()",
    ".asApproximateFloat()",
    "strings.quote(",
    ".isLessThan(",
    "ip(",
    "isIP(",
    "ip.isCanonical(",
    ".family()",
    ".isLoopback()",
    "cidr('10.0.0.0/8')",
    ".containsIP(",
    ".containsCIDR(",
    ".masked()",
    ".ip()",
    "url(",
    ".getHost()",
    ".getQuery()",
    ".getHours('Europe/Berlin')",
    ".getDate()",
    ".getMilliseconds()",
    "\n---\n",
    "{\"i\": 1}",
    "\"list\": [1]",
    "\"s\": \"a\"",
    "\"free\": {\"x\": [1]}",
];

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| compile_schema(&SCHEMA).unwrap());

/// Arguments that any expression finds something in.
static USUAL: LazyLock<Json> = LazyLock::new(|| {
    json!({"i": 1, "j": -7, "d": 0.5, "s": "aab", "b": true, "n": null, "list": [1, 2], "texts": ["a", ""], "objects": [{"k": 1, "s": "p"}, {"k": 2}],
        "map": {"a": 1}, "free": {"x": [1, "a", {"y": null}]}})
});

#[test]
fn expressions() {
    Target {
        package: "polity-policy",
        test: "cel::fuzz::expressions",
        corpus: concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/expressions"),
        seeds: SEEDS,
        words: WORDS,
    }
    .run(|input, seen| match std::str::from_utf8(input) {
        Ok(input) => expression(input, seen).unwrap_or_else(Verdict::Wrong),
        Err(_) => Verdict::Unused,
    });
}

/// What a message is about, without names and numbers.
fn gist(message: &str) -> String {
    let mut quoted = false;
    let words = message.chars().filter(|c| {
        quoted ^= matches!(c, '`' | '"');
        !quoted && !c.is_ascii_digit()
    });
    words.take(40).collect()
}

/// Nodes of a tree with what holds them, as far as their names tell.
fn shape(debug: &str, seen: &mut Seen) {
    let names =
        debug.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| w.starts_with(|c: char| c.is_ascii_uppercase()) && w.len() < 24);
    let names: Vec<&str> = names.take(200).collect();
    names.windows(2).for_each(|pair| seen.note(&pair));
}

fn expression(input: &str, seen: &mut Seen) -> Result<Verdict, String> {
    let (text, args) = input.split_once("\n---\n").unwrap_or((input, ""));
    let parsed = match program::parse(text) {
        Ok(parsed) => parsed,
        Err(fault) => {
            seen.note(&gist(&fault.message));
            return Ok(Verdict::Unused);
        }
    };
    let mut accepted = true;
    for ty in [&Ty::Dyn, &*TYPED] {
        for fault in check(&parsed, ty) {
            if fault.message.contains("cannot be checked") {
                return Err("the checker panicked".to_owned());
            }
            if fault.line == 0 || fault.column == 0 {
                return Err(format!("a fault without its place: {}", fault.message));
            }
            seen.note(&gist(&fault.message));
            // what it is must not matter: the value of any expression is compared
            accepted &= fault.message.contains("a rule states what must hold");
        }
    }
    if !accepted {
        return Ok(Verdict::Unused);
    }
    let program = program::finish(parsed).map_err(|e| format!("it was accepted and is no program: {e}"))?;
    let given: Option<Json> = serde_json::from_str(args).ok().filter(|args| VALIDATOR.is_valid(args));
    let args = given.as_ref().unwrap_or(&USUAL);
    let limits = Limits { steps: 20_000, time: Duration::from_secs(20) };
    let (compiled_session, cel_session) = (session(args, limits), session(args, limits));
    cel_session.meter().use_patterns(&program.patterns);
    let context = cel_session.context()?;
    let oracle = Value::resolve(&program.expr, &context);
    if let Err(ExecutionError::UndeclaredReference(name)) = &oracle {
        return Err(format!("it was accepted, and has the name {name:?}, which is none"));
    }
    let code = match &program.code {
        Ok(code) => code,
        // a variable that is none of args, roles, now cannot be read as a whole
        Err(Unsupported("a variable as a whole")) => return Ok(Verdict::Used),
        Err(why) => return Err(format!("it was accepted and is not compiled: {why:?}")),
    };
    shape(&format!("{code:?}"), seen);
    let compiled = Machine::new(&compiled_session.slots, compiled_session.meter()).run(code);
    seen.note(&match &compiled {
        Ok(value) => format!("{:?}", std::mem::discriminant(value)),
        Err(e) => gist(&e.to_string()),
    });
    if compiled_session.meter().spent() || cel_session.meter().spent() {
        return Ok(Verdict::Used);
    }
    let equal = match (&compiled, &oracle) {
        (Ok(a), Ok(b)) => same(a, b),
        (Err(_), Err(_)) => true,
        _ => compiled.is_err() && departs(&program, args),
    };
    if !equal {
        return Err(format!("over {args}\ncompiled {compiled:?}\ncel      {oracle:?}"));
    }
    let took = program.cost + compiled_session.steps();
    if compiled.is_ok() && cost::least(&program) > took {
        return Err(format!("it takes at least {} steps, and took {took}", cost::least(&program)));
    }
    let came_to = match &compiled {
        Ok(Val::Bool(true)) => May::TRUE,
        Ok(Val::Bool(false)) => May::FALSE,
        Err(Fail::Spent) => return Ok(Verdict::Used),
        _ => May::ERROR,
    };
    let may = foresee(&Closed::new(), &program, SCHEMA.as_object(), &mut BTreeSet::new());
    if !may.has(came_to) {
        return Err(format!("over {args} it came to {came_to:?}, and was foreseen to be {may:?}"));
    }
    Ok(Verdict::Used)
}

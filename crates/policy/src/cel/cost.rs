//! Steps of a rule before any call is made: an estimate of the most, and what it takes at least. The same units as the budget of a decision: a step for each
//! part of the expression, those of its body for each element of a loop, and one for 16 bytes that a pattern reads. The budget itself is kept by `meter`.

use cel::{
    IdedExpr,
    common::ast::{CallExpr, ComprehensionExpr, Expr, LiteralValue, operators},
};
use serde_json::{Map, Value as Json};

use super::{
    bounds,
    foresee::path,
    lib::{BYTES, Fun},
    program::{CALL, MATCH, Program, TICK, children},
};

/// Elements of a list or map for which nothing says how many it has at most.
pub const ASSUMED_ITEMS: u64 = 100;
/// Bytes of a text for which nothing says how long it is at most.
pub const ASSUMED_BYTES: u64 = 1024;
/// Bytes of one character at most.
const CHARACTER: u64 = 4;

/// An estimate of the most steps of one evaluation: with what the schema of a Tool allows at most, or the assumptions above.
#[must_use]
pub fn most(program: &Program, schema: Option<&Map<String, Json>>) -> u64 {
    let schema = schema.filter(|s| bounds::known(s));
    program.cost.saturating_add(most_of(&program.expr, schema))
}

/// Steps that each evaluation takes, whatever its input, unless it ends as an error.
#[must_use]
pub fn least(program: &Program) -> u64 {
    program.cost.saturating_add(least_of(&program.expr))
}

fn most_of(expr: &IdedExpr, schema: Option<&Map<String, Json>>) -> u64 {
    let of = |e| most_of(e, schema);
    match &expr.expr {
        Expr::Comprehension(c) => {
            let each = tick(c).saturating_add(of(&c.loop_cond)).saturating_add(of(&c.loop_step));
            let loops = items(&c.iter_range, schema).saturating_mul(each);
            [of(&c.iter_range), of(&c.accu_init), loops, of(&c.result)].into_iter().fold(0, u64::saturating_add)
        }
        Expr::Call(call) if call.func_name == MATCH => {
            let text = call.args.first();
            let bytes = text.map_or(0, |text| bytes(text, schema));
            text.map_or(0, of).saturating_add(1 + bytes / 16)
        }
        Expr::Call(call) if call.func_name == CALL => {
            let args = call.args.get(2..).unwrap_or_default();
            args.iter().map(of).fold(library(call, args, schema), u64::saturating_add)
        }
        _ => children(expr).into_iter().map(of).fold(0, u64::saturating_add),
    }
}

fn least_of(expr: &IdedExpr) -> u64 {
    match &expr.expr {
        Expr::Comprehension(c) => {
            let there = match &c.iter_range.expr {
                Expr::List(list) if list.optional_indices.is_empty() => list.elements.len() as u64,
                _ => 0,
            };
            let runs = if to_the_end(c) { there } else { there.min(1) };
            let loops = runs.saturating_mul(tick(c).saturating_add(least_of(&c.loop_step)));
            least_of(&c.iter_range).saturating_add(loops)
        }
        Expr::Call(call) => match (call.func_name.as_str(), call.args.as_slice()) {
            // the other side may not be looked at
            (operators::LOGICAL_AND | operators::LOGICAL_OR, [a, _]) => least_of(a),
            (operators::CONDITIONAL, [cond, a, _]) if charge(cond).is_some() => least_of(a),
            (operators::CONDITIONAL, [cond, a, b]) => least_of(cond).saturating_add(least_of(a).min(least_of(b))),
            (MATCH, [text, _]) => least_of(text).saturating_add(1),
            (CALL, [_, _, args @ ..]) => args.iter().map(least_of).fold(0, u64::saturating_add),
            // optional syntax may skip what is an alternative
            _ if call.func_name.starts_with("or") => call.target.as_deref().map_or(0, least_of),
            _ => children(expr).into_iter().map(least_of).fold(0, u64::saturating_add),
        },
        _ => children(expr).into_iter().map(least_of).fold(0, u64::saturating_add),
    }
}

/// Steps that a counter charges; None: it is none.
fn charge(expr: &IdedExpr) -> Option<u64> {
    match &expr.expr {
        Expr::Call(call) if call.func_name == TICK => match call.args.first().map(|a| &a.expr) {
            Some(Expr::Literal(LiteralValue::Int(steps))) => Some(steps.inner().unsigned_abs()),
            _ => None,
        },
        _ => None,
    }
}

/// The condition of `a ? b : c`.
fn condition(expr: &IdedExpr) -> Option<&IdedExpr> {
    match &expr.expr {
        Expr::Call(call) if call.func_name == operators::CONDITIONAL => call.args.first(),
        _ => None,
    }
}

/// Steps that a loop charges for each element, wherever its counter was put.
fn tick(c: &ComprehensionExpr) -> u64 {
    let first = |e| condition(e).and_then(charge);
    first(&c.loop_cond).or_else(|| first(&c.loop_step)).or_else(|| first(condition(&c.loop_step)?)).unwrap_or_default()
}

/// Whether a loop looks at each element: its condition is a constant, beside the counter.
fn to_the_end(c: &ComprehensionExpr) -> bool {
    let literal = |e: &IdedExpr| matches!(e.expr, Expr::Literal(LiteralValue::Boolean(_)));
    match &c.loop_cond.expr {
        Expr::Call(call) if call.func_name == operators::CONDITIONAL => call.args.get(1).is_some_and(literal),
        _ => literal(&c.loop_cond),
    }
}

/// Most elements of what a loop runs over.
fn items(expr: &IdedExpr, schema: Option<&Map<String, Json>>) -> u64 {
    match &expr.expr {
        Expr::List(list) => list.elements.len() as u64,
        Expr::Map(map) => map.entries.len() as u64,
        Expr::Comprehension(c) if matches!(c.accu_init.expr, Expr::List(_)) => items(&c.iter_range, schema),
        Expr::Call(call) if call.func_name == CALL && matches!(function(call), Some(Fun::Split | Fun::FindAll)) => {
            call.args.get(2).map_or(0, |text| bytes(text, schema)).saturating_add(1)
        }
        _ => {
            let node = schema.and_then(|s| bounds::node(s, &path(expr)?));
            let key = match node.and_then(|n| n.get("type")).and_then(Json::as_str) {
                Some("array") => "maxItems",
                Some("object") => "maxProperties",
                _ => return ASSUMED_ITEMS,
            };
            node.and_then(|n| n.get(key)).and_then(Json::as_u64).unwrap_or(ASSUMED_ITEMS)
        }
    }
}

/// Most steps that a function of the libraries charges beside its arguments.
fn library(call: &CallExpr, args: &[IdedExpr], schema: Option<&Map<String, Json>>) -> u64 {
    let Some(fun) = function(call) else { return 0 };
    let texts = || args.iter().map(|arg| bytes(arg, schema)).fold(0, u64::saturating_add);
    let list = |at: usize| args.get(at).map_or(0, |arg| weight(arg, schema));
    let text = |at: usize| args.get(at).map_or(0, |arg| bytes(arg, schema));
    match fun {
        Fun::Contains | Fun::Equivalent | Fun::Intersects => {
            let len = |at: usize| args.get(at).map_or(0, |arg| items(arg, schema));
            let pairs = list(0).saturating_mul(len(1)).saturating_add(list(1).saturating_mul(len(0)));
            list(0).saturating_add(list(1)).saturating_add(pairs)
        }
        Fun::IsSorted | Fun::Sum | Fun::Min | Fun::Max => list(0),
        Fun::Join => list(0)
            .saturating_mul(2)
            .saturating_add(1)
            .saturating_add(text(1).saturating_mul(args.first().map_or(0, |a| items(a, schema))) / BYTES),
        Fun::Quote => 2 + texts() / BYTES + text(0).saturating_mul(2) / BYTES,
        Fun::Split | Fun::FindAll | Fun::GetQuery => 1 + texts() / BYTES + 4 * (1 + text(0)),
        Fun::Replace => 2 + texts() / BYTES + text(0).saturating_mul(1 + text(2)) / BYTES,
        // a list or a text
        Fun::IndexOf | Fun::LastIndexOf => list(0).max(1 + texts() / BYTES),
        _ if fun.free() => 0,
        _ => 1 + texts() / BYTES,
    }
}

/// The function of the libraries that a call is.
fn function(call: &CallExpr) -> Option<Fun> {
    match call.args.first().map(|a| &a.expr) {
        Some(Expr::Literal(LiteralValue::Int(number))) => Fun::numbered(*number.inner()),
        _ => None,
    }
}

/// Most steps to read all of a list.
fn weight(expr: &IdedExpr, schema: Option<&Map<String, Json>>) -> u64 {
    let element = match &expr.expr {
        Expr::List(list) => list.elements.iter().map(|e| bytes(e, schema)).max().unwrap_or_default(),
        _ => {
            let node = schema.and_then(|s| bounds::node(s, &path(expr)?)).and_then(|n| n.get("items")).and_then(Json::as_object);
            match node {
                Some(node) if matches!(node.get("type").and_then(Json::as_str), Some("integer" | "number" | "boolean")) => 0,
                Some(node) => length(node),
                None => ASSUMED_BYTES,
            }
        }
    };
    1 + items(expr, schema).saturating_mul(1 + element / BYTES)
}

/// Most bytes of a text.
fn bytes(expr: &IdedExpr, schema: Option<&Map<String, Json>>) -> u64 {
    if let Expr::Literal(LiteralValue::String(text)) = &expr.expr {
        return text.inner().len() as u64;
    }
    if matches!(expr.expr, Expr::Literal(_)) {
        return 0;
    }
    if let Expr::Call(call) = &expr.expr
        && call.func_name == CALL
        && let (Some(fun), Some(of)) = (function(call), call.args.get(2))
    {
        return match fun {
            // a part of a text, or as long
            Fun::CharAt | Fun::Substring | Fun::Trim | Fun::LowerAscii | Fun::UpperAscii | Fun::Find => bytes(of, schema),
            Fun::Url | Fun::GetScheme | Fun::GetHost | Fun::GetHostname | Fun::GetPort => bytes(of, schema),
            Fun::Quote => 2 + bytes(of, schema).saturating_mul(2),
            Fun::GetEscapedPath => bytes(of, schema).saturating_mul(3),
            Fun::Replace => {
                let new = call.args.get(4).map_or(0, |new| bytes(new, schema));
                bytes(of, schema).saturating_mul(1 + new)
            }
            _ => ASSUMED_BYTES,
        };
    }
    schema.and_then(|s| bounds::node(s, &path(expr)?)).map_or(ASSUMED_BYTES, length)
}

/// Most bytes of a text by its schema; of a number or bool none.
fn length(node: &Map<String, Json>) -> u64 {
    match node.get("type").and_then(Json::as_str) {
        Some("string") => node.get("maxLength").and_then(Json::as_u64).map_or(ASSUMED_BYTES, |n| n.saturating_mul(CHARACTER)),
        Some("integer" | "number" | "boolean") => 0,
        _ => ASSUMED_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::cel::{
        check::check,
        eval::Outcome,
        eval_tests::{TYPED, session},
        meter::{Limits, MAX_STEPS},
        program,
    };

    fn program_of(text: &str) -> Program {
        let parsed = program::parse(text).unwrap_or_else(|f| panic!("{text}: {f:?}"));
        assert_eq!(check(&parsed, &TYPED), vec![], "{text}");
        program::finish(parsed).unwrap()
    }

    #[test]
    fn an_evaluation_takes_what_was_said() {
        let schema = json!({"properties": {
            "list": {"type": "array", "maxItems": 4}, "objects": {"type": "array", "maxItems": 2}, "map": {"type": "object", "maxProperties": 1},
            "s": {"type": "string", "maxLength": 8}}});
        let args = json!({"i": 3, "list": [1, 2, 3, 4], "objects": [{"k": 1}, {"k": 2}], "map": {"a": 1}, "s": "éééé€€€€", "texts": []});
        for (text, exact) in [
            ("args.i < 5 && agent.name == 'x'", false),
            ("args.i < 5", true),
            ("args.list.all(x, x > 0)", true),
            ("args.list.exists(x, x > 2)", false),
            ("args.list.map(x, x + 1).size() == 4", true),
            ("args.list.filter(x, x > 1).all(y, y > 1)", false),
            ("args.list.exists_one(x, args.objects.all(o, o.k < 5))", true),
            ("args.map.all(k, k != '')", true),
            ("args.s.matches('^a')", false),
            ("[1, 2, 3].exists_one(a, [4, 5].exists_one(b, a * b == 4))", true),
            ("args.list.sum() > 5 && args.list.isSorted() && args.list.indexOf(9) == -1", false),
            ("args.list.max() == 4", false),
            ("sets.contains(args.list, [1, 2])", false),
            ("!sets.intersects(args.list, args.objects.map(o, o.k + 9))", false),
            ("args.s.replace('é', 'ee').split('').size() > 3 && args.s.findAll('é').size() > 1", false),
            ("args.s.lowerAscii().upperAscii().indexOf('€') > 0 && args.s.split('a').join('bc') != ''", false),
            ("!isIP(args.s) && cidr('10.0.0.0/8').containsIP('10.0.0.1') && quantity('1').add(1).sign() == 1", false),
            ("url('/a?b=c&d=e').getQuery().size() == 2 && url('https://' + args.s).getEscapedPath() == ''", false),
            ("args.s.split('').all(c, c != '') && args.s.substring(1).trim().charAt(0) != ''", false),
            ("args.i > 5 ? [1, 2].map(x, x).size() == 2 : args.list.all(x, true)", false),
        ] {
            let program = program_of(text);
            let mut session = session(&args, Limits { steps: MAX_STEPS, time: Duration::from_secs(20) });
            session.slots.set_args(&args, &TYPED);
            assert!(!matches!(session.eval(&program), Outcome::Spent | Outcome::Panicked), "{text}");
            let (least, took, most) = (least(&program), session.steps(), most(&program, schema.as_object()));
            assert!(least <= took && took <= most, "{text}: {least} {took} {most}");
            assert!(!exact || took == most, "{text}: {took} {most}");
        }
    }

    #[test]
    fn what_is_not_bounded_is_assumed() {
        let steps = |text: &str| most(&program_of(text), None) - program_of(text).cost;
        assert_eq!(steps("args.list.all(x, x > 0)") % ASSUMED_ITEMS, 0);
        assert_eq!(steps("args.s.matches('^a')"), 1 + ASSUMED_BYTES / 16);
        let one = steps("args.list.all(x, x > 0)");
        assert!(steps("args.list.all(x, args.list.all(y, y > x))") > ASSUMED_ITEMS * one);
        let literal = program_of("[1, 2, 3].exists_one(a, [4, 5].exists_one(b, a * b == 4))");
        assert_eq!(least(&literal), most(&literal, None));
    }
}

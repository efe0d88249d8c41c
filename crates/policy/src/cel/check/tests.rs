//! Typing of every operator and function, and what is said about slips.

use serde_json::json;

use super::check;
use crate::cel::{program, schema, ty::Ty};

fn args() -> Ty {
    let schema = json!({
        "type": "object",
        "required": ["amount", "currency"],
        "properties": {
            "amount": {"type": "integer"},
            "rate": {"type": "number"},
            "currency": {"enum": ["EUR", "USD"]},
            "to": {"type": "string"},
            "urgent": {"type": "boolean"},
            "note": {"type": ["string", "null"]},
            "items": {"type": "array", "items": {"type": "object", "properties": {"sku": {"type": "string"}, "n": {"type": "integer"}, "tags": {"type": "array", "items": {"type": "string"}}}}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "free": {},
            "address": {"$ref": "#/$defs/address"},
        },
        "$defs": {"address": {"type": "object", "properties": {"city": {"type": "string"}}}},
    });
    schema::guard(&schema).unwrap();
    schema::args(&schema, "payments")
}

fn faults(text: &str) -> Vec<String> {
    match program::parse(text) {
        Ok(parsed) => check(&parsed, &args()).into_iter().map(|f| format!("{}:{} {}", f.line, f.column, f.message)).collect(),
        Err(f) => vec![format!("{}:{} {}", f.line, f.column, f.message)],
    }
}

#[test]
fn accepts() {
    for text in [
        "args.amount <= 500",
        "args.amount <= 500.5",
        "args.rate <= 2",
        "args.rate * 2.0 < 5.0",
        "args.amount + 1 == 2 && args.amount - 1 < 2 && args.amount * 2 > 1 && args.amount / 2 >= 1 && args.amount % 2 != 1",
        "-args.amount < 0",
        "!args.urgent || args.amount < 5",
        "args.currency == 'EUR' ? args.amount < 5 : true",
        "args.currency in ['EUR', 'USD']",
        "'finance' in roles && !('intern' in roles)",
        "args.to.endsWith('@acme.example') && args.to.matches('^[a-z]+@') && args.to.contains('a') && args.to.startsWith('b') && args.to.size() < 5",
        "size(args.items) < 5 && size(args.to) < 5 && size(args.labels) < 5",
        "args.items.all(i, i.n < 5) && args.items.exists(i, i.sku == 'x') && args.items.exists_one(i, i.n == 1)",
        "args.items.map(i, i.n).all(n, n < 5) && size(args.items.filter(i, i.n > 1)) < 3 && size(args.items.map(i, i.n > 1, i.sku)) < 3",
        "args.items.all(i, i.tags.all(t, t != 'x'))",
        "!has(args.note) || args.note == null || args.note.size() < 10",
        "args.?to.orValue('') == '' && args.?address.city.hasValue() && args[?'to'].hasValue()",
        "args['amount'] < 5 && args.labels['x'] == 'y' && args.labels.x == 'y' && 'x' in args.labels",
        "args.labels.all(k, args.labels[k] != '')",
        "args.free.anything.goes == 1 && args.free[0] < 5 && args.free.x + 1 > 2",
        "args.amount * 1000000 <= usd('12.50') && tool.priceUSD < usd('1')",
        "now < timestamp('2030-01-01T00:00:00Z') && now - timestamp('2020-01-01T00:00:00Z') > duration('1h') && now.getHours('Europe/Berlin') >= 8",
        "int(args.rate) < 5 && double(args.amount) < 5.0 && string(args.amount) == '5' && int('5') == 5 && bool('true')",
        "org.name == 'acme' && 'acme' in org.path && org.namespace == 'acme' && agent.type == 'AI' && 'g' in caller.groups",
        "has(task.jobSpace) && task.jobSpace == 'x' && request.verb == 'tool.call' && 'money' in tool.risk && !tool.idempotent",
        "{'EUR': 5, 'USD': 6}[args.currency] >= args.amount",
        "args.to + 'x' == 'yx' && [1] + [2] == [1, 2]",
        "args.address.city == 'Bern'",
    ] {
        assert_eq!(faults(text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn refuses_with_place_and_what_was_meant() {
    for (text, want) in [
        (
            "args.amuont <= 500",
            "1:6 no field `amuont` in args of Tool payments; did you mean `amount`? There are: address, amount, currency,",
        ),
        ("!has(args.amuont) || args.amount <= 5", "1:11 no field `amuont`"),
        ("args.?amuont.orValue(0) < 5", "1:7 no field `amuont`"),
        ("args['amuont'] < 5", "1:6 no field `amuont`"),
        ("args[?'amuont'].hasValue()", "1:7 no field `amuont`"),
        ("'amuont' in args", "1:1 no field `amuont`"),
        ("args.amount <\n  500 && args.curency == 'EUR'", "2:15 no field `curency`"),
        ("'é€' == 'x' || args.amuont <= 500", "1:21 no field `amuont`"),
        ("has(args.address.citty)", "1:18 no field `citty` in address in args of Tool payments; did you mean `city`?"),
        ("args.items.all(i, i.skuu == 'x')", "1:21 no field `skuu` in items of items in args"),
        ("args.items.exists(i, j.sku == 'x')", "1:22 no variable `j`; did you mean `i`?"),
        ("arg.amount < 5", "1:1 no variable `arg`; did you mean `args`?"),
        ("agnt.name == 'x'", "1:1 no variable `agnt`; did you mean `agent`?"),
        ("agent.tpye == 'AI'", "1:7 no field `tpye` in agent; did you mean `type`? There are: name, namespace, type"),
        ("agent.type == 'Humann'", "1:15 `Humann` is not one of the values; did you mean `Human`?"),
        ("args.currency == 'EURO'", "1:18 `EURO` is not one of the values; did you mean `EUR`?"),
        ("args.currency in ['EUR', 'USF']", "1:26 `USF` is not one of"),
        ("args.to.endswith('x')", "1:9 a string has no function `endswith`; did you mean `endsWith`?"),
        ("siez(args.to) < 5", "1:1 no function `siez`; did you mean `size`?"),
        ("matches(args.to, 'x')", "1:1 no function `matches`; it is called on a value"),
        ("args.to < 5", "1:9 < does not compare a string with an int"),
        ("args.amount + 1.5 < 2.0", "1:13 + does not go with an int and a double; convert one"),
        ("args.amount == 'x'", "1:13 an int never equals a string"),
        ("args.amount == null", "never equals a null; it is never null"),
        ("args.amount in ['x']", "1:13 an int is never in a list of string"),
        ("args.amount in 5", "in does not look for"),
        ("'x' in args.to", "1:5 in does not look for a part of a text; write text.contains(part)"),
        ("args.amount <= '5'", "write numbers without quotes"),
        ("len(args.to) < 5", "1:1 no function `len`; in CEL this is size(x)"),
        ("args.to.toLowerCase() == 'x'", "a string has no function `toLowerCase`; in CEL this is x.lowerAscii()"),
        ("args.items.any(true)", "in CEL this is list.exists(x, condition)"),
        ("args.amount", "1:1 the expression is an int; a rule states what must hold"),
        ("args.amount && true", "each side of && must be a bool, this is an int"),
        ("!args.amount", "what ! negates must be a bool"),
        ("-args.to == 'x'", "- negates numbers"),
        ("args.urgent ? 1 : 'x'", "both branches"),
        ("args.amount ? true : false", "the condition before ? must be a bool"),
        ("args.amount.x == 1", "an int has no fields"),
        ("args.items.sku == 'x'", "a list(items of items in args of Tool payments) has no fields"),
        ("args.items['x'].n == 1", "is not read by a string"),
        ("args[args.to] == 'x'", "read by literal names only"),
        ("[1, 'x'] == [1]", "elements of one type"),
        ("args.amount == 5u", "unsigned"),
        ("args.to == b'x'", "bytes"),
        ("Foo{a: 1} == 1", "messages cannot be built"),
        ("args.to.matches('(')", "1:17 not a regular expression"),
        ("args.to.matches('((a{100}){100}){100}')", "too large"),
        ("args.to.matches(args.currency)", "must be a constant"),
        ("optional.of(1).hasValue()", "no variable `optional`"),
        ("usd('1.2.3') < 5", "usd() cannot convert this constant"),
        ("timestamp('yesterday') < now", "timestamp() cannot convert this constant"),
        ("usd(5) < 1", "usd() does not take an int; it takes a decimal string, such as usd('12.50')"),
        ("size(5) < 1", "size() does not take an int"),
        ("size('a', 'b') < 1", "size() takes one argument, not 2"),
        ("args.items.all(i, i.n)", "the loop's condition must be a bool"),
        ("args.amount.all(i, i < 5)", "not a list or map"),
        ("args.items.all(args, true)", "hides the variable `args`"),
        ("args.items.all(a, args.items.all(b, args.items.all(c, args.items.all(d, true))))", "nested deeper than 3"),
        ("args.items.map(i, [i, i]).size() < 5", "not build larger values"),
        ("args.items.map(i, i.sku + i.sku).size() < 5", "not build larger values"),
        ("args.items.map(i, args.items).size() < 5", "not build larger values"),
        ("args.items.map(i, i.tags.map(t, t)).size() < 5", "not build larger values"),
        ("args.free.map(i, i.a + i.b).size() < 5", "not build larger values"),
        ("args.amount <= ", "not a CEL expression"),
        ("has(args)", "not a CEL expression: invalid argument to has()"),
        ("", "not a CEL expression"),
    ] {
        let got = faults(text);
        assert!(got.iter().any(|m| m.contains(want)), "{text}\n want {want}\n got {got:?}");
        assert_eq!(got.len(), 1, "{text}: {got:?}");
    }
}

#[test]
fn caps_hold_before_the_parser() {
    for (text, want) in [
        (format!("'{}' == ''", "x".repeat(5000)), "bytes"),
        (format!("{}1{} == 1", "(".repeat(200), ")".repeat(200)), "brackets"),
        (format!("{}true", "!".repeat(2000)), "operators"),
        (format!("1{} == 1", "+1".repeat(1000)), "operators"),
        (format!("1{} == 1", "+1".repeat(300)), "nested deeper"),
        (format!("args{} == 1", ".a".repeat(300)), "nested deeper"),
        (format!("1{}", " in a".repeat(800)), "operators"),
        (format!("1{}", " in a".repeat(390)), "nested deeper"),
        (format!("{}1", "true?1:".repeat(390)), "not a CEL"),
        (format!("{}1{} == 1", "[".repeat(23), "]".repeat(23)), "never equals"),
        (format!("[{}] == []", vec!["args"; 30].join(",")), "are joined or put into"),
        (format!("{} == ''", vec!["args.to"; 20].join("+")), "are joined or put into"),
    ] {
        let got = faults(&text);
        assert!(got.iter().any(|m| m.contains(want)), "{text:.60}: {got:?}");
    }
}

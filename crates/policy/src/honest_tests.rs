//! Which rules are warned of, and which are not.

#![expect(clippy::needless_pass_by_value, reason = "JSON is written in place")]

use polity_api::Org;
use serde_json::{Value, json};

use crate::{ToolFacts, check_policy, tool};

fn tool(name: &str, amount: Value) -> ToolFacts {
    let schema = json!({"type": "object", "required": ["amount"], "properties": {"amount": amount, "note": {"type": "string"}}});
    let object = json!({"metadata": {"name": name, "namespace": "a"}, "apiVersion": "polity.dev/v1alpha1", "kind": "Tool",
        "spec": {"runtime": {}, "inputSchema": schema}});
    tool::facts(&Org::default(), &serde_json::from_value(object).unwrap())
}

fn pay() -> ToolFacts {
    tool("pay", json!({"type": "integer", "minimum": 1, "maximum": 500}))
}

fn warnings(rules: &[(&str, &str)], tools: &[ToolFacts]) -> Vec<String> {
    let rule = |(i, (effect, expression)): (usize, &(&str, &str))| {
        let mut rule = json!({"name": format!("r{i}"), "expression": expression, "effect": effect});
        match *effect {
            "RequireApproval" => rule["approval"] = json!({"group": "g"}),
            "Rewrite" => rule["rewrite"] = json!([{"path": "/amount", "max": 500}]),
            _ => {}
        }
        rule
    };
    let rules: Vec<Value> = rules.iter().enumerate().map(rule).collect();
    let check = check_policy(&serde_json::from_value(json!({"rules": rules})).unwrap(), tools.iter());
    assert_eq!((check.refuse(), check.not_typed.as_slice()), (None, &[][..]));
    check.warnings.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn says(rules: &[(&str, &str)], tools: &[ToolFacts], want: &[&str]) {
    let warnings = warnings(rules, tools);
    assert_eq!(warnings.len(), want.len(), "{warnings:?}");
    for (warning, want) in warnings.iter().zip(want) {
        assert!(warning.contains(want), "{warning}");
    }
}

#[test]
fn constants() {
    for expression in ["true", "1 < 2", "true || args.amount > 1"] {
        for effect in ["Deny", "RequireApproval", "Rewrite"] {
            says(&[(effect, expression)], &[pay()], &["rule r0: is true for every input, so that it can never have an effect"]);
        }
    }
    says(&[("Deny", "false && args.amount > 1")], &[pay()], &["rule r0: is false for every input, so that every call"]);
    says(&[("RequireApproval", "1 / 0 > 1")], &[], &["rule r0: cannot be computed for every input, so that every call"]);
    // asks people each time, or rewrites each time: that is how it is written
    says(&[("RequireApproval", "false"), ("Rewrite", "false")], &[pay()], &[]);
    says(&[("Deny", "agent.type == 'Human'"), ("Deny", "args.amount < 400")], &[pay()], &[]);
}

#[test]
fn bounds_of_schemas() {
    says(
        &[("Deny", "args.amount <= 500")],
        &[pay()],
        &["(args.amount is at least 1 and at most 500, args.amount is required of Tool pay)"],
    );
    says(&[("Deny", "args.amount > 500")], &[pay()], &["rule r0: is false by the schemas"]);
    let wider = tool("wire", json!({"type": "integer"}));
    says(&[("Deny", "args.amount <= 500")], &[pay(), wider], &[]);
    let all: Vec<ToolFacts> = (0..5).map(|n| tool(&format!("t{n}"), json!({"type": "integer", "maximum": n}))).collect();
    says(&[("RequireApproval", "args.amount < 5")], &all, &["args.amount is at most 0, args.amount is required of Tool t0"]);
    says(&[("RequireApproval", "args.amount < 5")], &all, &["and so for 2 more Tools"]);
    // it is applied before the schema is, and makes fit what does not
    says(&[("Rewrite", "args.amount <= 500")], &[pay()], &[]);
    // no Tool is known yet: nothing can be said
    says(&[("Deny", "args.amount <= 500")], &[], &[]);
}

#[test]
fn hidden_rules() {
    let same = "can never have an effect: rule r0 has the same expression and denies";
    says(&[("Deny", "args.amount < 5"), ("RequireApproval", "args.amount  <  5")], &[pay()], &[same]);
    says(&[("Deny", "agent.name == 'x'"), ("Deny", "agent.name == 'x'")], &[], &["rule r1: can never have an effect: rule r0"]);
    says(&[("RequireApproval", "args.amount < 5"), ("Deny", "args.amount < 5")], &[pay()], &["rule r0: can never have an effect: rule r1"]);
    says(
        &[("Deny", "args.amount < 90"), ("Deny", "args.amount <= 50")],
        &[pay()],
        &["rule r0: can never have an effect: rule r1 demands more"],
    );
    says(
        &[("RequireApproval", "args.amount > 5"), ("Deny", "5 < args.amount")],
        &[pay()],
        &["rule r0: can never have an effect: rule r1 demands the same"],
    );
    for rules in [
        [("RequireApproval", "args.amount < 5"), ("RequireApproval", "args.amount < 5")],
        [("Rewrite", "args.amount < 5"), ("Deny", "args.amount < 5")],
        [("Deny", "args.amount < 50"), ("RequireApproval", "args.amount <= 20")],
        [("Deny", "args.amount < 50"), ("Deny", "args.amount > 20")],
        [("Deny", "args.note.matches('a')"), ("Deny", "args.note.matches('b')")],
    ] {
        says(&rules, &[pay()], &[]);
    }
}

#[test]
fn they_are_in_the_condition_and_refuse_nothing() {
    let spec = serde_json::from_value(json!({"rules": [{"name": "a", "expression": "true", "effect": "Deny"}]})).unwrap();
    let summary = check_policy(&spec, std::iter::empty()).summary();
    assert!(summary.ready && summary.message.starts_with("1 rules in force; rule a: is true for every input"), "{}", summary.message);
}

#[test]
fn costs_follow_the_schemas_and_the_budget() {
    let listing = |name: &str, most: Value| {
        let mut list = json!({"type": "array", "items": {"type": "integer"}});
        if !most.is_null() {
            list["maxItems"] = most;
        }
        let object = json!({"metadata": {"name": name, "namespace": "a"}, "apiVersion": "polity.dev/v1alpha1", "kind": "Tool",
            "spec": {"runtime": {}, "inputSchema": {"type": "object", "properties": {"list": list}}}});
        tool::facts(&Org::default(), &serde_json::from_value(object).unwrap())
    };
    let check = |expression: &str, tools: &[ToolFacts]| {
        let rules = json!([{"name": "r", "expression": expression, "effect": "Deny"}]);
        check_policy(&serde_json::from_value(json!({"rules": rules})).unwrap(), tools.iter())
    };
    let all = "args.list.all(x, x > 0)";
    let cost = |tools: &[ToolFacts]| check(all, tools).cost.unwrap();
    let (small, large) = (cost(&[listing("s", json!(2))]), cost(&[listing("s", json!(2)), listing("l", json!(1000))]));
    assert!(small < large && cost(&[listing("u", json!(null))]) == cost(&[]) && small < cost(&[]) && cost(&[]) < large);
    // three loops in each other over a list of so many zeros
    let nested = |items: usize| {
        let list = vec!["0"; items].join(",");
        (0..3).fold("true".to_owned(), |body, d| format!("[{list}].exists_one(x{d}, {body})"))
    };
    let fits = check(&nested(10), &[]);
    assert!(fits.refuse().is_none() && fits.cost.is_some_and(|c| c < 1_000_000), "{fits:?}");
    let over = check(&nested(100), &[]);
    assert!(over.refuse().is_some_and(|e| e.contains("and a decision has 1000000")), "{over:?}");
    assert_eq!(over.cost, None);
    // it may never be looked at
    assert!(check(&format!("agent.name == 'x' || {}", nested(100)), &[]).refuse().is_none());
}

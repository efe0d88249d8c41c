//! Policies checked and tested from files, without a cluster.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)] // a helper that fails fails its test; `json!` values read best by value

mod common;

use std::path::Path;

use common::run;

fn file(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(name).to_str().unwrap().to_owned()
}

#[test]
fn tests_pass_and_fail() {
    let (org, tests, wrong) = (file("org.yaml"), file("tests.yaml"), file("bad/wrong.yaml"));
    run(&["policy", "test", "-f", &org, "-t", &tests]).ends(0).has(&[
        "PASS  small refunds run",
        "PASS  strangers do not",
        "5 tests, 0 failed",
    ]);
    let said = run(&["policy", "test", "-f", &org, "-t", &tests, &wrong]);
    said.ends(1).has(&["FAIL  this expectation is wrong", "expected Allow, got Deny", "PASS  this one is right", "7 tests, 1 failed"]);
    let json = run(&["policy", "test", "-f", &org, "-t", &wrong, "-o", "json"]).ends(1).json();
    assert_eq!((&json["passed"], &json["total"], &json["failed"]), (&false.into(), &2.into(), &1.into()));
    assert_eq!(json["tests"][0]["decision"]["rules"], serde_json::json!(["shop/refunds/most"]));
    assert_eq!(json["tests"][1]["passed"], true);
}

#[test]
fn coverage_says_what_no_test_tries() {
    let (org, tests, dir) = (file("org.yaml"), file("tests.yaml"), tempfile::tempdir().unwrap());
    run(&["policy", "test", "-f", &org, "-t", &tests, "--full-coverage"]).ends(0).has(&[
        "RULE                TRIED   HELD   FAILED",
        "shop/refunds/ask    3       1      2",
        "shop/refunds/most   3       2      1",
        "2 of 2 rules are covered in full",
    ]);
    let more = dir.path().join("more.yaml");
    let rule = |name: &str, expression: &str| format!("    - {{name: {name}, expression: \"{expression}\", effect: Deny}}\n");
    let head = "apiVersion: polity.dev/v1alpha1\nkind: Policy\nmetadata: {name: more, namespace: shop}\nspec:\n  mode: Observe\n";
    let rules = rule("b", "args.amount <= 501 || agent.type == 'Human' && 'manager' in roles")
        + &rule("c", "args.amount < 51 ? true : args.amount > 51");
    std::fs::write(&more, format!("{head}  rules:\n{rules}")).unwrap();
    let with = |flag: &str| run(&["policy", "test", "-f", &org, more.to_str().unwrap(), "-t", &tests, flag]);
    with("--coverage").ends(0).has(&[
        "shop/more/b         3       3      0        never failed   agent.type == 'Human' && 'manager' in roles; 'manager' in roles",
        "3 of 4 rules are covered in full",
    ]);
    with("--full-coverage").ends(1).has(&["5 tests, 0 failed", "3 of 4 rules"]);
    let all = ["policy", "test", "-f", &org, more.to_str().unwrap(), "-t", &tests, "--full-coverage", "-o", "json"];
    let json = run(&all).ends(1).json();
    assert_eq!((&json["passed"], &json["coverage"]["rules"], &json["coverage"]["full"]), (&false.into(), &4.into(), &3.into()));
    let of_b = serde_json::json!({"rule": "shop/more/b", "tried": 3, "held": 3, "failed": 0, "branches": 2, "full": false,
        "neverRan": ["agent.type == 'Human' && 'manager' in roles", "'manager' in roles"]});
    assert_eq!(json["coverage"]["each"][0], of_b);
}

#[test]
fn what_is_no_test_is_an_error() {
    let (org, dir) = (file("org.yaml"), tempfile::tempdir().unwrap());
    let at = dir.path().join("t.yaml");
    let with = |text: &str| {
        std::fs::write(&at, text).unwrap();
        run(&["policy", "test", "-f", &org, "-t", at.to_str().unwrap()])
    };
    let one = "name: a\norg: shop\nagent: clerk-bot\ntool: refund\nargs: {amount: 1}\nexpect: {verdict: Allow}\n";
    with(one).ends(0).has(&["1 tests, 0 failed"]);
    with("[]").ends(1).has(&["no tests"]);
    with("").ends(1).has(&["no documents"]);
    with(&format!("{one}---\n{one}")).ends(1).has(&["more than one test \"a\""]);
    with(&one.replace("verdict", "verdct")).ends(1).has(&["verdct"]);
    with(&one.replace("clerk-bot", "nobody")).ends(1).has(&["no Agent nobody"]);
    run(&["policy", "test", "-f", &file("tests.yaml"), "-t", &file("tests.yaml")]).ends(1).has(&["no Org"]);
    run(&["policy", "test", "-f", "/nonexistent", "-t", &file("tests.yaml")]).ends(1).has(&["cannot read /nonexistent"]);
}

#[test]
fn check_names_the_place_and_what_was_meant() {
    let org = file("org.yaml");
    run(&["policy", "check", "-f", &org]).ends(0).has(&["ok     Policy shop/refunds", "ok     Tool shop/refund", "0 with errors"]);
    let typo = run(&["policy", "check", "-f", &org, &file("bad/typo.yaml")]);
    typo.ends(1).has(&["ERROR  Policy shop/typo", "rule guard, line 1 column", "amuont", "amount"]);
    let shape = run(&["policy", "check", "-f", &org, &file("bad/shape.yaml")]);
    shape.ends(1).has(&["ERROR  Role shop/shapeless", "spec.assignment.mode", "Several", "spec.grants[0].tool: there is no such field"]);
    let json = run(&["policy", "check", "-f", &org, &file("bad"), "-o", "json"]).ends(1).json();
    assert_eq!(json["passed"], false);
    assert!(json["misshapen"].as_array().unwrap().iter().any(|m| m["object"] == "Role shop/shapeless"), "{json:#}");
}

#[test]
fn check_warns_of_rules_without_effect() {
    let said = run(&["policy", "check", "-f", &file("org.yaml"), &file("warned.yaml")]);
    said.ends(0).has(&[
        "ok     Policy shop/idle",
        "warning: rule positive: is true by the schemas of the Tools that the Policy selects (args.amount is at least 1, ",
        "warning: rule ask: can never have an effect: rule most demands more",
        "0 with errors",
    ]);
    let json = run(&["policy", "check", "-f", &file("org.yaml"), "-o", "json"]).ends(0).json();
    assert!(json["checked"].as_array().unwrap().iter().all(|f| f["warnings"] == serde_json::json!([])), "{json:#}");
}

#[test]
fn the_examples_hold() {
    let example = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name).to_str().unwrap().to_owned();
    run(&["policy", "check", "-f", &example("acme"), &example("hello")]).ends(0).has(&["0 with errors"]);
    run(&["policy", "test", "-f", &example("acme"), "-t", &example("acme/tests")]).ends(0).has(&["0 failed"]);
}

#[test]
fn can_i_decides_from_files() {
    let org = file("org.yaml");
    let ask = |more: &[&str]| run(&[&["can-i", "refund", "-f", &org, "--org", "shop"], more].concat());
    ask(&["--agent", "clerk-bot", "--input", r#"{"amount":1}"#]).ends(0).has(&["yes"]);
    ask(&["--caller", "stranger", "--input", r#"{"amount":1}"#]).ends(1).has(&["no: ", "why: "]);
    let denied = ask(&["--agent", "clerk-bot", "--input", r#"{"amount":100000}"#, "-o", "json"]).ends(1).json();
    assert_eq!((&denied["verdict"], &denied["rules"]), (&"Deny".into(), &serde_json::json!(["shop/refunds/most"])));
    ask(&["--agent", "nobody"]).ends(1).has(&["no Agent nobody"]);
    ask(&[]).ends(1).has(&["--agent NAME or --caller USERNAME"]);
    run(&["can-i", "refund", "-f", &org, "--org", "shp", "--agent", "x"]).ends(1).has(&["no Org \"shp\"", "shop"]);
}

#[test]
fn explain_names_every_rule_and_no_value() {
    let org = file("org.yaml");
    let ask = |input: &str, more: &[&str]| run(&[&["explain", "refund", "-f", &org, "--org", "shop", "--input", input], more].concat());
    let denied = ask(r#"{"amount":77123}"#, &["--agent", "clerk-bot"]);
    denied.ends(1).has(&["Deny: PolicyDenied", "hint: Ask for at most 500.", "snapshot: ", "RULE", "WOULD PASS", "args.amount: int"]);
    let row = |name: &str| denied.out.lines().find(|l| l.starts_with(name)).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(row("shop/refunds/most"), "shop/refunds/most Enforce Deny Fails args.amount <= 500 args.amount: int args.amount <= 500");
    assert!(row("shop/refunds/ask").starts_with("shop/refunds/ask Enforce RequireApproval Fails args.amount <= 50 "), "{denied:#?}");
    assert!(!denied.out.contains("77123"), "{denied:#?}");

    let asks = ask(r#"{"amount":177}"#, &["--agent", "clerk-bot", "-o", "json"]);
    assert!(!asks.out.contains("177"), "{asks:#?}");
    let asks = asks.ends(0).json();
    assert_eq!((&asks["verdict"], &asks["rules"]), (&"RequireApproval".into(), &serde_json::json!(["shop/refunds/ask"])));
    assert_eq!(asks["snapshot"].as_str().unwrap().len(), 64);
    let tried = asks["tried"].as_array().unwrap();
    assert_eq!(tried.len(), 2, "{asks:#}");
    assert_eq!((&tried[0]["rule"], &tried[0]["result"], &tried[0]["part"]), (&"shop/refunds/most".into(), &"Holds".into(), &().into()));
    assert_eq!(
        tried[1],
        serde_json::json!({
            "rule": "shop/refunds/ask", "mode": "Enforce", "effect": "RequireApproval", "result": "Fails", "why": "args.amount <= 50",
            "part": {"expression": "args.amount <= 50", "reads": [{"name": "args.amount", "type": "int"}]}, "wouldPass": "args.amount <= 50"
        })
    );

    let early = ask(r#"{"amount":1}"#, &["--caller", "stranger"]);
    early.ends(1).has(&["Deny: UnknownCaller", "no rule was tried"]);
    ask("{}", &[]).ends(2).has(&["--agent"]);
    ask("{}", &["--agent", "nobody"]).ends(1).has(&["no Agent nobody"]);
    run(&["explain", "refund", "-f", &org, "--org", "shp", "--agent", "x"]).ends(1).has(&["no Org \"shp\"", "shop"]);
}

#[test]
fn bench_times_every_test() {
    let (org, tests) = (file("org.yaml"), file("tests.yaml"));
    let json = run(&["policy", "bench", "-f", &org, "-t", &tests, "--seconds", "0.05", "-o", "json"]).ends(0).json();
    let timed = json["tests"].as_array().unwrap();
    assert_eq!(timed.len(), 5);
    assert!(timed.iter().all(|t| t["p50Micros"].as_f64().unwrap() > 0.0 && t["decisions"].as_u64().unwrap() > 0), "{json:#}");
    let slow = run(&["policy", "bench", "-f", &org, "-t", &tests, "--seconds", "0.05", "--max-micros", "0.001"]);
    slow.ends(1).has(&["SLOW  small refunds run", "P50"]);
    run(&["policy", "bench", "-f", &org, "-t", &file("bad/wrong.yaml"), "--seconds", "0.01"]).ends(0);
    run(&["policy", "bench", "-f", &org, "-t", &tests, "--seconds=-1"]).ends(1).has(&["--seconds"]);
}

/// Typical mistakes of authors: each message names the place, what is wrong, and what to write.
#[test]
fn mistakes_are_told_plainly() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.yaml");
    let rule = |rule: &str| format!("rules: [{rule}]");
    for (spec, wanted) in [
        (
            rule("{name: n, expression: args.amount <= 5, effect: Deny}"),
            "spec.rules[0].name: a text is expected; without quotes YAML reads n, no, off and false as the boolean false: write \"n\"",
        ),
        (
            rule("{name: a, expression: true, effect: Deny}"),
            "spec.rules[0].expression: a text is expected; without quotes YAML reads y, yes",
        ),
        (
            rule("{name: 12, expression: 'true', effect: Deny}"),
            "spec.rules[0].name: a text is expected, and YAML reads 12 as a number: write \"12\"",
        ),
        (rule("{name: Max_A, expression: 'true', effect: Deny}"), "\"Max_A\": a name has lower-case letters, digits and '-'"),
        (rule("{name: a, expression: args.amount <= 5}"), "spec.rules[0]: \"effect\" is missing"),
        (
            rule("{name: a, expresion: args.amount <= 5, effect: Deny}"),
            "spec.rules[0].expresion: there is no such field; did you mean `expression`?",
        ),
        (
            format!("match: {{tools: refund}}, {}", rule("{name: a, expression: 'args.amount < 5', effect: Deny}")),
            "spec.match.tools: a list is expected: write [refund]",
        ),
        (
            rule(
                "{name: a, expression: 'args.amount < 5', effect: RequireApproval, approval: {role: {name: manager}, expiresAfter: 4 hours}}",
            ),
            "spec.rules[0].approval.expiresAfter: \"4 hours\": a length of time is a whole number with s, m, h or d behind it, such as 90s",
        ),
        (
            rule("{name: a, expression: 'args.amount < 5', effect: RequireApproval, approval: {role: {name: manager}, count: '2'}}"),
            "spec.rules[0].approval.count: a number is expected, and \"2\" is a text: write it without quotes",
        ),
        (
            rule("{name: a, expression: 'args.amount <= 5 &&', effect: Deny}"),
            "rule a, line 1 column 20: not a CEL expression: an expression is expected after `&&`, but the text ends there",
        ),
        (
            rule("{name: a, expression: 'args.amount <= \"5\"', effect: Deny}"),
            "rule a, line 1 column 13: <= does not compare an int with a string; write",
        ),
        (
            rule("{name: a, expression: 'len(agent.name) < 5', effect: Deny}"),
            "rule a, line 1 column 1: no function `len`; in CEL this is size(x)",
        ),
    ] {
        let policy = format!("apiVersion: polity.dev/v1alpha1\nkind: Policy\nmetadata: {{name: p, namespace: shop}}\nspec: {{{spec}}}\n");
        std::fs::write(&path, policy).unwrap();
        run(&["policy", "check", "-f", &file("org.yaml"), "-f", path.to_str().unwrap()]).ends(1).has(&[wanted]);
    }
    let agent =
        "apiVersion: polity.dev/v1alpha1\nkind: Agent\nmetadata: {name: on, namespace: shop}\nspec: {type: Human, usernames: [a]}\n";
    std::fs::write(&path, agent).unwrap();
    run(&["policy", "check", "-f", &file("org.yaml"), "-f", path.to_str().unwrap()])
        .ends(1)
        .has(&["metadata.name: a text is expected; without quotes YAML reads y, yes, on and true as the boolean true"]);
}

//! What the tests of an organisation try of its rules: which were looked at, which ever failed, and which of their branches ever ran. Decides as `explain`
//! does; holds no value of a test.

use std::collections::BTreeMap;

use crate::{Fixture, TrialResult, World, cel::code::Branch, fixtures};

/// What tests tried of one rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleCoverage {
    /// `namespace/policy/rule`.
    pub rule: String,
    /// Tests in which it was looked at.
    pub tried: usize,
    /// In how many of them it held; one that rewrites: it had nothing to change.
    pub held: usize,
    /// In how many of them it did not hold; one that rewrites: it changed something, or would have.
    pub failed: usize,
    /// Its branches, and whether each ran in any test. Empty for a rule that was never tried, and for one without compiled form.
    pub branches: Vec<Branch>,
}

impl RuleCoverage {
    /// Branches that no test ran, as expressions.
    pub fn never_ran(&self) -> impl Iterator<Item = &str> {
        self.branches.iter().filter(|b| !b.ran).map(|b| b.expression.as_str())
    }

    /// Whether it failed in a test at least, and each branch ran.
    #[must_use]
    pub fn full(&self) -> bool {
        self.failed > 0 && self.never_ran().next().is_none()
    }
}

/// What tests try of every rule of every Policy, by name.
#[must_use]
pub fn coverage(world: &World, tests: &[Fixture]) -> Vec<RuleCoverage> {
    let mut rules: BTreeMap<String, RuleCoverage> = BTreeMap::new();
    for ((namespace, name), policy) in &world.policies {
        for rule in &policy.spec.rules {
            let rule = format!("{namespace}/{name}/{}", rule.name);
            rules.insert(rule.clone(), RuleCoverage { rule, ..RuleCoverage::default() });
        }
    }
    let snapshots = fixtures::snapshots(world, tests);
    for prepared in tests.iter().filter_map(|test| fixtures::prepare(&snapshots, test).ok()) {
        for trial in prepared.explain().tried {
            let Some(rule) = rules.get_mut(&trial.rule) else { continue };
            match &trial.result {
                TrialResult::NotSelected(_) | TrialResult::Broken(_) => continue,
                TrialResult::Holds => rule.held += 1,
                TrialResult::Rewrites(places) if places.is_empty() => rule.held += 1,
                TrialResult::Fails | TrialResult::Rewrites(_) | TrialResult::Would(_) => rule.failed += 1,
                TrialResult::Error(_) => {}
            }
            rule.tried += 1;
            if rule.branches.is_empty() {
                rule.branches = trial.branches;
            } else {
                rule.branches.iter_mut().zip(trial.branches).for_each(|(known, now)| known.ran |= now.ran);
            }
        }
    }
    rules.into_values().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn world(expressions: &[&str]) -> World {
        let object = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "polity.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": "a"}, "spec": spec});
        let schema =
            json!({"type": "object", "properties": {"n": {"type": "integer"}, "list": {"type": "array", "items": {"type": "integer"}}}});
        let rules: Vec<Value> =
            expressions.iter().enumerate().map(|(i, e)| json!({"name": format!("r{i}"), "expression": e, "effect": "Deny"})).collect();
        let cut = json!([{"name": "cut", "expression": "args.n <= 100", "effect": "Rewrite", "rewrite": [{"path": "n", "max": 100}]}]);
        World::from_objects(vec![
            json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Org", "metadata": {"name": "a"}, "spec": {}}),
            object("Agent", "bot", json!({"type": "AI", "image": "i", "command": ["c"]})),
            object("Role", "r", json!({"grants": [{"tools": ["*"]}], "assignment": {"agents": ["bot"]}})),
            object("Tool", "t", json!({"runtime": {"container": {"image": "i", "command": ["c"]}}, "inputSchema": schema})),
            object(
                "Policy",
                "other",
                json!({"match": {"tools": ["u"]}, "rules": [{"name": "r", "expression": "args.n < 1", "effect": "Deny"}]}),
            ),
            object("Policy", "p", json!({"rules": rules})),
            object("Policy", "w", json!({"match": {"tools": ["t"]}, "rules": cut})),
        ])
    }

    fn covered(expressions: &[&str], args: &[Value]) -> Vec<RuleCoverage> {
        let test =
            |args: &Value| json!({"name": "x", "org": "a", "agent": "bot", "tool": "t", "args": args, "expect": {"verdict": "Allow"}});
        let tests: Vec<Fixture> = args.iter().map(|args| serde_json::from_value(test(args)).unwrap()).collect();
        coverage(&world(expressions), &tests)
    }

    fn of<'a>(all: &'a [RuleCoverage], rule: &str) -> &'a RuleCoverage {
        all.iter().find(|r| r.rule == rule).unwrap_or_else(|| panic!("{rule}: {all:#?}"))
    }

    #[test]
    fn what_no_test_tried_is_said() {
        let rules = [
            "args.n > 1 || args.list.exists(x, x == 5 && args.n == 1)",
            "has(args.list) ? args.list.size() < 3 : args.n < 50",
            "!(args.n > 10 && (args.n < 20 || args.n > 90))",
            "args.list[0] > 0",
        ];
        let all = covered(&rules, &[json!({"n": 5}), json!({"n": 60}), json!({"n": 500})]);
        let branches = |rule: &str| of(&all, rule).branches.iter().map(|b| (b.expression.as_str(), b.ran)).collect::<Vec<_>>();
        assert_eq!(branches("a/p/r0"), [("args.list.exists(x, x == 5 && args.n == 1)", false)], "what is in a loop is not by itself");
        assert_eq!(branches("a/p/r1"), [("args.list.size() < 3", false), ("args.n < 50", true)]);
        // 500 was made 100 before the rules saw it
        assert_eq!(branches("a/p/r2"), [("args.n < 20 || args.n > 90", true), ("args.n > 90", true)]);
        let counts = |rule: &str| (of(&all, rule).tried, of(&all, rule).held, of(&all, rule).failed, of(&all, rule).full());
        assert_eq!(counts("a/p/r0"), (3, 3, 0, false));
        assert_eq!(counts("a/p/r1"), (3, 1, 2, false));
        assert_eq!(counts("a/p/r2"), (3, 2, 1, true));
        assert_eq!(counts("a/p/r3"), (3, 0, 0, false), "an error is no failure");
        assert_eq!(counts("a/w/cut"), (3, 2, 1, true));
        assert_eq!(counts("a/other/r"), (0, 0, 0, false));
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn what_every_test_leaves_out_is_found_by_one_that_does_not() {
        let rule = ["has(args.list) && args.list.size() > 1 || args.n < 5"];
        let some = [json!({"n": 7}), json!({"n": 1})];
        let all = covered(&rule, &some);
        assert_eq!(of(&all, "a/p/r0").never_ran().collect::<Vec<_>>(), ["args.list.size() > 1"]);
        let more = [&some[..], &[json!({"n": 1, "list": [1, 2]})]].concat();
        assert!(of(&covered(&rule, &more), "a/p/r0").full());
    }
}

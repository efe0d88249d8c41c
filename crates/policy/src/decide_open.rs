//! Nothing turns into an allow: rules of a small pool, each with its meaning written by hand in Rust beside it, over input that may be of any shape, counters and
//! history that may be unknown, budgets that end at any step, rules that do not compile or panic, objects that cannot be decoded. An allow must be one by
//! what the rules mean, whatever was missing.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{Known, Past};

/// All that a rule of the pool may look at.
struct Facts<'a> {
    args: &'a Value,
    task: Option<&'a TaskFacts>,
    /// `counters.spent`, `history.calls`, whether label `l` is there, calls of Tool `other`; None: not known.
    spent: Option<i64>,
    history: Option<(i64, bool, i64)>,
}

/// What an expression means; None: it has no value.
type Means = fn(&Facts<'_>) -> Option<bool>;

fn int(args: &Value, name: &str) -> Option<i64> {
    args.get(name)?.as_i64()
}

fn text<'a>(args: &'a Value, name: &str) -> Option<&'a str> {
    args.get(name)?.as_str()
}

fn ints(args: &Value) -> Option<Vec<i64>> {
    args.get("list")?.as_array()?.iter().map(Value::as_i64).collect()
}

/// Expressions, and what they mean for an input that the schema lets through.
const POOL: &[(&str, Means)] = &[
    ("args.amount <= 30", |f| Some(int(f.args, "amount")? <= 30)),
    ("args.amount * 2 - 1 != 7", |f| Some(int(f.args, "amount")?.checked_mul(2)?.checked_sub(1)? != 7)),
    ("100 / args.amount > 3", |f| Some(100_i64.checked_div(int(f.args, "amount")?)? > 3)),
    ("args.to == 'x'", |f| Some(text(f.args, "to")? == "x")),
    ("!has(args.to) || args.to.startsWith('x')", |f| Some(f.args.get("to").is_none() || text(f.args, "to")?.starts_with('x'))),
    ("args.to.matches('^x[a-z]*$')", |f| {
        let to = text(f.args, "to")?;
        Some(to.starts_with('x') && to[1..].bytes().all(|b| b.is_ascii_lowercase()))
    }),
    ("args.list.all(i, i > 0)", |f| Some(ints(f.args)?.iter().all(|i| *i > 0))),
    ("size(args.list) < 3 && args.list.exists(i, i == args.amount)", |f| {
        let (list, amount) = (ints(f.args)?, int(f.args, "amount")?);
        Some(list.len() < 3 && list.contains(&amount))
    }),
    ("args.list[0] == 1", |f| Some(*ints(f.args)?.first()? == 1)),
    ("has(task.jobSpace) && task.jobSpace == 'm'", |f| Some(f.task.and_then(|t| t.job_space.as_deref()) == Some("m"))),
    ("task.name == 't'", |f| Some(f.task?.name == "t")),
    ("counters.spent + args.amount <= 50", |f| Some(f.spent?.checked_add(int(f.args, "amount")?)? <= 50)),
    ("history.calls < 3", |f| Some(f.history?.0 < 3)),
    ("!('l' in history.labels)", |f| Some(!f.history?.1)),
    ("history.tools['other'] < 1", |f| Some(f.history?.2 < 1)),
    // does not compile, and does not fit the Tool
    ("args.amount <=", |_| None),
    ("args.amuont < 5", |_| None),
];

/// Any JSON that may come as arguments, near what the schema wants or far from it.
fn any_args() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..60).prop_map(Value::from),
        Just(json!(i64::MAX)),
        Just(json!(u64::MAX)),
        Just(json!(1.5)),
        prop::sample::select(vec!["x", "xa", "xA", "", "ü"]).prop_map(Value::from),
    ];
    let any = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(vec!["amount", "to", "list", "z"]).prop_map(str::to_owned), inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    });
    // mostly what the schema lets through, as nothing else gets as far as the rules
    let good = (
        -2_i64..40,
        prop::option::of(prop::sample::select(vec!["x", "xa", "xA", "y"])),
        prop::option::of(prop::collection::vec(-1_i64..4, 0..4)),
    )
        .prop_map(|(amount, to, list)| {
            let mut args = json!({"amount": amount});
            to.into_iter().for_each(|to| args["to"] = json!(to));
            list.into_iter().for_each(|list| args["list"] = json!(list));
            args
        });
    let mixed =
        (good.clone(), prop::sample::select(vec!["amount", "to", "list", "more"]), any.clone()).prop_map(|(mut args, name, value)| {
            args[name] = value;
            args
        });
    prop_oneof![4 => good, 2 => mixed, 1 => any]
}

/// Whether the input is what the Tool's schema says, by hand.
fn fits(args: &Value) -> bool {
    let whole = |v: &Value| v.is_i64() || v.is_u64() || v.as_f64().is_some_and(|f| f.fract() == 0.0);
    args.as_object().is_some_and(|members| {
        members.contains_key("amount")
            && members.iter().all(|(name, value)| match name.as_str() {
                "amount" => whole(value),
                "to" => value.is_string(),
                "list" => value.as_array().is_some_and(|items| items.iter().all(whole)),
                _ => false,
            })
    })
}

#[derive(Clone, Debug)]
struct Case {
    /// Expression, place, whether it asks instead of denying, whether it selects the call.
    rules: Vec<(usize, &'static str, bool, bool)>,
    args: Value,
    task: Option<TaskFacts>,
    spent: Option<i64>,
    history: Option<(i64, bool, i64)>,
    who: &'static str,
    /// Rule that panics; object that cannot be decoded.
    panics: Option<usize>,
    undecodable: bool,
}

fn any_case() -> impl Strategy<Value = Case> {
    let rule = (0..POOL.len(), prop::sample::select(vec!["acme", "finance"]), prop::bool::weighted(0.5), prop::bool::weighted(0.9));
    // few of them, or hardly anything would ever be allowed
    let rules = prop::collection::vec(rule, 0..3);
    let task =
        prop::option::of((prop::sample::select(vec!["t", "u"]), prop::option::of(prop::sample::select(vec!["m", "n"])))).prop_map(|t| {
            t.map(|(name, space)| TaskFacts {
                name: name.to_owned(),
                uid: "1".to_owned(),
                job_space: space.map(str::to_owned),
                cancel: false,
            })
        });
    let history = prop::option::weighted(0.8, (0_i64..5, any::<bool>(), 0_i64..2));
    let who = prop_oneof![9 => Just("alice@acme"), 1 => prop::sample::select(vec!["", "mallory", "bot"])];
    let bad = (prop::option::weighted(0.05, 0_usize..2), prop::bool::weighted(0.05));
    (rules, any_args(), task, prop::option::weighted(0.8, 0_i64..60), history, who, bad).prop_map(
        |(rules, args, task, spent, history, who, (panics, undecodable))| Case {
            rules,
            args,
            task,
            spent,
            history,
            who,
            panics,
            undecodable,
        },
    )
}

impl Case {
    fn name(at: usize) -> String {
        format!("p{at}")
    }

    fn snapshot(&self) -> Snapshot {
        let mut more: Vec<Value> = (0..)
            .zip(&self.rules)
            .map(|(at, (expression, place, asks, selects))| {
                let mut spec = json!({
                    "counters": [{"name": "spent", "amount": "1"}],
                    "match": {"tools": [if *selects { "payments" } else { "other" }]},
                    "rules": [{"name": "r", "expression": POOL[*expression].0, "effect": "Deny"}],
                });
                if *asks {
                    spec["rules"][0]["effect"] = json!("RequireApproval");
                    spec["rules"][0]["approval"] = json!({"group": "g"});
                }
                object("Policy", place, &Self::name(at), spec)
            })
            .collect();
        if self.undecodable {
            more.push(object("Policy", "acme", "broken", json!({"rules": 5})));
        }
        let mut snapshot = Snapshot::build(&World::from_objects(with(more)), "finance");
        for policy in &mut snapshot.policies {
            if self.panics.is_some_and(|at| policy.name == Self::name(at)) {
                policy.compiled = CompiledPolicy::panicking().into();
            }
        }
        snapshot
    }

    fn known(&self) -> Known {
        let mut known = Known::default();
        for (at, (_, place, ..)) in self.rules.iter().enumerate() {
            self.spent.into_iter().for_each(|spent| known.set_counter(&format!("{place}/{}", Self::name(at)), "spent", spent));
        }
        if let Some((calls, label, other)) = self.history {
            known.set_history(calls, &label.then(|| "l".to_owned()).into_iter().collect::<BTreeSet<_>>());
            known.set_tool("other", other);
        }
        known
    }

    /// What each rule that selects the call means for it: it denies or asks when that is not `Some(true)`.
    fn meant(&self) -> Vec<(bool, Option<bool>)> {
        let facts = Facts { args: &self.args, task: self.task.as_ref(), spent: self.spent, history: self.history };
        let of = |(at, (expression, _, asks, _)): (usize, &(usize, &str, bool, bool))| {
            (*asks, POOL[*expression].1(&facts).filter(|_| self.panics != Some(at)))
        };
        self.rules.iter().enumerate().filter(|(_, rule)| rule.3).map(of).collect()
    }

    /// The verdict by the meaning of the rules alone.
    fn verdict(&self) -> Verdict {
        let meant = self.meant();
        let granted = self.who == "alice@acme" && fits(&self.args);
        if !granted || self.undecodable || meant.iter().any(|(asks, holds)| holds.is_none() || (!asks && *holds != Some(true))) {
            return Verdict::Deny;
        }
        if meant.iter().all(|(_, holds)| *holds == Some(true)) { Verdict::Allow } else { Verdict::RequireApproval }
    }

    fn decide(&self, snapshot: &Snapshot, past: Past<'_>, limits: Limits) -> Decision {
        let caller = Caller { username: self.who.to_owned(), ..Caller::default() };
        let request = Request {
            verb: "tool.call",
            tool: "payments",
            tool_org: None,
            args: &self.args,
            caller: &caller,
            task: self.task.as_ref(),
            job_space: None,
            context: None,
            id: "",
            approved: &[],
            past,
            now: now(),
        };
        snapshot.decide_with(&request, limits)
    }
}

const ENOUGH: Limits = Limits { steps: 1_000_000, time: Duration::from_secs(20) };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_turns_into_allow(case in any_case(), part in 0.0_f64..1.0) {
        let snapshot = case.snapshot();
        let known = case.known();
        let decision = case.decide(&snapshot, Past::Known(&known), ENOUGH);
        prop_assert_eq!(decision.verdict, case.verdict(), "{:?}", &decision);
        prop_assert!(decision.verdict == Verdict::Allow || !decision.reason.is_empty());
        let strong = strength(decision.verdict);
        // less is known: nothing gets weaker
        let unknown = case.decide(&snapshot, Past::Unknown, ENOUGH);
        prop_assert!(strength(unknown.verdict) >= strong, "{:?}", unknown);
        // the budget ends at any step: either everything was decided before, or it is denied
        let steps = (0..).map(|n| 1_u64 << n).find(|steps| case.decide(&snapshot, Past::Known(&known), Limits { steps: *steps, ..ENOUGH }).reason != reasons::DECISION_BUDGET_EXCEEDED).unwrap();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)] // a share of a small number
        let cut = case.decide(&snapshot, Past::Known(&known), Limits { steps: (steps as f64 * part) as u64, ..ENOUGH });
        prop_assert!(strength(cut.verdict) >= strong, "{:?}", cut);
        prop_assert!(cut.verdict == decision.verdict || cut.reason == reasons::DECISION_BUDGET_EXCEEDED, "{:?}", cut);
        // no time at all: whatever has to look at a clock denies
        let late = case.decide(&snapshot, Past::Known(&known), Limits { time: Duration::ZERO, ..ENOUGH });
        prop_assert!(strength(late.verdict) >= strong, "{:?}", late);
        // and the Org that does not take calls, or is not there, takes none
        prop_assert_eq!(case.decide(&Snapshot::build(&World::default(), "finance"), Past::Known(&known), ENOUGH).verdict, Verdict::Deny);
    }
}

/// The cases are not all of one kind: otherwise the property would say little.
#[test]
fn the_cases_reach_every_verdict() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut seen = [0; 3];
    for _ in 0..600 {
        let case = any_case().new_tree(&mut runner).unwrap().current();
        seen[usize::from(strength(case.verdict()))] += 1;
    }
    assert!(seen.iter().all(|n| *n > 20), "{seen:?}");
}

fn strength(v: Verdict) -> u8 {
    match v {
        Verdict::Allow => 0,
        Verdict::RequireApproval => 1,
        Verdict::Deny => 2,
    }
}

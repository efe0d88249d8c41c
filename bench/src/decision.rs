//! One decision in process: ten matching rules over arguments, among a thousand Policies, beside the evaluator `cel` alone on the same ten; and ten thousand
//! Policies beside ten.

#![expect(clippy::needless_pass_by_value, reason = "JSON is written in place")]

use std::hint::black_box;

use anyhow::{Context as _, Result, ensure};
use cel::{Context, Program, Value as CelValue};
use jiff::Timestamp;
use polity_api::caller::Caller;
use polity_bench::{
    report::{Better, Report},
    samples::{Samples, Spent, spent},
};
use polity_policy::{Past, Request, Snapshot, Verdict, World};
use serde_json::{Value, json};

/// Rules of a bookkeeper's tool: two with loops, one with a pattern.
const RULES: [&str; 10] = [
    "args.amount <= 5000",
    "args.currency in ['USD', 'EUR', 'CHF']",
    "args.method != 'crypto'",
    "args.to.startsWith('SUPPLIER-')",
    "args.lines.all(l, l.amount > 0 && l.account != '9999')",
    "args.lines.exists(l, l.account == '4000')",
    "args.reference.matches('^INV-[0-9]{4}-[0-9]+$')",
    "!has(args.note) || size(args.note) <= 200",
    "args.urgent ? args.amount <= 1000 : true",
    "args.amount + args.fee <= 6000",
];
/// The rule with a pattern, which `cel` alone compiles at each execution.
const PATTERN: usize = 6;
const REPEATS: usize = 7;
const ROUND: u32 = 20_000;

fn arguments() -> Value {
    let lines: Vec<Value> =
        (0..5).map(|i| json!({"account": if i == 4 { "4000" } else { "1200" }, "amount": 100 + i, "text": "paper"})).collect();
    json!({"amount": 750, "fee": 3, "currency": "EUR", "method": "bank", "to": "SUPPLIER-17", "reference": "INV-2026-1731", "note": "as agreed",
        "urgent": true, "lines": lines})
}

/// Ten rules with the same loop; with `alike` false it has another variable in each, so that it is another loop to whoever looks for the same.
fn with_a_loop(alike: bool) -> [String; 10] {
    std::array::from_fn(|i| {
        let var = if alike { "l".to_owned() } else { format!("l{i}") };
        format!("args.amount <= {} || args.lines.exists({var}, {var}.account == '4000' && {var}.amount > 0)", 10 + i)
    })
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    let metadata = if kind == "Org" { json!({"name": name}) } else { json!({"name": name, "namespace": "acme"}) };
    json!({"apiVersion": "polity.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
}

fn rule(expression: &str) -> Value {
    json!([{"name": "r", "expression": expression, "effect": "Deny"}])
}

/// An Org with the ten Policies and some that match something else.
fn snapshot(others: impl Iterator<Item = Value>) -> Snapshot {
    snapshot_of(&RULES, others)
}

/// An Org with a Policy for each of these rules, and some that match something else.
fn snapshot_of(rules: &[impl AsRef<str>], others: impl Iterator<Item = Value>) -> Snapshot {
    let text = || json!({"type": "string"});
    let schema = json!({"type": "object", "required": ["amount", "currency", "to", "lines"], "properties": {
        "amount": {"type": "integer"}, "fee": {"type": "integer"}, "currency": text(), "method": text(), "to": text(), "reference": text(), "note": text(),
        "urgent": {"type": "boolean"},
        "lines": {"type": "array", "items": {"type": "object", "properties": {"account": text(), "amount": {"type": "integer"}, "text": text()}}}}});
    let mut objects = vec![
        object("Org", "acme", json!({})),
        object("Agent", "alice", json!({"type": "Human", "usernames": ["alice@acme"]})),
        object("Role", "payer", json!({"grants": [{"tools": ["pay"]}], "assignment": {"agents": ["alice"]}})),
        object("Tool", "pay", json!({"runtime": {"container": {"image": "i", "command": ["c"]}}, "inputSchema": schema})),
    ];
    objects.extend(
        rules
            .iter()
            .enumerate()
            .map(|(i, r)| object("Policy", &format!("own-{i}"), json!({"match": {"tools": ["pay"]}, "rules": rule(r.as_ref())}))),
    );
    objects.extend(
        others.enumerate().map(|(i, m)| object("Policy", &format!("other-{i}"), json!({"match": m, "rules": rule("args.amount <= 1")}))),
    );
    Snapshot::build(&World::from_objects(objects), "acme")
}

/// CPU time of one decision in nanoseconds.
fn decisions(snapshot: &Snapshot, args: &Value, caller: &Caller) -> Result<f64> {
    let now = Timestamp::from_second(1_767_268_800)?;
    let request = Request {
        verb: "tool.call",
        tool: "pay",
        tool_org: None,
        args,
        caller,
        task: None,
        job_space: None,
        context: None,
        id: "",
        approved: &[],
        now,
        past: Past::Unknown,
    };
    let first = snapshot.decide(&request);
    ensure!(first.verdict == Verdict::Allow, "the bench's call is refused: {}", first.message);
    let ((), took) = spent(|| (0..ROUND).for_each(|_| drop(black_box(snapshot.decide(black_box(&request))))));
    Ok(each(took))
}

/// CPU time of one execution of these programs in nanoseconds.
fn bare(programs: &[&Program], context: &Context<'_, '_>) -> Result<f64> {
    for program in programs {
        ensure!(program.execute(context)? == CelValue::Bool(true), "a rule of the bench does not hold");
    }
    let run = || {
        for _ in 0..ROUND {
            for program in programs {
                drop(black_box(program.execute(black_box(context))));
            }
        }
    };
    Ok(each(spent(run).1))
}

fn each(took: Spent) -> f64 {
    took.cpu.as_secs_f64() * 1e9 / f64::from(ROUND)
}

/// The figures.
///
/// # Errors
/// A rule does not hold, or the call is refused.
pub fn run() -> Result<Report> {
    let (args, caller) = (arguments(), Caller { username: "alice@acme".to_owned(), ..Caller::default() });
    let tool = |i: usize| json!({"tools": [format!("tool-{i}")]});
    let role = |i: usize| json!({"tools": ["pay"], "roles": [format!("role-{i}")]});
    let ten = snapshot(std::iter::empty());
    let thousand = snapshot((0..990).map(tool));
    let many = snapshot((0..9990).map(tool));
    let many_roles = snapshot((0..9990).map(role));
    let (alike, unlike) = (snapshot_of(&with_a_loop(true), std::iter::empty()), snapshot_of(&with_a_loop(false), std::iter::empty()));
    let programs = RULES.iter().map(|r| Program::compile(r).map_err(|e| anyhow::anyhow!("{r}: {e}"))).collect::<Result<Vec<_>>>()?;
    let all: Vec<&Program> = programs.iter().collect();
    let plain: Vec<&Program> = programs.iter().enumerate().filter(|(i, _)| *i != PATTERN).map(|(_, p)| p).collect();
    let mut context = Context::default();
    context.add_variable("args", &args).map_err(|e| anyhow::anyhow!("{e}")).context("args for cel")?;
    let mut samples: [Samples; 8] = Default::default();
    for _ in 0..REPEATS {
        let figures = [
            decisions(&thousand, &args, &caller)?,
            bare(&all, &context)?,
            bare(&plain, &context)?,
            decisions(&ten, &args, &caller)?,
            decisions(&many, &args, &caller)?,
            decisions(&many_roles, &args, &caller)?,
            decisions(&alike, &args, &caller)?,
            decisions(&unlike, &args, &caller)?,
        ];
        samples.iter_mut().zip(figures).for_each(|(s, f)| s.push(f));
    }
    let [own, cel, cel_plain, ten, many, many_roles, alike, unlike] = samples;
    let mut report = Report::new("decision");
    report.figure("one decision, 1,000 policies, 10 match", "ns CPU", &own, Better::Lower);
    report.figure("cel alone, the same 10, context built", "ns CPU", &cel, Better::Lower);
    report.figure("cel alone, 9 of them without the pattern", "ns CPU", &cel_plain, Better::Lower);
    report.figure("one decision, 10 policies", "ns CPU", &ten, Better::Lower);
    report.ratio("one decision, 1,000 policies", "cel alone", &own.over(&cel), 0.5, Better::Lower);
    report.ratio("one decision of 10 rules", "cel alone on the 9 without the pattern", &own.over(&cel_plain), 0.5, Better::Lower);
    report.ratio("10,000 policies, 9,990 for other tools", "10 policies", &many.over(&ten), 1.2, Better::Lower);
    report.ratio("10,000 policies, 9,990 for other roles", "10 policies", &many_roles.over(&ten), 1.2, Better::Lower);
    report.figure("one decision, 10 rules with another loop each", "ns CPU", &unlike, Better::Lower);
    report.ratio("10 rules that share a loop", "10 with another loop each", &alike.over(&unlike), 0.8, Better::Lower);
    Ok(report)
}

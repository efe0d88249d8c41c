//! Offline tests of an organisation's rules: calls with the verdict that is expected, decided as on a cluster. For `kubectl polity policy test`.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use polity_api::caller::Caller;
use serde::{Deserialize, Serialize};

use crate::{CompileCache, Decision, Explanation, Known, Past, Request, Snapshot, TaskFacts, World, suggest};

/// One call and what must come of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fixture {
    /// Name, for the report.
    pub name: String,
    /// Org that the call is made in.
    pub org: String,
    /// Name of the Agent that calls, of this Org or one above. Either this or `caller`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Exact username that calls, for calls that no Agent makes. Either this or `agent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// Groups of the caller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Name of the Tool.
    pub tool: String,
    /// Org above that has the Tool; default: the Org of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_org: Option<String>,
    /// The input; default: `{}`.
    #[serde(default = "empty")]
    pub args: serde_json::Value,
    /// The Task that the call is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<FixtureTask>,
    /// Job space of a call without Task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_space: Option<String>,
    /// Id of the conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Time of the call; default `2026-01-01T12:00:00Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<Timestamp>,
    /// Rules (as `namespace/policy/rule`) that people have approved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approved: Vec<String>,
    /// What counters stand at before the call: Policy and counter as `namespace/policy/counter` → value. Rules that read another deny with
    /// `CountersUnknown`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, i64>,
    /// The history of its Task. Without it, rules that read it deny with `CountersUnknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<FixtureHistory>,
    /// What the tool returns, for what Policies demand of results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
    /// What must come of it.
    pub expect: Expect,
}

/// The history of a fixture's Task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FixtureHistory {
    /// How many calls there were before this one; default 0.
    #[serde(default)]
    pub calls: i64,
    /// Labels that their results carried; default none.
    #[serde(default)]
    pub labels: BTreeSet<String>,
    /// How often Tools were called; those that are not named: never.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tools: BTreeMap<String, i64>,
}

/// The Task of a fixture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FixtureTask {
    /// Name.
    pub name: String,
    /// Job space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_space: Option<String>,
    /// Canceled.
    #[serde(default)]
    pub cancel: bool,
}

/// What must come of a call. Only what is given is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expect {
    /// `Allow`, `Deny` or `RequireApproval`.
    pub verdict: String,
    /// Reason code, e.g. `PolicyDenied`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Exactly these rules led to it, as `namespace/policy/rule`, in any order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<String>>,
    /// The input as rules have rewritten it; the input of the test where none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<serde_json::Value>,
    /// What is delivered of `result`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered: Option<serde_json::Value>,
    /// Reason code for which nothing is delivered, e.g. `PostconditionFailed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld: Option<String>,
    /// Exactly these rules rewrote the input, in any order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrites: Option<Vec<String>>,
    /// Exactly these rules in Warn or Observe would have had an effect, in any order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advisory: Option<Vec<String>>,
}

fn empty() -> serde_json::Value {
    serde_json::json!({})
}

/// A fixture with what came of it.
#[derive(Clone, Debug)]
pub struct FixtureResult {
    /// Name of the fixture.
    pub name: String,
    /// What differs from what was expected; empty: passed.
    pub failures: Vec<String>,
    /// The decision; None when the fixture itself is wrong.
    pub decision: Option<Decision>,
}

impl FixtureResult {
    /// Whether all was as expected.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

/// Decides every fixture.
#[must_use]
pub fn run_fixtures(world: &World, fixtures: &[Fixture]) -> Vec<FixtureResult> {
    let snapshots = snapshots(world, fixtures);
    fixtures.iter().map(|fixture| run(&snapshots, fixture)).collect()
}

/// A view of each Org that fixtures name, by its name.
#[must_use]
pub fn snapshots(world: &World, fixtures: &[Fixture]) -> BTreeMap<String, Snapshot> {
    let cache = CompileCache::default();
    let mut snapshots = BTreeMap::new();
    for fixture in fixtures {
        snapshots.entry(fixture.org.clone()).or_insert_with(|| Snapshot::build_with(world, &fixture.org, &cache));
    }
    snapshots
}

/// A fixture with everything that its decision needs.
#[derive(Debug)]
pub struct Prepared<'a> {
    snapshot: &'a Snapshot,
    fixture: &'a Fixture,
    caller: Caller,
    task: Option<TaskFacts>,
    known: Known,
}

/// Prepares a fixture to be decided any number of times.
///
/// # Errors
/// What is wrong with the fixture.
pub fn prepare<'a>(snapshots: &'a BTreeMap<String, Snapshot>, fixture: &'a Fixture) -> Result<Prepared<'a>, String> {
    let Some(snapshot) = snapshots.get(&fixture.org) else { return Err(format!("no view of Org {} was built", fixture.org)) };
    let username = match (&fixture.caller, &fixture.agent) {
        (Some(caller), None) => caller.clone(),
        (None, Some(agent)) => match snapshot.username_of(agent) {
            Some(username) => username.to_owned(),
            None => {
                let known = suggest::among("Agents", agent, snapshot.agents_with_usernames());
                return Err(format!("no Agent {agent} with a username of its own in Org {} or above; {known}", fixture.org));
            }
        },
        _ => return Err("give either agent or caller".to_owned()),
    };
    let caller = Caller { username, groups: fixture.groups.clone(), ..Caller::default() };
    let task = fixture.task.as_ref().map(|t| TaskFacts {
        name: t.name.clone(),
        uid: format!("task-{}", t.name),
        job_space: t.job_space.clone(),
        cancel: t.cancel,
    });
    Ok(Prepared { snapshot, fixture, caller, task, known: known(fixture, snapshot)? })
}

/// What a fixture says of calls before.
fn known(fixture: &Fixture, snapshot: &Snapshot) -> Result<Known, String> {
    let mut known = Known::default();
    for (counter, value) in &fixture.counters {
        let Some((policy, name)) = counter.rsplit_once('/').filter(|(policy, _)| policy.matches('/').count() == 1) else {
            return Err(format!("counters: {counter:?} is not of the form namespace/policy/counter"));
        };
        known.set_counter(policy, name, *value);
    }
    if let Some(history) = &fixture.history {
        known.set_history(history.calls, &history.labels);
        snapshot.history_read.tools.iter().for_each(|tool| known.set_tool(tool, 0));
        history.tools.iter().for_each(|(tool, calls)| known.set_tool(tool, *calls));
    }
    Ok(known)
}

impl Prepared<'_> {
    /// Decides it.
    #[must_use]
    pub fn decide(&self) -> Decision {
        self.snapshot.decide(&self.request())
    }

    /// Decides it and says how each rule came out.
    #[must_use]
    pub fn explain(&self) -> Explanation {
        self.snapshot.explain(&self.request())
    }

    fn request(&self) -> Request<'_> {
        let fixture = self.fixture;
        Request {
            verb: "tool.call",
            tool: &fixture.tool,
            tool_org: fixture.tool_org.as_deref(),
            args: &fixture.args,
            caller: &self.caller,
            task: self.task.as_ref(),
            job_space: fixture.job_space.as_deref(),
            context: fixture.context.as_deref(),
            id: "fixture",
            approved: &fixture.approved,
            now: fixture.now.unwrap_or(Timestamp::constant(1_767_268_800, 0)),
            past: Past::Known(&self.known),
        }
    }
}

fn run(snapshots: &BTreeMap<String, Snapshot>, fixture: &Fixture) -> FixtureResult {
    let (failures, decision) = match prepare(snapshots, fixture) {
        Ok(prepared) => {
            let decision = prepared.decide();
            (compare(fixture, &decision), Some(decision))
        }
        Err(problem) => (vec![problem], None),
    };
    FixtureResult { name: fixture.name.clone(), failures, decision }
}

fn compare(fixture: &Fixture, got: &Decision) -> Vec<String> {
    let expect = &fixture.expect;
    let mut out = Vec::new();
    let args = got.rewritten.as_ref().unwrap_or(&fixture.args);
    if let Some(want) = expect.args.as_ref().filter(|want| *want != args) {
        out.push(format!("args: expected {want}, got {args}"));
    }
    if expect.verdict != got.verdict.name() {
        out.push(format!("verdict: expected {}, got {} ({}: {})", expect.verdict, got.verdict.name(), got.reason, got.message));
    }
    if let Some(reason) = expect.reason.as_ref().filter(|r| *r != got.reason) {
        out.push(format!("reason: expected {reason}, got {:?}", got.reason));
    }
    let advisory: Vec<String> = got.advisory.iter().map(|a| a.rule.clone()).collect();
    out.extend(compare_result(fixture, got, args));
    let rewrites: Vec<String> = got.rewrites.iter().map(|r| r.rule.clone()).collect();
    let lists =
        [("rules", &expect.rules, &got.rules), ("advisory", &expect.advisory, &advisory), ("rewrites", &expect.rewrites, &rewrites)];
    for (what, want, have) in lists {
        let sorted = |list: &[String]| {
            let mut list = list.to_vec();
            list.sort_unstable();
            list
        };
        if let Some(want) = want.as_ref().filter(|want| sorted(want) != sorted(have)) {
            out.push(format!("{what}: expected [{}], got [{}]", want.join(", "), have.join(", ")));
        }
    }
    out
}

/// What differs in what is delivered.
fn compare_result(fixture: &Fixture, got: &Decision, args: &serde_json::Value) -> Vec<String> {
    let expect = &fixture.expect;
    let Some(result) = &fixture.result else {
        let asked = expect.delivered.is_some() || expect.withheld.is_some();
        return asked.then(|| "delivered and withheld need a result".to_owned()).into_iter().collect();
    };
    let applied = got.obligations.as_ref().map(|o| o.apply(args, result.clone()));
    let (delivered, withheld) = match applied {
        None => (Some(result.clone()), None),
        Some(Ok(delivered)) => (Some(delivered.value), None),
        Some(Err(withheld)) => (None, Some(withheld)),
    };
    let mut out = Vec::new();
    if expect.delivered.is_some() && expect.delivered != delivered {
        let text = |v: &Option<serde_json::Value>| v.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string);
        out.push(format!("delivered: expected {}, got {}", text(&expect.delivered), text(&delivered)));
    }
    if let Some(reason) = expect.withheld.as_deref().filter(|reason| Some(*reason) != withheld.as_ref().map(|w| w.reason)) {
        let why = withheld.map_or_else(|| "nothing is withheld".to_owned(), |w| format!("{} ({})", w.reason, w.message));
        out.push(format!("withheld: expected {reason}, got {why}"));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn world() -> World {
        let object = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "polity.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": "a"}, "spec": spec});
        World::from_objects(vec![
            json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Org", "metadata": {"name": "a"}, "spec": {}}),
            object("Agent", "bot", json!({"type": "AI", "image": "i", "command": ["c"]})),
            object("Role", "r", json!({"grants": [{"tools": ["*"]}], "jobSpace": "audit", "assignment": {"agents": ["bot"]}})),
            object("Tool", "t", json!({"runtime": {}})),
            object(
                "Policy",
                "p",
                json!({"mode": "Warn", "rules": [{"name": "late", "expression": "now < timestamp('2026-02-01T00:00:00Z')", "effect": "Deny"}]}),
            ),
        ])
    }

    fn run_one(fixture: Value) -> FixtureResult {
        let fixture: Fixture = serde_json::from_value(fixture).unwrap();
        run_fixtures(&world(), &[fixture]).remove(0)
    }

    #[test]
    fn compares_what_is_given_and_says_what_differs() {
        let task = json!({"name": "t", "jobSpace": "audit"});
        let fixture = |expect: Value| json!({"name": "x", "org": "a", "agent": "bot", "tool": "t", "task": task, "expect": expect});
        assert!(run_one(fixture(json!({"verdict": "Allow", "rules": [], "advisory": []}))).passed());
        let wrong = run_one(fixture(json!({"verdict": "Deny", "reason": "PolicyDenied", "rules": ["a/p/late"]})));
        assert_eq!(wrong.failures.len(), 3, "{wrong:?}");
        assert!(wrong.failures[0].starts_with("verdict: expected Deny, got Allow"));
        let mut later = fixture(json!({"verdict": "Allow", "advisory": ["a/p/late"]}));
        later["now"] = json!("2026-03-01T00:00:00Z");
        assert!(run_one(later).passed());
        let mut bare = fixture(json!({"verdict": "Deny", "reason": "NotGranted"}));
        bare["task"] = Value::Null;
        bare["jobSpace"] = json!("audit");
        assert!(run_one(bare).passed());
    }

    #[test]
    fn a_wrong_fixture_fails() {
        let expect = json!({"verdict": "Deny"});
        for (fixture, want) in [
            (json!({"name": "x", "org": "a", "tool": "t", "expect": expect}), "either agent or caller"),
            (json!({"name": "x", "org": "a", "tool": "t", "agent": "bot", "caller": "c", "expect": expect}), "either agent or caller"),
            (json!({"name": "x", "org": "a", "tool": "t", "agent": "nobody", "expect": expect}), "no Agent nobody"),
        ] {
            let result = run_one(fixture);
            assert!(!result.passed() && result.decision.is_none() && result.failures[0].contains(want), "{result:?}");
        }
        assert!(
            serde_json::from_value::<Fixture>(json!({"name": "x", "org": "a", "tool": "t", "expct": {}, "expect": {"verdict": "Deny"}}))
                .is_err()
        );
    }
}

//! `policy replay`: recorded decisions against a candidate Policy, before it is enforced: what would change, and what it cannot say.
//!
//! Each recorded call is decided twice from manifests: with the organisation as given, and with the candidate in it. Only where the first
//! gives what was recorded does the second prove anything; all else is listed as not covered, with the reason. Records are read, never verified:
//! that is `audit verify`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use polity_api::{Policy, caller::Caller, reasons};
use polity_ledger::{Record, read_lines, record::kind};
use polity_policy::{Decision, Past, Request, Snapshot, TaskFacts, World};
use serde::Serialize;
use serde_json::json;

use super::{
    manifests::{self, Misshapen},
    told::Told,
};
use crate::{Verdict, args::Output, table, yaml::documents};

/// The only verb that is decided so far.
const VERB: &str = "tool.call";
/// Record of a denial.
const DECISION: &str = "decision";

/// One call whose decision would change.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    seq: i64,
    time: String,
    agent: String,
    tool: String,
    was: String,
    would_be: &'static str,
    reason: &'static str,
    message: String,
    rules: Vec<String>,
}

/// What became of all records.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// Calls found.
    calls: usize,
    /// Of these, decided alike with and without the candidate.
    unchanged: usize,
    changed: Vec<Change>,
    /// Why, and how many.
    not_covered: BTreeMap<String, usize>,
}

pub fn run(paths: &[PathBuf], candidates: &[PathBuf], records: &Path, output: Output, out: &mut dyn Write) -> Result<Verdict> {
    let (now, misshapen) = manifests::read(paths)?;
    refuse(&misshapen)?;
    let candidate = with(&now, candidates)?;
    let reader: Box<dyn Read> = if records == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(records).with_context(|| format!("cannot read {}", records.display()))?)
    };
    let mut replay = Replay { now: Views::new(&now), candidate: Views::new(&candidate), seen: BTreeSet::new(), report: Report::default() };
    for (line, record) in read_lines(BufReader::new(reader)).enumerate() {
        let record = record.with_context(|| format!("{}, record {}", records.display(), line + 1))?;
        replay.take(&record);
    }
    show(&replay.report, output, out)
}

fn refuse(misshapen: &[Misshapen]) -> Result<()> {
    match misshapen.first() {
        Some(first) => bail!("{} ({}): {}", first.object, first.file, first.problem),
        None => Ok(()),
    }
}

/// The organisation with the candidate Policies in place of those of the same name, or added.
fn with(now: &World, candidates: &[PathBuf]) -> Result<World> {
    let mut world = now.clone();
    for document in documents(candidates)? {
        refuse(&manifests::problems(&document)?)?;
        let file = document.file.display().to_string();
        if document.value["kind"] != "Policy" {
            bail!("{file}: a candidate is a Policy; everything else belongs to the organisation (-f)");
        }
        let policy: Policy = serde_json::from_value(document.value).with_context(|| format!("{file} is no Policy"))?;
        let (Some(namespace), Some(name)) = (policy.metadata.namespace.clone(), policy.metadata.name.clone()) else {
            bail!("{file}: a candidate needs metadata.namespace and metadata.name");
        };
        if world.org_of(&namespace).is_none() {
            bail!("{file}: namespace {namespace:?} belongs to no Org among the manifests");
        }
        world.policies.insert((namespace, name), Arc::new(policy));
    }
    Ok(world)
}

/// A view of each Org, built when it is first needed.
struct Views<'a> {
    world: &'a World,
    built: BTreeMap<String, Snapshot>,
}

impl<'a> Views<'a> {
    fn new(world: &'a World) -> Self {
        Self { world, built: BTreeMap::new() }
    }

    fn of(&mut self, org: &str) -> &Snapshot {
        self.built.entry(org.to_owned()).or_insert_with(|| Snapshot::build(self.world, org))
    }
}

struct Replay<'a> {
    now: Views<'a>,
    candidate: Views<'a>,
    /// Actions that were counted: a call that waited has a record for the question and one for its start.
    seen: BTreeSet<String>,
    report: Report,
}

impl Replay<'_> {
    fn take(&mut self, record: &Record) {
        let decided = matches!(record.kind.as_str(), kind::HOLD | kind::BEGIN | DECISION);
        if !decided || record.verb != VERB || !self.seen.insert(record.action.clone()) {
            return;
        }
        self.report.calls += 1;
        match self.change(record) {
            Ok(None) => self.report.unchanged += 1,
            Ok(Some(change)) => self.report.changed.push(change),
            Err(why) => *self.report.not_covered.entry(why).or_default() += 1,
        }
    }

    /// What would change, if anything; the error says why this record proves nothing.
    fn change(&mut self, record: &Record) -> Result<Option<Change>, String> {
        let args = record.input_text.as_ref().ok_or("the input was not kept (Org.spec.record.input is Digest)")?;
        let actor = record.actor.as_ref().ok_or("the record names no caller")?;
        let target = record.target.as_ref().ok_or("the record names no Tool")?;
        let verdict = record.verdict.as_ref().ok_or("the record has no verdict")?;
        let org = &record.org.name;
        if !self.now.world.orgs.contains_key(org) {
            return Err("its Org is not among the manifests".to_owned());
        }
        let tool_org = self.now.world.org_of(&target.namespace).filter(|of| of != org).map(str::to_owned);
        let caller = Caller { username: actor.username.clone(), ..Caller::default() };
        let space = Some(record.job_space.clone()).filter(|s| !s.is_empty());
        let task = Some(record.task.clone()).filter(|t| !t.is_empty()).map(|name| TaskFacts {
            uid: format!("task-{name}"),
            name,
            job_space: space.clone(),
            cancel: false,
        });
        let told = Told::of(record.past.as_ref(), self.now.world, self.now.world);
        let request = Request {
            verb: VERB,
            tool: &target.name,
            tool_org: tool_org.as_deref(),
            args,
            caller: &caller,
            task: task.as_ref(),
            job_space: space.as_deref().filter(|_| task.is_none()),
            context: Some(record.context.as_str()).filter(|c| !c.is_empty()),
            id: "replay",
            approved: &[],
            now: record.time,
            past: Past::Known(&told.known),
        };
        let now = self.now.of(org).decide(&request);
        if now.reason == reasons::COUNTERS_UNKNOWN {
            return Err(told.lacks(&now.counting));
        }
        if now.verdict.name() != verdict.effect || now.reason != verdict.reason {
            return Err(
                "the manifests do not give what was recorded (the organisation has changed since, or approvals or groups of the caller counted)".to_owned(),
            );
        }
        let told = Told::of(record.past.as_ref(), self.now.world, self.candidate.world);
        let would = self.candidate.of(org).decide(&Request { past: Past::Known(&told.known), ..request });
        if would.reason == reasons::COUNTERS_UNKNOWN {
            return Err(told.lacks(&would.counting));
        }
        let same = |a: &Decision, b: &Decision| a.verdict == b.verdict && a.reason == b.reason && a.requirements == b.requirements;
        if same(&now, &would) {
            return Ok(None);
        }
        Ok(Some(Change {
            seq: record.seq,
            time: record.time.to_string(),
            agent: if actor.agent.is_empty() { actor.username.clone() } else { actor.agent.clone() },
            tool: format!("{}/{}", target.namespace, target.name),
            was: verdict.effect.clone(),
            would_be: would.verdict.name(),
            reason: would.reason,
            message: would.message,
            rules: would.rules,
        }))
    }
}

fn show(report: &Report, output: Output, out: &mut dyn Write) -> Result<Verdict> {
    let good = if report.changed.is_empty() { Verdict::Good } else { Verdict::Bad };
    if output == Output::Json {
        writeln!(out, "{}", json!(report))?;
        return Ok(good);
    }
    let rows: Vec<Vec<String>> = report.changed.iter().map(row).collect();
    table::print(out, &["SEQ", "TIME", "AGENT", "TOOL", "WAS", "WOULD BE", "RULES"], &rows)?;
    writeln!(out, "{} calls: {} would be decided otherwise, {} alike", report.calls, report.changed.len(), report.unchanged)?;
    for (why, count) in &report.not_covered {
        writeln!(out, "not covered: {count}, {why}")?;
    }
    Ok(good)
}

fn row(change: &Change) -> Vec<String> {
    let Change { seq, time, agent, tool, was, would_be, rules, reason: _, message: _ } = change;
    vec![seq.to_string(), time.clone(), agent.clone(), tool.clone(), was.clone(), (*would_be).to_owned(), rules.join(", ")]
}

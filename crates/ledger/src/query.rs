//! Reading a chain page by page, all of it or what a filter lets through.
//!
//! A page looks at a bounded number of records, so that a filter that lets nothing through still ends soon; where it
//! stopped is in the answer. Lines are given as they were hashed, with their hash. Nothing here writes.

use std::ops::ControlFlow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::chain::position;
use crate::fault::{Fault, Outcome};
use crate::record::{Entry, Record, line_of};
use crate::root::Root;
use crate::store::{Db, values};

/// Most records that one page looks at.
pub const MAX_PAGE: i64 = 10_000;
/// A page ends early once its lines are longer than this, in bytes.
const MAX_BYTES: usize = 4 << 20;

/// Which records are wanted. What is empty lets all through; all that is given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Filter {
    /// Written at this time or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Written before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Kind of the record, e.g. `begin`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Agent, as `namespace/name` or its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub agent: String,
    /// Name of the Tool acted upon.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tool: String,
    /// Task of the action.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task: String,
    /// Effect of the verdict: `Allow`, `Deny` or `RequireApproval`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub verdict: String,
    /// Trace id (32 hex digits) or the whole traceparent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trace: String,
    /// Id of the action.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub action: String,
}

impl Filter {
    /// Whether it lets every record through.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it lets this record through.
    #[must_use]
    pub fn lets(&self, entry: &Entry) -> bool {
        let is = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        let agent = entry.actor.as_ref().map(|a| a.agent.as_str()).unwrap_or_default();
        let name = agent.split_once('/').map_or(agent, |(_, name)| name);
        let tool = entry.target.as_ref().filter(|t| t.kind == "Tool").map(|t| t.name.as_str()).unwrap_or_default();
        let effect = entry.verdict.as_ref().map(|v| v.effect.as_str()).unwrap_or_default();
        let trace_id = entry.trace.split('-').nth(1).unwrap_or_default();
        self.since.is_none_or(|since| entry.time >= since)
            && self.until.is_none_or(|until| entry.time < until)
            && is(&self.kind, &entry.kind)
            && (is(&self.agent, agent) || self.agent == name)
            && is(&self.tool, tool)
            && is(&self.task, &entry.task)
            && is(&self.verdict, effect)
            && (is(&self.trace, &entry.trace) || self.trace == trace_id)
            && is(&self.action, &entry.action)
    }
}

/// One page of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// Exported lines, in the order of the chain.
    pub lines: Vec<String>,
    /// Sequence of the last record looked at: the next page comes after it.
    pub next: i64,
    /// Sequence of the chain's last record; 0 where there is no chain.
    pub head: i64,
    /// Sequence of the oldest record that is left: what came before was dropped by retention. 0 where it is not told.
    #[serde(default)]
    pub first: i64,
}

/// The records after a sequence that the filter lets through, of at most `limit` looked at.
pub(crate) fn page(db: &Db, uid: &str, after: i64, limit: i64, filter: &Filter, roots: bool) -> Outcome<Page> {
    let after = after.max(0);
    let org: Option<(i64, i64)> = db.row("SELECT n, seq FROM orgs WHERE uid = ?1", values![uid], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some((n, head)) = org else { return Ok(Page { next: after, ..Page::default() }) };
    let zero = position(n, 0)?;
    let sql = "SELECT pos FROM records WHERE pos >= ?1 AND pos < ?2 ORDER BY pos LIMIT 1";
    let oldest: Option<i64> = db.row(sql, values![zero, position(n + 1, 0)?], |row| row.get(0))?;
    let first = oldest.map_or(0, |pos| pos - zero);
    let mut page = Page { lines: Vec::new(), next: after, head, first };
    if after >= head {
        return Ok(page);
    }
    let sql = "SELECT pos, text, hash FROM records WHERE pos > ?1 AND pos < ?2 ORDER BY pos LIMIT ?3";
    let from = position(n, after)?;
    let mut roots = if roots { Roots::after(db, n, after)? } else { Roots::default() };
    let all = filter.is_all();
    let mut bytes = 0;
    db.each(sql, values![from, position(n + 1, 0)?, limit.clamp(1, MAX_PAGE)], |row| {
        let (pos, text, hash): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        page.next = after + (pos - from);
        // Roots of segments that were dropped.
        roots.before(page.next, &mut page.lines);
        let entry = || serde_json::from_str::<Entry>(&text).map_err(|e| Fault::Stored(format!("record {}: {e}", page.next)));
        if all || filter.lets(&entry()?) {
            let line = line_of(&text, &hash);
            bytes += line.len();
            page.lines.push(line);
        }
        roots.before(page.next + 1, &mut page.lines);
        Ok(if bytes > MAX_BYTES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(page)
}

/// Records after a sequence whose verdict has advice, and the sequence of the last one looked at.
pub(crate) fn advised(db: &Db, uid: &str, after: i64, limit: i64) -> Outcome<(Vec<Record>, i64)> {
    let org: Option<(i64, i64)> = db.row("SELECT n, seq FROM orgs WHERE uid = ?1", values![uid], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some((n, head)) = org else { return Ok((Vec::new(), after)) };
    let last = head.min(after.saturating_add(limit.clamp(1, MAX_PAGE)));
    // How such a verdict begins in the canonical text. Texts of others that look the same only cost a look.
    let sql = r#"SELECT text, hash FROM records WHERE pos > ?1 AND pos <= ?2 AND text LIKE '%"verdict":{"advisory":[{%' ORDER BY pos"#;
    let mut found = Vec::new();
    db.each(sql, values![position(n, after)?, position(n, last)?], |row| {
        let record = Record::stored(row.get(0)?, row.get(1)?).map_err(|e| Fault::Stored(e.to_string()))?;
        found.extend(Some(record).filter(|r| r.verdict.as_ref().is_some_and(|v| !v.advisory.is_empty())));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((found, last.max(after)))
}

/// Roots that are not given yet, the last one first.
#[derive(Default)]
struct Roots(Vec<(i64, String)>);

impl Roots {
    fn after(db: &Db, org: i64, after: i64) -> Outcome<Self> {
        let sql = "SELECT last, text, signature FROM roots WHERE org = ?1 AND last > ?2 ORDER BY segment DESC";
        let found = db.rows(sql, values![org, after], |row| {
            let root = Root::stored(row.get(1)?, row.get(2)?).map_err(|e| Fault::Stored(format!("a root: {e}")))?;
            Ok((row.get(0)?, root.to_line()))
        })?;
        Ok(Self(found))
    }

    /// Gives those of segments that end before a sequence.
    fn before(&mut self, seq: i64, lines: &mut Vec<String>) {
        while self.0.last().is_some_and(|(last, _)| *last < seq) {
            lines.extend(self.0.pop().map(|(_, line)| line));
        }
    }
}

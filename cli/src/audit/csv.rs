//! Records as CSV (RFC 4180): one row a record, the fields that people ask for. What a column cannot hold is in the JSON only.

use polity_ledger::Record;

/// Names of the columns.
const COLUMNS: [&str; 27] = [
    "seq",
    "time",
    "kind",
    "action",
    "verb",
    "actorType",
    "agent",
    "username",
    "roles",
    "targetKind",
    "targetNamespace",
    "target",
    "effect",
    "reason",
    "message",
    "rules",
    "approvals",
    "outcome",
    "task",
    "jobSpace",
    "trace",
    "microUSD",
    "durationMs",
    "executor",
    "by",
    "snapshot",
    "hash",
];

/// The first line.
pub fn header() -> String {
    COLUMNS.join(",")
}

/// The line of a record.
pub fn row(record: &Record) -> String {
    let actor = record.actor.clone().unwrap_or_default();
    let target = record.target.clone().unwrap_or_default();
    let verdict = record.verdict.clone().unwrap_or_default();
    let number = |value: Option<i64>| value.map(|v| v.to_string()).unwrap_or_default();
    let cells = [
        record.seq.to_string(),
        record.time.to_string(),
        record.kind.clone(),
        record.action.clone(),
        record.verb.clone(),
        actor.kind,
        actor.agent,
        actor.username,
        actor.roles.join(" "),
        target.kind,
        target.namespace,
        target.name,
        verdict.effect,
        record.reason.clone(),
        record.message.clone(),
        verdict.rules.join(" "),
        verdict.approvals.join(" "),
        record.outcome.clone(),
        record.task.clone(),
        record.job_space.clone(),
        record.trace.clone(),
        number(record.cost.as_ref().map(|c| c.micro_usd)),
        number(record.duration_ms),
        record.executor.clone(),
        record.by.clone(),
        record.snapshot.clone(),
        record.hash().to_owned(),
    ];
    cells.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(",")
}

/// A cell. One that a spreadsheet would run as a formula is led by an apostrophe: its text came from strangers.
fn quoted(cell: &str) -> String {
    let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let cell = if formula { format!("'{cell}") } else { cell.to_owned() };
    if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells() {
        for (given, wanted) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"no\"", "\"say \"\"no\"\"\""),
            ("=1+1", "'=1+1"),
            ("a\nb", "\"a\nb\""),
            ("", ""),
        ] {
            assert_eq!(quoted(given), wanted);
        }
    }
}

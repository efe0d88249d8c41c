//! `audit query`, `audit export` and `audit verify`: records from the edge, from a ledger's directory, or from files. Writes no ledger.

mod csv;
mod follow;
pub mod source;

use std::{
    fs::File,
    io::{BufReader, BufWriter, Read, Write},
    path::Path,
};

use anyhow::{Context, Result};
use polity_ledger::{Broken, Expect, Filter, Head, Line, Unreadable, Verified, line_schema, read_export, verify_with};
use serde_json::json;

use self::source::Source;
use crate::{
    Verdict,
    args::{AuditCommand, FilterArgs, Output, RecordOutput, SourceArgs},
};

/// Runs one of the commands.
pub fn run(command: &AuditCommand, out: &mut dyn Write) -> Result<Verdict> {
    match command {
        AuditCommand::Verify { file, source, head, org_uid, installation, keys, output } => {
            let expect = Expect { head: head.clone(), org_uid: org_uid.clone(), installation: installation.clone(), keys: keys.clone() };
            let found = match file {
                Some(file) => verify_with(read_export(BufReader::new(read(file)?)), &expect),
                None => verify_with(whole(source)?, &expect),
            };
            report(&found, &expect, *output, out)
        }
        AuditCommand::Schema => {
            writeln!(out, "{}", serde_json::to_string_pretty(&line_schema())?)?;
            Ok(Verdict::Good)
        }
        AuditCommand::Query { source, filter, limit, follow, output } => {
            let what = What { after: 0, filter: wanted(filter)?, roots: false, most: limit.unwrap_or(usize::MAX), follow: *follow };
            print(source, &what, *output, out)
        }
        AuditCommand::Export { source, from, output } => {
            // Roots make sense only to who has the chain from its first record on.
            let roots = *from <= 1 && *output == RecordOutput::Ndjson;
            let what = What { after: from - 1, filter: Filter::default(), roots, most: usize::MAX, follow: false };
            print(source, &what, *output, out)
        }
    }
}

fn wanted(args: &FilterArgs) -> Result<Filter> {
    let time = |name: &str, text: &Option<String>| {
        let parse = |text: &String| serde_json::from_value(json!(text)).with_context(|| format!("--{name} is no time: {text}"));
        text.as_ref().map(parse).transpose()
    };
    Ok(Filter {
        since: time("since", &args.since)?,
        until: time("until", &args.until)?,
        kind: args.kind.clone(),
        agent: args.agent.clone(),
        tool: args.tool.clone(),
        task: args.task.clone(),
        verdict: args.verdict.clone(),
        trace: args.trace.clone(),
        action: args.action.clone(),
    })
}

/// Which records are printed.
struct What {
    after: i64,
    filter: Filter,
    roots: bool,
    most: usize,
    /// Then those that come.
    follow: bool,
}

fn print(source: &SourceArgs, what: &What, output: RecordOutput, out: &mut dyn Write) -> Result<Verdict> {
    let mut out = BufWriter::new(out);
    if output == RecordOutput::Csv {
        writeln!(out, "{}", csv::header())?;
    }
    let mut shown = 0;
    let mut show = |line: &str, at_once: bool| {
        if shown >= what.most {
            return Ok(false);
        }
        shown += 1;
        match output {
            RecordOutput::Ndjson => writeln!(out, "{line}")?,
            RecordOutput::Csv => {
                if let Line::Record(record) = Line::read(line)? {
                    writeln!(out, "{}", csv::row(&record))?;
                }
            }
        }
        if at_once {
            out.flush()?;
        }
        Ok(!what.follow || shown < what.most)
    };
    let source = Source::open(source)?;
    let stopped = source.walk(what.after, &what.filter, what.roots, |line| show(line, what.follow))?;
    if let Some(after) = stopped.filter(|_| what.follow) {
        source.follow(after, &what.filter, |line| show(line, true))?;
    }
    out.flush()?;
    Ok(Verdict::Good)
}

/// Reads `SEQ:HASH`.
pub fn head(text: &str) -> Result<Head, String> {
    let wrong = || "expected SEQ:HASH, as in Org.status.ledger".to_owned();
    let (seq, hash) = text.split_once(':').ok_or_else(wrong)?;
    let seq = seq.parse().ok().filter(|seq| *seq > 0).ok_or_else(wrong)?;
    if hash.len() != 64 || !hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(wrong());
    }
    Ok(Head { seq, hash: hash.to_owned() })
}

fn read(file: &Path) -> Result<Box<dyn Read>> {
    if file == Path::new("-") {
        return Ok(Box::new(std::io::stdin()));
    }
    Ok(Box::new(File::open(file).with_context(|| format!("cannot read {}", file.display()))?))
}

/// Every line of a chain, as an export has them.
fn whole(source: &SourceArgs) -> Result<Vec<Result<Line, Unreadable>>> {
    let mut lines = Vec::new();
    Source::open(source)?.walk(0, &Filter::default(), true, |line| {
        lines.push(Line::read(line));
        Ok(true)
    })?;
    Ok(lines)
}

fn report(found: &Result<Verified, Broken>, expect: &Expect, output: Output, out: &mut dyn Write) -> Result<Verdict> {
    let empty = found.as_ref().is_ok_and(|v| v.records == 0);
    match (found, output) {
        (Ok(v), Output::Json) => writeln!(out, "{}", json!({"whole": !empty, "verified": v}))?,
        (Err(broken), Output::Json) => writeln!(out, "{}", json!({"whole": false, "broken": broken}))?,
        (Ok(_), Output::Table) if empty => writeln!(out, "BROKEN: there are no records")?,
        (Ok(v), Output::Table) => {
            let hash = v.head.as_ref().map(|h| h.hash.as_str()).unwrap_or_default();
            writeln!(
                out,
                "whole: {} records of Org {} (uid {}) of installation {}, head {}:{hash}",
                v.records, v.org, v.org_uid, v.installation, v.records
            )?;
            if v.roots > 0 {
                writeln!(
                    out,
                    "signed: {} roots up to record {}, keys {}; dropped by retention: {}",
                    v.roots,
                    v.sealed,
                    v.keys.join(" "),
                    v.dropped
                )?;
            }
            if expect.head.is_none() {
                writeln!(out, "Without --head a tail that was cut off cannot be noticed: give SEQ:HASH from Org.status.ledger.")?;
            }
        }
        (Err(broken), Output::Table) => writeln!(out, "BROKEN: {broken}")?,
    }
    Ok(if found.is_ok() && !empty { Verdict::Good } else { Verdict::Bad })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let hash = "a".repeat(64);
        assert_eq!(head(&format!("7:{hash}")), Ok(Head { seq: 7, hash }));
        for bad in ["", "7", "0:aa", "7:aa", &format!("x:{}", "a".repeat(64)), &format!("7:{}", "A".repeat(64))] {
            assert!(head(bad).is_err(), "{bad}");
        }
    }
}

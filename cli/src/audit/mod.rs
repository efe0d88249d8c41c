//! `audit verify` and `audit export`: records from files and from a ledger's directory. Opens no connection and writes no ledger.

use std::{
    fs::File,
    io::{BufReader, Read, Write},
    path::Path,
};

use anyhow::{Context, Result, bail};
use polity_ledger::{Expect, Head, OrgId, open_read_only, read_lines, verify_with};
use serde_json::json;

use crate::{
    Verdict,
    args::{AuditCommand, Output},
};

/// Runs one of the commands.
pub fn run(command: &AuditCommand, out: &mut dyn Write) -> Result<Verdict> {
    match command {
        AuditCommand::Verify { file, head, org_uid, installation, output } => {
            let expect = Expect { head: head.clone(), org_uid: org_uid.clone(), installation: installation.clone() };
            verify(file, &expect, *output, out)
        }
        AuditCommand::Export { dir, org, from } => export(dir, org, *from, out),
    }
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

fn verify(file: &Path, expect: &Expect, output: Output, out: &mut dyn Write) -> Result<Verdict> {
    let reader: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(file).with_context(|| format!("cannot read {}", file.display()))?)
    };
    let found = verify_with(read_lines(BufReader::new(reader)), expect);
    let empty = found.as_ref().is_ok_and(|v| v.records == 0);
    match (&found, output) {
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
            if expect.head.is_none() {
                writeln!(out, "Without --head a tail that was cut off cannot be noticed: give SEQ:HASH from Org.status.ledger.")?;
            }
        }
        (Err(broken), Output::Table) => writeln!(out, "BROKEN: {broken}")?,
    }
    Ok(if found.is_ok() && !empty { Verdict::Good } else { Verdict::Bad })
}

fn export(dir: &Path, org: &str, from: i64, out: &mut dyn Write) -> Result<Verdict> {
    let ledger = open_read_only(dir).with_context(|| format!("cannot open the ledger in {}", dir.display()))?;
    let orgs = ledger.orgs()?;
    let known = || orgs.iter().map(|o| format!("{} (uid {})", o.name, o.uid)).collect::<Vec<_>>().join(", ");
    let found: Vec<&OrgId> = orgs.iter().filter(|o| o.uid == org || o.name == org).collect();
    let [org] = found[..] else {
        // An Org made again under the same name has a chain of its own.
        let what = if found.is_empty() { "no chain" } else { "more than one chain" };
        bail!("there is {what} of {org:?}; the ledger has {}", known());
    };
    for record in ledger.records(org) {
        let record = record?;
        if record.seq >= from {
            writeln!(out, "{}", record.to_line())?;
        }
    }
    out.flush()?;
    Ok(Verdict::Good)
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

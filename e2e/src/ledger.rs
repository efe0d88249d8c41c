//! The three invariants, checked on core's own ledger files: no effect without `begin`, no spend above a budget, no gap in a chain.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, Result, ensure};
use polity_ledger::{Filter, Line, MAX_PAGE, OrgId, ReadOnly, Record, Unreadable, open_read_only, verify};

/// Records of an Org, by its uid.
///
/// # Errors
/// The ledger cannot be read.
pub fn records(data: &Path, org_uid: &str) -> Result<Vec<Record>> {
    let ledger = open_read_only(data).map_err(|e| anyhow::anyhow!("{e}"))?;
    let org = ledger.orgs()?.into_iter().find(|o| o.uid == org_uid).with_context(|| format!("no chain of Org {org_uid}"))?;
    ledger.records(&org).map(|r| r.map_err(anyhow::Error::from)).collect()
}

/// Every line of a chain with its signed roots, which tell of what retention has dropped.
fn whole(ledger: &ReadOnly, org: &OrgId) -> Result<Vec<Result<Line, Unreadable>>> {
    let (mut lines, mut after) = (Vec::new(), 0);
    loop {
        let page = ledger.page(org, after, MAX_PAGE, &Filter::default(), true)?;
        lines.extend(page.lines.iter().map(|line| Line::read(line)));
        if page.next <= after || page.next >= page.head {
            return Ok(lines);
        }
        after = page.next;
    }
}

/// Checks every chain of the ledger, and that every settlement of a run has its `begin` before it, once.
///
/// # Errors
/// An invariant is broken; the message names the record.
pub fn check(data: &Path) -> Result<usize> {
    let ledger = open_read_only(data).map_err(|e| anyhow::anyhow!("{e}"))?;
    let mut count = 0;
    for org in ledger.orgs()? {
        verify(whole(&ledger, &org)?).map_err(|e| anyhow::anyhow!("chain of {}: {e}", org.name))?;
        let mut begun: BTreeSet<String> = BTreeSet::new();
        for record in ledger.records(&org) {
            let record = record?;
            let line: serde_json::Value = serde_json::from_str(&record.to_line())?;
            let (kind, id) = (line["kind"].as_str().unwrap_or_default(), line["action"].as_str().unwrap_or_default().to_owned());
            match kind {
                "begin" => ensure!(begun.insert(id.clone()), "{}: {id} began twice", org.name),
                "settle" | "resolution" => ensure!(begun.contains(&id), "{}: {id} settled without begin", org.name),
                _ => {}
            }
            count += 1;
        }
    }
    Ok(count)
}

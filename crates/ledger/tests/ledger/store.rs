//! The store, whichever it is: its lock, and its checks at the opening.

use std::sync::Arc;

use polity_ledger::{Clock, Config, Ledger, OpenError, Refused};

use crate::common::{HandClock, Rig};

fn open(config: Config) -> Result<Ledger, OpenError> {
    Ledger::open(config, HandClock::new() as Arc<dyn Clock>)
}

#[tokio::test]
async fn a_second_opener_is_told_so() {
    let rig = Rig::new();
    let error = open(rig.home.config("test")).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }));
    assert!(error.to_string().contains("another process"), "{error}");
    rig.ledger.close().await;
    rig.ledger.close().await;
    let closed = rig.ledger.begin(1, rig.begin("a", 1, 1)).await.unwrap_err();
    assert!(matches!(closed, Refused::LedgerUnavailable { .. }));
    assert!(matches!(rig.ledger.orgs().await, Err(Refused::LedgerUnavailable { .. })));
    let next = open(rig.home.config("test")).unwrap();
    next.begin(1, rig.begin("a", 1, 1)).await.unwrap();
}

#[tokio::test]
async fn a_ledger_of_others_is_refused() {
    let rig = Rig::new();
    rig.ledger.close().await;
    let error = open(rig.home.config("other")).unwrap_err();
    assert!(matches!(error, OpenError::OtherInstallation { .. }));
    rig.home.make_newer();
    assert!(matches!(open(rig.home.config("test")), Err(OpenError::Newer { found: 99, .. })));
    assert!(matches!(open(rig.home.config("")), Err(OpenError::Config(_))));
}

#[tokio::test]
async fn a_damaged_head_is_found_at_the_opening() {
    for damage in [
        "UPDATE records SET text = replace(text, 'tool.call', 'tool.cali') WHERE pos = (SELECT max(pos) FROM records)",
        "DELETE FROM records WHERE pos = (SELECT max(pos) FROM records)",
        "DELETE FROM records",
        "UPDATE orgs SET seq = seq + 1",
    ] {
        let rig = Rig::new();
        rig.ledger.begin(1, rig.begin("a", 1, 1)).await.unwrap();
        rig.ledger.close().await;
        rig.home.execute(damage);
        let error = open(rig.home.config("test")).unwrap_err();
        assert!(matches!(error, OpenError::Inconsistent { .. }), "{damage}: {error}");
    }
}

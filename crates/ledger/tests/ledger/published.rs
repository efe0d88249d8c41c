//! The published schema: the file says what the types say, and what is exported fits it.

use polity_ledger::{Advised, CounterRead, Filter, Note, Outcome, Past, Sealing, line_schema};
use serde_json::{Value, json};

use crate::common::{Rig, org, settle, subject};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/schemas/ledger-line.v1.json");

/// `POLITY_WRITE_SCHEMAS=1 cargo test -p polity-ledger published` writes it anew.
#[test]
fn the_file_is_what_the_types_say() {
    let wanted = format!("{}\n", serde_json::to_string_pretty(&line_schema()).unwrap());
    if std::env::var_os("POLITY_WRITE_SCHEMAS").is_some() {
        std::fs::write(FILE, &wanted).unwrap();
    }
    assert!(std::fs::read_to_string(FILE).unwrap() == wanted, "{FILE} is stale: set POLITY_WRITE_SCHEMAS=1 and run this test");
}

#[tokio::test]
async fn exported_lines_fit() {
    let rig = Rig::new();
    rig.ledger.hold(1, rig.hold("held", 1, 10)).await.unwrap();
    rig.ledger.begin(1, rig.begin("held", 1, 10)).await.unwrap();
    let mut full = rig.begin("full", 1, 10);
    full.subject.keep_input = true;
    full.subject.verdict.rules = vec!["acme/limits/amount".to_owned()];
    full.subject.verdict.advisory = vec![Advised { rule: "acme/trial/most".to_owned(), effect: "Deny".to_owned(), policy: "0".repeat(64) }];
    let spent =
        CounterRead { policy: "acme/limits".to_owned(), name: "spent".to_owned(), window: 86_400, by: vec!["agent".to_owned()], value: 40 };
    let past = Past {
        counters: vec![spent],
        calls: Some(0),
        labels: [("secret".to_owned(), false)].into(),
        tools: [("mail".to_owned(), 2)].into(),
    };
    full.subject.past = Some(past.clone());
    rig.ledger.begin(1, full).await.unwrap();
    let (advised, last) = rig.ledger.advised(&org(), 0, 100).await.unwrap();
    assert_eq!((advised.len(), last), (1, advised[0].seq), "the last record so far");
    assert_eq!((advised[0].action.as_str(), advised[0].past.clone()), ("full", Some(past)));
    assert_eq!(rig.ledger.advised(&org(), last, 100).await.unwrap().1, last);
    let mut end = settle("full", 1, Outcome::Done);
    end.result = Some(json!({"ok": true}));
    end.facts = [("exitCode".to_owned(), json!(0)), ("redactions".to_owned(), json!({"email": 2}))].into();
    rig.ledger.settle(1, end).await.unwrap();
    let note = Note {
        kind: "decision".to_owned(),
        org: org(),
        once: None,
        subject: Some(subject("denied")),
        actor: None,
        target: None,
        reason: "PolicyDenied".to_owned(),
        facts: [].into(),
    };
    rig.ledger.note(1, note).await.unwrap();
    rig.ledger.seal(1, Sealing { records: 3, ..Sealing::default() }).await.unwrap();
    let schema = jsonschema::validator_for(&line_schema()).unwrap();
    let page = rig.ledger.page(&org().uid, 0, 100, Filter::default(), true).await.unwrap();
    assert_eq!(page.lines.len(), 8, "six records and two roots");
    for line in &page.lines {
        let value: Value = serde_json::from_str(line).unwrap();
        let errors: Vec<String> = schema.iter_errors(&value).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{line}: {errors:?}");
        for broken in ["org", "keyId", "seq", "hash", "past"] {
            let mut value = value.clone();
            if let Some(member) = value.get_mut(broken) {
                *member = json!(["wrong"]);
                assert!(!schema.is_valid(&value), "{broken} of {line}");
            }
        }
    }
}

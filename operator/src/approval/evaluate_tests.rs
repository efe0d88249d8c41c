use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use polity_api::{approval::ActionRef, caller::Caller, role::RoleRef, toolcall::Digest};
use polity_policy::World;
use serde_json::json;

use super::*;

/// Org acme: managers are ann, ben and the program bot, `ben` until second 500; bot's superior is ann.
fn acme() -> Snapshot {
    let object = |kind: &str, name: &str, spec: serde_json::Value| {
        let metadata = if kind == "Org" { json!({"name": name}) } else { json!({"name": name, "namespace": "acme"}) };
        json!({"apiVersion": "polity.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
    };
    let person = |name: &str, usernames: &[&str]| object("Agent", name, json!({"type": "Human", "usernames": usernames}));
    let mut world = World::from_objects(vec![
        object("Org", "acme", json!({})),
        person("ann", &["ann", "ann-laptop"]),
        person("ben", &["ben"]),
        person("eve", &["eve"]),
        object("Agent", "bot", json!({"type": "System", "usernames": ["bot", "system:serviceaccount:x:y"]})),
        object("Role", "manager", json!({"assignment": {"agents": ["ann", "ben", "bot"]}})),
        object("Role", "lead", json!({"assignment": {"agents": ["ann"]}})),
        object("Role", "worker", json!({"assignment": {"agents": ["bot"]}, "reportsTo": {"name": "lead"}})),
    ]);
    let manager = world.roles.get_mut(&("acme".to_owned(), "manager".to_owned())).map(std::sync::Arc::make_mut).unwrap();
    for holder in &mut manager.status.as_mut().unwrap().holders {
        holder.until = (holder.agent == "ben").then(|| Time(Timestamp::from_second(500).unwrap()));
    }
    Snapshot::build(&world, "acme")
}

fn requirement(role: Option<&str>, count: i32) -> Requirement {
    Requirement {
        rule: "n/p/r".to_owned(),
        role: role.map(|name| RoleRef { org: Some("acme".to_owned()), name: name.to_owned() }),
        group: None,
        superior: role.is_none(),
        count,
        humans_only: true,
        message: String::new(),
    }
}

fn spec(requirements: Vec<Requirement>, decisions: &[(&str, Answer)]) -> ApprovalSpec {
    let at = Timestamp::from_second(100).unwrap();
    ApprovalSpec {
        action: ActionRef::default(),
        input: serde_json::Map::new(),
        digest: Digest::default(),
        requester: Caller { username: "bot".to_owned(), ..Caller::default() },
        requirements,
        expires_at: Time(Timestamp::from_second(1_000).unwrap()),
        decisions: decisions
            .iter()
            .map(|(by, decision)| PersonDecision {
                by: (*by).to_owned(),
                decision: *decision,
                reason: None,
                at: Some(Time(at)),
                groups: vec![],
            })
            .collect(),
    }
}

fn phase(spec: &ApprovalSpec, second: i64) -> ApprovalPhase {
    evaluate(spec, &acme(), Timestamp::from_second(second).unwrap()).phase
}

#[test]
fn each_requirement_is_met_on_its_own() {
    use Answer::Approve;
    let two = || vec![requirement(Some("manager"), 2), requirement(None, 1)];
    assert_eq!(phase(&spec(two(), &[("ben", Approve)]), 200), ApprovalPhase::Pending);
    assert_eq!(phase(&spec(two(), &[("ben", Approve), ("ann", Approve)]), 200), ApprovalPhase::Approved);
}

#[test]
fn who_no_longer_holds_the_role_no_longer_counts() {
    use Answer::{Approve, Deny};
    let asked = |answer| spec(vec![requirement(Some("manager"), 1)], &[("ben", answer)]);
    assert_eq!((phase(&asked(Approve), 499), phase(&asked(Deny), 499)), (ApprovalPhase::Approved, ApprovalPhase::Denied));
    assert_eq!((phase(&asked(Approve), 500), phase(&asked(Deny), 500)), (ApprovalPhase::Pending, ApprovalPhase::Pending));
}

#[test]
fn quorum_counts_agents_not_usernames() {
    use Answer::Approve;
    let asked = || vec![requirement(Some("manager"), 2)];
    assert_eq!(phase(&spec(asked(), &[("ann", Approve), ("ann-laptop", Approve)]), 200), ApprovalPhase::Pending);
}

#[test]
fn requester_machines_and_strangers_never_count() {
    use Answer::Approve;
    for by in ["bot", "system:serviceaccount:x:y", "eve", "nobody"] {
        let standing =
            evaluate(&spec(vec![requirement(Some("manager"), 1)], &[(by, Approve)]), &acme(), Timestamp::from_second(200).unwrap());
        assert_eq!(standing.phase, ApprovalPhase::Pending, "{by}");
        assert_eq!(standing.requirements[0].ignored.len(), 1, "{by}");
    }
    let mut unstamped = spec(vec![requirement(Some("manager"), 1)], &[("ann", Approve)]);
    unstamped.decisions[0].at = None;
    assert_eq!(phase(&unstamped, 200), ApprovalPhase::Pending);
}

#[test]
fn who_asked_through_another_never_counts() {
    let mut asked = spec(vec![requirement(Some("manager"), 1)], &[("ann-laptop", Answer::Approve)]);
    asked.requester.chain = vec!["ann".to_owned()];
    assert_eq!(phase(&asked, 200), ApprovalPhase::Pending);
}

#[test]
fn one_entitled_no_denies_and_a_strangers_no_does_not() {
    use Answer::{Approve, Deny};
    let asked = || vec![requirement(Some("manager"), 1)];
    assert_eq!(phase(&spec(asked(), &[("ann", Approve), ("ben", Deny)]), 200), ApprovalPhase::Denied);
    assert_eq!(phase(&spec(asked(), &[("eve", Deny)]), 200), ApprovalPhase::Pending);
}

#[test]
fn time_is_up_at_the_second_it_says() {
    let asked = || spec(vec![requirement(Some("manager"), 1)], &[]);
    assert_eq!(phase(&asked(), 999), ApprovalPhase::Pending);
    assert_eq!(phase(&asked(), 1_000), ApprovalPhase::Expired);
}

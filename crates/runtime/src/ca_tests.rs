use super::*;

const LIVES: Lives =
    Lives { ca: SignedDuration::from_hours(300), leaf: SignedDuration::from_hours(30), spread: SignedDuration::from_mins(15) };

fn start() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn names() -> Vec<String> {
    ["polity-edge", "127.0.0.1", "polity-edge.ns.svc"].map(str::to_owned).to_vec()
}

#[test]
fn a_leaf_says_what_it_was_made_for() {
    let ca = Authority::create(start(), &LIVES).unwrap();
    let leaf = ca.issue(&names(), start(), &LIVES).unwrap();
    let facts = Facts::of_pem(&leaf.cert).unwrap();
    assert_eq!(facts.names, ["127.0.0.1", "polity-edge", "polity-edge.ns.svc"]);
    assert_eq!(facts.life.not_after, start() + LIVES.leaf);
    assert!(x509::signed_by(&leaf.cert, &ca.current.cert));
    assert_eq!(ca.leaf_due(&leaf, &names(), start(), &LIVES), None);
}

#[test]
fn renewal_is_at_two_thirds_and_never_forgotten_afterwards() {
    let ca = Authority::create(start(), &LIVES).unwrap();
    let leaf = ca.issue(&names(), start(), &LIVES).unwrap();
    let due = |hours| ca.leaf_due(&leaf, &names(), start() + SignedDuration::from_hours(hours), &LIVES).is_some();
    assert!(!due(19));
    assert!(due(20));
    assert!(due(31), "also when it has expired");
    assert!(due(-1), "also when the clock was set back");
    assert!(!ca.due(start() + SignedDuration::from_hours(199)));
    assert!(ca.due(start() + SignedDuration::from_hours(201)));
}

#[test]
fn other_names_or_another_key_or_ca_replace_a_leaf() {
    let ca = Authority::create(start(), &LIVES).unwrap();
    let leaf = ca.issue(&names(), start(), &LIVES).unwrap();
    assert!(ca.leaf_due(&leaf, &names()[..2], start(), &LIVES).is_some());
    let stranger = Authority::create(start(), &LIVES).unwrap();
    assert!(stranger.leaf_due(&leaf, &names(), start(), &LIVES).is_some());
    let torn = Pair { key: ca.issue(&names(), start(), &LIVES).unwrap().key, ..leaf };
    assert!(ca.leaf_due(&torn, &names(), start(), &LIVES).is_some());
    assert!(ca.leaf_due(&Pair { cert: "x".into(), key: "y".into() }, &names(), start(), &LIVES).is_some());
}

#[test]
fn a_new_ca_is_spread_before_it_is_used_and_the_old_one_forgotten_last() {
    let old = Authority::create(start(), &LIVES).unwrap();
    let at = start() + SignedDuration::from_hours(201);
    let leaf = old.issue(&names(), at, &LIVES).unwrap();
    let new = old.rotate(at, &LIVES).unwrap();
    assert!(new.bundle().contains(&old.current.cert) && new.bundle().contains(&new.current.cert));
    let minutes = |n| at + SignedDuration::from_mins(n);
    assert_eq!(new.leaf_due(&leaf, &names(), minutes(14), &LIVES), None);
    assert!(new.leaf_due(&leaf, &names(), minutes(15), &LIVES).is_some());
    let fresh = new.issue(&names(), minutes(15), &LIVES).unwrap();
    assert!(!new.previous_done([&fresh], minutes(29), &LIVES), "not yet spread");
    assert!(!new.previous_done([&fresh, &leaf], minutes(30), &LIVES), "a leaf of the old one is left");
    assert!(new.previous_done([&fresh], minutes(30), &LIVES));
    assert!(!old.previous_done([&leaf], minutes(30), &LIVES), "nothing to forget");
}

#[test]
fn a_leaf_never_outlives_its_ca() {
    let ca = Authority::create(start(), &LIVES).unwrap();
    let leaf = ca.issue(&names(), start() + SignedDuration::from_hours(290), &LIVES).unwrap();
    assert_eq!(life(&leaf.cert).unwrap().not_after, start() + LIVES.ca);
}

#[test]
fn a_key_does_not_leak_into_debug_output() {
    let ca = Authority::create(start(), &LIVES).unwrap();
    assert!(!format!("{ca:?}").contains("PRIVATE"));
}

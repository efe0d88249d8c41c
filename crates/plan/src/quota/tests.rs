//! Tables, and random trees whose specs, uses and writes come in any order.

use proptest::prelude::*;

use super::*;

fn amount(text: &str) -> Amount {
    Amount::parse(text).unwrap()
}
fn amounts(list: &[(&str, &str)]) -> Amounts {
    list.iter().map(|(r, a)| ((*r).to_owned(), amount(a))).collect()
}
fn unit(name: &str, parent: Option<&str>, created: i64, asks: &[(&str, &str)]) -> Unit {
    Unit {
        name: name.to_owned(),
        parent: parent.map(str::to_owned),
        created: Timestamp::from_second(created).unwrap(),
        asks: amounts(asks),
        live: Amounts::new(),
        used: Amounts::new(),
    }
}
fn hard<'a>(shares: &'a BTreeMap<String, Share>, name: &str) -> &'a Amounts {
    &shares[name].hard
}

/// Writes the plan down as if each Org had been reconciled `rounds` times.
fn settle(units: &mut [Unit], rounds: usize) {
    for _ in 0..rounds {
        for i in 0..units.len() {
            let shares = allocate(units);
            units[i].live = shares[&units[i].name].hard.clone();
        }
    }
}

#[test]
fn a_child_is_subtracted_and_waits_for_the_parent() {
    let mut units = vec![unit("root", None, 1, &[("pods", "20"), ("requests.cpu", "4")])];
    settle(&mut units, 1);
    assert_eq!(units[0].live, amounts(&[("pods", "20"), ("requests.cpu", "4")]));
    units.push(unit("child", Some("root"), 2, &[("pods", "5"), ("requests.cpu", "1500m")]));
    let shares = allocate(&units);
    assert_eq!(hard(&shares, "root"), &amounts(&[("pods", "15"), ("requests.cpu", "2500m")]));
    assert_eq!(hard(&shares, "child"), &amounts(&[("pods", "0"), ("requests.cpu", "0")]), "the root has not given it back yet");
    assert!(matches!(shares["child"].shortfall, Some(Shortfall::NotYetFree { .. })));
    settle(&mut units, 1);
    assert_eq!(units[1].live, amounts(&[("pods", "5"), ("requests.cpu", "1500m")]));
    assert_eq!(allocate(&units)["child"].shortfall, None);
}

#[test]
fn more_than_there_is_gets_nothing_and_the_elder_comes_first() {
    let units = [
        unit("root", None, 1, &[("pods", "10")]),
        unit("young", Some("root"), 3, &[("pods", "6")]),
        unit("old", Some("root"), 2, &[("pods", "6")]),
        unit("quiet", Some("root"), 4, &[]),
    ];
    let shares = allocate(&units);
    assert_eq!(shares["old"].target, amounts(&[("pods", "6")]));
    assert_eq!(shares["young"].target, amounts(&[("pods", "0")]));
    assert_eq!(
        shares["young"].shortfall,
        Some(Shortfall::Unavailable { resource: "pods".to_owned(), asked: amount("6"), left: amount("4") })
    );
    assert_eq!((shares["quiet"].target.clone(), shares["quiet"].unasked.clone()), (amounts(&[("pods", "0")]), vec!["pods".to_owned()]));
    assert_eq!(shares["root"].target, amounts(&[("pods", "4")]));
}

#[test]
fn what_the_parent_does_not_limit_a_child_may_limit_itself() {
    let mut units = vec![
        unit("root", None, 1, &[]),
        unit("child", Some("root"), 2, &[("pods", "5")]),
        unit("leaf", Some("child"), 3, &[("pods", "2")]),
    ];
    settle(&mut units, 2);
    assert_eq!(
        units.iter().map(|u| u.live.clone()).collect::<Vec<_>>(),
        [amounts(&[]), amounts(&[("pods", "3")]), amounts(&[("pods", "2")])]
    );
}

#[test]
fn shrinking_below_use_waits() {
    let mut units = vec![unit("root", None, 1, &[("pods", "10")])];
    settle(&mut units, 1);
    units[0].used = amounts(&[("pods", "8")]);
    units[0].asks = amounts(&[("pods", "3")]);
    let shares = allocate(&units);
    assert_eq!(hard(&shares, "root"), &amounts(&[("pods", "8")]));
    assert_eq!(shares["root"].shortfall, Some(Shortfall::InUse { resource: "pods".to_owned(), target: amount("3"), used: amount("8") }));
    settle(&mut units, 1);
    units[0].used = amounts(&[("pods", "1")]);
    settle(&mut units, 1);
    assert_eq!(units[0].live, amounts(&[("pods", "3")]));
}

#[derive(Clone, Debug)]
enum Event {
    Asks(usize, i64),
    Used(usize, i64),
    Write(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        1 => (0..6_usize, 0..30_i64).prop_map(|(i, n)| Event::Asks(i, n)),
        1 => (0..6_usize, 0..30_i64).prop_map(|(i, n)| Event::Used(i, n)),
        4 => (0..6_usize).prop_map(Event::Write),
    ];
    prop::collection::vec(event, 1..60)
}

proptest! {
    #[test]
    fn what_is_in_force_never_grows_above_what_the_root_has(parents in prop::collection::vec(0..5_usize, 5), history in events()) {
        let pods = |n: i64| Amounts::from([("pods".to_owned(), Amount::whole(n))]);
        let mut units = vec![unit("o0", None, 0, &[("pods", "20")])];
        for (i, parent) in parents.iter().enumerate() {
            let i = i + 1;
            units.push(unit(&format!("o{i}"), Some(&format!("o{}", parent % i)), i64::try_from(i % 3).unwrap(), &[("pods", "4")]));
        }
        let sum = |units: &[Unit]| units.iter().filter_map(|u| u.live.get("pods")).copied().sum::<Amount>();
        for event in history {
            match event {
                Event::Asks(i, n) => units[i].asks = pods(n),
                // Kubernetes lets nobody use more than is in force.
                Event::Used(i, n) => {
                    let most = units[i].live.get("pods").copied().unwrap_or_default();
                    units[i].used = Amounts::from([("pods".to_owned(), Amount::whole(n).min(most))]);
                }
                Event::Write(i) => {
                    let before = sum(&units);
                    let shares = allocate(&units);
                    units[i].live = shares[&units[i].name].hard.clone();
                    let root = units[0].asks["pods"];
                    prop_assert!(sum(&units) <= before.max(root), "{:?}", units);
                    prop_assert!(units[i].live["pods"] >= units[i].used.get("pods").copied().unwrap_or_default().min(units[i].live["pods"]));
                    // Whatever order the Orgs come in, the answer is the same.
                    let mut other = units.clone();
                    other.reverse();
                    prop_assert_eq!(allocate(&other), allocate(&units));
                }
            }
        }
        // Once nothing is used, everything settles at the targets, which add up to the root's.
        for unit in &mut units {
            unit.used.clear();
        }
        settle(&mut units, 3);
        let shares = allocate(&units);
        for unit in &units {
            prop_assert_eq!(&unit.live, &shares[&unit.name].target);
            let transient = matches!(shares[&unit.name].shortfall, Some(Shortfall::NotYetFree { .. } | Shortfall::InUse { .. }));
            prop_assert!(!transient);
        }
        prop_assert_eq!(sum(&units), units[0].asks["pods"]);
    }
}

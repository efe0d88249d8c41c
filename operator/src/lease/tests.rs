//! Two candidates, a store that is slow, cut off or emptied, clocks that differ: never do both hold.

use std::time::Duration;

use proptest::prelude::*;

use super::machine::{Machine, Mono, Seen, Timing, Want};

/// What a candidate has sent and not heard of.
#[derive(Clone, Debug)]
enum Flight {
    Read { answers: u64 },
    ReadAnswer { at: u64, seen: Option<Seen> },
    Write { arrives: u64, answers: u64, sent: Mono, epoch: i64, holds: bool, version: Option<String> },
    WriteAnswer { at: u64, sent: Mono, epoch: i64, ok: bool },
}

struct Node {
    machine: Machine,
    offset: u64,
    percent: u64,
    next: u64,
    flight: Vec<Flight>,
}

impl Node {
    fn clock(&self, now: u64) -> Mono {
        Duration::from_millis(self.offset + now * self.percent / 100)
    }
}

/// Behaviour of the network for one request.
#[derive(Clone, Copy, Debug)]
struct Weather {
    there: u64,
    back: u64,
    answer_lost: bool,
    cut: bool,
}

fn weather() -> impl Strategy<Value = Weather> {
    (0..3_u8, 0..20_000_u64, 0..20_000_u64, 0..10_u8).prop_map(|(mood, there, back, luck)| match mood {
        0 => Weather { there: there % 50, back: back % 50, answer_lost: false, cut: false },
        1 => Weather { there, back, answer_lost: luck < 3, cut: false },
        _ => Weather { there: there % 4000, back: back % 4000, answer_lost: luck < 2, cut: luck > 5 },
    })
}

struct World {
    record: Option<Seen>,
    version: u64,
    nodes: Vec<Node>,
    epochs: Vec<(usize, i64)>,
}

impl World {
    fn new(clocks: [(u64, u64); 2], floor: i64) -> Self {
        let node = |name: &str, (offset, percent)| Node {
            machine: Machine::new(name.to_owned(), Timing::default(), floor),
            offset,
            percent,
            next: 0,
            flight: Vec::new(),
        };
        Self { record: None, version: 0, nodes: vec![node("a", clocks[0]), node("b", clocks[1])], epochs: Vec::new() }
    }

    /// One millisecond step of node `i`.
    fn step(&mut self, i: usize, now: u64, weather: &mut impl FnMut() -> Weather) {
        let clock = self.nodes[i].clock(now);
        let flight = std::mem::take(&mut self.nodes[i].flight);
        for f in flight {
            let keep = match f {
                Flight::Read { answers } if now >= answers => {
                    let w = weather();
                    (!w.answer_lost).then(|| Flight::ReadAnswer { at: now + w.back, seen: self.record.clone() })
                }
                Flight::ReadAnswer { at, seen } if now >= at => match self.nodes[i].machine.read(clock, seen) {
                    Want::Wait => None,
                    want => {
                        let w = weather();
                        let (epoch, holds, version) = match want {
                            Want::Create { epoch, holds } => (epoch, holds, None),
                            Want::Replace { version, transitions } => (transitions, true, Some(version)),
                            Want::Wait => unreachable!(),
                        };
                        (!w.cut).then_some(Flight::Write { arrives: now + w.there, answers: w.back, sent: clock, epoch, holds, version })
                    }
                },
                Flight::Write { arrives, answers, sent, epoch, holds, version } if now >= arrives => {
                    let ok = self.record.as_ref().map(|r| r.version.clone()) == version;
                    if ok {
                        self.version += 1;
                        let holder = Some(self.nodes[i].machine_name());
                        self.record = Some(Seen { holder, transitions: epoch, version: self.version.to_string() });
                    }
                    let w = weather();
                    (!w.answer_lost).then_some(Flight::WriteAnswer { at: now + answers, sent, epoch, ok: ok && holds })
                }
                Flight::WriteAnswer { at, sent, epoch, ok } if now >= at => {
                    if ok {
                        self.nodes[i].machine.written(sent, epoch);
                    }
                    None
                }
                waiting => Some(waiting),
            };
            self.nodes[i].flight.extend(keep);
        }
        if now >= self.nodes[i].next {
            self.nodes[i].next = now + 2_000;
            let w = weather();
            if !w.cut {
                self.nodes[i].flight.push(Flight::Read { answers: now + w.there });
            }
        }
        if let Some(epoch) = self.nodes[i].machine.holds(clock)
            && self.epochs.last() != Some(&(i, epoch))
        {
            self.epochs.push((i, epoch));
        }
    }

    fn holders(&self, now: u64) -> usize {
        self.nodes.iter().filter(|n| n.machine.holds(n.clock(now)).is_some()).count()
    }
}

impl Node {
    fn machine_name(&self) -> String {
        format!("{:?}", self.machine).split('"').nth(1).unwrap_or_default().to_owned()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// Random delays of up to 20 s, cuts, lost answers, clock offsets of hours and speeds 10 % apart, the record deleted in mid-life.
    #[test]
    fn never_two_holders(
        offsets in (0..10_000_000_u64, 0..10_000_000_u64),
        percents in (95..=105_u64, 95..=105_u64),
        storm in prop::collection::vec(weather(), 64..256),
        deletions in prop::collection::vec(0..120_000_u64, 0..3),
    ) {
        let mut world = World::new([(offsets.0, percents.0), (offsets.1, percents.1)], 7);
        let mut turn = 0;
        let mut weather = || { turn += 1; storm[turn % storm.len()] };
        for tick in 0..6_000_u64 {
            let now = tick * 20;
            if deletions.iter().any(|d| d / 20 == tick) {
                world.record = None;
            }
            world.step(0, now, &mut weather);
            prop_assert!(world.holders(now) <= 1, "at {now}: {:?}", world.nodes.iter().map(|n| &n.machine).collect::<Vec<_>>());
            world.step(1, now, &mut weather);
            prop_assert!(world.holders(now) <= 1, "at {now}: {:?}", world.nodes.iter().map(|n| &n.machine).collect::<Vec<_>>());
        }
        // Every epoch is held by one node only, and later ones are larger. (A deleted record loses the count; the ledger's own epoch is then the floor.)
        if deletions.is_empty() {
        for pair in world.epochs.windows(2) {
            prop_assert!(pair[1].1 > pair[0].1, "{:?}", world.epochs);
        }
        }
    }
}

const FAIR: Weather = Weather { there: 5, back: 5, answer_lost: false, cut: false };
const CUT: Weather = Weather { there: 0, back: 0, answer_lost: true, cut: true };

fn run(world: &mut World, from: u64, to: u64, weather_of: impl Fn(usize) -> Weather) {
    for now in (from..to).step_by(5) {
        for i in 0..2 {
            world.step(i, now, &mut || weather_of(i));
        }
    }
}

#[test]
fn a_new_ledger_starts_at_once_and_keeps_the_lease() {
    let mut world = World::new([(0, 100), (500, 100)], 0);
    run(&mut world, 0, 60_000, |_| FAIR);
    assert_eq!(world.epochs, vec![(0, 1)]);
    assert_eq!(world.holders(59_999), 1);
}

#[test]
fn a_holder_cut_off_stops_before_the_other_takes_over() {
    let mut world = World::new([(0, 100), (9_000_000, 100)], 0);
    run(&mut world, 0, 10_000, |_| FAIR);
    run(&mut world, 10_000, 22_000, |i| if i == 0 { CUT } else { FAIR });
    assert_eq!(world.holders(22_000), 0, "the first has stopped, the second still waits");
    run(&mut world, 22_000, 40_000, |i| if i == 0 { CUT } else { FAIR });
    assert_eq!(world.epochs, vec![(0, 1), (1, 2)]);
    run(&mut world, 40_000, 60_000, |_| FAIR);
    assert_eq!(world.epochs, vec![(0, 1), (1, 2)], "the first has lost for good");
}

#[test]
fn without_a_record_an_old_ledger_waits_and_epochs_never_repeat() {
    let mut machine = Machine::new("a".to_owned(), Timing::default(), 41);
    let s = Duration::from_secs;
    assert_eq!(machine.read(s(100), None), Want::Create { epoch: 42, holds: false }, "somebody may hold one that was deleted");
    let made = Some(Seen { holder: Some("a".to_owned()), transitions: 42, version: "9".to_owned() });
    assert_eq!(machine.read(s(101), made.clone()), Want::Wait);
    assert_eq!(machine.read(s(115), made.clone()), Want::Wait);
    assert_eq!(machine.read(s(116), made), Want::Replace { version: "9".to_owned(), transitions: 43 });
    let mut other = Machine::new("b".to_owned(), Timing::default(), 41);
    let released = Seen { holder: None, transitions: 3, version: "9".to_owned() };
    assert_eq!(other.read(s(1), Some(released)), Want::Replace { version: "9".to_owned(), transitions: 42 });
    assert_eq!(Machine::new("c".to_owned(), Timing::default(), 0).read(s(1), None), Want::Create { epoch: 1, holds: true });
}

#[test]
fn a_success_that_comes_too_late_is_none() {
    let mut machine = Machine::new("a".to_owned(), Timing::default(), 0);
    machine.written(Duration::from_secs(5), 1);
    assert_eq!(machine.holds(Duration::from_millis(14_999)), Some(1));
    assert_eq!(machine.holds(Duration::from_secs(15)), None);
}

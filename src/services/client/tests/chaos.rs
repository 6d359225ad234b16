//! Seeds: everything happens at once, and every call has the outcome that is true.

use std::time::Duration;

use graft_domain::{Index, NodeId};

use super::cluster::{Cluster, Mood};
use super::world::{Asked, World};
use crate::change::{Ask, Change};
use crate::client::{Answer, Demand};
use crate::error::{Outcome, Refusal};
use crate::{Consistency, Read};

const MS: fn(u64) -> Duration = Duration::from_millis;

fn disturb(world: &mut World) {
    let size = world.cluster.moods.len() as u64;
    let member = usize::try_from(world.below(size)).unwrap();
    let sick = world.cluster.moods.iter().filter(|mood| **mood != Mood::Well).count() as u64;
    match world.below(13) {
        0 if sick < size / 2 + 1 => world.crash(member),
        1 if sick < size / 2 && world.cluster.moods[member] == Mood::Well => {
            world.cluster.moods[member] = Mood::Hung;
            if world.cluster.leader == Some(member) {
                world.depose();
            }
        }
        2 if sick < size / 2 && world.cluster.leader != Some(member) => world.cluster.moods[member] = Mood::Liar,
        3 => world.heal(member),
        4 => world.depose(),
        5 if world.below(4) == 0 => world.cluster.expire_sessions(),
        6..9 => world.elect(),
        9 if sick < size / 2 => {
            // A backup has what the client did before; a disk that was lost has nothing.
            let size = world.cluster.moods.len();
            let is_restored = world.below(2) == 0;
            let other = if is_restored { world.cluster.restored(member) } else { Cluster::founded(size, member) };
            world.usurp(member, other);
        }
        _ => world.commit_late(),
    }
}

fn ask(world: &mut World) {
    let n = world.asked.len();
    let timeout = MS([30, 300, 3_000, 10_000][usize::try_from(world.below(4)).unwrap()]);
    match world.below(6) {
        5 => {
            let id = NodeId::new(&format!("x{n}")).unwrap();
            world.ask(Demand::Ask(Ask::Change { change: Change::Remove { id }, guard: None }), timeout);
        }
        0 => {
            let body = format!("q{n}").into();
            let consistency = [Consistency::Linearizable, Consistency::Lease, Consistency::Stale { max_age: None }];
            let consistency = consistency[usize::try_from(world.below(3)).unwrap()];
            world.ask(Demand::Query { body, read: Read::of(consistency) }, timeout);
        }
        1 => {
            // Somebody wants to know what became of a command.
            let unknown = world.asked.values().rev().find_map(|asked| match (&asked.answer, &asked.demand) {
                (Some((_, Answer::Outcome(Outcome::Unknown { slot, .. }))), Demand::Execute { body, .. }) => {
                    slot.map(|slot| (slot, body.clone()))
                }
                _ => None,
            });
            if let Some((slot, body)) = unknown {
                world.ask(Demand::Execute { slot: Some(slot), body }, timeout);
            }
        }
        _ => drop(world.execute(&format!("c{n}"), timeout)),
    }
}

/// Every call has one outcome, and it is true.
fn check(world: &World) -> (usize, usize, usize) {
    let mut counts = (0, 0, 0);
    for asked in world.asked.values() {
        let (at, answer) = asked.answer.as_ref().unwrap_or_else(|| panic!("never answered: {asked:?}"));
        let Answer::Outcome(outcome) = answer else { panic!("not asked for: {answer:?}") };
        let Demand::Execute { body, slot: given } = &asked.demand else {
            check_other(world, asked, outcome);
            continue;
        };
        let applied = world.cluster.applied.get(body);
        match outcome {
            Outcome::Done { .. } => {
                counts.0 += 1;
                assert_eq!(applied.map(|(_, first)| first), Some(outcome), "not the first answer: {asked:?}");
            }
            Outcome::Refused(refusal) => {
                counts.1 += 1;
                assert!(given.is_some() || applied.is_none(), "refused and applied at {at}: {asked:?}");
                assert!(
                    given.is_some() || *refusal != Refusal::SessionExpired,
                    "that is the clerk's affair: {asked:?}"
                );
            }
            Outcome::Unknown { .. } => {
                counts.2 += 1;
                assert!(asked.said, "never sent: {asked:?}");
            }
            Outcome::Compared { .. } => panic!("{asked:?}"),
        }
    }
    assert_eq!(world.misled, [], "said to another cluster");
    for (body, (times, _)) in &world.cluster.applied {
        assert_eq!(*times, 1, "{body:?} was applied {times} times");
    }
    counts
}

/// Queries and changes of the membership.
fn check_other(world: &World, asked: &Asked, outcome: &Outcome) {
    match (&asked.demand, outcome) {
        (Demand::Query { .. }, Outcome::Unknown { .. }) => panic!("it is known that it did nothing: {asked:?}"),
        (Demand::Query { .. }, Outcome::Done { index, .. }) => {
            let before = world.asked.values().filter_map(|other| match &other.answer {
                Some((at, Answer::Outcome(Outcome::Done { index, .. })))
                    if *at < asked.since && !matches!(other.demand, Demand::Ask(_)) =>
                {
                    Some(*index)
                }
                _ => None,
            });
            let seen = before.max().unwrap_or(Index::ZERO);
            assert!(*index >= seen, "{seen} was seen before it was asked: {asked:?}");
        }
        (Demand::Ask(Ask::Change { change: Change::Remove { id }, .. }), outcome) => {
            let times = world.cluster.changed.get(id).copied().unwrap_or(0);
            let (least, most) = match outcome {
                Outcome::Done { .. } => (1, 1),
                Outcome::Unknown { .. } => (0, 1),
                _ => (0, 0),
            };
            assert!(times >= least && times <= most, "changed {times} times: {asked:?}");
        }
        _ => {}
    }
}

fn life(seed: u64) -> (usize, usize, usize) {
    let size = [1, 3, 5][usize::try_from(seed % 3).unwrap()];
    let mut world = World::new(seed, size, 1 + usize::try_from(seed % 2).unwrap() * (size / 2));
    // Whom a client meets first it belongs to.
    world.run(Duration::from_secs(1));
    for _ in 0..300 {
        for _ in 0..world.below(4) {
            ask(&mut world);
        }
        if world.below(4) == 0 {
            disturb(&mut world);
        }
        let span = MS(world.below(120));
        world.run(span);
    }
    (0..size).for_each(|member| world.heal(member));
    world.elect();
    world.commit_late();
    world.run(Duration::from_secs(5));
    let last = world.execute("the last one", Duration::from_secs(20));
    for _ in 0..50 {
        world.commit_late();
        world.run(MS(200));
    }
    world.run(Duration::from_secs(11));
    assert!(matches!(world.outcome(last), Some(Outcome::Done { .. })), "it does not come back: {:?}", world.clerk);
    check(&world)
}

#[test]
fn every_call_has_one_outcome_and_it_is_true() {
    let mut all = (0, 0, 0);
    for seed in 0..120 {
        let hook = std::panic::catch_unwind(|| life(seed));
        let counts = hook.unwrap_or_else(|_| panic!("seed {seed}"));
        all = (all.0 + counts.0, all.1 + counts.1, all.2 + counts.2);
    }
    println!("{all:?}");
    assert!(all.0 > 10_000 && all.1 > 5_000 && all.2 > 1_000, "all of it happens: {all:?}");
}

#[test]
fn the_same_seed_lives_the_same_life() {
    let trace = |seed| {
        let mut world = World::new(seed, 3, 2);
        for n in 0..100 {
            ask(&mut world);
            if n % 7 == 0 {
                disturb(&mut world);
            }
            world.run(MS(40));
        }
        format!("{:?}", (world.clerk, world.asked))
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}

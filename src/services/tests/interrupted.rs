//! A change outlives the leader that began it, at whatever step that leader goes.

use graft_domain::Incarnation;

use super::clients::{add, apply, remove, replace};
use super::world::{World, address, id};
use crate::Event;
use crate::change::Change;
use crate::error::Outcome;
use crate::ports::PeerMessage;

/// Founds three members and two joiners, asks for a change on n2, and takes the leader down after so many milliseconds.
fn interrupted(change: &Change, after: u64, comes_back: bool) -> (World, crate::RequestId) {
    let mut world = World::new(3);
    world.joiner(4);
    world.joiner(5);
    let asked = world.change(2, change.clone(), 20_000);
    world.run(after);
    world.crash(id(1), usize::from(after.is_multiple_of(2)));
    world.run(1_500);
    if comes_back {
        world.start(id(1), 1_000 + after);
        world.connect_all();
    }
    world.run(5_000);
    (world, asked)
}

#[test]
fn an_interrupted_addition_is_finished_by_the_next_leader() {
    for after in 0..24 {
        for comes_back in [false, true] {
            let (mut world, asked) = interrupted(&add(4), after, comes_back);
            world.assert_done(asked);
            assert_eq!(world.shape(), "1 2 3 4", "the leader went after {after} ms");
            world.assert_works(&[2, 3, 4]);
        }
    }
}

#[test]
fn an_interrupted_joint_change_is_finished_by_the_next_leader() {
    for after in 0..24 {
        for (change, shape) in
            [(replace(3, 4), "1 2 4 x3"), (apply(&[1, 2, 4, 5]), "1 2 4 5 x3"), (remove(1), "2 3 x1")]
        {
            let (mut world, asked) = interrupted(&change, after, true);
            world.assert_done(asked);
            assert_eq!(world.shape(), shape, "the leader went after {after} ms");
            world.assert_works(&[2]);
        }
    }
}

#[test]
fn an_ask_whose_answer_is_lost_is_asked_again_and_done_once() {
    let is_answer = |message: &PeerMessage| matches!(message, PeerMessage::Answered { .. });
    let is_ask = |message: &PeerMessage| matches!(message, PeerMessage::Ask { .. });
    for lost in [is_answer as fn(&PeerMessage) -> bool, is_ask] {
        let mut world = World::new(3);
        world.joiner(4);
        let asked = world.change(2, add(4), 20_000);
        let mut taken = Vec::new();
        for _ in 0..1_000 {
            world.run(0);
            if taken.is_empty() {
                (1..=3).for_each(|n| world.turn_of(n));
                taken = world.take(lost);
            }
            world.run(1);
        }
        assert_eq!(taken.len(), 1);
        world.run(1_500);
        world.assert_done(asked);
        // What was on its way reaches nobody any more.
        world.put(&taken);
        world.run(100);
        assert_eq!(world.shape(), "1 2 3 4");
    }
}

#[test]
fn an_ask_says_at_its_deadline_what_is_known() {
    use crate::error::{Outcome, Refusal};
    let mut world = World::new(3);
    world.joiner(4);
    let asked = world.change(2, add(4), 3_000);
    world.until(2_000, |world| world.core(2).membership().contains(&id(4)));
    world.crash(id(4), 0);
    world.run(3_000);
    let Some(Outcome::Unknown { why, .. }) = world.answer(asked) else { panic!("{:?}", world.answer(asked)) };
    assert_eq!(why, "the change goes on without this call (n4 catches up and is to vote); it can be cancelled");
    for n in [1, 3] {
        world.crash(id(n), 0);
    }
    world.run(1_000);
    let asked = world.change(2, Change::Cancel, 500);
    world.run(600);
    let refusal = Refusal::NoQuorum { reachable: 1, needed: 2 };
    assert_eq!(world.answer(asked), Some(&Outcome::Refused(refusal)));
}

#[test]
fn members_are_recorded_as_they_introduce_themselves() {
    let mut world = World::new(3);
    world.run(500);
    let member = |world: &World, n: usize| world.core(1).membership().members[&id(n)].clone();
    for n in 1..=3 {
        assert_eq!(member(&world, n).incarnation, Incarnation(1_000 + n as u64));
    }
    // All addresses may change at once.
    for n in 1..=3 {
        world.crash(id(n), usize::MAX);
    }
    for n in 1..=3 {
        world.node(id(n)).config.address = format!("elsewhere{n}:1");
        world.start(id(n), 50 + n as u64);
    }
    world.connect_all();
    world.run(3_000);
    for n in 1..=3 {
        assert_eq!(&*member(&world, n).address, format!("elsewhere{n}:1"));
    }
    // Another life of the directory is not recorded, and strangers are forgotten when there are many.
    let leader = world.leader().expect("somebody leads");
    let other = if leader == 3 { 2 } else { 3 };
    let heard =
        |n: usize, incarnation| Event::Heard { id: id(n), address: address(9), incarnation: Incarnation(incarnation) };
    world.tell(leader, heard(other, 5));
    for stranger in 10..2_000 {
        world.tell(leader, heard(stranger, 1));
    }
    world.run(500);
    assert_eq!(&*member(&world, other).address, format!("elsewhere{other}:1"));
    let identities = &world.replica(leader).identities;
    assert!(identities.len() <= crate::telling::IDENTITIES_MAX && (1..=3).all(|n| identities.contains_key(&id(n))));
}

#[test]
fn a_joiner_that_moves_before_it_is_a_member_is_found() {
    let mut world = World::new(1);
    world.joiner(2);
    let added = world.change(1, add(2), 5_000);
    world.turn_of(1);
    world.probe();
    // It was found where it was said to be, and comes up elsewhere before the leader takes the answer in.
    world.crash(id(2), 0);
    world.node(id(2)).config.address = "elsewhere:1".to_owned();
    world.start(id(2), 99);
    world.connect_all();
    world.run(2_000);
    world.assert_done(added);
    assert_eq!(&*world.core(1).membership().members[&id(2)].address, "elsewhere:1");
}

#[test]
fn an_ask_that_reached_a_leader_is_not_refused_by_somebody_who_lost_it() {
    let mut world = World::new(3);
    world.joiner(4);
    let leader = world.leader().expect("there is one");
    let from = if leader == 2 { 3 } else { 2 };
    let asked = world.change(from, add(4), 700);
    let is_ask = |packet: &super::world::Packet| matches!(packet.message, PeerMessage::Ask { .. });
    world.turn_of(from);
    assert!(world.wire.iter().any(is_ask));
    while let Some(place) = world.wire.iter().position(is_ask) {
        world.deliver(place);
    }
    world.isolate(from);
    world.run(3_000);
    assert!(world.shape().contains('4'), "it is made: {}", world.shape());
    assert!(matches!(world.answer(asked), Some(Outcome::Unknown { .. })), "{:?}", world.answer(asked));
}

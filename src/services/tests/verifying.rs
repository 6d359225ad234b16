//! Replicas are compared: as of one entry, by whoever asks, with those that answer in time.

use bytes::Bytes;
use graft_domain::Index;

use super::clients::{add_learner, remove};
use super::world::{World, id};
use crate::Event;
use crate::error::{Outcome, Refusal};
use crate::ports::PeerMessage;

fn is_digest(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Digest { .. })
}

/// Who answered, if the comparison has come to its end.
fn compared(world: &World, request: crate::RequestId) -> Vec<String> {
    let Some(Outcome::Compared { digests, .. }) = world.answer(request) else { panic!("{:?}", world.answer(request)) };
    digests.keys().map(ToString::to_string).collect()
}

#[test]
fn all_members_tell_whoever_asks() {
    let mut world = World::new(3);
    world.joiner(4);
    let added = world.change(1, add_learner(4), 5_000);
    world.run(1_500);
    world.assert_done(added);
    for n in 1..=4 {
        world.execute(n, &format!("c{n}"), 1_000);
        let asked = world.verify(n, 5_000);
        world.run(100);
        assert_eq!(compared(&world, asked), ["n1", "n2", "n3", "n4"], "the history compares the digests");
    }
    let Some(Outcome::Compared { digests, .. }) = world.answer(crate::RequestId(world.requests)) else {
        panic!("no digests")
    };
    assert!(digests.values().all(|digest| digest.as_ref().is_ok_and(|digest| digest.len() == 24)));
}

#[test]
fn who_differs_is_seen() {
    let mut world = World::new(3);
    world.nodes[&id(3)].machine.ledger.pages().digest ^= 1;
    // Looked at from the wire: the history does not take different digests.
    world.verify(1, 300);
    let mut told = Vec::new();
    for _ in 0..50 {
        world.run(1);
        (1..=3).for_each(|n| world.turn_of(n));
        told.extend(world.take(is_digest));
    }
    let digests: Vec<_> = told
        .into_iter()
        .map(|packet| match packet.message {
            PeerMessage::Digest { digest: Ok(digest), .. } => digest,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(digests.len() == 2 && digests[0] != digests[1], "{digests:?}");
}

#[test]
fn at_its_deadline_a_comparison_has_those_that_answered() {
    let mut world = World::new(3);
    world.node(id(3)).machine.held = true;
    let asked = world.verify(2, 500);
    world.run(400);
    assert_eq!(world.answer(asked), None);
    world.run(200);
    assert_eq!(compared(&world, asked), ["n1", "n2"]);
    // The late one is nobody's business any more.
    world.node(id(3)).machine.held = false;
    world.run(100);
    // Who is removed is not waited for.
    world.crash(id(3), 0);
    let asked = world.verify(2, 60_000);
    world.run(100);
    let removed = world.change(1, remove(3), 5_000);
    world.run(1_000);
    world.assert_done(removed);
    assert_eq!(compared(&world, asked), ["n1", "n2"]);
}

#[test]
fn a_comparison_that_is_not_applied_here_ends_as_calls_do() {
    let mut world = World::new(3);
    world.node(id(2)).machine.held = true;
    let applying = world.verify(2, 200);
    world.run(50);
    world.isolate(2);
    let sent = world.verify(2, 200);
    world.run(250);
    for asked in [applying, sent] {
        assert!(matches!(world.answer(asked), Some(Outcome::Unknown { slot: None, .. })), "{:?}", world.answer(asked));
    }
    world.run(2_000);
    let parked = world.verify(2, 100);
    world.run(150);
    assert!(matches!(world.answer(parked), Some(Outcome::Refused(Refusal::NoLeader))));
    let stopped = world.verify(2, 60_000);
    world.run(10);
    world.tell(2, Event::Stop { deadline: world.now });
    world.run(10);
    assert_eq!(world.answer(stopped), Some(&Outcome::Refused(Refusal::Stopped)));
}

#[test]
fn a_node_that_is_told_before_it_knows_that_it_has_asked_takes_note() {
    let mut world = World::new(3);
    world.node(id(3)).disk.held = true;
    let asked = world.verify(3, 5_000);
    world.run(100);
    assert_eq!(world.replica(3).handed(), world.applied_at(3));
    assert!(world.applied_at(1) > world.applied_at(3), "the others are ahead, and have told");
    world.node(id(3)).disk.held = false;
    world.run(100);
    assert_eq!(compared(&world, asked), ["n1", "n2", "n3"]);
}

#[test]
fn comparisons_and_what_is_told_of_them_have_limits() {
    let mut world = World::new(3);
    world.node(id(3)).machine.held = true;
    let asked: Vec<_> = (0..40).map(|_| world.verify(1, 1_000)).collect();
    world.run(100);
    let busy = asked.iter().filter(|a| matches!(world.answer(**a), Some(Outcome::Refused(Refusal::Busy(_))))).count();
    assert_eq!(busy, 24);
    // Strangers tell nothing, and neither does anybody of what nobody asked.
    let digest = |from: usize, index| PeerMessage::Digest {
        from: id(from),
        to: id(1),
        index: Index(index),
        digest: Ok(Bytes::from(vec![0; 5_000])),
    };
    for index in 0..1_000 {
        world.tell(1, Event::Peer(digest(9, index)));
        world.tell(1, Event::Peer(digest(2, index + 100_000)));
    }
    world.run(2_000);
    let debug = format!("{:?}", world.replica(1).verifies);
    assert!(debug.len() < 20_000 && !debug.contains("n9"), "{debug}");
    assert!(debug.contains("are the most"), "what is too long is said to be");
}

#[test]
fn why_there_is_no_digest_is_told_by_its_end() {
    let traceback = format!("Traceback of {}: äöü\nValueError: the digest of a set has no order", "ö".repeat(1_000));
    for cut in 0..4 {
        let mut world = World::new(3);
        world.node(id(3)).machine.held = true;
        let asked = world.verify(1, 500);
        world.run(100);
        let (index, digest) = (world.applied_at(1), Err(format!("{traceback}{}", "!".repeat(cut))));
        world.tell(1, Event::Peer(PeerMessage::Digest { from: id(3), to: id(1), index, digest }));
        world.run(10);
        let Some(Outcome::Compared { digests, .. }) = world.answer(asked) else { panic!("{:?}", world.answer(asked)) };
        let why = digests[&id(3)].as_ref().unwrap_err();
        assert!(why.starts_with('…') && why.len() <= 1024 && why.len() > 1020, "{} {why}", why.len());
        assert!(why.trim_end_matches('!').ends_with("ValueError: the digest of a set has no order"), "{why}");
    }
}

#[test]
fn a_replica_whose_machine_halted_tells_nothing_and_the_others_do() {
    let mut world = World::new(3);
    world.node(id(3)).machine.halts = true;
    world.execute(1, "c", 1_000);
    world.run(50);
    let asked = world.verify(1, 500);
    world.run(600);
    assert_eq!(compared(&world, asked), ["n1", "n2"]);
}

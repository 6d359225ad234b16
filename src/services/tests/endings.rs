//! A node that gives up or stops answers everyone, says why, and leaves leading to others.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{
    Append, ClusterId, Entry, EntryId, Envelope, Incarnation, Index, Instant, Member, Membership, Message, Payload,
    Term,
};

use super::world::{World, id};
use crate::change::{Ask, Change};
use crate::error::{Outcome, Refusal};
use crate::ports::PeerMessage;
use crate::{Event, RequestId};

fn is_done(world: &World, request: RequestId) -> bool {
    matches!(world.answer(request), Some(Outcome::Done { .. }))
}

/// Calls on n1 in every stage: with the machine, handed to the leader, and not handed to anyone.
struct Stages {
    applying: RequestId,
    sent: RequestId,
    serving: RequestId,
    asked: RequestId,
}

fn stages(world: &mut World) -> Stages {
    world.node(id(1)).machine.held = true;
    let (applying, serving) = (world.execute(1, "applying", 60_000), world.query(1, 60_000));
    world.run(50);
    world.isolate(1);
    let (sent, asked) = (world.execute(1, "sent", 60_000), world.query(1, 60_000));
    world.run(20);
    Stages { applying, sent, serving, asked }
}

fn assert_answered(world: &World, Stages { applying, sent, serving, asked }: &Stages, refusal: &Refusal) {
    for call in [applying, sent] {
        assert!(matches!(world.answer(*call), Some(Outcome::Unknown { .. })), "{:?}", world.answer(*call));
    }
    for query in [serving, asked] {
        assert_eq!(world.answer(*query), Some(&Outcome::Refused(refusal.clone())));
    }
}

#[test]
fn a_store_that_fails_and_a_machine_that_halts_end_the_node_in_words() {
    let why = "told to".to_owned();
    let halt = crate::ports::Halt { index: Index(1), why: why.clone() };
    for event in [Event::StorageFailed(why.clone()), Event::Halted(halt)] {
        let mut world = World::new(3);
        let stages = stages(&mut world);
        world.inbox(id(1), event);
        let same_turn = [world.execute(1, "x", 60_000), world.stale_query(1, 60_000)];
        world.turn_of(1);
        assert_answered(&world, &stages, &Refusal::Halted(why.clone()));
        world.mend();
        world.run(2_000);
        assert!(world.leader().is_some_and(|leader| leader != 1), "another one leads");
        let status = world.replica(1).status();
        assert_eq!((status.role, status.error.as_ref()), ("failed", Some(&why)));
        let later = [world.execute(1, "y", 60_000), world.query(1, 60_000), world.stale_query(1, 60_000)];
        world.run(10);
        for call in same_turn.iter().chain(&later) {
            assert_eq!(world.answer(*call), Some(&Outcome::Refused(Refusal::Halted(why.clone()))));
        }
        let other = world.execute(2, "on", 10_000);
        world.run(200);
        assert!(is_done(&world, other));
    }
}

#[test]
fn questions_of_the_turn_in_which_the_machine_halts_do_not_reach_it() {
    let mut world = World::new(1);
    let queries = [world.stale_query(1, 60_000), world.query(1, 60_000)];
    let call = world.execute(1, "c", 60_000);
    let halt = crate::ports::Halt { index: Index(1), why: "told to".to_owned() };
    world.inbox(id(1), Event::Halted(halt));
    world.turn_of(1);
    for request in queries.into_iter().chain([call]) {
        assert_eq!(world.answer(request), Some(&Outcome::Refused(Refusal::Halted("told to".to_owned()))));
    }
}

#[test]
fn an_entry_that_is_no_command_halts_the_machine_before_it() {
    let mut world = World::found(1, |_, _, _| {});
    let mut membership = Membership::clone(&world.node(id(1)).disk.membership);
    membership.cluster = ClusterId(1);
    let payloads = [Payload::Membership(Arc::new(membership)), Payload::Command(Bytes::from_static(b"?"))];
    let entry = |(index, payload)| Entry { index: Index(index), term: Term(1), payload };
    world.node(id(1)).disk.entries = (1..).zip(payloads).map(entry).collect();
    world.node(id(1)).disk.term = Term(1);
    world.start(id(1), 5);
    let call = world.execute(1, "c", 10_000);
    world.run(1_000);
    assert_eq!(world.applied_at(1), Index(1));
    let error = world.replica(1).status().error.expect("it failed");
    assert!(error.contains("entry 1/2 is not a command"), "{error}");
    assert!(matches!(world.answer(call), Some(Outcome::Refused(Refusal::Halted(_)) | Outcome::Unknown { .. })));
}

#[test]
fn two_leaders_in_one_term_are_a_breach_that_is_told() {
    let mut world = World::new(3);
    let stages = stages(&mut world);
    let prev = EntryId::ZERO;
    let append = Append { session: 1, round: 1, prev, entries: Vec::new(), commit: Index::ZERO };
    let term = world.core(1).term();
    let envelope = Envelope { from: id(3), to: id(1), term, message: Message::Append(append) };
    world.inbox(id(1), Event::Peer(PeerMessage::Raft(envelope)));
    world.turn_of(1);
    let error = world.replica(1).status().error.expect("it failed");
    assert!(error.contains("TwoLeaders"), "{error}");
    assert_answered(&world, &stages, &Refusal::Halted(error));
}

#[test]
fn a_leader_that_stops_hands_over_at_once_and_loses_no_call() {
    let mut world = World::new(3);
    let term = world.core(1).term();
    let calls: Vec<_> = (0..10).map(|n| world.execute(1, &format!("c{n}"), 10_000)).collect();
    let query = world.query(1, 10_000);
    world.turn_of(1);
    let deadline = world.now + Duration::from_secs(5);
    world.inbox(id(1), Event::Stop { deadline });
    let late = world.execute(1, "late", 10_000);
    world.run(100);
    assert_eq!(world.stops, 1);
    assert!(calls.iter().all(|call| is_done(&world, *call)) && is_done(&world, query));
    assert_eq!(world.answer(late), Some(&Outcome::Refused(Refusal::Stopped)));
    let leader = world.leader().expect("the one it handed over to");
    assert_eq!(world.core(leader).term(), term.next(), "in one election");
}

#[test]
fn at_its_deadline_a_node_that_is_to_stop_answers_everyone_and_does() {
    let mut world = World::new(3);
    let stages = stages(&mut world);
    let deadline = world.now + Duration::from_millis(200);
    world.inbox(id(1), Event::Stop { deadline });
    world.run(199);
    assert_eq!(world.stops, 0);
    world.run(1);
    assert_eq!(world.stops, 1);
    assert_answered(&world, &stages, &Refusal::Stopped);
    // What it had not handed to anyone is refused for certain.
    let mut world = World::new(3);
    world.disconnect(id(2), id(1));
    let parked = world.execute(2, "parked", 60_000);
    let deadline = world.now + Duration::from_millis(200);
    world.run(1);
    world.inbox(id(2), Event::Stop { deadline });
    world.run(200);
    assert_eq!((world.stops, world.answer(parked)), (1, Some(&Outcome::Refused(Refusal::Stopped))));
}

#[test]
fn a_follower_that_stops_waits_for_its_calls() {
    let mut world = World::new(3);
    let (call, query) = (world.execute(2, "c", 10_000), world.query(2, 10_000));
    world.turn_of(2);
    world.inbox(id(2), Event::Stop { deadline: Instant::NEVER });
    world.run(50);
    assert_eq!(world.stops, 1);
    assert!(is_done(&world, call) && is_done(&world, query));
}

#[test]
fn a_node_that_is_to_stop_does_not_wait_for_joiners() {
    for (incarnation, stops) in [(Incarnation(7), 1), (Incarnation::UNKNOWN, 0)] {
        let mut world = World::new(3);
        world.disconnect(id(2), id(1));
        let change = Change::Add { id: id(4), address: "n4".to_owned(), voter: true, incarnation };
        let joining = world.ask(2, Ask::Change { change, guard: None }, 60_000);
        world.run(1);
        world.inbox(id(2), Event::Stop { deadline: Instant::NEVER });
        world.run(200);
        assert_eq!(world.stops, stops, "it asks another member; people do not");
        assert_eq!(world.answer(joining).is_some(), stops == 1);
    }
}

#[test]
fn a_node_that_is_to_stop_hands_over_what_it_wins_meanwhile() {
    let mut world = World::new(3);
    // n2 is to stop, has a call that keeps it, and is the only one that can win.
    let call = world.execute(2, "c", 60_000);
    world.turn_of(2);
    world.wire.clear();
    world.crash(id(1), 0);
    world.inbox(id(2), Event::Stop { deadline: Instant::NEVER });
    let deadline = world.core(2).deadline();
    world.turn_of(2);
    while world.leader() != Some(2) && world.now < deadline + Duration::from_secs(5) {
        // n3 does not lose patience before n2 does.
        let patience = world.core(3).deadline();
        if patience <= world.now + Duration::from_millis(2) {
            world.crash(id(3), 0);
            world.start(id(3), patience.0);
            world.connect_all();
        }
        world.run(1);
    }
    assert_eq!(world.leader(), Some(2));
    world.run(200);
    assert_eq!(world.leader(), Some(3), "n2 handed over");
    world.run(500);
    assert!(is_done(&world, call) && world.stops == 1);
}

#[test]
fn a_transfer_that_comes_to_nothing_is_tried_again() {
    let mut world = World::new(3);
    let begun = world.now;
    world.inbox(id(1), Event::Stop { deadline: Instant::NEVER });
    world.turn_of(1);
    let is_timeout_now = |m: &PeerMessage| matches!(m, PeerMessage::Raft(e) if e.message == Message::TimeoutNow);
    assert_eq!(world.take(is_timeout_now).len(), 1, "it asks somebody, who does not hear");
    world.run(500);
    assert_eq!(world.stops, 1);
    assert!(world.now.since(begun) < Duration::from_secs(1));
    assert!(world.leader().is_some());
}

#[test]
fn nobody_to_hand_over_to_is_nothing_to_wait_for() {
    let mut world = World::new(1);
    world.inbox(id(1), Event::Stop { deadline: Instant::NEVER });
    world.run(0);
    assert_eq!(world.stops, 1);
    // A learner cannot lead.
    let mut world = World::found(1, |_, _, _| {});
    let mut membership = Membership::clone(&world.node(id(1)).disk.membership);
    let learner = Member {
        address: "".into(),
        incarnation: Incarnation(0),
        voter: false,
        outgoing: false,
        target: graft_domain::Target::Learner,
    };
    membership.members.insert(id(2), learner);
    world.node(id(1)).disk.membership = Arc::new(membership);
    world.start(id(1), 5);
    world.run(1_000);
    assert_eq!(world.leader(), Some(1));
    world.inbox(id(1), Event::Stop { deadline: Instant::NEVER });
    world.run(0);
    assert_eq!(world.stops, 1);
}

#[test]
fn a_node_says_why_it_has_no_connection_until_it_has_one() {
    let mut world = World::new(2);
    let trouble = |world: &World| {
        let status = world.replica(1).status();
        status.members.iter().find(|member| member.id == id(2)).and_then(|member| member.trouble.clone())
    };
    assert_eq!(trouble(&world), None);
    world.disconnect(id(1), id(2));
    world.inbox(id(1), Event::Trouble(id(2), "nobody answers".to_owned()));
    world.run(1);
    assert_eq!(trouble(&world).as_deref(), Some("nobody answers"));
    world.connect(id(1), id(2));
    world.run(1);
    assert_eq!(trouble(&world), None);
}

#[test]
fn without_a_majority_a_node_that_is_to_stop_waits_for_nobody() {
    let mut world = World::new(3);
    world.crash(id(2), 0);
    world.crash(id(3), 0);
    let sent = world.execute(1, "sent", 60_000);
    world.run(1_000);
    let parked = world.execute(1, "parked", 60_000);
    world.run(1);
    world.inbox(id(1), Event::Stop { deadline: Instant::NEVER });
    world.run(1);
    assert_eq!((world.stops, world.answer(parked)), (1, Some(&Outcome::Refused(Refusal::Stopped))));
    assert!(matches!(world.answer(sent), Some(Outcome::Unknown { .. })), "{:?}", world.answer(sent));
}

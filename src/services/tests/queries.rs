//! A query sees everything that was done before it was asked, or it is not answered.

use graft_domain::Message;

use super::world::{Packet, World, id};
use crate::error::{Outcome, Refusal};
use crate::ports::PeerMessage;
use crate::{Event, RequestId};

fn is_read(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Raft(envelope) if matches!(envelope.message, Message::Read { .. }))
}

fn is_read_reply(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Raft(envelope) if matches!(envelope.message, Message::ReadReply { .. }))
}

fn is_done(world: &World, request: RequestId) -> bool {
    matches!(world.answer(request), Some(Outcome::Done { .. }))
}

/// Lets things happen until there is such a message, and takes it from the wire.
fn lose(world: &mut World, is_it: impl Fn(&PeerMessage) -> bool) -> Packet {
    loop {
        (1..=3).for_each(|n| world.turn_of(n));
        if let Some(packet) = world.take(&is_it).pop() {
            return packet;
        }
        assert!(!world.wire.is_empty(), "there is no such message");
        world.deliver(0);
    }
}

/// A command made on n1 that everyone has time to apply.
fn execute(world: &mut World, body: &str) {
    let call = world.execute(1, body, 1_000);
    world.run(50);
    assert!(is_done(world, call));
}

#[test]
fn a_query_sees_what_was_done_before_on_any_member() {
    let mut world = World::new(3);
    for round in 0..3 {
        execute(&mut world, &format!("c{round}"));
        let queries: Vec<_> = (1..=3).map(|n| world.query(n, 1_000)).collect();
        world.run(50);
        assert!(queries.iter().all(|query| is_done(&world, *query)));
    }
}

#[test]
fn a_deposed_leader_answers_no_query() {
    let mut world = World::new(3);
    world.isolate(1);
    let query = world.query(1, 10_000);
    let short = world.query(1, 100);
    world.run(100);
    assert!(matches!(world.answer(short), Some(Outcome::Refused(_))), "{:?}", world.answer(short));
    world.run(2_000);
    let leader = world.leader().expect("two of three elect a leader");
    let call = world.execute(leader, "c", 1_000);
    world.run(100);
    assert!(is_done(&world, call) && world.answer(query).is_none());
    world.mend();
    world.run(1_000);
    let Some(Outcome::Done { index, .. }) = world.answer(query) else { panic!("{:?}", world.answer(query)) };
    assert_eq!(*index, world.applied_at(1), "it was asked anew and sees what the next leader did");
}

#[test]
fn the_queries_of_a_turn_share_one_round() {
    let mut world = World::new(3);
    let queries: Vec<_> = (0..100).map(|_| world.query(2, 1_000)).collect();
    world.turn_of(2);
    assert_eq!(world.wire.iter().filter(|packet| is_read(&packet.message)).count(), 1);
    world.run(50);
    assert!(queries.iter().all(|query| is_done(&world, *query)));
}

#[test]
fn a_query_waits_until_the_machine_has_everything_up_to_its_index() {
    let mut world = World::new(3);
    world.node(id(2)).disk.held = true;
    execute(&mut world, "c");
    let (query, stale) = (world.query(2, 10_000), world.stale_query(2, 10_000));
    world.run(100);
    assert!(world.answer(query).is_none(), "n2 cannot apply what is not on its disk");
    assert!(is_done(&world, stale), "who does not mind old answers gets one");
    world.node(id(2)).disk.held = false;
    world.run(100);
    assert!(is_done(&world, query));
}

#[test]
fn a_lost_question_is_asked_again_and_so_is_one_whose_answer_is_lost() {
    for lost in [is_read, is_read_reply] {
        let mut world = World::new(3);
        let query = world.query(2, 10_000);
        lose(&mut world, lost);
        let later = world.query(2, 10_000);
        world.run(100);
        assert!(world.answer(query).is_none() && is_done(&world, later));
        world.run(300);
        assert!(is_done(&world, query), "one patience later");
    }
}

#[test]
fn a_question_lost_with_its_connection_is_asked_over_the_next() {
    let mut world = World::new(3);
    let query = world.query(2, 10_000);
    world.turn_of(2);
    world.disconnect(id(2), id(1));
    world.run(5);
    world.connect(id(2), id(1));
    world.run(20);
    assert!(is_done(&world, query));
}

#[test]
fn an_answer_to_an_earlier_run_of_the_node_is_not_taken_for_one_to_this() {
    let mut world = World::new(3);
    world.node(id(2)).machine.keeps = true;
    world.run(100);
    world.query(2, 10_000);
    let answer = lose(&mut world, is_read_reply);
    world.crash(id(2), 0);
    execute(&mut world, "c");
    world.start(id(2), 99);
    world.connect_all();
    // It hears the leader, and cannot apply what was done yet.
    world.node(id(2)).disk.held = true;
    while world.core(2).leader().is_none() {
        world.run(1);
    }
    let query = world.query(2, 10_000);
    world.turn_of(2);
    world.inbox(id(2), Event::Peer(answer.message));
    world.run(10);
    assert!(world.answer(query).is_none());
    world.node(id(2)).disk.held = false;
    world.run(200);
    assert!(is_done(&world, query), "and from a state that has c, or the history would have complained");
}

#[test]
fn queries_with_a_machine_that_is_stuck_are_told_at_their_deadline() {
    let mut world = World::new(1);
    world.node(id(1)).machine.held = true;
    let queries = [world.query(1, 100), world.stale_query(1, 120)];
    world.run(110);
    assert_eq!(world.answer(queries[0]), Some(&Outcome::Refused(Refusal::Timeout)));
    world.run(10);
    assert_eq!(world.answer(queries[1]), Some(&Outcome::Refused(Refusal::Timeout)));
    world.node(id(1)).machine.held = false;
    world.run(10);
    let query = world.query(1, 100);
    world.run(10);
    assert!(is_done(&world, query));
}

#[test]
fn without_a_leader_a_query_is_refused_with_the_reason_and_a_stale_one_answered() {
    let mut world = World::new(3);
    world.crash(id(1), 0);
    world.crash(id(3), 0);
    world.run(1_000);
    let (query, stale) = (world.query(2, 100), world.stale_query(2, 100));
    world.run(100);
    assert_eq!(world.answer(query), Some(&Outcome::Refused(Refusal::NoQuorum { reachable: 1, needed: 2 })));
    assert!(is_done(&world, stale));
}

#[test]
fn a_leader_with_more_reads_than_it_may_have_answers_them_later() {
    let mut world = World::with(3, |_, core, _| core.reads_max = 1);
    world.isolate(3);
    let mut queries = Vec::new();
    for _ in 0..10 {
        queries.extend([world.query(1, 10_000), world.query(2, 10_000)]);
        (1..=2).for_each(|n| world.turn_of(n));
    }
    world.run(1_000);
    assert!(queries.iter().all(|query| is_done(&world, *query)));
}

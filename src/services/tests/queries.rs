//! A query sees everything that was done before it was asked, or it is not answered.

use std::time::Duration;

use graft_domain::{Envelope, Index, Instant, Message, VoteRequest};

use super::world::{Packet, World, id};
use crate::error::{Outcome, Refusal};
use crate::ports::PeerMessage;
use crate::{Consistency, Event, Read, RequestId};

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

/// How many messages on the wire are questions to a leader, and rounds of its own.
fn asks(world: &World) -> usize {
    world.wire.iter().filter(|packet| is_read(&packet.message)).count()
}

#[test]
fn a_leader_with_a_lease_answers_at_once_and_its_followers_after_one_question() {
    let mut world = World::new(3);
    execute(&mut world, "c");
    let query = world.lease_query(1, 1_000);
    world.wire.clear();
    world.turn_of(1);
    assert!(world.work(id(1)) && is_done(&world, query) && world.wire.is_empty(), "nobody was asked");
    let query = world.lease_query(2, 1_000);
    world.turn_of(2);
    world.deliver(0);
    world.turn_of(1);
    let answers = world.take(is_read_reply);
    world.put(&answers);
    assert_eq!((answers.len(), world.wire.len()), (1, 1), "it is answered in the same turn, without a round");
    world.run(5);
    assert!(is_done(&world, query));
}

#[test]
fn a_leader_that_nobody_hears_has_no_lease_for_long() {
    let mut world = World::new(3);
    execute(&mut world, "c");
    world.isolate(1);
    let held = world.lease_query(1, 200);
    world.run(200);
    assert!(is_done(&world, held), "the others have promised it");
    world.run(62);
    let query = world.lease_query(1, 10_000);
    world.run(8);
    assert!(world.answer(query).is_none() && world.core(1).is_leader());
    world.mend();
    world.run(1_000);
    assert!(is_done(&world, query), "by a round, of whoever leads then");
}

#[test]
fn a_process_that_was_paused_in_a_turn_does_not_count_on_its_lease() {
    let mut world = World::new(3);
    execute(&mut world, "c");
    // The query is in the inbox, the clock is read: and the process stops.
    let query = world.lease_query(1, 20_000);
    world.pause(id(1), 5_000);
    world.run(2_000);
    let leader = world.leader().expect("the others have elected one");
    assert_ne!(leader, 1);
    let call = world.execute(leader, "d", 1_000);
    world.run(100);
    assert!(is_done(&world, call) && world.answer(query).is_none());
    let stale = world.query(leader, 1_000);
    world.run(100);
    assert!(is_done(&world, stale));
    world.run(6_000);
    assert!(is_done(&world, query), "by the next leader's word");
}

#[test]
fn a_process_that_was_paused_keeps_what_it_promises_when_it_goes_on() {
    let mut world = World::new(3);
    world.cuts.extend([(id(1), id(3)), (id(3), id(1))]);
    // Heartbeats come in while it is stopped; the time that it has read by then is long ago.
    world.pause(id(2), 280);
    world.run(281);
    world.isolate(1);
    world.run(200);
    assert_ne!(world.core(1).lease_until(), Instant(0), "the leader was promised something");
    let (from, to, term) = (id(3), id(2), world.core(2).term());
    let last = world.core(2).last();
    let request = VoteRequest { term: term.next(), last, commit: last.index, transfer: false };
    world.inbox(to, Event::Peer(PeerMessage::Raft(Envelope { from, to, term, message: Message::PreVote(request) })));
    world.turn_of(2);
    let answers = world
        .take(|message| matches!(message, PeerMessage::Raft(envelope) if envelope.message.name() == "pre-vote-reply"));
    let PeerMessage::Raft(Envelope { message: Message::PreVoteReply(reply), .. }) = &answers[0].message else {
        panic!("{answers:?}")
    };
    assert!(!reply.granted, "200 ms of 300");
}

#[test]
fn a_bounded_age_is_served_here_while_a_round_of_late_vouches_for_it() {
    let mut world = World::new(3);
    execute(&mut world, "c");
    let first = world.bounded_query(2, 500, 1_000);
    world.turn_of(2);
    assert_eq!(asks(&world), 1, "nothing vouches for what is here");
    let asked = world.now;
    // The answer takes its time, and what was asked is older than it by that.
    world.run(1);
    let slow = world.take(is_read_reply);
    world.run(300);
    world.put(&slow);
    world.run(5);
    assert!(is_done(&world, first));
    let age = |world: &World| u64::try_from(world.now.since(asked).as_millis()).expect("a small number");
    for (max_age, local) in [(age(&world) + 1, true), (age(&world), false)] {
        let query = world.bounded_query(2, max_age, 1_000);
        world.turn_of(2);
        assert_eq!(asks(&world) == 0, local, "{max_age} ms");
        world.run(5);
        assert!(is_done(&world, query));
    }
    // On the leader its lease vouches for it.
    let query = world.bounded_query(1, 0, 1_000);
    world.wire.clear();
    world.turn_of(1);
    assert!(world.work(id(1)) && is_done(&world, query) && world.wire.is_empty());
}

#[test]
fn a_bounded_age_is_judged_when_the_turn_ends() {
    let mut world = World::new(3);
    let first = world.query(2, 1_000);
    world.run(20);
    assert!(is_done(&world, first));
    world.isolate(2);
    let query = world.bounded_query(2, 500, 10_000);
    world.pause(id(2), 600);
    world.run(700);
    assert!(world.answer(query).is_none(), "what vouched for it is too old by now");
}

#[test]
fn a_query_waits_for_the_index_that_it_wants_to_see() {
    let mut world = World::new(3);
    world.run(100);
    let next = Index(world.core(1).commit().0 + 1);
    let kinds = [
        Consistency::Linearizable,
        Consistency::Lease,
        Consistency::Stale { max_age: None },
        Consistency::Stale { max_age: Some(Duration::from_secs(9)) },
    ];
    let ask = |world: &mut World, at_least, timeout| -> Vec<RequestId> {
        let reads = (1..=2).flat_map(|n| kinds.map(|consistency| (n, Read { consistency, at_least })));
        reads.map(|(n, read)| world.read(n, read, timeout)).collect()
    };
    let queries = ask(&mut world, next, 10_000);
    let never = ask(&mut world, Index(u64::MAX), 400);
    world.run(100);
    assert!(queries.iter().chain(&never).all(|query| world.answer(*query).is_none()));
    execute(&mut world, "c");
    assert!(queries.iter().all(|query| is_done(&world, *query)), "and from a state that has it");
    world.run(400);
    assert!(never.iter().all(|query| world.answer(*query) == Some(&Outcome::Refused(Refusal::Timeout))));
    // Alone, it can say why.
    world.crash(id(1), 0);
    world.crash(id(3), 0);
    world.run(1_000);
    let stale = world.read(2, Read { at_least: Index(next.0 + 9), ..Read::of(kinds[2]) }, 100);
    world.run(200);
    assert_eq!(world.answer(stale), Some(&Outcome::Refused(Refusal::NoQuorum { reachable: 1, needed: 2 })));
}

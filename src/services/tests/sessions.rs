//! Exactly once: whatever becomes of nodes, leaders and messages, a call that is made again under its place is applied once
//! and gets its first answer.

use std::time::Duration;

use graft_domain::{Message, NodeId, Payload};

use super::world::{World, id};
use crate::commands::{self, Act, Slot};
use crate::error::{Outcome, Refusal};
use crate::ports::{PeerMessage, Ticket};
use crate::sessions::WINDOW_MAX;
use crate::{Event, RequestId};

const HOUR: Duration = Duration::from_hours(1);

fn slot(session: u64, sequence: u64) -> Slot {
    Slot { session, sequence, unanswered: 1 }
}

fn is_forward(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Forward { .. })
}

/// Appends and their replies between these two.
fn is_log(from: NodeId, to: NodeId) -> impl Fn(&PeerMessage) -> bool {
    move |message| {
        let PeerMessage::Raft(envelope) = message else { return false };
        let is_log = matches!(envelope.message, Message::Append(_) | Message::AppendReply(_));
        is_log && [(from, to), (to, from)].contains(&(envelope.from, envelope.to))
    }
}

/// Opens a session for a client.
fn open(world: &mut World, n: usize, ttl: Duration) -> u64 {
    let opening = world.open_session(n, ttl, 5_000);
    world.run(50);
    done(world, opening)
}

#[track_caller]
fn done(world: &World, request: RequestId) -> u64 {
    let Some(Outcome::Done { index, .. }) = world.answer(request) else { panic!("{:?}", world.answer(request)) };
    index.0
}

#[track_caller]
fn unknown(world: &World, request: RequestId) -> Slot {
    let Some(Outcome::Unknown { slot: Some(slot), .. }) = world.answer(request) else {
        panic!("{:?}", world.answer(request))
    };
    *slot
}

fn count(world: &World, body: &str) -> usize {
    world.applied().iter().filter(|applied| *applied == body).count()
}

/// A session as the table of a node has it.
fn is_open(world: &World, n: usize, session: u64) -> bool {
    world.nodes[&id(n)].machine.applier.sessions().open.contains_key(&session)
}

/// A cluster of one member in this run, and the session that a client has opened there.
fn cluster_of(run: u64) -> (World, u64) {
    let mut world = World::found(1, |_, _, _| {});
    world.start(id(1), run);
    world.until(5_000, |world| world.leader().is_some());
    let session = open(&mut world, 1, HOUR);
    (world, session)
}

#[test]
fn a_session_of_a_cluster_that_was_wiped_is_nobodys_in_the_next_one() {
    let (former, old) = cluster_of(1);
    let (mut world, new) = cluster_of(2);
    let opened = |world: &World, session: u64| world.nodes[&id(1)].machine.applier.sessions().open[&session].named;
    assert_eq!(opened(&former, old), opened(&world, new), "the entries are at the same place");
    let paid = world.execute_in(1, slot(new, 1), "pay", 5_000);
    world.run(50);
    done(&world, paid);
    // The client of the former cluster has not noticed. It is not told what another one's command answered.
    let lost = world.execute_in(1, slot(old, 1), "lost", 5_000);
    world.run(50);
    assert_eq!(world.answer(lost), Some(&Outcome::Refused(Refusal::SessionExpired)));
    assert_eq!(world.applied(), ["pay"]);
}

#[test]
fn s46_a_call_whose_answer_was_lost_is_applied_once_and_answered_alike_by_everyone() {
    let mut world = World::new(3);
    let session = open(&mut world, 1, HOUR);
    let first = world.execute_in(1, slot(session, 1), "pay", 10_000);
    // It is replicated and applied by all, and its node goes before it answers.
    world.node(id(1)).machine.held = true;
    world.run(50);
    assert_eq!((count(&world, "pay"), world.answer(first)), (1, None));
    world.crash(id(1), usize::MAX);
    world.run(2_000);
    let again: Vec<_> = [2, 3].map(|n| world.execute_in(n, slot(session, 1), "pay", 10_000)).into();
    world.run(500);
    let index = done(&world, again[0]);
    assert_eq!(done(&world, again[1]), index, "the history holds the replies against the first");
    // After a restart, and from a snapshot.
    world.start(id(1), 99);
    world.connect_all();
    world.run(1_000);
    for n in 1..=3 {
        let asked = world.take_snapshot(n, 5_000);
        world.run(100);
        world.assert_done(asked);
    }
    for n in 1..=3 {
        world.crash(id(n), 0);
    }
    for n in 1..=3 {
        world.start(id(n), 1_000 + n as u64);
    }
    world.connect_all();
    world.run(2_000);
    for n in 1..=3 {
        let again = world.execute_in(n, slot(session, 1), "pay", 10_000);
        world.run(500);
        assert_eq!(done(&world, again), index);
    }
    assert_eq!(count(&world, "pay"), 1);
}

#[test]
fn s46_sessions_end_by_the_stamps_and_on_all_replicas_alike() {
    let mut world = World::new(3);
    let session = open(&mut world, 2, Duration::from_secs(10));
    let first = world.execute_in(2, slot(session, 1), "pay", 5_000);
    world.run(50);
    done(&world, first);
    // Clocks of followers do not matter.
    world.node(id(2)).wall += 3_600_000_000_000;
    world.run(8_000);
    let again = world.execute_in(3, slot(session, 1), "pay", 5_000);
    world.run(50);
    done(&world, again);
    world.node(id(1)).wall += 11_000_000_000;
    let late = world.execute_in(3, slot(session, 1), "pay", 5_000);
    let other = world.execute_in(2, slot(session, 2), "pay more", 5_000);
    world.run(50);
    for call in [late, other] {
        assert_eq!(world.answer(call), Some(&Outcome::Refused(Refusal::SessionExpired)));
    }
    assert_eq!((count(&world, "pay"), count(&world, "pay more")), (1, 0));
    assert!((1..=3).all(|n| !is_open(&world, n, session)), "the history compares the rest");
}

#[test]
fn s47_a_call_that_is_committed_after_its_deadline_is_applied_by_all_and_can_be_resolved() {
    for n in [1, 2] {
        let mut world = World::new(3);
        world.isolate(3);
        let call = world.execute(n, "late", 100);
        world.turn_of(n);
        // Nothing comes of it in time.
        for _ in 0..120 {
            world.run(1);
            (1..=2).for_each(|n| world.turn_of(n));
            world.take(is_log(id(1), id(2)));
        }
        let slot = unknown(&world, call);
        world.mend();
        world.run(2_000);
        assert_eq!(count(&world, "late"), 1, "it was in the log of n1, or on its way there");
        let states = [1, 2, 3].map(|n| world.state(n).digest);
        assert!(states.iter().all(|digest| *digest == states[0]), "and everyone applied it: {states:?}");
        let resolved = world.execute_in(n, slot, "late", 5_000);
        world.run(500);
        done(&world, resolved);
        assert_eq!(count(&world, "late"), 1);
    }
}

#[test]
fn s48_what_a_deposed_leader_was_given_is_unknown_and_never_refused() {
    let mut world = World::new(3);
    world.isolate(1);
    let calls = ["a", "b"].map(|body| world.execute(1, body, 1_500));
    world.run(1_400);
    assert!(calls.iter().all(|call| world.answer(*call).is_none()), "nobody knows yet");
    world.run(200);
    let slots = calls.map(|call| unknown(&world, call));
    world.mend();
    world.run(2_000);
    assert_ne!(world.leader(), Some(1));
    // They are resolved through anyone; where they were made it is known which they are.
    let resolved = [world.execute_in(2, slots[0], "a", 5_000), world.execute_in(1, slots[1], "b", 5_000)];
    world.run(500);
    assert_eq!(resolved.map(|call| done(&world, call) > 0), [true, true]);
    assert_eq!((count(&world, "a"), count(&world, "b")), (1, 1));
}

#[test]
fn a_resolve_while_the_first_is_still_in_the_log_has_one_answer_with_it() {
    let mut world = World::new(3);
    world.node(id(1)).machine.held = true;
    let first = world.execute(1, "pay", 100);
    world.run(150);
    let slot = unknown(&world, first);
    // Twice, and both before the machine has done the first.
    let resolves = [(); 2].map(|()| world.execute_in(1, slot, "pay", 10_000));
    world.run(50);
    world.node(id(1)).machine.held = false;
    world.run(50);
    assert_eq!(done(&world, resolves[0]), done(&world, resolves[1]));
    assert_eq!(count(&world, "pay"), 1);
    // The place is taken no longer: what comes next says so.
    let next = world.execute(1, "next", 1_000);
    world.run(50);
    done(&world, next);
    let session = &world.nodes[&id(1)].machine.applier.sessions().open[&slot.session];
    assert_eq!((session.floor, session.done.len()), (slot.sequence + 1, 1));
}

#[test]
fn a_place_is_held_until_the_last_who_asks_has_his_answer() {
    let mut world = World::new(3);
    world.node(id(2)).machine.held = true;
    let first = world.execute(2, "pay", 100);
    world.run(150);
    let place = unknown(&world, first);
    world.node(id(2)).machine.held = false;
    // One who asks again is held up on the way, another one is not, and others go on.
    let slow = world.execute_in(2, place, "pay", 10_000);
    world.turn_of(2);
    let PeerMessage::Forward { ticket, .. } = world.take(is_forward).remove(0).message else { panic!("no forward") };
    let quick = world.execute_in(2, place, "pay", 10_000);
    world.run(50);
    let index = done(&world, quick);
    let next = world.execute(2, "next", 10_000);
    world.run(50);
    done(&world, next);
    let refusal = Refusal::NotLeader { leader: None };
    world.tell(2, Event::Peer(PeerMessage::Refused { to: id(2), ticket, refusal }));
    world.run(200);
    assert_eq!(done(&world, slow), index);
}

#[test]
fn a_call_that_ended_unknown_is_never_refused_when_it_is_made_again() {
    let mut world = World::with(3, |_, _, config| config.inflight_max = 2);
    world.node(id(1)).machine.held = true;
    let first = world.execute(1, "pay", 100);
    world.run(150);
    let place = unknown(&world, first);
    // The node has no room.
    let others = [world.execute(1, "a", 5_000), world.execute(1, "b", 5_000)];
    let busy = world.execute_in(1, place, "pay", 5_000);
    world.run(10);
    assert_eq!(unknown(&world, busy), place);
    world.node(id(1)).machine.held = false;
    world.run(50);
    for call in others {
        done(&world, call);
    }
    // Nobody leads.
    (1..=3).for_each(|n| world.isolate(n));
    world.run(2_000);
    let nobody = world.execute_in(1, place, "pay", 100);
    world.run(150);
    assert_eq!(unknown(&world, nobody).sequence, place.sequence);
    // The leader says no for good.
    world.mend();
    world.run(2_000);
    let leader = world.leader().expect("somebody leads");
    if leader == 1 {
        world.transfer(1, Some(2), 1_000);
        world.run(500);
    }
    let call = world.execute_in(1, place, "pay", 5_000);
    world.turn_of(1);
    let PeerMessage::Forward { ticket, .. } = world.take(is_forward).remove(0).message else { panic!("no forward") };
    let refusal = Refusal::Busy("full".to_owned());
    world.tell(1, Event::Peer(PeerMessage::Refused { to: id(1), ticket, refusal }));
    world.run(10);
    assert_eq!(unknown(&world, call).sequence, place.sequence);
    let last = world.execute_in(1, place, "pay", 5_000);
    world.run(500);
    done(&world, last);
    assert_eq!(count(&world, "pay"), 1);
}

#[test]
fn a_place_that_no_call_has_is_refused() {
    let mut world = World::new(1);
    let first = world.execute(1, "a", 1_000);
    world.run(10);
    done(&world, first);
    let own = *world.nodes[&id(1)].machine.applier.sessions().open.keys().next().expect("its own session");
    let foreign = world.execute_in(1, slot(own, 2), "b", 1_000);
    world.run(10);
    assert!(matches!(world.answer(foreign), Some(Outcome::Refused(Refusal::Invalid(_)))));
    let next = world.execute(1, "c", 1_000);
    world.run(10);
    done(&world, next);
    assert_eq!(world.applied(), ["a", "c"]);
}

#[test]
fn a_session_that_a_member_has_not_heard_of_yet_is_the_machines_to_judge() {
    let mut world = World::new(3);
    world.node(id(3)).machine.held = true;
    let session = open(&mut world, 1, HOUR);
    let call = world.execute_in(3, slot(session, 1), "pay", 10_000);
    let nonsense = world.execute_in(3, slot(999_999, 1), "nonsense", 10_000);
    world.run(100);
    assert_eq!((world.answer(call), count(&world, "pay")), (None, 1));
    world.node(id(3)).machine.held = false;
    world.run(50);
    done(&world, call);
    assert_eq!(world.answer(nonsense), Some(&Outcome::Refused(Refusal::SessionExpired)));
}

#[test]
fn the_first_call_of_a_node_costs_one_commit_more_and_the_others_nothing() {
    let mut world = World::new(3);
    world.crash(id(2), usize::MAX);
    world.start(id(2), 99);
    world.connect_all();
    world.until(1_000, |world| world.core(2).leader().is_some());
    let calls = ["a", "b"].map(|body| world.execute(2, body, 1_000));
    world.turn_of(2);
    let forwards = |world: &World| world.wire.iter().filter(|packet| is_forward(&packet.message)).count();
    assert_eq!(forwards(&world), 1, "the opening goes alone, once");
    world.run(100);
    for call in calls {
        done(&world, call);
    }
    let last = world.core(1).last().index;
    let third = world.execute(2, "c", 1_000);
    world.turn_of(2);
    assert_eq!(forwards(&world), 1);
    world.run(100);
    assert_eq!((done(&world, third), world.core(1).last().index), (last.0 + 1, last.next()));
    assert_eq!(world.applied(), ["a", "b", "c"]);
}

#[test]
fn a_call_that_waits_for_the_session_counts_and_is_certainly_not_applied_at_its_deadline() {
    let mut world = World::with(3, |_, _, config| config.inflight_max = 2);
    world.crash(id(2), usize::MAX);
    world.start(id(2), 99);
    world.connect_all();
    world.until(1_000, |world| world.core(2).leader().is_some());
    let calls = ["a", "b", "c"].map(|body| world.execute(2, body, 200));
    world.turn_of(2);
    assert!(matches!(world.answer(calls[2]), Some(Outcome::Refused(Refusal::Busy(_)))));
    // The opening is lost, and its connection stays.
    assert_eq!(world.take(is_forward).len(), 1);
    world.run(250);
    for call in &calls[..2] {
        assert_eq!(world.answer(*call), Some(&Outcome::Refused(Refusal::Timeout)));
    }
    let patient = world.execute(2, "d", 60_000);
    world.run(5_000);
    done(&world, patient);
    assert_eq!(world.applied(), ["d"]);
}

#[test]
fn a_leader_that_cannot_open_the_session_refuses_what_waits_for_it() {
    let mut world = World::new(3);
    world.crash(id(2), usize::MAX);
    world.start(id(2), 99);
    world.connect_all();
    world.until(1_000, |world| world.core(2).leader().is_some());
    let call = world.execute(2, "a", 5_000);
    world.turn_of(2);
    let PeerMessage::Forward { ticket, act: Act::OpenSession { .. }, .. } = world.take(is_forward).remove(0).message
    else {
        panic!("no opening")
    };
    let refusal = Refusal::Busy("full".to_owned());
    world.tell(2, Event::Peer(PeerMessage::Refused { to: id(2), ticket, refusal: refusal.clone() }));
    world.run(10);
    assert_eq!(world.answer(call), Some(&Outcome::Refused(refusal)));
    let again = world.execute(2, "b", 5_000);
    world.run(100);
    done(&world, again);
}

/// One member whose own session lasts for ten seconds, and the session's name.
fn short_lived() -> (World, u64) {
    let mut world = World::with(1, |_, _, config| config.session_ttl = Duration::from_secs(10));
    let first = world.execute(1, "first", 1_000);
    world.run(10);
    done(&world, first);
    let own = *world.nodes[&id(1)].machine.applier.sessions().open.keys().next().expect("its own session");
    (world, own)
}

#[test]
fn an_own_session_that_has_expired_is_replaced_and_what_was_never_applied_is_made_in_the_next() {
    let (mut world, own) = short_lived();
    world.run(11_000);
    let calls: Vec<_> = (0..5).map(|n| world.execute(1, &format!("c{n}"), 5_000)).collect();
    world.run(50);
    let indexes: Vec<u64> = calls.iter().map(|call| done(&world, *call)).collect();
    assert!(indexes.is_sorted() && !is_open(&world, 1, own));
    assert_eq!(world.applied(), ["first", "c0", "c1", "c2", "c3", "c4"]);
}

#[test]
fn what_may_have_been_applied_in_a_session_that_has_expired_is_not_made_in_the_next() {
    let (mut world, own) = short_lived();
    world.node(id(1)).machine.held = true;
    let call = world.execute(1, "pay", 100);
    world.run(150);
    let place = unknown(&world, call);
    world.node(id(1)).machine.held = false;
    world.run(11_000);
    // With calls in every stage: these are not applied yet, and may be.
    let resolved = world.execute_in(1, place, "pay", 5_000);
    let fresh = world.execute(1, "fresh", 5_000);
    world.run(50);
    let Some(Outcome::Unknown { slot: None, why }) = world.answer(resolved) else {
        panic!("{:?}", world.answer(resolved))
    };
    assert!(why.starts_with("its session has expired"), "{why}");
    done(&world, fresh);
    assert!(!is_open(&world, 1, own));
    // So it is once another session is open.
    let late = world.execute_in(1, place, "pay", 5_000);
    world.run(50);
    assert!(matches!(
        world.answer(late),
        Some(Outcome::Unknown { slot: None, .. } | Outcome::Refused(Refusal::SessionExpired))
    ));
    assert_eq!((count(&world, "pay"), count(&world, "fresh")), (1, 1));
}

#[test]
fn an_expired_session_with_calls_handed_over_and_parked_loses_none() {
    let mut world = World::with(3, |_, _, config| config.session_ttl = Duration::from_secs(10));
    let first = world.execute(2, "first", 1_000);
    world.run(50);
    done(&world, first);
    world.node(id(1)).wall += 11_000_000_000;
    let sent: Vec<_> = (0..3).map(|n| world.execute(2, &format!("sent {n}"), 10_000)).collect();
    world.turn_of(2);
    let forwards = world.take(is_forward);
    world.put(&forwards[..1]);
    world.disconnect(id(2), id(1));
    let parked = world.execute(2, "parked", 10_000);
    world.run(30);
    world.connect(id(2), id(1));
    world.run(2_000);
    for call in sent {
        done(&world, call);
    }
    done(&world, parked);
    assert_eq!(world.applied().len(), 5);
}

#[test]
fn a_refused_call_leaves_a_gap_that_holds_nothing_up() {
    let mut world = World::new(3);
    let mut refused = Vec::new();
    for n in 0..5 {
        let call = world.execute(2, &format!("refused {n}"), 5_000);
        world.turn_of(2);
        let PeerMessage::Forward { ticket, .. } = world.take(is_forward).remove(0).message else {
            panic!("no forward")
        };
        let refusal = Refusal::Busy("full".to_owned());
        world.tell(2, Event::Peer(PeerMessage::Refused { to: id(2), ticket, refusal }));
        refused.push(call);
    }
    let call = world.execute(2, "done", 5_000);
    world.run(100);
    let index = done(&world, call);
    let sessions = world.nodes[&id(3)].machine.applier.sessions();
    let session = sessions.open.values().find(|session| session.named == index).expect("that of n2");
    assert_eq!((session.floor, session.done.len()), (6, 1), "the gap is behind it");
    assert!(refused.iter().all(|call| matches!(world.answer(*call), Some(Outcome::Refused(Refusal::Busy(_))))));
}

#[test]
fn places_that_nobody_waits_for_give_way_and_calls_never_leave_the_window() {
    let mut world = World::with(1, |_, core, config| {
        (config.inflight_max, core.uncommitted_bytes_max) = (1 << 20, 1 << 30);
        core.apply_bytes_max = 1 << 30;
    });
    world.node(id(1)).machine.held = true;
    let left = world.execute(1, "left", 100);
    world.run(150);
    let place = unknown(&world, left);
    // More than the window has, while none has an answer.
    let count = usize::try_from(WINDOW_MAX).expect("it is small") + 10;
    let calls: Vec<_> = (0..count).map(|n| world.execute(1, &format!("c{n}"), 600_000)).collect();
    world.turn_of(1);
    world.run(10);
    assert!(world.core(1).last().index.0 < WINDOW_MAX + 5, "the last ones wait here");
    world.node(id(1)).machine.held = false;
    world.run(100);
    assert!(calls.iter().all(|call| world.is_done(*call)));
    let resolved = world.execute_in(1, place, "left", 5_000);
    world.run(10);
    assert!(matches!(world.answer(resolved), Some(Outcome::Unknown { slot: None, .. })), "it was given up");
    assert_eq!(world.applied().len(), count + 1);
}

#[test]
fn a_late_forward_under_a_place_of_another_leaders_time_changes_nothing() {
    let mut world = World::new(3);
    let session = open(&mut world, 1, HOUR);
    let call = world.execute_in(2, slot(session, 1), "pay", 10_000);
    world.turn_of(2);
    let forward = world.take(is_forward).remove(0);
    world.crash(id(1), usize::MAX);
    world.run(2_000);
    done(&world, call);
    // It comes twice to whoever leads now, as if handed over by another run of n2.
    let leader = world.leader().expect("somebody leads");
    let PeerMessage::Forward { from, act, .. } = forward.message else { panic!("no forward") };
    for sequence in [1, 2] {
        let (term, ticket) = (world.core(leader).term(), Ticket { session: 4_711, sequence });
        let message = PeerMessage::Forward { from, term, ticket, act: act.clone() };
        world.tell(leader, Event::Peer(message));
        world.run(100);
    }
    assert_eq!(count(&world, "pay"), 1);
}

#[test]
fn a_node_that_ends_says_under_which_place_its_calls_can_be_made_again() {
    let mut world = World::new(3);
    world.node(id(2)).machine.held = true;
    let call = world.execute(2, "pay", 60_000);
    world.run(50);
    world.tell(2, Event::Stop { deadline: world.now + Duration::from_millis(50) });
    world.run(100);
    let place = unknown(&world, call);
    let resolved = world.execute_in(3, place, "pay", 5_000);
    world.run(100);
    done(&world, resolved);
    assert_eq!(count(&world, "pay"), 1);
}

#[test]
fn every_command_that_is_made_on_a_node_has_a_place() {
    let mut world = World::new(3);
    let calls = [1, 2, 3].map(|n| world.execute(n, &format!("c{n}"), 1_000));
    world.run(50);
    assert!(calls.iter().all(|call| world.is_done(*call)));
    let acts = world.nodes[&id(1)].disk.entries.iter().filter_map(|entry| match &entry.payload {
        Payload::Command(command) => Some(commands::decode(command).expect("it was encoded here").act),
        _ => None,
    });
    let placed = acts.filter(|act| matches!(act, Act::Command { slot: Some(_), .. })).count();
    assert_eq!(placed, 3);
}

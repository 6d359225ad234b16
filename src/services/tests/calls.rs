//! A call has three outcomes, and whichever it has is true.

use std::time::Duration;

use graft_domain::{Entry, Instant, Payload};

use super::clients::{demote, promote};
use super::world::{Packet, World, id};
use crate::Event;
use crate::commands::{self, Act};
use crate::error::{Outcome, Refusal};
use crate::ports::{PeerMessage, Ticket};
use crate::waiting::{FORWARDS_MAX, RequestId};

fn is_forward(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Forward { .. })
}

fn is_refused(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Refused { .. })
}

#[track_caller]
fn assert_done(world: &World, request: RequestId) {
    let answer = world.answer(request);
    assert!(matches!(answer, Some(Outcome::Done { .. })), "{answer:?}");
}

#[test]
fn a_call_is_done_once_wherever_it_is_made() {
    let mut world = World::new(3);
    let calls: Vec<_> = (1..=3).map(|n| world.execute(n, &format!("c{n}"), 1_000)).collect();
    world.run(100);
    assert_all_done(&world, &calls);
    assert_eq!(world.applied().len(), 3);
}

#[test]
fn a_call_that_was_handed_on_does_not_wait_until_commits_are_told() {
    let mut world = World::with(3, |_, core, _| {
        (core.heartbeat, core.commit_delay) = (Duration::from_millis(140), Duration::from_secs(1));
    });
    let mut lagged = 0;
    for round in 0..10 {
        // Now before a heartbeat, now behind one.
        world.run(37);
        let own = world.execute(1, &format!("own {round}"), 5_000);
        world.run(20);
        assert_done(&world, own);
        lagged += u32::from(world.applied_at(2) < world.applied_at(1));
        let handed_on = world.execute(2, &format!("handed on {round}"), 5_000);
        world.run(20);
        assert_done(&world, handed_on);
        assert_eq!(world.applied_at(2), world.applied_at(3));
    }
    assert!(lagged > 5, "nobody waits for what the leader was asked for");
}

#[test]
fn whatever_is_asked_of_a_follower_does_not_wait_until_commits_are_told() {
    type Asks = fn(&mut World, u64) -> RequestId;
    let kinds: [(&str, Asks); 9] = [
        ("query", |world, _| world.query(2, 5_000)),
        ("query by lease", |world, _| world.lease_query(2, 5_000)),
        ("query of an age", |world, _| world.bounded_query(2, 1, 5_000)),
        ("session", |world, _| world.open_session(2, Duration::from_hours(1), 5_000)),
        ("comparison", |world, _| world.verify(2, 5_000)),
        ("comparison by the leader", |world, _| world.verify(1, 5_000)),
        ("snapshot", |world, _| world.take_current_snapshot(2, 5_000)),
        ("change", |world, round| world.change(2, if round.is_multiple_of(2) { demote(3) } else { promote(3) }, 5_000)),
        ("handed on", |world, round| world.execute(2, &format!("handed on {round}"), 5_000)),
    ];
    for (kind, asks) in kinds {
        let mut world = World::with(3, |_, core, _| {
            (core.heartbeat, core.commit_delay) = (Duration::from_millis(140), Duration::from_secs(1));
        });
        for round in 0..10 {
            // Now before a heartbeat, now behind one.
            world.run(37);
            let own = world.execute(1, &format!("own {round}"), 5_000);
            world.run(20);
            assert_done(&world, own);
            let asked = asks(&mut world, round);
            world.run(40);
            assert!(world.answer(asked).is_some(), "{kind} in round {round} waits for a heartbeat");
        }
    }
}

#[test]
fn a_late_refusal_does_not_reach_a_call_that_was_handed_on() {
    for refusal in [Refusal::NotLeader { leader: None }, Refusal::Busy("full".to_owned())] {
        let mut world = World::new(3);
        let call = world.execute(2, "c", 10_000);
        world.turn_of(2);
        let PeerMessage::Forward { ticket, .. } = world.take(is_forward).remove(0).message else {
            panic!("no forward")
        };
        world.crash(id(1), 0);
        let proposed = |world: &World| world.nodes.values().any(|node| node.disk.entries.iter().any(is_command));
        assert!(run_until(&mut world, proposed), "another leader has it");
        assert_eq!(world.answer(call), None);
        world.inbox(id(2), Event::Peer(PeerMessage::Refused { to: id(2), ticket, refusal }));
        world.run(1_000);
        assert_done(&world, call);
        assert_eq!(world.applied(), ["c"]);
    }
}

fn is_command(entry: &Entry) -> bool {
    let Payload::Command(command) = &entry.payload else { return false };
    matches!(commands::decode(command), Ok(commands::Logged { act: Act::Command { .. }, .. }))
}

#[track_caller]
fn assert_all_done(world: &World, calls: &[RequestId]) {
    for call in calls {
        assert_done(world, *call);
    }
}

/// Lets milliseconds pass until it is so, two seconds at the most.
fn run_until(world: &mut World, is_so: impl Fn(&World) -> bool) -> bool {
    (0..2_000).any(|_| {
        world.run(1);
        is_so(world)
    })
}

#[test]
fn a_call_that_arrives_twice_is_proposed_once_and_not_refused() {
    let mut world = World::new(3);
    let call = world.execute(2, "c", 10_000);
    world.turn_of(2);
    let forward = world.take(is_forward);
    world.put(&forward);
    world.put(&forward);
    world.run(50);
    world.put(&forward);
    world.run(50);
    assert_done(&world, call);
    // The leader that proposed it must not say later that it never will, neither deposed nor restarted.
    world.isolate(1);
    world.run(2_000);
    world.mend();
    world.run(100);
    assert_ne!(world.leader(), Some(1));
    world.put(&forward);
    world.run(0);
    assert!(world.take(is_refused).is_empty(), "n1 has proposed it");
    world.crash(id(1), 0);
    world.start(id(1), 77);
    world.connect_all();
    world.put(&forward);
    world.run(0);
    assert!(world.take(is_refused).is_empty(), "n1 may have proposed it");
    assert_eq!(world.applied(), ["c"]);
}

#[test]
fn a_call_for_one_term_is_not_proposed_in_another() {
    let mut world = World::new(3);
    world.execute(2, "c", 400);
    world.turn_of(2);
    let forward = world.take(is_forward).remove(0);
    world.isolate(1);
    world.run(2_000);
    world.mend();
    world.run(1_000);
    // It is handed on at last, and expires meanwhile or is done. What was on its way is for nobody now.
    let applied = world.applied();
    for n in 1..=3 {
        world.put(&[Packet { to: id(n), ..forward.clone() }]);
    }
    world.run(500);
    assert_eq!((world.applied(), world.leader().is_some_and(|n| n != 1)), (applied, true));
}

#[test]
fn a_call_lost_with_its_leader_goes_to_the_next_one() {
    let mut world = World::new(3);
    let call = world.execute(2, "c", 10_000);
    world.turn_of(2);
    world.crash(id(1), 0);
    world.run(2_000);
    assert_done(&world, call);
    assert_eq!(world.applied(), ["c"]);
}

#[test]
fn a_call_that_its_leader_had_replicated_is_not_handed_on() {
    let mut world = World::new(3);
    let call = world.execute(1, "c", 10_000);
    world.turn_of(1);
    // It is on its way to both when n1 goes, which comes back when the others have gone on.
    world.run(2);
    let own = world.execute(1, "lost", 10_000);
    world.isolate(1);
    world.run(2_000);
    world.mend();
    world.run(2_000);
    assert_done(&world, call);
    assert_done(&world, own);
    assert_eq!(world.applied(), ["c", "lost"]);
}

#[test]
fn a_call_lost_with_its_connection_is_handed_over_again() {
    let mut world = World::new(3);
    let before = world.core(1).term();
    let calls: Vec<_> = (0..5).map(|n| world.execute(2, &format!("c{n}"), 10_000)).collect();
    world.turn_of(2);
    // The leader hears the first two, the others are lost.
    let forwards = world.take(is_forward);
    world.put(&forwards[..2]);
    world.run(10);
    world.disconnect(id(2), id(1));
    world.run(10);
    world.connect(id(2), id(1));
    world.run(100);
    assert_all_done(&world, &calls);
    assert_eq!(world.core(1).term(), before, "no election was needed");
    assert_eq!(world.applied(), ["c0", "c1", "c2", "c3", "c4"]);
}

#[test]
fn a_call_without_a_connection_to_the_leader_stays_refusable() {
    let mut world = World::new(3);
    world.disconnect(id(2), id(1));
    let call = world.execute(2, "c", 50);
    let patient = world.execute(2, "d", 10_000);
    world.run(60);
    assert_eq!(world.answer(call), Some(&Outcome::Refused(Refusal::Timeout)));
    world.connect(id(2), id(1));
    world.run(60);
    assert_done(&world, patient);
    assert_eq!(world.applied(), ["d"]);
}

#[test]
fn at_its_deadline_a_call_is_told_what_is_known() {
    let mut world = World::new(3);
    world.node(id(1)).machine.held = true;
    let applying = world.execute(1, "applying", 200);
    world.run(50);
    world.isolate(1);
    let sent = world.execute(1, "sent", 150);
    world.run(150);
    let unknown = |request| matches!(world.answer(request), Some(Outcome::Unknown { .. }));
    assert!(unknown(applying) && unknown(sent), "{:?} {:?}", world.answer(applying), world.answer(sent));
    // Its leadership runs out.
    world.run(500);
    let parked = world.execute(1, "parked", 50);
    let late = world.execute(1, "late", 0);
    world.run(50);
    assert_eq!(world.answer(parked), Some(&Outcome::Refused(Refusal::NoLeader)));
    assert!(matches!(world.answer(late), Some(Outcome::Refused(_))));
    for n in [2, 3] {
        world.disconnect(id(1), id(n));
    }
    let parked = world.execute(1, "parked too", 50);
    world.run(50);
    let refusal = Refusal::NoQuorum { reachable: 1, needed: 2 };
    assert_eq!(world.answer(parked), Some(&Outcome::Refused(refusal)));
    // The answers that come too late reach nobody.
    world.node(id(1)).machine.held = false;
    world.mend();
    world.connect_all();
    world.run(2_000);
    assert_eq!(world.applied()[0], "applying");
    assert!(world.applied().len() <= 2, "{:?}", world.applied());
}

#[test]
fn a_call_that_the_machine_has_is_not_handed_to_the_next_leader() {
    let mut world = World::new(3);
    world.node(id(2)).machine.held = true;
    let call = world.execute(2, "c", 60_000);
    world.run(100);
    assert_eq!(world.applied(), ["c"], "the others apply it");
    world.crash(id(1), 0);
    world.run(2_000);
    assert_eq!(world.answer(call), None);
    world.node(id(2)).machine.held = false;
    world.run(1_000);
    assert_done(&world, call);
    assert_eq!(world.applied(), ["c"]);
}

#[test]
fn a_call_waits_for_a_leader_that_is_handing_over() {
    let mut world = World::new(3);
    world.inbox(id(1), Event::Stop { deadline: Instant(u64::MAX) });
    world.turn_of(1);
    let calls = [world.execute(2, "c", 10_000), world.execute(3, "d", 10_000)];
    world.run(2_000);
    assert_all_done(&world, &calls);
    assert_eq!(world.applied().len(), 2);
}

#[test]
fn more_calls_than_a_link_takes_go_one_window_after_the_other() {
    let mut world = World::new(3);
    let calls: Vec<_> = (0..3 * FORWARDS_MAX).map(|n| world.execute(2, &format!("c{n}"), 60_000)).collect();
    world.turn_of(2);
    assert_eq!(world.wire.iter().filter(|packet| is_forward(&packet.message)).count(), FORWARDS_MAX);
    world.run(1_000);
    assert_all_done(&world, &calls);
    let in_order: Vec<String> = (0..3 * FORWARDS_MAX).map(|n| format!("c{n}")).collect();
    assert_eq!(world.applied(), in_order);
}

#[test]
fn one_large_call_fills_the_window_alone() {
    let mut world = World::with(3, |_, _, config| config.command_bytes_max = 20 << 20);
    let large = "x".repeat(17 << 20);
    let calls = ["a", &large, "b"].map(|body| world.execute(2, body, 60_000));
    let forwarded = |world: &mut World| {
        world.turn_of(2);
        world.take(is_forward).len()
    };
    assert_eq!(forwarded(&mut world), 1, "what is small goes first, and nothing beside what is large");
    world.disconnect(id(2), id(1));
    world.connect(id(2), id(1));
    world.run(1_000);
    assert_all_done(&world, &calls);
    assert_eq!(world.applied().iter().map(String::len).collect::<Vec<_>>(), [1, 17 << 20, 1]);
}

#[test]
fn foreign_and_unknown_refusals_are_ignored() {
    let mut world = World::new(3);
    world.node(id(2)).disk.held = true;
    let call = world.execute(2, "c", 10_000);
    world.run(20);
    let session = world.nodes[&id(2)].config.session;
    for (to, session, sequence) in [(1, session, 1), (2, session + 1, 1), (2, session, 99)] {
        world.inbox(id(2), refused(to, session, sequence, Refusal::Busy(String::new())));
    }
    // Nor do they hold up other calls.
    world.inbox(id(2), refused(2, session, 98, Refusal::NoLeader));
    world.execute(2, "d", 10_000);
    world.turn_of(2);
    assert!(world.wire.iter().any(|packet| is_forward(&packet.message)), "d waits for nothing");
    world.node(id(2)).disk.held = false;
    world.run(100);
    assert_done(&world, call);
}

fn refused(to: usize, session: u64, sequence: u64, refusal: Refusal) -> Event {
    Event::Peer(PeerMessage::Refused { to: id(to), ticket: Ticket { session, sequence }, refusal })
}

#[test]
fn what_is_committed_is_refused_by_nobody_and_handed_to_nobody_again() {
    for refusal in [Refusal::NoLeader, Refusal::Busy("full".to_owned())] {
        let mut world = World::new(3);
        world.node(id(2)).machine.held = true;
        let call = world.execute(2, "c", 10_000);
        world.run(50);
        let session = world.nodes[&id(2)].config.session;
        world.inbox(id(2), refused(2, session, 1, refusal));
        world.run(50);
        world.node(id(2)).machine.held = false;
        world.run(50);
        assert_done(&world, call);
        assert_eq!(world.applied(), ["c"]);
    }
}

#[test]
fn what_waits_for_a_leader_is_refused_by_nobody() {
    let mut world = World::new(3);
    world.disconnect(id(2), id(1));
    let call = world.execute(2, "c", 10_000);
    world.run(50);
    let session = world.nodes[&id(2)].config.session;
    world.inbox(id(2), refused(2, session, 1, Refusal::Busy("full".to_owned())));
    world.run(50);
    assert_eq!(world.answer(call), None);
    world.connect(id(2), id(1));
    world.run(50);
    assert_done(&world, call);
}

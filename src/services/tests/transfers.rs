//! Leadership is handed over: to whom it should, within its time, and with everybody told.

use graft_domain::{Instant, Message};

use super::clients::{add_learner, demote};
use super::world::{World, id};
use crate::Event;
use crate::error::{Outcome, Refusal};
use crate::ports::PeerMessage;

fn is_timeout_now(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Raft(envelope) if envelope.message == Message::TimeoutNow)
}

#[test]
fn leadership_goes_to_whom_it_is_asked_for_from_any_member() {
    for by in 1..=3 {
        for to in [1, 2, 3] {
            let mut world = World::new(3);
            let term = world.core(1).term();
            let asked = world.transfer(by, Some(to), 5_000);
            world.run(200);
            world.assert_done(asked);
            assert_eq!(world.leader(), Some(to));
            assert_eq!(world.core(1).term().0, term.0 + u64::from(to != 1), "in one election, or none");
        }
    }
}

#[test]
fn leadership_goes_to_the_best_once() {
    for by in 1..=3 {
        let mut world = World::new(3);
        let term = world.core(1).term();
        let asked = world.transfer(by, None, 5_000);
        world.run(3_000);
        world.assert_done(asked);
        assert_ne!(world.leader(), Some(1));
        assert_eq!(world.core(1).term(), term.next(), "whoever has taken over is not asked to hand over again");
    }
}

#[test]
fn calls_made_meanwhile_are_done() {
    let mut world = World::new(3);
    let asked = world.transfer(2, Some(3), 5_000);
    let mut calls = Vec::new();
    for n in 0..100 {
        calls.push(world.execute(1 + n % 3, &format!("c{n}"), 5_000));
        world.run(2);
    }
    world.run(1_000);
    world.assert_done(asked);
    for call in calls {
        world.assert_done(call);
    }
}

#[test]
fn who_cannot_lead_is_refused_in_words() {
    let mut world = World::new(3);
    world.joiner(4);
    let added = world.change(1, add_learner(4), 5_000);
    world.run(1_000);
    world.assert_done(added);
    for (to, words) in [
        (4, "n4 is a learner, and only a voter can lead: promote it first"),
        (9, "there is no member n9 to hand over to"),
    ] {
        let asked = world.transfer(2, Some(to), 5_000);
        world.run(100);
        assert_eq!(world.refusal(asked), words);
    }
    let mut world = World::new(1);
    let asked = world.transfer(1, None, 5_000);
    world.run(100);
    assert_eq!(world.refusal(asked), "there is no other voter to hand over to");
    world.assert_works(&[1]);
}

#[test]
fn a_target_that_is_cut_off_costs_one_election_timeout() {
    for by in [1, 2] {
        let mut world = World::new(3);
        world.isolate(3);
        let asked = world.transfer(by, Some(3), 20_000);
        world.run(20);
        let call = world.execute(1, "waits", 20_000);
        world.run(400);
        assert_eq!(
            world.refusal(asked),
            "n3 has not taken over within 300 ms, and n1 leads on: see whether it can be reached and has the log"
        );
        world.assert_done(call);
        assert_eq!(world.leader(), Some(1));
        assert!(world.take(is_timeout_now).len() <= 1);
        world.assert_works(&[1, 2]);
    }
}

#[test]
fn the_same_ask_does_not_hold_commands_up_for_longer() {
    let mut world = World::new(3);
    world.isolate(3);
    let begun = world.now;
    let asks = [world.transfer(1, Some(3), 20_000), world.transfer(2, Some(3), 20_000)];
    world.run(100);
    // Its connection breaks and comes back: it is said again.
    world.disconnect(id(2), id(1));
    world.connect(id(2), id(1));
    let third = world.transfer(1, Some(3), 20_000);
    let call = world.execute(1, "waits", 20_000);
    world.until(2_000, |world| world.is_done(call));
    assert!(world.now.since(begun).as_millis() < 400, "{:?}", world.now.since(begun));
    for ask in asks.into_iter().chain([third]) {
        assert!(world.refusal(ask).starts_with("n3 has not taken over"));
    }
}

#[test]
fn another_target_waits_for_its_turn() {
    let mut world = World::new(3);
    world.isolate(3);
    let (dead, alive) = (world.transfer(1, Some(3), 5_000), world.transfer(1, Some(2), 5_000));
    world.run(1_000);
    assert!(world.refusal(dead).starts_with("n3 has not taken over"));
    world.assert_done(alive);
    assert_eq!(world.leader(), Some(2));
}

#[test]
fn a_target_that_cannot_win_is_not_asked_for_ever() {
    let mut world = World::new(3);
    // n3 hears the leader and nobody hears n3's votes: each try costs a term.
    let is_vote = |message: &PeerMessage| matches!(message, PeerMessage::Raft(envelope) if envelope.from == id(3) && matches!(envelope.message, Message::Vote(_)));
    let asked = world.transfer(1, Some(3), 60_000);
    for _ in 0..20_000 {
        world.run(0);
        (1..=3).for_each(|n| world.turn_of(n));
        world.take(is_vote);
        world.run(1);
        if world.answer(asked).is_some() {
            break;
        }
    }
    assert!(matches!(world.answer(asked), Some(Outcome::Refused(Refusal::Membership(_)))), "{:?}", world.answer(asked));
}

#[test]
fn without_a_leader_nobody_hands_over() {
    let mut world = World::new(3);
    world.crash(id(2), 0);
    world.crash(id(3), 0);
    world.run(1_000);
    let asked = world.transfer(1, None, 200);
    world.run(300);
    let refusal = Refusal::NoQuorum { reachable: 1, needed: 2 };
    assert_eq!(world.answer(asked), Some(&Outcome::Refused(refusal)));
}

#[test]
fn a_leader_that_is_demoted_or_stopped_hands_over_at_once() {
    for stops in [false, true] {
        let mut world = World::new(3);
        let begun = world.now;
        if stops {
            world.tell(1, Event::Stop { deadline: Instant::NEVER });
        } else {
            world.change(2, demote(1), 5_000);
        }
        world.until(2_000, |world| world.leader().is_some_and(|leader| leader != 1));
        assert!(world.now.since(begun).as_millis() < 200, "{:?}", world.now.since(begun));
    }
}

/// n2 and n3 do not reach one another, n1 reaches both, and n3 leads.
fn half_connected() -> World {
    let mut world = World::new(3);
    let asked = world.transfer(1, Some(3), 5_000);
    world.run(200);
    world.assert_done(asked);
    world.part(2, 3);
    world
}

#[test]
fn a_better_connected_member_takes_over_once() {
    let mut world = half_connected();
    let term = world.core(3).term();
    let call = world.execute(2, "cut off", 20_000);
    world.run(3_000);
    assert_eq!(world.leader(), Some(1));
    world.assert_done(call);
    world.assert_works(&[1, 2, 3]);
    let after = world.core(1).term();
    assert_eq!(after, term.next());
    world.run(20_000);
    assert_eq!((world.leader(), world.core(1).term()), (Some(1), after), "and it stays so");
}

#[test]
fn a_link_that_comes_back_soon_moves_nobody() {
    let mut world = half_connected();
    world.run(600);
    world.mend();
    world.connect_all();
    world.run(5_000);
    assert_eq!(world.leader(), Some(3));
}

#[test]
fn nobody_takes_over_for_a_member_that_is_down_or_silent() {
    for silent in [false, true] {
        let mut world = World::new(3);
        let term = world.core(1).term();
        if silent {
            world.isolate(3);
        } else {
            world.crash(id(3), 0);
        }
        world.run(20_000);
        assert_eq!((world.leader(), world.core(1).term()), (Some(1), term), "silent: {silent}");
    }
}

#[test]
fn nobody_takes_over_who_would_lose_somebody_else() {
    let mut world = World::new(4);
    let term = world.core(1).term();
    world.part(1, 4);
    world.part(2, 3);
    world.run(10_000);
    assert_eq!((world.leader(), world.core(1).term()), (Some(1), term));
}

//! The stamps on commands never go back along the log. The history sees to it; here is what could make them.

use graft_domain::{Message, NodeId};

use super::world::{World, id};
use crate::error::Outcome;
use crate::ports::PeerMessage;

const HOUR: u64 = 3_600_000_000_000;

fn stamps(world: &World) -> Vec<u64> {
    world.history.log.values().map(|(_, time, _)| *time).collect()
}

#[test]
fn a_clock_that_is_set_back_stands_still_until_it_is_past_itself() {
    let mut world = World::new(1);
    world.node(id(1)).wall = HOUR;
    for (n, wall) in [HOUR, 0, HOUR / 2, 2 * HOUR].into_iter().enumerate() {
        world.node(id(1)).wall = wall;
        world.execute(1, &format!("c{n}"), 1_000);
        world.run(10);
    }
    let stamps = stamps(&world);
    assert!(stamps[0] == stamps[1] && stamps[1] == stamps[2] && stamps[2] < stamps[3], "{stamps:?}");
    assert!(stamps[0] > HOUR && stamps[3] > 2 * HOUR, "it is the leader's clock: {stamps:?}");
}

#[test]
fn a_new_leader_goes_on_from_what_its_log_holds_even_with_its_first_command() {
    let mut world = World::new(3);
    world.node(id(1)).wall = HOUR;
    let is_to = |to: NodeId| move |message: &PeerMessage| matches!(message, PeerMessage::Raft(envelope) if envelope.to == to && matches!(envelope.message, Message::Append(_)));
    // n1's command gets into the log of n2, and nobody knows that it is committed.
    world.execute(1, "ahead", 10_000);
    world.turn_of(1);
    world.take(is_to(id(3)));
    while !world.wire.is_empty() {
        world.deliver(0);
    }
    world.turn_of(2);
    world.sync(id(2), usize::MAX);
    world.crash(id(1), 0);
    // n2 has a command at hand when it wins, and a clock that is behind.
    while world.core(2).leader().is_some() {
        world.run(1);
    }
    let call = world.execute(2, "first", 10_000);
    world.run(2_000);
    assert_eq!(world.leader(), Some(2), "the only one with n1's command");
    assert!(matches!(world.answer(call), Some(Outcome::Done { .. })));
    assert_eq!(world.applied(), ["ahead", "first"]);
    assert_eq!(stamps(&world)[0], stamps(&world)[1]);
}

#[test]
fn a_leader_that_was_restarted_goes_on_from_what_it_had() {
    let mut world = World::new(1);
    world.node(id(1)).machine.keeps = true;
    world.node(id(1)).wall = HOUR;
    world.execute(1, "before", 1_000);
    world.run(10);
    world.crash(id(1), usize::MAX);
    world.node(id(1)).wall = 0;
    world.start(id(1), 99);
    // The machine has it already, so it is not handed to it again.
    world.execute(1, "after", 10_000);
    world.run(1_000);
    assert_eq!(world.applied(), ["before", "after"]);
    assert_eq!(stamps(&world)[0], stamps(&world)[1]);
}

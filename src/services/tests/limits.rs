//! Whatever can grow has a limit, at the own door and at the leader's, and whoever meets it is told.

use graft_domain::Index;

use super::world::{World, id};
use crate::error::{Outcome, Refusal};
use crate::{Consistency, Read, RequestId};

fn is_busy(world: &World, request: RequestId) -> bool {
    matches!(world.answer(request), Some(Outcome::Refused(Refusal::Busy(_))))
}

fn is_done(world: &World, request: RequestId) -> bool {
    matches!(world.answer(request), Some(Outcome::Done { .. }))
}

#[test]
fn a_command_that_is_too_large_is_refused_here_or_by_the_leader() {
    let mut world = World::with(3, |n, _, config| config.command_bytes_max = if n == 3 { 100 } else { 10 });
    for n in 1..=3 {
        let fits = world.execute(n, &format!("{n}123456789"), 1_000);
        let large = world.execute(n, &format!("0123456789{n}"), 1_000);
        world.run(50);
        assert_eq!(world.answer(large), Some(&Outcome::Refused(Refusal::TooLarge { bytes: 11, limit: 10 })), "{n}");
        assert!(is_done(&world, fits));
    }
}

#[test]
fn calls_and_queries_count_for_one_limit_and_each_answer_makes_room() {
    let mut world = World::with(1, |_, _, config| config.inflight_max = 3);
    world.node(id(1)).machine.held = true;
    let first = [world.execute(1, "c", 9_000), world.query(1, 9_000), world.stale_query(1, 9_000)];
    let beyond = [world.execute(1, "d", 9_000), world.query(1, 9_000), world.stale_query(1, 9_000)];
    world.run(10);
    assert!(beyond.iter().all(|call| is_busy(&world, *call)), "all of one turn count");
    let beyond = [world.execute(1, "e", 9_000), world.query(1, 9_000), world.stale_query(1, 9_000)];
    world.run(10);
    assert!(beyond.iter().all(|call| is_busy(&world, *call)), "so do those with the machine");
    world.node(id(1)).machine.held = false;
    world.run(10);
    assert!(first.iter().all(|call| is_done(&world, *call)));
    let again = [world.execute(1, "f", 9_000), world.query(1, 9_000), world.stale_query(1, 9_000)];
    world.run(10);
    assert!(again.iter().all(|call| is_done(&world, *call)));
    assert_eq!(world.applied(), ["c", "f"]);
}

#[test]
fn the_bytes_of_commands_and_queries_count_too() {
    let mut world = World::with(1, |_, _, config| config.inflight_bytes_max = 10);
    world.node(id(1)).machine.held = true;
    let calls = ["0123", "4567", "89", "ab"].map(|body| world.execute(1, body, 9_000));
    world.run(10);
    let query = world.query(1, 9_000);
    world.run(10);
    assert_eq!(calls.map(|call| is_busy(&world, call)), [false, false, false, true]);
    assert!(is_busy(&world, query));
    world.node(id(1)).machine.held = false;
    world.run(10);
    world.node(id(1)).machine.held = true;
    let queries: Vec<_> = (0..11).map(|_| world.query(1, 9_000)).collect();
    world.run(10);
    let busy: Vec<_> = queries.iter().map(|query| is_busy(&world, *query)).collect();
    assert_eq!(busy.iter().filter(|busy| **busy).count(), 1, "a query has one byte here: {busy:?}");
}

#[test]
fn a_leader_whose_log_is_full_refuses_until_it_is_not() {
    let mut world = World::with(3, |_, core, _| core.uncommitted_bytes_max = 100);
    world.isolate(2);
    world.isolate(3);
    let taken = world.execute(1, &"x".repeat(100), 60_000);
    world.run(5);
    world.cuts.clear();
    world.cuts.extend([(id(2), id(1)), (id(3), id(1))]);
    let own = world.execute(1, "own", 60_000);
    world.run(5);
    assert!(is_busy(&world, own));
    // Another member's call gets there, the acknowledgements do not.
    world.cuts.clear();
    let theirs = world.execute(2, "theirs", 60_000);
    world.turn_of(2);
    while let Some(place) = world.wire.iter().position(|packet| packet.from == id(2)) {
        world.deliver(place);
    }
    world.turn_of(1);
    world.run(3);
    assert!(is_busy(&world, theirs), "{:?}", world.answer(theirs));
    world.run(500);
    assert!(is_done(&world, taken));
    let again = [world.execute(1, "a", 60_000), world.execute(2, "b", 60_000)];
    world.run(100);
    assert!(again.iter().all(|call| is_done(&world, *call)));
    assert!(world.applied().iter().all(|body| body != "own" && body != "theirs"));
}

#[test]
fn a_full_disk_refuses_and_is_forgotten_when_there_is_space() {
    let mut world = World::new(1);
    world.node(id(1)).disk.full = true;
    let taken = world.execute(1, "taken", 60_000);
    world.run(20);
    let call = world.execute(1, "own", 60_000);
    world.run(20);
    let Some(Outcome::Refused(Refusal::Busy(why))) = world.answer(call) else { panic!("{:?}", world.answer(call)) };
    assert!(why.contains("no space"), "{why}");
    world.node(id(1)).disk.full = false;
    world.run(100);
    assert!(is_done(&world, taken), "what it had taken it keeps");
    let again = world.execute(1, "again", 60_000);
    world.run(100);
    assert!(is_done(&world, again));
    assert_eq!(world.applied().len(), 2);
}

#[test]
fn a_leader_with_a_full_disk_hands_over_to_one_with_space() {
    let mut world = World::new(3);
    world.node(id(1)).disk.full = true;
    let taken = world.execute(1, "taken", 60_000);
    world.run(100);
    let leader = world.leader();
    assert!(leader.is_some_and(|leader| leader != 1), "{leader:?} leads");
    let calls = [world.execute(2, "b", 60_000), world.execute(3, "c", 60_000)];
    world.run(100);
    assert!(calls.iter().all(|call| is_done(&world, *call)), "the others go on");
    world.node(id(1)).disk.full = false;
    world.run(500);
    assert!(is_done(&world, taken));
    assert_eq!(world.applied().len(), 3);
}

#[test]
fn calls_of_a_member_that_comes_back_again_and_again_are_heard() {
    let mut world = World::new(3);
    for run in 0..100 {
        world.crash(id(2), 0);
        world.start(id(2), 1_000 * (run + 7));
        world.connect_all();
        let call = world.execute(2, &format!("c{run}"), 10_000);
        world.run(200);
        assert!(is_done(&world, call), "{:?}", world.answer(call));
    }
    assert_eq!((world.leader(), world.applied().len()), (Some(1), 100));
}

#[test]
fn queries_that_gave_up_do_not_pile_up_at_a_stuck_machine() {
    let mut world = World::with(1, |_, _, config| config.inflight_max = 3);
    world.node(id(1)).machine.held = true;
    for _ in 0..200 {
        for _ in 0..3 {
            world.stale_query(1, 5);
        }
        world.run(10);
    }
    let queued = world.node(id(1)).machine.jobs.len();
    assert!(queued <= 3, "{queued} jobs of queries that nobody waits for");
}

#[test]
fn troubles_of_strangers_are_not_kept() {
    let mut world = World::new(1);
    for n in 0..100 {
        let stranger = graft_domain::NodeId::new(&format!("stranger-{n}")).expect("an id");
        world.inbox(id(1), crate::Event::Trouble(stranger, "who?".to_owned()));
    }
    world.run(10);
    assert!(world.replica(1).troubles.is_empty());
}

#[test]
fn queries_that_wait_for_entries_of_the_future_leave_room_for_all_else() {
    let mut world = World::with(3, |_, _, config| config.inflight_max = 80);
    let stale = Consistency::Stale { max_age: None };
    let ahead = Read { consistency: stale, at_least: Index::LAST };
    let waiting: Vec<RequestId> = (0..80).map(|_| world.read(2, ahead, 60_000)).collect();
    world.run(20);
    assert_eq!(waiting.iter().filter(|request| world.answer(**request).is_none()).count(), 10);
    assert_eq!(waiting.iter().filter(|request| is_busy(&world, **request)).count(), 70);
    let call = world.execute(2, "c", 1_000);
    let query = world.query(2, 1_000);
    world.run(100);
    assert!(is_done(&world, call) && is_done(&world, query));
    // Those that are over make room for others.
    world.run(60_000);
    let next = world.read(2, ahead, 1_000);
    world.run(20);
    assert_eq!(world.answer(next), None);
}

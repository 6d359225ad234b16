//! Snapshots: when they are taken, what follows from one that fails, and what becomes of calls while one is put in place.

use graft_domain::{EntryId, Index, NodeId};

use super::world::{World, id};
use crate::Notice;
use crate::error::{Outcome, Refusal};

/// So many members; on each a snapshot is due after so many bytes and entries.
fn world(size: usize, bytes: usize, entries: u64) -> World {
    World::with(size, |_, core, config| {
        (config.snapshot_every_bytes, config.snapshot_every_entries) = (bytes, entries);
        (core.tail_bytes, core.held_bytes_max) = (0, 0);
    })
}

fn execute(world: &mut World, count: usize, body: &str) {
    for _ in 0..count {
        let body = format!("{body} {}", world.requests);
        world.execute(1, &body, 5_000);
        world.run(5);
    }
}

/// The phases of the snapshots of a node, as its watchers were told.
fn phases(world: &World, n: usize) -> Vec<&'static str> {
    let phase = |(node, notice): &(NodeId, Notice)| match notice {
        Notice::Snapshot { phase, .. } if *node == id(n) => Some(*phase),
        _ => None,
    };
    world.notices.iter().filter_map(phase).collect()
}

fn taken(world: &World, n: usize) -> usize {
    phases(world, n).iter().filter(|phase| **phase == "written").count()
}

#[test]
fn one_is_taken_after_so_many_entries_or_bytes() {
    let mut by_entries = world(1, 1 << 30, 10);
    execute(&mut by_entries, 25, "c");
    assert_eq!(taken(&by_entries, 1), 2, "{:?}", phases(&by_entries, 1));
    let mut by_bytes = world(1, 1_000, 1_000_000);
    execute(&mut by_bytes, 3, &"x".repeat(100));
    assert_eq!(taken(&by_bytes, 1), 0);
    execute(&mut by_bytes, 10, &"x".repeat(100));
    assert!((1..=2).contains(&taken(&by_bytes, 1)), "{:?}", phases(&by_bytes, 1));
    let status = by_bytes.replica(1).status();
    assert!(status.snapshot > Index::ZERO && status.log_bytes < 1_100, "{status:?}");
}

#[test]
fn a_large_one_is_taken_more_seldom() {
    let mut world = world(1, 1_000, 5);
    world.node(id(1)).machine.snapshot_bytes = 5_000;
    execute(&mut world, 10, &"x".repeat(100));
    assert_eq!(taken(&world, 1), 1);
    execute(&mut world, 15, &"x".repeat(100));
    assert_eq!(taken(&world, 1), 1, "another one would cost more than it saves");
    execute(&mut world, 15, &"x".repeat(100));
    assert_eq!(taken(&world, 1), 2);
    // So it is after a restart.
    world.crash(id(1), usize::MAX);
    world.start(id(1), 99);
    world.run(1_000);
    execute(&mut world, 15, &"x".repeat(100));
    assert_eq!(taken(&world, 1), 2);
}

#[test]
fn what_a_machine_with_a_disk_had_before_a_start_counts() {
    let mut world = world(1, 1 << 30, 20);
    world.node(id(1)).machine.keeps = true;
    for run in 0..5 {
        execute(&mut world, 8, "c");
        world.crash(id(1), usize::MAX);
        world.start(id(1), 1_000 + run);
        world.run(1_000);
    }
    assert!(taken(&world, 1) >= 1, "restarts do not put it off for ever");
}

#[test]
fn one_that_is_asked_for_has_what_was_done_before() {
    let mut world = world(1, 1 << 30, 1_000_000);
    let empty = world.take_snapshot(1, 5_000);
    world.run(50);
    world.assert_done(empty);
    execute(&mut world, 3, "c");
    world.node(id(1)).machine.writing_held = true;
    let first = world.take_snapshot(1, 5_000);
    world.run(50);
    execute(&mut world, 3, "d");
    let second = world.take_snapshot(1, 5_000);
    let hasty = world.take_snapshot(1, 50);
    world.run(100);
    assert!(matches!(world.answer(hasty), Some(Outcome::Unknown { .. })), "{:?}", world.answer(hasty));
    assert_eq!(world.replica(1).status().snapshot_phase, Some(("writing", None)));
    assert!(world.write_snapshot(id(1)));
    world.run(10);
    world.assert_done(first);
    assert_eq!(world.answer(second), None, "it wants what was done after the first one began");
    assert!(world.write_snapshot(id(1)), "so another one is taken");
    world.run(10);
    let Some(Outcome::Done { index, .. }) = world.answer(second) else { panic!("{:?}", world.answer(second)) };
    assert_eq!(*index, world.applied_at(1));
    // Nothing has come since: the one there is will do.
    let again = world.take_snapshot(1, 5_000);
    world.run(10);
    world.assert_done(again);
    assert_eq!(taken(&world, 1), 3);
}

#[test]
fn a_current_one_has_what_was_committed_anywhere_or_is_not_taken() {
    let mut world = world(3, 1 << 30, 1_000_000);
    world.run(2_000);
    execute(&mut world, 3, "c");
    let behind = (1..=3).find(|n| world.core(*n).leader() != Some(id(*n))).expect("a follower");
    world.isolate(behind);
    execute(&mut world, 3, "d");
    let committed = (1..=3).map(|n| world.core(n).commit()).max().expect("some");
    assert!(world.core(behind).commit() < committed, "it has heard of nothing");
    let stale = world.take_snapshot(behind, 5_000);
    let late = world.take_current_snapshot(behind, 100);
    let current = world.take_current_snapshot(behind, 60_000);
    world.run(1_000);
    world.assert_done(stale);
    assert!(matches!(world.answer(late), Some(Outcome::Refused(Refusal::Timeout))), "{:?}", world.answer(late));
    assert_eq!(world.answer(current), None, "nobody has confirmed it");
    world.mend();
    world.run(5_000);
    let Some(Outcome::Done { index, .. }) = world.answer(current) else { panic!("{:?}", world.answer(current)) };
    assert!(*index >= committed, "{index} of {committed}");
}

#[test]
fn one_that_became_due_while_another_was_written_is_taken_afterwards() {
    for (bytes, entries) in [(1 << 30, 10), (500, 1_000_000)] {
        let mut world = world(1, bytes, entries);
        world.node(id(1)).machine.writing_held = true;
        execute(&mut world, 40, "c");
        assert_eq!(phases(&world, 1), ["writing"], "one at a time");
        // Nothing happens any more, and still the log gets short.
        world.node(id(1)).machine.writing_held = false;
        world.run(100);
        assert_eq!(phases(&world, 1), ["writing", "written", "writing", "written"]);
        assert!(world.core(1).entry(world.core(1).last().index).is_none(), "the log is empty");
    }
}

#[test]
fn one_that_fails_is_told_and_tried_again_later_and_later() {
    let mut world = world(1, 1 << 30, 10);
    world.node(id(1)).machine.snapshot_fails = Some("the disk is full".to_owned());
    execute(&mut world, 12, "c");
    let status = world.replica(1).status();
    assert_eq!(status.snapshot_error.as_deref(), Some("the disk is full"));
    assert!(world.replica(1).why().contains(&"the last snapshot failed: the disk is full".to_owned()));
    let asked = world.take_snapshot(1, 5_000);
    world.run(10);
    assert_eq!(world.refusal(asked), "no snapshot was taken: the disk is full");
    let failures = |world: &World| phases(world, 1).iter().filter(|phase| **phase == "failed").count();
    let before = failures(&world);
    world.run(60_000);
    assert!((2..=3).contains(&(failures(&world) - before)), "{}", failures(&world) - before);
    world.node(id(1)).machine.snapshot_fails = None;
    world.run(120_000);
    assert_eq!((taken(&world, 1), world.replica(1).status().snapshot_error), (1, None));
    execute(&mut world, 1, "works");
}

#[test]
fn a_full_log_refuses_and_is_relieved_soon_after_there_is_space() {
    let mut world = World::with(1, |_, core, config| {
        (core.log_bytes_max, core.tail_bytes, core.held_bytes_max) = (1_000, 0, 0);
        config.snapshot_every_bytes = 1 << 30;
    });
    world.node(id(1)).machine.snapshot_fails = Some("the disk is full".to_owned());
    execute(&mut world, 20, &"x".repeat(100));
    let refused = world.execute(1, "more", 5_000);
    world.run(100);
    let Some(Outcome::Refused(Refusal::Busy(why))) = world.answer(refused) else {
        panic!("{:?}", world.answer(refused))
    };
    assert_eq!(why, "the leader's log has reached log_bytes_max, and no snapshot has shortened it: the disk is full");
    world.run(1_000_000);
    world.node(id(1)).machine.snapshot_fails = None;
    world.run(6_000);
    let call = world.execute(1, "more at last", 5_000);
    world.run(100);
    world.assert_done(call);
}

/// Three members, of which n3 was away while the others cut their logs.
fn lagging() -> World {
    let mut world = world(3, 1 << 30, 10);
    world.node(id(1)).machine.snapshot_bytes = 1_000;
    execute(&mut world, 3, "before");
    world.crash(id(3), usize::MAX);
    execute(&mut world, 40, "while away");
    assert!(world.core(1).snapshot().index > Index(20));
    world.start(id(3), 99);
    world.connect_all();
    world
}

#[test]
fn a_member_that_lags_behind_the_log_gets_the_snapshot_and_then_the_log() {
    let mut world = lagging();
    world.run(2_000);
    let installed = ["fetching", "applying", "installed"];
    assert!(phases(&world, 3).windows(3).any(|told| *told == installed), "{:?}", phases(&world, 3));
    assert!(phases(&world, 1).contains(&"sending"));
    assert_eq!(world.state(3), world.state(1));
    world.assert_works(&[1, 2, 3]);
    assert_eq!(world.replica(3).status().snapshot_phase, None);
    // From the snapshot and the log it is there again after a crash.
    world.crash(id(3), 0);
    world.start(id(3), 100);
    world.connect_all();
    world.run(1_000);
    assert_eq!(world.state(3), world.state(1));
}

#[test]
fn the_stamps_go_on_from_a_snapshot() {
    let mut world = world(3, 1 << 30, 10);
    for n in [1, 2] {
        world.node(id(n)).wall = 3_600_000_000_000;
    }
    world.crash(id(3), usize::MAX);
    execute(&mut world, 40, "an hour ahead");
    world.start(id(3), 99);
    world.connect_all();
    world.run(2_000);
    let asked = world.transfer(1, Some(3), 5_000);
    world.run(500);
    world.assert_done(asked);
    // n3 has seen the hour in the snapshot only; the history would not take an earlier stamp.
    world.assert_works(&[3]);
    let snapshot = world.take_snapshot(3, 5_000);
    world.run(100);
    world.assert_done(snapshot);
    world.crash(id(3), usize::MAX);
    world.start(id(3), 100);
    world.connect_all();
    world.run(2_000);
    world.assert_works(&[1, 2, 3]);
}

/// n3 has handed a call to the leader, whose entry may be in the snapshot that n3 is about to restore.
fn overtaken() -> (World, crate::RequestId) {
    let (world, sent) = overtaken_by(1);
    (world, sent[0])
}

fn overtaken_by(count: usize) -> (World, Vec<crate::RequestId>) {
    let mut world = lagging();
    world.until(2_000, |world| world.core(3).leader().is_some());
    world.run(2_000);
    world.open_sessions();
    world.isolate(3);
    execute(&mut world, 40, "more");
    world.node(id(3)).machine.held = true;
    // The forward gets through, the log does not come back.
    world.cuts.retain(|(from, to)| (*from, *to) != (id(3), id(1)));
    let body = |n: usize| if n == 0 { "sent".to_owned() } else { format!("sent {n}") };
    let sent: Vec<_> = (0..count).map(|n| world.execute(3, &body(n), 20_000)).collect();
    world.run(20);
    assert!((0..count).all(|n| world.applied().contains(&body(n))), "{:?}", world.applied());
    execute(&mut world, 20, "more");
    world.mend();
    world.until(3_000, |world| world.replica(3).status().snapshot_phase == Some(("applying", None)));
    assert!(sent.iter().all(|call| world.answer(*call).is_none()));
    (world, sent)
}

#[test]
fn calls_that_the_snapshot_may_cover_are_made_again_a_few_at_a_time() {
    let (mut world, sent) = overtaken_by(7);
    world.node(id(3)).machine.held = false;
    let mut waves = Vec::new();
    for _ in 0..500 {
        world.turn_of(3);
        let is_forward = |message: &crate::ports::PeerMessage| {
            matches!(message, crate::ports::PeerMessage::Forward { act: crate::commands::Act::Command { .. }, .. })
        };
        let wave = world.wire.iter().filter(|packet| is_forward(&packet.message)).count();
        waves.extend((wave > 0).then_some(wave));
        world.run(1);
    }
    assert_eq!(waves, [1, 2, 4]);
    assert!(sent.iter().all(|call| world.is_done(*call)));
    assert_eq!(world.applied().iter().filter(|body| body.starts_with("sent")).count(), 7);
}

#[test]
fn calls_that_the_snapshot_may_cover_are_made_again_and_those_that_wait_are_done() {
    let (mut world, sent) = overtaken();
    // What is made meanwhile is not handed over, and so it is certain that nothing came of it.
    let hasty = world.execute(3, "hasty", 100);
    world.run(150);
    assert_eq!(world.answer(hasty), Some(&Outcome::Refused(Refusal::Timeout)));
    world.disconnect(id(3), id(1));
    let parked = world.execute(3, "parked", 20_000);
    let query = world.query(3, 20_000);
    world.node(id(3)).machine.held = false;
    world.run(50);
    assert_eq!((world.answer(sent), world.answer(parked)), (None, None));
    world.connect(id(3), id(1));
    world.run(2_000);
    // The history holds the answer against the first one.
    for request in [sent, parked, query] {
        world.assert_done(request);
    }
    assert_eq!(world.applied().iter().filter(|body| *body == "sent").count(), 1);
}

#[test]
fn a_newer_snapshot_of_the_leader_does_not_set_back_how_far_a_fetch_is_told_to_be() {
    let mut world = lagging();
    world.until(2_000, |world| !world.fetches.is_empty());
    let first = world.fetches.pop_front().expect("it waits").last;
    let fetching = || crate::Event::SnapshotFetching { last: first, bytes: 5, total: 10 };
    world.tell(3, fetching());
    let asked = world.take_snapshot(1, 5_000);
    execute(&mut world, 1, "one more");
    world.until(2_000, |world| !world.fetches.is_empty());
    world.assert_done(asked);
    assert!(world.fetches.pop_front().expect("it waits").last > first, "the newer one is asked for");
    world.tell(3, fetching());
    world.run(500);
    assert!(world.fetches.is_empty(), "asked for once");
    let begun =
        |(_, notice): &&(NodeId, Notice)| matches!(notice, Notice::Snapshot { phase: "fetching", bytes: 0, .. });
    assert_eq!(world.notices.iter().filter(begun).count(), 1);
    assert_eq!(world.replica(3).status().snapshot_phase, Some(("fetching", Some(0.5))));
}

#[test]
fn a_call_that_the_snapshot_may_cover_and_that_cannot_be_made_again_is_unknown() {
    for end in ["deadline", "stop"] {
        let (mut world, sent) = overtaken();
        world.disconnect(id(3), id(1));
        world.node(id(3)).machine.held = false;
        world.run(50);
        match end {
            "deadline" => world.run(20_000),
            _ => world.tell(3, crate::Event::Stop { deadline: world.now }),
        }
        world.run(10);
        let Some(Outcome::Unknown { why, slot: Some(slot) }) = world.answer(sent) else {
            panic!("{:?}", world.answer(sent))
        };
        assert!(why.ends_with("; an earlier attempt may have been applied"), "{why}");
        if end == "deadline" {
            let slot = *slot;
            world.connect(id(3), id(1));
            let resolved = world.execute_in(3, slot, "sent", 5_000);
            world.run(1_000);
            world.assert_done(resolved);
        }
    }
}

#[test]
fn a_fetch_that_fails_is_tried_again() {
    let mut world = lagging();
    world.until(2_000, |world| !world.fetches.is_empty() || phases(world, 3).contains(&"fetching"));
    world.fetches.clear();
    let last = EntryId::new(1, 1);
    world.tell(3, crate::Event::SnapshotFetchFailed { last, why: "the link broke".to_owned() });
    world.run(3_000);
    assert!(phases(&world, 3).contains(&"failed"));
    assert_eq!(world.state(3), world.state(1));
}

#[test]
fn one_that_cannot_be_read_is_replaced() {
    let mut world = lagging();
    world.node(id(1)).disk.unreadable = true;
    world.until(4_000, |world| phases(world, 3).contains(&"failed"));
    world.run(3_000);
    assert_eq!(world.leader(), Some(1));
    assert_eq!(world.state(3), world.state(1));
    assert_eq!(world.replica(1).status().snapshot_error, None);
}

#[test]
fn a_leader_that_can_serve_no_snapshot_hands_over() {
    let mut world = lagging();
    let node = world.node(id(1));
    (node.disk.unreadable, node.machine.snapshot_fails) = (true, Some("broken".to_owned()));
    world.run(5_000);
    assert_eq!(world.leader(), Some(2));
    assert_eq!(world.state(3), world.state(2));
}

#[test]
fn a_joiner_of_a_cluster_with_a_long_history_gets_its_snapshot() {
    let mut world = world(1, 1 << 30, 10);
    execute(&mut world, 40, "c");
    world.joiner(2);
    let added = world.change(1, super::clients::add(2), 5_000);
    world.run(3_000);
    world.assert_done(added);
    assert!(phases(&world, 2).contains(&"installed"));
    assert_eq!(world.state(2), world.state(1));
    world.assert_works(&[1, 2]);
}

#[test]
fn what_a_snapshot_has_brought_can_be_read_without_waiting_for_more() {
    let mut world = world(3, 1 << 30, 1_000_000);
    world.crash(id(3), usize::MAX);
    execute(&mut world, 5, "while away");
    let asked = world.take_snapshot(1, 5_000);
    world.run(100);
    world.assert_done(asked);
    world.start(id(3), 99);
    world.connect_all();
    world.run(1_000);
    assert_eq!(world.core(3).snapshot(), world.core(1).last());
    let query = world.query(3, 1_000);
    world.run(200);
    world.assert_done(query);
}

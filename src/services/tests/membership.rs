//! The cluster's shape is changed: what is asked for happens, whoever leads, or is refused in words and nothing happens.

use graft_domain::{Envelope, Incarnation, Index, Message, NodeId};

use super::clients::{add, add_learner, apply, demote, promote, remove, replace};
use super::plans::show;
use super::world::{Node, World, address, id};
use crate::change::{Ask, Change};
use crate::error::{Outcome, Refusal};
use crate::ports::{PeerMessage, Ticket};
use crate::{Event, Notice};

impl World {
    /// A node that waits to be let in, up and connected.
    pub(super) fn joiner(&mut self, n: usize) {
        self.nodes.insert(id(n), Node::new(n));
        self.start(id(n), 7_000_000 + n as u64);
        self.connect_all();
    }

    /// What the leader goes by.
    pub(super) fn shape(&self) -> String {
        show(self.core(self.leader().expect("somebody leads")).membership())
    }

    /// One command on each of these is done.
    #[track_caller]
    pub(super) fn assert_works(&mut self, on: &[usize]) {
        let calls: Vec<_> =
            on.iter().map(|n| self.execute(*n, &format!("works {n} {}", self.requests), 5_000)).collect();
        self.run(1_500);
        for call in calls {
            self.assert_done(call);
        }
    }

    /// What watchers of a node were told of the membership: each step, once it was certain.
    fn steps(&self, n: usize) -> Vec<(&'static str, Option<NodeId>)> {
        let step = |(node, notice): &(NodeId, Notice)| match notice {
            Notice::Membership { step, member, committed: true, .. } if *node == id(n) => Some((*step, *member)),
            _ => None,
        };
        self.notices.iter().filter_map(step).collect()
    }
}

#[test]
fn whoever_is_added_learns_catches_up_and_votes() {
    let mut world = World::new(1);
    for n in 0..50 {
        world.execute(1, &format!("c{n}"), 1_000);
    }
    world.joiner(2);
    let added = world.change(1, add(2), 5_000);
    world.until(2_000, |world| world.core(1).membership().contains(&id(2)));
    assert_eq!(world.shape(), "1 2+");
    let status = world.replica(1).status();
    assert!(status.change.as_deref().is_some_and(|words| words.starts_with("n2 catches up and is to vote; n2 has ")));
    world.run(1_500);
    world.assert_done(added);
    assert_eq!(world.shape(), "1 2");
    let told = world.steps(1);
    let of_two: Vec<_> = told.iter().filter(|(_, member)| *member == Some(id(2))).map(|(step, _)| *step).collect();
    assert_eq!(of_two, ["learner", "voter"]);
    assert_eq!(told.last(), Some(&("settled", None)));
    let caught_up = |(_, notice): &(NodeId, Notice)| matches!(notice, Notice::CatchUp { member, matched, last } if *member == id(2) && matched == last);
    assert!(world.notices.iter().any(caught_up));
    assert_eq!(world.core(1).membership().members[&id(2)].incarnation, Incarnation(1_002), "it is who was probed");
    world.assert_works(&[1, 2]);
    assert_eq!(world.state(1), world.state(2));
    assert_eq!(world.replica(1).status().change, None);
}

#[test]
fn two_at_once_go_through_a_joint_membership() {
    let mut world = World::new(1);
    world.joiner(2);
    world.joiner(3);
    let applied = world.change(1, apply(&[1, 2, 3]), 5_000);
    world.run(2_000);
    world.assert_done(applied);
    assert_eq!(world.shape(), "1 2 3");
    assert!(world.steps(1).contains(&("joint", None)));
    world.assert_works(&[1, 2, 3]);
}

#[test]
fn any_set_becomes_any_set() {
    for (from, to) in [(1, &[2][..]), (3, &[4, 5]), (3, &[1]), (2, &[1, 2, 3, 4, 5]), (3, &[2, 3, 4]), (5, &[1, 6, 7])]
    {
        let mut world = World::new(from);
        for n in to.iter().filter(|n| **n > from) {
            world.joiner(*n);
        }
        let before = world.execute(1, "before", 5_000);
        let applied = world.change(1, apply(to), 8_000);
        world.run(5_000);
        assert!(
            matches!(world.answer(applied), Some(Outcome::Done { .. })),
            "{from} to {to:?}: {:?}",
            world.answer(applied)
        );
        let names: Vec<String> = to.iter().map(ToString::to_string).collect();
        assert!(world.shape().starts_with(&names.join(" ")), "{}", world.shape());
        world.assert_done(before);
        world.assert_works(to);
    }
}

#[test]
fn a_joiner_that_does_not_start_changes_nothing() {
    let mut world = World::new(1);
    let added = world.change(1, add(2), 5_000);
    world.run(50);
    assert_eq!(world.refusal(added), "n2 cannot be added: nobody answers at host2:7001");
    assert_eq!(world.shape(), "1");
    world.assert_works(&[1]);
}

#[test]
fn a_joiner_that_goes_down_while_it_catches_up_leaves_the_others_writable() {
    for undo in [remove(2), Change::Cancel] {
        let mut world = World::new(1);
        world.joiner(2);
        let added = world.change(1, add(2), 60_000);
        world.until(2_000, |world| world.core(1).membership().contains(&id(2)));
        world.crash(id(2), 0);
        world.assert_works(&[1]);
        assert_eq!((world.shape().as_str(), world.answer(added)), ("1 2+", None));
        let why = world.replica(1).why().join("\n");
        assert!(why.contains("a change of the membership is under way: n2 catches up and is to vote"), "{why}");
        let undone = world.change(1, undo.clone(), 5_000);
        world.run(500);
        world.assert_done(undone);
        assert_eq!(world.refusal(added), "the change was given up: it was cancelled, or another one was made");
        assert_eq!(world.shape(), if undo == Change::Cancel { "1 2l" } else { "1 x2" });
        world.assert_works(&[1]);
    }
}

#[test]
fn what_answers_as_someone_else_is_not_added() {
    let mut world = World::new(1);
    world.joiner(3);
    let change = Change::Add { id: id(2), address: address(3), voter: true, incarnation: Incarnation::UNKNOWN };
    let added = world.change(1, change, 5_000);
    world.run(50);
    assert_eq!(world.refusal(added), "n2 cannot be added: n3 answers at host3:7001");
    // Another life of the directory than the joiner said.
    let change = Change::Add { id: id(3), address: address(3), voter: true, incarnation: Incarnation(5) };
    let added = world.change(1, change, 5_000);
    world.run(50);
    assert!(world.refusal(added).starts_with("n3 cannot be added: another node answers at host3:7001 under this id"));
    assert_eq!(world.shape(), "1");
}

#[test]
fn what_nobody_can_find_out_is_refused_in_time() {
    let mut world = World::new(1);
    world.joiner(2);
    let added = world.change(1, add(2), 60_000);
    world.turn_of(1);
    world.probes.clear();
    world.run(16 * 300 + 50);
    assert_eq!(world.refusal(added), "n2 cannot be added: nothing was heard from its address in time");
}

#[test]
fn one_change_at_a_time() {
    let mut world = World::new(1);
    world.joiner(2);
    world.joiner(3);
    let first = world.change(1, add(2), 60_000);
    world.until(2_000, |world| world.core(1).membership().contains(&id(2)));
    world.crash(id(2), 0);
    let second = world.change(1, add(3), 60_000);
    let again = world.change(1, add(2), 60_000);
    world.run(1_000);
    let words = "another change is under way (n2 catches up and is to vote): wait for it, or cancel it";
    assert_eq!(world.refusal(second), words);
    world.start(id(2), 99);
    world.connect_all();
    world.run(2_000);
    world.assert_done(first);
    world.assert_done(again);
    assert_eq!(world.shape(), "1 2");
}

#[test]
fn a_result_without_a_living_majority_is_refused() {
    let mut world = World::new(3);
    world.crash(id(3), 0);
    world.run(2_000);
    let removed = world.change(1, remove(2), 5_000);
    world.run(50);
    let words = "n1, n3 would vote, 2 of them have to be up, and 1 is: n3 cannot be reached, or has not got the log yet. \
                 Bring it up, or remove it, first";
    assert_eq!(world.refusal(removed), words);
    assert_eq!(world.shape(), "1 2 3");
    let dead = world.change(2, remove(3), 5_000);
    world.run(1_000);
    world.assert_done(dead);
    assert_eq!(world.shape(), "1 2 x3");
}

#[test]
fn a_guard_sees_whether_somebody_was_faster() {
    let mut world = World::new(3);
    let seen = world.replica(2).status().membership_index;
    let first = world.guarded(2, demote(3), seen, 5_000);
    world.run(1_000);
    world.assert_done(first);
    let late = world.guarded(2, remove(3), seen, 5_000);
    world.run(100);
    assert!(world.refusal(late).starts_with("the membership has changed since: its version is "));
    let seen = world.replica(2).status().membership_index;
    let informed = world.guarded(2, remove(3), seen, 5_000);
    // What was done is done, though it moved the guard itself.
    world.run(1_000);
    world.assert_done(informed);
    let again = world.ask(2, Ask::Change { change: remove(3), guard: Some(Index(1)) }, 5_000);
    world.run(100);
    world.assert_done(again);
}

#[test]
fn a_leader_removes_itself_and_answers_everyone() {
    for asked_at in [1, 2] {
        let mut world = World::new(3);
        let mut calls = Vec::new();
        let removed = world.change(asked_at, remove(1), 5_000);
        for n in 0..600 {
            calls.extend((1..=3).map(|on| world.execute(on, &format!("c{n} on {on}"), 5_000)));
            world.run(1);
        }
        world.run(3_000);
        world.assert_done(removed);
        assert_eq!(world.shape(), "2 3 x1");
        assert_eq!(world.replica(1).status().role, "removed");
        assert_eq!(world.replica(1).status().error_code, Some("REMOVED"));
        for call in &calls {
            let answer = world.answer(*call);
            let node = world.history.asked[call].node;
            let done = matches!(answer, Some(Outcome::Done { .. }));
            assert!(done || (node == id(1) && answer.is_some()), "{node} {answer:?}");
        }
        let done = calls.iter().filter(|call| world.is_done(**call)).count();
        assert!(done >= 1_200, "{done}");
        let late = world.execute(1, "late", 1_000);
        world.run(10);
        assert_eq!(world.answer(late), Some(&Outcome::Refused(Refusal::Removed)));
    }
}

#[test]
fn what_the_last_turn_of_a_removed_leader_commits_is_done() {
    let mut world = World::new(3);
    let removed = world.change(1, remove(1), 5_000);
    let call = world.execute(1, "with it", 5_000);
    world.run(1_000);
    world.assert_done(removed);
    world.assert_done(call);
}

#[test]
fn whoever_was_removed_while_away_hears_it_and_is_quiet() {
    let mut world = World::new(3);
    let sent = world.execute(3, "lost on its way", 60_000);
    world.turn_of(3);
    world.take(|message| matches!(message, PeerMessage::Forward { .. }));
    world.isolate(3);
    for n in [1, 2] {
        world.disconnect(id(n), id(3));
        world.disconnect(id(3), id(n));
    }
    world.run(1_000);
    let parked = world.execute(3, "parked", 60_000);
    let asked = world.change(3, Change::Cancel, 60_000);
    let removed = world.change(1, remove(3), 5_000);
    world.run(1_000);
    world.assert_done(removed);
    let term = world.core(1).term();
    world.cuts.clear();
    world.connect_all();
    world.run(3_000);
    assert_eq!(world.replica(3).status().role, "removed");
    assert_eq!(world.replica(3).why(), ["n3 was removed from the cluster and takes no part in it any more"]);
    assert_eq!((world.leader(), world.core(1).term()), (Some(1), term), "it disturbs nobody");
    for _ in 0..2_000 {
        world.run(1);
        assert!(!world.core(3).role().contains("candidate"), "it campaigns");
    }
    for request in [parked, asked] {
        assert_eq!(world.answer(request), Some(&Outcome::Refused(Refusal::Removed)));
    }
    assert!(matches!(world.answer(sent), Some(Outcome::Unknown { .. })), "{:?}", world.answer(sent));
    // It is so after a restart, once it hears of it again; its id is not used again.
    world.crash(id(3), 0);
    world.start(id(3), 99);
    world.connect_all();
    world.run(100);
    assert_eq!(world.replica(3).status().role, "removed");
    let again = world.change(1, add(3), 5_000);
    world.run(100);
    assert!(world.refusal(again).starts_with("the id n3 belonged to a member that was removed"));
}

#[test]
fn one_takes_the_place_of_another() {
    for (old, by) in [(3, 1), (1, 1), (1, 2)] {
        let mut world = World::new(3);
        world.joiner(4);
        let replaced = world.change(by, replace(old, 4), 8_000);
        world.run(4_000);
        world.assert_done(replaced);
        let others: Vec<usize> = [1, 2, 3, 4].into_iter().filter(|n| *n != old).collect();
        world.assert_works(&others);
        assert!(world.shape().ends_with(&format!("x{old}")));
    }
}

#[test]
fn voters_become_learners_and_voters_again() {
    let mut world = World::new(3);
    // The leader too: another one leads then.
    for (n, by) in [(3, 2), (1, 1)] {
        let demoted = world.change(by, demote(n), 5_000);
        world.run(2_000);
        world.assert_done(demoted);
    }
    assert_eq!((world.shape().as_str(), world.leader()), ("1l 2 3l", Some(2)));
    assert_eq!(world.replica(1).status().role, "learner");
    world.assert_works(&[1, 2, 3]);
    let last = world.change(2, demote(2), 5_000);
    world.run(50);
    assert!(world.refusal(last).starts_with("n2 is the last voter"));
    for n in [1, 3] {
        let promoted = world.change(n, promote(n), 5_000);
        world.run(2_000);
        world.assert_done(promoted);
    }
    assert_eq!(world.shape(), "1 2 3");
}

#[test]
fn a_learner_learns_and_does_not_vote() {
    let mut world = World::new(1);
    world.joiner(2);
    let added = world.change(1, add_learner(2), 5_000);
    world.run(500);
    world.assert_done(added);
    assert_eq!(world.shape(), "1 2l");
    world.assert_works(&[1, 2]);
    world.crash(id(2), 0);
    world.assert_works(&[1]);
}

#[test]
fn a_new_leader_hears_everyone_before_it_says_who_is_down() {
    let mut world = World::new(5);
    world.crash(id(1), 0);
    // One of them is the next leader itself, and asks in its first turn.
    let asked = [2, 3, 4, 5].map(|n| world.change(n, demote(5), 10_000));
    world.run(3_000);
    for asked in asked {
        world.assert_done(asked);
    }
    assert_eq!(world.shape(), "1 2 3 4 5l");
}

#[test]
fn a_newcomer_that_is_slower_than_the_log_grows_does_not_vote() {
    let mut world = World::new(1);
    world.joiner(2);
    world.node(id(2)).disk.held = true;
    let added = world.change(1, add(2), 60_000);
    for n in 0..400 {
        world.execute(1, &format!("c{n}"), 5_000);
        world.run(10);
        if n % 50 == 49 {
            world.sync(id(2), usize::MAX);
        }
    }
    assert_eq!((world.shape().as_str(), world.answer(added)), ("1 2+", None));
    world.node(id(2)).disk.held = false;
    world.run(2_000);
    world.assert_done(added);
}

#[test]
fn a_voter_that_has_nothing_of_the_log_does_not_count() {
    let mut world = World::new(3);
    world.crash(id(3), 0);
    let membership = std::sync::Arc::clone(&world.node(id(3)).disk.membership);
    world.node(id(3)).disk = super::disk::Disk { membership, ..Default::default() };
    // The leader that knows it anew has not seen anything acknowledged by it.
    world.crash(id(1), usize::MAX);
    world.start(id(3), 99);
    let has_entries = |message: &PeerMessage| {
        matches!(message, PeerMessage::Raft(Envelope { to, message: Message::Append(append), .. })
            if *to == id(3) && !append.entries.is_empty())
    };
    world.start(id(1), 98);
    world.connect_all();
    for _ in 0..3_000 {
        for n in 1..=3 {
            world.turn_of(n);
            world.sync(id(n), usize::MAX);
        }
        world.take(has_entries);
        world.run(1);
    }
    let leader = world.leader().expect("one of the two leads");
    let asked = world.change(leader, remove(3 - leader), 10_000);
    world.turn_of(leader);
    assert!(
        world.refusal(asked).contains("n3 cannot be reached, or has not got the log yet"),
        "{}",
        world.refusal(asked)
    );
}

#[test]
fn strangers_ask_in_vain() {
    let mut world = World::new(3);
    world.run(200);
    let ask = Ask::Change { change: remove(3), guard: None };
    world.tell(1, Event::Peer(PeerMessage::Ask { from: id(9), ticket: Ticket { session: 5, sequence: 1 }, ask }));
    world.run(500);
    assert_eq!(world.shape(), "1 2 3");
}

#[test]
fn a_leader_learns_of_its_removal_from_its_log() {
    let mut world = World::new(2);
    world.change(1, remove(1), 5_000);
    let committed = |world: &World| {
        let core = world.core(1);
        core.membership_at(core.commit()).removed.contains(&id(1))
    };
    world.until(2_000, committed);
    assert_eq!(world.replica(1).status().role, "removed", "before anybody else could tell");
}

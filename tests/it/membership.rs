//! Real nodes on loopback that join, leave, move and take over from one another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use graft::domain::{Incarnation, NodeId};
use graft::infrastructure::config::NodeConfig;
use graft::infrastructure::runtime::{Node, Waiting};
use graft::services::api::{Api, Caller};
use graft::services::change::{Ask, Change};
use graft::services::error::{Outcome, Refusal};

use crate::cluster::{Lines, PATIENCE, execute, free_address, id, value, wait};

/// Nodes by number; each has a directory of its own and, after its first start, an address.
struct Crowd {
    directory: tempfile::TempDir,
    addresses: Vec<String>,
    nodes: Vec<Option<(Node, Lines)>>,
    /// Bytes of log after which a snapshot is taken.
    snapshot_every_bytes: usize,
}

impl Crowd {
    fn new(size: usize) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            addresses: (0..size).map(|_| free_address()).collect(),
            nodes: (0..size).map(|_| None).collect(),
            snapshot_every_bytes: 64 << 20,
        }
    }

    fn config(&self, n: usize) -> NodeConfig {
        NodeConfig {
            snapshot_every_bytes: self.snapshot_every_bytes,
            ..NodeConfig::new(id(n), self.addresses[n].clone(), self.directory.path().join(id(n).as_str()))
        }
    }

    fn start(&mut self, n: usize, config: &NodeConfig) {
        let machine = Lines::default();
        self.nodes[n] = Some((Node::start(config, Box::new(machine.clone())).unwrap(), machine));
    }

    fn found(&mut self, n: usize) {
        let config = self.config(n);
        self.start(n, &config);
        wait("a leader", || self.node(n).status().leader);
    }

    /// The same line at every start.
    fn join(&mut self, n: usize, at: usize) {
        let config = NodeConfig { join: vec![self.addresses[at].clone()], ..self.config(n) };
        self.start(n, &config);
    }

    fn crash(&mut self, n: usize) {
        let (node, _) = self.nodes[n].take().unwrap();
        assert!(node.kill(PATIENCE));
    }

    fn stop(&mut self, n: usize) {
        let (node, _) = self.nodes[n].take().unwrap();
        assert!(node.stop(PATIENCE));
    }

    fn node(&self, n: usize) -> &Node {
        &self.nodes[n].as_ref().unwrap().0
    }

    fn voters(&self, n: usize) -> Vec<NodeId> {
        self.node(n).status().members.iter().filter(|member| member.voter).map(|member| member.id).collect()
    }

    fn wait_voters(&self, at: usize, wanted: &[usize]) {
        let wanted: Vec<NodeId> = wanted.iter().map(|n| id(*n)).collect();
        wait("the voters", || {
            let status = self.node(at).status();
            (self.voters(at) == wanted && status.change.is_none() && status.members.len() == wanted.len()).then_some(())
        });
    }

    fn wait_same(&self, nodes: &[usize]) {
        wait("the same state everywhere", || {
            let seen: Vec<_> = nodes.iter().map(|n| self.nodes[*n].as_ref().unwrap().1.seen()).collect();
            seen.iter().all(|lines| *lines == seen[0]).then_some(())
        });
    }

    fn add(&self, n: usize) -> Change {
        Change::Add { id: id(n), address: self.addresses[n].clone(), voter: true, incarnation: Incarnation::UNKNOWN }
    }
}

fn ask(node: &Node, ask: Ask, timeout: Duration) -> Outcome {
    let waiting = Waiting::new(1);
    node.ask(ask, Caller { sink: Arc::<Waiting>::clone(&waiting), token: 0 }, timeout);
    assert!(waiting.wait(timeout + PATIENCE), "every ask is answered by its deadline");
    waiting.take().remove(0)
}

fn change(node: &Node, change: Change) -> Outcome {
    ask(node, Ask::Change { change, guard: None }, PATIENCE)
}

fn done(outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
}

fn refused(outcome: &Outcome, words: &str) {
    let Outcome::Refused(Refusal::Membership(why)) = outcome else { panic!("not refused: {outcome:?}") };
    assert!(why.contains(words), "{why}");
}

#[test]
fn the_seeds_sequence() {
    // Start a cluster, add two peers, shut the leader down, restart it without any add.
    let mut crowd = Crowd::new(3);
    crowd.found(0);
    crowd.join(1, 0);
    crowd.wait_voters(0, &[0, 1]);
    crowd.join(2, 0);
    crowd.wait_voters(0, &[0, 1, 2]);
    execute(crowd.node(0), "before");
    crowd.stop(0);
    let new = wait("another leader", || crowd.node(1).status().leader.filter(|leader| *leader != id(0)));
    value(execute(crowd.node(2), "while it was away"));
    let term = crowd.node(1).status().term;
    let config = crowd.config(0);
    crowd.start(0, &config);
    wait("it to catch up", || (crowd.nodes[0].as_ref().unwrap().1.seen().len() == 2).then_some(()));
    for n in 0..20 {
        value(execute(crowd.node(n % 3), "more"));
    }
    for n in 0..3 {
        let status = crowd.node(n).status();
        assert_eq!((status.term, status.leader), (term, Some(new)), "no election, no disturbance");
    }
    crowd.wait_same(&[0, 1, 2]);
}

#[test]
fn one_grows_to_five_and_every_founder_is_replaced_under_load() {
    let mut crowd = Crowd::new(6);
    crowd.snapshot_every_bytes = 20_000;
    crowd.found(0);
    for n in 1..3 {
        crowd.join(n, n - 1);
        crowd.wait_voters(0, &(0..=n).collect::<Vec<_>>());
    }
    let stop = AtomicBool::new(false);
    let written = AtomicUsize::new(0);
    for n in 3..6 {
        crowd.join(n, 2);
    }
    let crowd = crowd;
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (crowd, stop, written) = (&crowd, &stop, &written);
            scope.spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // The founders leave, so that the others are asked.
                    if let Outcome::Done { .. } = execute(crowd.node(3 + n % 3), &format!("{writer}-{n}")) {
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        crowd.wait_voters(4, &[0, 1, 2, 3, 4, 5]);
        for n in 0..3 {
            done(&change(crowd.node(3 + n), Change::Remove { id: id(n) }));
        }
        crowd.wait_voters(4, &[3, 4, 5]);
        stop.store(true, Ordering::Relaxed);
    });
    for n in 0..3 {
        wait("the removed one to know", || (crowd.node(n).status().role == "removed").then_some(()));
        assert_eq!(execute(crowd.node(n), "x"), Outcome::Refused(Refusal::Removed));
    }
    crowd.wait_same(&[3, 4, 5]);
    let lines = crowd.nodes[3].as_ref().unwrap().1.seen();
    let mut once = lines.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), lines.len(), "nothing is applied twice");
    assert!(lines.len() >= written.load(Ordering::Relaxed), "nothing acknowledged is lost");
    let refusal = change(crowd.node(3), crowd.add(0));
    refused(&refusal, "ids are not used again");
}

#[test]
fn a_joiner_that_never_starts_costs_nothing() {
    let mut crowd = Crowd::new(2);
    crowd.found(0);
    refused(&change(crowd.node(0), crowd.add(1)), "n2 cannot be added");
    value(execute(crowd.node(0), "still writable"));
    assert_eq!(crowd.voters(0), [id(0)]);
}

#[test]
fn a_joiner_that_dies_while_it_catches_up_costs_nothing_and_can_be_taken_back() {
    let mut crowd = Crowd::new(2);
    crowd.found(0);
    crowd.join(1, 0);
    crowd.wait_voters(0, &[0, 1]);
    done(&change(crowd.node(0), Change::Demote { id: id(1) }));
    crowd.crash(1);
    wait("the leader to notice", || {
        crowd.node(0).status().members.iter().any(|m| m.reachable == Some(false)).then_some(())
    });
    refused(&change(crowd.node(0), Change::Promote { id: id(1) }), "n2 cannot be reached");
    value(execute(crowd.node(0), "still writable"));
    done(&change(crowd.node(0), Change::Remove { id: id(1) }));
    crowd.wait_voters(0, &[0]);
}

#[test]
fn the_leader_removes_itself() {
    let mut crowd = Crowd::new(2);
    crowd.found(0);
    crowd.join(1, 0);
    crowd.wait_voters(0, &[0, 1]);
    value(execute(crowd.node(1), "before"));
    done(&change(crowd.node(0), Change::Remove { id: id(0) }));
    crowd.wait_voters(1, &[1]);
    value(execute(crowd.node(1), "after"));
    assert_eq!(crowd.node(0).status().role, "removed");
    refused(&change(crowd.node(1), Change::Remove { id: id(1) }), "last voter");
}

#[test]
fn replace_apply_and_transfer() {
    let mut crowd = Crowd::new(4);
    crowd.found(0);
    crowd.join(1, 0);
    crowd.join(2, 0);
    crowd.wait_voters(0, &[0, 1, 2]);
    crowd.join(3, 0);
    crowd.wait_voters(0, &[0, 1, 2, 3]);
    done(&ask(crowd.node(2), Ask::Transfer { to: Some(id(1)) }, PATIENCE));
    assert_eq!(crowd.node(2).status().leader, Some(id(1)));
    done(&ask(crowd.node(0), Ask::Transfer { to: None }, PATIENCE));
    assert_ne!(crowd.node(0).status().leader, Some(id(1)));
    let two: BTreeMap<NodeId, String> = [1, 3].map(|n| (id(n), crowd.addresses[n].clone())).into();
    done(&change(crowd.node(0), Change::Apply { members: two }));
    crowd.wait_voters(1, &[1, 3]);
    refused(&change(crowd.node(1), Change::Apply { members: BTreeMap::new() }), "no members are given");
    refused(&change(crowd.node(1), Change::Promote { id: id(7) }), "there is no member n8");
}

#[test]
fn all_addresses_change_at_once() {
    let mut crowd = Crowd::new(3);
    crowd.found(0);
    crowd.join(1, 0);
    crowd.join(2, 0);
    crowd.wait_voters(0, &[0, 1, 2]);
    value(execute(crowd.node(0), "before"));
    (0..3).for_each(|n| crowd.stop(n));
    let moved = Crowd::new(3);
    crowd.addresses.clone_from(&moved.addresses);
    drop(moved);
    for n in 0..3 {
        crowd.join(n, 2);
    }
    value(execute(crowd.node(0), "after"));
    wait("the new addresses to be known everywhere", || {
        let known = |n: usize| {
            let members = crowd.node(n).status().members;
            members.iter().enumerate().all(|(m, member)| member.address == crowd.addresses[m])
        };
        (0..3).all(known).then_some(())
    });
    crowd.wait_same(&[0, 1, 2]);
}

#[test]
fn a_wiped_disk_under_an_old_id_is_recognised() {
    let mut crowd = Crowd::new(4);
    crowd.found(0);
    crowd.join(1, 0);
    crowd.join(2, 0);
    crowd.wait_voters(0, &[0, 1, 2]);
    wait("the directories to be recorded", || {
        let members = crowd.node(0).status().members;
        members.iter().all(|member| member.incarnation != Incarnation::UNKNOWN).then_some(())
    });
    crowd.crash(2);
    std::fs::remove_dir_all(crowd.directory.path().join(id(2).as_str())).unwrap();
    crowd.join(2, 0);
    let status = wait("it to be told", || Some(crowd.node(2).status()).filter(|status| status.error_code.is_some()));
    assert_eq!(status.error_code, Some("IDENTITY_MISMATCH"));
    assert!(status.error.unwrap().contains("replace"), "it says what to do");
    crowd.stop(2);
    let directory = crowd.directory.path().join("fresh");
    let config = NodeConfig { join: Vec::new(), data_dir: directory, ..crowd.config(3) };
    let config = NodeConfig { join: vec![crowd.addresses[0].clone()], ..config };
    crowd.start(3, &config);
    let replace = Change::Replace { old: id(2), new: id(3), address: crowd.addresses[3].clone() };
    let outcome = change(crowd.node(0), replace.clone());
    if !matches!(outcome, Outcome::Done { .. }) {
        // It may have joined by itself already.
        crowd.wait_voters(0, &[0, 1, 2, 3]);
        done(&change(crowd.node(0), Change::Remove { id: id(2) }));
    }
    crowd.wait_voters(0, &[0, 1, 3]);
}

#[test]
fn two_founders_never_merge() {
    let mut crowd = Crowd::new(2);
    crowd.found(0);
    crowd.found(1);
    // What a founder has not written down yet it may forget, and join as if it were new.
    value(execute(crowd.node(1), "founded"));
    refused(&change(crowd.node(0), crowd.add(1)), "n2 cannot be added");
    let clusters = [0, 1].map(|n| crowd.node(n).status().cluster);
    assert_ne!(clusters[0], clusters[1]);
    crowd.stop(1);
    crowd.join(1, 0);
    let status = wait("it to be told", || Some(crowd.node(1).status()).filter(|status| status.error_code.is_some()));
    assert_eq!(status.error_code, Some("CLUSTER_MISMATCH"));
    assert_eq!(crowd.voters(0), [id(0)]);
}

#[test]
fn a_new_member_gets_a_snapshot_and_a_restart_begins_with_it() {
    let mut crowd = Crowd::new(2);
    crowd.snapshot_every_bytes = 4096;
    crowd.found(0);
    for n in 0..300 {
        value(execute(crowd.node(0), &format!("a line of some length, number {n}")));
    }
    let taken = wait("a snapshot", || Some(crowd.node(0).status().snapshot).filter(|index| index.0 > 0));
    crowd.stop(0);
    crowd.found(0);
    assert!(crowd.node(0).status().snapshot >= taken);
    wait("all of it", || (crowd.nodes[0].as_ref().unwrap().1.seen().len() == 300).then_some(()));
    crowd.join(1, 0);
    crowd.wait_voters(0, &[0, 1]);
    crowd.wait_same(&[0, 1]);
    assert!(crowd.node(1).status().snapshot >= taken, "it began with a snapshot, not with the first entry");
    value(execute(crowd.node(1), "on"));
    crowd.wait_same(&[0, 1]);
}

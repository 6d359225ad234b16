//! A command that is sent again under its place in a session is applied once, whatever became of the nodes in between.

use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use graft::domain::{Index, Term};
use graft::infrastructure::config::NodeConfig;
use graft::infrastructure::runtime::{Node, Waiting};
use graft::services::api::{Api, Call, Caller};
use graft::services::commands::Slot;
use graft::services::error::{Outcome, Refusal};
use graft::services::ports::{Command, Halt, Machine, Made, Reply, WriteSnapshot};

use crate::cluster::{Cluster, Lines, PATIENCE, execute, id, value, wait};

/// The answer to one question.
pub(crate) fn answer(ask: impl FnOnce(Caller)) -> Outcome {
    let waiting = Waiting::new(1);
    ask(Caller { sink: Arc::<Waiting>::clone(&waiting), token: 0 });
    assert!(waiting.wait(2 * PATIENCE), "it is answered by its deadline");
    waiting.take().remove(0)
}

fn open_session(node: &dyn Api, ttl: Option<Duration>) -> u64 {
    match answer(|caller| node.open_session(ttl, caller, PATIENCE)) {
        Outcome::Done { index, .. } => index.0,
        other => panic!("no session: {other:?}"),
    }
}

fn send(node: &dyn Api, session: u64, sequence: u64, body: &'static str) -> Outcome {
    let slot = Some(Slot { session, sequence, unanswered: 1 });
    answer(|caller| node.execute(vec![Call { body: Bytes::from(body), slot, caller }], PATIENCE))
}

fn done(outcome: &Outcome) -> (Index, Term, Reply) {
    match outcome {
        Outcome::Done { index, term, reply } => (*index, *term, reply.clone()),
        other => panic!("it should be done: {other:?}"),
    }
}

fn snapshot(node: &dyn Api) {
    done(&answer(|caller| node.snapshot(false, caller, PATIENCE)));
}

#[test]
fn a_command_sent_twice_is_applied_once_and_answered_the_same() {
    let cluster = Cluster::new(3);
    cluster.leader();
    let session = open_session(cluster.node(0), None);
    let first = send(cluster.node(0), session, 1, "once");
    for n in 0..3 {
        assert_eq!(done(&send(cluster.node(n), session, 1, "once")), done(&first), "at any member");
    }
    assert_eq!(value(send(&*cluster.node(1).doorkeeper(), session, 2, "next")), "2");
    assert_eq!(cluster.converged(), ["once", "next"]);
}

#[test]
fn a_command_sent_again_after_a_kill_is_applied_once() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let session = open_session(cluster.node(leader), None);
    let first = send(cluster.node(leader), session, 1, "once");
    cluster.crash(leader);
    let other = (leader + 1) % 3;
    assert_eq!(done(&send(cluster.node(other), session, 1, "once")), done(&first));
    cluster.start(leader);
    assert_eq!(cluster.converged(), ["once"]);
    // All of them at once: what is known of sessions is in the log.
    (0..3).for_each(|n| cluster.crash(n));
    (0..3).for_each(|n| cluster.start(n));
    assert_eq!(done(&send(cluster.node(leader), session, 1, "once")), done(&first));
    assert_eq!(value(send(cluster.node(leader), session, 2, "next")), "2");
    assert_eq!(cluster.converged(), ["once", "next"]);
}

#[test]
fn sessions_are_in_snapshots() {
    let mut cluster = Cluster::new(1);
    let session = open_session(cluster.node(0), None);
    let first = send(cluster.node(0), session, 1, "once");
    snapshot(cluster.node(0));
    let second = send(cluster.node(0), session, 2, "behind it");
    cluster.crash(0);
    cluster.start(0);
    assert_eq!(done(&send(cluster.node(0), session, 1, "once")), done(&first));
    assert_eq!(done(&send(cluster.node(0), session, 2, "behind it")), done(&second));
    assert_eq!(cluster.converged(), ["once", "behind it"]);
}

#[test]
fn a_session_that_does_not_exist_applies_nothing() {
    let cluster = Cluster::new(1);
    assert_eq!(value(execute(cluster.node(0), "x")), "1");
    assert_eq!(send(cluster.node(0), 4711, 1, "y"), Outcome::Refused(Refusal::SessionExpired));
    assert_eq!(value(execute(cluster.node(0), "z")), "2");
    assert_eq!(cluster.converged(), ["x", "z"]);
}

#[test]
fn replicas_that_are_the_same_compare_as_the_same() {
    let cluster = Cluster::new(3);
    value(execute(cluster.node(cluster.leader()), "x"));
    let Outcome::Compared { index, digests } = answer(|caller| cluster.node(0).verify(caller, PATIENCE)) else {
        panic!("they are compared");
    };
    assert!(index > Index::ZERO);
    assert_eq!(digests.len(), 3, "{digests:?}");
    assert!(digests.values().all(|digest| digest.is_ok() && digest == &digests[&id(0)]), "{digests:?}");
}

/// Keeps its lines, and how far it is, beyond a kill: as one does that has files of its own.
#[derive(Clone, Default)]
struct Durable {
    lines: Lines,
    applied: Arc<Mutex<Index>>,
}

impl Machine for Durable {
    fn open(&mut self, _directory: &str) -> Result<Index, Halt> {
        Ok(*self.applied.lock().unwrap())
    }

    fn apply(&mut self, commands: &[Command], made: &mut Made) -> Result<(), Halt> {
        self.lines.apply(commands, made)?;
        if let Some(last) = commands.last() {
            *self.applied.lock().unwrap() = last.index;
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Result<WriteSnapshot, String> {
        self.lines.snapshot()
    }

    fn restore(&mut self, _file: Box<dyn Read + Send>) -> Result<(), String> {
        Err("it has all of it, and is never behind a snapshot here".to_owned())
    }

    fn query(&mut self, queries: &[Bytes], replies: &mut Vec<Reply>) {
        self.lines.query(queries, replies);
    }

    fn digest(&mut self) -> Result<Bytes, String> {
        self.lines.digest()
    }
}

#[test]
fn a_machine_with_files_of_its_own_is_not_handed_a_command_again() {
    let directory = tempfile::tempdir().unwrap();
    let config = NodeConfig::new(id(0), "127.0.0.1:0", directory.path());
    let machine = Durable::default();
    let start = || Node::start(&config, Box::new(machine.clone())).unwrap();
    let mut node = start();
    wait("a leader", || node.status().leader);
    let session = open_session(&node, None);
    let first = send(&node, session, 1, "in the snapshot");
    snapshot(&node);
    let second = send(&node, session, 2, "in the log");
    for _ in 0..2 {
        assert!(node.kill(PATIENCE));
        node = start();
        // The answer is kept in the snapshot; of what came later it is known only that it was applied.
        assert_eq!(done(&send(&node, session, 1, "in the snapshot")), done(&first));
        let again = send(&node, session, 2, "in the log");
        let index = done(&second).0;
        assert!(matches!(&again, Outcome::Unknown { why, .. } if why.contains(&index.to_string())), "{again:?}");
        assert_eq!(machine.lines.seen(), ["in the snapshot", "in the log"]);
    }
    assert_eq!(value(send(&node, session, 3, "new")), "3");
}

//! What callers are told by real nodes when a machine halts, a node is killed, or a link has more to carry than it takes.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use graft::domain::{Index, NodeId};
use graft::infrastructure::config::NodeConfig;
use graft::infrastructure::runtime::{Node, Waiting};
use graft::services::Consistency;
use graft::services::error::{Outcome, Refusal};
use graft::services::ports::{Command, Halt, Machine, Made, Reply, WriteSnapshot};

use crate::cluster::{Kind, free_address, hand_over};

const PATIENCE: Duration = Duration::from_secs(30);

/// Counts commands. In `gate` it waits until it is let go, and at `halt` it halts.
#[derive(Clone, Default)]
struct Counter {
    count: Arc<Mutex<usize>>,
    held: Arc<AtomicBool>,
    waits: Arc<AtomicBool>,
}

impl Machine for Counter {
    fn open(&mut self, _directory: &str) -> Result<Index, Halt> {
        Ok(Index::ZERO)
    }

    fn apply(&mut self, commands: &[Command], made: &mut Made) -> Result<(), Halt> {
        let replies = &mut made.replies;
        for command in commands {
            if command.body == "halt" {
                return Err(Halt { index: command.index, why: "told to halt".to_owned() });
            }
            while command.body == "gate" && self.held.load(Ordering::Relaxed) {
                self.waits.store(true, Ordering::Relaxed);
                std::thread::yield_now();
            }
            *self.count.lock().unwrap() += 1;
            replies.push(Reply::Value(Bytes::new()));
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Result<WriteSnapshot, String> {
        let count = u64::try_from(*self.count.lock().unwrap()).unwrap();
        Ok(Box::new(move |file| file.write_all(&count.to_le_bytes()).map_err(|error| error.to_string())))
    }

    fn restore(&mut self, mut file: Box<dyn Read + Send>) -> Result<(), String> {
        let mut count = [0; 8];
        file.read_exact(&mut count).map_err(|error| error.to_string())?;
        *self.count.lock().unwrap() = usize::try_from(u64::from_le_bytes(count)).unwrap();
        Ok(())
    }

    fn digest(&mut self) -> Result<Bytes, String> {
        Ok(Bytes::new())
    }

    fn query(&mut self, queries: &[Bytes], replies: &mut Vec<Reply>) {
        replies.extend(queries.iter().map(|_| Reply::Value(Bytes::new())));
    }
}

fn submit(node: &Node, kind: Kind, bodies: impl IntoIterator<Item = String>) -> Arc<Waiting> {
    hand_over(node, kind, bodies.into_iter().map(Bytes::from), PATIENCE)
}

fn answers(waiting: &Waiting) -> Vec<Outcome> {
    assert!(waiting.wait(2 * PATIENCE), "every call is answered by its deadline");
    waiting.take()
}

fn id(n: usize) -> NodeId {
    NodeId::new(&format!("n{n}")).unwrap()
}

fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A node whose machine is in the middle of a command, and who waits for that.
fn in_the_middle(directory: &std::path::Path) -> (Node, Counter, Arc<Waiting>) {
    let machine = Counter::default();
    machine.held.store(true, Ordering::Relaxed);
    let config = NodeConfig::new(id(1), "127.0.0.1:0", directory);
    let node = Node::start(&config, Box::new(machine.clone())).unwrap();
    let gate = submit(&node, Kind::Execute, ["gate".to_owned()]);
    wait("the machine to begin", || machine.waits.load(Ordering::Relaxed));
    (node, machine, gate)
}

#[test]
fn a_machine_that_halted_answers_no_query() {
    let directory = tempfile::tempdir().unwrap();
    let (node, machine, gate) = in_the_middle(directory.path());
    let before = node.status().commit;
    let halt = submit(&node, Kind::Execute, ["halt".to_owned()]);
    wait("the command to be committed", || node.status().commit > before);
    // They wait behind it; the state that they ask for will never be there.
    let queries: Vec<_> = [Consistency::Linearizable, Consistency::Stale { max_age: None }]
        .map(|consistency| submit(&node, Kind::Query(consistency), [String::new()]))
        .into();
    // The engine has seen to them when it answers.
    node.status();
    machine.held.store(false, Ordering::Relaxed);
    assert!(matches!(answers(&gate)[..], [Outcome::Done { .. }]));
    assert!(matches!(answers(&halt)[..], [Outcome::Unknown { .. }]));
    for query in queries {
        let answer = answers(&query).remove(0);
        assert!(matches!(answer, Outcome::Refused(Refusal::Halted(_))), "{answer:?}");
    }
    assert!(node.stop(PATIENCE));
}

#[test]
fn what_is_under_way_when_a_node_is_killed_is_not_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (node, machine, gate) = in_the_middle(directory.path());
    assert!(!node.kill(Duration::from_millis(50)), "the machine is held and left behind");
    let answer = answers(&gate).remove(0);
    machine.held.store(false, Ordering::Relaxed);
    assert!(matches!(answer, Outcome::Unknown { .. }), "it is in the log: {answer:?}");
    wait("the machine to be done with it", || *machine.count.lock().unwrap() == 1);
}

#[test]
fn a_follower_passes_on_more_calls_than_a_link_takes_at_once() {
    const CALLS: usize = 40_000;
    let directory = tempfile::tempdir().unwrap();
    let members: BTreeMap<NodeId, String> = (1..=3).map(|n| (id(n), free_address())).collect();
    let machine = Counter::default();
    let nodes: Vec<Node> = members
        .iter()
        .map(|(id, address)| NodeConfig {
            members: Some(members.clone()),
            ..NodeConfig::new(*id, address.clone(), directory.path().join(id.as_str()))
        })
        .map(|config| Node::start(&config, Box::new(machine.clone())).unwrap())
        .collect();
    wait("a leader", || nodes.iter().all(|node| node.status().leader.is_some()));
    let leader = nodes[0].status().leader;
    let follower = nodes.iter().find(|node| Some(node.status().id) != leader).unwrap();
    let outcomes = answers(&submit(follower, Kind::Execute, (0..CALLS).map(|n| n.to_string())));
    let not_done = outcomes.iter().find(|outcome| !matches!(outcome, Outcome::Done { .. }));
    assert_eq!(not_done, None);
}

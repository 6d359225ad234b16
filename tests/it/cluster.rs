//! Real nodes on loopback, with real disks and a machine in Rust.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use graft::domain::{Index, NodeId};
use graft::infrastructure::config::NodeConfig;
use graft::infrastructure::runtime::{Node, StartError, Waiting};
use graft::services::api::{Api, Call, Caller};
use graft::services::error::{Outcome, Refusal};
use graft::services::ports::{Command, Emitted, Halt, Machine, Made, Raised, Reply, StoreError, WriteSnapshot};
use graft::services::{self, Consistency, Status};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Keeps every command; `raise`, `halt`, `panic` and `block` do as they say, and `emit a b` emits itself on topics a and b.
#[derive(Clone, Default)]
pub(crate) struct Lines {
    pub(crate) kept: Arc<Mutex<Vec<Bytes>>>,
    pub(crate) blocked: Arc<AtomicBool>,
    /// What `halt` and `panic` mean only here: trouble of this replica alone.
    pub(crate) fragile: bool,
}

impl Lines {
    pub(crate) fn seen(&self) -> Vec<Bytes> {
        self.kept.lock().unwrap().clone()
    }
}

impl Machine for Lines {
    fn open(&mut self, _directory: &str) -> Result<Index, Halt> {
        Ok(Index::ZERO)
    }

    fn apply(&mut self, commands: &[Command], made: &mut Made) -> Result<(), Halt> {
        let replies = &mut made.replies;
        for command in commands {
            match &command.body[..] {
                b"raise" => replies.push(Reply::Raised(Box::new(Raised {
                    type_name: "ValueError".to_owned(),
                    message: "as told".to_owned(),
                    traceback: String::new(),
                }))),
                b"halt" if self.fragile => return Err(Halt { index: command.index, why: "told to halt".to_owned() }),
                b"panic" if self.fragile => panic!("told to panic"),
                body => {
                    while body == b"block" && self.blocked.load(Ordering::Relaxed) {
                        std::thread::yield_now();
                    }
                    let topics = body.strip_prefix(b"emit ").map(|topics| std::str::from_utf8(topics).unwrap());
                    for (topic, number) in topics.into_iter().flat_map(|topics| topics.split(' ')).zip(0..) {
                        let (index, topic, value) = (command.index, topic.to_owned(), command.body.clone());
                        made.emitted.push(Emitted { index, number, topic, value });
                    }
                    let mut lines = self.kept.lock().unwrap();
                    lines.push(command.body.clone());
                    replies.push(Reply::Value(Bytes::from(lines.len().to_string())));
                }
            }
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Result<WriteSnapshot, String> {
        let lines = self.seen();
        Ok(Box::new(move |file| {
            for line in lines {
                let length = u32::try_from(line.len()).unwrap().to_le_bytes();
                let written = file.write_all(&length).and_then(|()| file.write_all(&line));
                written.map_err(|error| error.to_string())?;
            }
            Ok(())
        }))
    }

    fn restore(&mut self, mut file: Box<dyn Read + Send>) -> Result<(), String> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        let mut bytes = Bytes::from(bytes);
        let mut lines = self.kept.lock().unwrap();
        lines.clear();
        while !bytes.is_empty() {
            let length = bytes.get_u32_le() as usize;
            lines.push(bytes.split_to(length));
        }
        Ok(())
    }

    fn digest(&mut self) -> Result<Bytes, String> {
        Ok(Bytes::new())
    }

    fn query(&mut self, queries: &[Bytes], replies: &mut Vec<Reply>) {
        let count = self.kept.lock().unwrap().len().to_string();
        replies.extend(queries.iter().map(|_| Reply::Value(Bytes::from(count.clone()))));
    }
}

pub(crate) struct Cluster {
    directory: tempfile::TempDir,
    pub(crate) configs: Vec<NodeConfig>,
    pub(crate) machines: Vec<Lines>,
    nodes: Vec<Option<Node>>,
}

impl Cluster {
    pub(crate) fn new(size: usize) -> Self {
        Self::with(size, |_| Lines::default())
    }

    pub(crate) fn with(size: usize, machine: impl Fn(usize) -> Lines) -> Self {
        Self::tuned(size, machine, |_, _| {})
    }

    /// `tune` may change what each member is told.
    pub(crate) fn tuned(size: usize, machine: impl Fn(usize) -> Lines, tune: impl Fn(usize, &mut NodeConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let members: BTreeMap<NodeId, String> = (0..size).map(|n| (id(n), free_address())).collect();
        let config = |n: usize| NodeConfig {
            members: Some(members.clone()),
            ..NodeConfig::new(id(n), members[&id(n)].clone(), directory.path().join(id(n).as_str()))
        };
        let mut configs: Vec<NodeConfig> = (0..size).map(config).collect();
        configs.iter_mut().enumerate().for_each(|(n, config)| tune(n, config));
        let machines: Vec<Lines> = (0..size).map(machine).collect();
        let mut cluster = Self { directory, configs, machines, nodes: (0..size).map(|_| None).collect() };
        (0..size).for_each(|n| cluster.start(n));
        cluster
    }

    pub(crate) fn start(&mut self, n: usize) {
        self.nodes[n] = Some(Node::start(&self.configs[n], Box::new(self.machines[n].clone())).unwrap());
    }

    /// Takes it down without a word to the others.
    pub(crate) fn crash(&mut self, n: usize) {
        let node = self.nodes[n].take().unwrap();
        assert!(node.kill(PATIENCE), "a killed node's threads end");
        let machine = Lines { fragile: self.machines[n].fragile, ..Lines::default() };
        self.machines[n] = machine;
    }

    pub(crate) fn node(&self, n: usize) -> &Node {
        self.nodes[n].as_ref().unwrap()
    }

    fn running(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|n| self.nodes[*n].is_some())
    }

    /// Waits until all that run agree on a leader that has a quorum.
    pub(crate) fn leader(&self) -> usize {
        wait("a leader that all follow", || {
            let all: Vec<Status> = self.running().map(|n| self.node(n).status()).collect();
            let leader = all[0].leader?;
            let agreed = all.iter().all(|s| s.leader == Some(leader) && s.term == all[0].term && s.has_quorum);
            agreed
                .then(|| (0..self.nodes.len()).find(|n| id(*n) == leader))
                .flatten()
                .filter(|n| self.nodes[*n].is_some())
        })
    }

    pub(crate) fn converged(&self) -> Vec<Bytes> {
        wait("the same state everywhere", || {
            let all: Vec<Vec<Bytes>> = self.running().map(|n| self.machines[n].seen()).collect();
            let last: Vec<Status> = self.running().map(|n| self.node(n).status()).collect();
            let done = last.iter().all(|s| s.applied == last[0].last && s.last == last[0].last);
            (done && all.iter().all(|lines| *lines == all[0])).then(|| all[0].clone())
        })
    }
}

pub(crate) fn id(n: usize) -> NodeId {
    NodeId::new(&format!("n{}", n + 1)).unwrap()
}

pub(crate) fn wait<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Execute,
    Query(Consistency),
}

/// Asks for all of it at once.
pub(crate) fn hand_over(
    node: &dyn Api,
    kind: Kind,
    bodies: impl IntoIterator<Item = Bytes>,
    timeout: Duration,
) -> Arc<Waiting> {
    let bodies: Vec<Bytes> = bodies.into_iter().collect();
    let waiting = Waiting::new(bodies.len());
    let caller = |token| Caller { sink: Arc::<Waiting>::clone(&waiting), token };
    let calls = (0..).zip(bodies).map(|(token, body)| (body, caller(token)));
    match kind {
        Kind::Execute => {
            let call = |(body, caller)| Call { body, slot: None, caller };
            node.execute(calls.map(call).collect(), timeout);
        }
        Kind::Query(consistency) => node.query(calls.collect(), services::Read::of(consistency), timeout),
    }
    waiting
}

pub(crate) fn call(node: &dyn Api, kind: Kind, bodies: &[&str], timeout: Duration) -> Vec<Outcome> {
    let waiting = hand_over(node, kind, bodies.iter().map(|body| Bytes::from((*body).to_owned())), timeout);
    assert!(waiting.wait(timeout + PATIENCE), "every call is answered by its deadline");
    waiting.take()
}

pub(crate) fn execute(node: &Node, body: &str) -> Outcome {
    call(node, Kind::Execute, &[body], PATIENCE).remove(0)
}

pub(crate) fn value(outcome: Outcome) -> String {
    match outcome {
        Outcome::Done { reply: Reply::Value(bytes), .. } => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("no value: {other:?}"),
    }
}

pub(crate) fn count(node: &Node, consistency: Consistency) -> String {
    value(call(node, Kind::Query(consistency), &["count"], PATIENCE).remove(0))
}

#[test]
fn a_cluster_of_one_remembers() {
    let directory = tempfile::tempdir().unwrap();
    let config = NodeConfig::new(id(0), "127.0.0.1:0", directory.path());
    for round in 0..3 {
        let machine = Lines::default();
        let node = Node::start(&config, Box::new(machine.clone())).unwrap();
        assert!(!node.address().ends_with(":0"), "{}", node.address());
        assert_eq!(value(execute(&node, "x")), (round + 1).to_string());
        assert_eq!(count(&node, Consistency::Linearizable), (round + 1).to_string());
        assert!(node.stop(PATIENCE));
        assert_eq!(execute(&node, "x"), Outcome::Refused(Refusal::Stopped));
    }
}

#[test]
fn any_member_takes_any_call() {
    let cluster = Cluster::new(3);
    for n in 0..9 {
        assert_eq!(value(execute(cluster.node(n % 3), &format!("{n}"))), (n + 1).to_string());
        assert_eq!(count(cluster.node((n + 1) % 3), Consistency::Linearizable), (n + 1).to_string());
    }
    assert_eq!(cluster.converged().len(), 9);
    assert_eq!(count(cluster.node(0), Consistency::Stale { max_age: None }), "9");
    let clusters: Vec<_> = (0..3).map(|n| cluster.node(n).status().cluster).collect();
    assert!(clusters.iter().all(|cluster| *cluster == clusters[0]) && clusters[0].0 != 0);
}

#[test]
fn nothing_acknowledged_is_lost_with_the_leader() {
    let mut cluster = Cluster::new(3);
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        let leader = cluster.leader();
        let other = (leader + 1) % 3;
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8)
                .map(|writer| {
                    let node = cluster.node(other);
                    scope.spawn(move || {
                        let line = |n| format!("{round}-{writer}-{n}");
                        (0..20)
                            .map(line)
                            .filter(|l| matches!(execute(node, l), Outcome::Done { .. }))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            for writer in writers {
                acknowledged.extend(writer.join().unwrap());
            }
        });
        cluster.crash(leader);
        assert_eq!(
            value(execute(cluster.node(other), &format!("after {round}"))).parse::<usize>().unwrap(),
            acknowledged.len() + 1
        );
        acknowledged.push(format!("after {round}"));
        cluster.start(leader);
    }
    let lines: Vec<String> = cluster.converged().iter().map(|line| String::from_utf8(line.to_vec()).unwrap()).collect();
    let mut sorted = lines.clone();
    sorted.sort();
    acknowledged.sort();
    assert_eq!(sorted, acknowledged, "each acknowledged line is there once, and no other");
}

#[test]
fn a_restarted_leader_disturbs_nobody() {
    let mut cluster = Cluster::new(3);
    let old = cluster.leader();
    execute(cluster.node(old), "before");
    cluster.crash(old);
    let new = cluster.leader();
    let term = cluster.node(new).status().term;
    execute(cluster.node(new), "while it was away");
    cluster.start(old);
    assert_eq!(cluster.converged().len(), 2);
    for n in 0..20 {
        execute(cluster.node(n % 3), "more");
    }
    assert_eq!((cluster.leader(), cluster.node(new).status().term), (new, term), "no election");
}

#[test]
fn stopping_hands_leadership_over_and_loses_no_call() {
    let mut cluster = Cluster::new(3);
    let old = cluster.leader();
    let before = cluster.node(old).status().term;
    let begun = Instant::now();
    assert!(cluster.nodes[old].take().unwrap().stop(PATIENCE));
    let new = cluster.leader();
    assert_eq!(cluster.node(new).status().term.0, before.0 + 1, "one election, at once");
    assert!(begun.elapsed() < PATIENCE);
    assert_eq!(value(execute(cluster.node(new), "on")), "1");
}

#[test]
fn a_command_that_raises_is_answered_and_the_cluster_goes_on() {
    let cluster = Cluster::new(3);
    for n in 0..3 {
        let Outcome::Done { reply: Reply::Raised(raised), .. } = execute(cluster.node(n), "raise") else {
            panic!("not raised");
        };
        assert_eq!((raised.type_name.as_str(), raised.message.as_str()), ("ValueError", "as told"));
    }
    assert_eq!(value(execute(cluster.node(0), "on")), "1");
}

#[test]
fn a_machine_that_blocks_causes_no_election() {
    let cluster = Cluster::new(3);
    let leader = cluster.leader();
    let term = cluster.node(leader).status().term;
    cluster.machines[leader].blocked.store(true, Ordering::Relaxed);
    let outcome = call(cluster.node(leader), Kind::Execute, &["block"], Duration::from_secs(3)).remove(0);
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
    assert_eq!((cluster.leader(), cluster.node(leader).status().term), (leader, term));
    cluster.machines[leader].blocked.store(false, Ordering::Relaxed);
    assert_eq!(value(execute(cluster.node(leader), "on")), "2");
}

#[test]
fn a_replica_that_halts_says_so_and_gives_up_leadership() {
    for trouble in ["halt", "panic"] {
        let cluster = Cluster::with(3, |_| Lines::default());
        let leader = cluster.leader();
        drop(cluster);
        let mut cluster = Cluster::with(3, |n| Lines { fragile: n == leader, ..Lines::default() });
        let fragile = leader;
        let others: Vec<usize> = (0..3).filter(|n| *n != fragile).collect();
        assert!(matches!(execute(cluster.node(others[0]), trouble), Outcome::Done { .. }));
        let why = wait("the replica to halt", || cluster.node(fragile).status().error);
        assert!(why.contains("told to"), "{why}");
        let new = wait("another leader", || cluster.node(others[0]).status().leader.filter(|l| *l != id(fragile)));
        assert_ne!(new, id(fragile));
        assert_eq!(value(execute(cluster.node(others[1]), "on")), "2");
        assert!(matches!(execute(cluster.node(fragile), "x"), Outcome::Refused(Refusal::Halted(_))));
        // It does not skip the entry when it is started again.
        cluster.crash(fragile);
        cluster.start(fragile);
        wait("the replica to halt again", || cluster.node(fragile).status().error);
        assert_eq!(cluster.machines[fragile].seen().len(), 0);
    }
}

#[test]
fn without_a_majority_nothing_is_done_and_the_reason_is_told() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let others: Vec<usize> = (0..3).filter(|n| *n != leader).collect();
    for other in &others {
        cluster.crash(*other);
    }
    wait("the leader to notice", || cluster.node(leader).status().leader.is_none().then_some(()));
    let outcome = call(cluster.node(leader), Kind::Execute, &["x"], Duration::from_millis(300)).remove(0);
    assert_eq!(outcome, Outcome::Refused(Refusal::NoQuorum { reachable: 1, needed: 2 }));
    let outcome =
        call(cluster.node(leader), Kind::Query(Consistency::Linearizable), &["x"], Duration::from_millis(300));
    assert_eq!(outcome, [Outcome::Refused(Refusal::NoQuorum { reachable: 1, needed: 2 })]);
    cluster.start(others[0]);
    assert_eq!(value(execute(cluster.node(leader), "y")), "1", "what was refused was not done");
}

#[test]
fn limits_are_told_at_the_door() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = NodeConfig::new(id(0), "127.0.0.1:0", directory.path());
    (config.command_bytes_max, config.inflight_max) = (10, 4);
    let node = Node::start(&config, Box::new(Lines::default())).unwrap();
    assert_eq!(execute(&node, "12345678901"), Outcome::Refused(Refusal::TooLarge { bytes: 11, limit: 10 }));
    assert_eq!(value(execute(&node, "1234567890")), "1");
    let outcomes = call(&node, Kind::Execute, &["a", "b", "c", "d", "e"], PATIENCE);
    assert!(outcomes.iter().any(|o| matches!(o, Outcome::Refused(Refusal::Busy(_)))), "{outcomes:?}");
    assert_eq!(value(execute(&node, "z")), "6", "four of five were done");
}

#[test]
fn a_large_command_reaches_every_member() {
    let cluster = Cluster::new(3);
    let large = "x".repeat(8 << 20);
    let follower = (cluster.leader() + 1) % 3;
    assert_eq!(value(execute(cluster.node(follower), &large)), "1");
    assert!(cluster.converged()[0].len() == 8 << 20);
}

#[test]
fn what_cannot_start_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let start = |config: &NodeConfig| Node::start(config, Box::new(Lines::default()));
    let config = NodeConfig::new(id(0), "127.0.0.1:0", directory.path().join("a"));
    let node = start(&config).unwrap();
    let mut other = NodeConfig::new(id(1), node.address(), directory.path().join("b"));
    assert!(matches!(start(&other), Err(StartError::Bind(_))), "the port is taken");
    other.address = "127.0.0.1:0".to_owned();
    other.data_dir = config.data_dir.clone();
    assert!(matches!(start(&other), Err(StartError::Store(StoreError::Locked { pid: Some(_), .. }))));
    assert!(node.stop(PATIENCE));
    assert!(matches!(start(&other), Err(StartError::Store(StoreError::WrongNode { .. }))));
    std::fs::write(directory.path().join("file"), "").unwrap();
    other.data_dir = directory.path().join("file");
    assert!(matches!(start(&other), Err(StartError::Store(StoreError::Io { .. }))));
    other.address = "no port".to_owned();
    assert!(matches!(start(&other), Err(StartError::Bind(_))));
    other.election_timeout = Duration::from_millis(1);
    assert!(matches!(start(&other), Err(StartError::Config(_))));
}

#[test]
fn the_directory_of_another_cluster_is_not_let_in() {
    let mut cluster = Cluster::new(3);
    execute(cluster.node(0), "x");
    cluster.crash(2);
    // n3 founds a cluster of its own meanwhile, where nobody misses it, and comes back with that one's directory.
    let stray = NodeConfig::new(id(2), free_address(), cluster.directory.path().join("stray"));
    let node = Node::start(&stray, Box::new(Lines::default())).unwrap();
    assert_eq!(value(execute(&node, "mine")), "1");
    assert!(node.stop(PATIENCE));
    std::fs::remove_file(stray.data_dir.join("doubt")).expect("it has been there for long enough");
    cluster.configs[2].data_dir = stray.data_dir;
    cluster.start(2);
    assert_eq!(value(execute(cluster.node(0), "y")), "2");
    let strange = call(cluster.node(2), Kind::Query(Consistency::Linearizable), &["count"], PATIENCE).remove(0);
    assert_eq!(value(strange), "1", "it keeps to its own history");
    assert_eq!(cluster.machines[0].seen().len(), 2);
}

#[test]
fn members_that_move_are_found_again() {
    let mut cluster = Cluster::new(3);
    assert_eq!(value(execute(cluster.node(0), "before")), "1");
    cluster.converged();
    // One moves and tells the others.
    cluster.crash(1);
    cluster.configs[1].address = free_address();
    let moved = cluster.configs[1].address.clone();
    cluster.configs[1].members.as_mut().unwrap().insert(id(1), moved);
    cluster.start(1);
    cluster.crash(2);
    assert_eq!(value(execute(cluster.node(0), "with the one that moved")), "2");
    // All move at once, and are started with the list of where they are now.
    cluster.start(2);
    cluster.converged();
    (0..3).for_each(|n| cluster.crash(n));
    let members: BTreeMap<NodeId, String> = (0..3).map(|n| (id(n), free_address())).collect();
    for n in 0..3 {
        cluster.configs[n].address.clone_from(&members[&id(n)]);
        cluster.configs[n].members = Some(members.clone());
    }
    (0..3).for_each(|n| cluster.start(n));
    assert_eq!(value(execute(cluster.node(1), "after")), "3");
}

#[test]
fn a_directory_is_not_free_while_its_machine_works() {
    let directory = tempfile::tempdir().unwrap();
    let config = NodeConfig::new(id(0), "127.0.0.1:0", directory.path());
    let stuck = Lines::default();
    stuck.blocked.store(true, Ordering::Relaxed);
    let node = Node::start(&config, Box::new(stuck.clone())).unwrap();
    wait("a leader", || node.status().leader);
    let outcomes = call(&node, Kind::Execute, &["block", "x", "y"], Duration::from_millis(300));
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Unknown { .. })), "{outcomes:?}");
    assert!(!node.stop(Duration::from_millis(100)), "the machine does not end");
    let second = Lines::default();
    let again = Node::start(&config, Box::new(second.clone()));
    assert!(matches!(again, Err(StartError::Store(StoreError::Locked { .. }))), "{again:?}");
    stuck.blocked.store(false, Ordering::Relaxed);
    let node = wait("the first machine to end", || Node::start(&config, Box::new(second.clone())).ok());
    assert_eq!(value(execute(&node, "z")), "4");
    assert!(node.stop(PATIENCE));
}

/// One that nobody uses, and that no other test is given. The system gives ports from 32 768 on to whoever connects
/// somewhere, and would give it away before a node has bound it or while one is down.
pub(crate) fn free_address() -> String {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        // Other test processes run at the same time.
        let given = std::process::id().wrapping_mul(761).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let address = format!("127.0.0.1:{}", 10_000 + given % 22_000);
        if std::net::TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

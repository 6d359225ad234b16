//! What a replicated command costs: three nodes in this process, real disks and sockets, a machine that does nothing,
//! beside what it cannot do without, measured in the same run: one `fdatasync` of the same bytes, and one answer over
//! loopback TCP.
//!
//! `cargo bench --bench commands`. Ratios are what counts; absolute times are those of this machine at this moment.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program for people, which may fail loudly"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use graft::domain::{Index, NodeId};
use graft::infrastructure::runtime::{Node, NodeConfig, Waiting};
use graft::services::api::{Api, Call, Caller, Sink};
use graft::services::error::Outcome;
use graft::services::ports::{Command, Halt, Machine, Made, Reply, WriteSnapshot};
use graft::services::{self, Consistency};

const COMMAND: &[u8] = &[7; 128];
const SECONDS: Duration = Duration::from_secs(3);

struct Nothing;

impl Machine for Nothing {
    fn open(&mut self, _directory: &str) -> Result<Index, Halt> {
        Ok(Index::ZERO)
    }

    fn apply(&mut self, commands: &[Command], made: &mut Made) -> Result<(), Halt> {
        let replies = &mut made.replies;
        replies.resize(replies.len() + commands.len(), Reply::Value(Bytes::new()));
        Ok(())
    }

    fn snapshot(&mut self) -> Result<WriteSnapshot, String> {
        Ok(Box::new(|_| Ok(())))
    }

    fn restore(&mut self, _file: Box<dyn Read + Send>) -> Result<(), String> {
        Ok(())
    }

    fn digest(&mut self) -> Result<Bytes, String> {
        Ok(Bytes::new())
    }

    fn query(&mut self, queries: &[Bytes], replies: &mut Vec<Reply>) {
        replies.resize(queries.len(), Reply::Value(Bytes::new()));
    }
}

fn cluster(directory: &Path) -> Vec<Node> {
    let ids = ["n1", "n2", "n3"].map(|id| NodeId::new(id).unwrap());
    let held: Vec<TcpListener> = ids.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let members: BTreeMap<NodeId, String> =
        ids.into_iter().zip(&held).map(|(id, listener)| (id, listener.local_addr().unwrap().to_string())).collect();
    drop(held);
    let start = |(id, address): (&NodeId, &String)| {
        let mut config = NodeConfig::new(*id, address, directory.join(id.as_str()));
        config.members = Some(members.clone());
        Node::start(&config, Box::new(Nothing)).unwrap()
    };
    members.iter().map(start).collect()
}

fn leader(nodes: &[Node]) -> &Node {
    loop {
        if let Some(leader) = nodes.iter().find(|node| node.status().role == "leader") {
            return leader;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Execute,
    Query,
}

fn hand_over(node: &Node, kind: Kind, calls: impl Iterator<Item = (Bytes, Caller)>, timeout: Duration) {
    match kind {
        Kind::Execute => {
            let call = |(body, caller)| Call { body, slot: None, caller };
            node.execute(calls.map(call).collect(), timeout);
        }
        Kind::Query => node.query(calls.collect(), services::Read::of(Consistency::Linearizable), timeout),
    }
}

/// Keeps `depth` calls going: every answer sends the next.
struct Pump {
    state: Mutex<(Vec<Duration>, usize, Vec<u64>)>,
    news: Condvar,
}

impl Sink for Pump {
    fn complete(&self, token: u64, outcome: Outcome) {
        assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
        self.state.lock().unwrap().2.push(token);
        self.news.notify_one();
    }
}

/// Calls per second and the median time of one.
fn pump(node: &Node, kind: Kind, depth: usize) -> (f64, Duration) {
    let pump = Arc::new(Pump { state: Mutex::default(), news: Condvar::new() });
    let mut begun = vec![Instant::now(); depth];
    let send = |tokens: &[u64], begun: &mut Vec<Instant>| {
        let now = Instant::now();
        let call =
            |token: &u64| (Bytes::from_static(COMMAND), Caller { sink: Arc::<Pump>::clone(&pump), token: *token });
        for token in tokens {
            begun[usize::try_from(*token).unwrap()] = now;
        }
        hand_over(node, kind, tokens.iter().map(call), Duration::from_secs(30));
    };
    let start = Instant::now();
    send(&(0..depth as u64).collect::<Vec<_>>(), &mut begun);
    let (mut times, mut flying) = (Vec::new(), depth);
    while flying > 0 {
        let mut state = pump.news.wait_while(pump.state.lock().unwrap(), |state| state.2.is_empty()).unwrap();
        let tokens = std::mem::take(&mut state.2);
        drop(state);
        let now = Instant::now();
        times.extend(tokens.iter().map(|token| now - begun[usize::try_from(*token).unwrap()]));
        if start.elapsed() < SECONDS { send(&tokens, &mut begun) } else { flying -= tokens.len() }
    }
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    times.sort_unstable();
    (rate, times[times.len() / 2])
}

/// The median of one `fdatasync` after a small write into a file that is there already.
fn sync_time(directory: &Path) -> Duration {
    let path = directory.join("floor");
    std::fs::write(&path, vec![0; 4 << 20]).unwrap();
    let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.sync_all().unwrap();
    median(1000, || {
        file.write_all(&[1; 256]).unwrap();
        file.sync_data().unwrap();
    })
}

/// The median of one answer over loopback TCP between two threads.
fn echo_time() -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 128];
        while server.read_exact(&mut bytes).is_ok() && server.write_all(&bytes).is_ok() {}
    });
    let mut bytes = [0; 128];
    median(5000, || {
        client.write_all(COMMAND).unwrap();
        client.read_exact(&mut bytes).unwrap();
    })
}

fn median(count: usize, mut body: impl FnMut()) -> Duration {
    let mut once = || {
        let begun = Instant::now();
        body();
        begun.elapsed()
    };
    let mut times: Vec<Duration> = (0..count).map(|_| once()).collect();
    times.sort_unstable();
    times[count / 2]
}

fn main() {
    let directory = tempfile::tempdir_in("target").unwrap();
    let floor = sync_time(directory.path()) + echo_time();
    println!("floor: one fdatasync and one loopback answer  {floor:>9.1?}");
    let nodes = cluster(directory.path());
    let leader = leader(&nodes);
    let first = Waiting::new(1);
    let caller = Caller { sink: Arc::<Waiting>::clone(&first), token: 0 };
    hand_over(leader, Kind::Execute, std::iter::once((Bytes::new(), caller)), SECONDS);
    assert!(first.wait(SECONDS));
    let follower = nodes.iter().find(|node| node.status().role == "follower").unwrap();
    let kinds = [
        ("command, on the leader", leader, Kind::Execute),
        ("command, on a follower", follower, Kind::Execute),
        ("linearizable query, on the leader", leader, Kind::Query),
        ("linearizable query, on a follower", follower, Kind::Query),
    ];
    for (what, node, kind) in kinds {
        for depth in [1, 64, 256, 1024] {
            let (rate, p50) = pump(node, kind, depth);
            let ratio = p50.as_secs_f64() / floor.as_secs_f64();
            println!("{what:<34} depth {depth:>4}  {rate:>9.0}/s  p50 {p50:>9.1?}  = {ratio:>5.2} x the floor");
        }
    }
    for node in nodes {
        node.stop(Duration::from_secs(5));
    }
}

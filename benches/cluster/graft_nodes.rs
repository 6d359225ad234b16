//! Graft: a member in each process, with a machine that does nothing. Calls are made on the leader, on a follower, or by
//! a client in this process; in plain text, or with certificates, where every connection is encrypted.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use graft::domain::{Index, NodeId};
use graft::infrastructure::runtime::certificates::Depot;
use graft::infrastructure::runtime::{Client, ClientConfig, Node, NodeConfig};
use graft::services::identity::Role;
use graft::services::ports::{Command, Halt, Machine, Made, Reply, WriteSnapshot};

use super::Subject;
use super::load::{self, Counts, Kind, Load, Sample};
use super::processes::{Process, free_addresses};

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
        // As much as was asked with, for others answer with what was put there.
        replies.extend(queries.iter().cloned().map(Reply::Value));
    }
}

/// The life of one member: `ID DIRECTORY ID=ADDRESS…`.
pub(crate) fn member(mut arguments: impl Iterator<Item = String>) {
    let (id, directory) = (arguments.next().unwrap(), arguments.next().unwrap());
    let members: BTreeMap<NodeId, String> = arguments
        .map(|member| {
            let (id, address) = member.split_once('=').unwrap();
            (NodeId::new(id).unwrap(), address.to_owned())
        })
        .collect();
    let id = NodeId::new(&id).unwrap();
    let mut config = NodeConfig::new(id, &members[&id], Path::new(&directory).join(id.as_str()));
    config.members = Some(members);
    let depot = Path::new(&directory).join(DEPOT);
    let tls = depot.exists().then(|| Depot::load(&depot).unwrap().node(id.as_str()).unwrap().source());
    let node = Node::start_secured(&config, Box::new(Nothing), tls.as_ref()).unwrap();
    let role = loop {
        match node.status().role {
            role @ ("leader" | "follower") if node.status().commit > Index::ZERO => break role,
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    println!("{role}");
    std::io::stdout().flush().unwrap();
    load::serve(|load| load::run(&node, load), || counts(&node.metrics()));
}

/// What a node counts, out of its metrics.
fn counts(metrics: &str) -> Counts {
    let value = |name: &str| {
        let found = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {name} in the metrics")).parse().unwrap()
    };
    Counts { syncs: value("graft_log_sync_seconds_count"), bytes: value("graft_log_written_bytes_total") }
}

/// A cluster, and those who measure it.
struct Cluster {
    leader: Process,
    followers: Vec<Process>,
    client: Option<Client>,
}

/// The directory of the certificates, if there are any.
const DEPOT: &str = "tls";

impl Cluster {
    fn start(members: usize, is_secured: bool, directory: &Path) -> Self {
        let directory = directory.join(if is_secured { "graft-tls" } else { "graft" });
        std::fs::create_dir(&directory).unwrap();
        let depot = is_secured.then(|| Depot::create(&directory.join(DEPOT), "bench").unwrap());
        let addresses = free_addresses(members);
        let named: Vec<String> =
            addresses.iter().enumerate().map(|(number, address)| format!("n{}={address}", number + 1)).collect();
        let start = |number: usize| {
            let path = directory.to_str().unwrap().to_owned();
            let mut arguments = vec!["graft-node".to_owned(), format!("n{}", number + 1), path];
            arguments.extend(named.iter().cloned());
            Process::start(&arguments)
        };
        let mut processes: Vec<Process> = (0..members).map(start).collect();
        let roles: Vec<String> = processes.iter_mut().map(Process::first_line).collect();
        let leads = roles.iter().position(|role| role == "leader").expect("nobody leads");
        let leader = processes.remove(leads);
        let tls = depot.map(|depot| depot.client("load", Role::Operator).unwrap().source());
        let client = Client::start(ClientConfig { tls, ..ClientConfig::new(addresses) }).unwrap();
        Self { leader, followers: processes, client: Some(client) }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            client.close(Duration::from_secs(1));
        }
    }
}

enum From {
    Leader,
    Follower,
    Remote,
}

struct Calls {
    cluster: Rc<RefCell<Cluster>>,
    from: From,
    is_secured: bool,
}

impl Subject for Calls {
    fn name(&self) -> String {
        let from = match self.from {
            From::Leader => "graft, on the leader",
            From::Follower => "graft, on a follower",
            From::Remote => "graft, by a client",
        };
        if self.is_secured { format!("{from}, TLS") } else { from.to_owned() }
    }

    fn kinds(&self) -> &'static [Kind] {
        Kind::ALL
    }

    fn run(&mut self, load: Load) -> Sample {
        let mut cluster = self.cluster.borrow_mut();
        match self.from {
            From::Leader => cluster.leader.run(load),
            From::Follower => cluster.followers[0].run(load),
            From::Remote => load::run(cluster.client.as_ref().unwrap(), load),
        }
    }

    fn processes(&self) -> Vec<u32> {
        let cluster = self.cluster.borrow();
        cluster.followers.iter().chain([&cluster.leader]).map(Process::id).collect()
    }

    fn counts(&mut self) -> Option<Counts> {
        let cluster = &mut *self.cluster.borrow_mut();
        Some(Process::counts(cluster.followers.iter_mut().chain([&mut cluster.leader])))
    }
}

pub(crate) fn subjects(names: &[&str], members: usize, is_secured: bool, directory: &Path) -> Vec<Box<dyn Subject>> {
    if names.is_empty() {
        return Vec::new();
    }
    let cluster = Rc::new(RefCell::new(Cluster::start(members, is_secured, directory)));
    let subject = |name: &&str| {
        let from = match *name {
            "graft" | "tls" => From::Leader,
            "follower" => From::Follower,
            _ => From::Remote,
        };
        Box::new(Calls { cluster: Rc::clone(&cluster), from, is_secured }) as Box<dyn Subject>
    };
    names.iter().map(subject).collect()
}

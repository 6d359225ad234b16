//! Clusters whose every connection proves who is there.

use std::collections::BTreeMap;
use std::time::Duration;

use graft::infrastructure::runtime::{Authority, Client, ClientConfig, Node, NodeConfig, Source, StartError, Waiting};
use graft::services::api::{Api, Caller, Happening};
use graft::services::change::{Ask, Change};
use graft::services::error::{Outcome, Refusal};
use graft::services::identity::Role;
use graft::services::{Consistency, Notice};

use crate::cluster::{Kind, Lines, PATIENCE, call, execute, free_address, id, value, wait};

const SHORT: Duration = Duration::from_secs(3);

struct Secured {
    authority: Authority,
    addresses: BTreeMap<graft::domain::NodeId, String>,
    nodes: Vec<Node>,
    directories: Vec<tempfile::TempDir>,
}

impl Secured {
    fn new(size: usize) -> Self {
        let authority = Authority::new("bank").unwrap();
        let addresses: BTreeMap<_, _> = (0..size).map(|n| (id(n), free_address())).collect();
        let directories: Vec<_> = (0..size).map(|_| tempfile::tempdir().unwrap()).collect();
        let mut cluster = Self { authority, addresses, nodes: Vec::new(), directories };
        cluster.nodes = (0..size).map(|n| cluster.start(n)).collect();
        wait("a leader", || cluster.nodes.iter().find(|node| node.status().leader.is_some()).map(|_| ()));
        cluster
    }

    fn start(&self, n: usize) -> Node {
        let mut config = NodeConfig::new(id(n), self.addresses[&id(n)].clone(), self.directories[n].path());
        config.members = Some(self.addresses.clone());
        let tls = Source::Memory(self.authority.node(id(n).as_str()).unwrap());
        Node::start_secured(&config, Box::new(Lines::default()), Some(&tls)).unwrap()
    }

    fn client(&self, tls: Option<Source>) -> Client {
        let endpoints = self.addresses.values().cloned();
        Client::start(ClientConfig { tls, ..ClientConfig::new(endpoints) }).unwrap()
    }

    fn of_role(&self, role: Role) -> Client {
        self.client(Some(Source::Memory(self.authority.client("web", role).unwrap())))
    }
}

fn query(client: &Client) -> Outcome {
    call(client, Kind::Query(Consistency::Linearizable), &["count"], PATIENCE).remove(0)
}

fn change(client: &Client) -> Outcome {
    let waiting = Waiting::new(1);
    let caller = Caller { sink: waiting.clone(), token: 0 };
    let ask = Ask::Change { change: Change::Remove { id: id(2) }, guard: None };
    client.ask(ask, caller, PATIENCE);
    assert!(waiting.wait(PATIENCE * 2));
    waiting.take().remove(0)
}

fn denied(outcome: &Outcome, words: &str) {
    let Outcome::Refused(Refusal::Denied(why)) = outcome else { panic!("not denied: {outcome:?}") };
    assert!(why.contains(words), "{why}");
}

#[test]
fn members_and_clients_of_one_authority_work_together_within_their_roles() {
    let cluster = Secured::new(3);
    assert_eq!(value(execute(&cluster.nodes[1], "a")), "1");
    let writer = cluster.of_role(Role::Writer);
    assert_eq!(value(call(&writer, Kind::Execute, &["b"], PATIENCE).remove(0)), "2");
    let reader = cluster.of_role(Role::Reader);
    assert_eq!(value(query(&reader)), "2");
    denied(&call(&reader, Kind::Execute, &["c"], PATIENCE).remove(0), "writer");
    denied(&change(&writer), "operator");
    assert_eq!(value(query(&reader)), "2", "nothing was applied");
    let operator = cluster.of_role(Role::Operator);
    assert!(matches!(change(&operator), Outcome::Done { .. }));
}

#[test]
fn whoever_does_not_belong_is_refused_in_words() {
    let cluster = Secured::new(1);
    let other = Authority::new("bank").unwrap();
    let ours_elsewhere = Authority::new("shop").unwrap();
    let strangers = [
        (None, ""),
        (Some(other.client("web", Role::Operator).unwrap()), "authority"),
        (Some(ours_elsewhere.client("web", Role::Operator).unwrap()), ""),
    ];
    for (pem, words) in strangers {
        let client = cluster.client(pem.map(Source::Memory));
        let outcome = call(&client, Kind::Execute, &["x"], SHORT).remove(0);
        let Outcome::Refused(refusal) = outcome else { panic!("let in: {outcome:?}") };
        assert!(refusal.to_string().contains(words), "{refusal}");
    }
    assert_eq!(value(query(&cluster.of_role(Role::Reader))), "0");
}

#[test]
fn a_members_certificate_is_worth_as_much_as_its_membership() {
    let cluster = Secured::new(3);
    let node = |name: &str| cluster.client(Some(Source::Memory(cluster.authority.node(name).unwrap())));
    let stranger = node("n9");
    denied(&call(&stranger, Kind::Execute, &["x"], SHORT).remove(0), "no member of this cluster");
    denied(&query(&stranger), "no member of this cluster");
    let leaving = node(id(2).as_str());
    assert_eq!(value(call(&leaving, Kind::Execute, &["a"], PATIENCE).remove(0)), "1");
    assert!(matches!(change(&cluster.of_role(Role::Operator)), Outcome::Done { .. }));
    // The stream of calls that it has open ends, too. It may reach its own node, which believes it, and is removed itself.
    let outcome = wait("it to be refused", || {
        let outcome = call(&leaving, Kind::Execute, &["b"], SHORT).remove(0);
        matches!(&outcome, Outcome::Refused(Refusal::Denied(_) | Refusal::Removed)).then_some(outcome)
    });
    if !matches!(outcome, Outcome::Refused(Refusal::Removed)) {
        denied(&outcome, "was removed from the cluster");
    }
}

#[test]
fn what_a_member_watches_ends_with_its_membership() {
    let mut cluster = Secured::new(3);
    // Its own node would believe it longer than the others do.
    assert!(cluster.nodes.pop().unwrap().stop(PATIENCE));
    let endpoints = vec![cluster.addresses[&id(0)].clone()];
    let tls = Some(Source::Memory(cluster.authority.node(id(2).as_str()).unwrap()));
    let watching = Client::start(ClientConfig { tls, ..ClientConfig::new(endpoints) }).unwrap();
    let mut events = watching.events(Some(0), std::sync::Arc::new(|| {}));
    let mut seen = 0;
    wait("events to come", || {
        seen += events.take(100).items.len();
        (seen > 0).then_some(())
    });
    assert!(matches!(change(&cluster.of_role(Role::Operator)), Outcome::Done { .. }));
    let operator = Client::start(ClientConfig {
        tls: Some(Source::Memory(cluster.authority.client("web", Role::Operator).unwrap())),
        ..ClientConfig::new([cluster.addresses[&id(0)].clone()])
    })
    .unwrap();
    let mut others = operator.events(Some(0), std::sync::Arc::new(|| {}));
    let is_snapshot = |happening: &Happening| matches!(happening.notice, Some(Notice::Snapshot { .. }));
    // What comes of this is told to the operator, and to nobody who was removed.
    let waiting = Waiting::new(1);
    let caller = Caller { sink: waiting.clone(), token: 0 };
    cluster.nodes[0].snapshot(false, caller, PATIENCE);
    wait("the operator to hear of it", || others.take(100).items.iter().any(is_snapshot).then_some(()));
    assert!(!events.take(10_000).items.iter().any(is_snapshot));
}

#[test]
fn who_was_away_when_it_was_removed_hears_of_it() {
    let mut cluster = Secured::new(3);
    assert!(cluster.nodes.pop().unwrap().stop(PATIENCE));
    assert!(matches!(change(&cluster.of_role(Role::Operator)), Outcome::Done { .. }));
    let back = cluster.start(2);
    wait("it to hear", || (back.status().role == "removed").then_some(()));
}

#[test]
fn a_node_starts_with_its_own_certificate_only() {
    let authority = Authority::new("bank").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = NodeConfig::new(id(0), "127.0.0.1:0", directory.path());
    let others = [authority.node("n9").unwrap(), authority.client("web", Role::Operator).unwrap()];
    for pem in others {
        let error = Node::start_secured(&config, Box::new(Lines::default()), Some(&Source::Memory(pem))).unwrap_err();
        let StartError::Tls(why) = error else { panic!("{error:?}") };
        assert!(why.to_string().contains("this node is"), "{why}");
    }
    let mut mixed = authority.node(id(0).as_str()).unwrap();
    mixed.key = authority.node("n9").unwrap().key;
    assert!(!format!("{mixed:?}").contains("KEY"));
    let error = Node::start_secured(&config, Box::new(Lines::default()), Some(&Source::Memory(mixed))).unwrap_err();
    assert!(error.to_string().contains("do not fit"), "{error}");
}

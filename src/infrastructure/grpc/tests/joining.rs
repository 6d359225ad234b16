//! Nodes that ask to be let in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use graft_domain::{ClusterId, Incarnation, NodeId};

use super::super::refusal::Refusal;
use super::super::wire::join_reply::{IsMember, NotTaken, State};
use super::super::{JoinReply, JoinTrouble, Peer, PeerEvent, convert, wire};
use super::raw::{Call, Server, refusal};
use super::{LocalHello, Node, PeerConfig, RefusedCode, free_address, hello, id, numbered, raw, runtime};

fn with(runtime: &tokio::runtime::Runtime, hello: LocalHello) -> Node {
    Node::with(runtime, "127.0.0.1:0", hello, PeerConfig::default())
}

fn of(name: &str, cluster: u128) -> LocalHello {
    // Nobody is there; what it announces may be tried.
    LocalHello { cluster: ClusterId(cluster), address: "127.0.0.1:1".to_owned(), ..hello(name) }
}

type Answer = (String, BTreeMap<NodeId, String>, Result<(), JoinTrouble>);

impl Node {
    fn join(&self, addresses: &[&Node]) {
        self.transport.join(addresses.iter().map(|node| node.address().to_string()).collect());
    }

    fn wait_joining(&self) -> Answer {
        self.wait("answer to joining", |event| match event {
            PeerEvent::Joining { address, members, answer } => Some((address, members, answer)),
            _ => None,
        })
    }

    fn wait_fatal(&self) -> String {
        self.wait("fatal answer to joining", |event| match event {
            PeerEvent::Joining { answer: Err(JoinTrouble { why, fatal: true, .. }), .. } => Some(why),
            _ => None,
        })
    }

    fn wait_asked(&self) -> (NodeId, String, Incarnation, JoinReply) {
        self.wait("question", |event| match event {
            PeerEvent::JoinAsked { id, address, incarnation, reply } => Some((id, address, incarnation, reply)),
            _ => None,
        })
    }

    fn set_member(&self, name: &str, address: &str, incarnation: u64) {
        let peer = Peer { address: address.to_owned(), incarnation: Incarnation(incarnation), member: true };
        self.transport.set_peers(&BTreeMap::from([(id(name), peer)]));
    }
}

#[test]
fn a_newcomer_is_asked_about_until_the_engine_has_an_answer() {
    let runtime = runtime();
    let config = PeerConfig { join_wait: Duration::from_millis(20), ..PeerConfig::default() };
    let n1 = Node::with(&runtime, "127.0.0.1:0", of("n1", 7), config);
    let n4 = with(&runtime, LocalHello { incarnation: Incarnation(44), ..hello("n4") });
    n4.join(&[&n1]);
    let (asker, address, incarnation, reply) = n1.wait_asked();
    assert_eq!((asker, address.as_str(), incarnation), (id("n4"), "n4.example:7000", Incarnation(44)));
    // Nobody answers in time, so it asks again.
    let (_, _, answer) = n4.wait_joining();
    let trouble = answer.expect_err("no answer yet");
    assert!(!trouble.fatal && trouble.why.contains("n1") && trouble.why.contains("not got the answer"), "{trouble:?}");
    reply.done();
    let (.., reply) = n1.wait_asked();
    reply.done();
    let members = n4.wait("answer", |event| match event {
        PeerEvent::Joining { members, answer: Ok(()), .. } => Some(members),
        _ => None,
    });
    assert_eq!(members, BTreeMap::from([(id("n1"), "127.0.0.1:1".to_owned())]));
}

#[test]
fn the_engine_says_no_in_its_own_words() {
    let runtime = runtime();
    let (n1, n4) = (with(&runtime, of("n1", 7)), with(&runtime, hello("n4")));
    n4.join(&[&n1]);
    n1.wait_asked().3.refuse("n4 is n3, replaced", true);
    assert_eq!(n4.wait_fatal(), "n4 is n3, replaced");
    n1.wait_asked().3.refuse("not now", false);
    n4.wait("passing refusal", |event| match event {
        PeerEvent::Joining { answer: Err(JoinTrouble { why, fatal: false, .. }), .. } if why == "not now" => Some(()),
        _ => None,
    });
}

#[test]
fn a_member_announces_its_address_and_learns_those_of_the_others() {
    let runtime = runtime();
    let n1 = with(&runtime, of("n1", 7));
    let n3 = with(&runtime, LocalHello { incarnation: Incarnation(33), ..of("n3", 7) });
    let known = |address: &str, member| Peer { address: address.to_owned(), incarnation: Incarnation(33), member };
    let lagging = Peer { incarnation: Incarnation(9), ..known("127.0.0.9:1", false) };
    n1.transport.set_peers(&BTreeMap::from([(id("n3"), known("127.0.0.2:1", true)), (id("n9"), lagging)]));
    n3.join(&[&n1]);
    let heard = n1.wait("address", |event| match event {
        PeerEvent::Heard { peer, address, incarnation } => Some((peer, address, incarnation)),
        PeerEvent::JoinAsked { .. } => panic!("it is a member already"),
        _ => None,
    });
    assert_eq!(heard, (id("n3"), "127.0.0.1:1".to_owned(), Incarnation(33)));
    let (address, members, answer) = n3.wait_joining();
    assert_eq!((address, answer), (n1.address().to_string(), Ok(())));
    let expected = [("n1", "127.0.0.1:1"), ("n3", "127.0.0.2:1")];
    assert_eq!(members, expected.map(|(name, address)| (id(name), address.to_owned())).into());
}

#[test]
fn one_that_is_only_heard_of_is_asked_about() {
    let runtime = runtime();
    let (n1, n4) = (with(&runtime, of("n1", 7)), with(&runtime, of("n4", 7)));
    let peer = Peer { address: "127.0.0.1:1".to_owned(), incarnation: Incarnation::UNKNOWN, member: false };
    n1.transport.set_peers(&BTreeMap::from([(id("n4"), peer)]));
    n4.join(&[&n1]);
    assert_eq!(n1.wait_asked().0, id("n4"));
}

#[test]
fn addresses_are_tried_in_turn_and_those_of_members_after_them() {
    let runtime = runtime();
    let dead = free_address();
    let (n1, n2, n4) = (with(&runtime, of("n1", 7)), with(&runtime, of("n2", 7)), with(&runtime, hello("n4")));
    n1.set_member("n2", &n2.address().to_string(), 0);
    n4.transport.join(vec![dead.clone(), "not an address".to_owned(), n1.address().to_string()]);
    let (address, members, answer) = n4.wait_joining();
    let trouble = answer.expect_err("nobody is there");
    assert_eq!((address.as_str(), members.len(), trouble.fatal), (dead.as_str(), 0, false));
    assert!(trouble.why.contains(&dead) && trouble.why.contains("cannot be connected to"), "{trouble:?}");
    let (address, _, answer) = n4.wait_joining();
    assert!(address == "not an address" && answer.expect_err("no address").why.contains("host:port"));
    n1.wait_asked().3.refuse("ask the leader", false);
    // Nobody gave it this one's address.
    n2.wait_asked().3.done();
    n4.wait("answer", |event| match event {
        PeerEvent::Joining { address, answer: Ok(()), .. } if address == n2.address().to_string() => Some(()),
        _ => None,
    });
}

#[test]
fn nothing_is_asked_after_it_is_told_to_stop() {
    let runtime = runtime();
    let (n1, n4) = (with(&runtime, of("n1", 7)), with(&runtime, hello("n4")));
    n4.join(&[&n1]);
    // Another list takes the place of the first.
    n4.join(&[&n1]);
    n1.wait_asked().3.refuse("later", false);
    let _ = n4.wait_joining();
    n4.transport.stop_joining();
    // What is left is the task that accepts connections.
    let deadline = Instant::now() + super::DEADLINE;
    while n4.transport.shared.tasks.count() > 1 {
        assert!(Instant::now() < deadline, "a task is left");
        std::thread::yield_now();
    }
}

#[test]
fn its_own_address_is_passed_over() {
    let runtime = runtime();
    let n1 = with(&runtime, of("n1", 7));
    let n4 = with(&runtime, LocalHello { incarnation: Incarnation(4), ..hello("n4") });
    n4.join(&[&n4, &n1]);
    n1.wait_asked().3.done();
    let (address, _, answer) = n4.wait_joining();
    assert_eq!((address, answer), (n1.address().to_string(), Ok(())), "the first that it is told of");
    n4.join(&[&n4]);
    let trouble = n4.wait_joining().2.expect_err("nobody else is there");
    assert!(trouble.why.contains("this node's own") && !trouble.fatal, "{trouble:?}");
}

#[test]
fn another_node_of_the_same_id_is_refused() {
    let runtime = runtime();
    let twin = |incarnation| with(&runtime, LocalHello { incarnation: Incarnation(incarnation), ..of("n1", 7) });
    let (n1, other) = (twin(1), twin(2));
    other.join(&[&n1]);
    assert!(other.wait_fatal().contains("An id belongs to one node"));
}

#[test]
fn another_cluster_is_refused_by_whoever_knows() {
    let runtime = runtime();
    let (n1, n4) = (with(&runtime, of("n1", 7)), with(&runtime, of("n4", 8)));
    n4.join(&[&n1]);
    let why = n4.wait_fatal();
    assert!(why.contains("cluster") && why.contains("empty data directory"), "{why}");
    assert_eq!(n1.wait_refused().1, RefusedCode::ClusterMismatch);
    // The caller finds fault, where the other one did not.
    let server = Server::start(&runtime, raw::hello("n1", ""));
    let hello = wire::Hello { cluster: vec![9; 16].into(), ..raw::hello("n1", "n4") };
    let state = Some(State::IsMember(IsMember {}));
    server.say_to_joiners(wire::JoinReply { hello: Some(hello), members: Vec::new(), state });
    n4.transport.join(vec![server.address.to_string()]);
    let why = n4.wait_fatal();
    assert!(why.contains("09090909") && why.contains("empty data directory"), "{why}");
}

#[test]
fn a_wiped_disk_and_another_founder_are_refused() {
    let runtime = runtime();
    let n1 = with(&runtime, LocalHello { membership_hash: 5, ..of("n1", 7) });
    n1.set_member("n3", "127.0.0.1:1", 33);
    let n3 = with(&runtime, LocalHello { incarnation: Incarnation(34), ..hello("n3") });
    n3.join(&[&n1]);
    assert!(n3.wait_fatal().contains("wiped"));
    let n4 = with(&runtime, LocalHello { membership_hash: 6, ..hello("n4") });
    n4.join(&[&n1]);
    assert!(n4.wait_fatal().contains("members="));
    let said = n1.wait("second refusal", |event| match event {
        PeerEvent::Refused { peer: Some(peer), code: RefusedCode::FoundingMismatch, by_peer, .. } => {
            Some((peer, by_peer))
        }
        _ => None,
    });
    assert_eq!(said, (id("n4"), false));
}

#[test]
fn answers_that_make_no_sense_are_not_fatal() {
    let runtime = runtime();
    let n4 = with(&runtime, hello("n4"));
    let server = Server::start(&runtime, raw::hello("n1", "n4"));
    n4.transport.join(vec![server.address.to_string()]);
    let expect = |word: &str| {
        n4.wait(word, |event| match event {
            PeerEvent::Joining { answer: Err(trouble), .. } if trouble.why.contains(word) => {
                assert!(!trouble.fatal, "{trouble:?}");
                Some(())
            }
            _ => None,
        });
    };
    expect("cannot be joined");
    let hello = Some(raw::hello("n1", "n4"));
    let good = wire::JoinReply { hello, state: Some(State::IsMember(IsMember {})), members: Vec::new() };
    server.say_to_joiners(wire::JoinReply { hello: None, ..good.clone() });
    expect("no introduction");
    server.say_to_joiners(wire::JoinReply { state: None, ..good.clone() });
    expect("no known kind");
    let member = |at: usize| wire::Member { id: format!("n{at}"), address: String::new() };
    server.say_to_joiners(wire::JoinReply { members: (0..1001).map(member).collect(), ..good.clone() });
    expect("1001 members");
    let long = State::NotTaken(NotTaken { why: "x".repeat(20_000), fatal: true });
    server.say_to_joiners(wire::JoinReply { state: Some(long), ..good.clone() });
    expect("20000 bytes");
    server.say_to_joiners(wire::JoinReply { members: (0..1000).map(member).collect(), ..good });
    let members = n4.wait("answer", |event| match event {
        PeerEvent::Joining { members, answer: Ok(()), .. } => Some(members),
        _ => None,
    });
    assert_eq!(members.len(), 1000);
}

#[test]
fn a_link_needs_to_know_whom_it_is_for() {
    let runtime = runtime();
    let n1 = Node::start(&runtime, "n1");
    let call = runtime.block_on(Call::make(n1.address(), Some(&raw::hello("n2", ""))));
    assert_eq!(refusal(&call.err().expect("a refusal")).code, RefusedCode::Malformed);
}

#[test]
fn a_newcomer_is_taken_into_one_cluster_only() {
    let runtime = runtime();
    let n4 = Node::start(&runtime, "n4");
    let hello = |name: &str, cluster: u8| wire::Hello { cluster: vec![cluster; 16].into(), ..raw::hello(name, "n4") };
    runtime.block_on(async {
        // One that has no cluster binds it to nothing.
        let _unknown = Call::accepted(n4.address(), &raw::hello("n8", "n4")).await;
        let first = Call::accepted(n4.address(), &hello("n1", 1)).await;
        // One that dials and finds fault binds it to nothing either: it looked for another node at this address.
        let stale = Call::accepted(n4.address(), &hello("n9", 9)).await;
        let goodbye = Some(Refusal::new(RefusedCode::IdentityMismatch, "not the n4 of this cluster").to_wire());
        stale.batches.send(wire::Frames { goodbye, ..wire::Frames::default() }).await.unwrap();
        assert_eq!(n4.wait_refused().1, RefusedCode::IdentityMismatch);
        first.send(vec![convert::encode(numbered(id("n1"), id("n4"), 1))]).await;
        n4.wait_messages(1);
        let other = Call::make(n4.address(), Some(&hello("n9", 9))).await;
        assert_eq!(refusal(&other.err().expect("a refusal")).code, RefusedCode::ClusterMismatch);
        // It stays so when the first one is gone.
        drop(first);
        let other = Call::make(n4.address(), Some(&hello("n9", 9))).await;
        assert_eq!(refusal(&other.err().expect("a refusal")).code, RefusedCode::ClusterMismatch);
        Call::accepted(n4.address(), &hello("n2", 1)).await;
    });
    let n9 = with(&runtime, of("n9", u128::from_be_bytes([9; 16])));
    n4.join(&[&n9]);
    assert!(n4.wait_fatal().contains("09090909"));
}

#[test]
fn a_cluster_that_is_named_on_a_standing_link_binds_a_newcomer_too() {
    let runtime = runtime();
    let n4 = Node::start(&runtime, "n4");
    runtime.block_on(async {
        let named = |cluster: u8, number| wire::Frames {
            cluster: vec![cluster; 16].into(),
            frames: vec![convert::encode(numbered(id("n1"), id("n4"), number))],
            ..wire::Frames::default()
        };
        let first = Call::accepted(n4.address(), &raw::hello("n1", "n4")).await;
        let mut other = Call::accepted(n4.address(), &raw::hello("n9", "n4")).await;
        other.send(vec![convert::encode(numbered(id("n9"), id("n4"), 8))]).await;
        n4.wait_messages(1);
        first.send(vec![convert::encode(numbered(id("n1"), id("n4"), 0))]).await;
        n4.wait_messages(1);
        first.batches.send(named(1, 1)).await.unwrap();
        assert_eq!(n4.wait_messages(1), [numbered(id("n1"), id("n4"), 1)]);
        other.batches.send(named(9, 9)).await.unwrap();
        assert_eq!(refusal(&other.end().await).code, RefusedCode::ClusterMismatch);
        first.send(vec![convert::encode(numbered(id("n1"), id("n4"), 2))]).await;
        assert_eq!(n4.wait_messages(1), [numbered(id("n1"), id("n4"), 2)], "and none of the other's");
    });
}

#[test]
fn of_two_clusters_that_take_a_newcomer_in_at_once_the_first_to_speak_has_it() {
    let runtime = runtime();
    let n4 = Node::start(&runtime, "n4");
    let hello = |name: &str, cluster: u8| wire::Hello { cluster: vec![cluster; 16].into(), ..raw::hello(name, "n4") };
    runtime.block_on(async {
        let mut one = Call::accepted(n4.address(), &hello("n1", 1)).await;
        let other = Call::accepted(n4.address(), &hello("n9", 9)).await;
        other.send(vec![convert::encode(numbered(id("n9"), id("n4"), 9))]).await;
        assert_eq!(refusal(&one.end().await).code, RefusedCode::ClusterMismatch);
        assert_eq!(n4.wait_messages(1), [numbered(id("n9"), id("n4"), 9)]);
    });
}

#[test]
fn a_request_of_a_stranger_is_small() {
    let runtime = runtime();
    let n1 = Node::start(&runtime, "n1");
    let status = runtime.block_on(raw::large_request(n1.address()));
    assert_eq!(status.code(), tonic::Code::OutOfRange, "{status:?}");
}

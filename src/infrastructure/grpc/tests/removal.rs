//! A member that is removed hears of it, whatever it is doing.

use std::collections::BTreeMap;

use graft_domain::Incarnation;

use super::super::{JoinTrouble, Peer, PeerEvent};
use super::{Node, RefusedCode, id, runtime};

/// `n1` is let know that `n3` is removed, which `n3` must hear.
fn hears(n1: &Node, n3: &Node) {
    n1.transport.set_removed(&[id("n3")].into());
    n1.transport.set_peers(&BTreeMap::new());
    let why = n3.wait("removal", |event| match event {
        PeerEvent::Refused { code: RefusedCode::Removed, why, by_peer: true, .. } => Some(why),
        _ => None,
    });
    assert!(why.starts_with("n3 was removed") && why.contains("under a new id"), "{why}");
}

#[test]
fn on_the_link_that_it_dialled() {
    let runtime = runtime();
    let (n1, n3) = (Node::start(&runtime, "n1"), Node::start(&runtime, "n3"));
    n3.dial("n1", &n1.address().to_string());
    n3.wait_connected("n1");
    hears(&n1, &n3);
    let by_peer = n1.wait("refusal", |event| match event {
        PeerEvent::Refused { code: RefusedCode::Removed, by_peer, .. } => Some(by_peer),
        _ => None,
    });
    assert!(!by_peer, "this side refused the other, and was not removed itself");
}

#[test]
fn on_the_link_that_the_other_dialled() {
    let runtime = runtime();
    let (n1, n3) = (Node::start(&runtime, "n1"), Node::start(&runtime, "n3"));
    n1.dial("n3", &n3.address().to_string());
    n1.wait_connected("n3");
    hears(&n1, &n3);
}

#[test]
fn when_it_comes_back() {
    let runtime = runtime();
    let (n1, n3) = (Node::start(&runtime, "n1"), Node::start(&runtime, "n3"));
    n3.dial("n1", &n1.address().to_string());
    n1.transport.set_removed(&[id("n3")].into());
    hears(&n1, &n3);
}

#[test]
fn when_it_asks_to_be_let_in() {
    let runtime = runtime();
    let (n1, n3) = (Node::start(&runtime, "n1"), Node::start(&runtime, "n3"));
    n1.transport.set_removed(&[id("n3")].into());
    n3.transport.join(vec![n1.address().to_string()]);
    hears(&n1, &n3);
    let trouble = n3.wait("answer", |event| match event {
        PeerEvent::Joining { answer: Err(trouble), .. } => Some(trouble),
        PeerEvent::Joining { .. } => panic!("let in"),
        _ => None,
    });
    let JoinTrouble { why, fatal, .. } = trouble;
    assert!(fatal && why.starts_with("n3 was removed"), "{why}");
}

#[test]
fn strangers_that_are_answered_come_and_go_at_any_time() {
    let runtime = runtime();
    let (n1, n3) = (Node::start(&runtime, "n1"), Node::start(&runtime, "n3"));
    // A leader that is not known here yet.
    n1.dial("n3", &n3.address().to_string());
    let address = n1.address().to_string();
    n3.wait("inbound link", |event| match event {
        PeerEvent::Connected { peer, inbound: true, .. } if peer == id("n1") => Some(()),
        _ => None,
    });
    let peer = Peer { address, incarnation: Incarnation::UNKNOWN, member: false };
    n3.transport.set_peers(&BTreeMap::from([(id("n1"), peer.clone())]));
    n3.wait_connected("n1");
    // As the log tells of it, the link stands on.
    n3.transport.set_peers(&BTreeMap::from([(id("n1"), Peer { member: true, ..peer })]));
    let answer = super::numbered(id("n3"), id("n1"), 1);
    assert!(n3.transport.send(id("n1"), answer.clone()));
    assert_eq!(n1.wait_messages(1), [answer]);
}

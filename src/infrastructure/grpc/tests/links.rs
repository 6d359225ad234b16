//! Links that work, break and come back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use graft_domain::{ClusterId, Incarnation};
use graft_services::change::{Ask, Change};
use graft_services::ports::PeerMessage;

use super::super::{PeerConfig, PeerEvent, RefusedCode, bind, convert};
use super::raw::{Call, Server, refusal};
use super::{DEADLINE, Node, append, command, free_address, hello, id, numbered, raw, runtime, samples};

fn pair(runtime: &tokio::runtime::Runtime) -> (Node, Node) {
    let (n1, n2) = (Node::start(runtime, "n1"), Node::start(runtime, "n2"));
    n1.dial("n2", &n2.address().to_string());
    n1.wait_connected("n2");
    (n1, n2)
}

#[test]
fn every_message_arrives_as_it_was_sent() {
    let runtime = runtime();
    let (n1, n2) = pair(&runtime);
    let sent = samples(id("n1"), id("n2"));
    assert_eq!(n1.transport.send_batch(id("n2"), sent.clone()), sent.len());
    assert_eq!(n2.wait_messages(sent.len()), sent);
}

#[test]
fn both_sides_learn_who_is_there() {
    let runtime = runtime();
    let known = |name: &str, incarnation| {
        let hello = super::LocalHello { incarnation: Incarnation(incarnation), ..hello(name) };
        Node::with(&runtime, "127.0.0.1:0", hello, PeerConfig::default())
    };
    let (n1, n2) = (known("n1", 11), known("n2", 22));
    let address = n2.address().to_string();
    n1.dial_known("n2", &address, Incarnation(22));
    let connected = |event| matches!(event, PeerEvent::Connected { .. }).then_some(event);
    let outbound = PeerEvent::Connected { peer: id("n2"), address, incarnation: Incarnation(22), inbound: false };
    assert_eq!(n1.wait("connection", connected), outbound);
    let address = "n1.example:7000".to_owned();
    let inbound = PeerEvent::Connected { peer: id("n1"), address, incarnation: Incarnation(11), inbound: true };
    assert_eq!(n2.wait("connection", connected), inbound);
}

#[test]
fn order_is_kept_through_many_batches() {
    let runtime = runtime();
    let config = PeerConfig { batch_bytes_max: 1000, ..PeerConfig::default() };
    let n1 = Node::with(&runtime, "127.0.0.1:0", hello("n1"), config);
    let n2 = Node::start(&runtime, "n2");
    n1.dial("n2", &n2.address().to_string());
    n1.wait_connected("n2");
    let sent: Vec<_> = (0..10_000).map(|number| numbered(id("n1"), id("n2"), number)).collect();
    assert_eq!(n1.transport.send_batch(id("n2"), sent.clone()), sent.len());
    assert_eq!(n2.wait_messages(sent.len()), sent);
}

#[test]
fn an_entry_of_20_mib_passes() {
    let runtime = runtime();
    let (n1, n2) = pair(&runtime);
    let body: Vec<u8> = (0..20u32 << 20).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let sent = append(id("n1"), id("n2"), vec![command(42, body)]);
    assert!(n1.transport.send(id("n2"), sent.clone()));
    assert!(n2.wait_messages(1) == [sent], "the entry changed on its way");
}

#[test]
fn a_message_over_the_limit_is_dropped_and_the_link_stands() {
    let runtime = runtime();
    let (n1, n2) = pair(&runtime);
    let body = vec![0; PeerConfig::default().message_bytes_max];
    assert!(!n1.transport.send(id("n2"), append(id("n1"), id("n2"), vec![command(42, body)])));
    assert_eq!(n1.transport.link(id("n2")).unwrap().dropped, 1);
    assert!(n1.transport.send(id("n2"), numbered(id("n1"), id("n2"), 1)));
    assert_eq!(n2.wait_messages(1), [numbered(id("n1"), id("n2"), 1)]);
}

#[test]
fn a_restarted_peer_is_connected_again() {
    let (runtime, address) = (runtime(), free_address());
    let n1 = Node::start(&runtime, "n1");
    let n2 = Node::with(&runtime, &address, hello("n2"), PeerConfig::default());
    n1.dial("n2", &address);
    n1.wait_connected("n2");
    n2.transport.shutdown(Duration::from_secs(5));
    assert!(n1.wait_unreachable().contains("n2 is stopping"));
    assert!(!n1.transport.send(id("n2"), numbered(id("n1"), id("n2"), 1)), "nobody is there");
    let n2 = Node::with(&runtime, &address, hello("n2"), PeerConfig::default());
    n1.wait_connected("n2");
    assert!(n1.transport.send(id("n2"), numbered(id("n1"), id("n2"), 2)));
    assert_eq!(n2.wait_messages(1), [numbered(id("n1"), id("n2"), 2)]);
}

#[test]
fn a_peer_that_dials_is_dialled_at_once() {
    let runtime = runtime();
    // So long a wait that only the nudge can end it in time.
    let slow = Duration::from_hours(1);
    // There is one attempt when it comes: it has all the time that the test has.
    let config = PeerConfig {
        backoff_first: slow,
        backoff_max: slow,
        connect_timeout: DEADLINE,
        handshake_timeout: DEADLINE,
        ..PeerConfig::default()
    };
    let n1 = Node::with(&runtime, "127.0.0.1:0", hello("n1"), config);
    let free = free_address();
    n1.dial("n2", &free);
    n1.wait_unreachable();
    let n2 = Node::with(&runtime, &free, hello("n2"), PeerConfig::default());
    n2.dial("n1", &n1.address().to_string());
    n1.wait_connected("n2");
}

#[test]
fn unreachable_is_told_once() {
    let runtime = runtime();
    let config = PeerConfig { backoff_max: Duration::from_millis(1), ..PeerConfig::default() };
    let n1 = Node::with(&runtime, "127.0.0.1:0", hello("n1"), config);
    let address = free_address();
    let listener = bind(&address).unwrap();
    n1.dial("n2", &address);
    // Each attempt is let in and dropped, so that ten of them are known to have failed.
    for _ in 0..10 {
        drop(listener.accept().unwrap());
    }
    drop(listener);
    let _n2 = Node::with(&runtime, &address, hello("n2"), PeerConfig::default());
    let mut unreachable = 0;
    n1.wait("connection", |event| {
        unreachable += usize::from(matches!(event, PeerEvent::Unreachable { .. }));
        matches!(event, PeerEvent::Connected { .. }).then_some(())
    });
    assert_eq!(unreachable, 1);
}

#[test]
fn a_full_queue_drops_the_newest_and_counts() {
    let runtime = runtime();
    let config = PeerConfig { queue_messages_max: 4, ..PeerConfig::default() };
    let n1 = Node::with(&runtime, "127.0.0.1:0", hello("n1"), config);
    let mut stuck = Server::start(&runtime, raw::hello("n2", "n1"));
    n1.dial("n2", &stuck.address.to_string());
    let _unread = stuck.call(&runtime);
    n1.wait_connected("n2");
    // What HTTP/2 and the system take before they refuse is finite, then the queue fills.
    let bulk = append(id("n1"), id("n2"), vec![command(42, vec![0; 1 << 20])]);
    let taken = (0..10_000).take_while(|_| n1.transport.send(id("n2"), bulk.clone())).count();
    assert!(taken >= 4, "{taken}");
    let status = n1.transport.link(id("n2")).unwrap();
    assert_eq!((status.connected, status.dropped), (true, 1));
    assert!(status.queued_messages <= 4, "{status:?}");
}

#[test]
fn shutdown_is_bounded_with_a_stuck_peer_and_frees_the_port() {
    let runtime = runtime();
    let n1 = Node::with(&runtime, &free_address(), hello("n1"), PeerConfig::default());
    let address = n1.address();
    let mut stuck = Server::start(&runtime, raw::hello("n2", "n1"));
    n1.dial("n2", &stuck.address.to_string());
    let _unread = stuck.call(&runtime);
    n1.wait_connected("n2");
    let caller = runtime.block_on(Call::accepted(address, &raw::hello("n3", "n1")));
    let bulk = append(id("n1"), id("n2"), vec![command(42, vec![0; 1 << 20])]);
    n1.transport.send_batch(id("n2"), vec![bulk; 32]);
    let started = Instant::now();
    let Node { transport, events } = n1;
    transport.shutdown(Duration::from_millis(100));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    // Every task holds the sink, and with it the other end.
    let events = events.into_inner().unwrap();
    let end = std::iter::repeat_with(|| events.try_recv()).find_map(Result::err);
    assert_eq!(end, Some(std::sync::mpsc::TryRecvError::Disconnected), "a task is left");
    bind(&address.to_string()).expect("the port to be free");
    drop(caller);
}

#[test]
fn shutdown_sends_what_is_queued() {
    let runtime = runtime();
    let (n1, n2) = pair(&runtime);
    let sent: Vec<_> = (0..1000).map(|number| numbered(id("n1"), id("n2"), number)).collect();
    assert_eq!(n1.transport.send_batch(id("n2"), sent.clone()), sent.len());
    let started = Instant::now();
    n1.transport.shutdown(DEADLINE);
    assert!(started.elapsed() < PeerConfig::default().handshake_timeout, "the call was not ended, but given up");
    assert_eq!(n2.wait_messages(sent.len()), sent);
}

#[test]
fn shutdown_of_a_transport_whose_runtime_is_gone_returns() {
    let gone = runtime();
    let n1 = Node::start(&gone, "n1");
    gone.shutdown_background();
    let started = Instant::now();
    n1.transport.shutdown(Duration::from_secs(10));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn the_newest_link_of_a_peer_wins() {
    let runtime = runtime();
    let n1 = Node::start(&runtime, "n1");
    let from_n2 = |number| convert::encode(numbered(id("n2"), id("n1"), number));
    runtime.block_on(async {
        let mut older = Call::accepted(n1.address(), &raw::hello("n2", "n1")).await;
        let mut newer = Call::accepted(n1.address(), &raw::hello("n2", "n1")).await;
        let status = older.end().await;
        assert_eq!(status.code(), tonic::Code::Aborted, "{status:?}");
        let _ = older.batches.send(super::super::wire::Frames { frames: vec![from_n2(1)], ..Default::default() }).await;
        newer.send(vec![from_n2(2)]).await;
        // The older link's end does not take the newer's place away.
        let mut other = Call::accepted(n1.address(), &raw::hello("n3", "n1")).await;
        drop(older);
        newer.send(vec![from_n2(3)]).await;
        drop((newer.batches, other.batches));
        assert!(newer.answers.message().await.unwrap().is_none());
        assert!(other.answers.message().await.unwrap().is_none());
    });
    assert_eq!(n1.wait_messages(2), [numbered(id("n2"), id("n1"), 2), numbered(id("n2"), id("n1"), 3)]);
}

#[test]
fn a_message_in_the_name_of_another_is_not_sent() {
    let runtime = runtime();
    let (n1, n2) = pair(&runtime);
    let ticket = graft_services::ports::Ticket { session: 1, sequence: 1 };
    let refusal = graft_services::error::Refusal::Stopped;
    let foreign = [
        numbered(id("n3"), id("n2"), 1),
        numbered(id("n1"), id("n3"), 1),
        PeerMessage::Forward {
            from: id("n3"),
            term: graft_domain::Term(1),
            ticket,
            act: graft_services::commands::Act::Command { slot: None, body: bytes::Bytes::from_static(b"x") },
        },
        PeerMessage::Refused { to: id("n3"), ticket, refusal },
        PeerMessage::Ask { from: id("n3"), ticket, ask: Ask::Transfer { to: None } },
        PeerMessage::Answered { to: id("n3"), ticket, answer: Ok(graft_domain::Index(1)) },
        PeerMessage::Links { from: id("n3"), connected: Vec::new(), failure: None },
    ];
    for message in foreign {
        assert!(!n1.transport.send(id("n2"), message.clone()), "{message:?}");
    }
    assert!(n1.transport.send(id("n2"), numbered(id("n1"), id("n2"), 2)));
    assert_eq!(n2.wait_messages(1), [numbered(id("n1"), id("n2"), 2)]);
}

#[test]
fn a_message_that_the_other_side_would_not_take_is_not_sent() {
    let runtime = runtime();
    let (n1, n2) = pair(&runtime);
    let many: BTreeMap<_, _> = (0..1001).map(|at| (id(&format!("n{at}")), String::new())).collect();
    let changes = [
        Change::Replace { old: id("n1"), new: id("n4"), address: "x".repeat(1025) },
        Change::Apply { members: many.clone() },
        Change::Apply { members: [(id("n4"), "x".repeat(1025))].into() },
    ];
    let ticket = graft_services::ports::Ticket { session: 1, sequence: 1 };
    for change in changes {
        let ask = Ask::Change { change, guard: None };
        assert!(!n1.transport.send(id("n2"), PeerMessage::Ask { from: id("n1"), ticket, ask }));
    }
    let links = PeerMessage::Links { from: id("n1"), connected: many.into_keys().collect(), failure: None };
    assert!(!n1.transport.send(id("n2"), links));
    assert!(n1.transport.send(id("n2"), numbered(id("n1"), id("n2"), 2)));
    assert_eq!(n2.wait_messages(1), [numbered(id("n1"), id("n2"), 2)], "and the link stands");
}

#[test]
fn a_message_is_its_links_whatever_the_sender_claims() {
    let runtime = runtime();
    let n1 = Node::start(&runtime, "n1");
    // Written as from n3 to n4, but there is no field for either: it arrives as from the peer that was let in.
    runtime.block_on(async {
        let call = Call::accepted(n1.address(), &raw::hello("n2", "n1")).await;
        call.send(vec![convert::encode(numbered(id("n3"), id("n4"), 5))]).await;
        let from = n1.wait_messages(1);
        assert_eq!(from, [numbered(id("n2"), id("n1"), 5)]);
    });
}

#[test]
fn a_peer_at_a_new_address_is_dialled_there() {
    let runtime = runtime();
    let (n1, n2) = pair(&runtime);
    let moved = Node::start(&runtime, "n2");
    n1.dial("n2", &moved.address().to_string());
    n1.wait_connected("n2");
    assert!(n1.transport.send(id("n2"), numbered(id("n1"), id("n2"), 1)));
    assert_eq!(moved.wait_messages(1), [numbered(id("n1"), id("n2"), 1)]);
    n1.transport.set_peers(&BTreeMap::new());
    assert_eq!(n1.transport.link(id("n2")), None);
    assert!(!n1.transport.send(id("n2"), numbered(id("n1"), id("n2"), 2)));
    drop(n2);
}

#[test]
fn a_cluster_that_becomes_known_is_judged_on_standing_links() {
    let runtime = runtime();
    let (n1, n2) = pair(&runtime);
    n2.transport.set_cluster(ClusterId(2));
    assert!(n1.transport.send(id("n2"), numbered(id("n1"), id("n2"), 1)), "one that does not know may talk");
    n2.wait_messages(1);
    n1.transport.set_cluster(ClusterId(1));
    n1.transport.send(id("n2"), numbered(id("n1"), id("n2"), 2));
    let mut strays = 0;
    let code = n2.wait("refusal", |event| {
        strays += usize::from(matches!(event, PeerEvent::Messages { .. }));
        if let PeerEvent::Refused { code, .. } = event { Some(code) } else { None }
    });
    assert_eq!((code, strays), (RefusedCode::ClusterMismatch, 0), "sent after the cluster was known, so not delivered");
    assert_eq!(n1.wait_refused().1, RefusedCode::ClusterMismatch);
}

#[test]
fn a_removed_or_replaced_peer_loses_its_standing_link() {
    let runtime = runtime();
    let n1 = Node::start(&runtime, "n1");
    let mut hello = raw::hello("n2", "n1");
    hello.incarnation = 5;
    runtime.block_on(async {
        let mut call = Call::accepted(n1.address(), &hello).await;
        n1.dial_known("n2", "127.0.0.1:1", Incarnation(6));
        assert_eq!(refusal(&call.end().await).code, RefusedCode::IdentityMismatch);
        n1.dial_known("n2", "127.0.0.1:1", Incarnation(5));
        let mut call = Call::accepted(n1.address(), &hello).await;
        n1.transport.set_removed(&[id("n2")].into());
        assert_eq!(refusal(&call.end().await).code, RefusedCode::Removed);
    });
}

#[test]
fn limits_that_could_not_work_are_moved_to_ones_that_do() {
    let runtime = runtime();
    let config = PeerConfig {
        queue_bytes_max: usize::MAX,
        queue_messages_max: usize::MAX,
        batch_bytes_max: 0,
        message_bytes_max: usize::MAX,
        backoff_first: Duration::ZERO,
        backoff_max: Duration::MAX,
        stream_window_bytes: u32::MAX,
        connection_window_bytes: 0,
        connections_max: usize::MAX,
        handshake_timeout: Duration::MAX,
        ..PeerConfig::default()
    };
    let n1 = Node::with(&runtime, "127.0.0.1:0", hello("n1"), config.clone());
    let n2 = Node::with(&runtime, "127.0.0.1:0", hello("n2"), config);
    n1.dial("n2", &n2.address().to_string());
    n1.wait_connected("n2");
    assert_eq!(n1.transport.send_batch(id("n2"), samples(id("n1"), id("n2"))), samples(id("n1"), id("n2")).len());
    n2.wait_messages(samples(id("n1"), id("n2")).len());
}

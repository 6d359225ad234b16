//! Who is at an address.

use std::time::Duration;

use graft_domain::{ClusterId, Incarnation, NodeId};

use super::super::PeerEvent;
use super::super::bind;
use super::super::probing::PROBES_MAX;
use super::raw::Server;
use super::{LocalHello, Node, PeerConfig, free_address, hello, id, raw, runtime};

fn leader(runtime: &tokio::runtime::Runtime, config: PeerConfig) -> Node {
    let hello = LocalHello { cluster: ClusterId(7), membership_hash: 5, ..hello("n1") };
    Node::with(runtime, "127.0.0.1:0", hello, config)
}

impl Node {
    fn wait_probed(&self) -> (NodeId, String, Result<Incarnation, String>) {
        self.wait("probe", |event| match event {
            PeerEvent::Probed { id, address, found } => Some((id, address, found)),
            _ => None,
        })
    }

    fn probed(&self, name: &str, address: &str) -> Result<Incarnation, String> {
        self.transport.probe(id(name), address);
        let (probed, at, found) = self.wait_probed();
        assert_eq!((probed, at.as_str()), (id(name), address));
        found
    }
}

#[test]
fn a_node_that_waits_to_be_let_in_is_found() {
    let runtime = runtime();
    let n1 = leader(&runtime, PeerConfig::default());
    let found = |hello: LocalHello| {
        let n4 = Node::with(&runtime, "127.0.0.1:0", hello, PeerConfig::default());
        n1.probed("n4", &n4.address().to_string())
    };
    let n4 = || LocalHello { incarnation: Incarnation(44), ..hello("n4") };
    assert_eq!(found(n4()), Ok(Incarnation(44)));
    assert_eq!(found(LocalHello { cluster: ClusterId(7), ..n4() }), Ok(Incarnation(44)), "a member");
    assert_eq!(found(LocalHello { membership_hash: 5, ..n4() }), Ok(Incarnation(44)), "a founder of this cluster");
    let other = found(LocalHello { membership_hash: 6, ..n4() }).expect_err("a founder of another");
    assert!(other.contains("found a cluster of its own") && other.contains("`join=`"), "{other}");
    let other = found(LocalHello { cluster: ClusterId(8), ..n4() }).expect_err("a member of another");
    assert!(other.contains("another cluster") && other.contains("`join=`"), "{other}");
    let other = found(hello("n5")).expect_err("another id");
    assert!(other.starts_with("n5 answers at") && other.contains("not n4"), "{other}");
    n1.dial_known("n4", "127.0.0.1:1", Incarnation(9));
    assert!(found(n4()).expect_err("another data directory").contains("wiped"));
    n1.transport.set_removed(&[id("n4")].into());
    assert!(found(n4()).expect_err("a former member").contains("removed"));
}

#[test]
fn nobody_and_nothing_of_ours() {
    let runtime = runtime();
    let config = PeerConfig { handshake_timeout: Duration::from_millis(100), ..PeerConfig::default() };
    let n1 = leader(&runtime, config);
    let free = free_address();
    let why = n1.probed("n4", &free).expect_err("nobody");
    assert!(why.contains("nobody can be reached") && why.contains("start n4 there"), "{why}");
    assert!(n1.probed("n4", "nonsense").expect_err("no address").contains("host:port"));
    // It takes connections and says nothing.
    let silent = bind("127.0.0.1:0").unwrap();
    let why = n1.probed("n4", &silent.local_addr().unwrap().to_string()).expect_err("silence");
    assert!(why.contains("nothing within 100ms"), "{why}");
    // It speaks something else.
    let other = bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let speaks = std::thread::spawn(move || {
        let (mut stream, _) = other.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"220 mail.example ESMTP\r\n").unwrap();
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let why = n1.probed("n4", &address).expect_err("another protocol");
    assert!(why.contains("does not answer as a node does"), "{why}");
    speaks.join().unwrap();
    // A later version.
    let mut hello = raw::hello("n4", "n1");
    (hello.version, hello.version_min) = (99, 99);
    let server = Server::start(&runtime, hello);
    assert!(n1.probed("n4", &server.address.to_string()).expect_err("version 99").contains("99"));
}

#[test]
fn probes_have_a_limit() {
    let runtime = runtime();
    let n1 = leader(&runtime, PeerConfig::default());
    let silent = bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    for _ in 0..=PROBES_MAX {
        n1.transport.probe(id("n4"), address.as_str());
    }
    let (.., found) = n1.wait_probed();
    assert!(found.expect_err("one too many").contains("try again"));
    // They are freed again: every one of them ends.
    drop(silent);
    for _ in 0..PROBES_MAX {
        assert!(n1.wait_probed().2.is_err());
    }
    let n4 = Node::start(&runtime, "n4");
    assert!(n1.probed("n4", &n4.address().to_string()).is_ok());
}

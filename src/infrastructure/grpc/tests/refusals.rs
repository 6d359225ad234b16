//! Every reason to refuse a link, as both sides hear of it.

use graft_domain::{ClusterId, Incarnation};

use super::super::convert;
use super::super::refusal::Refusal;
use super::raw::{Call, Server, refusal};
use super::{LocalHello, Node, PeerConfig, RefusedCode, hello, id, numbered, raw, runtime};

/// `n1` dials `n2`, both must tell of a refusal with the same code and the same words.
fn refused(n1: LocalHello, n2: LocalHello, prepare: impl FnOnce(&Node, &Node)) -> (RefusedCode, String) {
    let runtime = runtime();
    let n1 = Node::with(&runtime, "127.0.0.1:0", n1, PeerConfig::default());
    let n2 = Node::with(&runtime, "127.0.0.1:0", n2, PeerConfig::default());
    prepare(&n1, &n2);
    let (by, code, why) = n1.wait_refused();
    assert_eq!((by.is_some(), n2.wait_refused()), (true, (Some(id("n1")), code, why.clone())));
    (code, why)
}

fn dial(n1: &Node, n2: &Node) {
    n1.dial("n2", &n2.address().to_string());
}

#[test]
fn another_cluster() {
    let of = |name, cluster| LocalHello { cluster: ClusterId(cluster), ..hello(name) };
    let (code, why) = refused(of("n1", 1), of("n2", 2), dial);
    assert_eq!(code, RefusedCode::ClusterMismatch);
    assert!(why.contains("n1.example:7000") && why.contains("address"), "{why}");
}

#[test]
fn other_founders() {
    let with = |name, membership_hash| LocalHello { membership_hash, ..hello(name) };
    let (code, why) = refused(with("n1", 1), with("n2", 2), dial);
    assert_eq!(code, RefusedCode::FoundingMismatch);
    assert!(why.contains("same `members=`"), "{why}");
}

#[test]
fn a_caller_with_another_data_directory() {
    let of = |name, incarnation| LocalHello { incarnation: Incarnation(incarnation), ..hello(name) };
    let (code, why) = refused(of("n1", 1), of("n2", 2), |n1, n2| {
        n2.dial_known("n1", "127.0.0.1:1", Incarnation(9));
        dial(n1, n2);
    });
    assert_eq!(code, RefusedCode::IdentityMismatch);
    assert!(why.contains("wiped") && why.contains("new id") && why.contains("replace"), "{why}");
}

#[test]
fn a_called_one_with_another_data_directory() {
    let of = |name, incarnation| LocalHello { incarnation: Incarnation(incarnation), ..hello(name) };
    let (code, why) = refused(of("n1", 1), of("n2", 2), |n1, n2| {
        n1.dial_known("n2", &n2.address().to_string(), Incarnation(9));
    });
    assert_eq!(code, RefusedCode::IdentityMismatch);
    assert!(why.starts_with("n2 at n2.example:7000 has another data directory"), "{why}");
    assert!(why.ends_with("graft member replace n2 NEW-ID ADDR"), "{why}");
}

#[test]
fn two_nodes_of_one_id() {
    let runtime = runtime();
    let n1 = Node::start(&runtime, "n1");
    let call = runtime.block_on(Call::make(n1.address(), Some(&raw::hello("n1", "n1"))));
    let said = refusal(&call.err().expect("a refusal"));
    assert_eq!(said.code, RefusedCode::IdentityMismatch);
    assert!(said.why.contains("An id belongs to one node"), "{}", said.why);
    assert_eq!(n1.wait_refused(), (Some(id("n1")), said.code, said.why));
}

#[test]
fn another_node_at_the_address() {
    let (code, why) = refused(hello("n1"), hello("n2"), |n1, n2| n1.dial("n3", &n2.address().to_string()));
    assert_eq!(code, RefusedCode::NotMe);
    assert!(why.contains("n1 looked for n3") && why.contains("there is n2"), "{why}");
}

#[test]
fn another_node_that_answers() {
    let runtime = runtime();
    let n1 = Node::start(&runtime, "n1");
    let mut server = Server::start(&runtime, raw::hello("n3", "n1"));
    n1.dial("n2", &server.address.to_string());
    hears_why(&runtime, &mut server, &n1, RefusedCode::NotMe);
}

#[test]
fn a_removed_member() {
    let (code, why) = refused(hello("n1"), hello("n2"), |n1, n2| {
        n2.transport.set_removed(&[id("n1")].into());
        dial(n1, n2);
    });
    assert_eq!(code, RefusedCode::Removed);
    assert!(why.contains("under a new id"), "{why}");
}

#[test]
fn a_caller_of_protocol_version_99() {
    let runtime = runtime();
    let n1 = Node::start(&runtime, "n1");
    let mut hello = raw::hello("n2", "n1");
    (hello.version, hello.version_min) = (99, 98);
    let call = runtime.block_on(Call::make(n1.address(), Some(&hello)));
    let said = refusal(&call.err().expect("a refusal"));
    assert_eq!(said.code, RefusedCode::ProtocolVersion);
    assert!(said.why.contains("98 to 99") && said.why.contains("1 to 1"), "{}", said.why);
    assert_eq!(n1.wait_refused(), (Some(id("n2")), said.code, said.why));
    // One that could speak 99 but also speaks ours is welcome.
    hello.version_min = 1;
    runtime.block_on(Call::accepted(n1.address(), &hello));
}

#[test]
fn a_called_one_of_protocol_version_99() {
    let runtime = runtime();
    let n1 = Node::start(&runtime, "n1");
    let mut hello = raw::hello("n2", "n1");
    (hello.version, hello.version_min) = (99, 99);
    let mut server = Server::start(&runtime, hello);
    n1.dial("n2", &server.address.to_string());
    hears_why(&runtime, &mut server, &n1, RefusedCode::ProtocolVersion);
}

#[test]
fn a_called_one_without_an_id() {
    let runtime = runtime();
    let n1 = Node::start(&runtime, "n1");
    let mut server = Server::start(&runtime, raw::hello("", "n1"));
    n1.dial("n2", &server.address.to_string());
    hears_why(&runtime, &mut server, &n1, RefusedCode::Malformed);
}

/// The dialler finds fault: it tells of it, and so does the last batch of its call.
fn hears_why(runtime: &tokio::runtime::Runtime, server: &mut Server, n1: &Node, code: RefusedCode) {
    let mut call = server.call(runtime);
    let batch = runtime.block_on(call.batch()).expect("a goodbye");
    let said = Refusal::from_wire(&batch.goodbye.expect("a goodbye"));
    assert_eq!(runtime.block_on(call.batch()), None);
    drop(call);
    assert_eq!(said.code, code);
    assert_eq!(n1.wait_refused(), (Some(id("n2")), code, said.why));
    assert!(!n1.transport.send(id("n2"), numbered(id("n1"), id("n2"), 1)), "refused, and still sent to");
}

#[test]
fn a_caller_that_does_not_introduce_itself() {
    let runtime = runtime();
    let n1 = Node::start(&runtime, "n1");
    let call = runtime.block_on(Call::make(n1.address(), None));
    let said = refusal(&call.err().expect("a refusal"));
    assert_eq!(said.code, RefusedCode::Malformed);
    assert_eq!(n1.wait_refused(), (None, said.code, said.why));
}

#[test]
fn a_message_of_no_known_kind() {
    let runtime = runtime();
    let n1 = Node::start(&runtime, "n1");
    let said = runtime.block_on(async {
        let mut call = Call::accepted(n1.address(), &raw::hello("n2", "n1")).await;
        let good = convert::encode(numbered(id("n2"), id("n1"), 1));
        call.send(vec![good, super::super::wire::Frame::default()]).await;
        refusal(&call.end().await)
    });
    assert_eq!(said.code, RefusedCode::Malformed);
    assert_eq!(n1.wait_refused(), (Some(id("n2")), said.code, said.why));
}

#[test]
fn one_connection_too_many() {
    let runtime = runtime();
    let config = PeerConfig { connections_max: 1, ..PeerConfig::default() };
    let n2 = Node::with(&runtime, "127.0.0.1:0", hello("n2"), config);
    let first = runtime.block_on(Call::accepted(n2.address(), &raw::hello("n3", "n2")));
    let n1 = Node::start(&runtime, "n1");
    dial(&n1, &n2);
    let (_, code, why) = n1.wait_refused();
    assert_eq!(code, RefusedCode::TooMany);
    assert!(why.contains("connections_max"), "{why}");
    assert_eq!(n2.wait_refused(), (Some(id("n1")), code, why));
    // A place that becomes free is taken.
    drop(first);
    n1.wait_connected("n2");
}

#[test]
fn strangers_of_ever_new_names_fill_no_log() {
    let runtime = runtime();
    let n1 = Node::start(&runtime, "n1");
    let shared = &n1.transport.shared;
    let news = (0..1000).filter(|n| shared.is_news(Some(id(&format!("s{n}"))), RefusedCode::NotMe)).count();
    assert_eq!(news, 20);
    // Whoever was not told of is still news when there is less to tell.
    assert!(
        !shared.is_news(Some(id("s0")), RefusedCode::NotMe) && !shared.is_news(Some(id("s999")), RefusedCode::NotMe)
    );
}

#[test]
fn an_address_that_is_none_is_refused() {
    let runtime = runtime();
    let n1 = Node::start(&runtime, "n1");
    let hello = super::super::wire::Hello { address: "n2:7000\nERROR".to_owned(), ..raw::hello("n2", "n1") };
    let status = runtime.block_on(Call::make(n1.address(), Some(&hello))).err().expect("a refusal");
    let refusal = refusal(&status);
    assert_eq!(refusal.code, RefusedCode::Malformed);
    assert!(refusal.why.contains(r#""n2:7000\nERROR""#), "{}", refusal.why);
}

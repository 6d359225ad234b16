use graft_domain::NodeId;

use super::super::tests::{hello, id};
use super::*;

fn view() -> View {
    View { me: hello("n1"), peers: BTreeMap::new(), removed: BTreeSet::new() }
}

fn introduction() -> Introduction {
    let theirs = View { me: hello("n2"), ..view() };
    Introduction::parse(theirs.hello(&id("n1"))).expect("a good introduction")
}

fn code(verdict: Result<(), Refusal>) -> Option<RefusedCode> {
    verdict.err().map(|refusal| refusal.code)
}

#[test]
fn an_introduction_survives_the_metadata() {
    let mut theirs = View { me: hello("n2"), ..view() };
    theirs.me.cluster = ClusterId(u128::MAX - 7);
    theirs.me.incarnation = Incarnation(u64::MAX);
    theirs.me.membership_hash = 5;
    let mut metadata = MetadataMap::new();
    into_metadata(&theirs.hello(&id("n1")), &mut metadata);
    let read = from_metadata(&metadata).and_then(Introduction::parse).expect("a good introduction");
    let expected = Introduction {
        id: id("n2"),
        to: id("n1"),
        incarnation: Incarnation(u64::MAX),
        cluster: ClusterId(u128::MAX - 7),
        address: "n2.example:7000".to_owned(),
        founding: 5,
    };
    assert_eq!(read, expected);
}

#[test]
fn a_member_of_the_same_cluster_is_let_in_even_if_it_is_not_known_here() {
    let mut view = view();
    let mut other = introduction();
    assert_eq!(view.judge(&other), Ok(()));
    (view.me.cluster, other.cluster) = (ClusterId(1), ClusterId(1));
    assert_eq!(view.judge(&other), Ok(()));
}

#[test]
fn clusters_are_compared_once_both_are_known() {
    for (mine, theirs, refused) in [(0, 0, false), (1, 0, false), (0, 1, false), (1, 1, false), (1, 2, true)] {
        let mut view = view();
        let mut other = introduction();
        (view.me.cluster, other.cluster) = (ClusterId(mine), ClusterId(theirs));
        assert_eq!(code(view.judge(&other)), refused.then_some(RefusedCode::ClusterMismatch), "{mine} {theirs}");
    }
}

#[test]
fn founders_are_compared_until_both_know_their_cluster() {
    for (founding, clusters, refused) in [
        ((1, 1), (0, 0), false),
        ((0, 2), (0, 0), false),
        ((1, 0), (0, 0), false),
        ((1, 2), (0, 0), true),
        ((1, 2), (9, 0), true),
        ((1, 2), (0, 9), true),
        ((1, 1), (9, 0), false),
        ((1, 2), (9, 9), false),
    ] {
        let mut view = view();
        let mut other = introduction();
        (view.me.membership_hash, other.founding) = founding;
        (view.me.cluster, other.cluster) = (ClusterId(clusters.0), ClusterId(clusters.1));
        let expected = refused.then_some(RefusedCode::FoundingMismatch);
        assert_eq!(code(view.judge(&other)), expected, "{founding:?} {clusters:?}");
    }
}

#[test]
fn incarnations_are_compared_once_both_are_known() {
    for (recorded, told, refused) in [(0, 5, false), (5, 0, false), (5, 5, false), (5, 6, true)] {
        let mut view = view();
        let peer = Peer { address: String::new(), incarnation: Incarnation(recorded) };
        view.peers.insert(id("n2"), peer);
        let mut other = introduction();
        other.incarnation = Incarnation(told);
        let expected = refused.then_some(RefusedCode::IdentityMismatch);
        assert_eq!(code(view.judge(&other)), expected, "{recorded} {told}");
    }
}

#[test]
fn versions_must_overlap() {
    let parse = |version, version_min| {
        let theirs = View { me: hello("n2"), ..view() };
        let hello = wire::Hello { version, version_min, ..theirs.hello(&id("n1")) };
        code(Introduction::parse(hello).map(|_| ()))
    };
    assert_eq!(parse(VERSION, VERSION_MIN), None);
    assert_eq!(parse(99, VERSION), None);
    assert_eq!(parse(99, VERSION + 1), Some(RefusedCode::ProtocolVersion));
    assert_eq!(parse(VERSION_MIN - 1, 0), Some(RefusedCode::ProtocolVersion));
}

#[test]
fn the_version_is_judged_before_what_it_may_have_changed() {
    let future = wire::Hello { version: 99, version_min: 99, id: "not an id".to_owned(), ..wire::Hello::default() };
    let refusal = Introduction::parse(future).expect_err("a refusal");
    assert_eq!(refusal.code, RefusedCode::ProtocolVersion);
}

#[test]
fn bad_introductions_are_malformed() {
    let good = || View { me: hello("n2"), ..view() }.hello(&id("n1"));
    let bad: [fn(&mut wire::Hello); 5] = [
        |hello| hello.id.clear(),
        |hello| hello.to = "a b".to_owned(),
        |hello| hello.id = "x".repeat(NodeId::BYTES_MAX + 1),
        |hello| hello.cluster = bytes::Bytes::from_static(b"15 bytes long.."),
        |hello| hello.address = "x".repeat(ADDRESS_BYTES_MAX + 1),
    ];
    for spoil in bad {
        let mut hello = good();
        spoil(&mut hello);
        let refusal = Introduction::parse(hello.clone()).expect_err("a refusal");
        assert_eq!(refusal.code, RefusedCode::Malformed, "{hello:?}");
    }
}

#[test]
fn metadata_of_garbage_is_malformed() {
    let mut metadata = MetadataMap::new();
    assert_eq!(from_metadata(&metadata).expect_err("a refusal").code, RefusedCode::Malformed);
    for bytes in [&b"\xff\xff\xff\xff"[..], b"\x22\xff\xff\xff\xff\x0f", b"\x22\x02\xc3\x28"] {
        metadata.insert_bin(METADATA_KEY, MetadataValue::from_bytes(bytes));
        assert_eq!(from_metadata(&metadata).expect_err("a refusal").code, RefusedCode::Malformed, "{bytes:?}");
    }
}

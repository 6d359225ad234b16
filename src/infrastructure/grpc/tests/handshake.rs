use graft_domain::NodeId;

use super::super::tests::{hello, id};
use super::*;

fn view() -> View {
    View::new(hello("n1"))
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
        ((1, 1), (0, 9), false),
        ((1, 2), (9, 9), false),
        ((0, 2), (9, 0), false),
        ((0, 1), (0, 9), false),
        ((1, 0), (9, 9), false),
        // A founder does not follow strangers.
        ((1, 0), (0, 9), true),
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
        let peer = Peer { address: String::new(), incarnation: Incarnation(recorded), member: true };
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

#[test]
fn a_founder_follows_those_whom_it_founds_with() {
    let mut view = view();
    view.me.membership_hash = 1;
    let mut other = introduction();
    other.cluster = ClusterId(9);
    assert_eq!(code(view.judge(&other)), Some(RefusedCode::FoundingMismatch));
    // One of its members that does not say any more what the cluster was founded with.
    let peer = Peer { address: String::new(), incarnation: Incarnation::UNKNOWN, member: true };
    view.peers.insert(id("n2"), peer);
    assert_eq!(view.admit(&other), Ok(true));
    view.peers.clear();
    let mut stranger = Introduction { id: id("n4"), ..other };
    assert_eq!(view.judge(&stranger), Ok(()), "by now it is known what became of the founding");
    stranger.cluster = ClusterId(8);
    assert_eq!(code(view.judge(&stranger)), Some(RefusedCode::ClusterMismatch));
}

#[test]
fn a_node_without_a_cluster_is_taken_into_one_and_no_other() {
    let mut view = view();
    let of = |name, cluster| Introduction { id: id(name), cluster: ClusterId(cluster), ..introduction() };
    assert_eq!(view.admit(&of("n2", 0)), Ok(false));
    assert_eq!(view.cluster(), ClusterId::UNKNOWN);
    assert_eq!(view.admit(&of("n2", 7)), Ok(true));
    assert_eq!(view.admit(&of("n3", 7)), Ok(false));
    assert_eq!(code(view.admit(&of("n4", 8)).map(|_| ())), Some(RefusedCode::ClusterMismatch));
    assert_eq!(view.hello(&id("n2")).cluster, encode_cluster(ClusterId(7)), "others are told");
    view.me.cluster = ClusterId(7);
    view.adopted = ClusterId(8);
    assert_eq!(view.cluster(), ClusterId(7), "what is committed counts");
}

#[test]
fn who_does_not_know_whom_it_calls_may_say_so_where_that_is_allowed() {
    let theirs = View { me: hello("n2"), ..view() };
    let open = theirs.hello_to_anyone();
    assert_eq!(Introduction::parse(open.clone()).map_err(|refusal| refusal.code), Err(RefusedCode::Malformed));
    assert_eq!(Introduction::parse_open(open, id("n1")).map(|peer| peer.to), Ok(id("n1")));
    let named = theirs.hello(&id("n3"));
    assert_eq!(Introduction::parse_open(named, id("n1")).map(|peer| peer.to), Ok(id("n3")));
}

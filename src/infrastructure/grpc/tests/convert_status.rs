use graft_domain::ClusterId;

use super::super::tests::id;
use super::*;

fn member(name: &str) -> MemberStatus {
    MemberStatus {
        id: id(name),
        address: format!("{name}.example:7000"),
        voter: true,
        target: Target::Voter,
        incarnation: Incarnation(u64::MAX),
        installing: false,
        sent: None,
        matched: None,
        last_contact: None,
        reachable: None,
        trouble: None,
        difference: None,
    }
}

/// One that knows all that can be known.
fn full() -> View {
    let catching_up = MemberStatus {
        voter: false,
        target: Target::Learner,
        installing: true,
        sent: Some((0, 9)),
        matched: Some(Index::ZERO),
        last_contact: Some(Duration::from_nanos(1)),
        reachable: Some(false),
        trouble: Some("connection refused".to_owned()),
        ..member("n2")
    };
    let leaving = MemberStatus {
        target: Target::Gone,
        reachable: Some(true),
        difference: Some("it differs".to_owned()),
        ..member("n3")
    };
    let status = Status {
        id: id("n1"),
        role: "leader",
        term: Term(7),
        leader: Some(id("n1")),
        last: Index(5),
        commit: Index(4),
        applied: Index(3),
        snapshot: Index(2),
        cluster: ClusterId(u128::MAX - 1),
        members: vec![member("n1"), catching_up, leaving],
        has_quorum: true,
        error: Some("the disk is full".to_owned()),
        error_code: Some("HALTED"),
        membership_index: Index(1),
        former: vec![id("n0")],
        change: Some("n3 leaves".to_owned()),
        log_bytes: 10,
        snapshot_bytes: Some(0),
        snapshot_phase: Some(("fetching", Some(0.25))),
        trouble: Some("its disk is full".to_owned()),
        snapshot_error: Some("no space".to_owned()),
        certificate: Some(CertificateLife { expires: 1_800_000_000, is_expiring: true }),
    };
    View { status, why: vec!["n2 cannot be reached".to_owned()] }
}

fn bare() -> View {
    let status = Status {
        role: "learner",
        leader: None,
        cluster: ClusterId::UNKNOWN,
        members: Vec::new(),
        has_quorum: false,
        error: None,
        error_code: None,
        former: Vec::new(),
        change: None,
        snapshot_bytes: None,
        snapshot_phase: Some(("writing", None)),
        snapshot_error: None,
        certificate: None,
        ..full().status
    };
    View { status, why: Vec::new() }
}

#[test]
fn a_status_survives_the_wire() {
    for view in [full(), bare()] {
        assert_eq!(decode(encode(view.clone())), Ok(view));
    }
}

#[test]
fn what_a_newer_member_says_is_unknown_and_no_error() {
    let said = wire::StatusResponse { role: "emperor".to_owned(), error_code: Some("X".to_owned()), ..encode(full()) };
    let status = decode(said).unwrap().status;
    assert_eq!((status.role, status.error_code), (words::UNKNOWN, Some(words::UNKNOWN)));
}

#[test]
fn what_is_no_status_is_an_error() {
    let said = || encode(full());
    let bad = |said| decode(said).expect_err("an error");
    assert!(matches!(bad(wire::StatusResponse::default()), BadFrame::NodeId(_)));
    assert!(matches!(bad(wire::StatusResponse { leader: "no id!".to_owned(), ..said() }), BadFrame::NodeId(_)));
    let short = bytes::Bytes::from_static(b"short");
    assert_eq!(bad(wire::StatusResponse { cluster: short, ..said() }), BadFrame::Empty("cluster id"));
    let members = vec![wire::MemberStatus { target: "king".to_owned(), ..encode_member(member("n1")) }];
    assert_eq!(bad(wire::StatusResponse { members, ..said() }), BadFrame::Empty("target of a member"));
    let many = vec![encode_member(member("n1")); 1001];
    assert!(matches!(bad(wire::StatusResponse { members: many, ..said() }), BadFrame::TooMany { count: 1001, .. }));
    let many = vec!["n1".to_owned(); 1001];
    assert!(matches!(bad(wire::StatusResponse { former: many.clone(), ..said() }), BadFrame::TooMany { .. }));
    assert!(matches!(bad(wire::StatusResponse { why: many, ..said() }), BadFrame::TooMany { .. }));
}

#[test]
fn an_outlook_survives_the_wire() {
    let outlook = WhatIf {
        refused: Some("n9 is not a member".to_owned()),
        voters: vec![id("n1"), id("n2")],
        learners: vec![id("n3")],
        needed: 2,
        alive: vec![id("n2")],
    };
    assert_eq!(decode_what_if(encode_what_if(outlook.clone())), Ok(outlook));
    let bad = wire::WhatIfResponse { alive: vec![String::new()], ..wire::WhatIfResponse::default() };
    assert!(matches!(decode_what_if(bad), Err(BadFrame::NodeId(_))));
}

#[test]
fn the_leader_is_named_only_with_its_address() {
    assert_eq!(leader_of(&full().status).map(|hint| hint.address).as_deref(), Some("n1.example:7000"));
    let stranger = Status { leader: Some(id("n9")), ..full().status };
    assert_eq!((leader_of(&stranger), leader_of(&bare().status)), (None, None));
}

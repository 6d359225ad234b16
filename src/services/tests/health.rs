use graft_domain::{ClusterId, Incarnation, Index, NodeId, Target, Term};

use super::*;
use crate::CertificateLife;

fn id(name: &str) -> NodeId {
    NodeId::new(name).expect("a good id")
}

fn well() -> View {
    let member = |name: &str| MemberStatus {
        id: id(name),
        address: format!("{name}.example:7000"),
        voter: true,
        target: Target::Voter,
        incarnation: Incarnation::UNKNOWN,
        installing: false,
        sent: None,
        matched: None,
        last_contact: None,
        reachable: (name != "n1").then_some(true),
        trouble: None,
        difference: None,
    };
    let status = Status {
        id: id("n1"),
        role: "follower",
        term: Term(1),
        leader: Some(id("n2")),
        last: Index(1),
        commit: Index(1),
        applied: Index(1),
        snapshot: Index::ZERO,
        cluster: ClusterId(9),
        members: vec![member("n1"), member("n2"), member("n3")],
        has_quorum: true,
        error: None,
        error_code: None,
        membership_index: Index(1),
        former: vec![],
        change: None,
        log_bytes: 0,
        snapshot_bytes: None,
        snapshot_phase: None,
        snapshot_error: None,
        trouble: None,
        certificate: None,
    };
    View { status, why: vec![] }
}

fn told(change: impl FnOnce(&mut View)) -> Vec<String> {
    let mut view = well();
    change(&mut view);
    troubles(&view).iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_is_said_if_all_is_well() {
    assert_eq!(troubles(&well()), []);
}

#[test]
fn each_trouble_is_named_with_what_to_do_about_it() {
    let found = told(|view| {
        view.status.leader = None;
        view.why = vec!["1 of 3 voters is reachable".to_owned(), "2 are needed".to_owned()];
        view.status.members[2].reachable = Some(false);
        view.status.members[2].trouble = Some("connection refused".to_owned());
    });
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("nobody leads: 1 of 3 voters is reachable; 2 are needed. Start the members"));
    assert!(found[1].starts_with("n3 at n3.example:7000 is not reachable: connection refused. Start it again"));
    assert!(found[1].contains("graft member replace n3"));
    let found = told(|view| view.status.has_quorum = false);
    assert!(found[0].starts_with("no majority answers the leader. Start"), "{found:?}");
    let found = told(|view| view.status.snapshot_error = Some("no space".to_owned()));
    assert!(found[0].contains("the last snapshot of n1 failed: no space"), "{found:?}");
    let found = told(|view| view.status.trouble = Some("no space is left on its disk".to_owned()));
    assert!(found[0].starts_with("n1 does not get on: no space is left on its disk. It goes on"), "{found:?}");
    let found = told(|view| (view.status.leader, view.why) = (None, vec!["no space is left".to_owned()]));
    assert!(found[0].starts_with("nobody leads: no space is left. Mend what it says"), "none is missing: {found:?}");
    let life = |is_expiring| Some(CertificateLife { expires: 5, is_expiring });
    let found = told(|view| view.status.certificate = life(true));
    assert!(found[0].contains("certificate of n1 is about to expire. `graft tls renew`"), "{found:?}");
    assert_eq!(told(|view| view.status.certificate = life(false)), [""; 0]);
}

#[test]
fn a_member_that_is_connected_may_be_of_no_use() {
    let found = told(|view| view.status.members[2].trouble = Some("it halted at 7".to_owned()));
    assert!(found[0].starts_with("n3 at n3.example:7000 does not work: it halted at 7. Mend that and"), "{found:?}");
    let heard = |seconds| told(|view| view.status.members[2].last_contact = Some(Duration::from_secs(seconds)));
    assert!(heard(9)[0].contains("n3.example:7000 is connected and has not answered for 9 s"));
    assert_eq!(heard(2), [""; 0]);
}

#[test]
fn whose_id_is_its_address_is_not_named_twice() {
    let found = told(|view| {
        let member = &mut view.status.members[2];
        member.id = NodeId::new(&member.address).expect("a good id");
        member.reachable = Some(false);
    });
    assert!(found[0].starts_with("n3.example:7000 is not reachable: "), "{found:?}");
}

#[test]
fn who_differs_is_no_less_ill_for_being_asked_itself() {
    let why = "its state differs from that of most as of entry 7, as the last verify() here found";
    for place in [0, 2] {
        let found = told(|view| view.status.members[place].difference = Some(why.to_owned()));
        assert_eq!(found.len(), 1, "{found:?}");
        let n = place + 1;
        assert!(found[0].starts_with(&format!("n{n} at n{n}.example:7000: {why}. Look for what is not")), "{found:?}");
    }
}

#[test]
fn of_one_that_differs_and_is_not_there_both_are_told() {
    let found = told(|view| {
        let member = &mut view.status.members[2];
        (member.reachable, member.difference) = (Some(false), Some("its state differs".to_owned()));
    });
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn one_that_does_not_work_itself_says_that_first_and_not_that_nobody_leads() {
    let found = told(|view| {
        (view.status.leader, view.status.role) = (None, "removed");
        view.status.error = Some("n1 was removed from the cluster".to_owned());
    });
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("was removed from the cluster") && found[0].contains("another id"));
    let found = told(|view| (view.status.role, view.status.error) = ("failed", Some("the disk is gone".to_owned())));
    assert!(found[0].contains("the disk is gone") && found[0].contains("replace the member"));
}

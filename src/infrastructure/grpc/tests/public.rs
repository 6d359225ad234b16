//! The public services, call by call.

use std::time::Duration;

use bytes::Bytes;
use graft_domain::{Incarnation, Index};
use graft_services::change::{Ask, Change};
use graft_services::error::Refusal;
use graft_services::{Consistency, Read};
use tonic::{Code, Request};

use super::super::failure::{Failure, LeaderHint};
use super::super::wire::execute_response::Reply;
use super::super::{convert_ask, wire};
use super::toy::Toy;
use super::visit::{Visit, execute, soon, told};
use super::{Node, PeerConfig, id, runtime};

fn value(bytes: &'static [u8]) -> Reply {
    Reply::Value(Bytes::from_static(bytes))
}

#[test]
fn commands_and_queries_are_answered() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    runtime.block_on(async {
        let mut visit = Visit::to(n1.address()).await;
        let answer = visit.execute("one").await.unwrap();
        assert_eq!((answer.index, answer.term, answer.reply, answer.leader), (1, 1, Some(value(b"one")), None));
        let raised = visit.execute("raise no money").await.unwrap();
        assert!(matches!(raised.reply, Some(Reply::Raised(raised)) if raised.message == "no money"));
        let query = wire::QueryRequest {
            query: Bytes::from_static(b"log"),
            consistency: wire::Consistency::Stale.into(),
            max_age: Some(5),
            at_least: 2,
        };
        let answer = soon(visit.client.query(query)).await.unwrap();
        let log = wire::query_response::Reply::Value(Bytes::from_static(b"oneraise no money"));
        assert_eq!((answer.index, answer.reply), (2, Some(log)));
        let stale = Consistency::Stale { max_age: Some(Duration::from_nanos(5)) };
        assert_eq!(toy.state().reads, [Read { consistency: stale, at_least: Index(2) }]);
    });
}

#[test]
fn a_command_of_a_session_is_applied_once() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    runtime.block_on(async {
        let mut visit = Visit::to(n1.address()).await;
        let session = soon(visit.client.open_session(wire::OpenSessionRequest::default())).await.unwrap().session;
        let slot = wire::SessionSlot { session, sequence: 1, unanswered: 1 };
        let request = wire::ExecuteRequest { slot: Some(slot), ..execute("pay") };
        let first = soon(visit.client.execute(request.clone())).await.unwrap();
        assert_eq!(soon(visit.client.execute(request)).await.unwrap(), first);
        assert_eq!(toy.state().log.len(), 2);
        let strange = wire::ExecuteRequest { slot: Some(wire::SessionSlot { session: 99, ..slot }), ..execute("pay") };
        let refused = soon(visit.client.execute(strange)).await.unwrap_err();
        assert_eq!(told(&refused).failure, Failure::Refused(Refusal::SessionExpired));
    });
}

#[test]
fn who_does_not_lead_says_who_does() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    runtime.block_on(async {
        let mut visit = Visit::to(n1.address()).await;
        toy.lead(Some(id("n2")));
        // It is known soon, not at once.
        let leader = wire::Leader { id: "n2".to_owned(), address: "n2.example:7000".to_owned() };
        while visit.execute("x").await.unwrap().leader.as_ref() != Some(&leader) {}
        let asked = toy.state().views;
        for _ in 0..50 {
            assert_eq!(visit.execute("x").await.unwrap().leader.as_ref(), Some(&leader));
        }
        assert!(toy.state().views <= asked + 1, "the node is not asked for every call");
        let asked = toy.state().views;
        toy.state().refusal = Some(Refusal::NotLeader { leader: Some(id("n2")) });
        let refused = visit.execute("x").await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert_eq!(told(&refused).leader, Some(LeaderHint { id: id("n2"), address: leader.address }));
        // What a call finds out makes it be asked for again.
        toy.wait("question who leads", |state| state.views > asked);
    });
}

#[test]
fn deadlines_are_those_of_the_call() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    runtime.block_on(async {
        let mut visit = Visit::to(n1.address()).await;
        for timeout in ["200m", "99999999H"] {
            let mut request = Request::new(execute("x"));
            request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
            soon(visit.client.execute(request)).await.unwrap();
        }
        visit.execute("x").await.unwrap();
        let given = toy.state().timeouts.clone();
        let most = [Duration::from_millis(180), Duration::from_hours(1), Duration::from_secs(10)];
        assert!(given.iter().zip(most).all(|(given, most)| *given <= most), "{given:?}");
        assert!(given[1] > Duration::from_mins(59) && given[2] > Duration::from_secs(8), "{given:?}");
        let mut request = Request::new(execute("hold on"));
        request.metadata_mut().insert("grpc-timeout", "50m".parse().unwrap());
        let late = soon(visit.client.execute(request)).await.unwrap_err();
        assert_eq!((late.code(), told(&late).failure), (Code::DeadlineExceeded, Failure::Refused(Refusal::Timeout)));
        let mut request = Request::new(execute("x"));
        request.metadata_mut().insert("grpc-timeout", "soon".parse().unwrap());
        let bad = soon(visit.client.execute(request)).await.unwrap_err();
        assert!(matches!(told(&bad).failure, Failure::Refused(Refusal::Invalid(words)) if words.contains("soon")));
    });
}

#[test]
fn operators_are_answered() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    runtime.block_on(async {
        let visit = Visit::to(n1.address()).await;
        let mut admin = visit.admin.clone();
        let status = soon(admin.status(wire::StatusRequest {})).await.unwrap();
        assert_eq!((&*status.role, &*status.why[0]), ("leader", "all is well"));
        let members = soon(admin.members(wire::MembersRequest {})).await.unwrap();
        assert_eq!((&*members.leader, members.members.len(), members.membership_index), ("n1", 2, 1));
        let add = Change::Add {
            id: id("n4"),
            address: "n4.example:1".to_owned(),
            voter: true,
            incarnation: Incarnation::UNKNOWN,
        };
        let request = convert_ask::encode_change(add.clone(), Some(Index(7)));
        assert_eq!(soon(admin.change_membership(request)).await.unwrap().index, 42);
        let to = wire::TransferLeadershipRequest { to: "n2".to_owned() };
        assert_eq!(soon(admin.transfer_leadership(to)).await.unwrap().index, 42);
        soon(admin.transfer_leadership(wire::TransferLeadershipRequest::default())).await.unwrap();
        let expected = [
            Ask::Change { change: add, guard: Some(Index(7)) },
            Ask::Transfer { to: Some(id("n2")) },
            Ask::Transfer { to: None },
        ];
        assert_eq!(toy.state().asks, expected);
        let outlook = soon(admin.what_if(convert_ask::encode_change(Change::Cancel, None))).await.unwrap();
        assert_eq!(outlook.refused.as_deref(), Some("nothing is under way"));
        assert_eq!(soon(admin.snapshot(wire::SnapshotRequest { current: false })).await.unwrap().index, 0);
        assert_eq!(soon(admin.verify(wire::VerifyRequest {})).await.unwrap().digests.len(), 2);
        soon(admin.shutdown(wire::ShutdownRequest::default())).await.unwrap();
        assert_eq!(toy.state().stopped, Some(Duration::from_secs(5)));
    });
}

#[test]
fn what_no_operator_may_say_is_refused_in_words() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    runtime.block_on(async {
        let visit = Visit::to(n1.address()).await;
        let mut admin = visit.admin.clone();
        let incarnation = Incarnation(7);
        let as_joiner = Change::Add { id: id("n4"), address: "n4.example:1".to_owned(), voter: true, incarnation };
        let nobody = wire::change::Change::Remove("no id!".to_owned());
        let requests = [
            (convert_ask::encode_change(as_joiner, None), "joining"),
            (wire::Change::default(), "newer version"),
            (wire::Change { change: Some(nobody), guard: None }, "bad node id"),
        ];
        for (request, words) in requests {
            for refused in [
                soon(admin.change_membership(request.clone())).await.err().unwrap(),
                soon(admin.what_if(request.clone())).await.err().unwrap(),
            ] {
                assert_eq!(refused.code(), Code::InvalidArgument);
                assert!(refused.message().contains(words), "{refused:?}");
                told(&refused);
            }
        }
        let removal = convert_ask::encode_change(Change::Remove { id: id("n9") }, None);
        let refused = soon(admin.change_membership(removal)).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(told(&refused).failure, Failure::Refused(Refusal::Membership("no member n9".to_owned())));
        assert_eq!(toy.state().asks.len(), 1, "the others were not even asked");
    });
}

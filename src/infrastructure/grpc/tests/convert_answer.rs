use bytes::Bytes;
use graft_services::commands::Slot;
use graft_services::error::Refusal;

use super::super::tests::{id, refusals};
use super::*;

fn done_with(reply: Reply) -> Outcome {
    Outcome::Done { index: Index(u64::MAX), term: Term(3), reply }
}

fn outcomes() -> Vec<Outcome> {
    let raised = Raised { type_name: "ValueError".to_owned(), message: "no".to_owned(), traceback: "here".to_owned() };
    let slot = Slot { session: 1, sequence: 2, unanswered: 2 };
    let mut all = vec![
        done_with(Reply::Value(Bytes::from_static(b"\xc0"))),
        done_with(Reply::Value(Bytes::new())),
        done_with(Reply::Raised(Box::new(raised))),
        done_with(Reply::Raised(Box::default())),
        Outcome::unknown("the leader was lost"),
        Outcome::Unknown { why: "it stopped".to_owned(), slot: Some(slot) },
    ];
    all.extend(refusals(id("n1")).into_iter().map(Outcome::Refused));
    all
}

#[test]
fn every_answer_survives_the_wire() {
    for outcome in outcomes() {
        for kind in [Kind::Execute, Kind::Query] {
            let (number, decoded, told) = decode(encode(9, kind, outcome.clone(), None)).unwrap();
            assert_eq!((number, &decoded), (9, &outcome));
            assert_eq!(told.is_some(), !matches!(outcome, Outcome::Done { .. }));
        }
    }
    let (_, opened, _) = decode(encode(9, Kind::OpenSession, outcomes().remove(0), None)).unwrap();
    assert!(matches!(opened, Outcome::Done { index: Index(u64::MAX), .. }));
}

#[test]
fn digests_survive_the_wire() {
    let digests = BTreeMap::from([(id("n1"), Ok(Bytes::from_static(b"d"))), (id("n2"), Err("none".to_owned()))]);
    let outcome = Outcome::Compared { index: Index(3), digests };
    let response = compared(outcome.clone()).unwrap();
    assert_eq!(decode_compared(response.clone()), Ok(outcome.clone()));
    let twice = wire::VerifyResponse { digests: [&response.digests[..], &response.digests].concat(), ..response };
    assert_eq!(decode_compared(twice), Err(BadFrame::Twice("n1".to_owned())));
    assert!(matches!(compared(Outcome::Refused(Refusal::NoLeader)), Err(Failure::Refused(Refusal::NoLeader))));
    assert!(matches!(compared(done_with(Reply::Value(Bytes::new()))), Err(Failure::Internal(_))));
    assert!(matches!(index(outcome), Err(Failure::Internal(_))));
}

#[test]
fn an_answer_of_no_known_kind_is_an_error() {
    let answer = |answer| wire::NumberedAnswer { number: 1, answer };
    assert_eq!(decode(answer(None)), Err(BadFrame::Empty("answer")));
    assert_eq!(decode(answer(Some(Answer::Execute(wire::ExecuteResponse::default())))), Err(BadFrame::Empty("reply")));
    assert_eq!(decode(answer(Some(Answer::Query(wire::QueryResponse::default())))), Err(BadFrame::Empty("reply")));
    // Not said by Graft: what became of the call is not known.
    let error = tonic_types::pb::Status { message: "gone".to_owned(), ..tonic_types::pb::Status::default() };
    assert_eq!(decode(answer(Some(Answer::Error(error)))), Ok((1, Outcome::unknown("gone"), None)));
}

#[test]
fn a_leader_survives_the_wire() {
    let hint = LeaderHint { id: id("n1"), address: "n1.example:7000".to_owned() };
    assert_eq!(decode_leader(encode_leader(&hint)), Ok(Some(hint)));
    assert_eq!(decode_leader(wire::Leader::default()), Ok(None));
    assert!(decode_leader(wire::Leader { id: "no id!".to_owned(), address: String::new() }).is_err());
}

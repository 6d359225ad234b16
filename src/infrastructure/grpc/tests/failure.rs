use bytes::Bytes;
use tonic::Code;
use tonic::codegen::http;

use super::super::tests::{id, refusals};
use super::*;

/// Every kind of failure.
fn failures() -> Vec<Failure> {
    let unknown = |slot| Failure::Unknown { why: "the leader was lost".to_owned(), slot };
    let slot = Slot { session: 7, sequence: u64::MAX, unanswered: 3 };
    let others = [unknown(None), unknown(Some(slot)), Failure::Internal("two answers".to_owned())];
    let snapshot = Refusal::Snapshot("the disk is full".to_owned());
    refusals(id("n1")).into_iter().chain([snapshot]).map(Failure::Refused).chain(others).collect()
}

fn hint_to(name: &str) -> LeaderHint {
    LeaderHint { id: id(name), address: format!("{name}.example:7000") }
}

#[test]
fn every_failure_survives_a_status_and_a_message() {
    for failure in failures() {
        for leader in [None, Some(hint_to("n1"))] {
            let kind = Kind::of(&failure);
            let status = failure.to_status(leader.as_ref());
            let wire = failure.to_wire(leader.as_ref());
            assert_eq!(status.code(), kind.code);
            // What the refusal itself does not know is learnt from the hint.
            let failure = match (&failure, &leader) {
                (Failure::Refused(Refusal::NotLeader { .. }), Some(_)) => {
                    Failure::Refused(Refusal::NotLeader { leader: Some(id("n1")) })
                }
                _ => failure.clone(),
            };
            let expected = Told { failure: failure.clone(), leader, retry_after: kind.retry_after };
            assert_eq!(Told::from_status(&status), Some(expected.clone()));
            assert_eq!((wire.code, &*wire.message), (status.code() as i32, status.message()));
            assert_eq!(Told::from_wire(&wire), Some(expected));
            // Who knows nothing of Graft gets the bytes of the message beside the status.
            let beside = pb::Status::decode(status.details()).unwrap();
            assert_eq!((beside.code, beside.message), (wire.code, wire.message));
            assert_eq!(beside.details.len(), wire.details.len());
        }
    }
}

#[test]
fn what_may_have_been_applied_is_never_what_clients_retry_by_themselves() {
    for failure in failures() {
        let kind = Kind::of(&failure);
        let retried = [Code::Unavailable, Code::ResourceExhausted, Code::Aborted].contains(&kind.code);
        let certain = matches!(failure, Failure::Refused(_));
        assert!(certain || !(retried || kind.retry_after.is_some()), "{failure:?}: {kind:?}");
        assert!(!kind.fix.is_empty() && kind.url().ends_with(&kind.reason.to_lowercase()));
    }
}

#[test]
fn a_hint_to_another_than_the_one_named_is_not_passed_on() {
    let failure = Failure::Refused(Refusal::NotLeader { leader: Some(id("n2")) });
    let told = Told::from_status(&failure.to_status(Some(&hint_to("n1")))).unwrap();
    assert_eq!((told.failure, told.leader), (failure.clone(), None));
    let told = Told::from_status(&failure.to_status(Some(&hint_to("n2")))).unwrap();
    assert_eq!(told.leader, Some(hint_to("n2")));
}

#[test]
fn who_does_not_speak_for_graft_is_not_understood() {
    let elsewhere = ErrorDetails::with_error_info("BUSY", "example.com", HashMap::new());
    assert_eq!(Told::from_status(&Status::unavailable("connection refused")), None);
    assert_eq!(Told::from_status(&Status::with_error_details(Code::Unavailable, "", elsewhere)), None);
    let garbage = Status::with_details(Code::Unavailable, "", Bytes::from_static(b"\xff\xff\xff\xff"));
    assert_eq!(Told::from_status(&garbage), None);
}

#[test]
fn a_reason_of_a_newer_version_still_says_whether_it_was_applied() {
    let told = |applied: Option<&str>, retry: Option<Duration>| {
        let metadata = applied.map(|applied| (APPLIED.to_owned(), applied.to_owned()));
        let mut details =
            ErrorDetails::with_error_info("DIZZY", DOMAIN, metadata.into_iter().collect::<HashMap<_, _>>());
        details.set_retry_info(retry);
        Told::from_status(&Status::with_error_details(Code::Internal, "it turns", details)).unwrap().failure
    };
    let words = "DIZZY: it turns".to_owned();
    let unknown = Failure::Unknown { why: words.clone(), slot: None };
    assert_eq!(told(Some("no"), Some(Duration::from_secs(1))), Failure::Refused(Refusal::Busy(words.clone())));
    assert_eq!((told(Some("unknown"), None), told(None, Some(Duration::ZERO))), (unknown.clone(), unknown));
}

#[test]
fn numbers_that_are_none_are_no_numbers() {
    let metadata = [("session", "9"), ("sequence", "-1"), ("reachable", "many"), ("leader", "not an id!")];
    let metadata: HashMap<_, _> = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let told = |reason: &str| {
        let details = ErrorDetails::with_error_info(reason, DOMAIN, metadata.clone());
        Told::from_status(&Status::with_error_details(Code::Unknown, "", details)).unwrap().failure
    };
    assert_eq!(told("UNKNOWN_OUTCOME"), Failure::Unknown { why: String::new(), slot: None });
    assert_eq!(told("NO_QUORUM"), Failure::Refused(Refusal::NoQuorum { reachable: 0, needed: 0 }));
    assert_eq!(told("NOT_LEADER"), Failure::Refused(Refusal::NotLeader { leader: None }));
}

#[test]
fn a_status_fits_into_the_headers_that_clients_take() {
    let failure = Failure::Refused(Refusal::Halted("é\n".repeat(10_000)));
    let status = failure.to_status(Some(&hint_to("n1")));
    let mut headers = http::HeaderMap::new();
    status.add_header(&mut headers).unwrap();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    assert!(bytes < 8 << 10, "{bytes}");
    let wire = failure.to_wire(None);
    assert!(wire.message.len() > 10 << 10, "a message has room for {} bytes", wire.message.len());
}

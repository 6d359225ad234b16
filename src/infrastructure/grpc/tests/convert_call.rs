use super::*;

fn asked() -> Vec<Asked> {
    let body = Bytes::from_static(b"body");
    let slot = Slot { session: u64::MAX, sequence: 4, unanswered: 4 };
    let ages = [None, Some(Duration::ZERO), Some(Duration::from_secs(3))];
    let stale = ages.map(|max_age| Consistency::Stale { max_age });
    let reads = [Consistency::Linearizable, Consistency::Lease].into_iter().chain(stale);
    let mut all = vec![
        Asked::Execute { body: body.clone(), slot: None },
        Asked::Execute { body: Bytes::new(), slot: Some(slot) },
        Asked::OpenSession { ttl: None },
        Asked::OpenSession { ttl: Some(Duration::from_nanos(1)) },
    ];
    all.extend(
        reads.map(|consistency| Asked::Query { body: body.clone(), read: Read { consistency, at_least: Index::LAST } }),
    );
    all
}

#[test]
fn every_call_survives_the_wire() {
    for asked in asked() {
        for timeout in [None, Some(Duration::from_millis(5))] {
            let call = Numbered { number: u64::MAX, timeout, asked: asked.clone() };
            assert_eq!(Numbered::decode(call.clone().encode()), Ok(call));
        }
    }
    let hasty = Numbered { number: 1, timeout: Some(Duration::ZERO), asked: asked().remove(0) };
    let timeout = Numbered::decode(hasty.encode()).unwrap().timeout;
    assert_eq!(timeout, Some(Duration::from_nanos(1)), "nothing is not the default");
}

/// The words of a refusal.
fn refused(call: WireCall) -> String {
    match Asked::decode(call) {
        Err(Refusal::Invalid(words)) => words,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn what_no_version_would_send_is_refused_in_words() {
    let execute = |session, sequence, unanswered| {
        let slot = Some(wire::SessionSlot { session, sequence, unanswered });
        refused(WireCall::Execute(wire::ExecuteRequest { slot, ..wire::ExecuteRequest::default() }))
    };
    assert!(execute(0, 1, 1).contains("OpenSession"));
    assert!(execute(1, 0, 0).contains("from 1"));
    assert!(execute(1, 3, 4).contains("unanswered (4)"));
    let query = |request| refused(WireCall::Query(request));
    let max_age = wire::QueryRequest { max_age: Some(1), ..wire::QueryRequest::default() };
    assert!(query(max_age).contains("CONSISTENCY_STALE"));
    let at_least = wire::QueryRequest { at_least: u64::MAX, ..wire::QueryRequest::default() };
    assert!(query(at_least).contains("at_least"));
    let newer = wire::QueryRequest { consistency: 99, ..wire::QueryRequest::default() };
    assert!(query(newer).contains("newer version"));
    let newer = Numbered::decode(wire::NumberedCall { number: 1, timeout: 0, call: None });
    assert!(matches!(newer, Err(Refusal::Invalid(words)) if words.contains("newer version")));
}

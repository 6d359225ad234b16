//! Real examples of what is said over a connection, for the fuzz targets to begin with.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{ClusterId, Incarnation, Index, NodeId, Target, Term};
use graft_services::api::{Cursor, Happening, News, View, Watch};
use graft_services::change::Change;
use graft_services::commands::Slot;
use graft_services::error::{Outcome, Refusal};
use graft_services::ports::{Emitted, Raised, Reply};
use graft_services::{Consistency, MemberStatus, Notice, Read, Status, WhatIf};
use prost::Message;

use super::convert_call::{Asked, Kind, Numbered};
use super::event::RefusedCode;
use super::failure::{Failure, LeaderHint};
use super::fuzzing::Said;
use super::refusal::Refusal as Goodbye;
use super::{convert_answer, convert_ask, convert_events, convert_status, handshake, wire};

/// What is said, and how that travels. `id` and `other` are members.
pub fn samples(id: NodeId, other: NodeId) -> Vec<(Said, Vec<u8>)> {
    let mut all = Vec::new();
    let calls: Vec<_> = asked()
        .into_iter()
        .zip(1..)
        .map(|(asked, number)| {
            Numbered { number, timeout: (number % 2 == 0).then_some(Duration::from_secs(3)), asked }.encode()
        })
        .collect();
    all.extend(calls.iter().map(|call| (Said::Call, call.encode_to_vec())));
    all.push((Said::Calls, wire::CallBatch { calls }.encode_to_vec()));
    for change in changes(id, other) {
        all.push((Said::Change, convert_ask::encode_change(change, Some(Index(7))).encode_to_vec()));
    }
    let watch = Watch { topics: vec!["a".into()], since: Some(Cursor { index: Index(4), number: 2 }) };
    all.push((Said::Watch, convert_events::encode_watch(watch).encode_to_vec()));
    all.extend(of_members(id, other));
    all.extend(answers(id));
    all.push((Said::Status, convert_status::encode(view(id, other)).encode_to_vec()));
    all.extend(happenings(other).into_iter().map(|event| (Said::Event, convert_events::encode(event).encode_to_vec())));
    let emitted = Emitted { index: Index(3), number: 1, topic: "a".into(), value: Bytes::from_static(b"v") };
    for news in [News::Emitted(emitted), News::Behind { upto: Index(9) }, News::Upto(Index(8))] {
        all.push((Said::News, convert_events::encode_news(news).encode_to_vec()));
    }
    let outlook =
        WhatIf { refused: Some("no".into()), voters: vec![id], learners: vec![other], needed: 1, alive: vec![id] };
    all.push((Said::Outlook, convert_status::encode_what_if(outlook).encode_to_vec()));
    all
}

fn asked() -> Vec<Asked> {
    let (body, slot) = (Bytes::from_static(b"body"), Slot { session: 5, sequence: 3, unanswered: 2 });
    let reads =
        [Consistency::Linearizable, Consistency::Lease, Consistency::Stale { max_age: Some(Duration::from_secs(1)) }];
    let query =
        |consistency| Asked::Query { body: Bytes::from_static(b"q"), read: Read { consistency, at_least: Index(2) } };
    let mut all: Vec<Asked> = reads.into_iter().map(query).collect();
    all.push(Asked::Execute { body: body.clone(), slot: None });
    all.push(Asked::Execute { body, slot: Some(slot) });
    all.push(Asked::OpenSession { ttl: Some(Duration::from_mins(1)) });
    all
}

fn changes(id: NodeId, other: NodeId) -> Vec<Change> {
    let address = || "127.0.0.1:7001".to_owned();
    vec![
        Change::Add { id, address: address(), voter: true, incarnation: Incarnation(5) },
        Change::Remove { id },
        Change::Promote { id },
        Change::Replace { old: id, new: other, address: address() },
        Change::Apply { members: BTreeMap::from([(id, address()), (other, address())]) },
        Change::Cancel,
    ]
}

fn of_members(id: NodeId, other: NodeId) -> Vec<(Said, Vec<u8>)> {
    let hello = wire::Hello {
        version: handshake::VERSION,
        version_min: handshake::VERSION_MIN,
        cluster: handshake::encode_cluster(ClusterId(9)),
        id: convert_status::text(id),
        incarnation: 3,
        address: "127.0.0.1:7001".to_owned(),
        to: convert_status::text(other),
        founding: handshake::founded(8),
    };
    let members = convert_ask::encode_members([(id, "127.0.0.1:7001".to_owned()), (other, "[::1]:7002".to_owned())]);
    let reply = wire::JoinReply { members, ..wire::JoinReply::default() };
    vec![
        (Said::Hello, hello.encode_to_vec()),
        (Said::Goodbye, Goodbye::new(RefusedCode::NotMe, "why").to_wire().encode_to_vec()),
        (Said::Members, reply.encode_to_vec()),
    ]
}

fn answers(id: NodeId) -> Vec<(Said, Vec<u8>)> {
    let done = |reply| Outcome::Done { index: Index(4), term: Term(2), reply };
    let raised = Raised { type_name: "Error".into(), message: "no".into(), traceback: "at".into() };
    let value = done(Reply::Value(Bytes::from_static(b"v")));
    let hint = LeaderHint { id, address: "127.0.0.1:7001".into() };
    let answer = |kind, outcome| (Said::Answer, convert_answer::encode(6, kind, outcome, Some(&hint)).encode_to_vec());
    let mut all = vec![
        answer(Kind::Execute, value.clone()),
        answer(Kind::Query, done(Reply::Raised(Box::new(raised)))),
        answer(Kind::OpenSession, value),
        answer(Kind::Execute, Outcome::Refused(Refusal::NotLeader { leader: Some(id) })),
    ];
    let slot = Some(Slot { session: 5, sequence: 3, unanswered: 2 });
    let failures = [
        Failure::Refused(Refusal::NoQuorum { reachable: 1, needed: 2 }),
        Failure::Refused(Refusal::Busy("full".into())),
        Failure::Unknown { why: "gone".into(), slot },
    ];
    all.extend(failures.iter().map(|failure| (Said::Failure, failure.to_wire(Some(&hint)).encode_to_vec())));
    let digests = BTreeMap::from([(id, Ok(Bytes::from_static(b"digest")))]);
    let compared = convert_answer::compared(Outcome::Compared { index: Index(5), digests });
    all.extend(compared.ok().map(|said| (Said::Comparison, said.encode_to_vec())));
    all
}

fn happenings(other: NodeId) -> Vec<Happening> {
    let notices = [
        Notice::Leader { term: Term(2), leader: Some(other) },
        Notice::Membership { index: Index(3), step: "added", member: Some(other), committed: true },
        Notice::Link { member: other, connected: false, why: Some("gone".into()) },
    ];
    let happening = |(notice, sequence)| Happening { sequence, at: 5, notice: Some(notice) };
    notices.into_iter().zip(1..).map(happening).collect()
}

fn view(id: NodeId, other: NodeId) -> View {
    let member = MemberStatus {
        id: other,
        address: "127.0.0.1:7002".into(),
        voter: true,
        target: Target::Voter,
        incarnation: Incarnation(4),
        installing: false,
        sent: Some((1, 2)),
        matched: Some(Index(3)),
        last_contact: Some(Duration::from_millis(5)),
        reachable: Some(true),
        trouble: None,
        difference: Some("its state differs".into()),
    };
    let status = Status {
        id,
        role: "leader",
        term: Term(2),
        leader: Some(id),
        last: Index(9),
        commit: Index(8),
        applied: Index(8),
        snapshot: Index(4),
        cluster: ClusterId(9),
        members: vec![member],
        has_quorum: true,
        error: None,
        error_code: None,
        membership_index: Index(1),
        former: vec![other],
        change: None,
        log_bytes: 100,
        snapshot_bytes: Some(10),
        snapshot_phase: Some(("sending", Some(0.5))),
        snapshot_error: None,
        trouble: Some("its disk is full".into()),
        certificate: None,
    };
    View { status, why: vec!["because".into()] }
}

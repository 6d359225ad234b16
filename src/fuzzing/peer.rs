//! What a peer sends: protobuf that becomes messages or is refused. What became messages travels and becomes the same again,
//! in no more bytes than were reckoned, and those of the core are stepped into three of them.

use std::time::Duration;

use bytes::Bytes;
use graft::infrastructure::grpc::fuzzing::{is_sendable, peer_batch, peer_messages};
use graft_domain::{
    Append, AppendOutcome, AppendReply, Entry, EntryId, Envelope, Incarnation, Index, Message, Payload, ReadId,
    SnapshotOffer, Term, VoteReply, VoteRequest,
};
use graft_services::change::{Ask, Change};
use graft_services::commands::{Act, Slot};
use graft_services::error::Refusal;
use graft_services::ports::{PeerMessage, Ticket};
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::input::{Input, put_block};
use crate::samples::{Sample, id, membership};

/// Batches of one input.
const BATCHES_MAX: usize = 32;

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut cluster = Cluster::new(u64::from(input.u8()));
    cluster.rest(input.u8() % 32);
    for _ in 0..BATCHES_MAX {
        if input.is_empty() {
            break;
        }
        let (way, rounds) = (input.u8(), input.u8() % 8);
        let (from, to) = (id(u64::from(way)), id(u64::from(way >> 2) % 3 + 1));
        let Some(messages) = peer_messages(input.block(), from, to) else { continue };
        let (again, most) = peer_batch(&messages);
        assert!(again.len() <= most, "{} bytes, reckoned were {most}", again.len());
        assert_eq!(peer_messages(&again, from, to).as_ref(), Some(&messages));
        assert!(messages.iter().all(is_sendable), "taken, and not to be sent: {messages:?}");
        for message in messages {
            if let PeerMessage::Raft(envelope) = message {
                cluster.receive(envelope);
            }
        }
        cluster.rest(rounds);
    }
}

fn raft() -> Vec<Message> {
    let (last, request) = (EntryId::new(2, 3), |transfer| VoteRequest {
        term: Term(3),
        last: EntryId::new(2, 3),
        commit: Index(2),
        transfer,
    });
    let entries = vec![
        Entry { index: Index(4), term: Term(2), payload: Payload::Noop },
        Entry { index: Index(5), term: Term(2), payload: Payload::Command(Bytes::from_static(b"command")) },
        Entry { index: Index(6), term: Term(2), payload: Payload::Membership(Arc::new(membership(2))) },
    ];
    let promise = Duration::from_millis(300);
    let reply = |outcome| Message::AppendReply(AppendReply { session: 1, round: 4, promise, outcome });
    vec![
        Message::PreVote(request(false)),
        Message::PreVoteReply(VoteReply { term: Term(3), granted: true }),
        Message::Vote(request(true)),
        Message::VoteReply(VoteReply { term: Term(2), granted: true }),
        Message::Append(Append { session: 1, round: 4, prev: last, entries, commit: Index(3) }),
        reply(AppendOutcome::Matched(Index(3))),
        reply(AppendOutcome::Missing { prev: Index(3), hint: EntryId::new(1, 2) }),
        Message::Snapshot(SnapshotOffer { session: 1, round: 4, last }),
        Message::TimeoutNow,
        Message::Read { read: ReadId(5), lease: true },
        Message::ReadReply { read: ReadId(5), index: Some(Index(3)) },
    ]
}

fn others() -> Vec<PeerMessage> {
    let (from, to, ticket) = (id(1), id(2), Ticket { session: 5, sequence: 6 });
    let forward = |act| PeerMessage::Forward { from, term: Term(2), ticket, act };
    let slot = Some(Slot { session: 7, sequence: 2, unanswered: 1 });
    let add = Change::Add { id: id(4), address: "127.0.0.1:7004".into(), voter: true, incarnation: Incarnation(3) };
    vec![
        forward(Act::Command { slot, body: Bytes::from_static(b"command") }),
        forward(Act::OpenSession { ttl: Duration::from_secs(9), key: 3 }),
        forward(Act::Verify { origin: from }),
        PeerMessage::Refused { to, ticket, refusal: Refusal::NotLeader { leader: Some(to) } },
        PeerMessage::Ask { from, ticket, ask: Ask::Change { change: add, guard: Some(Index(3)) } },
        PeerMessage::Ask { from, ticket, ask: Ask::Transfer { to: Some(to) } },
        PeerMessage::Answered { to, ticket, answer: Err(Refusal::Membership("no".into())) },
        PeerMessage::Links { from, connected: vec![from, to], failure: Some("why".into()) },
        PeerMessage::Digest { from, to, index: Index(4), digest: Ok(Bytes::from_static(b"digest")) },
    ]
}

pub(crate) fn samples() -> Vec<Sample> {
    let of = |batches: &[Vec<PeerMessage>]| {
        let mut out = vec![1, 31];
        for batch in batches {
            // From n1 to n2.
            out.extend_from_slice(&[1 | 1 << 2, 1]);
            put_block(&mut out, &peer_batch(batch).0);
        }
        out
    };
    let envelope = |message| PeerMessage::Raft(Envelope { from: id(1), to: id(2), term: Term(2), message });
    let named = |(number, message): (usize, Message)| (format!("{number:02}-{}", message.name()), envelope(message));
    let single = raft().into_iter().enumerate().map(named);
    let mut all: Vec<Sample> = single.map(|(name, message)| Sample::new(&name, of(&[vec![message]]))).collect();
    all.push(Sample::new("story", of(&raft().into_iter().map(|message| vec![envelope(message)]).collect::<Vec<_>>())));
    all.push(Sample::new("batch", of(&[others()])));
    all.extend(
        others().into_iter().enumerate().map(|(n, other)| Sample::new(&format!("other-{n}"), of(&[vec![other]]))),
    );
    all
}

//! Between the messages of the core and their form on the wire. Total: whatever a peer sends becomes a message or an
//! error.

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use graft_domain::{
    Append, AppendOutcome, AppendReply, BadNodeId, BadPayload, Entry, EntryId, Envelope, Index, Message, NodeId,
    Payload, ReadId, SnapshotOffer, Term, VoteReply, VoteRequest,
};
use graft_services::commands::{Act, Slot};
use graft_services::error::Refusal;
use graft_services::ports::{PeerMessage, Ticket};

use super::wire::answered::Answer;
use super::wire::append_reply::Outcome;
use super::wire::digest::Digest as Made;
use super::wire::forward::Act as WireAct;
use super::wire::frame::Message as Wire;
use super::wire::refusal::{self, Why};
use super::{convert_ask, wire};

/// Why a frame is not a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum BadFrame {
    /// The field that says which kind it is, or which answer, is missing or of a kind that is not known.
    Empty(&'static str),
    /// An entry's kind is not one.
    Kind(u32),
    Payload(BadPayload),
    NodeId(BadNodeId),
    /// More members, say, than any cluster may have.
    TooMany {
        what: &'static str,
        count: usize,
        max: usize,
    },
    /// A text of more bytes than any may have.
    TooLong {
        what: &'static str,
        bytes: usize,
        max: usize,
    },
    /// A member is listed twice.
    Twice(String),
}

/// Bytes of a text for people. A longer one is cut when it is sent.
pub(super) const TEXT_BYTES_MAX: usize = 16 << 10;
/// Members that one message may name.
pub(super) const MEMBERS_MAX: usize = 1000;

/// More than any frame takes on the wire beside its entries, its body or its text.
const FRAME_OVERHEAD: usize = 96;
/// More than any entry takes on the wire beside its data.
const ENTRY_OVERHEAD: usize = 48;

/// Never less than the bytes that the message takes on the wire, lengths and tags included.
pub(super) fn wire_bytes_max(message: &PeerMessage) -> usize {
    FRAME_OVERHEAD
        + match message {
            PeerMessage::Raft(envelope) => match &envelope.message {
                Message::Append(append) => append.entries.iter().map(entry_bytes_max).sum(),
                _ => 0,
            },
            PeerMessage::Forward { act, .. } => act.size() + NodeId::BYTES_MAX,
            PeerMessage::Digest { digest, .. } => digest.as_ref().map_or_else(String::len, Bytes::len),
            PeerMessage::Refused { refusal, .. } | PeerMessage::Answered { answer: Err(refusal), .. } => {
                refusal_bytes_max(refusal)
            }
            PeerMessage::Answered { answer: Ok(_), .. } => 0,
            PeerMessage::Ask { ask, .. } => convert_ask::wire_bytes_max(ask),
            PeerMessage::Links { connected, failure, .. } => {
                connected.len() * convert_ask::ID_BYTES_MAX + failure.as_ref().map_or(0, String::len)
            }
        }
}

fn refusal_bytes_max(refusal: &Refusal) -> usize {
    match refusal {
        Refusal::Busy(text)
        | Refusal::Halted(text)
        | Refusal::Invalid(text)
        | Refusal::Denied(text)
        | Refusal::Membership(text)
        | Refusal::Snapshot(text) => text.len(),
        _ => NodeId::BYTES_MAX,
    }
}

/// Whether the other side would take it for a message: it names no more than it may.
pub(super) fn is_sendable(message: &PeerMessage) -> bool {
    match message {
        PeerMessage::Ask { ask, .. } => convert_ask::is_sendable(ask),
        PeerMessage::Links { connected, .. } => connected.len() <= MEMBERS_MAX,
        _ => true,
    }
}

fn entry_bytes_max(entry: &Entry) -> usize {
    // `Entry::size` counts the payload and an overhead of its own, which the wire's replaces.
    ENTRY_OVERHEAD + entry.size().saturating_sub(Entry::OVERHEAD)
}

/// The message as a frame. Sender and recipient are the link's and are not written.
pub(super) fn encode(message: PeerMessage) -> wire::Frame {
    let (term, message) = match message {
        PeerMessage::Raft(envelope) => (envelope.term.0, encode_raft(envelope.message)),
        PeerMessage::Forward { from: _, term, ticket, act } => (term.0, Wire::Forward(encode_forward(ticket, act))),
        PeerMessage::Digest { from: _, to: _, index, digest } => {
            let digest = Some(match digest {
                Ok(bytes) => Made::Bytes(bytes),
                Err(why) => Made::Why(clipped(why)),
            });
            (0, Wire::Digest(wire::Digest { index: index.0, digest }))
        }
        PeerMessage::Refused { to: _, ticket, refusal } => {
            let refusal = Some(encode_refusal(refusal));
            (0, Wire::Refused(wire::Refused { session: ticket.session, sequence: ticket.sequence, refusal }))
        }
        PeerMessage::Ask { from: _, ticket, ask } => (0, Wire::Ask(convert_ask::encode(ticket, ask))),
        PeerMessage::Answered { to: _, ticket, answer } => {
            let answer = Some(match answer {
                Ok(index) => Answer::Index(index.0),
                Err(refusal) => Answer::Refusal(encode_refusal(refusal)),
            });
            (0, Wire::Answered(wire::Answered { session: ticket.session, sequence: ticket.sequence, answer }))
        }
        PeerMessage::Links { from: _, connected, failure } => {
            let connected = connected.iter().map(|id| id.as_str().to_owned()).collect();
            (0, Wire::Links(wire::Links { connected, failure: failure.map(clipped) }))
        }
    };
    wire::Frame { term, message: Some(message) }
}

fn encode_forward(ticket: Ticket, act: Act) -> wire::Forward {
    let act = match act {
        Act::Command { slot, body } => {
            let slot = slot.map(|Slot { session, sequence, unanswered }| wire::Slot { session, sequence, unanswered });
            WireAct::Command(wire::Command { slot, body })
        }
        Act::OpenSession { ttl, key } => {
            WireAct::OpenSession(wire::OpenSession { ttl: u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX), key })
        }
        Act::Verify { origin } => WireAct::Verify(wire::Verify { origin: origin.as_str().to_owned() }),
    };
    wire::Forward { session: ticket.session, sequence: ticket.sequence, act: Some(act) }
}

fn decode_act(act: Option<WireAct>) -> Result<Act, BadFrame> {
    Ok(match act.ok_or(BadFrame::Empty("act"))? {
        WireAct::Command(wire::Command { slot, body }) => {
            let slot = slot.map(|wire::Slot { session, sequence, unanswered }| Slot { session, sequence, unanswered });
            Act::Command { slot, body }
        }
        WireAct::OpenSession(wire::OpenSession { ttl, key }) => {
            Act::OpenSession { ttl: Duration::from_nanos(ttl), key }
        }
        WireAct::Verify(wire::Verify { origin }) => Act::Verify { origin: node_id(&origin)? },
    })
}

fn encode_raft(message: Message) -> Wire {
    match message {
        Message::PreVote(request) => Wire::PreVote(encode_vote(request)),
        Message::PreVoteReply(reply) => Wire::PreVoteReply(encode_vote_reply(reply)),
        Message::Vote(request) => Wire::Vote(encode_vote(request)),
        Message::VoteReply(reply) => Wire::VoteReply(encode_vote_reply(reply)),
        Message::Append(append) => Wire::Append(wire::Append {
            session: append.session,
            round: append.round,
            prev_term: append.prev.term.0,
            prev_index: append.prev.index.0,
            commit: append.commit.0,
            entries: append.entries.into_iter().map(encode_entry).collect(),
        }),
        Message::AppendReply(reply) => Wire::AppendReply(wire::AppendReply {
            session: reply.session,
            round: reply.round,
            promise: u64::try_from(reply.promise.as_nanos()).unwrap_or(u64::MAX),
            outcome: Some(match reply.outcome {
                AppendOutcome::Matched(index) => Outcome::Matched(index.0),
                AppendOutcome::Missing { prev, hint } => Outcome::Missing(wire::append_reply::Missing {
                    prev: prev.0,
                    hint_term: hint.term.0,
                    hint_index: hint.index.0,
                }),
            }),
        }),
        Message::Snapshot(offer) => Wire::Snapshot(wire::SnapshotOffer {
            session: offer.session,
            round: offer.round,
            last_term: offer.last.term.0,
            last_index: offer.last.index.0,
        }),
        Message::TimeoutNow => Wire::TimeoutNow(wire::TimeoutNow {}),
        Message::Read { read, lease } => Wire::Read(wire::Read { read: read.0, lease }),
        Message::ReadReply { read, index } => {
            Wire::ReadReply(wire::ReadReply { read: read.0, index: index.map(|index| index.0) })
        }
    }
}

fn encode_vote(request: VoteRequest) -> wire::VoteRequest {
    wire::VoteRequest {
        term: request.term.0,
        last_term: request.last.term.0,
        last_index: request.last.index.0,
        commit: request.commit.0,
        transfer: request.transfer,
    }
}

fn encode_vote_reply(reply: VoteReply) -> wire::VoteReply {
    wire::VoteReply { term: reply.term.0, granted: reply.granted }
}

fn encode_entry(entry: Entry) -> wire::Entry {
    let kind = u32::from(entry.payload.kind());
    let data = match entry.payload {
        Payload::Command(bytes) => bytes,
        other => other.data(),
    };
    wire::Entry { term: entry.term.0, index: entry.index.0, kind, data }
}

fn encode_refusal(refusal: Refusal) -> wire::Refusal {
    let why = match refusal {
        Refusal::NotLeader { leader } => Why::NotLeader(refusal::NotLeader {
            leader: leader.map(|leader| leader.as_str().to_owned()).unwrap_or_default(),
        }),
        // Only clients say this, and never to members.
        Refusal::NoLeader | Refusal::Unreachable(_) | Refusal::Strange(_) => Why::NoLeader(refusal::NoLeader {}),
        Refusal::NoQuorum { reachable, needed } => {
            Why::NoQuorum(refusal::NoQuorum { reachable: reachable as u64, needed: needed as u64 })
        }
        Refusal::Busy(what) => Why::Busy(clipped(what)),
        Refusal::TooLarge { bytes, limit } => Why::TooLarge(refusal::TooLarge { bytes, limit }),
        Refusal::Timeout => Why::TimedOut(refusal::TimedOut {}),
        Refusal::Membership(why) => Why::Membership(clipped(why)),
        // Of a node's own snapshots nobody is told; should it ever be, the words say enough.
        Refusal::Snapshot(why) => Why::Busy(clipped(why)),
        Refusal::Removed => Why::Removed(refusal::Removed {}),
        Refusal::Stopped => Why::Stopped(refusal::Stopped {}),
        Refusal::Halted(why) => Why::Halted(clipped(why)),
        Refusal::SessionExpired => Why::SessionExpired(refusal::SessionExpired {}),
        // Between members nobody is denied: the one that was asked has judged.
        Refusal::Invalid(what) | Refusal::Denied(what) => Why::Invalid(clipped(what)),
    };
    wire::Refusal { why: Some(why) }
}

fn clipped(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}

/// The messages of one batch that `from` sent to `to`, in order. One bad frame spoils the batch.
pub(super) fn decode_batch(
    mut frames: Vec<wire::Frame>,
    from: NodeId,
    to: NodeId,
) -> Result<Vec<PeerMessage>, BadFrame> {
    unshare(&mut frames);
    frames.into_iter().map(|frame| decode(frame, from, to)).collect()
}

fn decode(frame: wire::Frame, from: NodeId, to: NodeId) -> Result<PeerMessage, BadFrame> {
    let raft = |message| PeerMessage::Raft(Envelope { from, to, term: Term(frame.term), message });
    Ok(match frame.message.ok_or(BadFrame::Empty("message"))? {
        Wire::PreVote(request) => raft(Message::PreVote(decode_vote(request))),
        Wire::PreVoteReply(reply) => raft(Message::PreVoteReply(decode_vote_reply(reply))),
        Wire::Vote(request) => raft(Message::Vote(decode_vote(request))),
        Wire::VoteReply(reply) => raft(Message::VoteReply(decode_vote_reply(reply))),
        Wire::Append(append) => raft(Message::Append(decode_append(append)?)),
        Wire::AppendReply(reply) => raft(Message::AppendReply(decode_append_reply(reply)?)),
        Wire::Snapshot(offer) => raft(Message::Snapshot(SnapshotOffer {
            session: offer.session,
            round: offer.round,
            last: EntryId::new(offer.last_term, offer.last_index),
        })),
        Wire::TimeoutNow(wire::TimeoutNow {}) => raft(Message::TimeoutNow),
        Wire::Read(read) => raft(Message::Read { read: ReadId(read.read), lease: read.lease }),
        Wire::ReadReply(reply) => raft(Message::ReadReply { read: ReadId(reply.read), index: reply.index.map(Index) }),
        Wire::Forward(forward) => {
            let ticket = Ticket { session: forward.session, sequence: forward.sequence };
            PeerMessage::Forward { from, term: Term(frame.term), ticket, act: decode_act(forward.act)? }
        }
        Wire::Digest(digest) => PeerMessage::Digest {
            from,
            to,
            index: Index(digest.index),
            digest: match digest.digest.ok_or(BadFrame::Empty("digest"))? {
                Made::Bytes(bytes) => Ok(bytes),
                Made::Why(why) => Err(within("a reason", why, TEXT_BYTES_MAX)?),
            },
        },
        Wire::Refused(refused) => PeerMessage::Refused {
            to,
            ticket: Ticket { session: refused.session, sequence: refused.sequence },
            refusal: decode_refusal(refused.refusal)?,
        },
        Wire::Ask(ask) => {
            let (ticket, ask) = convert_ask::decode(ask)?;
            PeerMessage::Ask { from, ticket, ask }
        }
        Wire::Answered(answered) => PeerMessage::Answered {
            to,
            ticket: Ticket { session: answered.session, sequence: answered.sequence },
            answer: match answered.answer.ok_or(BadFrame::Empty("answer"))? {
                Answer::Index(index) => Ok(Index(index)),
                Answer::Refusal(refusal) => Err(decode_refusal(Some(refusal))?),
            },
        },
        Wire::Links(links) => {
            let failure = links.failure.map(|why| within("a reason", why, TEXT_BYTES_MAX)).transpose()?;
            PeerMessage::Links { from, connected: decode_links(&links.connected)?, failure }
        }
    })
}

fn decode_vote(request: wire::VoteRequest) -> VoteRequest {
    VoteRequest {
        term: Term(request.term),
        last: EntryId::new(request.last_term, request.last_index),
        commit: Index(request.commit),
        transfer: request.transfer,
    }
}

fn decode_vote_reply(reply: wire::VoteReply) -> VoteReply {
    VoteReply { term: Term(reply.term), granted: reply.granted }
}

fn decode_append(append: wire::Append) -> Result<Append, BadFrame> {
    Ok(Append {
        session: append.session,
        round: append.round,
        prev: EntryId::new(append.prev_term, append.prev_index),
        entries: append.entries.into_iter().map(decode_entry).collect::<Result<_, _>>()?,
        commit: Index(append.commit),
    })
}

fn decode_entry(entry: wire::Entry) -> Result<Entry, BadFrame> {
    let kind = u8::try_from(entry.kind).map_err(|_| BadFrame::Kind(entry.kind))?;
    let payload = Payload::decode(kind, entry.data).map_err(BadFrame::Payload)?;
    Ok(Entry { index: Index(entry.index), term: Term(entry.term), payload })
}

fn decode_append_reply(reply: wire::AppendReply) -> Result<AppendReply, BadFrame> {
    let outcome = match reply.outcome.ok_or(BadFrame::Empty("outcome"))? {
        Outcome::Matched(index) => AppendOutcome::Matched(Index(index)),
        Outcome::Missing(missing) => AppendOutcome::Missing {
            prev: Index(missing.prev),
            hint: EntryId::new(missing.hint_term, missing.hint_index),
        },
    };
    let promise = Duration::from_nanos(reply.promise);
    Ok(AppendReply { session: reply.session, round: reply.round, promise, outcome })
}

fn decode_refusal(refusal: Option<wire::Refusal>) -> Result<Refusal, BadFrame> {
    Ok(match refusal.and_then(|refusal| refusal.why).ok_or(BadFrame::Empty("refusal"))? {
        Why::NotLeader(refusal::NotLeader { leader }) if leader.is_empty() => Refusal::NotLeader { leader: None },
        Why::NotLeader(refusal::NotLeader { leader }) => Refusal::NotLeader { leader: Some(node_id(&leader)?) },
        Why::NoLeader(refusal::NoLeader {}) => Refusal::NoLeader,
        // Counts of members, for people to read: what does not fit here is no such count.
        Why::NoQuorum(refusal::NoQuorum { reachable, needed }) => Refusal::NoQuorum {
            reachable: usize::try_from(reachable).unwrap_or(usize::MAX),
            needed: usize::try_from(needed).unwrap_or(usize::MAX),
        },
        Why::Busy(what) => Refusal::Busy(within("a reason", what, TEXT_BYTES_MAX)?),
        Why::TooLarge(refusal::TooLarge { bytes, limit }) => Refusal::TooLarge { bytes, limit },
        Why::TimedOut(refusal::TimedOut {}) => Refusal::Timeout,
        Why::Membership(why) => Refusal::Membership(within("a reason", why, TEXT_BYTES_MAX)?),
        Why::Removed(refusal::Removed {}) => Refusal::Removed,
        Why::Stopped(refusal::Stopped {}) => Refusal::Stopped,
        Why::Halted(why) => Refusal::Halted(within("a reason", why, TEXT_BYTES_MAX)?),
        Why::SessionExpired(refusal::SessionExpired {}) => Refusal::SessionExpired,
        Why::Invalid(what) => Refusal::Invalid(within("a reason", what, TEXT_BYTES_MAX)?),
    })
}

fn decode_links(connected: &[String]) -> Result<Vec<NodeId>, BadFrame> {
    few("links", connected.len())?;
    connected.iter().map(|id| node_id(id)).collect()
}

pub(super) fn node_id(text: &str) -> Result<NodeId, BadFrame> {
    NodeId::new(text).map_err(BadFrame::NodeId)
}

/// The text, unless it has more bytes than it may.
pub(super) fn within(what: &'static str, text: String, max: usize) -> Result<String, BadFrame> {
    if text.len() > max { Err(BadFrame::TooLong { what, bytes: text.len(), max }) } else { Ok(text) }
}

/// Whether so many may be named in one message.
pub(super) fn few(what: &'static str, count: usize) -> Result<(), BadFrame> {
    if count > MEMBERS_MAX { Err(BadFrame::TooMany { what, count, max: MEMBERS_MAX }) } else { Ok(()) }
}

/// Payloads of fewer bytes in sum are not worth keeping a receive buffer for.
const SHARED_BYTES_MIN: usize = 4096;

/// Moves the payloads of a small batch out of the receive buffer, into one of just their size.
///
/// A payload lives as long as the log keeps its entry, and as a slice it keeps the whole buffer it came in. For bulk
/// that buffer is mostly payloads; for a lone command between heartbeats it would be a hundred times the command.
fn unshare(frames: &mut [wire::Frame]) {
    let total: usize = payloads(frames).map(|payload| payload.len()).sum();
    if total == 0 || total >= SHARED_BYTES_MIN.max(frames.len().saturating_mul(FRAME_OVERHEAD)) {
        return;
    }
    let mut buffer = BytesMut::with_capacity(total);
    for payload in payloads(frames) {
        buffer.extend_from_slice(payload);
        *payload = buffer.split().freeze();
    }
}

/// What outlives its batch: the data of entries and the bodies of forwarded commands.
fn payloads(frames: &mut [wire::Frame]) -> impl Iterator<Item = &mut Bytes> {
    frames.iter_mut().flat_map(|frame| {
        let (entries, body): (&mut [wire::Entry], _) = match &mut frame.message {
            Some(Wire::Append(append)) => (&mut append.entries, None),
            Some(Wire::Forward(wire::Forward { act: Some(WireAct::Command(command)), .. })) => {
                (&mut [], Some(&mut command.body))
            }
            _ => (&mut [], None),
        };
        entries.iter_mut().map(|entry| &mut entry.data).chain(body)
    })
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty(what) => write!(f, "a {what} of no known kind: was it sent by a newer version?"),
            Self::Kind(kind) => write!(f, "an entry of unknown kind {kind}: was it sent by a newer version?"),
            Self::Payload(bad) => bad.fmt(f),
            Self::NodeId(bad) => write!(f, "a bad node id: {bad}"),
            Self::Twice(id) => write!(f, "{id} is listed twice"),
            Self::TooMany { what, count, max } => write!(f, "{count} {what}, and {max} is the most"),
            Self::TooLong { what, bytes, max } => write!(f, "a text of {bytes} bytes as {what}, and {max} is the most"),
        }
    }
}

impl std::error::Error for BadFrame {}

#[cfg(test)]
#[path = "tests/convert.rs"]
mod tests;

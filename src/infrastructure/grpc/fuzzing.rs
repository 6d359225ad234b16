//! What the fuzz targets try: bytes as they come from the other side of a connection, taken for what a service takes them for,
//! and said again.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use graft_domain::NodeId;
use graft_services::error::Outcome;
use graft_services::ports::PeerMessage;
use hyper::body::{Body, Frame};
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic_types::pb;

use super::bodies::Metered;
use super::convert_call::{Asked, Kind, Numbered};
use super::failure::{Failure, LeaderHint, Told};
use super::handshake::{self, Introduction};
use super::intake::Intake;
use super::refusal::Refusal;
use super::{convert, convert_answer, convert_ask, convert_events, convert_status, wire};

/// The messages of a batch from `from` to `to`; none if it is refused.
pub fn peer_messages(bytes: &[u8], from: NodeId, to: NodeId) -> Option<Vec<PeerMessage>> {
    let batch = wire::Frames::decode(Bytes::copy_from_slice(bytes)).ok()?;
    convert::decode_batch(batch.frames, from, to).ok()
}

/// A batch of these messages, and the most bytes that it is reckoned to take.
pub fn peer_batch(messages: &[PeerMessage]) -> (Vec<u8>, usize) {
    let most = messages.iter().map(|message| convert::wire_bytes_max(message) + BATCH_OVERHEAD).sum();
    let frames = messages.iter().cloned().map(convert::encode).collect();
    (wire::Frames { frames, ..wire::Frames::default() }.encode_to_vec(), most)
}

/// Tag and length of a frame in its batch.
const BATCH_OVERHEAD: usize = 8;

/// Whether the outbox would send it.
pub fn is_sendable(message: &PeerMessage) -> bool {
    convert::is_sendable(message)
}

/// What is said over a connection, but for messages of members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Said {
    // By clients and administrators.
    Call,
    Calls,
    Change,
    Watch,
    // By members.
    Hello,
    Goodbye,
    Members,
    // To clients.
    Answer,
    Status,
    Failure,
    Event,
    News,
    Comparison,
    Outlook,
}

impl Said {
    pub const ALL: [Self; 14] = [
        Self::Call,
        Self::Calls,
        Self::Change,
        Self::Watch,
        Self::Hello,
        Self::Goodbye,
        Self::Members,
        Self::Answer,
        Self::Status,
        Self::Failure,
        Self::Event,
        Self::News,
        Self::Comparison,
        Self::Outlook,
    ];

    /// What is understood, and how that is said again; none if it is refused.
    pub fn understood(self, bytes: &[u8]) -> Option<(String, Vec<u8>)> {
        match self {
            Self::Call => both(bytes, |call| Numbered::decode(call).ok(), Numbered::encode),
            Self::Calls => {
                both(bytes, calls, |calls| wire::CallBatch { calls: calls.into_iter().map(Numbered::encode).collect() })
            }
            Self::Change => both(
                bytes,
                |said| convert_ask::decode_change(said).ok(),
                |(change, guard)| convert_ask::encode_change(change, guard),
            ),
            Self::Watch => both(bytes, |said| convert_events::decode_watch(said).ok(), convert_events::encode_watch),
            Self::Hello => both(bytes, |said| introduced(&said), hello_of),
            Self::Goodbye => both(bytes, |said| Some(Refusal::from_wire(&said)), |refusal| refusal.to_wire()),
            Self::Members => both(
                bytes,
                |said: wire::JoinReply| convert_ask::decode_members(said.members).ok(),
                |members| wire::JoinReply { members: convert_ask::encode_members(members), ..Default::default() },
            ),
            Self::Answer => {
                both(bytes, answered, |(number, outcome)| convert_answer::encode(number, Kind::Execute, outcome, None))
            }
            Self::Status => both(bytes, |said| convert_status::decode(said).ok(), convert_status::encode),
            Self::Failure => both(bytes, |said| told(&said), |(failure, leader)| failure.to_wire(leader.as_ref())),
            Self::Event => both(bytes, |said| convert_events::decode(said).ok()?, convert_events::encode),
            Self::News => both(bytes, |said| convert_events::decode_news(said).ok(), convert_events::encode_news),
            Self::Comparison => both(
                bytes,
                |said| convert_answer::decode_compared(said).ok(),
                |outcome| convert_answer::compared(outcome).unwrap_or_default(),
            ),
            Self::Outlook => {
                both(bytes, |said| convert_status::decode_what_if(said).ok(), convert_status::encode_what_if)
            }
        }
    }
}

fn both<M: Message + Default, T: fmt::Debug>(
    bytes: &[u8],
    understand: impl FnOnce(M) -> Option<T>,
    say: impl FnOnce(T) -> M,
) -> Option<(String, Vec<u8>)> {
    let understood = understand(M::decode(Bytes::copy_from_slice(bytes)).ok()?)?;
    Some((format!("{understood:?}"), say(understood).encode_to_vec()))
}

/// As many as a stream may have at once; each by itself, as each is answered by itself.
fn calls(batch: wire::CallBatch) -> Option<Vec<Numbered>> {
    if batch.is_too_long() {
        return None;
    }
    Some(batch.calls.into_iter().filter_map(|call| Numbered::decode(call).ok()).collect())
}

/// Through the metadata of a call, as it travels.
fn introduced(hello: &wire::Hello) -> Option<Introduction> {
    let mut metadata = MetadataMap::new();
    handshake::into_metadata(hello, &mut metadata);
    Introduction::parse(handshake::from_metadata(&metadata).ok()?).ok()
}

fn hello_of(introduction: Introduction) -> wire::Hello {
    let Introduction { id, to, incarnation, cluster, address, founding } = introduction;
    wire::Hello {
        version: handshake::VERSION,
        version_min: handshake::VERSION_MIN,
        cluster: handshake::encode_cluster(cluster),
        id: id.as_str().to_owned(),
        incarnation: incarnation.0,
        address,
        to: to.as_str().to_owned(),
        founding,
    }
}

/// What an error says beside, is a failure's.
fn answered(answer: wire::NumberedAnswer) -> Option<(u64, Outcome)> {
    convert_answer::decode(answer).ok().map(|(number, outcome, _)| (number, outcome))
}

/// How long to wait its kind says; what was said of that is not said again.
fn told(status: &pb::Status) -> Option<(Failure, Option<LeaderHint>)> {
    let told = Told::from_wire(status)?;
    Some((told.failure, told.leader))
}

/// Reads single calls of all kinds; whether each is taken.
pub fn single_calls(bytes: &[u8]) -> [bool; 3] {
    let bytes = Bytes::copy_from_slice(bytes);
    let execute = wire::ExecuteRequest::decode(bytes.clone()).map(Asked::execute);
    let query = wire::QueryRequest::decode(bytes.clone()).map(Asked::query);
    let open = wire::OpenSessionRequest::decode(bytes).map(Asked::open_session);
    [execute.is_ok_and(|asked| asked.is_ok()), query.is_ok_and(|asked| asked.is_ok()), open.is_ok()]
}

/// A body that comes in these pieces.
struct Pieces(VecDeque<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

/// Lets a request in, in pieces, of which a message may have `message_bytes_max` and all that is half here `intake_max`. How many
/// pieces came through, and the bytes that are still counted when it is dropped.
pub fn metered(pieces: &[&[u8]], message_bytes_max: usize, intake_max: usize) -> (usize, usize) {
    let intake = Intake::new(intake_max, message_bytes_max);
    let body = Pieces(pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect());
    let mut metered = Metered::new(body, Some(&intake.open()), message_bytes_max);
    let mut through = 0;
    while let Poll::Ready(Some(Ok(_))) = Pin::new(&mut metered).poll_frame(&mut Context::from_waker(Waker::noop())) {
        through += 1;
    }
    drop(metered);
    (through, intake.bytes())
}

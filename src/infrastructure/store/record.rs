//! A record: what a batch is made of. All kinds share one head of 24 bytes, then come the bytes it announces:
//! kind u8, detail u8, reserved u16 = 0, data length u32, term u64, index u64; little-endian.

use std::fmt;

use bytes::{Buf, Bytes};
use graft_domain::{BadPayload, Entry, EntryId, Index, NodeId, Payload, Term};

use super::state::HardState;

pub(super) const HEAD_BYTES: usize = 24;

const HARD_STATE: u8 = 1;
const ENTRY: u8 = 2;
const BASE: u8 = 3;

/// One record, decoded. The data of an entry is shared with the buffer it was read into.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Record {
    HardState(HardState),
    Entry(Entry),
    Base(Base),
}

/// From here on the log begins after `id`, which a snapshot covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Base {
    pub(super) id: EntryId,
    /// The log had no such entry, so none of it is left; otherwise the entries after `id` stay.
    pub(super) reset: bool,
}

/// Why bytes under a good checksum are still not records: another program wrote them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum BadRecord {
    Truncated,
    UnknownKind(u8),
    UnknownDetail { kind: u8, detail: u8 },
    Vote,
    Payload(Index, BadPayload),
}

pub(super) fn put_hard_state(out: &mut Vec<u8>, hard: &HardState) {
    let (vote_bytes, vote) = hard.vote_text();
    put_head(out, HARD_STATE, 0, u32::from(vote_bytes), EntryId { term: hard.term, index: hard.commit });
    out.extend_from_slice(vote);
}

/// False, with nothing put, if the payload is too large for a length of four bytes.
#[must_use]
pub(super) fn put_entry(out: &mut Vec<u8>, entry: &Entry) -> bool {
    let encoded;
    let data = match &entry.payload {
        Payload::Command(bytes) => bytes,
        payload => {
            encoded = payload.data();
            &encoded
        }
    };
    let Ok(length) = u32::try_from(data.len()) else { return false };
    put_head(out, ENTRY, entry.payload.kind(), length, entry.id());
    out.extend_from_slice(data);
    true
}

pub(super) fn put_base(out: &mut Vec<u8>, base: &Base) {
    put_head(out, BASE, u8::from(base.reset), 0, base.id);
}

fn put_head(out: &mut Vec<u8>, kind: u8, detail: u8, length: u32, id: EntryId) {
    let mut head = [0; HEAD_BYTES];
    (head[0], head[1]) = (kind, detail);
    head[4..8].copy_from_slice(&length.to_le_bytes());
    head[8..16].copy_from_slice(&id.term.0.to_le_bytes());
    head[16..].copy_from_slice(&id.index.0.to_le_bytes());
    out.extend_from_slice(&head);
}

/// The record of `body` that begins at `at`, which moves on behind it; none at the end.
pub(super) fn take(body: &Bytes, at: &mut usize) -> Result<Option<Record>, BadRecord> {
    let rest = &body[*at..];
    if rest.is_empty() {
        return Ok(None);
    }
    let Some((mut head, data)) = rest.split_at_checked(HEAD_BYTES) else { return Err(BadRecord::Truncated) };
    let (kind, detail, reserved) = (head.get_u8(), head.get_u8(), head.get_u16_le());
    let length = head.get_u32_le() as usize;
    let id = EntryId::new(head.get_u64_le(), head.get_u64_le());
    let Some(data) = data.get(..length) else { return Err(BadRecord::Truncated) };
    let begin = *at + HEAD_BYTES;
    *at = begin + length;
    match (kind, detail, reserved) {
        (HARD_STATE, 0, 0) => hard_state(id.term, id.index, data).map(Some),
        (ENTRY, kind, 0) => {
            let data = body.slice(begin..*at);
            let payload = Payload::decode(kind, data).map_err(|bad| BadRecord::Payload(id.index, bad))?;
            Ok(Some(Record::Entry(Entry { index: id.index, term: id.term, payload })))
        }
        (BASE, 0 | 1, 0) if length == 0 => Ok(Some(Record::Base(Base { id, reset: detail == 1 }))),
        (HARD_STATE | ENTRY | BASE, ..) => Err(BadRecord::UnknownDetail { kind, detail }),
        _ => Err(BadRecord::UnknownKind(kind)),
    }
}

fn hard_state(term: Term, commit: Index, vote: &[u8]) -> Result<Record, BadRecord> {
    let vote = match vote {
        [] => None,
        text => {
            let text = std::str::from_utf8(text).map_err(|_| BadRecord::Vote)?;
            Some(NodeId::new(text).map_err(|_| BadRecord::Vote)?)
        }
    };
    Ok(Record::HardState(HardState { term, vote, commit }))
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("a record that is longer than its batch"),
            Self::UnknownKind(kind) => write!(f, "a record of unknown kind {kind}: was it written by a newer version?"),
            Self::UnknownDetail { kind, detail } => {
                write!(f, "a record of kind {kind} with unknown detail {detail}: was it written by a newer version?")
            }
            Self::Vote => f.write_str("a vote for what is not a node's id"),
            Self::Payload(index, bad) => write!(f, "entry {index} is unreadable: {bad}"),
        }
    }
}

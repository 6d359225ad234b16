//! How a command looks in the log: a header that names its call and its time, then what is to be done.

use std::fmt;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use graft_domain::{BadNodeId, Index, NodeId};

use crate::ports::Ticket;

/// A command as it stands in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Logged {
    /// Nanoseconds since the Unix epoch by the leader's clock, never less than that of the command before it.
    pub time: u64,
    pub ticket: Ticket,
    pub act: Act,
}

/// What a command does where it is applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Act {
    /// The user's machine runs it; in a session at most once, however often it stands in the log.
    Command { slot: Option<Slot>, body: Bytes },
    /// Opens the session of [`session_id`]. It ends when it was not used for `ttl`, by the stamps of the log. `key` is another
    /// one in each run of the node that wants it.
    OpenSession { ttl: Duration, key: u64 },
    /// Every replica computes its digest as of here, and tells `origin`.
    Verify { origin: NodeId },
}

/// The place of one command in a session (thesis §6.3). Whoever sends it again under the same place gets the first answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot {
    /// The session's id.
    pub session: u64,
    /// From 1.
    pub sequence: u64,
    /// The lowest sequence that the client has no answer for: answers to those below it are not kept.
    pub unanswered: u64,
}

/// Why bytes in the log are not a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadCommand {
    Truncated,
    UnknownKind(u8),
    Origin(BadNodeId),
}

/// Bytes before what is to be done.
const HEADER_BYTES: usize = 25;
/// Bytes of a slot.
const SLOT_BYTES: usize = 24;
/// What is not a command has no more.
const OTHERS_BYTES_MAX: usize = 64;

/// Bytes that are allocated at once, for commands that follow one another in the log, and go together when it is cut.
const ARENA_BYTES: usize = 64 << 10;
/// A larger command is alone in its allocation: no more than this is lost at the end of another.
const SHARED_BYTES_MAX: usize = ARENA_BYTES / 8;

// The first byte of a command, so also the version of its format.
const COMMAND: u8 = 1;
const COMMAND_IN_SESSION: u8 = 2;
const OPEN_SESSION: u8 = 3;
const VERIFY: u8 = 4;

impl Act {
    /// What it counts for where bytes are counted.
    pub fn size(&self) -> usize {
        match self {
            Self::Command { body, .. } => body.len(),
            Self::OpenSession { .. } | Self::Verify { .. } => 0,
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Command { slot: None, .. } => COMMAND,
            Self::Command { slot: Some(_), .. } => COMMAND_IN_SESSION,
            Self::OpenSession { .. } => OPEN_SESSION,
            Self::Verify { .. } => VERIFY,
        }
    }
}

/// The id of the session that an entry opens, never zero. An index alone is soon used again where a cluster is wiped and made
/// anew: whoever has a session of the former one would use a stranger's. Equal ids are as rare as 64 bits make them.
pub fn session_id(index: Index, key: u64) -> u64 {
    mix(index.0, key).max(1)
}

/// Numbers that look alike become numbers that do not (FNV-1a of 128 bits, folded).
pub(crate) fn mix(one: u64, other: u64) -> u64 {
    let mut digest = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    for byte in one.to_le_bytes().into_iter().chain(other.to_le_bytes()) {
        digest = (digest ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
    let halves = digest.to_le_bytes();
    let (low, high) = halves.split_at(8);
    low.iter().zip(high).rev().fold(0, |folded, (low, high)| folded << 8 | u64::from(low ^ high))
}

/// Puts a command down behind what `arena` holds and cuts it off: one allocation serves many.
pub fn encode(arena: &mut BytesMut, time: u64, ticket: Ticket, act: &Act) -> Bytes {
    if let Act::Command { slot, body } = act {
        return encode_command(arena, time, ticket, *slot, body);
    }
    make_room(arena, HEADER_BYTES + OTHERS_BYTES_MAX);
    put_header(arena, act.kind(), time, ticket);
    match act {
        Act::Command { .. } => {}
        Act::OpenSession { ttl, key } => {
            arena.put_u64_le(u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX));
            arena.put_u64_le(*key);
        }
        Act::Verify { origin } => arena.put_slice(origin.as_str().as_bytes()),
    }
    arena.split().freeze()
}

/// The same for a command whose body stays where it is.
pub(crate) fn encode_command(
    arena: &mut BytesMut,
    time: u64,
    ticket: Ticket,
    slot: Option<Slot>,
    body: &[u8],
) -> Bytes {
    let bytes = HEADER_BYTES + SLOT_BYTES + body.len();
    let mut alone = BytesMut::new();
    let arena = if bytes > SHARED_BYTES_MAX { &mut alone } else { arena };
    make_room(arena, bytes);
    put_header(arena, if slot.is_some() { COMMAND_IN_SESSION } else { COMMAND }, time, ticket);
    if let Some(Slot { session, sequence, unanswered }) = slot {
        arena.put_u64_le(session);
        arena.put_u64_le(sequence);
        arena.put_u64_le(unanswered);
    }
    arena.put_slice(body);
    arena.split().freeze()
}

/// So much is free behind what the arena holds.
fn make_room(arena: &mut BytesMut, bytes: usize) {
    if arena.capacity() - arena.len() < bytes {
        arena.reserve(if bytes > SHARED_BYTES_MAX { bytes } else { ARENA_BYTES });
    }
}

fn put_header(arena: &mut BytesMut, kind: u8, time: u64, ticket: Ticket) {
    let mut header = [0; HEADER_BYTES];
    header[0] = kind;
    header[1..9].copy_from_slice(&time.to_le_bytes());
    header[9..17].copy_from_slice(&ticket.session.to_le_bytes());
    header[17..].copy_from_slice(&ticket.sequence.to_le_bytes());
    arena.put_slice(&header);
}

/// The reverse of [`encode`]; the body shares the entry's bytes.
pub fn decode(command: &Bytes) -> Result<Logged, BadCommand> {
    decode_owned(command.clone())
}

/// The same for one that nobody else wants.
pub(crate) fn decode_owned(mut rest: Bytes) -> Result<Logged, BadCommand> {
    let kind = rest.try_get_u8().map_err(|_| BadCommand::Truncated)?;
    let mut number = || rest.try_get_u64_le().map_err(|_| BadCommand::Truncated);
    let (time, ticket) = (number()?, Ticket { session: number()?, sequence: number()? });
    let act = match kind {
        COMMAND => Act::Command { slot: None, body: rest },
        COMMAND_IN_SESSION => {
            let slot = Slot { session: number()?, sequence: number()?, unanswered: number()? };
            Act::Command { slot: Some(slot), body: rest }
        }
        OPEN_SESSION => Act::OpenSession { ttl: Duration::from_nanos(number()?), key: number()? },
        VERIFY => {
            let id = std::str::from_utf8(&rest).map_err(|_| BadCommand::Truncated)?;
            Act::Verify { origin: NodeId::new(id).map_err(BadCommand::Origin)? }
        }
        other => return Err(BadCommand::UnknownKind(other)),
    };
    Ok(Logged { time, ticket, act })
}

impl fmt::Display for BadCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("cut short"),
            Self::UnknownKind(kind) => {
                write!(f, "kind {kind}, this program knows those up to {VERIFY}: upgrade this node")
            }
            Self::Origin(bad) => write!(f, "the member that it names: {bad}"),
        }
    }
}

impl std::error::Error for BadCommand {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SESSION_OF_7_AND_9: u64 = 8_054_643_766_867_520_984;

    fn samples() -> Vec<Act> {
        let slot = Slot { session: 9, sequence: 8, unanswered: 7 };
        let body = Bytes::from_static(b"body");
        vec![
            Act::Command { slot: None, body: body.clone() },
            Act::Command { slot: Some(slot), body },
            Act::Command { slot: Some(slot), body: Bytes::new() },
            Act::OpenSession { ttl: Duration::from_secs(5), key: 6 },
            Act::Verify { origin: NodeId::new("n1").expect("a good id") },
        ]
    }

    #[test]
    fn what_is_encoded_is_decoded_and_shares_its_bytes() {
        let mut arena = BytesMut::new();
        let ticket = Ticket { session: u64::MAX, sequence: 3 };
        let encoded: Vec<Bytes> = samples().iter().map(|act| encode(&mut arena, 5, ticket, act)).collect();
        for (act, command) in samples().into_iter().zip(encoded) {
            let logged = decode(&command).expect("it was encoded here");
            assert_eq!(logged, Logged { time: 5, ticket, act });
            if let Act::Command { body, .. } = logged.act {
                let within = command.as_ptr_range();
                assert!(body.is_empty() || within.contains(&body.as_ptr()), "no copy");
            }
        }
    }

    #[test]
    fn session_ids_are_not_met_again_under_other_keys_or_indexes() {
        let ids = (0..200).flat_map(|index| (0..200).map(move |key| session_id(Index(index), key)));
        let ids: BTreeSet<u64> = ids.collect();
        assert_eq!(ids.len(), 200 * 200);
        let far = |id: &&u64| **id > u64::from(u32::MAX);
        assert!(!ids.contains(&0) && ids.iter().filter(far).count() > 39_990, "they do not look like indexes");
        assert_eq!(session_id(Index(7), 9), SESSION_OF_7_AND_9, "what stands in logs and snapshots stays what it is");
    }

    #[test]
    fn foreign_bytes_are_refused() {
        for act in samples() {
            let command = encode(&mut BytesMut::new(), 5, Ticket::default(), &act);
            let fixed = command.len() - if let Act::Verify { .. } = act { 2 } else { act.size() };
            for cut in 0..fixed {
                assert_eq!(decode(&command.slice(..cut)), Err(BadCommand::Truncated), "{act:?} cut at {cut}");
            }
            let mut newer = command.to_vec();
            newer[0] = 99;
            assert_eq!(decode(&Bytes::from(newer)), Err(BadCommand::UnknownKind(99)));
        }
        let nameless = encode(&mut BytesMut::new(), 5, Ticket::default(), &samples()[4]).slice(..HEADER_BYTES);
        assert!(matches!(decode(&nameless), Err(BadCommand::Origin(_))));
    }
}

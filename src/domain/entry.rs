//! What the log is made of.

use alloc::sync::Arc;
use bytes::Bytes;

use crate::ids::{EntryId, Index, Term};
use crate::membership::{BadMembership, Membership};

/// One entry of the log.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    pub index: Index,
    pub term: Term,
    pub payload: Payload,
}

/// What an entry says.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Payload {
    /// A new leader's first entry, by which it learns what is committed (thesis §6.4).
    Noop,
    /// Opaque to the core; its bytes are shared between log, disk, wire and machine.
    Command(Bytes),
    /// In force from the moment it is in the log (thesis §4.1).
    Membership(Arc<Membership>),
}

/// Why bytes from a disk or a peer are not an entry's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPayload {
    UnknownKind(u8),
    NoopWithData,
    Membership(BadMembership),
}

impl Entry {
    /// Bytes that an entry costs beside its payload, in every limit that counts bytes.
    pub const OVERHEAD: usize = 32;

    pub const fn id(&self) -> EntryId {
        EntryId { term: self.term, index: self.index }
    }

    /// What it counts for in every limit that counts bytes.
    pub fn size(&self) -> usize {
        Self::OVERHEAD
            + match &self.payload {
                Payload::Noop => 0,
                Payload::Command(bytes) => bytes.len(),
                Payload::Membership(membership) => membership.size(),
            }
    }
}

impl Payload {
    /// The number of its kind, on disk and on the wire.
    pub const fn kind(&self) -> u8 {
        match self {
            Self::Noop => 0,
            Self::Command(_) => 1,
            Self::Membership(_) => 2,
        }
    }

    /// Its bytes, on disk and on the wire. A command's are shared, not copied.
    pub fn data(&self) -> Bytes {
        match self {
            Self::Noop => Bytes::new(),
            Self::Command(bytes) => bytes.clone(),
            Self::Membership(membership) => membership.encode(),
        }
    }

    /// The reverse of [`Payload::kind`] and [`Payload::data`].
    pub fn decode(kind: u8, data: Bytes) -> Result<Self, BadPayload> {
        match kind {
            0 if data.is_empty() => Ok(Self::Noop),
            0 => Err(BadPayload::NoopWithData),
            1 => Ok(Self::Command(data)),
            2 => Membership::decode(&data).map(|m| Self::Membership(Arc::new(m))).map_err(BadPayload::Membership),
            other => Err(BadPayload::UnknownKind(other)),
        }
    }
}

impl core::fmt::Display for BadPayload {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::UnknownKind(kind) => write!(f, "entry of unknown kind {kind}: written by a newer version?"),
            Self::NoopWithData => f.write_str("a no-op entry that carries data"),
            Self::Membership(bad) => write!(f, "bad membership entry: {bad}"),
        }
    }
}

impl core::error::Error for BadPayload {}

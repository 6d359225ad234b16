//! What a snapshot says of itself, before the machine's bytes.

use std::fmt;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use graft_domain::{BadMembership, EntryId, Index, Membership};

/// Everything but the machine's state that the log up to an entry amounts to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotMeta {
    /// The last entry that it covers.
    pub last: EntryId,
    /// The last command that it covers; entries between the two are no commands.
    pub command: Index,
    /// The stamp of the newest command, in nanoseconds since the Unix epoch.
    pub time: u64,
    /// In force at `last`.
    pub membership: Arc<Membership>,
}

/// Why bytes are not what a snapshot says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadSnapshotMeta {
    Truncated,
    UnknownVersion(u8),
    Order,
    Membership(BadMembership),
}

/// Of what a snapshot says of itself and of what follows it.
const VERSION: u8 = 2;

impl SnapshotMeta {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(33 + self.membership.size());
        out.put_u8(VERSION);
        out.put_u64_le(self.last.term.0);
        out.put_u64_le(self.last.index.0);
        out.put_u64_le(self.command.0);
        out.put_u64_le(self.time);
        out.put_slice(&self.membership.encode());
        out.freeze()
    }

    pub fn decode(mut data: &[u8]) -> Result<Self, BadSnapshotMeta> {
        let truncated = |_| BadSnapshotMeta::Truncated;
        match data.try_get_u8().map_err(truncated)? {
            VERSION => {}
            other => return Err(BadSnapshotMeta::UnknownVersion(other)),
        }
        let mut number = || data.try_get_u64_le().map_err(truncated);
        let last = EntryId::new(number()?, number()?);
        let (command, time) = (Index(number()?), number()?);
        if command > last.index {
            return Err(BadSnapshotMeta::Order);
        }
        let membership = Membership::decode(data).map_err(BadSnapshotMeta::Membership)?;
        Ok(Self { last, command, time, membership: Arc::new(membership) })
    }
}

impl fmt::Display for BadSnapshotMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("cut short"),
            Self::UnknownVersion(version) if *version < VERSION => {
                write!(f, "snapshot format {version} of an older program, this one reads {VERSION} only")
            }
            Self::UnknownVersion(version) => {
                write!(f, "snapshot format {version}, this program knows {VERSION}: upgrade this node")
            }
            Self::Order => f.write_str("its last command is beyond its last entry"),
            Self::Membership(bad) => write!(f, "its membership: {bad}"),
        }
    }
}

impl std::error::Error for BadSnapshotMeta {}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_domain::NodeId;

    fn sample() -> SnapshotMeta {
        let membership = Membership::founding([(NodeId::new("n1").expect("a good id"), "127.0.0.1:7001")]);
        SnapshotMeta { last: EntryId::new(3, 9), command: Index(8), time: 7, membership: Arc::new(membership) }
    }

    #[test]
    fn encoding_round_trips_and_no_prefix_does() {
        let whole = sample().encode();
        assert_eq!(SnapshotMeta::decode(&whole), Ok(sample()));
        for cut in 0..whole.len() {
            assert!(SnapshotMeta::decode(&whole[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_command_beyond_the_end_is_refused() {
        let bad = SnapshotMeta { command: Index(10), ..sample() };
        assert_eq!(SnapshotMeta::decode(&bad.encode()), Err(BadSnapshotMeta::Order));
    }
}

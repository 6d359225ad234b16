//! Who belongs to the cluster and whose votes count (thesis §4).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::ids::{ClusterId, Incarnation, NodeId};
use crate::quorum;

/// One configuration. It is joint while any member votes in the outgoing half.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Membership {
    pub cluster: ClusterId,
    pub members: BTreeMap<NodeId, Member>,
    /// Those who were members once. Their ids are never used again: whoever goes by one may have forgotten what it promised.
    pub removed: BTreeSet<NodeId>,
}

/// What a member is to become. It is part of the membership, so that whoever leads next goes on with the change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Target {
    Voter,
    /// Gets the log and has no vote.
    Learner,
    Gone,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Member {
    /// Where it was last heard of: a hint, not its identity.
    pub address: Arc<str>,
    pub incarnation: Incarnation,
    /// Votes in the configuration, or in its incoming half.
    pub voter: bool,
    /// Votes in the half that a joint configuration leaves behind.
    pub outgoing: bool,
    pub target: Target,
}

/// Why bytes from a disk or a peer are not a membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadMembership {
    Truncated,
    UnknownVersion(u8),
    BadId,
    BadAddress,
    BadFlags(u8),
    BadTarget(u8),
    Duplicate,
    Trailing,
}

const VERSION: u8 = 1;
const VOTER: u8 = 1;
const OUTGOING: u8 = 2;

impl Membership {
    /// The configuration that a cluster is founded with: all of them voters.
    pub fn founding<'a>(members: impl IntoIterator<Item = (NodeId, &'a str)>) -> Self {
        let voter = |address: &str| Member {
            address: Arc::from(address),
            incarnation: Incarnation::UNKNOWN,
            voter: true,
            outgoing: false,
            target: Target::Voter,
        };
        Self {
            cluster: ClusterId::UNKNOWN,
            members: members.into_iter().map(|(id, address)| (id, voter(address))).collect(),
            removed: BTreeSet::new(),
        }
    }

    pub fn is_joint(&self) -> bool {
        self.members.values().any(|m| m.outgoing)
    }

    pub fn contains(&self, id: &NodeId) -> bool {
        self.members.contains_key(id)
    }

    /// Whether its vote counts in either half.
    pub fn is_voter(&self, id: &NodeId) -> bool {
        self.members.get(id).is_some_and(|m| m.voter || m.outgoing)
    }

    /// Those who vote in the configuration, or in its incoming half.
    pub fn voters(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().filter(|(_, m)| m.voter).map(|(id, _)| *id)
    }

    /// Those who vote in the half that is being left; none unless joint.
    pub fn outgoing(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().filter(|(_, m)| m.outgoing).map(|(id, _)| *id)
    }

    /// Whether those who count, and nobody else, could decide something: a majority of the voters, of both halves if it is joint.
    pub fn is_quorum(&self, counts: impl Fn(&NodeId) -> bool) -> bool {
        quorum::is_quorum(self, counts)
    }

    pub fn size(&self) -> usize {
        let member = |(id, m): (&NodeId, &Member)| 14 + id.as_str().len() + m.address.len();
        let removed = |id: &NodeId| 2 + id.as_str().len();
        25 + self.members.iter().map(member).sum::<usize>() + self.removed.iter().map(removed).sum::<usize>()
    }

    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.size());
        out.put_u8(VERSION);
        out.put_u128_le(self.cluster.0);
        out.put_u32_le(u32::try_from(self.members.len()).unwrap_or(u32::MAX));
        for (id, member) in &self.members {
            out.put_u8(if member.voter { VOTER } else { 0 } | if member.outgoing { OUTGOING } else { 0 });
            out.put_u8(member.target as u8);
            out.put_u64_le(member.incarnation.0);
            put_text(&mut out, id.as_str());
            put_text(&mut out, &member.address);
        }
        out.put_u32_le(u32::try_from(self.removed.len()).unwrap_or(u32::MAX));
        for id in &self.removed {
            put_text(&mut out, id.as_str());
        }
        out.freeze()
    }

    pub fn decode(mut data: &[u8]) -> Result<Self, BadMembership> {
        let data = &mut data;
        let version = data.try_get_u8().map_err(|_| BadMembership::Truncated)?;
        if version != VERSION {
            return Err(BadMembership::UnknownVersion(version));
        }
        let cluster = ClusterId(data.try_get_u128_le().map_err(|_| BadMembership::Truncated)?);
        let count = data.try_get_u32_le().map_err(|_| BadMembership::Truncated)?;
        let mut members = BTreeMap::new();
        for _ in 0..count {
            let (id, member) = decode_member(data)?;
            if members.insert(id, member).is_some() {
                return Err(BadMembership::Duplicate);
            }
        }
        let count = data.try_get_u32_le().map_err(|_| BadMembership::Truncated)?;
        let mut removed = BTreeSet::new();
        for _ in 0..count {
            if !removed.insert(take_id(data)?) {
                return Err(BadMembership::Duplicate);
            }
        }
        if data.has_remaining() {
            return Err(BadMembership::Trailing);
        }
        Ok(Self { cluster, members, removed })
    }
}

fn decode_member(data: &mut &[u8]) -> Result<(NodeId, Member), BadMembership> {
    let flags = data.try_get_u8().map_err(|_| BadMembership::Truncated)?;
    if flags & !(VOTER | OUTGOING) != 0 {
        return Err(BadMembership::BadFlags(flags));
    }
    let target = match data.try_get_u8().map_err(|_| BadMembership::Truncated)? {
        0 => Target::Voter,
        1 => Target::Learner,
        2 => Target::Gone,
        other => return Err(BadMembership::BadTarget(other)),
    };
    let incarnation = Incarnation(data.try_get_u64_le().map_err(|_| BadMembership::Truncated)?);
    let id = take_id(data)?;
    let address = Arc::from(take_text(data)?);
    Ok((id, Member { address, incarnation, voter: flags & VOTER != 0, outgoing: flags & OUTGOING != 0, target }))
}

fn take_id(data: &mut &[u8]) -> Result<NodeId, BadMembership> {
    NodeId::new(&take_text(data)?).map_err(|_| BadMembership::BadId)
}

/// A length in two bytes, then the text. An address longer than that is cut: no dialler could use it.
fn put_text(out: &mut BytesMut, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    let length = text.floor_char_boundary(usize::from(length));
    out.put_u16_le(u16::try_from(length).unwrap_or(u16::MAX));
    out.put_slice(&text.as_bytes()[..length]);
}

fn take_text(data: &mut &[u8]) -> Result<alloc::string::String, BadMembership> {
    let length = usize::from(data.try_get_u16_le().map_err(|_| BadMembership::Truncated)?);
    if data.remaining() < length {
        return Err(BadMembership::Truncated);
    }
    let mut text: Vec<u8> = alloc::vec![0; length];
    data.copy_to_slice(&mut text);
    alloc::string::String::from_utf8(text).map_err(|_| BadMembership::BadAddress)
}

impl core::fmt::Display for BadMembership {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Truncated => f.write_str("cut short"),
            Self::UnknownVersion(v) => write!(f, "format version {v}, this program knows {VERSION}"),
            Self::BadId => f.write_str("a member's id is not one"),
            Self::BadAddress => f.write_str("a member's address is not text"),
            Self::BadFlags(flags) => write!(f, "unknown flags {flags:#04x}"),
            Self::BadTarget(target) => write!(f, "unknown target {target}"),
            Self::Duplicate => f.write_str("a member is listed twice"),
            Self::Trailing => f.write_str("more bytes than members"),
        }
    }
}

impl core::error::Error for BadMembership {}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Membership {
        let ids = ["n1", "n2", "n3"].map(|id| NodeId::new(id).expect("a good id"));
        let mut membership = Membership::founding(ids.map(|id| (id, "127.0.0.1:7001")));
        membership.cluster = ClusterId(7);
        let n3 = membership.members.get_mut(&ids[2]).expect("n3 is a member");
        (n3.voter, n3.outgoing, n3.incarnation) = (false, true, Incarnation(9));
        n3.target = Target::Gone;
        membership.removed.insert(NodeId::new("n0").expect("a good id"));
        membership
    }

    #[test]
    fn encoding_round_trips() {
        assert_eq!(Membership::decode(&sample().encode()), Ok(sample()));
        assert_eq!(sample().encode().len(), sample().size());
    }

    #[test]
    fn no_prefix_of_an_encoding_is_a_membership() {
        let whole = sample().encode();
        for cut in 0..whole.len() {
            assert!(Membership::decode(&whole[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn flipped_bits_never_panic() {
        let whole = sample().encode();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let _ = Membership::decode(&bytes);
        }
    }
}

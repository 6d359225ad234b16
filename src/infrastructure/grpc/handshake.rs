//! Who may talk to whom: what a node says of itself, and how it judges what others say of themselves.

use std::collections::{BTreeMap, BTreeSet};

use graft_domain::{ClusterId, Incarnation, NodeId};
use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};

use super::event::{LocalHello, Peer, RefusedCode};
use super::refusal::Refusal;
use super::wire;

/// The protocol version this program likes to speak, and the oldest it can.
pub(super) const VERSION: u32 = 1;
pub(super) const VERSION_MIN: u32 = 1;

const METADATA_KEY: &str = "graft-hello-bin";
/// As long as a DNS name and a port may be.
const ADDRESS_BYTES_MAX: usize = 262;

/// What this node knows and judges others by.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) me: LocalHello,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    pub(super) removed: BTreeSet<NodeId>,
}

/// A peer as it introduced itself, in a form that can be relied on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Introduction {
    pub(super) id: NodeId,
    pub(super) to: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) cluster: ClusterId,
    pub(super) address: String,
    pub(super) founding: u64,
}

impl View {
    /// How this node introduces itself to the one it takes for `to`.
    pub(super) fn hello(&self, to: &NodeId) -> wire::Hello {
        wire::Hello {
            version: VERSION,
            version_min: VERSION_MIN,
            cluster: encode_cluster(self.me.cluster),
            id: self.me.id.as_str().to_owned(),
            incarnation: self.me.incarnation.0,
            address: self.me.address.clone(),
            to: to.as_str().to_owned(),
            founding: self.me.membership_hash,
        }
    }

    /// Whether a link with this peer may stand. It is asked again whenever the view changes.
    pub(super) fn judge(&self, other: &Introduction) -> Result<(), Refusal> {
        self.judge_identity(other)?;
        self.judge_cluster(other)
    }

    fn judge_identity(&self, other: &Introduction) -> Result<(), Refusal> {
        let (me, id, address) = (self.me.id, other.id, &other.address);
        if other.to != me {
            let why = format!(
                "{id} looked for {} at {}, but there is {me}. Correct the address of {} in the membership, or start \
                 the node with the id that its address belongs to.",
                other.to, self.me.address, other.to
            );
            return Err(Refusal::new(RefusedCode::NotMe, why));
        }
        if id == me {
            let why = format!(
                "The node at {address} goes by the id {me}, and so does the one at {}. An id belongs to one node: stop \
                 one of them, or give it an id of its own and an empty data directory.",
                self.me.address
            );
            return Err(Refusal::new(RefusedCode::IdentityMismatch, why));
        }
        if self.removed.contains(&id) {
            let why = format!(
                "{id} was removed from the cluster, and its id is not used again. To bring the machine back, start it \
                 with an empty data directory under a new id and add that."
            );
            return Err(Refusal::new(RefusedCode::Removed, why));
        }
        let recorded = self.peers.get(&id).map_or(Incarnation::UNKNOWN, |peer| peer.incarnation);
        let known = recorded != Incarnation::UNKNOWN && other.incarnation != Incarnation::UNKNOWN;
        if known && recorded != other.incarnation {
            let why = format!(
                "{id} at {address} has another data directory ({}) than the member {id} of the cluster ({recorded}): it \
                 was wiped, or it is not the original. It may have forgotten votes and acknowledged writes, so it \
                 cannot go on as {id}. Bring the original data directory back, or start it with an empty one under a \
                 new id and replace the member {id} by that.",
                other.incarnation
            );
            return Err(Refusal::new(RefusedCode::IdentityMismatch, why));
        }
        Ok(())
    }

    fn judge_cluster(&self, other: &Introduction) -> Result<(), Refusal> {
        let (mine, theirs) = (self.me.cluster, other.cluster);
        let (me, id) = (self.me.id, other.id);
        if mine != ClusterId::UNKNOWN && theirs != ClusterId::UNKNOWN {
            if mine == theirs {
                return Ok(());
            }
            let why = format!(
                "{id} at {} belongs to the cluster {theirs}, {me} at {} to {mine}. Correct whichever address is wrong; \
                 if one node is to move to the other cluster, start it there with an empty data directory.",
                other.address, self.me.address
            );
            return Err(Refusal::new(RefusedCode::ClusterMismatch, why));
        }
        // One of them is new. A founder of something else must neither be drawn into a cluster nor draw others into its own.
        let both_found = self.me.membership_hash != 0 && other.founding != 0;
        if both_found && self.me.membership_hash != other.founding {
            let why = format!(
                "{id} and {me} were given different lists of founding members, so they would found different clusters. \
                 Start every founding member with the same `members=`: the same ids and the same addresses."
            );
            return Err(Refusal::new(RefusedCode::FoundingMismatch, why));
        }
        Ok(())
    }
}

impl Introduction {
    /// Versions come first: of a version that is not shared nothing else needs to make sense.
    pub(super) fn parse(hello: wire::Hello) -> Result<Self, Refusal> {
        if hello.version < VERSION_MIN || hello.version_min > VERSION {
            let why = format!(
                "One node speaks protocol versions {} to {}, the other {VERSION_MIN} to {VERSION}. Run versions of \
                 this program that are closer to one another: upgrade the older node.",
                hello.version_min, hello.version
            );
            return Err(Refusal::new(RefusedCode::ProtocolVersion, why));
        }
        let malformed = |what: String| Refusal::new(RefusedCode::Malformed, format!("A bad introduction: {what}."));
        let id = |what, text: &str| NodeId::new(text).map_err(|bad| malformed(format!("{what}: {bad}")));
        if hello.address.len() > ADDRESS_BYTES_MAX {
            return Err(malformed(format!("an address of {} bytes", hello.address.len())));
        }
        let cluster = decode_cluster(&hello.cluster).ok_or_else(|| malformed("a cluster id is 16 bytes".to_owned()))?;
        Ok(Self {
            id: id("the sender", &hello.id)?,
            to: id("the recipient", &hello.to)?,
            incarnation: Incarnation(hello.incarnation),
            cluster,
            address: hello.address,
            founding: hello.founding,
        })
    }
}

/// Puts the introduction of the dialling side where [`from_metadata`] finds it.
pub(super) fn into_metadata(hello: &wire::Hello, metadata: &mut MetadataMap) {
    metadata.insert_bin(METADATA_KEY, MetadataValue::from_bytes(&hello.encode_to_vec()));
}

pub(super) fn from_metadata(metadata: &MetadataMap) -> Result<wire::Hello, Refusal> {
    let malformed = |what: &str| Refusal::new(RefusedCode::Malformed, format!("A call without introduction: {what}."));
    let value = metadata.get_bin(METADATA_KEY).ok_or_else(|| malformed("the metadata has none"))?;
    let bytes = value.to_bytes().map_err(|_| malformed("the metadata is not base64"))?;
    wire::Hello::decode(bytes).map_err(|error| malformed(&error.to_string()))
}

/// Nothing for a cluster that is not known.
pub(super) fn encode_cluster(cluster: ClusterId) -> bytes::Bytes {
    match cluster {
        ClusterId::UNKNOWN => bytes::Bytes::new(),
        ClusterId(number) => bytes::Bytes::copy_from_slice(&number.to_be_bytes()),
    }
}

pub(super) fn decode_cluster(bytes: &[u8]) -> Option<ClusterId> {
    match bytes {
        [] => Some(ClusterId::UNKNOWN),
        bytes => bytes.try_into().ok().map(|bytes| ClusterId(u128::from_be_bytes(bytes))),
    }
}

#[cfg(test)]
#[path = "tests/handshake.rs"]
mod tests;

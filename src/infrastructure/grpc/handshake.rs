//! Who may talk to whom: what a node says of itself, and how it judges what others say of themselves.

use std::collections::{BTreeMap, BTreeSet};

use graft_domain::{ClusterId, Incarnation, NodeId};
use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};

use super::event::{LocalHello, Peer, RefusedCode};
use super::plain::has_odd;
use super::refusal::Refusal;
use super::wire;

/// The protocol version this program likes to speak, and the oldest it can.
pub(super) const VERSION: u32 = 1;
pub(super) const VERSION_MIN: u32 = 1;

const METADATA_KEY: &str = "graft-hello-bin";
/// Bytes of an address, wherever one is said.
pub(super) const ADDRESS_BYTES_MAX: usize = 1024;

/// What this node knows and judges others by.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) me: LocalHello,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    pub(super) removed: BTreeSet<NodeId>,
    /// The cluster that this node was taken into before its log says so; unknown until then. It is kept for this run
    /// only, so that a node that has not got a log yet is not drawn into two.
    pub(super) adopted: ClusterId,
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
    pub(super) fn new(me: LocalHello) -> Self {
        Self { me, peers: BTreeMap::new(), removed: BTreeSet::new(), adopted: ClusterId::UNKNOWN }
    }

    /// How this node introduces itself to the one it takes for `to`.
    pub(super) fn hello(&self, to: &NodeId) -> wire::Hello {
        wire::Hello { to: to.as_str().to_owned(), ..self.hello_to_anyone() }
    }

    /// How it introduces itself where it does not know who will answer.
    pub(super) fn hello_to_anyone(&self) -> wire::Hello {
        wire::Hello {
            version: VERSION,
            version_min: VERSION_MIN,
            cluster: encode_cluster(self.cluster()),
            id: self.me.id.as_str().to_owned(),
            incarnation: self.me.incarnation.0,
            address: self.me.address.clone(),
            to: String::new(),
            founding: self.me.membership_hash,
        }
    }

    /// The cluster that this node is held to.
    pub(super) fn cluster(&self) -> ClusterId {
        if self.me.cluster == ClusterId::UNKNOWN { self.adopted } else { self.me.cluster }
    }

    /// Judges a peer that a link is to stand with. If it is the first that knows its cluster, and this node does not
    /// know its own, this node takes that for its own too. Answers whether it did.
    pub(super) fn admit(&mut self, other: &Introduction) -> Result<bool, Refusal> {
        self.judge(other)?;
        let adopts = self.cluster() == ClusterId::UNKNOWN && other.cluster != ClusterId::UNKNOWN;
        if adopts {
            self.adopted = other.cluster;
        }
        Ok(adopts)
    }

    /// Whether a link with this peer may stand. It is asked again whenever the view changes.
    pub(super) fn judge(&self, other: &Introduction) -> Result<(), Refusal> {
        self.judge_name(other)?;
        self.judge_cluster(other)?;
        self.judge_directory(other)
    }

    fn judge_name(&self, other: &Introduction) -> Result<(), Refusal> {
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
        Ok(())
    }

    fn judge_directory(&self, other: &Introduction) -> Result<(), Refusal> {
        let (id, address) = (other.id, &other.address);
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
                 cannot go on as {id}. Bring the original data directory back; if that is lost, start a node with a new \
                 id, an empty directory and --cluster, and then: graft member replace {id} NEW-ID ADDR",
                other.incarnation
            );
            return Err(Refusal::new(RefusedCode::IdentityMismatch, why));
        }
        Ok(())
    }

    fn judge_cluster(&self, other: &Introduction) -> Result<(), Refusal> {
        let (mine, theirs) = (self.cluster(), other.cluster);
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
                "{id} and {me} were given different lists of founding members, or do not begin with the same backup, so they \
                 would found different clusters. Start every founding member with the same `members=`: the same ids and the \
                 same addresses. If they begin with a backup, restore all of them from the same one."
            );
            return Err(Refusal::new(RefusedCode::FoundingMismatch, why));
        }
        // State of another origin is not to be mixed with the cluster's own.
        let strangers_state = |founding: u64, cluster: ClusterId| {
            is_restored(founding) && cluster != ClusterId::UNKNOWN && cluster.0 >> 64 != u128::from(founding)
        };
        if strangers_state(self.me.membership_hash, theirs) || strangers_state(other.founding, mine) {
            let why = format!(
                "{id} and {me} do not begin with the same state: one of them was restored from a backup, and the other \
                 belongs to a cluster that was not founded with it. To join a cluster, start with an empty data directory."
            );
            return Err(Refusal::new(RefusedCode::FoundingMismatch, why));
        }
        // Nor does it follow a stranger: those whom it founds with tell it which cluster became of that.
        let astray = self.founds() && theirs != ClusterId::UNKNOWN && !both_found && !self.peers.contains_key(&id);
        if astray {
            let why = format!(
                "{me} at {} was started to found a cluster and does not know yet what became of it; {id} at {} belongs to the \
                 cluster {theirs}, and is none of the members that {me} founds with. If {me} is to be a member of that \
                 cluster, start it with an empty data directory and `join=` in place of `members=`. If it is one of those \
                 who founded that cluster, another of them has to be reachable from it.",
                self.me.address, other.address
            );
            return Err(Refusal::new(RefusedCode::FoundingMismatch, why));
        }
        Ok(())
    }

    /// Whether this node would found a cluster, because it knows of none that it belongs to.
    pub(super) fn founds(&self) -> bool {
        self.me.membership_hash != 0 && self.cluster() == ClusterId::UNKNOWN
    }
}

/// Set in what founders compare if they begin with a backup; such a cluster's name begins with it.
const RESTORED: u64 = 1 << 63;

/// What founders with nothing compare: a hash of the members, and not 0.
pub fn founded(hash: u64) -> u64 {
    (hash & !RESTORED).max(1)
}

/// What founders with a backup compare: a hash of the members and the backup.
pub fn restored(hash: u64) -> u64 {
    hash | RESTORED
}

/// Whether whoever compares this begins with a backup.
pub fn is_restored(founding: u64) -> bool {
    founding & RESTORED != 0
}

impl Introduction {
    /// As [`Introduction::parse`], but who is there, `here`, need not be known to the other.
    pub(super) fn parse_open(mut hello: wire::Hello, here: NodeId) -> Result<Self, Refusal> {
        if hello.to.is_empty() {
            here.as_str().clone_into(&mut hello.to);
        }
        Self::parse(hello)
    }

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
        if has_odd(&hello.address) {
            return Err(malformed(format!("the address {:?} has characters that none has", hello.address)));
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

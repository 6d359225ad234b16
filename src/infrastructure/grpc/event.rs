//! What the transport is told and what it tells.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use graft_domain::{ClusterId, EntryId, Incarnation, NodeId};
use graft_services::api::Api;
use graft_services::ports::{PeerMessage, SnapshotFiles};
use graft_services::snapshot_meta::SnapshotMeta;

use super::join_reply::JoinReply;

/// What this node gives to others than members' messages.
#[derive(Default)]
pub struct Offers {
    /// Its snapshots, to other members; without, it does not fetch theirs either.
    pub files: Option<Arc<dyn SnapshotFiles>>,
    /// What clients and operators may ask of it.
    pub api: Option<Arc<dyn Api>>,
}

impl fmt::Debug for Offers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offers").field("files", &self.files).field("api", &self.api.is_some()).finish()
    }
}

/// How a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Health {
    /// It runs, and has not failed.
    pub alive: bool,
    /// It knows a leader and has applied what was committed when it last asked: it can serve.
    pub ready: bool,
    pub leads: bool,
}

/// How this node introduces itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalHello {
    pub id: NodeId,
    pub incarnation: Incarnation,
    /// Unknown until the cluster has had a leader; see [`Transport::set_cluster`](super::Transport::set_cluster).
    pub cluster: ClusterId,
    /// Where others should dial this node, as `host:port`.
    pub address: String,
    /// A hash of the membership that this node would found a cluster with; 0 if it would not. Two members compare it
    /// until both know their cluster.
    pub membership_hash: u64,
}

/// A node to keep a link to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// `host:port`. The host is resolved at every attempt to connect.
    pub address: String,
    /// Which life of its data directory the membership records; unknown lets any through.
    pub incarnation: Incarnation,
    /// The membership here has it, so that it need not ask to be let in. One that does not, but is to be answered, was
    /// heard of by its own link: this node may lag behind.
    pub member: bool,
}

/// What happens on the links.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerEvent {
    /// In the order in which `from` sent them, one event for each batch received.
    Messages { from: NodeId, messages: Vec<PeerMessage> },
    /// A link stands: `inbound` brings messages of `peer`, the other kind takes messages to it.
    Connected { peer: NodeId, address: String, incarnation: Incarnation, inbound: bool },
    /// Nothing reaches `peer`, and what waited for it is dropped. Told once, until it is connected again.
    Unreachable { peer: NodeId, why: String },
    /// A link was refused, by this side or the other; `why` says what to do. For a link that this node dials it is
    /// told again only when the code changes or the link has stood in between.
    Refused {
        /// Unknown if it could not even introduce itself.
        peer: Option<NodeId>,
        address: String,
        code: RefusedCode,
        why: String,
        /// The other side refused this node; if not, this node refused the other.
        by_peer: bool,
    },
    /// A member of another cluster dialled this node and takes it for its own member of this name.
    Claimed { by: NodeId, address: String },
    /// A member said where it is, without a link.
    Heard { peer: NodeId, address: String, incarnation: Incarnation },
    /// A node that is no member here asks to be let in. Whoever is done with it says so to `reply`; without, the node
    /// is told that it is under way, and asks again.
    JoinAsked { id: NodeId, address: String, incarnation: Incarnation, reply: JoinReply },
    /// What came of asking at `address` to be let in: this node is a member, or why it is not one yet. `members` are
    /// those whom the one that answered knows.
    Joining { address: String, members: BTreeMap<NodeId, String>, answer: Result<(), JoinTrouble> },
    /// Who answers at an address that was probed, or why that cannot be `id`.
    Probed { id: NodeId, address: String, found: Result<Incarnation, String> },
    /// A peer fetches this node's snapshot; of `total` bytes so many are on their way, or there already.
    SnapshotSending { to: NodeId, bytes: u64, total: u64 },
    /// This node's newest snapshot cannot be read, so no peer can have it.
    SnapshotUnreadable { why: String },
    /// So much of a leader's snapshot is here.
    SnapshotFetching { last: EntryId, bytes: u64, total: u64 },
    /// All of it is here, verified and durable.
    SnapshotFetched { meta: SnapshotMeta, bytes: u64 },
    /// It was given up; what is here of it is kept where that is of use.
    SnapshotFetchFailed { last: EntryId, why: String },
}

/// Why a node that asked to be let in is not a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinTrouble {
    /// What is wrong and what to do.
    pub why: String,
    /// To ask again is of no use.
    pub fatal: bool,
    /// What kind of refusal it was, if one of the two would not even talk to the other.
    pub code: Option<RefusedCode>,
}

/// Why a link is refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RefusedCode {
    /// There is no protocol version that both can speak.
    ProtocolVersion,
    /// The two belong to different clusters.
    ClusterMismatch,
    /// It goes by a member's id, but it is not that member's data directory.
    IdentityMismatch,
    /// Another node than the one dialled answered.
    NotMe,
    /// It was removed from the cluster.
    Removed,
    /// Both are to found a cluster, but not with the same members.
    FoundingMismatch,
    /// It sent what is not the protocol.
    Malformed,
    /// The node has as many connections as it may have.
    TooMany,
}

/// Takes events, from any thread, in order for each link. It must not block.
pub type PeerSink = Arc<dyn Fn(PeerEvent) + Send + Sync>;

/// How it stands with the link to one peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkStatus {
    pub connected: bool,
    pub queued_messages: usize,
    pub queued_bytes: usize,
    /// Messages that were not sent because the queue was full, the message too large or the link broken, since the
    /// peer was set.
    pub dropped: u64,
}

impl RefusedCode {
    /// Whether it will be the same the next time unless somebody changes a setting.
    pub(super) const fn is_lasting(self) -> bool {
        match self {
            Self::ProtocolVersion
            | Self::ClusterMismatch
            | Self::IdentityMismatch
            | Self::Removed
            | Self::FoundingMismatch => true,
            Self::NotMe | Self::Malformed | Self::TooMany => false,
        }
    }

    /// The code as people and logs see it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ProtocolVersion => "protocol-version",
            Self::ClusterMismatch => "cluster-mismatch",
            Self::IdentityMismatch => "identity-mismatch",
            Self::NotMe => "not-me",
            Self::Removed => "removed",
            Self::FoundingMismatch => "founding-mismatch",
            Self::Malformed => "malformed",
            Self::TooMany => "too-many",
        }
    }
}

impl fmt::Display for RefusedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

//! What a node says of itself.

use std::time::Duration;

use graft_domain::{ClusterId, Index, NodeId, Term};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    pub id: NodeId,
    /// `leader`, `follower`, `learner`, `pre-candidate`, `candidate`, or `failed` if the store or the machine gave up.
    pub role: &'static str,
    pub term: Term,
    pub leader: Option<NodeId>,
    pub last: Index,
    pub commit: Index,
    pub applied: Index,
    pub snapshot: Index,
    pub cluster: ClusterId,
    pub members: Vec<MemberStatus>,
    /// Whether a quorum hears the leader, as far as can be told from here.
    pub has_quorum: bool,
    /// Why the node does not work, if so.
    pub error: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberStatus {
    pub id: NodeId,
    pub address: String,
    pub voter: bool,
    /// What the leader knows it to have; only the leader tells.
    pub matched: Option<Index>,
    /// How long ago the leader heard it; only the leader tells.
    pub last_contact: Option<Duration>,
    /// Whether there is a connection to it; none for the node itself.
    pub reachable: Option<bool>,
}

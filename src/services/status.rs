//! What a node says of itself.

use std::time::Duration;

use graft_domain::{ClusterId, Index, NodeId, Term};

use crate::replica::Replica;

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
    /// Why there is no connection to it, in words, if so.
    pub trouble: Option<String>,
}

impl Replica {
    pub fn status(&self) -> Status {
        let core = &self.core;
        let progress = |id: NodeId| core.followers().find(|(member, _, _)| *member == id);
        let member = |(id, member): (&NodeId, &graft_domain::Member)| MemberStatus {
            id: *id,
            address: member.address.to_string(),
            voter: member.voter || member.outgoing,
            matched: if *id == core.id() { Some(core.durable()) } else { progress(*id).map(|(_, matched, _)| matched) },
            last_contact: progress(*id).map(|(_, _, contact)| self.clock.now.since(contact)),
            reachable: (*id != core.id()).then(|| self.reachable.contains(id)),
            trouble: self.troubles.get(id).cloned(),
        };
        Status {
            id: core.id(),
            role: if self.failure.is_some() { "failed" } else { core.role() },
            term: core.term(),
            leader: core.leader(),
            last: core.last().index,
            commit: core.commit(),
            applied: core.applied(),
            snapshot: core.snapshot().index,
            cluster: core.cluster(),
            members: core.membership().members.iter().map(member).collect(),
            has_quorum: core.has_quorum(),
            error: self.failure.clone(),
        }
    }
}

//! What happens to a node and its cluster, for those who watch: `node.events()`.

use graft_domain::{Index, NodeId, Term};

/// One thing that happened, as seen from here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// Another leader, another term, or none.
    Leader { term: Term, leader: Option<NodeId> },
    /// What this node is now; the words of [`crate::Status::role`].
    Role { role: &'static str, term: Term },
    /// A step of a change of the membership. `step` is a word: `learner` (it gets the log), `joint`, `voter`, `removed`,
    /// `demoted`, `address`, `cancelled`, `settled`; `committed` tells whether it is certain.
    Membership { index: Index, step: &'static str, member: Option<NodeId>, committed: bool },
    /// A newcomer catches up: it has `matched` of `last` entries. On the leader only.
    CatchUp { member: NodeId, matched: Index, last: Index },
    /// A snapshot of this node. `phase` is a word: `writing`, `written`, `failed`, `fetching`, `applying`, `installed`,
    /// `sending`. Bytes are of the file, as far as known.
    Snapshot { phase: &'static str, index: Index, bytes: u64, total: u64, peer: Option<NodeId>, why: Option<String> },
    /// A member is connected, or is not any more, in which case `why` says why.
    Link { member: NodeId, connected: bool, why: Option<String> },
    /// This node's certificate. `phase` is a word: `renewed`, `refused` (a new one cannot be used, and the one before is, still),
    /// `expiring`. `expires` is that of the one in use, in seconds since the Unix epoch.
    Certificate { phase: &'static str, expires: i64, why: Option<String> },
}

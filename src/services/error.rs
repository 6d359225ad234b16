//! Why a call was not done, and what is known of it.

use std::fmt;

use graft_domain::{Index, NodeId, Term};

use crate::ports::Reply;

/// Certainly not applied, and will not be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    NotLeader {
        leader: Option<NodeId>,
    },
    /// Nobody leads, as far as this member knows.
    NoLeader,
    /// Nobody can lead: fewer members than a majority can be reached from here, this node counted.
    NoQuorum {
        reachable: usize,
        needed: usize,
    },
    /// A limit is reached; the text says which.
    Busy(String),
    TooLarge {
        bytes: u64,
        limit: u64,
    },
    /// The deadline came before the command was proposed.
    Timeout,
    /// The change of the membership cannot be made; the text says what stands in the way.
    Membership(String),
    /// No snapshot was taken; the text says why.
    Snapshot(String),
    /// This node is not a member of the cluster any more.
    Removed,
    /// The node is stopping or stopped.
    Stopped,
    /// The machine or the store of this node failed; the text is what happened.
    Halted(String),
}

/// How a call ended. There are no other ways.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Applied, or answered; for a query `index` is what it had seen.
    Done {
        index: Index,
        term: Term,
        reply: Reply,
    },
    Refused(Refusal),
    /// It may or may not be applied, now or later; the text says why that is not known.
    Unknown(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { leader: Some(leader) } => write!(f, "this node is not the leader, {leader} is"),
            Self::NotLeader { leader: None } => f.write_str("this node is not the leader"),
            Self::NoLeader => f.write_str("the cluster has no leader"),
            Self::NoQuorum { reachable, needed } => {
                write!(f, "{reachable} voting members are reachable from here, {needed} are needed")
            }
            Self::Busy(what) => write!(f, "busy: {what}"),
            Self::TooLarge { bytes, limit } => write!(f, "{bytes} bytes are more than the limit of {limit}"),
            Self::Timeout => f.write_str("the deadline came first; nothing was applied"),
            Self::Membership(why) => f.write_str(why),
            Self::Snapshot(why) => write!(f, "no snapshot was taken: {why}"),
            Self::Removed => f.write_str("this node was removed from the cluster"),
            Self::Stopped => f.write_str("the node is stopped"),
            Self::Halted(why) => write!(f, "this node halted: {why}"),
        }
    }
}

impl std::error::Error for Refusal {}

//! Why a call was not done, and what is known of it.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use graft_domain::{Index, NodeId, Term};

use crate::commands::Slot;
use crate::ports::Reply;

/// Certainly not applied, and will not be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    NotLeader {
        leader: Option<NodeId>,
    },
    /// Nobody leads, as far as this member knows.
    NoLeader,
    /// A client reaches no member; the text names the endpoints and what is wrong with each.
    Unreachable(String),
    /// A client finds members of another cluster than its own, and none of its own; the text names the endpoints.
    Strange(String),
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
    /// The session that the command names does not exist any more. The command was not applied by this attempt; an earlier
    /// one under the same place in the session may have been.
    SessionExpired,
    /// Who calls may not do this; the text says who that is and what it takes.
    Denied(String),
    /// No replica could make anything of the call: an unknown name, wrong types; the text says what is wrong.
    Invalid(String),
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
    /// It may or may not be applied, now or later.
    Unknown {
        /// Why that is not known.
        why: String,
        /// The command's place in its session: made again under it, it is applied once and gets the first answer.
        slot: Option<Slot>,
    },
    /// The replicas' digests as of `index`: those that came in time, or why there is none.
    Compared {
        index: Index,
        digests: BTreeMap<NodeId, Result<Bytes, String>>,
    },
}

impl Outcome {
    /// Not known, and there is no way to ask again.
    pub fn unknown(why: impl Into<String>) -> Self {
        Self::Unknown { why: why.into(), slot: None }
    }
}

impl Refusal {
    /// The code of the error that a caller gets, in whatever language.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotLeader { .. } => "NOT_LEADER",
            Self::NoLeader | Self::Unreachable(_) => "NO_LEADER",
            Self::Strange(_) => "CLUSTER_MISMATCH",
            Self::NoQuorum { .. } => "NO_QUORUM",
            Self::Busy(_) => "BUSY",
            Self::TooLarge { .. } => "TOO_LARGE",
            Self::Timeout => "TIMEOUT",
            Self::Membership(_) => "MEMBERSHIP_REFUSED",
            Self::Snapshot(_) => "STORAGE",
            Self::Removed => "REMOVED",
            Self::Stopped => "STOPPED",
            Self::Halted(_) => "HALTED",
            Self::SessionExpired => "SESSION_EXPIRED",
            Self::Denied(_) => "TLS",
            Self::Invalid(_) => "INVALID_CALL",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { leader: Some(leader) } => write!(f, "this node is not the leader, {leader} is"),
            Self::NotLeader { leader: None } => f.write_str("this node is not the leader"),
            Self::NoLeader => f.write_str("the cluster has no leader"),
            Self::NoQuorum { reachable, needed } => {
                let (are, need) =
                    (if *reachable == 1 { " is" } else { "s are" }, if *needed == 1 { "is" } else { "are" });
                write!(f, "{reachable} voting member{are} reachable from here, {needed} {need} needed")
            }
            Self::Busy(what) => write!(f, "busy: {what}"),
            Self::TooLarge { bytes, limit } => write!(f, "{bytes} bytes are more than the limit of {limit}"),
            Self::Timeout => f.write_str("the deadline came first; nothing was applied"),
            Self::Membership(why)
            | Self::Snapshot(why)
            | Self::Unreachable(why)
            | Self::Strange(why)
            | Self::Denied(why) => f.write_str(why),
            Self::Removed => f.write_str("this node was removed from the cluster"),
            Self::Stopped => f.write_str("the node is stopped"),
            Self::Halted(why) => write!(f, "this node halted: {why}"),
            Self::SessionExpired => f.write_str("the session has expired: it was not used for its time to live"),
            Self::Invalid(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Refusal {}

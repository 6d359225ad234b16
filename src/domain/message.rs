//! What members say to one another: a variant per message, each with its own fields.

use alloc::vec::Vec;
use core::time::Duration;

use crate::entry::Entry;
use crate::ids::{EntryId, Index, NodeId, ReadId, Term};

/// A message with its sender, its recipient and the sender's term.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Envelope {
    pub from: NodeId,
    pub to: NodeId,
    /// The sender's current term. A pre-vote does not raise it: the term it asks about is in the request.
    pub term: Term,
    pub message: Message,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Message {
    /// "Would you vote for me?" (thesis §9.6). Neither side changes its term by asking.
    PreVote(VoteRequest),
    PreVoteReply(VoteReply),
    /// Thesis §3.4.
    Vote(VoteRequest),
    VoteReply(VoteReply),
    /// Thesis §3.5; without entries it is the heartbeat.
    Append(Append),
    AppendReply(AppendReply),
    /// "A snapshot up to here is yours to fetch" (thesis §5); its bytes travel beside the messages.
    Snapshot(SnapshotOffer),
    /// "Campaign at once" (thesis §3.10).
    TimeoutNow,
    /// "What may I read?" (thesis §6.4), asked of the leader by another member.
    Read {
        read: ReadId,
        /// The leader's lease is good enough, if it holds one.
        lease: bool,
    },
    /// The index to have applied before serving the read; none if this is not a leader that can tell.
    ReadReply {
        read: ReadId,
        index: Option<Index>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VoteRequest {
    /// The term to be leader of: the sender's own in a vote, the one after it in a pre-vote.
    pub term: Term,
    /// The last entry of the candidate's log.
    pub last: EntryId,
    /// The candidate's commit index. A voter that has never held any state founds a cluster only with others that have none.
    pub commit: Index,
    /// Asked for by the leader, so its followers need not protect it (thesis §4.2.3).
    pub transfer: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VoteReply {
    /// The term of the request this answers.
    pub term: Term,
    pub granted: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Append {
    /// Which stay of the follower in the leader's configuration this belongs to; echoed.
    pub session: u64,
    /// The leader's count of heartbeat rounds; echoed. An acknowledgement of round n was asked for when round n began.
    pub round: u64,
    /// The entry just before `entries`.
    pub prev: EntryId,
    pub entries: Vec<Entry>,
    pub commit: Index,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AppendReply {
    pub session: u64,
    pub round: u64,
    /// For so long from when it heard this the sender votes for nobody else: its election timeout. Zero promises nothing.
    pub promise: Duration,
    pub outcome: AppendOutcome,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AppendOutcome {
    /// The log matches the leader's up to here, durably.
    Matched(Index),
    /// Entry `prev` is not in the log; the last entry that could match is `hint`.
    Missing { prev: Index, hint: EntryId },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SnapshotOffer {
    pub session: u64,
    pub round: u64,
    /// The last entry that the snapshot covers.
    pub last: EntryId,
}

impl Message {
    /// One word for logs, metrics and transcripts.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::PreVote(_) => "pre-vote",
            Self::PreVoteReply(_) => "pre-vote-reply",
            Self::Vote(_) => "vote",
            Self::VoteReply(_) => "vote-reply",
            Self::Append(_) => "append",
            Self::AppendReply(_) => "append-reply",
            Self::Snapshot(_) => "snapshot",
            Self::TimeoutNow => "timeout-now",
            Self::Read { .. } => "read",
            Self::ReadReply { .. } => "read-reply",
        }
    }
}

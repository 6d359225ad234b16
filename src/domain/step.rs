//! What goes into a step and what comes out of it. Everything the core wants of the world is a value here.

use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;

use crate::entry::Entry;
use crate::ids::{EntryId, Index, NodeId, ReadId, Term};
use crate::membership::Membership;
use crate::message::Envelope;

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Input {
    /// [`crate::RaftCore::deadline`] has come. Handle waiting messages first: they may be the heartbeat it missed.
    Timeout,
    Receive(Envelope),
    /// Commands to append, in this order; the answer is the index of the first.
    Propose(Vec<Bytes>),
    /// Other members wait for what was proposed up to now to be committed: they are told at once when it is.
    Awaited,
    /// A read to confirm; it comes back in [`Ready::reads`]. With `lease` the leader's lease is good enough, judged with the
    /// time that [`crate::RaftCore::ready`] is called with; if it holds none, the read is confirmed like any other.
    Read {
        read: ReadId,
        lease: bool,
    },
    /// Make this the membership. It may give or take one vote, or be joint; a joint one is left by itself once it is
    /// committed. Only a leader that has committed an entry of its term takes it, and only when the last one is committed.
    ChangeMembership(Arc<Membership>),
    /// Hand over to this member, or to the best one.
    TransferLeadership(Option<NodeId>),
    /// Every write up to this one is durable.
    Persisted {
        seq: u64,
    },
    /// The store is poisoned: nothing more will become durable. The core leaves its term and falls silent.
    StorageFailed,
    /// The machine halted: hand over leadership and never seek it again. The log is kept and votes are cast as before.
    Unfit,
    /// Every entry up to this one is applied.
    Applied {
        index: Index,
    },
    /// A snapshot of the machine at this entry is durable and was verified; the log may forget what it covers and nobody needs.
    SnapshotTaken {
        last: EntryId,
    },
    /// A snapshot that a leader offered is here and durable, and the machine restored from it, unless it was past it already:
    /// a machine never goes back. What the log has to forget by it is in [`Ready::compact`].
    SnapshotInstalled {
        last: EntryId,
        membership: Arc<Membership>,
    },
    /// The follower could not be given the snapshot.
    SnapshotFailed(NodeId),
    /// Messages to this member are being lost.
    Unreachable(NodeId),
}

/// What is to be done after a step, or after many. Do all of it, in any order, except that nothing in `send` may leave before it is handed out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ready {
    /// Make this durable, after all earlier writes, and report [`Input::Persisted`].
    pub write: Option<Write>,
    /// The log in memory begins after this entry now: the store may forget up to it too. Of a stored log that does not hold
    /// this very entry nothing may be kept. It comes after the writes of earlier calls and before `write`.
    pub compact: Option<EntryId>,
    pub send: Vec<Envelope>,
    /// Committed, durable here, in order, each handed out once.
    pub apply: Vec<Entry>,
    pub reads: Vec<ReadOutcome>,
    /// Followers that need a snapshot instead of entries.
    pub snapshots: Vec<SnapshotNeed>,
    /// A leader has a snapshot for this node: fetch it.
    pub fetch: Option<SnapshotFetch>,
    pub transitions: Vec<Transition>,
}

/// One numbered write. `entries` replace everything in the log from the first one's index onwards.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Write {
    pub seq: u64,
    pub term: Term,
    pub vote: Option<NodeId>,
    pub entries: Vec<Entry>,
    /// A hint for recovery: at most what is known to be committed. Beyond the log's end it says that this log was blank and is
    /// being filled, and how far it has to come before this node votes; [`Index::LAST`] that this is not known.
    pub commit: Index,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ReadOutcome {
    pub read: ReadId,
    /// Serve the read once this index is applied.
    pub outcome: Result<Index, Rejected>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SnapshotNeed {
    pub to: NodeId,
    /// What the follower lacks begins here; the log begins later.
    pub from: Index,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SnapshotFetch {
    pub leader: NodeId,
    pub last: EntryId,
}

/// Why an input was turned down. Nothing was changed by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rejected {
    NotLeader {
        leader: Option<NodeId>,
    },
    /// A limit is reached; later is better.
    Busy,
    /// Leadership is being handed over.
    Transferring,
    /// The member cannot lead: not a voter, or this node itself.
    BadTransfer,
    /// The last membership, or the leader's first entry, is not committed yet, or a joint configuration is not left yet, or
    /// those who are to vote are not filled yet ([`crate::FollowerView::is_filled`]).
    ChangeInProgress,
    /// Not one step away from the membership in force, or nobody would vote in it.
    BadMembership,
    /// The store failed or an invariant broke; this core does nothing any more.
    Silenced,
}

/// What changed, for those who watch.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Transition {
    Follower {
        term: Term,
        leader: Option<NodeId>,
    },
    PreCandidate {
        term: Term,
    },
    Candidate {
        term: Term,
    },
    Leader {
        term: Term,
    },
    /// In force, though perhaps not committed.
    Membership {
        index: Index,
        membership: Arc<Membership>,
    },
    MembershipCommitted {
        index: Index,
    },
    /// Entries from here on were replaced by another leader's.
    Truncated {
        from: Index,
    },
    /// A peer or a disk showed something that cannot be; the core falls silent rather than guess.
    Breach(Breach),
}

/// An invariant that does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Breach {
    /// Another leader in this node's own term of office.
    TwoLeaders { term: Term, other: NodeId },
    /// An append that would replace a committed entry.
    CommittedConflict { index: Index },
    /// A snapshot that disagrees with a committed entry.
    SnapshotConflict { last: EntryId },
}

/// What a store found when it was opened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    pub term: Term,
    pub vote: Option<NodeId>,
    /// The last entry that the snapshot covers; zero without one.
    pub snapshot: EntryId,
    /// The membership at the snapshot, or the one the cluster is founded with; none if this node waits to be invited.
    pub membership: Arc<Membership>,
    /// Everything after the snapshot.
    pub entries: Vec<Entry>,
    /// A hint, never trusted beyond the log's end. If it is beyond, this node may have acknowledged what it lacks, and neither
    /// votes nor campaigns until it has come so far, or, at [`Index::LAST`], until a leader has filled it.
    pub commit: Index,
    /// The last entry that the machine has applied on its own disk.
    pub applied: Index,
    /// For how long an earlier run may have promised a leader to vote for nobody else.
    pub promised: Duration,
}

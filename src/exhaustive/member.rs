//! One member, and what can happen to it.

use std::sync::Arc;

use graft_domain::{
    ClusterId, Config, Entry, EntryId, Envelope, Index, Instant, Membership, NodeId, RaftCore, SnapshotFetch, Term,
};

use crate::checks::Broken;
use crate::disk::{Disk, Snapshot};
use crate::kept::Kept;
use crate::scenario::Rules;

/// What every clock shows when something happens. To a leader no time has passed, so that a quorum has been heard; to everyone
/// else more than an election timeout since all before, so that it may campaign and owes its vote to nobody.
pub(crate) const NOW: Instant = Instant(1);
/// An election timeout after that. It is so short that there is nothing to draw from.
pub(crate) const LATER: Instant = Instant(2);

/// A core with its disk. What it has applied is what it was handed: the machine is as fast as can be.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Member {
    pub(crate) core: RaftCore,
    pub(crate) disk: Disk,
    /// A snapshot that a leader has offered.
    pub(crate) fetch: Option<SnapshotFetch>,
}

/// Something that happens to one member.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Act {
    /// A message arrives.
    Deliver(Kept<Envelope>),
    /// It has heard nothing for an election timeout: it campaigns, or steps down.
    Timeout,
    /// A leader lets everyone hear it.
    Beat,
    /// The oldest operation of its disk is done, and the core hears of it.
    Persist,
    /// The power goes, and comes again.
    Crash,
    /// A command, by its number.
    Propose(u8),
    Change(Kept<Membership>),
    Transfer(NodeId),
    /// An election timeout passes in which somebody is heard, so that a transfer is given up.
    Expire(Kept<Envelope>),
    /// A snapshot of what is applied up to here is durable.
    Snapshot(Index),
    /// A leader's snapshot is here, durable, and the machine is restored from it.
    Install(Kept<Snapshot>),
}

/// An entry that a member takes for committed and did not before.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Commit {
    pub(crate) entry: Entry,
    /// As leader of which term; none if it was told, or remembers.
    pub(crate) by: Option<Term>,
    /// In force where it is known first.
    pub(crate) membership: Arc<Membership>,
}

/// A membership that a leader has appended.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Changed {
    pub(crate) index: Index,
    /// Where the one before it stands.
    pub(crate) before: Index,
}

/// What comes of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Outcome {
    pub(crate) member: Kept<Member>,
    pub(crate) sends: Vec<Kept<Envelope>>,
    pub(crate) commits: Vec<Commit>,
    pub(crate) applies: Vec<Entry>,
    pub(crate) changes: Vec<Changed>,
    /// It has become leader of this term.
    pub(crate) leads: Option<Term>,
    /// This is durable now, and others may fetch it.
    pub(crate) snapshot: Option<Kept<Snapshot>>,
    /// The core would not: nothing came of it.
    pub(crate) refused: bool,
    pub(crate) broken: Option<Broken>,
}

impl Member {
    /// One that starts from this disk.
    pub(crate) fn new(id: NodeId, disk: Disk, rules: Rules, now: Instant) -> Self {
        let core = RaftCore::new(config(id, rules), disk.recover(), now);
        Self { core, disk, fetch: None }
    }

    /// The entries in memory.
    pub(crate) fn log(&self) -> impl Iterator<Item = &Entry> {
        (self.core.base().index.0 + 1..=self.core.last().index.0).filter_map(|index| self.core.entry(Index(index)))
    }

    /// The term of a place in memory; none where nothing is known.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        let base: EntryId = self.core.base();
        if index == base.index { Some(base.term) } else { self.core.entry(index).map(|entry| entry.term) }
    }
}

/// A snapshot cuts the log where it ends, so that one entry too little in the log is seen.
fn config(id: NodeId, rules: Rules) -> Config {
    let mut config = Config::new(id, ClusterId(1), 1);
    config.election_timeout = LATER.since(NOW);
    config.heartbeat = std::time::Duration::ZERO;
    (config.tail_bytes, config.held_bytes_max) = (0, 0);
    if rules.one_by_one {
        config.append_bytes_max = 1;
    }
    config
}

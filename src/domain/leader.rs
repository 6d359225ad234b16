//! What only a leader has, and its beat.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::ids::{Index, Instant, NodeId, ReadId};
use crate::lease::Rounds;
use crate::progress::Progress;
use crate::quorum;
use crate::raft::{RaftCore, Role};

/// A leader's state: gone with its term, so that nothing of it can outlive the term.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Leader {
    /// Its first entry: once that is committed it knows what is (thesis §6.4).
    pub(crate) first: Index,
    pub(crate) progress: BTreeMap<NodeId, Progress>,
    /// Stays counted so far, to tell a follower's from an earlier one's.
    pub(crate) sessions: u64,
    /// Heartbeat rounds begun.
    pub(crate) round: u64,
    pub(crate) rounds: Rounds,
    pub(crate) heartbeat_due: Instant,
    /// That everything up to here is committed is told at once.
    pub(crate) awaited: Index,
    /// When those whom entries have not told of it are told how far is committed.
    pub(crate) notice_due: Instant,
    /// A round is to begin with the next messages.
    pub(crate) beat: bool,
    pub(crate) reads: VecDeque<PendingRead>,
    /// Those that came in this turn and that the lease is good enough for, with the members that asked.
    pub(crate) lease_reads: Vec<(ReadId, Option<NodeId>)>,
    pub(crate) transfer: Option<Transfer>,
    /// Somebody was told to campaign in this term: there is no lease in it any more.
    pub(crate) yielded: bool,
    pub(crate) uncommitted_bytes: usize,
}

/// A read that waits for a quorum to confirm the leader in a round that began after it arrived.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct PendingRead {
    pub(crate) read: ReadId,
    /// The member that asked; none if it was asked here.
    pub(crate) from: Option<NodeId>,
    pub(crate) index: Index,
    pub(crate) round: u64,
}

/// Handing over leadership (thesis §3.10).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Transfer {
    pub(crate) to: NodeId,
    /// Given up then, and commands are taken again.
    pub(crate) deadline: Instant,
    pub(crate) told: bool,
}

impl Leader {
    pub(crate) fn new(first: Index, heartbeat_due: Instant, uncommitted_bytes: usize) -> Self {
        Self {
            first,
            progress: BTreeMap::new(),
            sessions: 0,
            round: 0,
            rounds: Rounds::default(),
            heartbeat_due,
            awaited: first,
            notice_due: Instant::NEVER,
            beat: true,
            reads: VecDeque::new(),
            lease_reads: Vec::new(),
            transfer: None,
            yielded: false,
            uncommitted_bytes,
        }
    }

    /// Whether nobody waits, and all others have everything up to here.
    fn is_at_rest(&self, last: Index) -> bool {
        let is_asked = !self.reads.is_empty() || self.transfer.is_some();
        !is_asked && self.progress.values().all(|one| one.matched == last)
    }

    pub(crate) fn deadline(&self) -> Instant {
        let transfer = self.transfer.as_ref().map_or(Instant::NEVER, |transfer| transfer.deadline);
        self.heartbeat_due.min(self.notice_due).min(transfer)
    }
}

impl RaftCore {
    /// Gives every member of the membership in force a progress. Those who leave keep theirs until that is committed.
    pub(crate) fn track_members(&mut self) {
        let membership = Arc::clone(self.membership());
        let committed = Arc::clone(self.membership_at(self.commit));
        let (own, now, next) = (self.config.id, self.now, self.log.last().index.next());
        let Role::Leader(leader) = &mut self.role else { return };
        leader.progress.retain(|id, _| membership.contains(id) || committed.contains(id));
        for id in membership.members.keys().filter(|id| **id != own) {
            if !leader.progress.contains_key(id) {
                leader.sessions += 1;
                leader.progress.insert(*id, Progress::new(leader.sessions, next, now));
            }
        }
    }

    /// Those who left have been sent the entry that says so, and that it is committed: that is the last they hear.
    pub(crate) fn dismiss_leavers(&mut self) {
        let membership = Arc::clone(self.membership());
        let is_committed = self.membership_index() <= self.commit;
        if let Role::Leader(leader) = &mut self.role
            && is_committed
        {
            leader.progress.retain(|id, _| membership.contains(id));
        }
    }

    /// Whether a quorum was heard within an election timeout, this node being always heard.
    pub(crate) fn hears_quorum(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let recent = |id: &NodeId| {
            let heard = |p: &Progress| self.now.since(p.contact) < self.config.election_timeout;
            *id == self.config.id || leader.progress.get(id).is_some_and(heard)
        };
        quorum::is_quorum(self.membership(), recent)
    }

    /// The leader's clock has struck: step down if nobody listens, hand over if it should not lead, else let everyone hear it.
    pub(crate) fn on_heartbeat_due(&mut self) {
        if !self.hears_quorum() {
            return self.follow(self.term, None);
        }
        let in_vain = self.end_transfer();
        self.remind_target();
        if self.must_abdicate() {
            if in_vain {
                return self.follow(self.term, None);
            }
            self.abdicate();
        }
        let (now, last, config) = (self.now, self.log.last().index, &self.config);
        let is_written = self.durability.index() >= last;
        let Role::Leader(leader) = &mut self.role else { return };
        if now >= leader.heartbeat_due {
            let is_at_rest = is_written && leader.is_at_rest(last);
            leader.heartbeat_due = now + if is_at_rest { config.rest() } else { config.heartbeat };
            leader.beat = true;
            self.shorten();
        }
    }
}

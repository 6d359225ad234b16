//! Linearizable reads without writing (thesis §6.4): the leader names an index, a quorum confirms that it still leads, or has
//! promised that nobody else does.

use alloc::vec::Vec;

use crate::ids::{Index, Instant, NodeId, ReadId};
use crate::leader::PendingRead;
use crate::message::Message;
use crate::quorum;
use crate::raft::{RaftCore, Role};
use crate::step::{ReadOutcome, Rejected};

/// A read that was passed to the leader.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct ForwardedRead {
    leader: NodeId,
    asked: Instant,
}

impl ForwardedRead {
    pub(crate) fn rebase(&mut self, now: Instant, to: Instant) {
        self.asked = self.asked.moved(now, to);
    }
}

impl RaftCore {
    /// A read asked for here: confirmed if this is the leader, else passed to it.
    pub(crate) fn read(&mut self, read: ReadId, lease: bool) -> Result<(), Rejected> {
        match self.leader() {
            Some(leader) if leader == self.config.id => self.confirm(read, lease, None),
            Some(_) if self.forwarded_reads.len() >= self.config.reads_max => Err(Rejected::Busy),
            Some(leader) => {
                self.forwarded_reads.insert(read, ForwardedRead { leader, asked: self.now });
                self.reads_expire = self.reads_expire.min(self.now + self.config.election_timeout);
                self.send(leader, Message::Read { read, lease });
                Ok(())
            }
            None => Err(Rejected::NotLeader { leader: None }),
        }
    }

    /// Takes in a read as the leader.
    fn confirm(&mut self, read: ReadId, lease: bool, from: Option<NodeId>) -> Result<(), Rejected> {
        let reads_max = self.config.reads_max;
        let Role::Leader(leader) = &mut self.role else { return Err(Rejected::NotLeader { leader: None }) };
        if leader.reads.len() + leader.lease_reads.len() >= reads_max {
            return Err(Rejected::Busy);
        }
        if lease {
            leader.lease_reads.push((read, from));
        } else {
            self.await_round(read, from);
        }
        Ok(())
    }

    /// Queues a read for the next round of heartbeats. All that arrive before it begins share it, and only
    /// acknowledgements of that round or a later one count: an older one may be of a leader that has been deposed since.
    fn await_round(&mut self, read: ReadId, from: Option<NodeId>) {
        let commit = self.commit;
        let Role::Leader(leader) = &mut self.role else { return };
        leader.beat = true;
        // Before its first entry is committed a leader does not know what is; when that entry is applied, so is all of it.
        let index = commit.max(leader.first);
        leader.reads.push_back(PendingRead { read, from, index, round: leader.round + 1 });
    }

    /// Answers the reads of this turn that the lease is good enough for, if there is one; else they wait for a round. The
    /// time is one read after they came in: at that time at the latest nobody else led, so what is committed here is all
    /// that anybody was told of.
    pub(crate) fn judge_lease_reads(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let reads = core::mem::take(&mut leader.lease_reads);
        if reads.is_empty() {
            return;
        }
        let holds_lease = self.holds_lease(self.now);
        if let Role::Leader(leader) = &mut self.role
            && reads.iter().any(|(_, from)| from.is_some())
        {
            // Whoever asked reads when it knows that so much is committed.
            leader.notice_due = self.now;
        }
        for (read, from) in reads {
            if holds_lease {
                self.answer(read, from, self.commit);
            } else {
                self.await_round(read, from);
            }
        }
    }

    fn answer(&mut self, read: ReadId, from: Option<NodeId>, index: Index) {
        match from {
            Some(from) => self.send(from, Message::ReadReply { read, index: Some(index) }),
            None => self.reads.push(ReadOutcome { read, outcome: Ok(index) }),
        }
    }

    pub(crate) fn on_read(&mut self, from: NodeId, read: ReadId, lease: bool) {
        if self.confirm(read, lease, Some(from)).is_err() {
            self.send(from, Message::ReadReply { read, index: None });
        }
    }

    pub(crate) fn on_read_reply(&mut self, from: NodeId, read: ReadId, index: Option<Index>) {
        if self.forwarded_reads.get(&read).is_some_and(|asked| asked.leader == from) {
            self.forwarded_reads.remove(&read);
            let outcome = index.ok_or(Rejected::NotLeader { leader: None });
            self.reads.push(ReadOutcome { read, outcome });
        }
    }

    /// Turns down the reads that the leader has not answered for an election timeout: the question or the answer was lost.
    pub(crate) fn expire_reads(&mut self) {
        if self.now < self.reads_expire {
            return;
        }
        let (now, timeout) = (self.now, self.config.election_timeout);
        let outcome = Err(Rejected::NotLeader { leader: self.leader() });
        let late = |_: &ReadId, forwarded: &mut ForwardedRead| now.since(forwarded.asked) >= timeout;
        let expired = self.forwarded_reads.extract_if(.., late).map(|(read, _)| ReadOutcome { read, outcome });
        self.reads.extend(expired);
        let oldest = self.forwarded_reads.values().map(|forwarded| forwarded.asked).min();
        self.reads_expire = oldest.map_or(Instant::NEVER, |asked| asked + timeout);
    }

    /// Answers every read whose round a quorum has acknowledged.
    pub(crate) fn release_reads(&mut self) {
        let membership = alloc::sync::Arc::clone(self.membership());
        let own = self.config.id;
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.reads.is_empty() {
            return;
        }
        let acknowledged = |id: &NodeId| {
            if *id == own { leader.round } else { leader.progress.get(id).map_or(0, |p| p.round) }
        };
        let confirmed = quorum::reached(&membership, acknowledged);
        let mut released = Vec::new();
        while let Some(read) = leader.reads.pop_front_if(|read| read.round <= confirmed) {
            released.push(read);
        }
        for PendingRead { read, from, index, .. } in released {
            self.answer(read, from, index);
        }
    }

    /// The leader changed or is gone: reads that waited for it are turned down, and can be asked anew.
    pub(crate) fn fail_reads(&mut self, leader: Option<NodeId>) {
        let mut failed: Vec<ReadId> = core::mem::take(&mut self.forwarded_reads).into_keys().collect();
        if let Role::Leader(own) = &mut self.role {
            failed.extend(core::mem::take(&mut own.reads).iter().filter(|r| r.from.is_none()).map(|r| r.read));
            let leased = core::mem::take(&mut own.lease_reads);
            failed.extend(leased.iter().filter(|(_, from)| from.is_none()).map(|(read, _)| *read));
        }
        let outcome = Err(Rejected::NotLeader { leader });
        self.reads.extend(failed.into_iter().map(|read| ReadOutcome { read, outcome }));
    }
}

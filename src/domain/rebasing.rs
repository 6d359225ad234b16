//! What a core counts from: the origin of its clock and of its write numbers. Neither means anything but by differences.

use crate::ids::Instant;
use crate::leader::Leader;
use crate::raft::{RaftCore, Role};

impl RaftCore {
    /// Counts time from another origin, by which the clock shows `to` now, and writes from the last durable one. To whoever
    /// does the same it behaves as before: what it is told and tells is smaller by as much. A promise that waits for the disk
    /// twice leaves once, as if the network had lost the other.
    ///
    /// Cores that have come to the same by different ways are equal after it, as a search through all ways wants them. What is
    /// further back than the new origin counts as at it, so `to` has to be as large as the longest time that matters.
    pub fn rebase(&mut self, to: Instant) {
        let now = self.now;
        for time in [&mut self.now, &mut self.election_deadline, &mut self.leader_contact, &mut self.reads_expire] {
            *time = time.moved(now, to);
        }
        self.loyalty.rebase(now, to);
        self.forwarded_reads.values_mut().for_each(|read| read.rebase(now, to));
        self.durability.rebase(now, to);
        self.log.rebase();
        if let Role::Leader(leader) = &mut self.role {
            leader.rebase(now, to);
        }
    }
}

impl Leader {
    fn rebase(&mut self, now: Instant, to: Instant) {
        self.heartbeat_due = self.heartbeat_due.moved(now, to);
        self.notice_due = self.notice_due.moved(now, to);
        self.rounds.rebase(now, to);
        if let Some(transfer) = &mut self.transfer {
            transfer.deadline = transfer.deadline.moved(now, to);
        }
        for progress in self.progress.values_mut() {
            progress.contact = progress.contact.moved(now, to);
            progress.leased = progress.leased.moved(now, to);
        }
    }
}

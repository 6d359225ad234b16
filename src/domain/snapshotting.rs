//! When the log is shortened, and when a follower needs what was cut (thesis §5).

use alloc::sync::Arc;

use crate::ids::{EntryId, NodeId};
use crate::membership::Membership;
use crate::message::{AppendOutcome, SnapshotOffer};
use crate::progress::Mode;
use crate::raft::{RaftCore, Role};
use crate::step::{Breach, SnapshotFetch, Transition};

impl RaftCore {
    /// A snapshot up to here is durable. What was not applied is not covered, whatever the caller says.
    pub(crate) fn on_snapshot_taken(&mut self, last: EntryId) {
        if last.index <= self.applied && self.log.term_at(last.index) == Some(last.term) {
            self.snapshot = self.snapshot.max(last);
            self.shorten();
        }
    }

    /// The leader offers a snapshot, and by that says that it leads.
    pub(crate) fn on_snapshot_offer(&mut self, from: NodeId, offer: SnapshotOffer) {
        if !self.hear(from) {
            return;
        }
        let SnapshotOffer { session, round, last } = offer;
        let here = last.index <= self.commit || self.log.covers(last);
        if !here {
            self.mind_the_gap();
            // Not before the disk says that there was a gap: the snapshot would hide it. The next heartbeat offers it again.
            if !self.is_blank() || self.durability.seq_of_hard_state() == 0 {
                self.fetch = Some(SnapshotFetch { leader: from, last });
            }
        }
        let outcome = if here {
            AppendOutcome::Matched(last.index.min(self.durable()))
        } else {
            AppendOutcome::Missing { prev: last.index, hint: self.log.last() }
        };
        self.acknowledge(self.durability.seq_of_hard_state(), from, (session, round), outcome);
    }

    /// The snapshot is durable, and the machine is restored from it unless it was past it. A log that leads past it keeps what
    /// comes after; any other is let go whole: entries behind a conflict must never be seen again.
    pub(crate) fn on_snapshot_installed(&mut self, last: EntryId, membership: Arc<Membership>) {
        // A leader gives the newest snapshot it has, which may end in a term that no message has told of.
        if last.term > self.term {
            self.follow(last.term, None);
        }
        let agrees = self.log.covers(last);
        // What is committed here, and the log of a leader, has whatever any snapshot covers (thesis §3.6.3).
        if !agrees && (last.index <= self.commit || self.is_leader()) {
            return self.breach(Breach::SnapshotConflict { last });
        }
        if agrees && last.index <= self.applied {
            return self.on_snapshot_taken(last);
        }
        let forgot = self.may_have_forgotten();
        self.on_applied(last.index);
        if agrees {
            self.commit_to(last.index);
            self.log.compact(last);
            self.durability.covered(last.index);
        } else {
            self.log.reset(last, Arc::clone(&membership));
            self.durability.reset(last.index);
            self.commit = last.index;
            self.transitions.push(Transition::Membership { index: last.index, membership });
            self.transitions.push(Transition::MembershipCommitted { index: last.index });
        }
        if forgot && !self.may_have_forgotten() {
            // It has what it may have lost. A start has to know, or it would wait for a leader again.
            self.durability.hard_state_changed();
        }
        // The stored log has to begin where this one does, or the next write would leave a gap in it.
        (self.snapshot, self.compact) = (last, Some(last));
        self.applied = self.applied.max(last.index);
        self.handed = self.handed.max(last.index);
    }

    /// The follower has to be asked anew where it is.
    pub(crate) fn on_snapshot_failed(&mut self, to: NodeId) {
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(progress) = leader.progress.get_mut(&to)
            && matches!(progress.mode, Mode::Snapshot { .. })
        {
            progress.probe(progress.matched.next());
        }
    }
}
